"""A synthetic multi-centre FLAIR cohort with white matter hyperintensities (WMH), in the challenge's own layout.

The doorway to the study: everything runs on it where no scan can be shared. In flow a seed and a number of subjects a
centre; out flow `FLAIR.nii.gz` and `wmh.nii.gz` a subject, as `wmhlib.cohort` reads them.

The recipe, in millimetres about the centre of the head (x right, y anterior, z superior), white matter = 100:
scalp, skull and CSF as shells of an ellipsoid; a cortex folded along the zero sheets of a smooth random field;
lateral ventricles as arched tubes with frontal and occipital horns, a third ventricle, septum and choroid plexus; deep
grey nuclei, cerebellum, brainstem. WMH are periventricular caps and bands, whose width a smooth field breaks up, and
punctate deep lesions, all with soft edges; the reference is what lies above half their height. What is bright without
being a lesion (scalp or rim, septum, choroid plexus, patches of cortex, flow) keeps one threshold from finding them.
Then a centre adds its own contrast, coil sensitivity, slice thickness, noise, orientation and storage. Noise is Rician,
as in magnitude images (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
"""

import json
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from wmhlib.running.files import writing

RECIPE = 1
"""Raised whenever the same seed gives other voxels, so that cohorts of two recipes are never mixed."""


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
    scalp: float  # scalp, or the rim that skull stripping leaves
    noise: float  # SD of the complex noise
    bias: float  # SD of the logarithm of the coil sensitivity
    load_ml: float  # median lesion load
    stripped: bool = False
    defaced: bool = False
    other_pathology: float = 0.0  # share of subjects with label 2
    tilt_deg: float = 0.0  # of the scanner's axes about the left-right axis
    dtype: type = np.float32
    gain: float = 1.0  # stored value of intensity 1


CENTRES = (
    Centre("Alder", "training", 0, (240, 240, 48), (0.96, 0.96, 3.0), 120, 74, 145, 3.0, 0.06, 9,
           other_pathology=0.3, dtype=np.uint16, gain=6.0),
    Centre("Birch", "training", 50, (232, 256, 48), (1.0, 1.0, 3.0), 128, 82, 165, 3.5, 0.08, 9, stripped=True),
    Centre("Cedar/S3T", "training", 100, (132, 256, 83), (1.2, 0.98, 3.0), 116, 66, 140, 3.5, 0.05, 8,
           defaced=True, other_pathology=0.5, tilt_deg=6.0, dtype=np.uint16, gain=2.5),
    Centre("Dover/P15T", "test", 160, (128, 256, 103), (1.3, 1.21, 3.0), 126, 68, 140, 4.5, 0.08, 6,
           other_pathology=0.3, tilt_deg=-4.0, gain=0.01),
    Centre("Dover/P3T", "test", 220, (321, 240, 83), (0.56, 1.04, 3.0), 122, 72, 142, 3.5, 0.07, 7, defaced=True),
)  # fmt: skip


def smooth_field(random: np.random.Generator, axes: list[np.ndarray], length_mm: float) -> np.ndarray:
    """A random field that varies over about `length_mm`, mean 0 and SD near 1, on the grid of three mm axes.

    Cubic B-splines on a grid of standard normal numbers, one axis after the other. The knots span a fixed box of
    ±160 mm, so the field in space does not depend on the grid that samples it.
    """
    knots = np.arange(-160 - 3 * length_mm, 160 + 3.5 * length_mm, length_mm)
    count = len(knots) - 4
    field = random.standard_normal((count, count, count), dtype=np.float32)
    for axis in axes:
        basis = BSpline.design_matrix(np.clip(axis, -159, 159), knots, 3).toarray().astype(np.float32)
        field = np.tensordot(field, basis, axes=([0], [1]))  # the axis done moves last: after three, all are in order
    return field / 0.33  # three times the cubic spline's mean square of 0.479 in amplitude


def step(distance: np.ndarray, width: float = 0.6) -> np.ndarray:
    """A soft edge: 1 where `distance` (mm) is well above zero, 0 well below."""
    return 1 / (1 + np.exp(-np.clip(distance / width, -30, 30)))


