"""Read a folder in the WMH Challenge's layout (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770) as a table:

    training|test/<site>[/<scanner>]/<id>/pre/FLAIR.nii.gz     bias-corrected FLAIR
    training|test/<site>[/<scanner>]/<id>/wmh.nii.gz           0 background, 1 WMH, 2 other pathology

Both may also be `.nii`. A centre is a site with its scanner, since scanners of one site differ as much as sites do.
"""

from pathlib import Path

import pandas as pd

from wmhlib.intake import folders
from wmhlib.intake.folders import Notes, Tree, not_fetched, remedy
from wmhlib.intake.roles import is_visit, names_role
from wmhlib.running.files import PathLike

PARTS = {"training": "", "test": "external"}
"""The folders with subjects, and the split of each."""

FLAIRS, REFERENCES = ("flair.nii.gz", "flair.nii"), ("wmh.nii.gz", "wmh.nii")
"""Accepted names, in any case."""

EXPECTED = "training|test/<site>[/<scanner>]/<id>/pre/FLAIR.nii.gz"
ALIASES = {
    "GE3T": "Amsterdam/GE3T",
    "Amsterdam_GE3T": "Amsterdam/GE3T",
    "Amsterdam/Philips_VU .PETMR_01": "Amsterdam/Philips",
    "Amsterdam/Philips_VU .PETMR_01.": "Amsterdam/Philips",
}
"""Other folder names for the same scanner in the challenge's releases: older names of GE3T, and the Philips folder,
whose last dot is dropped on Windows."""


def read_challenge(root: PathLike) -> pd.DataFrame:
    """List the subjects of a challenge folder, sorted by centre and subject. Links to folders are followed.

    Returns
    -------
    DataFrame
        Columns `subject, centre, split, flair, reference`; `split` is `external` below `test/` and empty below
        `training/` until `assign_splits`; `flair` and `reference` are absolute paths as text. `attrs["notes"]` lists
        what was left out and why: subjects that were not fetched, folders without a scan, FLAIRs in other places.

    Raises
    ------
    FileNotFoundError
        The folder does not exist or has no scan, or a subject has no FLAIR or no reference.
    PermissionError
        A folder cannot be read.
    ValueError
        Two folders have the same subject, a link points to a subject's folder, a subject's folder is not two or three
        levels below `training/` or `test/`, is inside another subject's, or has a path that names another role or a visit,
        or an image exists as `.nii` and as `.nii.gz`.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"The data folder {root} does not exist: create it, or give another with DATA=…")
    root = root.resolve()  # after checking that the folder exists
    folders.refuse_closed(root)
    tree = folders.search(*(root / part for part in PARTS if (root / part).is_dir()))
    subjects = {path.parents[1] for path in tree.files if path.parent.name == "pre" and path.name.lower() in FLAIRS}
    images = ("pre", "orig")
    subjects |= {
        path.parent for path in tree.files if path.name.lower() in REFERENCES and path.parent.name not in images
    }
    folders.refuse_twice(tree, subjects)
    for folder in subjects:
        if above := next((parent for parent in folder.parents if parent in subjects), None):
            raise ValueError(
                f"The subject in {folder} is inside another subject's folder, {above}: move it out or away."
            )
    notes, rows = [], []
    for folder in sorted(subjects):
        centre, split = _centre(root, folder)
        flair = _image(folder / "pre", FLAIRS, "FLAIR.nii.gz")
        reference = _image(folder, REFERENCES, "wmh.nii.gz")
        if get := not_fetched(flair, reference):
            notes.append((str(folder), f"content not fetched: run {get}"))
        else:
            rows.append((folder.name, centre, split, str(flair), str(reference)))
    notes += _passed_over(root, tree, subjects)
    return folders.cohort_table(rows, notes, root, f"{EXPECTED} with …/<id>/wmh.nii.gz")


def _centre(root: Path, folder: Path) -> tuple[str, str]:
    """A subject's centre and split, from its folder."""
    part, *places = folder.relative_to(root).parts
    if not 2 <= len(places) <= 3:
        expected = f"{part}/<site>/<id> or {part}/<site>/<scanner>/<id>"
        raise ValueError(f"The subject in {folder} is in the wrong place: move it to {expected}.")
    others = [place for place in places[:-1] if names_role(place) or place.lower() in ("train", "training")]
    if others and not (part == "test" and names_role(others[0])):
        raise ValueError(
            f"The subject in {folder} would be in {part}/, but its path has the folder {others[0]}: move it to "
            f"{root}/training or {root}/test, or rename that folder."
        )
    if is_visit(places[-1]):
        raise ValueError(
            f"The folder {folder} is named like a visit, expected a subject: name it <subject>_{places[-1]} and move it to "
            f"{part}/<site>, so that all scans of a person are in one split."
        )
    centre = "/".join(places[:-1])
    return ALIASES.get(centre, centre), PARTS[part]


def _image(folder: Path, names: tuple[str, ...], expected: str) -> Path:
    """The image in a folder with one of these names; its content need not be fetched yet."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    path, *others = [entry for entry in entries if entry.name.lower() in names] or [folder / expected]
    if others:
        raise ValueError(f"{path} and {others[0]} both exist: keep one of them.")
    if not path.is_file() and not not_fetched(path):
        what = "is a broken link" if path.is_symlink() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: {remedy(path)}, or remove the subject's folder.")
    return path


def _passed_over(root: Path, tree: Tree, subjects: set[Path]) -> Notes:
    """Notes on files and folders in a challenge folder that look like a subject's but are not read."""
    above = {parent for folder in subjects for parent in folder.parents} | {root / part for part in PARTS}
    notes = folders.broken_links(tree)
    for folder in tree.folders:
        if folder not in above | subjects and folder.parent in above:
            notes.append((str(folder), "a folder with neither pre/FLAIR.nii.gz nor wmh.nii.gz"))
    for path in filter(folders.may_be_flair, tree.files):
        if (
            path.name.lower() not in FLAIRS
            or path.parent.name not in ("pre", "orig")
            or path.parents[1] not in subjects
        ):
            notes.append((str(path), f"named like a FLAIR, but not at {EXPECTED}"))
    return notes + folders.misplaced(root, [*PARTS, "additional_annotations"], EXPECTED)
