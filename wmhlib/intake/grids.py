"""Volumes that can be laid over each other, whatever way their files store the axes.

Input: NIfTI files or nibabel images. Output: images turned to the axes of the head, and images turned to the axes of
another one, if both cover the same voxels. Everything that compares two volumes goes through here.
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
"""How far the corner voxels of one grid may lie from those of another, as a fraction of a voxel: rounding costs far less, and
the grid of a program that counts from a voxel's corner lies half a voxel away."""


def canonical(volume: Volume) -> SpatialImage:
    """A volume turned to the axes nearest to right, anterior, superior, so that the third one is axial.

    Raises FileNotFoundError, PermissionError, ValueError: as `wmhlib.intake.nifti.read_scan`; also where it is not
    three-dimensional.
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
        raise ValueError(f"{name} has {len(shape)} dimensions, shape {shape}; one 3D volume is needed.")


def laid_over(volume: Volume, grid: SpatialImage, names: str) -> SpatialImage:
    """A volume turned to the axes of `grid`, with the affine of that, so that one voxel of both is one place.

    Parameters
    ----------
    volume
        3D, stored along any axes.
    grid
        As `canonical` gives it.
    names
        What an error calls both, `volume` last.

    Raises
    ------
    ValueError
        They do not cover the same voxels: the shapes differ, or a corner lies further than `GRID_TOLERANCE` away; and as
        `canonical`.
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
                f"{names} have {what}: the header of one was lost; copy it from the other if they overlay."
            )
    else:
        return SpatialImage(np.asanyarray(turned.dataobj), grid.affine)
    raise ValueError(f"{names} must lie on one grid, but have {what}: resample the second to the first.")


def on_one_grid(one: str | Path, other: str | Path) -> bool:
    """Whether two scans have the same voxels, in whatever order these are stored, by their headers; errors as `open_scan`."""
    (shape, affine), (other_shape, other_affine) = turned_grid(open_scan(one)), turned_grid(open_scan(other))
    return shape == other_shape and _corners_apart(shape, affine, other_affine) <= GRID_TOLERANCE


def _corners_apart(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """How far the corner voxels of two grids of one shape lie apart at most, along an axis of the first, in its voxels."""
    corners = np.array(list(product(*((0, side - 1) for side in shape))))
    there = nibabel.affines.apply_affine(np.linalg.inv(affine) @ other, corners)
    return float(np.abs(there - corners).max())


def turned_grid(image: SpatialImage) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of an image as `canonical` would turn it, without its voxels."""
    turn, shape = io_orientation(image.affine), (*image.shape, 1, 1)[:3]
    sides = np.array(shape)[np.argsort(turn[:, 0])]
    return tuple(sides.tolist()), image.affine @ inv_ornt_aff(turn, shape)


def _turned(values: np.ndarray, affine: np.ndarray, turn: np.ndarray) -> SpatialImage:
    return SpatialImage(apply_orientation(values, turn), affine @ inv_ornt_aff(turn, values.shape))
