"""A folder of scans in the WMH Challenge's layout (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770) as a table:

    training|test/<site>[/<scanner>]/<id>/pre/FLAIR.nii.gz     bias-corrected FLAIR
    training|test/<site>[/<scanner>]/<id>/wmh.nii.gz           0 background, 1 WMH, 2 other pathology

Either may be a `.nii` as well. A centre is a site with its scanner, since scanners of one site differ as much as sites do.
"""

import os
from pathlib import Path

import pandas as pd

from wmhlib.intake.folders import (
    COLUMNS,
    NOTES,
    Notes,
    Tree,
    broken_links,
    is_hidden,
    looks_like_flair,
    not_fetched,
    refuse_closed,
    refuse_twice,
    search,
    shortened,
)
from wmhlib.running.files import PathLike

PARTS = {"training": "", "test": "external"}
"""The folders that hold subjects, and the split that each stands for."""

FLAIRS, REFERENCES = ("FLAIR.nii.gz", "FLAIR.nii"), ("wmh.nii.gz", "wmh.nii")
KNOWN = ("training", "test", "additional_annotations")
ALIASES = {
    "GE3T": "Amsterdam/GE3T",
    "Amsterdam_GE3T": "Amsterdam/GE3T",
    "Amsterdam/Philips_VU .PETMR_01": "Amsterdam/Philips",
    "Amsterdam/Philips_VU .PETMR_01.": "Amsterdam/Philips",
}
"""Folders of the challenge's releases that mean one scanner: older names of GE3T, and the Philips folder, whose last dot
Windows drops."""


def read_challenge(root: PathLike) -> pd.DataFrame:
    """List every subject of a challenge folder, sorted by centre and subject. Links to folders are followed.

    Returns
    -------
    DataFrame
        Columns `subject, centre, split, flair, reference`; `split` is `external` below `test/` and empty below
        `training/`, until `assign_splits`; `flair` and `reference` are absolute paths as text. `attrs["notes"]` says
        what was left out and why: subjects whose content was never fetched, folders without a scan, FLAIRs elsewhere.

    Raises
    ------
    FileNotFoundError
        No such folder, no scan in it, or a subject without its FLAIR or its reference.
    PermissionError
        A folder may not be read.
    ValueError
        Two folders hold the same subject, a link leads to a subject's folder, a subject is not two or three folders below
        `training/` or `test/`, or has an image as `.nii` and as `.nii.gz`.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No data folder at {root}: make it, or name another with DATA=…")
    root = root.resolve()  # once it is sure that its links lead somewhere
    refuse_closed(root)
    tree = search(*(root / part for part in PARTS if (root / part).is_dir()))
    subjects = _subject_folders(tree)
    refuse_twice(tree, subjects)
    notes, rows = _passed_over(root, tree, subjects), []
    for folder in sorted(subjects):
        centre, split = _centre(root, folder)
        flair, reference = _image(folder / "pre", FLAIRS), _image(folder, REFERENCES)
        if missing := [get for get in map(not_fetched, (flair, reference)) if get]:
            notes.append((str(folder), f"content that was not fetched: run {' and '.join(missing)}"))
            continue
        rows.append((folder.name, centre, split, str(flair), str(reference)))
    if not rows:
        raise FileNotFoundError(
            f"No scans in {root}: expected training/<site>/<id>/pre/FLAIR.nii.gz with …/<id>/wmh.nii.gz beside it "
            f"(data/README.md shows the layout){''.join(f'. Left out: {what}, {why}' for what, why in notes[:1])}."
        )
    cohort = pd.DataFrame(rows, columns=COLUMNS).sort_values(["split", "centre", "subject"], ignore_index=True)
    _refuse_one_name(cohort, root)
    cohort.attrs[NOTES] = shortened(notes, root)
    return cohort


def _refuse_one_name(cohort: pd.DataFrame, root: Path) -> None:
    for subject, references in cohort.groupby("subject").reference:
        if len(references) > 1:
            folders = " and ".join(str(Path(path).parent) for path in references)
            raise ValueError(f"Subject {subject} is twice in {root}, as {folders}: give each folder a name of its own.")


def _subject_folders(tree: Tree) -> set[Path]:
    """Folders that hold a FLAIR or a reference where the layout has them, be these links that lead nowhere."""
    flairs = {path.parents[1] for path in tree.files if path.parent.name == "pre" and path.name in FLAIRS}
    return flairs | {path.parent for path in tree.files if path.name in REFERENCES}


def _centre(root: Path, folder: Path) -> tuple[str, str]:
    """A subject's centre, and the split that its place stands for."""
    part, *places = folder.relative_to(root).parts
    if not 2 <= len(places) <= 3:
        raise ValueError(
            f"The subject in {folder} lies {len(places)} folder(s) below {part}/, expected {part}/<site>/<id> or "
            f"{part}/<site>/<scanner>/<id>: move it."
        )
    centre = "/".join(places[:-1])
    return ALIASES.get(centre, centre), PARTS[part]


def _image(folder: Path, names: tuple[str, ...]) -> Path:
    """The image in a folder that has one of these names; its content need not be fetched yet."""
    there = [folder / name for name in names if os.path.lexists(folder / name)]
    if len(there) > 1:
        raise ValueError(f"{there[0]} and {there[1]} are both there: keep one of them.")
    path = (there or [folder / names[0]])[0]
    if path.is_file() or not_fetched(path):
        return path
    what = "that is a link that leads nowhere" if path.is_symlink() else "no such file is there"
    raise FileNotFoundError(f"Expected {path}, but {what}: add it, or remove the subject's folder.")


def _passed_over(root: Path, tree: Tree, subjects: set[Path]) -> Notes:
    """Notes on everything in a challenge folder that may be meant for a subject's and is not read."""
    notes = broken_links(tree)
    parts = {root / part for part in PARTS}
    above = {parent for folder in subjects for parent in folder.parents} | parts
    for folder in tree.folders:
        if folder not in above | subjects and folder.parent in above:
            notes.append((str(folder), "a folder with neither pre/FLAIR.nii.gz nor wmh.nii.gz"))
    beside = [path for path in root.iterdir() if path.name not in KNOWN and not is_hidden(path)]
    others = search(*filter(Path.is_dir, beside), may_be_closed=True)
    notes += [(str(folder), "a folder beside training/ and test/ that may not be read") for folder in others.closed]
    for path in [*tree.files, *others.files, *beside]:
        known = path.name in FLAIRS and path.parent.name in ("pre", "orig") and path.parents[1] in subjects
        if looks_like_flair(path) and not path.is_dir() and not known:
            notes.append((str(path), "named like a FLAIR, but not at training|test/<site>/<id>/pre/FLAIR.nii.gz"))
    return notes
