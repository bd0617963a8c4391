"""The generator, VGG19 and its weights, and the losses, on every available backend of Keras."""

import http.server
import socket
import threading
import time

import h5py
import keras
import numpy as np
import pytest
from conftest import SHARED, gradient, naming
from keras import ops

from wmhlib import features, losses, siamese
from wmhlib.generator import IMAGENET_MEANS, Seeds, build, dense_unet, doubled, plain_unet
from wmhlib.intake import web, weights
from wmhlib.learner import PooledDice

pytestmark = pytest.mark.jax

WEIGHTS = SHARED / "weights" / "vgg19_imagenet_blocks1-3_notop.h5"


def column(*values: float) -> np.ndarray:
    """Values as one slice of one column: (1, n, 1, 1)."""
    return np.float32(values).reshape(1, -1, 1, 1)


def test_generator_shapes_and_its_quiet_start():
    network = dense_unet(32, filters=4, depth=2, convolutions=3, output_prior=0.1, seed=1)
    assert network.input_shape == (None, 32, 32, 3) and network.output_shape == (None, 32, 32, 1)
    x = np.random.default_rng(0).uniform(-120, 150, (2, 32, 32, 3)).astype(np.float32)
    y = ops.convert_to_numpy(network(x, training=True))
    assert abs(y.mean() - 0.1) < 0.02 and y.std() < 0.05


def test_generator_doubles_its_filters_at_every_pool():
    network = dense_unet(32, filters=4, depth=2, convolutions=2)
    widths = [layer.filters for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert widths == [4, 4, 8, 8, 16, 16, 4 * 8, 8, 8, 4 * 4, 4, 4, 1], "a doubling has four kernels of its width"
    assert {layer.negative_slope for layer in network.layers if isinstance(layer, keras.layers.LeakyReLU)} == {0.1}


def test_a_doubling_is_a_transposed_convolution_that_starts_as_keras_starts_it():
    image = keras.Input((6, 6, 5))
    network = keras.Model(image, doubled(image, 3, Seeds(1)))
    (kernel,) = network.get_weights()
    transposed = keras.layers.Conv2DTranspose(3, 2, strides=2, use_bias=False)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 5)).astype(np.float32)
    transposed(x)
    limit = np.abs(transposed.get_weights()[0]).max()
    assert 0.8 < np.abs(kernel).max() / limit < 1.25
    transposed.set_weights([kernel.reshape(5, 2, 2, 3).transpose(1, 2, 3, 0)])
    expected, found = (ops.convert_to_numpy(both(x)) for both in (transposed, network))
    assert found.shape == (2, 12, 12, 3) and np.allclose(found, expected, atol=1e-5)


def test_generator_weights_follow_from_the_seed():
    def first(seed):
        return np.concatenate([np.ravel(weight) for weight in dense_unet(16, 4, 1, 1, seed=seed).get_weights()])

    assert np.array_equal(first(3), first(3)) and not np.array_equal(first(3), first(4))


def test_generator_refuses_a_size_it_cannot_halve():
    with pytest.raises(ValueError, match=naming(36, 8)):
        dense_unet(36, depth=3)


