"""Feature networks: VGG19, networks of keras.applications, and custom ones, on every backend."""

import keras
import numpy as np
import pytest
from conftest import gradient, naming
from keras import ops

from wmhlib import features
from wmhlib.generator import network_input
from wmhlib.siamese import SiameseContentLoss
from wmhlib.study import open_study

pytestmark = pytest.mark.jax

TAPS = ["block_1_expand_relu", "block_3_expand_relu"]


@pytest.fixture(scope="module")
def mobile() -> keras.Model:
    return features.build(32, TAPS, "MobileNetV2")


def masks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image as the generator takes it, a reference and a prediction."""
    random = np.random.default_rng(0)
    image = network_input(random.random((2, 32, 32)).astype(np.float32))
    return image, (random.random((2, 32, 32, 1)) > 0.9).astype(np.float32), np.full((2, 32, 32, 1), 0.3, np.float32)


def test_another_network_gives_the_layers_that_are_named(mobile):
    assert [tap.shape for tap in mobile.outputs] == [(None, 16, 16, 96), (None, 8, 8, 144)]
    assert not mobile.trainable_weights and mobile.weights
    kernel = mobile.get_layer("Conv1").kernel
    assert float(ops.std(kernel)) == pytest.approx(np.sqrt(2 / 27), rel=0.2), "He-normal"
    again = features.build(32, TAPS, "MobileNetV2")
    assert all(map(np.array_equal, mobile.get_weights(), again.get_weights())), "the same draw every time"


def test_another_network_sees_what_it_was_trained_on(mobile):
    grey = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    colour = np.repeat(grey[..., np.newaxis] * 255, 3, axis=-1)
    seen = mobile.get_layer("own_preprocessing")(ops.convert_to_tensor(network_input(grey)))
    expected = keras.applications.mobilenet_v2.preprocess_input(colour.copy())
    assert np.allclose(ops.convert_to_numpy(seen), expected, atol=1e-4)


def test_gradients_flow_through_another_network(mobile):
    image, reference, drawn = masks()
    loss = SiameseContentLoss(mobile).bound_to(image)
    assert float(loss(reference, reference)) == pytest.approx(0, abs=1e-6) and float(loss(reference, drawn)) > 0
    step = gradient(lambda y: loss(reference, y), drawn)
    assert np.isfinite(step).all() and np.abs(step).max() > 0


def test_taps_are_numbered_pools_or_names_of_layers():
    numbered, named = features.build(32, 1), features.build(32, ["block1_pool"])
    assert [tap.shape for tap in numbered.outputs] == [tap.shape for tap in named.outputs] == [(None, 16, 16, 64)]
    inner = features.build(32, ["block1_conv2", "block3_conv4"])
    assert [tap.shape[-1] for tap in inner.outputs] == [64, 256]
    assert inner.name == "vgg19_features"


@pytest.mark.parametrize(
    ("network", "taps", "said"),
    [
        ("vgg19", ["block9_pool"], "block9_pool"),
        ("vgg19", 6, "block6_pool"),
        ("MobileNetV2", ["block_99"], "block_99"),
        ("MobileNetV2", 2, "MobileNetV2"),
        ("VGG20", 2, "VGG20"),
    ],
)
def test_networks_and_taps_that_there_are_not_are_named(network, taps, said):
    with pytest.raises(ValueError, match=naming(said)):
        features.build(32, taps, network)


def test_weights_kept_as_arrays_fit_other_taps_and_sizes(tmp_path):
    whole = features.build(48, 3)
    whole.get_layer("block1_conv1").set_weights([w + 1 for w in whole.get_layer("block1_conv1").get_weights()])
    features.save_arrays(whole, tmp_path / "vgg19.npz")
    part = features.build(32, 1)
    features.load_arrays(part, tmp_path / "vgg19.npz")
    for layer in ("block1_conv1", "block1_conv2"):
        assert all(map(np.array_equal, part.get_layer(layer).get_weights(), whole.get_layer(layer).get_weights()))
    other = features.build(32, 2)
    features.copy_weights(whole, other)
    assert np.array_equal(other.get_weights()[0], whole.get_weights()[0])


def test_without_a_way_to_its_weights_another_network_is_random_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("wmhlib.intake.weights.VGG19_URL", "http://127.0.0.1:9/weights.h5")
    model, origin = features.load(32, TAPS, "MobileNetV2")
    assert origin["weights"] == "random" and origin["source"]
    assert np.array_equal(model.get_weights()[0], features.build(32, TAPS, "MobileNetV2").get_weights()[0])


def test_a_network_of_your_own_is_known_to_configurations(settings, write_config, registries):
    class Edges(features.FeatureNetwork, name="edges"):
        """Differences between neighbours: a network of one layer that needs no training."""

        def build(self, size):
            image = keras.Input((size, size, 3))
            layer = keras.layers.Conv2D(2, 3, padding="same", use_bias=False, name="edges")
            return keras.Model(image, layer(image))

    study = open_study(write_config(settings))
    changed = study.changed(
        losses={"siamese_edges": {"loss": "siamese", "network": "edges", "taps": ["edges"], "weights": "random"}}
    )
    assert changed.recipe("siamese_edges").features == {"network": "edges", "taps": ["edges"], "weights": "random"}
    assert changed.pretrained_taps == study.pretrained_taps, "it has no pretrained weights"
    model, origin = features.load(32, ["edges"], "edges")
    assert origin["weights"] == "random" and "edges" in origin["source"]
    image, reference, drawn = masks()
    assert float(SiameseContentLoss(model).bound_to(image)(reference, drawn)) > 0
    with pytest.raises(ValueError, match=naming(study.path, "losses.siamese", "edges")):
        study.changed(losses={"siamese": {"network": "edges"}})
