"""A scanner: its grid, contrast and habits; and the scan it makes of a painted head.

Input: a `Centre` and brightness on a fine grid (white matter = 100). Output: stored values on the centre's grid. Noise is
Rician, as in magnitude images (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618). A scanner drawn at random is domain
randomisation (Billot et al. 2023, doi:10.1016/j.media.2023.102789).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from wmhlib.intake.fields import Axes, along, profile, smooth_field


@dataclass(frozen=True)
class Centre:
    """A centre: its scanner's grid, contrast and habits. Intensities are relative to white matter = 100."""

    name: str
    part: str  # training or test
    first_id: int
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    grey: float  # cortex
    lesion: float  # height of a lesion above white matter
    scalp: float  # fat
    noise: float  # SD of the complex noise
    bias: float  # SD of the logarithm of the coil sensitivity
    load_ml: float  # of lesions: about the median of what is drawn; of labels on thick slices it is half (D-051)
    least_ml: float = 2.5  # of lesions, in a subject
    plaques: float = 0.0  # share of the load drawn as plaques of multiple sclerosis
    csf: float = 25
    stripped: bool = False
    defaced: bool = False
    other_pathology: float = 0.0  # share of subjects with label 2
    tilt_deg: float = 0.0  # of the scanner's axes about the left-right axis
    gamma: float = 1.0  # of the contrast
    blur: float = 0.35  # SD of a voxel's profile, in voxels
    sharpened: float = 0.5  # within slices, as scanners do
    ghost: float = 0.0  # share of the signal that comes back half a field of view away
    dtype: type = np.float32
    gain: float = 1.0  # stored value of intensity 1
    most: int = 50  # subjects


def any_scanner(random: np.random.Generator, site: Centre) -> Centre:
    """A scanner like no other, for a subject of the centre named `random`."""
    thick = random.random() < 0.6
    plane = random.uniform(0.45, 1.1) if thick else random.uniform(0.8, 1.2)
    voxel = (
        plane,
        plane * random.choice([1, 1, random.uniform(0.9, 1.3)]),
        random.uniform(2.5, 8) if thick else random.uniform(0.9, 1.5),
    )
    shape = (round(200 / voxel[0]), round(245 / voxel[1]), round(185 / voxel[2]))
    return replace(
        site,
        voxel_mm=voxel,
        shape=shape,
        grey=random.uniform(105, 128),
        lesion=random.uniform(45, 80),
        csf=random.uniform(5, 40),
        scalp=random.choice([random.uniform(20, 100), random.uniform(100, 280)]),
        noise=random.uniform(1, 5),
        bias=random.uniform(0.02, 0.12),
        load_ml=random.choice(
            [random.uniform(0, 1), random.uniform(1, 16), random.uniform(16, 40)], p=[0.2, 0.55, 0.25]
        ),
        least_ml=0,  # hardly a lesion in every fifth, so that a network learns to mark nothing
        plaques=random.choice([0, random.uniform(0.2, 0.9)]),
        stripped=random.random() < 0.5,
        other_pathology=0.1,
        gamma=random.uniform(0.85, 1.2),
        blur=random.uniform(0.28, 0.5),
        sharpened=random.uniform(0, 0.8),
        ghost=random.choice([0, random.uniform(0, 0.02)]),
        gain=float(10 ** random.uniform(-2, 1.5)),
    )


def measured(site: Centre, axes: Axes, fine: Axes, values: np.ndarray, sharpened: float = 0) -> np.ndarray:
    """Values on the axes `fine` as the scanner's voxels on `axes` mix them; `sharpened` within a slice, as in `profile`."""
    matrices = []
    for axis, old, share in zip(axes, fine, (sharpened, sharpened, 0), strict=True):
        blur_mm = max(site.blur * float(axis[1] - axis[0]), 0.6 * float(old[1] - old[0]))
        matrices.append(profile(axis, old, blur_mm, share))
    return along(values, matrices)


def acquired(random: np.random.Generator, site: Centre, axes: Axes, fine: Axes, image: np.ndarray) -> np.ndarray:
    """The magnitude image of brightness on the axes `fine`, on the scanner's `axes`; white matter stays near 100."""
    scan = np.maximum(measured(site, axes, fine, image, site.sharpened), 0)
    scan *= np.exp(site.bias * smooth_field(random, axes, 70))
    if site.gamma != 1:
        scan = 100 * (scan / 100) ** np.float32(site.gamma)
    if site.ghost:
        scan += site.ghost * np.roll(scan, scan.shape[1] // 2, axis=1)
    smooth = random.uniform(0, 0.6)
    parts = [random.standard_normal(scan.shape, dtype=np.float32) for _ in range(2)]
    for part in parts:
        ndimage.gaussian_filter1d(part, smooth, axis=0, output=part)
        part *= np.float32(site.noise / max(part[::4, ::4].std(), 1e-6))
    return np.hypot(scan + parts[0], parts[1])
