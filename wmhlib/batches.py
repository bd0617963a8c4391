"""Slices as augmented training batches (paper 3.2.1).

Input: memory-mapped slices. Output: batches `(image, reference)` of shapes (batch, size, size, 3) and (batch, size,
size, 1), float32. Batch n depends only on (seed, n), so an interrupted training can resume, and all losses of one seed
see the same slices with the same augmentation.
"""

import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from wmhlib.augmentations import AUGMENTATIONS
from wmhlib.generator import network_input

SOFT_BACKGROUND, SOFT_LESION = 0.1, 0.9
"""Values of soft labels (paper 3.2.2)."""

Pair = tuple[np.ndarray, np.ndarray]
"""An image and its reference, of one slice or of a batch."""


LABEL_VALUES = {"hard": (0.0, 1.0), "soft": (SOFT_BACKGROUND, SOFT_LESION)}
"""Target values of background and lesion (paper 3.2.2; D-002)."""


def label_values(reference: np.ndarray, labels: str) -> np.ndarray:
    """A boolean mask as training target, float32; `labels` is a key of `LABEL_VALUES`."""
    low, high = LABEL_VALUES[labels]
    return np.where(reference, high, low).astype(np.float32)


def chosen_augmentations(settings: Mapping[str, float]) -> list[functools.partial]:
    """The augmentations of a configuration, in its order, as functions of (image, reference, random); without amounts
    of 0."""
    return [functools.partial(AUGMENTATIONS[name], most=amount) for name, amount in settings.items() if amount]


class _Batches:
    """Batches of the slices `rows`, indexed by number."""

    def __init__(self, images: np.ndarray, references: np.ndarray, rows: np.ndarray, labels: str, batch_size: int):
        self.images, self.references, self.rows = images, references, rows
        self.labels, self.batch_size = labels, batch_size

    def _pair(self, image: np.ndarray, reference: np.ndarray) -> Pair:
        return network_input(image), label_values(reference, self.labels)[..., np.newaxis]


class TrainingBatches(_Batches):
    """Endless batches of the slices `rows`. Every slice comes once per round, in a new random order each round.

    Each of `augmentations`, functions of (image, reference, random), has its own random numbers, so adding one at the
    end does not change the others.
    """

    def __init__(
        self,
        images: np.ndarray,
        references: np.ndarray,
        rows: np.ndarray,
        labels: str,
        batch_size: int,
        augmentations: Sequence[functools.partial],
        seed: int,
    ):
        super().__init__(images, references, rows, labels, batch_size)
        self.augmentations, self.seed = augmentations, seed

    def __getitem__(self, number: int) -> Pair:
        pairs = [(self.images[row], self.references[row]) for row in self.rows_of(number)]
        for position, augmentation in enumerate(self.augmentations, start=1):
            random = self.random(position, number)
            pairs = [augmentation(image, reference, random) for image, reference in pairs]
        return self._pair(*map(np.stack, zip(*pairs, strict=True)))

    def rows_of(self, number: int) -> list[int]:
        """The rows of the slices in batch `number`."""
        rounds, places = np.divmod(np.arange(number * self.batch_size, (number + 1) * self.batch_size), len(self.rows))
        orders = {
            turn: np.random.default_rng([self.seed, 0, turn]).permutation(self.rows) for turn in np.unique(rounds)
        }
        return [orders[turn][place] for turn, place in zip(rounds, places, strict=True)]

    def random(self, position: int, number: int) -> np.random.Generator:
        """The random numbers of the augmentation at this position (from 1) for batch `number`."""
        return np.random.default_rng([self.seed, position, number])


class PlainBatches(_Batches):
    """Batches of the slices `rows` in order, without augmentation, for validation. The last batch may be smaller."""

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Pair:
        rows = self.rows[number * self.batch_size : (number + 1) * self.batch_size]
        return self._pair(self.images[rows], self.references[rows])


def cores() -> int:
    """The number of cores for this process: that given by `workflow/notebook.py --threads`, or all available ones."""
    told = int(os.environ.get("OMP_NUM_THREADS", 0))
    return told or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def has_gpu() -> bool:
    """Whether Keras sees a GPU."""
    return any(str(device).lower().startswith("gpu") for device in keras.distribution.list_devices())


class ReadAhead:
    """Batches prepared in advance by threads, up to number `end`, so that training does not wait for them (D-039)."""

    def __init__(self, batches: TrainingBatches, threads: int | None = None, end: int | None = None):
        threads = threads or min(8, cores())
        self.batches, self.ahead, self.end = batches, 2 * threads, end
        self.coming: dict[int, Future] = {}
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    def __getitem__(self, number: int) -> Pair:
        last = number + self.ahead if self.end is None else min(number + self.ahead, self.end - 1)
        wanted = range(number, max(number, last) + 1)
        self.coming = {n: self.coming.get(n) or self.pool.submit(self.batches.__getitem__, n) for n in wanted}
        return self.coming[number].result()

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown(cancel_futures=True)  # unused batches are dropped
