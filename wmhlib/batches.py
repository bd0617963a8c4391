"""Slices as augmented training batches.

In flow the memory-mapped slices; out flow batches `(image, reference)` of shapes (batch, size, size, 3) and
(batch, size, size, 1), float32. Batch n is a pure function of (seed, n): a training that stops can go on where it
was, and every loss of one seed sees the same slices turned by the same angles.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from scipy.ndimage import rotate

from wmhlib.slices import network_input

SOFT_BACKGROUND, SOFT_LESION = 0.1, 0.9
"""Soft-binarised label values (paper 3.2.2)."""


def label_values(reference: np.ndarray, labels: str) -> np.ndarray:
    """A boolean mask as training target, float32: `hard` 0/1, or `soft` 0.1/0.9 (paper 3.2.2; D-002)."""
    low, high = {"hard": (0, 1), "soft": (SOFT_BACKGROUND, SOFT_LESION)}[labels]
    return np.where(reference, high, low).astype(np.float32)


def turned(image: np.ndarray, reference: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """An image (size, size) and its mask rotated together about the centre.

    Linear interpolation; the outside repeats the edge, as Keras's generators do by default (paper 3.2.1). The mask is
    cut at one half.
    """
    settings = {"reshape": False, "order": 1, "mode": "nearest"}
    return rotate(image, angle_deg, **settings), rotate(reference.astype(np.float32), angle_deg, **settings) > 0.5


class _Batches:
    """Slices `rows` in batches that are asked for by their number."""

    def __init__(self, images: np.ndarray, references: np.ndarray, rows: np.ndarray, labels: str, batch_size: int):
        self.images, self.references, self.rows = images, references, rows
        self.labels, self.batch_size = labels, batch_size

    def _pair(self, image: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return network_input(image), label_values(reference, self.labels)[..., np.newaxis]


class TrainingBatches(_Batches):
    """Endless batches from the slices `rows`; number 0 is batch `first` of the seed.

    Every slice comes once before any comes again, in a new order each time round.
    """

    def __init__(
        self,
        images: np.ndarray,
        references: np.ndarray,
        rows: np.ndarray,
        labels: str,
        batch_size: int,
        rotation_deg: float,
        seed: int,
        first: int = 0,
    ):
        super().__init__(images, references, rows, labels, batch_size)
        self.rotation_deg, self.seed, self.first = rotation_deg, seed, first

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        number += self.first
        rounds, places = np.divmod(np.arange(number * self.batch_size, (number + 1) * self.batch_size), len(self.rows))
        orders = {one: np.random.default_rng([self.seed, 0, one]).permutation(self.rows) for one in np.unique(rounds)}
        rows = [orders[one][place] for one, place in zip(rounds, places, strict=True)]
        angles = np.random.default_rng([self.seed, 1, number]).uniform(
            -self.rotation_deg, self.rotation_deg, self.batch_size
        )
        pairs = [
            turned(self.images[row], self.references[row], angle) if angle else (self.images[row], self.references[row])
            for row, angle in zip(rows, angles, strict=True)
        ]
        return self._pair(*map(np.stack, zip(*pairs, strict=True)))


class PlainBatches(_Batches):
    """Each of the slices `rows` once, in order and as it is: what validation reads. The last batch may be smaller."""

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        some = self.rows[number * self.batch_size : (number + 1) * self.batch_size]
        return self._pair(self.images[some], self.references[some])


def cores() -> int:
    """Cores that this process may use: what it was told (`workflow/notebook.py --threads`), else all it is allowed."""
    told = int(os.environ.get("OMP_NUM_THREADS", 0))
    return told or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


class ReadAhead:
    """Batches made in threads before they are asked for, so that no training waits for them; any number may be asked for.

    The last few are kept, since both players of the min-max game take the same one.
    """

    def __init__(self, batches: TrainingBatches, threads: int | None = None):
        threads = threads or min(8, cores())
        self.batches, self.ahead, self.coming = batches, 2 * threads, {}
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = self._at(number)
        for later in range(number + 1, number + 1 + self.ahead):
            self._at(later)
        for earlier in [one for one in list(self.coming) if one < number - self.ahead]:
            self.coming.pop(earlier, None)
        return wanted.result()

    def _at(self, number: int) -> Future:
        batch = self.coming.get(number) or self.pool.submit(self.batches.__getitem__, number)
        self.coming[number] = batch  # two readers may ask at once: at worst a batch is made twice
        return batch
