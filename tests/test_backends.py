"""TensorFlow and JAX give the same value and first gradient of every loss, for the same weights and batch."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import sys
import keras
import numpy as np
from wmhlib import features
from wmhlib.generator import dense_unet
from wmhlib.learner import Learner
from wmhlib.losses import LOSSES
from wmhlib.minmax import Adversary

random = np.random.default_rng(0)
image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
reference = (random.random((2, 32, 32, 1)) > 0.95).astype(np.float32)
network = features.build(32)
for layer in network.layers:
    layer.set_weights([random.normal(0, 0.05, weight.shape) for weight in layer.get_weights()])
kinds = {"dice": {}, "dice_cross_entropy": {}, "lesion_wise": {}, "tversky": {}, "generalized_dice": {}, "siamese": {}, "siamese_minmax": {"normalise": True, "discriminator_rate": 1.0}}
kinds |= {"siamese_before": {"mask": "before", "generalized_dice": 1.0}, "siamese_painted": {"mask": "painted"}}
found = {}
for name, settings in kinds.items():
    kind = "siamese" if name in ("siamese_before", "siamese_painted") else name
    network.trainable = kind == "siamese_minmax"
    criterion = LOSSES[kind](*([network] if LOSSES[kind].looks_at_features() else []), **settings)
    generator = dense_unet(32, 4, 2, 2)
    draws = np.random.default_rng(1)
    generator.set_weights([draws.normal(0, 0.2, w.shape) ** (2 if w.ndim == 1 else 1) for w in generator.get_weights()])
    players = [Learner(generator, criterion)]
    players += [Adversary(generator, criterion)] if kind == "siamese_minmax" else []
    for number, player in enumerate(players):
        before = [keras.ops.convert_to_numpy(w) for w in player.trainable_variables]
        player.compile(keras.optimizers.SGD(1.0), jit_compile=keras.backend.backend() == "jax")
        loss = player.train_on_batch(image, reference, return_dict=True)["loss"]
        after = [keras.ops.convert_to_numpy(w) for w in player.trainable_variables]
        found[f"{name} {number} loss"] = loss
        found[f"{name} {number} gradient"] = np.concatenate([(a - b).ravel() for a, b in zip(before, after)])
        for weight, value in zip(player.trainable_variables, before):
            weight.assign(value)
np.savez(sys.argv[1], **found)
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_tensorflow_and_jax_agree_on_every_loss_and_its_first_gradient(tmp_path):
    found = {}
    for backend in ("tensorflow", "jax"):
        path = tmp_path / f"{backend}.npz"
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, path],
            env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        with np.load(path, allow_pickle=False) as file:
            found[backend] = dict(file)
    assert found["tensorflow"].keys() == found["jax"].keys() and len(found["jax"]) >= 14
    for name, ours in found["tensorflow"].items():
        apart = np.linalg.norm(ours - found["jax"][name]) / np.linalg.norm(ours)
        assert np.linalg.norm(ours) > 0 and apart < 1e-4, f"{name}: {apart:.1e} apart"
