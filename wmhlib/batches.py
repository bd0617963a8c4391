"""Slices as augmented training batches.

In flow the memory-mapped slices; out flow batches `(image, reference)` of shapes (batch, size, size, 3) and
(batch, size, size, 1), float32. Batch n is a pure function of (seed, n): a training that stops can go on where it
was, and every loss of one seed sees the same slices turned by the same angles.
"""

import math

import keras
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


class TrainingBatches(keras.utils.PyDataset):
    """Endless batches from the slices `rows`; number 0 is batch `first` of the seed.

    Every slice comes once before any comes again, in a new order each time round. A batch is asked for by its number, and
    not drawn from a stream, since Keras may open a data set twice and read ahead: on several devices it does.
    """

    num_batches = None

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
        super().__init__()
        self.images, self.references, self.rows, self.labels = images, references, rows, labels
        self.batch_size, self.rotation_deg, self.seed, self.first = batch_size, rotation_deg, seed, first

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
        image, reference = map(np.stack, zip(*pairs, strict=True))
        return network_input(image), label_values(reference, self.labels)[..., np.newaxis]


class PlainBatches(keras.utils.PyDataset):
    """Each of the slices `rows` once, in order and as it is: what validation reads. The last batch may be smaller."""

    def __init__(self, images: np.ndarray, references: np.ndarray, rows: np.ndarray, labels: str, batch_size: int):
        super().__init__()
        self.images, self.references, self.rows, self.labels = images, references, rows, labels
        self.batch_size = batch_size

    @property
    def num_batches(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        some = self.rows[number * self.batch_size : (number + 1) * self.batch_size]
        return network_input(self.images[some]), label_values(self.references[some], self.labels)[..., np.newaxis]
