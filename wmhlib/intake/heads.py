"""A simulated subject: deformed and aged anatomy with lesions, as brightness with white matter = 100.

Input: a `Head`, the axes of the output grid (mm from the centre of the brain), and a `Centre` for the contrast. Output:
`Painted` on that grid.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from wmhlib.intake.anatomy import IN_BRAIN, NUCLEI, STRUCTURES, Head, Tissue
from wmhlib.intake.drawn_lesions import lesions
from wmhlib.intake.fields import Axes, resampled, smooth_field, step
from wmhlib.intake.scanner import Centre


class Bent(NamedTuple):
    """A head on a subject's grid: its `tissue`, the `box` around its brain, and in this box, as fractions from 0 to 1,
    the `parts` of `Head` and each voxel's position in the head (`place`, mm)."""

    tissue: np.ndarray
    box: tuple[slice, ...]
    parts: np.ndarray
    place: np.ndarray


class Painted(NamedTuple):
    """`image` with white matter = 100; `tissue`, the numbers of `Tissue`; `lesion` 0-1; `kept`, above 0.5 where a stripped
    scan has values; the mask `pathology`."""

    image: np.ndarray
    tissue: np.ndarray
    lesion: np.ndarray
    kept: np.ndarray
    pathology: np.ndarray


def bent(random: np.random.Generator, head: Head, axes: Axes, widening_mm: float) -> Bent:
    """Rotate, scale and deform a head, mirror half of all heads, and widen the ventricles by `widening_mm` on each
    side."""
    coarse = [np.arange(axis[0] - 4, axis[-1] + 8, 4, dtype=np.float32) for axis in axes]
    turn = Rotation.from_euler("xyz", random.normal(0, [4, 3, 4]), degrees=True).as_matrix()
    turn /= random.normal(1, 0.035, 3)
    turn[0] *= random.choice([-1, 1])
    place = np.tensordot(turn.astype(np.float32), np.stack(np.meshgrid(*coarse, indexing="ij")), axes=1)
    broad_mm, narrow_mm = random.uniform(0.8, 2.4), random.uniform(0.2, 0.5)
    for part in place:
        part += broad_mm * smooth_field(random, coarse, 40) + narrow_mm * smooth_field(random, coarse, 13)
    where = (place + head.centre.reshape(3, 1, 1, 1)) / 4
    place -= np.float32(widening_mm) * np.stack([ndimage.map_coordinates(o, where, order=1) for o in head.outward])
    place = np.stack([resampled(part, axes, coarse) for part in place])
    flat = np.zeros(place.shape[1:], np.int32)
    for part, middle, count in zip(place, head.centre, head.tissue.shape, strict=True):
        flat *= count
        flat += np.clip(part + np.float32(middle + 0.5), 0, count - 1).astype(np.int32)
    tissue = head.tissue.ravel()[flat]
    [box] = ndimage.find_objects(IN_BRAIN[tissue].astype(np.uint8))
    parts = np.stack([part.ravel()[flat[box]] for part in head.parts]) / np.float32(255)
    for part in parts:  # the value of the nearest voxel has steps, and borders would have teeth
        ndimage.gaussian_filter(part, 0.5, truncate=3, output=part)
    return Bent(tissue, box, parts, place[:, *box])


