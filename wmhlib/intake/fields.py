"""Smooth random fields and resampling on grids whose axes are given in mm, one matrix product an axis.

Input: three axes (mm, ascending) and arrays on them. Output: float32 arrays on the same or on other axes. A field spans a
fixed box of ±160 mm, so what it is at a place does not depend on the grid that samples it.
"""

import numpy as np
from scipy.interpolate import BSpline

Axes = list[np.ndarray]


def along(values: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Values on one grid brought to another: a matrix (new points, old points) for each axis."""
    for matrix in reversed(matrices):
        # the axis done moves first: after three, all are in order
        values = np.tensordot(matrix, values, axes=([1], [2]))
    return values


def smooth_field(random: np.random.Generator, axes: Axes, length_mm: float) -> np.ndarray:
    """A random field that varies over about `length_mm`, mean 0 and SD near 1: cubic B-splines on standard normal numbers."""
    knots = np.arange(-160 - 3 * length_mm, 160 + 3.5 * length_mm, length_mm)
    numbers = random.standard_normal((len(knots) - 4,) * 3, dtype=np.float32)
    bases = [BSpline.design_matrix(np.clip(axis, -159, 159), knots, 3).toarray().astype(np.float32) for axis in axes]
    used = [basis.any(0) for basis in bases]  # knots near the grid alone: the product costs a fifth
    field = along(numbers[np.ix_(*used)], [basis[:, some] for basis, some in zip(bases, used, strict=True)])
    return field / np.float32(0.33)  # sqrt(0.479³): the mean square of a cubic spline's weights is 0.479 an axis


def interpolation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The matrix of linear interpolation from an even axis to other points; beyond its ends it falls to zero within a step."""
    return np.maximum(0, 1 - np.abs(new[:, None] - old) / (old[1] - old[0])).astype(np.float32)


def profile(new: np.ndarray, old: np.ndarray, blur_mm: float, sharpened: float = 0) -> np.ndarray:
    """The matrix that measures an even axis through a Gaussian of SD `blur_mm`; beyond its ends lies zero.

    `sharpened` takes away that share of a Gaussian 2.5 times as wide, and so leaves dark seams along bright edges.
    """

    def gaussian(sd: float) -> np.ndarray:
        return np.exp(-0.5 * ((new[:, None] - old) / sd) ** 2) * (old[1] - old[0]) / (sd * np.sqrt(2 * np.pi))

    weights = (1 + sharpened) * gaussian(blur_mm) - sharpened * gaussian(2.5 * blur_mm)
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1)).astype(np.float32)


def step(distance: np.ndarray, width: float) -> np.ndarray:
    """A soft edge: 1 where `distance` is well above zero, 0 well below."""
    return 1 / (1 + np.exp(-np.clip(distance / np.float32(width), -30, 30)))
