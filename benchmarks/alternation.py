"""Does the training loop of `wmhlib.training.run_epoch` cost more than Keras's `fit` with a callback for the adversary?

From the repository root, on any backend that Keras has (KERAS_BACKEND) and without any data:

    TF_NUM_INTRAOP_THREADS=1 .venv/bin/python benchmarks/alternation.py config/demo.yaml --steps 5 --rounds 6

Both train the same networks on the same random slices, one after the other, round by round. Output: a row per loss with the
milliseconds per step of both and the median of their ratio, and the loss that each logs last.
"""

import argparse
import time

import keras
import numpy as np

from wmhlib import features, training
from wmhlib.batches import ReadAhead, TrainingBatches, chosen_augmentations
from wmhlib.minmax import Adversary, Players, make_adversary
from wmhlib.study import Study, open_study


class Numbered(keras.utils.PyDataset):
    """Batches from `first` on, as `fit` takes them."""

    def __init__(self, batches: ReadAhead, first: int):
        super().__init__()
        self.batches, self.first = batches, first

    @property
    def num_batches(self) -> None:
        return None  # without end

    def __getitem__(self, number: int):
        return self.batches[self.first + number]


class Ascent(keras.callbacks.Callback):
    """Lets the adversary take its step before the generator's, on the batch fetched again."""

    def __init__(self, adversary: Adversary, batches: ReadAhead, first: int):
        super().__init__()
        self.adversary, self.batches, self.step = adversary, batches, first

    def on_train_batch_begin(self, batch, logs=None):
        if self.step % self.adversary.every == 0:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self.adversary.step(*self.batches[self.step])
        self.step += 1


def compared(study: Study, loss: str, steps: int, rounds: int) -> tuple[np.ndarray, list[float]]:
    """Seconds (round, loop or fit) without the first round, which compiles; and the loss that each logs last."""
    recipe, size = study.recipe(loss), study.config.preprocessing.size_px
    random = np.random.default_rng(0)
    images = random.random((64, size, size), np.float32)
    references = (random.random(images.shape) > 0.99).astype(np.uint8)
    rows, chosen = np.arange(len(images)), chosen_augmentations(recipe.augmentation)
    batches = TrainingBatches(images, references, rows, recipe.labels, recipe.training.batch_size, chosen, 1)
    pairs = []
    for _ in range(2):
        network = features.build(size, recipe.features["taps"]) if recipe.features else None
        learner = training.make_learner(recipe, size, 1, network)
        pairs.append((learner, make_adversary(learner, recipe.training.beta_1, recipe.training.beta_2)))
    (learner, adversary), (fitted, opponent) = pairs
    seconds, logged = np.zeros((rounds, 2)), [np.nan, np.nan]
    with ReadAhead(batches) as ours, ReadAhead(batches) as theirs:
        for turn in range(rounds):
            learner.begin_epoch(), fitted.begin_epoch()
            callbacks = [Ascent(opponent, theirs, turn * steps)] if opponent else []
            options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0, "callbacks": callbacks}
            calls = {
                0: lambda: training.run_epoch(
                    Players(learner, adversary),
                    ours,
                    range(turn * steps, (turn + 1) * steps),  # noqa: B023
                )["loss"],
                1: lambda: fitted.fit(Numbered(theirs, turn * steps), **options).history["loss"][-1],  # noqa: B023
            }
            for which in sorted(calls, reverse=turn % 2 == 1):  # each is first every other time
                started = time.perf_counter()
                logged[which] = float(calls[which]())
                seconds[turn, which] = time.perf_counter() - started
    return seconds[1:], logged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="config/demo.yaml")
    parser.add_argument("--steps", type=int, default=5, help="per round")
    parser.add_argument("--rounds", type=int, default=6, help="the first is not counted")
    arguments = parser.parse_args()
    study = open_study(arguments.config)
    print(
        f"{keras.backend.backend()}\n\n| loss | loop, ms | fit, ms | loop / fit | last loss, both |\n|---|---|---|---|---|"
    )
    for loss in study.losses:
        seconds, logged = compared(study, loss, arguments.steps, arguments.rounds)
        loop, fit = 1e3 * np.median(seconds, axis=0) / arguments.steps
        ratio = np.median(seconds[:, 0] / seconds[:, 1])
        print(f"| {loss} | {loop:.0f} | {fit:.0f} | {ratio:.2f} | {logged[0]:.6g}, {logged[1]:.6g} |", flush=True)


if __name__ == "__main__":
    main()