def painted(random: np.random.Generator, site: Centre, head: Head, axes: Axes, load_ml: float) -> Painted:
    """A head with the contrast of a centre and about `load_ml` of lesions."""
    age = random.normal(0, 1)
    head_tissue, box, parts, place = bent(random, head, axes, float(np.clip(1.2 + 1.2 * age, -1, 5)))
    sulci = np.float32(0.52 - 0.1 * np.clip(age, -1.5, 2))  # from this fraction on, a voxel of the cortex is fluid
    white, fluid, ventricle = parts
    tissue = head_tissue[box]  # a view: changes are those of the head
    tissue[(tissue == Tissue.CORTEX) & (fluid > sulci)] = Tissue.CSF
    tissue[(tissue == Tissue.CSF) & (fluid < sulci)] = Tissue.CORTEX
    tissue[(tissue == Tissue.VENTRICLE) & (ventricle < 0.5)] = Tissue.WHITE
    fine, broad = smooth_field(random, axes, 2.4), smooth_field(random, axes, 22)
    levels, width = _levels(random, site), random.uniform(0.03, 0.08)
    image = levels[head_tissue]
    fractions = step(white - 0.5, width), step(fluid - sulci, 1.5 * width), step(ventricle - 0.5, 2 * width)
    ndimage.gaussian_filter(image, 0.6, truncate=2, output=image)  # of the skull and what is outside of it
    image[box] = _mixed(image[box], levels, tissue, *fractions)
    image *= _texture(head_tissue, fine * random.uniform(0.8, 1.7), broad)
    if site.stripped:
        image[head_tissue >= Tissue.VESSEL] *= random.uniform(0, 0.5)  # what stripping leaves of the skull is dim
    inside = STRUCTURES["intracranial"][head_tissue]
    kept = _soft(inside, axes, random.uniform(3, 5)) + 0.03 * broad - random.uniform(0.3, 0.7) + 0.5
    lesion, pathology = np.zeros_like(image), np.zeros(image.shape, bool)

    # what lies inside the brain is drawn in the box around it
    axes = [axis[part] for axis, part in zip(axes, box, strict=True)]
    image_in, broad = image[box], broad[box]
    away, rough, patches = _away(tissue, axes), smooth_field(random, axes, 5), smooth_field(random, axes, 11)
    septum = (tissue == Tissue.WHITE) & (away > 0) & (away < 3) & (np.abs(place[2] - 8) < 15)
    septum &= np.abs(place[0]) < random.uniform(1.5, 4)
    rim = (tissue == Tissue.STRIATUM) * step(
        2.5 - away, 0.4
    )  # bands around the ventricles also run along the caudate nucleus
    matter = ((tissue == Tissue.WHITE) & ~septum) * white + rim
    below = (tissue == Tissue.STEM) | (tissue == Tissue.CEREBELLAR_WHITE)
    height = lesions(random, axes, matter, below, away, place, rough, patches, load_ml, site.plaques)
    bright = site.lesion * random.uniform(0.85, 1.15)
    fields = septum, fine[box], rough, patches, broad, *(_symmetric(random, axes, length_mm) for length_mm in (16, 6))
    _add_bright(random, site, image_in, tissue, away, place, fields, bright, height)
    image_in += bright * height * (1 + 0.15 * rough)
    if random.random() < site.other_pathology:
        pathology[box] = _infarct(random, axes, image_in, tissue, place, rough) & (height < 0.5)
    lesion[box] = height
    return Painted(image, head_tissue, lesion, kept, pathology)


def _mixed(image: np.ndarray, levels: np.ndarray, tissue: np.ndarray, white, fluid, ventricle) -> np.ndarray:
    """An image with the brain's tissues by partial volume: cortex with white matter, nuclei with it, all with fluid."""
    matter = levels[Tissue.CORTEX] + white * (levels[Tissue.WHITE] - levels[Tissue.CORTEX])
    mantle = np.isin(tissue, (Tissue.WHITE, Tissue.CORTEX, Tissue.CSF))
    matter = np.where(mantle, matter, levels[Tissue.WHITE])
    deep = levels - levels[Tissue.WHITE]
    deep[~IN_BRAIN[: len(deep)]] = deep[[Tissue.CORTEX, Tissue.VENTRICLE]] = 0
    matter += ndimage.gaussian_filter(deep[tissue], 0.8, truncate=3)
    matter += fluid * (levels[Tissue.CSF] - matter)
    matter += ventricle * (levels[Tissue.VENTRICLE] - matter)
    return np.where((tissue > 0) & (tissue < Tissue.VESSEL), matter, image)


def _symmetric(random: np.random.Generator, axes: Axes, length_mm: float) -> np.ndarray:
    """A smooth field that is the same on the left and on the right, like tracts and gyri."""
    return smooth_field(random, [np.abs(axes[0]), *axes[1:]], length_mm)


def _soft(mask: np.ndarray, axes: Axes, sd_mm: float) -> np.ndarray:
    """A mask blurred on every second voxel and interpolated back."""
    coarse = [axis[::2] for axis in axes]
    soft = ndimage.gaussian_filter(mask[::2, ::2, ::2].astype(np.float32), sd_mm / (coarse[0][1] - coarse[0][0]))
    return resampled(soft, axes, coarse)


def _away(tissue: np.ndarray, axes: Axes) -> np.ndarray:
    """Distance from the ventricles in mm, 0 inside."""
    every = max(1, round(2 / float(axes[0][1] - axes[0][0])))
    coarse = [axis[::every] for axis in axes]
    inside = (tissue == Tissue.VENTRICLE) | (tissue == Tissue.CHOROID)
    away = ndimage.distance_transform_edt(~inside[::every, ::every, ::every]) * (coarse[0][1] - coarse[0][0]) - 1
    return resampled(np.maximum(away, 0).astype(np.float32), axes, coarse)


def _levels(random: np.random.Generator, site: Centre) -> np.ndarray:
    """Random brightness of every tissue, by its number."""
    levels = np.zeros(len(Tissue) + 1)
    grey, scalp = site.grey * random.normal(1, 0.015), site.scalp * random.normal(1, 0.1)
    for tissue, level in (
        ("WHITE", 100), ("CORTEX", grey), ("THALAMUS", 0.55 * grey + 45), ("STRIATUM", 0.9 * grey + 8),
        ("PALLIDUM", random.uniform(78, 100)), ("CEREBELLAR_WHITE", 99), ("CEREBELLAR_GREY", grey - 3), ("STEM", 98),
        ("VENTRICLE", site.csf), ("CSF", site.csf * random.uniform(1, 1.6)), ("EYE", site.csf * random.uniform(1, 1.8)),
        ("CHOROID", random.uniform(site.csf, 120)), ("VESSEL", random.uniform(10, 70)), ("BONE", random.uniform(5, 20)),
        ("MARROW", scalp * random.uniform(0.2, 0.8)), ("MUSCLE", random.uniform(35, 80)), ("FAT", scalp),
        ("SKIN", scalp * random.uniform(0.5, 0.9)), ("MUCOSA", random.uniform(60, 190)),
    ):  # fmt: skip
        levels[Tissue[tissue]] = level
    levels[: Tissue.CSF] *= random.normal(1, 0.012, Tissue.CSF)
    return levels.astype(np.float32)


