"""Slices as augmented training batches.

In flow the memory-mapped slices; out flow endless batches `(image, reference)` of shapes (batch, size, size, 3) and
(batch, size, size, 1), float32. Batch n is a pure function of (seed, n): a training that stops can go on where it
was, and every loss of one seed sees the same slices turned by the same angles.
"""

import itertools
from collections.abc import Iterator

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


def training_batches(
    images: np.ndarray,
    references: np.ndarray,
    rows: np.ndarray,
    labels: str,
    batch_size: int,
    rotation_deg: float,
    seed: int,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches from the slices `rows`, beginning with batch number `first`.

    Every slice comes once before any comes again, in a new order each time round.
    """
    order, round_of_order = None, -1
    for number in itertools.count(first):
        positions = np.arange(number * batch_size, (number + 1) * batch_size)
        angles = np.random.default_rng([seed, 1, number]).uniform(-rotation_deg, rotation_deg, batch_size)
        pairs = []
        for position, angle in zip(positions, angles, strict=True):
            if position // len(rows) != round_of_order:
                round_of_order = position // len(rows)
                order = np.random.default_rng([seed, 0, round_of_order]).permutation(rows)
            row = order[position % len(rows)]
            pairs.append(
                turned(images[row], references[row], angle) if rotation_deg else (images[row], references[row])
            )
        image, reference = map(np.stack, zip(*pairs, strict=True))
        yield network_input(image), label_values(reference, labels)[..., np.newaxis]


def plain_batches(
    images: np.ndarray, references: np.ndarray, rows: np.ndarray, labels: str, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of the slices `rows` once, in order and as it is: what validation reads. The last batch may be smaller."""
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        yield network_input(images[some]), label_values(references[some], labels)[..., np.newaxis]