def ball(x, y, z, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Roughly the depth in mm inside an ellipsoid; negative outside."""
    ratio = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii, strict=True)))
    return (1 - ratio) * min(radii)


def lateral_ventricles(x, y, z, size: float) -> np.ndarray:
    """Depth in mm inside the lateral ventricles (negative outside): two tubes that part towards both horns."""
    apart = 5 + 13 * (np.maximum(y, 0) / 38) ** 1.6 + 17 * (np.maximum(-y, 0) / 50) ** 1.5
    height = 12 - 12 * (np.maximum(-y - 5, 0) / 45) ** 1.5 - 5 * (np.maximum(y, 0) / 35) ** 2
    ends = np.maximum(np.maximum(y - 32, -46 - y), 0) / 5
    width = size * (3.6 + 2.2 * np.exp(-(((y + 34) / 12) ** 2)) + 1.0 * np.exp(-(((y - 26) / 9) ** 2)))
    ratio = np.sqrt(((np.abs(x) - apart) / width) ** 2 + ((z - height) / (2.0 * width)) ** 2 + ends**2)
    return (1 - ratio) * width


def punctate(random, axes, allowed: np.ndarray, number: int) -> np.ndarray:
    """Soft round lesions at random places of a mask: the height 0-1 of the highest one at each voxel."""
    height = np.zeros(allowed.shape, np.float32)
    places = np.argwhere(allowed)
    if not len(places):
        return height
    for place in places[random.integers(len(places), size=number)]:
        radius = float(np.clip(random.lognormal(np.log(2.6), 0.35), 1.3, 6.5))
        stretch = random.uniform(0.75, 1.35, 3)
        centre = [axis[index] for axis, index in zip(axes, place, strict=True)]
        box, squares = [], []
        for axis, c, s in zip(axes, centre, stretch, strict=True):
            near = np.flatnonzero(np.abs(axis - c) < 2.2 * radius * s)
            box.append(slice(near[0], near[-1] + 1))
            squares.append(((axis[box[-1]] - c) / (radius * s)) ** 2)
        profile = np.exp2(-(squares[0][:, None, None] + squares[1][:, None] + squares[2]))
        height[tuple(box)] = np.maximum(height[tuple(box)], profile * random.uniform(0.8, 1))
    return height


def subject(seed: int, centre: str, number: int, scale: float = 1.0) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """One synthetic subject: a pure function of its arguments.

    Parameters
    ----------
    seed, centre, number
        What the subject is drawn from; `centre` is a name in `CENTRES`, `number` counts from 0 within it.
    scale
        Below 1, a coarser grid over the same head: for tests.

    Returns
    -------
    flair, wmh
        NIfTI images on one grid, stored left, posterior, superior; `wmh` is float32 0, 1 (WMH), 2 (other pathology).

    Raises
    ------
    ValueError
        No such centre.
    """
    site = _site(centre)
    random = np.random.default_rng([seed, zlib.crc32(centre.encode()), number])
    shape = tuple(max(8, round(count * scale)) for count in site.shape)
    voxel = [v * full / count for v, full, count in zip(site.voxel_mm, site.shape, shape, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2).astype(np.float32) * np.float32(v) for n, v in zip(shape, voxel, strict=True)]
    axes[2] = axes[2] + 6  # the field of view reaches further up than down

    # the head's own coordinates: its pose and size differ between subjects
    growth, yaw = random.normal(1, 0.03, 3), np.deg2rad(random.normal(0, 4))
    shift = random.normal(0, 2, 3)
    x = axes[0][:, None, None] - shift[0]
    y = axes[1][None, :, None] - shift[1]
    z = (axes[2][None, None, :] - shift[2]) / growth[2]
    x, y = (np.cos(yaw) * x - np.sin(yaw) * y) / growth[0], (np.sin(yaw) * x + np.cos(yaw) * y) / growth[1]

    # anatomy, as depth in mm below each surface
    folds = smooth_field(random, axes, 8.0)
    patches = smooth_field(random, axes, 11.0)
    cerebrum = np.minimum(ball(x, y, z, (0, 0, 5), (68, 86, 66)), z + 36 + 0.12 * np.abs(y + 5))
    cerebellum = ball(x, y, z, (0, -42, -44), (50, 34, 26))
    stem = np.minimum(ball(x, y, z, (0, -14, -50), (14, 15, 40)), 0 * y + 40 + z + 60)
    brain = np.maximum(np.maximum(cerebrum, cerebellum), stem)
    atrophy = random.uniform(0.8, 1.4)
    ventricles = lateral_ventricles(x, y, z, atrophy)
    third = np.minimum(1.8 * atrophy - np.abs(x), ball(x, y, z, (0, -4, -6), (30, 16, 14)))
    cleft = np.minimum(1.3 - np.abs(x), np.minimum(cerebrum, np.abs(y) - 36 + np.maximum(z - 20, 0)))
    shallow = np.clip((17 - cerebrum) / 17, 0, 1)  # sulci narrow with depth
    sulci = np.maximum(1.6 * shallow**0.5 - 4.5 * np.abs(folds), cleft) - 6 * (cerebrum > 17) - 0.4 / atrophy
    ribbon = np.maximum(3.2 - cerebrum, np.where(cerebrum < 19, 3.3 - 5.5 * np.abs(folds), -5) - 0.06 * cerebrum)
    nuclei = np.maximum.reduce(
        [
            np.maximum(ball(x, y, z, (s * 12, -10, 2), (9, 14, 9)), ball(x, y, z, (s * 22, 4, 0), (6, 15, 9)))
            for s in (-1, 1)
        ]
    )

    # tissue intensities
    image = np.full(shape, 100, np.float32)
    image += (
        (site.grey - 100) * np.maximum(step(ribbon), 0.8 * step(nuclei, 1.2)) * (1 + 0.25 * np.clip(patches, -1, 1.6))
    )
    folia = 0.5 + 0.5 * np.sin(1.1 * (z + 0.5 * y) + 2 * folds)
    image += (site.grey - 100) * folia * step(np.minimum(cerebellum, -cerebrum))
    grey_places = np.maximum(ribbon, nuclei)

    # lesions: white matter alone holds them
    load = site.load_ml * float(np.clip(random.lognormal(0, 1.0), 0.1, 2.2))
    away = -np.maximum(ventricles, third)  # mm from the ventricles
    white = step(np.minimum(cerebrum - 5, -grey_places - 0.6)) * step(away, 0.4)
    horns = np.exp(-(((y - 33) / 9) ** 2)) + 1.2 * np.exp(-(((y + 44) / 11) ** 2))
    width = 0.85 * load**0.5 * (0.42 + 0.75 * horns + 0.55 * patches) - 0.6
    bands = step(width - np.where(away > 0, away, 0), 0.8) * (z > -8) * (width > 0)
    number = int(np.clip(random.normal(26 + 12 * load**0.6, 5), 24, 150))
    deep_white = (white > 0.9) & (away > 3) & (z > -22) & (np.abs(x) > 9)
    lesion = np.maximum(bands, punctate(random, axes, deep_white, number)) * white
    texture = 1 + 0.18 * np.clip(smooth_field(random, axes, 5.0), -2, 2)
    image += site.lesion * random.uniform(0.9, 1.1) * lesion * texture
    wmh = (lesion > 0.5).astype(np.float32)

    # fluid, and what is bright without being a lesion
    fluid = np.maximum(np.maximum(step(ventricles), step(third)), step(sulci, 0.5))
    image += (22 - image) * fluid
    septum = step(np.minimum(0.9 - np.abs(x), ball(x, y, z, (0, 12, 12), (20, 20, 8))))
    choroid = sum(step(ball(x, y, z, (s * 17, -32, 5), (3.5, 6, 3.5)), 0.8) for s in (-1, 1)) * step(ventricles)
    flow = step(ball(x, y, z, (random.normal(0, 3), -2, -30), (3, 3, 6)), 0.8) * random.uniform(0, 1)
    image += (site.grey + 30 - image) * septum + (site.scalp + 10 - image) * np.clip(choroid + flow, 0, 1)

    # other pathology: an old cortical infarct, dark with a bright rim
    if random.random() < site.other_pathology:
        angle, where = random.uniform(0, 2 * np.pi), random.uniform(0, 25)
        spot = (52 * np.cos(angle), 66 * np.sin(angle), where)
        infarct = np.minimum(ball(x, y, z, spot, (14, 14, 10)) + 1.5 * folds, cerebrum)
        image += (40 - image) * step(infarct - 3) + (150 - image) * step(infarct) * (1 - step(infarct - 3))
        wmh[(infarct > 0) & (wmh == 0)] = 2

    # shells around the brain
    inside = step(brain)
    if site.stripped:
        rim = np.exp(-((brain / 1.3) ** 2)) * step(patches + 0.3, 0.4)
        image = inside * image + (site.scalp - 100) * 0.9 * rim * step(brain + 1.0)
        image[brain < -2.5] = 0
    else:
        head = np.maximum(
            ball(x, y, z, (0, 0, 3), (81, 99, 80)), np.minimum(ball(x, y, z, (0, 2, -60), (70, 84, 90)), -z)
        )
        outside = 12 * step(head) + site.scalp * step(head) * (1 - step(head - 5)) * (
            1 + 0.2 * np.clip(patches, -1.5, 1.5)
        )
        image = inside * image + (1 - inside) * outside
        wmh[inside < 0.5] = 0

    # the scanner
    image *= np.exp(site.bias * smooth_field(random, axes, 70.0))
    if not site.stripped:
        image = np.hypot(image + site.noise * random.standard_normal(shape, dtype=np.float32),
                         site.noise * random.standard_normal(shape, dtype=np.float32))  # fmt: skip
    else:
        image += site.noise * random.standard_normal(shape, dtype=np.float32) * (image > 0)
    image = gaussian_filter1d(image, 0.35, axis=2)
    if site.defaced:
        image[np.broadcast_to((y > 40) & (z < -0.9 * (y - 40) - 12), shape)] = 0
    image = np.maximum(image, 0) * site.gain
    if np.issubdtype(site.dtype, np.integer):
        image = np.rint(image)
    return _nifti(image.astype(site.dtype), voxel, site.tilt_deg), _nifti(wmh, voxel, site.tilt_deg)


def _nifti(values: np.ndarray, voxel: list[float], tilt_deg: float) -> nibabel.Nifti1Image:
    """Values in right, anterior, superior order as a NIfTI stored left, posterior, superior."""
    tilt = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-voxel[0], -voxel[1], voxel[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(values.shape) - 1) / 2)
    image = nibabel.Nifti1Image(np.ascontiguousarray(values[::-1, ::-1]), affine)
    image.header.set_xyzt_units("mm")
    return image


def _site(name: str) -> Centre:
    for centre in CENTRES:
        if centre.name == name:
            return centre
    names = ", ".join(centre.name for centre in CENTRES)
    raise ValueError(f"There is no synthetic centre {name!r}: choose among {names}.")


def write_cohort(
    root: str | Path, subjects_per_centre: dict[str, int], seed: int, scale: float = 1.0, workers: int = 2
) -> None:
    """Write the subjects that `root` lacks, each whole or not at all.

    Parameters
    ----------
    subjects_per_centre
        Centre's name to number of subjects, at most 50 a centre.

    Raises
    ------
    ValueError
        An unknown centre, too many subjects, or a folder that holds a cohort of another seed, scale or recipe.
    OSError
        The disk has no room, or the folder cannot be written; as `wmhlib.study.writing`.
    """
    root = Path(root)
    for name, count in subjects_per_centre.items():
        _site(name)  # an unknown name is refused before anything is written
        if not 1 <= count <= 50:
            raise ValueError(f"{count} subjects are asked of synthetic centre {name}: it has 1 to 50.")
    made_with = {"seed": seed, "scale": scale, "recipe": RECIPE}
    marker = root / "phantom.json"
    if marker.is_file():
        found = json.loads(marker.read_text(encoding="utf-8"))
        if found != made_with:
            raise ValueError(
                f"{root} holds a synthetic cohort made with {found}, not {made_with}: remove it or name another folder."
            )
    else:
        unfinished = root / ".phantom.json"  # a killed run leaves a whole marker or none
        if root.is_dir() and any(path != unfinished for path in root.iterdir()):
            raise ValueError(f"{root} is not empty and holds no synthetic cohort: name another folder under data.root.")
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
            unfinished.replace(marker)
    missing = [
        (root, seed, name, number, scale)
        for name, count in subjects_per_centre.items()
        for number in range(count)
        if not _folder(root, name, number).is_dir()
    ]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            for _ in tqdm(
                pool.map(_write_subject, *zip(*missing, strict=True)), "synthetic cohort", len(missing), unit="subject"
            ):
                pass


def _folder(root: Path, centre: str, number: int) -> Path:
    site = _site(centre)
    return root / site.part / site.name / str(site.first_id + number)


def _write_subject(root: Path, seed: int, centre: str, number: int, scale: float) -> None:
    folder = _folder(root, centre, number)
    unfinished = root / ".unfinished" / folder.name  # beside the parts, where no reader looks
    shutil.rmtree(unfinished, ignore_errors=True)
    flair, wmh = subject(seed, centre, number, scale)
    with writing(root):
        try:
            (unfinished / "pre").mkdir(parents=True)
            nibabel.save(flair, unfinished / "pre" / "FLAIR.nii.gz")
            nibabel.save(wmh, unfinished / "wmh.nii.gz")
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
