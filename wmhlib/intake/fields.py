"""Smooth random fields and resampling on grids with axes in mm, by one matrix product per axis.

Input: three axes (mm, ascending) and arrays on them. Output: float32 arrays on the same or other axes. A field is
defined on a fixed box of ±160 mm, so its value at a position does not depend on the sampling grid.
"""

import numpy as np
from scipy.interpolate import BSpline

Axes = list[np.ndarray]


def along(values: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Resample values from one grid to another with one matrix (new points, old points) per axis."""
    for matrix in reversed(matrices):
        # the new axis comes first: after three products the order is restored
        values = np.tensordot(matrix, values, axes=([1], [2]))
    return values


def smooth_field(random: np.random.Generator, axes: Axes, length_mm: float) -> np.ndarray:
    """A random field with correlation length of about `length_mm`, mean 0 and SD near 1, from cubic B-splines with
    standard normal coefficients."""
    knots = np.arange(-160 - 3 * length_mm, 160 + 3.5 * length_mm, length_mm)
    numbers = random.standard_normal((len(knots) - 4,) * 3, dtype=np.float32)
    bases = [BSpline.design_matrix(np.clip(axis, -159, 159), knots, 3).toarray().astype(np.float32) for axis in axes]
    used = [basis.any(0) for basis in bases]  # only knots near the grid: five times faster
    field = along(numbers[np.ix_(*used)], [basis[:, columns] for basis, columns in zip(bases, used, strict=True)])
    return field / np.float32(
        0.33
    )  # sqrt(0.479³): the mean sum of squared weights of a cubic B-spline is 0.479 per axis


def interpolation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Matrix of linear interpolation from an evenly spaced axis; beyond its ends, values fall to 0 within one step."""
    return np.maximum(0, 1 - np.abs(new[:, None] - old) / (old[1] - old[0])).astype(np.float32)


def resampled(values: np.ndarray, new: Axes, old: Axes) -> np.ndarray:
    """Values on the axes `old`, evenly spaced, interpolated linearly to the axes `new`."""
    return along(values, [interpolation(*pair) for pair in zip(new, old, strict=True)])


def profile(new: np.ndarray, old: np.ndarray, blur_mm: float, sharpened: float = 0) -> np.ndarray:
    """Matrix that samples an evenly spaced axis through a Gaussian with SD `blur_mm`; beyond its ends, values are 0.

    `sharpened` subtracts this fraction of a Gaussian 2.5 times as wide, which leaves dark seams along bright edges.
    """

    def gaussian(sd: float) -> np.ndarray:
        return np.exp(-0.5 * ((new[:, None] - old) / sd) ** 2) * (old[1] - old[0]) / (sd * np.sqrt(2 * np.pi))

    weights = (1 + sharpened) * gaussian(blur_mm) - sharpened * gaussian(2.5 * blur_mm)
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1)).astype(np.float32)


def step(distance: np.ndarray, width: float) -> np.ndarray:
    """A soft step: 1 for `distance` well above zero, 0 well below."""
    return 1 / (1 + np.exp(-np.clip(distance / np.float32(width), -30, 30)))