def test_a_plain_network_answers_a_slice_alike_whatever_its_batch_and_brightness():
    network = plain_unet(32, filters=4, depth=2, convolutions=1, output_prior=0.1, seed=1)
    widths = [layer.filters for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert widths == [4, 8, 16, 4 * 8, 8, 4 * 4, 4, 1]
    x = np.random.default_rng(0).uniform(-120, 150, (3, 32, 32, 3)).astype(np.float32)
    network.layers[-1].set_weights([10 * network.layers[-1].get_weights()[0], np.zeros(1)])
    alone, among = (ops.convert_to_numpy(network(some, training=True)) for some in (x[:1], x))
    assert np.allclose(alone[0], among[0], atol=1e-5) and not np.allclose(among[1], among[0], atol=1e-2)
    with pytest.raises(ValueError, match=naming(36, 8)):
        build(36, "plain_unet", depth=3)
    assert build(32, depth=1).name == "dense_unet"


def test_dice_by_hand():
    # both = 0.5, sums 1 + 1: 1 - (1 + 1) / (2 + 1)
    assert float(losses.DiceLoss()(column(1, 0), column(0.5, 0.5))) == pytest.approx(1 / 3)
    assert float(losses.DiceLoss()(column(0, 0), column(0, 0))) == pytest.approx(0)


def test_dice_with_cross_entropy_by_hand():
    # Dice as above; cross-entropy log 2 in both pixels
    loss = losses.DiceCrossEntropyLoss(cross_entropy=2.0)
    assert float(loss(column(1, 0), column(0.5, 0.5))) == pytest.approx(1 / 3 + 2 * np.log(2), rel=1e-5)
    assert np.isfinite(float(loss(column(1, 0), column(0, 1)))), "a certain error does not end a training"


def test_a_lesion_counts_whatever_its_size():
    reference = np.zeros((1, 64, 64, 1), np.float32)
    reference[0, 10:14, 10:14] = reference[0, 50, 50] = 1  # 16 pixels and 1 pixel
    alone = losses.LesionWiseLoss(cross_entropy=0.0)
    usual = losses.DiceLoss()
    by_hand = {}
    for name, (large, small) in {"large": (0.5, 1.0), "small": (1.0, 0.5), "both": (0.5, 0.5)}.items():
        drawn = reference.copy()
        drawn[0, 10:14, 10:14], drawn[0, 50, 50] = large, small
        by_hand[name] = float(alone(reference, drawn)) - float(usual(reference, drawn))
    log2 = np.log(2)
    assert by_hand == pytest.approx({"large": log2 / 2, "small": log2 / 2, "both": log2}, rel=1e-4)
    assert float(alone(np.zeros_like(reference), np.zeros_like(reference))) == pytest.approx(0, abs=1e-5)


def test_tversky_by_hand():
    # TP 0.5, FP 0.5, FN 0.5: 1 - 1.5 / (0.5 + 0.15 + 0.35 + 1)
    assert float(losses.TverskyLoss()(column(1, 0), column(0.5, 0.5))) == pytest.approx(0.25)
    missed = float(losses.TverskyLoss()(column(1, 1, 0, 0), column(1, 0, 0, 0)))
    invented = float(losses.TverskyLoss()(column(1, 1, 0, 0), column(1, 1, 1, 0)))
    assert missed > invented, "beta 0.7 makes a missed voxel dearer than an invented one"


def test_generalized_dice_by_hand():
    # lesion volume 1, weight 1; background volume 3, weight 1/9; prediction half everywhere
    # both: 1 * 0.5 + 1.5 / 9; either: 1 * (1 + 2) + (3 + 2) / 9
    expected = 1 - 2 * (0.5 + 1.5 / 9) / (3 + 5 / 9)
    assert float(losses.GeneralizedDiceLoss()(column(1, 0, 0, 0), column(0.5, 0.5, 0.5, 0.5))) == pytest.approx(
        expected
    )
    assert float(losses.GeneralizedDiceLoss()(column(0, 0), column(0, 0))) == pytest.approx(0), "no lesion, none drawn"


@pytest.mark.parametrize(
    "name", ["dice", "dice_cross_entropy", "lesion_wise", "tversky", "generalized_dice", "siamese"]
)
def test_every_loss_prefers_the_reference_and_has_finite_gradients(name):
    random = np.random.default_rng(0)
    reference = (random.random((2, 32, 32, 1)) > 0.97).astype(np.float32)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    kind = losses.LOSSES[name]
    loss = kind(*([features.build(32)] if kind.looks_at_features() else [])).bound_to(image)
    perfect, half, nothing = (float(loss(reference, reference * share)) for share in (1, 0.5, 0))
    assert perfect == pytest.approx(0, abs=1e-4) and perfect < half < nothing
    step = gradient(lambda y: loss(reference, y), np.full_like(reference, 0.3))
    assert np.isfinite(step).all() and step[reference == 1].mean() < 0, "more lesion where there is lesion"


def test_siamese_is_equation_1_at_each_tap():
    random = np.random.default_rng(1)
    network = features.build(32)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    y, drawn = random.random((2, 2, 32, 32, 1)).astype(np.float32)
    loss = siamese.SiameseContentLoss(network).bound_to(image)
    distances = [float(one) for one in loss.distances(y, drawn)]
    pairs = zip(network(image * y), network(image * drawn), strict=True)
    by_hand = [np.mean((ops.convert_to_numpy(a) - ops.convert_to_numpy(b)) ** 2) for a, b in pairs]
    assert distances == pytest.approx(by_hand, rel=1e-4) and float(loss(y, drawn)) == pytest.approx(
        sum(by_hand), rel=1e-4
    )


def test_a_painted_mask_is_white_on_the_whole_image_and_grey_tissue_is_not_free():
    grey = np.zeros((1, 32, 32, 3), np.float32)  # ImageNet's mean colour
    lesion = np.zeros((1, 32, 32, 1), np.float32)
    lesion[0, 8:16, 8:16] = 1
    network = features.build(32)
    painted = siamese.SiameseContentLoss(network, mask="painted").bound_to(grey)
    seen = ops.convert_to_numpy(painted.masked(lesion)) + np.array(IMAGENET_MEANS, np.float32)
    assert seen[0, 10, 10] == pytest.approx([255] * 3) and seen[0, 0, 0] == pytest.approx(IMAGENET_MEANS)
    nothing = np.zeros_like(lesion)
    assert float(painted(nothing, lesion)) > 0
    assert float(siamese.SiameseContentLoss(network).bound_to(grey)(nothing, lesion)) == pytest.approx(0, abs=1e-6)


def test_no_gradient_flows_along_the_reference_path():
    random = np.random.default_rng(1)
    image = random.uniform(-100, 150, (1, 32, 32, 3)).astype(np.float32)
    drawn = random.random((1, 32, 32, 1)).astype(np.float32)
    loss = siamese.SiameseContentLoss(features.build(32)).bound_to(image)
    assert not gradient(lambda y: loss(y, drawn), np.full((1, 32, 32, 1), 0.5, np.float32)).any()


def test_the_loss_comes_from_where_the_masks_differ():
    image = np.random.default_rng(2).uniform(-100, 150, (1, 64, 64, 3)).astype(np.float32)
    whole, part = np.zeros((2, 1, 64, 64, 1), np.float32)
    whole[0, 4:12, 4:12] = whole[0, 50:60, 50:60] = part[0, 50:60, 50:60] = 1
    loss = siamese.SiameseContentLoss(features.build(64)).bound_to(image)
    squares = [ops.convert_to_numpy(tap)[0] for tap in loss.squared_differences(whole, part)]
    assert [tap.shape for tap in squares] == [(32, 32, 64), (16, 16, 128)]
    for tap in squares:
        corner = tap.shape[0] // 2
        assert tap[:corner, :corner].max() > 0 and tap[corner:, corner:].max() == 0
    assert sum(tap.mean() for tap in squares) == pytest.approx(float(loss(whole, part)), rel=1e-4)


def test_an_unbound_siamese_loss_says_what_to_do():
    with pytest.raises(ValueError, match="bound_to"):
        siamese.SiameseContentLoss(features.build(32))(column(1), column(1))


def test_features_have_the_papers_shapes_and_are_frozen():
    network = features.build(224)
    assert [tap.shape for tap in network.outputs] == [(None, 112, 112, 64), (None, 56, 56, 128)]
    assert not network.trainable_weights and len(network.weights) == 8


def test_pooled_dice_counts_all_slices_together():
    metric = PooledDice()
    metric.update_state(column(1, 1, 0, 0), column(0.9, 0.2, 0.6, 0.1))
    metric.update_state(column(0, 0, 0, 0), column(0.1, 0.1, 0.1, 0.1))
    assert float(metric.result()) == pytest.approx(0.5)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no VGG19 weights next to the project")
def test_named_weights_are_used_and_reported(monkeypatch):
    monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(WEIGHTS))
    network, origin = features.load(32)
    assert origin["weights"] == "imagenet" and WEIGHTS.name in origin["source"] and len(origin["sha256"]) == 64
    with h5py.File(WEIGHTS) as file:
        stored = file["block1_conv1"]["block1_conv1_W_1:0"][()]
    assert np.array_equal(network.get_layer("block1_conv1").get_weights()[0], stored)


