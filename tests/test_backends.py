"""TensorFlow and JAX give the same value and first gradient of every loss, for the same weights and batch.

This file is also a program: it writes what the backend of its process gives into the file that is named.
"""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from wmhlib import features
from wmhlib.generator import dense_unet
from wmhlib.learner import COMPILED, Learner
from wmhlib.losses import LOSSES
from wmhlib.minmax import Adversary

KINDS = {
    "dice": {},
    "dice_cross_entropy": {},
    "lesion_wise": {},
    "tversky": {},
    "generalized_dice": {},
    "siamese": {},
    "siamese_minmax": {"normalise": True, "discriminator_rate": 1.0},
    "siamese_before": {"mask": "before", "generalized_dice": 1.0},
    "siamese_painted": {"mask": "painted"},
}


def first_steps() -> dict[str, np.ndarray]:
    """The value and first gradient of every loss, for each player."""
    random = np.random.default_rng(0)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    reference = (random.random((2, 32, 32, 1)) > 0.95).astype(np.float32)
    network = features.build(32)
    for layer in network.layers:
        layer.set_weights([random.normal(0, 0.05, weight.shape) for weight in layer.get_weights()])
    found = {}
    for name, settings in KINDS.items():
        kind = name if name in LOSSES else "siamese"
        network.trainable = kind == "siamese_minmax"
        criterion = LOSSES[kind](*([network] if LOSSES[kind].looks_at_features() else []), **settings)
        generator = dense_unet(32, filters=4, depth=1, convolutions=1)
        draws = np.random.default_rng(1)
        generator.set_weights(
            [draws.normal(0, 0.2, w.shape) ** (2 if w.ndim == 1 else 1) for w in generator.get_weights()]
        )
        players = [Learner(generator, criterion)]
        players += [Adversary(generator, criterion)] if kind == "siamese_minmax" else []
        for number, player in enumerate(players):
            before = [keras.ops.convert_to_numpy(w) for w in player.trainable_variables]
            player.compile(keras.optimizers.SGD(1.0), **COMPILED)
            loss = player.train_on_batch(image, reference, return_dict=True)["loss"]
            after = [keras.ops.convert_to_numpy(w) for w in player.trainable_variables]
            found[f"{name} {number} loss"] = loss
            found[f"{name} {number} gradient"] = np.concatenate(
                [(a - b).ravel() for a, b in zip(before, after, strict=True)]
            )
            for weight, value in zip(player.trainable_variables, before, strict=True):
                weight.assign(value)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_tensorflow_and_jax_agree_on_every_loss_and_its_first_gradient(tmp_path):
    [other] = {"tensorflow", "jax"} - {keras.backend.backend()}
    run = subprocess.run(
        [sys.executable, __file__, tmp_path / "found.npz"],
        env=os.environ | {"KERAS_BACKEND": other}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "found.npz", allow_pickle=False) as file:
        theirs = dict(file)
    found = first_steps()
    assert found.keys() == theirs.keys() and len(found) >= 14
    for name, values in found.items():
        apart = np.linalg.norm(values - theirs[name]) / np.linalg.norm(values)
        assert np.linalg.norm(values) > 0 and apart < 1e-4, f"{name}: {apart:.1e} apart"


if __name__ == "__main__":
    np.savez(sys.argv[1], **first_steps())
