"""The benchmarks run, and their results are correct."""

import math
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec

import keras
import pytest

from wmhlib import features
from wmhlib.generator import build, dense_unet
from wmhlib.running.files import ROOT
from wmhlib.study import open_study

SCRIPT = ROOT / "benchmarks" / "train_step.py"


@pytest.fixture(scope="module")
def counting() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        return runpy.run_path(str(SCRIPT))


def test_without_pytorch_the_comparison_ends_in_one_sentence(counting):
    if find_spec("torch"):
        pytest.skip("torch is installed")
    generator = open_study(ROOT / "config" / "demo.yaml").config.generator
    with pytest.raises(SystemExit, match="--python whose environment has torch"):
        counting["InTorch"](sys.executable, generator, 32, 2)


def test_peers_start_from_random_weights_although_their_study_starts_from_the_bundled_network():
    """That network has other layers than eight filters, so starting from it would be refused."""
    peers = runpy.run_path(str(ROOT / "benchmarks" / "peers.py"))
    study = open_study(ROOT / "config" / "candidates.yaml").changed(
        generator={"filters": 8}, preprocessing={"size_px": 32}
    )
    ours = peers["Ours"](study, "dice", "plain_unet", 3)
    assert ours.weights < 300_000 and study.config.training.start == "bundled"


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize("network", ["dense_unet", "plain_unet"])
def test_the_network_in_pytorch_is_the_same(counting, network):
    settings = open_study(ROOT / "config" / "demo.yaml").config.generator.model_copy(update={"network": network})
    torch = counting["InTorch"](sys.executable, settings, 32, 2)
    ours = build(32, network, filters=settings.filters, depth=settings.depth, convolutions=settings.convolutions)
    assert torch.weights == sum(math.prod(weight.shape) for weight in ours.trainable_weights)
    torch.step()
    torch.close()


def test_operations_by_hand(counting):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4 x 4 places
    x = keras.layers.Concatenate()([x, keras.layers.LeakyReLU()(x)])
    x = keras.layers.Conv2DTranspose(5, 2, strides=2)(x)  # from 4 x 4 places of 8 channels
    tiny = keras.Model(image, keras.layers.Conv2D(1, 1)(x))  # 8 x 8 places
    first, second, third = 2 * 9 * 3 * 4 * 16, 2 * 4 * 8 * 5 * 16, 2 * 5 * 64
    assert counting["forward_operations"](tiny) == [first, second, third]
    assert counting["step_operations"](tiny, None, game=False) == [2 * first + 3 * second + 3 * third]


def test_operations_of_the_networks_are_those_of_the_decisions(counting):
    paper = sum(counting["forward_operations"](dense_unet(224, 32, 4, 2)))
    assert paper == pytest.approx(39.7e9, rel=0.01), "D-005"
    small, vgg19 = dense_unet(96, 12, 4, 2), features.build(96)
    (dice,), (siamese,) = (counting["step_operations"](small, seen, False) for seen in (None, vgg19))
    adversary, step = counting["step_operations"](small, vgg19, True)
    assert [8 * count / 1e9 for count in (dice, siamese)] == pytest.approx([25, 67], rel=0.02), "D-013"
    forward, first = counting["forward_operations"](vgg19), 2 * 9 * 3 * 64 * 96**2
    assert step == siamese and forward[0] == first
    assert adversary == sum(counting["forward_operations"](small)) + 6 * sum(forward) - 2 * first


@pytest.mark.slow
def test_the_step_benchmark_has_a_row_for_every_loss(tmp_path):
    config = tmp_path / "shallow.yaml"
    config.write_text(
        f"base: {ROOT / 'config' / 'demo.yaml'}\ngenerator: {{depth: 1, convolutions: 1}}\n"
        "losses: {tversky: null, generalized_dice: null}\n",
        encoding="utf-8",
    )
    run = subprocess.run(
        [sys.executable, SCRIPT, config, "--size", "32", "--filters", "4", "--steps", "2", "--precision", "float32"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("32 pixels, batches of 8, float32;")
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")]
    assert [row[0][2:] for row in rows[1:]] == ["dice", "siamese", "siamese_minmax"]
    assert all(float(cell.strip(" |")) >= 0 for row in rows[1:] for cell in row[1:])
    assert "1.15" in run.stdout and "Input pipeline" in run.stdout and "adversary" in run.stdout


@pytest.mark.slow
def test_the_benchmark_of_epochs_times_both_ways(tmp_path):
    config = tmp_path / "small.yaml"
    small = "generator: {filters: 2, depth: 1, convolutions: 1}\npreprocessing: {size_px: 16}\n"
    small += "losses: {tversky: null, generalized_dice: null, siamese: null, siamese_minmax: null}\n"
    steps = "training: {steps_per_epoch: 2, batch_norm_batches: 1}\n"
    config.write_text(f"base: {ROOT / 'config' / 'demo.yaml'}\n{small}{steps}", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "epochs.py", config, "--epochs", "1", "--precision", "float32"],
        capture_output=True, text=True, timeout=300, env=os.environ | {"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")]
    assert [row[0][2:] for row in rows[1:]] == ["dice"]
    assert all(float(cell.strip(" |")) >= 0 for row in rows[1:] for cell in row[1:])
