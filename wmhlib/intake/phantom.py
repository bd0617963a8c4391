"""A synthetic multi-centre FLAIR cohort with white matter hyperintensities (WMH), in the challenge's layout.

It lets every step run without real scans. Input: a seed and a number of subjects per centre. Output: `FLAIR.nii.gz` and
`wmh.nii.gz` per subject, in the form that `wmhlib.cohort` reads.
A subject is a real head (`wmhlib.intake.anatomy`), deformed, aged and given lesions (`heads`, `drawn_lesions`), and
scanned by the simulated scanner of its centre (`scanner`). The centre named `random` has a different scanner for every
subject, for networks that should work on scans of any kind.
"""

import hashlib
import json
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from tqdm import tqdm

from wmhlib.intake.anatomy import STRUCTURES, head, heads
from wmhlib.intake.drawn_lesions import marked
from wmhlib.intake.fields import Axes
from wmhlib.intake.heads import painted
from wmhlib.intake.scanner import Centre, acquired, any_scanner, measured
from wmhlib.running.files import PathLike, read_json, writing

RECIPE = 5
"""Version of the simulation. It is incremented when the same seed gives other voxels, so that cohorts are never
mixed."""

DRAWN = 0.5
"""Volume of the lesions that are drawn / that of the labels, about: on thick slices, labels are larger than lesions."""

CENTRES = (
    Centre("Alder", "training", 0, (240, 240, 48), (0.96, 0.96, 3.0), 114, 52, 165, 2.5, 0.06, 9,
           other_pathology=0.3, dtype=np.uint16, gain=6.0),
    Centre("Birch", "training", 50, (232, 256, 48), (1.0, 1.0, 3.0), 117, 56, 140, 3.0, 0.07, 9, stripped=True),
    Centre("Cedar/S3T", "training", 100, (132, 256, 83), (1.2, 0.98, 3.0), 110, 52, 80, 3.0, 0.05, 8, csf=34,
           defaced=True, other_pathology=0.5, tilt_deg=6.0, gamma=1.1, dtype=np.uint16, gain=2.5),
    Centre("Dover/P15T", "test", 160, (288, 288, 28), (0.83, 0.83, 6.0), 119, 78, 210, 3.5, 0.08, 8, csf=38,
           other_pathology=0.3, tilt_deg=-4.0, gamma=0.9, ghost=0.008, gain=0.01),
    Centre("Dover/P3T", "test", 220, (321, 240, 83), (0.56, 1.04, 3.0), 113, 66, 60, 3.0, 0.09, 7, csf=15, defaced=True),
)  # fmt: skip

RANDOM = Centre("random", "training", 1000, (240, 240, 48), (0.96, 0.96, 3.0), 114, 52, 165, 2.5, 0.06, 9, most=5000)
"""Every subject gets a random scanner (`any_scanner`): only the name, part and ids of this line are used."""


def subject(
    seed: int, centre: str, number: int, scale: float = 1.0, label_maps: PathLike | None = None
) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """One synthetic subject. Up to rounding, it depends only on the arguments and the files in `label_maps`.

    Parameters
    ----------
    seed, centre, number
        They determine the subject. `centre` is a name in `CENTRES` or `random`; `number` counts from 0 within the
        centre.
    scale
        Values below 1 give a coarser grid over the same head, for tests.
    label_maps
        A folder of label maps of whole heads, used for three of four subjects; without it, all are based on MNI152.

    Returns
    -------
    flair, wmh
        NIfTI images on one grid, stored left, posterior, superior; `wmh` is float32 0, 1 (WMH), 2 (other pathology).

    Raises
    ------
    ValueError
        The centre does not exist, the seed or number is negative, the scale is not above 0 and at most 1, or a label
        map is invalid.
    FileNotFoundError
        There is no label map in `label_maps`.
    """
    images = simulated(seed, centre, number, scale, label_maps, structures=False)
    return images["FLAIR"], images["wmh"]


