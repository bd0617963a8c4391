"""A folder of scans in the WMH Challenge's layout (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770) as a table:

    training|test/<site>[/<scanner>]/<id>/pre/FLAIR.nii.gz     bias-corrected FLAIR
    training|test/<site>[/<scanner>]/<id>/wmh.nii.gz           0 background, 1 WMH, 2 other pathology

A centre is a site with its scanner, since scanners of one site differ as much as sites do.
"""

from pathlib import Path

import pandas as pd

from wmhlib.running.files import PathLike, refuse_unreadable

COLUMNS = ["subject", "centre", "split", "flair", "reference"]
ALIASES = {
    "GE3T": "Amsterdam/GE3T",
    "Amsterdam_GE3T": "Amsterdam/GE3T",
    "Amsterdam/Philips_VU .PETMR_01": "Amsterdam/Philips",
    "Amsterdam/Philips_VU .PETMR_01.": "Amsterdam/Philips",
}
"""Folders of the challenge's releases that mean one scanner: older names of GE3T, and the Philips folder, whose last dot
Windows drops."""


def read_challenge(root: PathLike) -> pd.DataFrame:
    """List every subject of a challenge folder, sorted by centre and subject.

    Returns
    -------
    DataFrame
        Columns `subject, centre, split, flair, reference`; `split` is `external` below `test/` and empty below
        `training/`, until `assign_splits`; `flair` and `reference` are absolute paths as text.

    Raises
    ------
    FileNotFoundError
        No such folder, no scan in it, or a subject without its FLAIR or its reference.
    PermissionError
        A folder may not be read.
    ValueError
        Two folders hold the same subject.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No data folder at {root}: make it, or name another with DATA=…")
    root = root.resolve()  # once it is sure that its links lead somewhere
    refuse_unreadable(root, ("training", "test"))
    rows = []
    for part, split in (("training", ""), ("test", "external")):
        flairs = {path.parents[1] for path in (root / part).rglob("pre/FLAIR.nii.gz")}
        references = {path.parent for path in (root / part).rglob("wmh.nii.gz")}
        for folder in sorted(flairs | references):
            flair, reference = folder / "pre" / "FLAIR.nii.gz", folder / "wmh.nii.gz"
            for path in (flair, reference):
                if not path.is_file():
                    raise FileNotFoundError(
                        f"Subject {folder} has no {path.name}: expected {path}; add it or remove the folder."
                    )
            centre = folder.parent.relative_to(root / part).as_posix()
            centre = ALIASES.get(centre, centre)
            rows.append((folder.name, centre, split, str(flair), str(reference)))
    if not rows:
        raise FileNotFoundError(
            f"No scans in {root}: expected training/<site>/<id>/pre/FLAIR.nii.gz with …/<id>/wmh.nii.gz beside it "
            "(data/README.md shows the layout)."
        )
    cohort = pd.DataFrame(rows, columns=COLUMNS).sort_values(["split", "centre", "subject"], ignore_index=True)
    repeated = cohort[cohort.subject.duplicated(keep=False)]
    if len(repeated):
        first = repeated[repeated.subject == repeated.subject.iloc[0]]
        folders = " and ".join(str(Path(path).parent) for path in first.reference)
        raise ValueError(
            f"Subject {first.subject.iloc[0]} stands twice in {root}, as {folders}: give each folder a name of its own."
        )
    return cohort
