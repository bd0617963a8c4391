"""A synthetic multi-centre FLAIR cohort with white matter hyperintensities (WMH), in the challenge's own layout.

Everything runs on it where no scan can be shared. Input: a seed and a number of subjects a centre. Output: `FLAIR.nii.gz`
and `wmh.nii.gz` a subject, as `wmhlib.cohort` reads them.

A subject is a true head (`wmhlib.intake.anatomy`), bent, aged and painted with lesions (`heads`, `drawn_lesions`), and what
the scanner of its centre makes of it (`scanner`). The centre named `random` has another scanner for every subject, for
networks meant for scans of any kind.
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

from wmhlib.intake.anatomy import head, heads
from wmhlib.intake.drawn_lesions import BORDER
from wmhlib.intake.fields import Axes
from wmhlib.intake.heads import painted
from wmhlib.intake.scanner import Centre, acquired, any_scanner, measured
from wmhlib.running.files import PathLike, writing

RECIPE = 3
"""Raised whenever the same seed gives other voxels, so that cohorts of two recipes are never mixed."""

CENTRES = (
    Centre("Alder", "training", 0, (240, 240, 48), (0.96, 0.96, 3.0), 114, 52, 165, 2.5, 0.06, 9,
           other_pathology=0.3, dtype=np.uint16, gain=6.0),
    Centre("Birch", "training", 50, (232, 256, 48), (1.0, 1.0, 3.0), 117, 56, 140, 3.0, 0.07, 9, stripped=True),
    Centre("Cedar/S3T", "training", 100, (132, 256, 83), (1.2, 0.98, 3.0), 110, 52, 80, 3.0, 0.05, 8, csf=34,
           defaced=True, other_pathology=0.5, tilt_deg=6.0, gamma=1.1, dtype=np.uint16, gain=2.5),
    Centre("Dover/P15T", "test", 160, (288, 288, 28), (0.83, 0.83, 6.0), 119, 66, 210, 3.5, 0.08, 8, csf=38,
           other_pathology=0.3, tilt_deg=-4.0, gamma=0.9, ghost=0.008, gain=0.01),
    Centre("Dover/P3T", "test", 220, (321, 240, 83), (0.56, 1.04, 3.0), 113, 54, 60, 3.0, 0.09, 7, csf=15, defaced=True),
)  # fmt: skip

RANDOM = Centre("random", "training", 1000, (240, 240, 48), (0.96, 0.96, 3.0), 114, 52, 165, 2.5, 0.06, 9, most=5000)
"""Its scanner is drawn anew for every subject (`any_scanner`): only name, part and ids of this line are used."""


def subject(
    seed: int, centre: str, number: int, scale: float = 1.0, label_maps: PathLike | None = None
) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """One synthetic subject: a function of its arguments and, with `label_maps`, of the files there, but for rounding.

    Parameters
    ----------
    seed, centre, number
        What the subject is drawn from; `centre` is a name in `CENTRES` or `random`, `number` counts from 0 within it.
    scale
        Below 1, a coarser grid over the same head: for tests.
    label_maps
        A folder of label maps of whole heads, from which three of four subjects are drawn; without, all from MNI152.

    Returns
    -------
    flair, wmh
        NIfTI images on one grid, stored left, posterior, superior; `wmh` is float32 0, 1 (WMH), 2 (other pathology).

    Raises
    ------
    ValueError
        No such centre, a negative seed or number, a scale outside 0 to 1, or a label map that is none.
    FileNotFoundError
        No label map below `label_maps`.
    """
    site = _site(centre)
    _check(seed, number, scale)
    random = np.random.default_rng([seed, zlib.crc32(centre.encode()), number])
    if site.name == RANDOM.name:
        site = any_scanner(random, site)
    template, *others = heads(label_maps)
    anatomy = others[random.integers(len(others))] if others and random.random() < 0.75 else template
    voxel, axes, fine = _grids(random, site, scale)
    load_ml = float(np.clip(1.3 * site.load_ml * random.lognormal(0, 0.8), site.least_ml, 60))
    paint = painted(random, site, head(anatomy), fine, load_ml)
    scan = acquired(random, site, axes, fine, paint.image * (paint.kept > 0.5) if site.stripped else paint.image)
    wmh = (measured(site, axes, fine, paint.lesion) > BORDER).astype(np.float32)
    if paint.pathology.any():
        wmh[(measured(site, axes, fine, paint.pathology.astype(np.float32)) > 0.5) & (wmh == 0)] = 2
    if site.stripped:
        outside = measured(site, axes, fine, paint.kept) < 0.5
        scan[outside] = wmh[outside] = 0
    if site.defaced:
        scan[:, (axes[1][:, None] > 30) & (axes[2] < axes[1][:, None] - 113)] = 0
    scan *= site.gain
    if np.issubdtype(site.dtype, np.integer):
        scan = np.rint(scan)
    return _nifti(scan.astype(site.dtype), voxel, site.tilt_deg), _nifti(wmh, voxel, site.tilt_deg)


def _grids(random: np.random.Generator, site: Centre, scale: float) -> tuple[list[float], Axes, Axes]:
    """The scan's voxel in mm and its axes, and the finer ones that the head is painted on, as far as it reaches."""
    shape = tuple(max(8, round(count * scale)) for count in site.shape)
    voxel = [v * full / count for v, full, count in zip(site.voxel_mm, site.shape, shape, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2).astype(np.float32) * np.float32(v) for n, v in zip(shape, voxel, strict=True)]
    axes = [axis + np.float32(off) for axis, off in zip(axes, random.normal([0, 0, 6], 2), strict=True)]
    reach = [(-86, 86), (-102, 102), (-92, 92)] if site.stripped else [(-95, 95), (-120, 120), (-110, 105)]
    ends = [(max(low, axis[0] - 3), min(high, axis[-1] + 3)) for axis, (low, high) in zip(axes, reach, strict=True)]
    return voxel, axes, [np.arange(*both, 1.0 if scale > 0.5 else 2.0, dtype=np.float32) for both in ends]


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