@pytest.mark.parametrize("content", [b"", b"not a file of weights", None])
def test_wrong_weights_files_are_refused_by_name(monkeypatch, tmp_path, content):
    path = tmp_path / "weights.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file.create_group("block1_conv1")
    else:
        path.write_bytes(content)
    monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(path))
    with pytest.raises(ValueError, match=naming(path)):
        features.load(32)
    monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(tmp_path / "nowhere.h5"))
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "nowhere.h5")):
        features.load(32)


def stored(path, listed=True, **change):
    """A file of weights in Keras's layout; `change` replaces a layer's kernel."""
    layers = [layer for layer in features.build(32).layers if layer.weights]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in layers if listed]
        for layer in layers:
            kernel, bias = layer.get_weights()
            group = file.create_group(layer.name)
            group["kernel"], group["bias"] = change.get(layer.name, kernel), bias
            group.attrs["weight_names"] = ["kernel", "bias"]


@pytest.mark.slow
def test_weights_cut_short_unlisted_or_of_another_shape_are_refused_by_name(monkeypatch, tmp_path):
    path = tmp_path / "weights.h5"
    monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(path))
    stored(path)
    assert features.load(32)[1]["weights"] == "imagenet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=naming(path)):
        features.load(32)
    stored(path, block2_conv1=np.zeros((3, 3, 64, 96), np.float32))
    with pytest.raises(ValueError, match=naming(path, "block2_conv1", "(3, 3, 64, 96)")) as raised:
        features.load(32)
    assert "\n" not in str(raised.value)
    stored(path, listed=False)
    with pytest.raises(ValueError, match=naming(path, "block1_conv1", "block1_conv2")):
        features.load(32)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("WMH_VGG19_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def test_no_network_means_random_features_said_so(monkeypatch, empty_cache):
    monkeypatch.setattr(weights, "VGG19_URL", "http://127.0.0.1:9/vgg19.h5")
    network, origin = features.load(32)
    assert origin["weights"] == "random" and origin["source"]
    spread = float(ops.std(network.get_layer("block1_conv2").kernel))
    assert spread == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.1), "He-normal"


def test_a_silent_network_is_noticed_within_seconds(monkeypatch, empty_cache):
    with socket.socket() as listener:  # accepts, and never answers
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(weights, "VGG19_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/vgg19.h5")
        monkeypatch.setattr(web, "REACH_S", 1)
        started = time.monotonic()
        assert features.load(32)[1]["weights"] == "random"
        assert time.monotonic() - started < 6


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no VGG19 weights next to the project")
def test_weights_are_downloaded_once(monkeypatch, empty_cache):
    import hashlib

    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append("HEAD")
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            asked.append("GET")
            content = WEIGHTS.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(weights, "VGG19_URL", f"http://127.0.0.1:{server.server_port}/vgg19.h5")
        monkeypatch.setattr(weights, "VGG19_MD5", hashlib.md5(WEIGHTS.read_bytes()).hexdigest())
        first, second = features.load(32)[1], features.load(32)[1]
        server.shutdown()
    assert first == second and first["weights"] == "imagenet" and asked == ["HEAD", "GET"]