def simulated(
    seed: int, centre: str, number: int, scale: float, label_maps: PathLike | None, structures: bool
) -> dict[str, nibabel.Nifti1Image]:
    """The images of `subject` by name, `FLAIR` and `wmh`; with `structures` also a mask (float32 0, 1) per key of
    `wmhlib.intake.anatomy.STRUCTURES`."""
    site = _site(centre)
    _check(seed, number, scale)
    random = np.random.default_rng([seed, zlib.crc32(centre.encode()), number])
    if site.name == RANDOM.name:
        site = any_scanner(random, site)
    template, *others = heads(label_maps)
    anatomy = others[random.integers(len(others))] if others and random.random() < 0.75 else template
    voxel, axes, fine = _grids(random, site, scale)
    load_ml = DRAWN * float(np.clip(site.load_ml * random.lognormal(0, 0.8), site.least_ml, 110))
    paint = painted(random, site, head(anatomy), fine, load_ml)
    scan = acquired(random, site, axes, fine, paint.image * (paint.kept > 0.5) if site.stripped else paint.image)
    visible = float(np.clip(4 * site.noise / site.lesion, 0.27, 0.4))
    masks = {"wmh": marked(measured(site, axes, fine, paint.lesion), voxel, visible).astype(np.float32)}
    if paint.pathology.any():
        pathology = measured(site, axes, fine, paint.pathology.astype(np.float32)) > 0.5
        masks["wmh"][pathology & (masks["wmh"] == 0)] = 2
    for structure, belongs in STRUCTURES.items() if structures else ():
        inside = measured(site, axes, fine, belongs[paint.tissue].astype(np.float32))
        masks[structure] = (inside > 0.5).astype(np.float32)
    if site.stripped:
        outside = measured(site, axes, fine, paint.kept) < 0.5
        for values in (scan, *masks.values()):
            values[outside] = 0
    if site.defaced:
        scan[:, (axes[1][:, None] > 30) & (axes[2] < axes[1][:, None] - 113)] = 0
    scan *= site.gain
    if np.issubdtype(site.dtype, np.integer):
        scan = np.rint(scan)
    volumes = {"FLAIR": scan.astype(site.dtype), **masks}
    return {name: _nifti(values, voxel, site.tilt_deg) for name, values in volumes.items()}


def _grids(random: np.random.Generator, site: Centre, scale: float) -> tuple[list[float], Axes, Axes]:
    """The scan's voxel sides in mm, its axes, and the finer axes of the simulated head, limited to its extent."""
    shape = tuple(max(8, round(count * scale)) for count in site.shape)
    voxel = [v * full / count for v, full, count in zip(site.voxel_mm, site.shape, shape, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2).astype(np.float32) * np.float32(v) for n, v in zip(shape, voxel, strict=True)]
    axes = [axis + np.float32(off) for axis, off in zip(axes, random.normal([0, 0, 6], 2), strict=True)]
    reach = [(-90, 90), (-110, 110), (-95, 95)] if site.stripped else [(-95, 95), (-120, 120), (-110, 105)]
    ends = [(max(low, axis[0] - 3), min(high, axis[-1] + 3)) for axis, (low, high) in zip(axes, reach, strict=True)]
    return voxel, axes, [np.arange(*both, 1.0 if scale > 0.5 else 2.0, dtype=np.float32) for both in ends]


def _nifti(values: np.ndarray, voxel: list[float], tilt_deg: float) -> nibabel.Nifti1Image:
    """Values with axes to right, anterior, superior as a NIfTI image stored to left, posterior, superior."""
    tilt = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-voxel[0], -voxel[1], voxel[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(values.shape) - 1) / 2)
    image = nibabel.Nifti1Image(np.ascontiguousarray(values[::-1, ::-1]), affine)
    image.header.set_xyzt_units("mm")
    return image


def _check(seed: int, number: int, scale: float) -> None:
    if seed < 0 or number < 0 or not 0 < scale <= 1:
        raise ValueError(
            f"Got seed {seed}, number {number} and scale {scale}: use a seed and number of at least 0 and a scale "
            "from 0 to 1."
        )


