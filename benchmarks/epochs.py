"""How fast a training goes with its slices on the device, and with batches from the host, for each loss of a study.

From the repository root, with KERAS_BACKEND=jax and without any data; meant for a GPU:

    KERAS_BACKEND=jax .venv/bin/python benchmarks/epochs.py config/paper.yaml --precision mixed_bfloat16

Slices are random, weights untrained. Output, as Markdown, a row for each loss: slices per second both ways (the median of
`--epochs` epochs, after one that compiles), and the seconds that validation and batch norm's measurement take per epoch.
"""

import argparse
import time
from collections.abc import Callable

import keras
import numpy as np

from wmhlib import features, gpu, training
from wmhlib.learner import precision
from wmhlib.minmax import make_players
from wmhlib.study import open_study

SLICES, VALIDATED = 2000, 500
"""As many as a study of the paper's size has."""


def seconds(call: Callable, *arguments) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def row(study, loss: str, epochs: int) -> str:
    """A loss's row of the table."""
    recipe, size = study.recipe(loss), study.config.preprocessing.size_px
    network = features.build(size, recipe.features["taps"], recipe.features["network"]) if recipe.features else None
    random = np.random.default_rng(0)
    images = random.random((SLICES + VALIDATED, size, size), np.float32)
    references = (random.random(images.shape) > 0.99).astype(np.uint8)
    steps, per_epoch = recipe.training.steps_per_epoch, recipe.training.steps_per_epoch * recipe.training.batch_size
    learner, rows = training.make_learner(recipe, size, 1, network), np.arange(len(images))
    with training.make_data(recipe, images, references, rows[:SLICES], rows[SLICES:], seed=1) as data:
        players = make_players(learner, recipe.training, data.measuring[0], [])
        players.variables()
        cells = []
        for way in (gpu.OnDevice(players, data), training.OnHost(players, data)):
            took = []
            for epoch in range(epochs + 1):
                numbers = range(epoch * steps, (epoch + 1) * steps)
                calls = [(way.run_epoch, numbers), (way.measure,), (way.validation_dice,)]
                took.append([seconds(*call) for call in calls])
            run, measure, validate = np.median(took[1:], axis=0)
            cells += [f"{per_epoch / run:.0f}", f"{validate:.2f}", f"{measure:.2f}"]
    return f"| {loss} | {' | '.join(cells)} |"


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("config", nargs="?", default="config/paper.yaml")
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16", "auto"], default="auto")
    parser.add_argument("--epochs", type=int, default=3, help="timed, of each loss and way")
    arguments = parser.parse_args()
    if keras.backend.backend() != "jax":
        parser.error("slices stay on the device with JAX alone: set KERAS_BACKEND=jax.")
    study = open_study(arguments.config)
    print("| loss | device: slices/s | validation s | batch norm s | host: slices/s | validation s | batch norm s |")
    print("|---|---|---|---|---|---|---|")
    with precision(arguments.precision) as policy:
        for loss in study.losses:
            print(row(study, loss, arguments.epochs), flush=True)
    devices = ", ".join(map(str, keras.distribution.list_devices()))
    print(f"\n{study.config.preprocessing.size_px} pixels, {policy}; Keras {keras.__version__} on {devices}.")


if __name__ == "__main__":
    main()
