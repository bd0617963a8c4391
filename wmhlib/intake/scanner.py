"""A simulated scanner: its grid, contrast and artefacts, and the scan that it makes of a simulated head.

Input: a `Centre` and brightness on a fine grid (white matter = 100). Output: values on the centre's grid. Noise is
Rician, as in magnitude images (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618). Random scanners are domain
randomisation (Billot et al. 2023, doi:10.1016/j.media.2023.102789).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from wmhlib.intake.fields import Axes, along, profile, smooth_field


@dataclass(frozen=True)
class Centre:
    """A centre: its scanner's grid, contrast and artefacts. Intensities are relative to white matter = 100."""

    name: str
    part: str  # training or test
    first_id: int
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    grey: float  # cortex
    lesion: float  # contrast of a lesion to white matter
    scalp: float  # fat
    noise: float  # SD of the complex noise
    bias: float  # SD of the logarithm of the coil sensitivity
    load_ml: float  # about the median volume of the labels
    least_ml: float = 2.5  # least lesion volume in a subject
    plaques: float = 0.0  # fraction of the load simulated as plaques of multiple sclerosis
    cortex: float = 1.0  # how much brighter some cortex is than the rest
    csf: float = 25
    stripped: bool = False
    defaced: bool = False
    other_pathology: float = 0.0  # fraction of subjects with label 2
    tilt_deg: float = 0.0  # rotation of the scanner's axes about the left-right axis
    gamma: float = 1.0  # exponent of the contrast
    blur: float = 0.35  # SD of a voxel's profile, in voxels
    sharpened: float = 0.9  # within slices, like scanners' filters
    masked: bool = False  # whether the air around the head is set to 0
    ghost: float = 0.0  # fraction of the signal that is repeated half a field of view away
    dtype: type = np.float32
    gain: float = 1.0  # stored value of intensity 1
    most: int = 50  # largest number of subjects


def any_scanner(random: np.random.Generator, site: Centre) -> Centre:
    """A random scanner for one subject of the centre named `random`."""
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
        grey=random.uniform(101, 130),
        cortex=random.uniform(0.5, 1.8),
        lesion=random.uniform(45, 80),
        csf=random.uniform(5, 40),
        scalp=random.choice([random.uniform(20, 100), random.uniform(100, 280)]),
        noise=random.uniform(1, 5),
        bias=random.uniform(0.02, 0.12),
        load_ml=random.choice(
            [random.uniform(0, 1.5), random.uniform(1.5, 25), random.uniform(25, 75)], p=[0.2, 0.55, 0.25]
        ),
        least_ml=0,  # every fifth subject has hardly any lesion, so that a network learns to predict none
        plaques=random.choice([0, random.uniform(0.2, 0.9)]),
        stripped=random.random() < 0.5,
        other_pathology=0.1,
        gamma=random.uniform(0.85, 1.2),
        blur=random.uniform(0.28, 0.5),
        sharpened=random.uniform(0.2, 1.4),
        ghost=random.choice([0, random.uniform(0, 0.02)]),
        masked=random.random() < 0.5,
        gain=float(10 ** random.uniform(-2, 1.5)),
    )


def measured(site: Centre, axes: Axes, fine: Axes, values: np.ndarray, sharpened: float = 0) -> np.ndarray:
    """Values on the axes `fine` averaged over the scanner's voxels on `axes`; `sharpened` within slices, see
    `profile`."""
    matrices = []
    for axis, old, sharpening in zip(axes, fine, (sharpened, sharpened, 0), strict=True):
        blur_mm = max(site.blur * float(axis[1] - axis[0]), 0.6 * float(old[1] - old[0]))
        matrices.append(profile(axis, old, blur_mm, sharpening))
    return along(values, matrices)


def acquired(random: np.random.Generator, site: Centre, axes: Axes, fine: Axes, image: np.ndarray) -> np.ndarray:
    """The magnitude image on the scanner's `axes` from brightness on the axes `fine`; white matter stays near 100."""
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
    noisy = np.hypot(scan + parts[0], parts[1])
    if site.masked:
        head = ndimage.gaussian_filter((image > 15).astype(np.float32), 4)
        noisy[measured(site, axes, fine, head) < 0.1] = 0
    return noisy