def _site(name: str) -> Centre:
    for centre in (*CENTRES, RANDOM):
        if centre.name == name:
            return centre
    names = ", ".join(centre.name for centre in (*CENTRES, RANDOM))
    raise ValueError(f"There is no synthetic centre {name!r}: choose one of {names}.")


def write_cohort(
    root: PathLike,
    subjects_per_centre: dict[str, int],
    seed: int,
    scale: float = 1.0,
    workers: int = 2,
    label_maps: PathLike | None = None,
    structures: bool = False,
) -> None:
    """Write the subjects that are missing in `root`. An interruption leaves no partial subject.

    Parameters
    ----------
    subjects_per_centre
        Number of subjects by centre: at most 50 per centre, and 5000 for `random`.
    label_maps
        As in `subject`.
    structures
        Whether each subject's folder also has a mask per structure, `<structure>.nii.gz`.

    Raises
    ------
    ValueError
        A centre is unknown, there are too many subjects, or the folder has a cohort with another seed, scale, recipe or
        maps.
    FileNotFoundError
        There is no label map in `label_maps`.
    OSError
        The disk is full or the folder cannot be written, as in `wmhlib.running.files.writing`.
    """
    root = Path(root)
    for name, count in subjects_per_centre.items():
        most = _site(name).most  # refuse unknown names before anything is written
        if not 1 <= count <= most:
            raise ValueError(f"{count} subjects were requested for the synthetic centre {name}: choose 1 to {most}.")
    made_with = {"seed": seed, "scale": scale, "recipe": RECIPE}
    _check(seed, 0, scale)
    maps = [path for path in heads(label_maps) if path]
    if maps:
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in maps)).hexdigest()
        made_with["label_maps"] = f"{len(maps)} of SHA-256 {digest[:12]}"
    if structures:
        made_with["structures"] = True
    missing = [
        (root, seed, name, number, scale, label_maps, structures)
        for name, count in subjects_per_centre.items()
        for number in range(count)
        if not _folder(root, name, number).is_dir()
    ]
    for path in [None, *maps] if missing else []:
        head(path)  # refuse invalid maps before anything is written
    _mark(root, made_with)
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            for _ in tqdm(
                pool.map(_write_subject, *zip(*missing, strict=True)), "synthetic cohort", len(missing), unit="subject"
            ):
                pass


def cohort_recipe(root: PathLike) -> int:
    """The recipe of the synthetic cohort in a folder; `RECIPE` if there is none yet."""
    return read_json(Path(root) / "phantom.json").get("recipe", RECIPE)


def _mark(root: Path, made_with: dict) -> None:
    """Record the settings of a folder's cohort; ValueError if it has other settings or other files."""
    marker = root / "phantom.json"
    if marker.is_file():
        recorded = json.loads(marker.read_text(encoding="utf-8"))
        if recorded != made_with:
            raise ValueError(
                f"{root} has a synthetic cohort made with {recorded}, not {made_with}: delete it or give another "
                "folder."
            )
    else:
        unfinished = root / ".phantom.json"  # an interrupted run leaves a complete marker or none
        if root.is_dir() and any(path != unfinished for path in root.iterdir()):
            raise ValueError(f"{root} is not empty and has no synthetic cohort: give another folder as data.root.")
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
            unfinished.replace(marker)


def _folder(root: Path, centre: str, number: int) -> Path:
    site = _site(centre)
    return root / site.part / site.name / str(site.first_id + number)


def _write_subject(
    root: Path, seed: int, centre: str, number: int, scale: float, label_maps: PathLike | None, structures: bool
) -> None:
    folder = _folder(root, centre, number)
    unfinished = root / ".unfinished" / folder.name  # hidden from the reader of the cohort
    shutil.rmtree(unfinished, ignore_errors=True)
    images = simulated(seed, centre, number, scale, label_maps, structures)
    with writing(root):
        try:
            (unfinished / "pre").mkdir(parents=True)
            nibabel.save(images.pop("FLAIR"), unfinished / "pre" / "FLAIR.nii.gz")
            for name, mask in images.items():
                nibabel.save(mask, unfinished / f"{name}.nii.gz")
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
