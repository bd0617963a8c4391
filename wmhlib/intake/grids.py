"""Bring volumes to a common orientation, for any order and direction of the stored axes.

Input: NIfTI files or nibabel images. Output: images reoriented to the axes of the head, or to those of another image if
both cover the same voxels. All comparisons of two volumes use this module.
"""

from itertools import product
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import SpatialImage

from wmhlib.intake.headers import check_grid
from wmhlib.intake.nifti import DAMAGE, open_scan, read_scan, unreadable

Volume = str | Path | SpatialImage

GRID_TOLERANCE = 0.1
"""The largest distance between corner voxels of two equal grids, in voxels. Rounding errors are far smaller, and a grid
whose origin is a voxel's corner instead of its centre is 0.5 voxels away."""


def canonical(volume: Volume) -> SpatialImage:
    """A volume reoriented to the axes nearest to right, anterior, superior; slices of the third axis are axial.

    Raises FileNotFoundError, PermissionError and ValueError as `wmhlib.intake.nifti.read_scan`, and ValueError if the
    volume is not three-dimensional.
    """
    if isinstance(volume, str | Path):
        image = read_scan(volume)
        values = np.asanyarray(image.dataobj)
    else:
        image = volume
        try:
            check_grid(image.header.get_zooms()[:3], image.affine)
            values = np.asanyarray(nibabel.funcs.squeeze_image(image).dataobj)
        except DAMAGE as error:
            raise unreadable(name_of(volume), error) from None
    refuse_other_than_3d(name_of(volume), values.shape)
    return _turned(values, image.affine, io_orientation(image.affine))


def name_of(volume: Volume) -> str:
    return str(volume) if isinstance(volume, str | Path) else (volume.get_filename() or "(image in memory)")


def refuse_other_than_3d(name: str | Path, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise ValueError(f"{name} has {len(shape)} dimensions (shape {shape}): give one 3D volume.")


def laid_over(volume: Volume, grid: SpatialImage, names: str) -> SpatialImage:
    """A volume reoriented to the axes of `grid` and with its affine, so that equal indices are equal positions.

    Parameters
    ----------
    volume
        A 3D volume with any axis order.
    grid
        An image from `canonical`.
    names
        Names of both for error messages, `volume` last.

    Raises
    ------
    ValueError
        The volumes do not cover the same voxels: the shapes differ, or corners are more than `GRID_TOLERANCE` apart.
        Also as `canonical`.
    """
    image = canonical(volume)
    to_grid = np.linalg.inv(grid.affine) @ image.affine  # at 45 degrees the nearest axes of both may differ by rounding
    turned = _turned(np.asanyarray(image.dataobj), image.affine, io_orientation(to_grid))
    if turned.shape != grid.shape:
        what = f"shapes {grid.shape} and {turned.shape} (right, anterior, superior)"
    elif not (apart := _corners_apart(grid.shape, grid.affine, turned.affine)) <= GRID_TOLERANCE:
        what = f"corners up to {apart:.3g} voxels apart, more than {GRID_TOLERANCE}"
        if apart > min(grid.shape) / 2:
            raise ValueError(
                f"{names} have {what}: one header is probably wrong; copy it from the other if the voxels match."
            )
    else:
        return SpatialImage(np.asanyarray(turned.dataobj), grid.affine)
    raise ValueError(f"{names} must be on the same grid, but have {what}: resample the second to the first.")


def on_one_grid(one: str | Path, other: str | Path) -> bool:
    """Whether the headers of two scans describe the same voxels in any axis order. Errors as `open_scan`."""
    (shape, affine), (other_shape, other_affine) = turned_grid(open_scan(one)), turned_grid(open_scan(other))
    return shape == other_shape and _corners_apart(shape, affine, other_affine) <= GRID_TOLERANCE


def _corners_apart(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between the corners of two grids of one shape along an axis of the first, in its voxels."""
    corners = np.array(list(product(*((0, side - 1) for side in shape))))
    other_corners = nibabel.affines.apply_affine(np.linalg.inv(affine) @ other, corners)
    return float(np.abs(other_corners - corners).max())


def turned_grid(image: SpatialImage) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine that `canonical` would give an image, from its header alone."""
    turn, shape = io_orientation(image.affine), (*image.shape, 1, 1)[:3]
    sides = np.array(shape)[np.argsort(turn[:, 0])]
    return tuple(sides.tolist()), image.affine @ inv_ornt_aff(turn, shape)


def _turned(values: np.ndarray, affine: np.ndarray, turn: np.ndarray) -> SpatialImage:
    return SpatialImage(apply_orientation(values, turn), affine @ inv_ornt_aff(turn, values.shape))