def _check(seed: int, number: int, scale: float) -> None:
    if seed < 0 or number < 0 or not 0 < scale <= 1:
        raise ValueError(
            f"seed {seed}, number {number}, scale {scale}: seed and number count from 0, scale is above 0 and at most 1."
        )


def _site(name: str) -> Centre:
    for centre in (*CENTRES, RANDOM):
        if centre.name == name:
            return centre
    names = ", ".join(centre.name for centre in (*CENTRES, RANDOM))
    raise ValueError(f"There is no synthetic centre {name!r}: choose among {names}.")


def write_cohort(
    root: PathLike,
    subjects_per_centre: dict[str, int],
    seed: int,
    scale: float = 1.0,
    workers: int = 2,
    label_maps: PathLike | None = None,
) -> None:
    """Write the subjects that `root` lacks, each whole or not at all.

    Parameters
    ----------
    subjects_per_centre
        Centre's name to number of subjects: at most 50 a centre, and 5000 of `random`.
    label_maps
        As in `subject`.

    Raises
    ------
    ValueError
        An unknown centre, too many subjects, or a folder that holds a cohort of another seed, scale, recipe or maps.
    FileNotFoundError
        No label map below `label_maps`.
    OSError
        The disk has no room, or the folder cannot be written; as `wmhlib.running.files.writing`.
    """
    root = Path(root)
    for name, count in subjects_per_centre.items():
        most = _site(name).most  # an unknown name is refused before anything is written
        if not 1 <= count <= most:
            raise ValueError(f"{count} subjects are asked of synthetic centre {name}: it has 1 to {most}.")
    made_with = {"seed": seed, "scale": scale, "recipe": RECIPE}
    _check(seed, 0, scale)
    maps = [path for path in heads(label_maps) if path]
    if maps:
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in maps)).hexdigest()
        made_with["label_maps"] = f"{len(maps)} of SHA-256 {digest[:12]}"
    missing = [
        (root, seed, name, number, scale, label_maps)
        for name, count in subjects_per_centre.items()
        for number in range(count)
        if not _folder(root, name, number).is_dir()
    ]
    for path in [None, *maps] if missing else []:
        head(path)  # one that is refused is refused before anything is written
    _mark(root, made_with)
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            for _ in tqdm(
                pool.map(_write_subject, *zip(*missing, strict=True)), "synthetic cohort", len(missing), unit="subject"
            ):
                pass


def _mark(root: Path, made_with: dict) -> None:
    """Say in a folder what its cohort is made with; ValueError where it says otherwise or holds something else."""
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


def _folder(root: Path, centre: str, number: int) -> Path:
    site = _site(centre)
    return root / site.part / site.name / str(site.first_id + number)


def _write_subject(root: Path, seed: int, centre: str, number: int, scale: float, label_maps: PathLike | None) -> None:
    folder = _folder(root, centre, number)
    unfinished = root / ".unfinished" / folder.name  # beside the parts, where no reader looks
    shutil.rmtree(unfinished, ignore_errors=True)
    flair, wmh = subject(seed, centre, number, scale, label_maps)
    with writing(root):
        try:
            (unfinished / "pre").mkdir(parents=True)
            nibabel.save(flair, unfinished / "pre" / "FLAIR.nii.gz")
            nibabel.save(wmh, unfinished / "wmh.nii.gz")
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