def _texture(tissue: np.ndarray, fine: np.ndarray, broad: np.ndarray) -> np.ndarray:
    """Variation within a tissue as a factor near 1: smallest in white matter, largest around the brain."""
    amounts = np.full((2, len(Tissue) + 1), 0.015, np.float32)
    amounts[:, [Tissue.CORTEX, Tissue.CEREBELLAR_GREY]] = 0.035
    amounts[:, Tissue.VESSEL :] = [[0.05], [0.25]]
    amounts[:, [Tissue.CSF, Tissue.VENTRICLE]] = [[0.12, 0.08], [0.15, 0.02]]
    return 1 + amounts[0][tissue] * fine + amounts[1][tissue] * broad


def _add_bright(random, site: Centre, image, tissue, away, place, fields, bright: float, height) -> None:
    """Add bright structures that are not lesions, in place: dirty white matter, rims, septum, tracts, cortex, choroid
    plexus, flow."""
    septum, fine, rough, patches, broad, paired, tracts = fields
    patchy = np.clip(0.6 + 0.5 * patches, 0, 1.5)
    amount = random.uniform(0, 0.35) * patchy * np.exp(away / np.float32(-9))
    amount += random.uniform(0, 0.3) * patchy * np.exp(-(((away - np.float32(0.4)) / np.float32(0.9)) ** 2))
    amount += np.float32(random.uniform(0.1, 1.1)) * septum
    image += np.float32(bright) * amount * (1 - height) * ((tissue <= Tissue.PALLIDUM) & (tissue > 0))
    speckled = np.clip(0.7 + 0.4 * fine, 0, 1.3)
    flow = step(rough - np.float32(1.1), 0.15) * (place[1] < 0) + 0.25 * step(patches - random.uniform(0.5, 2), 0.4)
    image += flow * speckled * random.uniform(0, 125 - site.csf) * (tissue == Tissue.VENTRICLE)
    image[tissue == Tissue.CHOROID] *= speckled[tissue == Tissue.CHOROID]
    inner = np.exp(away / np.float32(-18))
    limbic = inner * step(
        place[1] + 50, 6
    )  # limbic cortex and insula are deep and bright on FLAIR, occipital cortex is not
    cortex = random.uniform(0, 30) * limbic + random.uniform(0, 5) * paired + random.uniform(1, 6) * broad
    image += site.cortex * cortex * (tissue == Tissue.CORTEX)
    white = random.uniform(1, 6) * paired + random.uniform(-6, 6) * inner + random.uniform(0, 3) * tracts
    image += white * (tissue == Tissue.WHITE)
    image += (random.uniform(0, 4) * paired + random.uniform(0, 4) * tracts) * np.isin(tissue, (*NUCLEI, Tissue.STEM))
    fluid = (tissue == Tissue.CSF) | (tissue == Tissue.VENTRICLE)
    image += np.clip(patches - 0.8, 0, 1) * random.uniform(0, 110) * (fluid & (place[2] < -12))


def _infarct(random, axes: Axes, image, tissue, place, rough) -> np.ndarray:
    """Add an old cortical infarct, dark with a bright rim, in place; returns its mask."""
    cortex = np.flatnonzero((tissue == Tissue.CORTEX) & (place[2] > -20))
    mask = np.zeros(tissue.shape, bool)
    if not len(cortex):
        return mask
    spot = np.unravel_index(cortex[random.integers(len(cortex))], tissue.shape)
    radius = random.uniform(8, 16)
    near = [np.flatnonzero(np.abs(axis - axis[i]) < 1.6 * radius) for axis, i in zip(axes, spot, strict=True)]
    box = tuple(slice(where[0], where[-1] + 1) for where in near)
    squares = [(axis[part] - axis[i]) ** 2 for axis, part, i in zip(axes, box, spot, strict=True)]
    depth = radius - np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]) + 1.5 * rough[box]
    matter = (tissue[box] <= Tissue.PALLIDUM) & (tissue[box] > 0)
    dark, rim = step(depth - 3.5, 0.7), step(depth, 0.7)
    image[box] += matter * ((35 - image[box]) * dark + (145 - image[box]) * (rim - dark))
    mask[box] = (depth > 0) & matter
    return mask
