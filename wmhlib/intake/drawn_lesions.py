"""White matter hyperintensities, drawn into the white matter of a head.

Input: where the white matter is, how far each voxel is from the ventricles, and a volume in ml. Output: a height from 0 to 1
on the same grid. Drawn are periventricular caps and bands, confluent deep lesions, punctate ones (Fazekas et al. 1987,
doi:10.2214/ajr.149.2.351), and, where asked for, the ovoid plaques of multiple sclerosis (Filippi et al. 2019,
doi:10.1093/brain/awz144). Volumes and numbers follow 32 real masks; the tests hold their bounds.
"""

import numpy as np
from scipy import ndimage

from wmhlib.intake.fields import Axes, smooth_field, step

BORDER = 0.45
"""The fraction of a lesion's height from which a reader marks it."""

LOWEST_MM = -48
"""There are no lesions further below the centre of the head: the poles of the temporal lobes are about there."""


def marked(height: np.ndarray, voxel_mm: list[float], visible: float) -> np.ndarray:
    """What a reader marks of lesions with this height on a scan's grid (sides `voxel_mm`): a boolean mask.

    A voxel is marked if its height is above `BORDER` times the highest within 4 mm in its slice (a small lesion in a thick
    slice is pale, but it is marked), and above `visible`, below which a reader sees nothing.
    """
    size = [2 * round(4 / side) + 1 for side in voxel_mm[:2]]
    highest = ndimage.maximum_filter(height, (*size, 1))
    return height > np.maximum(BORDER * highest, visible)


def lesions(
    random: np.random.Generator,
    axes: Axes,
    matter: np.ndarray,
    below: np.ndarray,
    away: np.ndarray,
    place: np.ndarray,
    rough: np.ndarray,
    patches: np.ndarray,
    load_ml: float,
    plaques: float = 0,
) -> np.ndarray:
    """The height of lesions, 0 to 1, of about `load_ml`, of which the share `plaques` is drawn as plaques.

    `matter` is the fraction of tissue that can have lesions, `below` the mask of brainstem and cerebellar white matter,
    where plaques may also lie. `away` are mm from the ventricles, `place` is as in `Bent`;
    `rough` and `patches` are fields of 5 and 11 mm.
    """
    voxel_mm3 = float(np.prod([axis[1] - axis[0] for axis in axes]))
    allowed = (matter > 0.5) & (place[2] > LOWEST_MM)
    near = (away < 1.5) & (place[2] > -15)
    back, front = np.percentile(place[1][near], [3, 97]).tolist() if near.any() else (-60, 30)
    horns = np.exp(-(((place[1] - front) / 9) ** 2)) + 1.1 * np.exp(-(((place[1] - back) / 13) ** 2))

    plaques_mm3 = 1000 * load_ml * plaques
    load_ml *= 1 - plaques
    bands_mm3 = 1000 * load_ml * random.uniform(0.35, 0.85)
    merged_mm3 = (1000 * load_ml - bands_mm3) * random.uniform(0, 0.9) * (load_ml > 4)
    radiation = np.exp(-(((place[1] - back + 8) / 16) ** 2))  # caps continue backwards along the optic radiation
    temporal = random.uniform(0, 5) * step(-place[2] - 18, 4)  # most subjects have less around the temporal horns
    score = random.uniform(0, 4) * horns + random.uniform(0.2, 2) * patches + random.uniform(0.2, 0.7) * rough
    score -= away * (1 - random.uniform(0, 0.6) * radiation) + temporal
    height = _grown(score, allowed, bands_mm3 / voxel_mm3, 0.9)
    if merged_mm3:
        length_mm = random.uniform(9, 22)
        score = 0.5 * rough + smooth_field(random, axes, length_mm) - away / random.uniform(6, 25) - 0.3 * temporal
        height = np.maximum(height, _grown(score, allowed, merged_mm3 / voxel_mm3, 2.75 / length_mm))
    number = int(np.clip(random.normal(42 + 12 * load_ml**0.5, 8), 42, 160) * min(1, load_ml / 2.5))
    size_mm3 = float(np.clip((1000 * load_ml - bands_mm3 - merged_mm3) / max(number, 1), 24, 70))
    volumes_mm3 = size_mm3 * random.lognormal(-0.3, 0.8, number)
    height = np.maximum(height, _ovals(random, axes, allowed & (away > 2), volumes_mm3, 7, 3, rough))
    if plaques_mm3:  # half of them touch or lie near the ventricles
        volumes_mm3 = random.lognormal(np.log(250), 1, 400)
        volumes_mm3 = volumes_mm3[: np.searchsorted(volumes_mm3.cumsum(), plaques_mm3) + 1]
        for where, some in ((allowed & (away < 10), volumes_mm3[::2]), (allowed, volumes_mm3[1::2])):
            height = np.maximum(height, _ovals(random, axes, where, some, 12, 5, rough))
    height *= np.clip((matter - 0.2) / 0.3, 0, 1) * (place[2] > LOWEST_MM - 4)  # with their borders
    if plaques_mm3:
        volumes_mm3 = random.lognormal(np.log(120), 0.8, random.integers(0, 4))
        height = np.maximum(height, _ovals(random, axes, below, volumes_mm3, 6, 4, rough))
    return np.clip(height * (1 + 0.12 * rough), 0, 1)


def _grown(score: np.ndarray, allowed: np.ndarray, voxels: float, softness: float) -> np.ndarray:
    """Soft lesions where the score is highest: so many voxels of the white matter."""
    values = score[allowed]
    count = int(np.clip(voxels, 1, len(values) - 1)) if len(values) > 1 else 0
    return step(score - np.partition(values, -count)[-count], softness) if count else np.zeros_like(score)


def _ovals(
    random, axes: Axes, allowed: np.ndarray, volumes_mm3, longest_mm: float, edge: float, rough: np.ndarray
) -> np.ndarray:
    """Ovals at random places of a mask, of these volumes at half their height: the highest at each voxel.

    Radii are 1.1 mm to `longest_mm` before they are stretched; the larger `edge`, the steeper the border, which the
    field `rough` makes irregular.
    """
    height = np.zeros(allowed.shape, np.float32)
    places = np.flatnonzero(allowed)
    if not len(places):
        return height
    radii = np.clip((3 * volumes_mm3 / (4 * np.pi)) ** (1 / 3), 1.1, longest_mm)
    for place, radius in zip(places[random.integers(len(places), size=len(radii))], radii, strict=True):
        box, squares = [], []
        indices = np.unravel_index(place, allowed.shape)
        for axis, index, stretch in zip(axes, indices, np.exp(random.normal(0, 0.35, 3)), strict=True):
            size = radius * stretch
            near = np.flatnonzero(np.abs(axis - axis[index]) < 2.2 * size)
            box.append(slice(near[0], near[-1] + 1))
            squares.append(((axis[box[-1]] - axis[index]) / size) ** 2)
        where = tuple(box)
        away = (squares[0][:, None, None] + squares[1][:, None] + squares[2]) * np.exp(-0.45 * rough[where])
        height[where] = np.maximum(height[where], np.exp2(-(away ** (edge / 2))) * random.uniform(0.6, 1.1))
    return height
