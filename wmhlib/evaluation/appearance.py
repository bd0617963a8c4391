"""Metrics of the appearance of scans, to compare synthetic with real ones.

Input: a FLAIR and its reference on one grid (`wmhlib.intake.scans.read_pair`). Output: numbers in mm and relative to
the level of tissue, which are comparable between centres with any grid and brightness. Only the slices in the middle
half of a volume are used, which contain most of the brain.
"""

import nibabel
import numpy as np
from scipy import ndimage

from wmhlib.intake.scans import tissue_level

FREQUENCIES = np.linspace(0.02, 0.6, 30)
"""Spatial frequencies of the spectrum in cycles/mm."""


def _middle(image: nibabel.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """At most 16 slices of the middle half, scaled to tissue = 1, and the pixel size in mm."""
    volume = image.get_fdata(dtype=np.float32)
    quarter = volume.shape[2] // 4
    chosen = np.unique(np.linspace(quarter, volume.shape[2] - 1 - quarter, 16).round().astype(int))
    return volume[:, :, chosen] / tissue_level(volume), np.array(image.header.get_zooms()[:2])


def power_spectrum(image: nibabel.Nifti1Image) -> np.ndarray:
    """Power of the axial slices in mm² at `FREQUENCIES`; NaN above the Nyquist frequency of the larger pixel side.

    Periodogram with a Hann window, averaged over directions and slices. It decreases according to the scanner's
    resolution down to the noise level.
    """
    slices, pixel_mm = _middle(image)
    window = np.hanning(slices.shape[0])[:, None] * np.hanning(slices.shape[1])
    power = (np.abs(np.fft.fft2(slices * window[:, :, None], axes=(0, 1))) ** 2).mean(2)
    power *= pixel_mm.prod() / (window**2).sum()
    x, y = (np.fft.fftfreq(count, mm) for count, mm in zip(power.shape, pixel_mm, strict=True))
    radius = np.hypot(x[:, None], y)
    half = np.diff(FREQUENCIES)[0] / 2
    edges = np.append(FREQUENCIES - half, FREQUENCIES[-1] + half)
    inside = (radius >= edges[0]) & (radius < min(edges[-1], 0.5 / pixel_mm.max()))
    bins = np.digitize(radius[inside], edges) - 1
    counts = np.bincount(bins, minlength=len(FREQUENCIES))
    counts[FREQUENCIES > 0.5 / pixel_mm.max()] = 0
    sums = np.bincount(bins, power[inside], len(FREQUENCIES))
    return np.divide(sums, counts, out=np.full(len(FREQUENCIES), np.nan), where=counts > 0)


def edge_width_mm(image: nibabel.Nifti1Image) -> float:
    """In-plane width of the border of fluid and brain in mm: level of tissue / median gradient at half of it; NaN if
    none."""
    slices, pixel_mm = _middle(image)
    slope = np.hypot(*np.gradient(slices, *pixel_mm, axis=(0, 1)))
    at_border = np.abs(slices - 0.5) < 0.1
    return float(1 / np.median(slope[at_border])) if at_border.any() else np.nan


def lesion_contrast(image: nibabel.Nifti1Image, mask: np.ndarray) -> float:
    """Median brightness of lesions / that of tissue at an in-plane distance of 2 to 4 mm; NaN without a lesion.

    `mask` is 1 in lesions.
    """
    volume, lesion = image.get_fdata(dtype=np.float32), mask == 1
    slices = np.flatnonzero(lesion.any((0, 1)))
    if not len(slices):
        return np.nan
    volume, lesion = volume[:, :, slices], lesion[:, :, slices]
    within = [
        ndimage.distance_transform_edt(~plane, image.header.get_zooms()[:2]) for plane in np.moveaxis(lesion, 2, 0)
    ]
    away = np.stack(within, axis=2)
    around = (away > 2) & (away < 4) & (volume > 0.5 * np.median(volume[lesion]))  # excludes fluid
    return float(np.median(volume[lesion]) / np.median(volume[around])) if around.any() else np.nan
