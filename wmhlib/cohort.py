"""A folder of scans as a pandas table, one row a subject, and its split into evenly drawn parts.

In flows a folder in the WMH Challenge's layout (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770):

    training|test/<site>[/<scanner>]/<id>/pre/FLAIR.nii.gz     bias-corrected FLAIR
    training|test/<site>[/<scanner>]/<id>/wmh.nii.gz           0 background, 1 WMH, 2 other pathology

Out flows the table every later stage reads: `subject, centre, split, flair, reference`. A centre is a site with its
scanner, since scanners of one site differ as much as sites do. Whatever lies under `test/` is `external`: never
trained on, never tuned on.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from wmhlib.bids import is_bids, read_bids
from wmhlib.phantom import write_cohort
from wmhlib.study import Study, refuse_unreadable

COLUMNS = ["subject", "centre", "split", "flair", "reference"]
ALIASES = {
    "GE3T": "Amsterdam/GE3T",
    "Amsterdam_GE3T": "Amsterdam/GE3T",
    "Amsterdam/Philips_VU .PETMR_01": "Amsterdam/Philips",
    "Amsterdam/Philips_VU .PETMR_01.": "Amsterdam/Philips",
}
"""Folders of the challenge's releases that mean one scanner: older names of GE3T, and the Philips folder, whose last dot
Windows drops."""

LONGEST_NAME = 200
"""Bytes of a subject's or centre's name: a file named after it has an ending too, and 255 are the most that fit."""


def read_challenge(root: str | Path) -> pd.DataFrame:
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


def assign_splits(
    cohort: pd.DataFrame,
    training: int | None,
    validation: int,
    holdout: int,
    seed: int,
    external: list[str] | None = None,
) -> pd.DataFrame:
    """Draw the training, validation and holdout subjects at random, evenly from every centre (paper 3.1).

    Counts are over all centres together; where one does not divide evenly, the odd subjects come from centres drawn
    at random. `training` None takes every subject left over. External subjects stay external; where `external` names
    centres, just the subjects of these are external, whichever folder they lie in, and others below `test/` are left out.

    Returns
    -------
    DataFrame
        A copy with `split` filled in; subjects beyond the counts are left out.

    Raises
    ------
    ValueError
        A centre has fewer subjects than its share, or a centre named under `external` has none.
    """
    cohort = cohort.copy()
    if external is not None:
        if unknown := set(external) - set(cohort.centre):
            raise ValueError(
                f"split.external names {', '.join(sorted(unknown))}, but the centres here are "
                f"{', '.join(sorted(cohort.centre.unique()))}: correct the name."
            )
        named = cohort.centre.isin(external)
        cohort = cohort[named | (cohort.split == "")].reset_index(drop=True)
        cohort.loc[cohort.centre.isin(external), "split"] = "external"
    own = cohort[cohort.split == ""]
    random = np.random.default_rng(seed)
    centres = random.permutation(sorted(own.centre.unique()))
    waiting = {centre: list(random.permutation(own.index[own.centre == centre])) for centre in centres}
    turn = 0
    for split, count in (("holdout", holdout), ("validation", validation), ("training", training)):
        for _ in range(sum(map(len, waiting.values())) if count is None else count):
            if not waiting:
                raise ValueError(f"There is no subject to draw {split} from: all of them are external.")
            if count is None:
                centre = max(waiting, key=lambda name: len(waiting[name]))
            else:
                centre = centres[turn % len(centres)]
                turn += 1
            if not waiting[centre]:
                raise ValueError(
                    f"Centre {centre} has {(own.centre == centre).sum()} subject(s), too few for an even share of "
                    f"training={training}, validation={validation}, holdout={holdout} over {len(centres)} centre(s): "
                    "lower the counts under split."
                )
            cohort.loc[waiting[centre].pop(), "split"] = split
    return cohort[cohort.split != ""].reset_index(drop=True)


def load_cohort(study: Study) -> pd.DataFrame:
    """The cohort of a study with its splits; makes the synthetic one first where the configuration asks for it.

    Subjects of the folders under `data.external` are external, whatever these folders say of them.
    """
    if phantom := study.config["data"].get("phantom"):
        write_cohort(study.data, phantom["subjects"], phantom["seed"], scale=phantom["scale"])
    tables = [read_folder(study.data)]
    for folder in study.external:
        tables.append(read_folder(folder).assign(split="external"))
    cohort = pd.concat(tables, ignore_index=True)
    repeated = cohort.subject[cohort.subject.duplicated()]
    if len(repeated):
        folders = ", ".join(map(str, (study.data, *study.external)))
        raise ValueError(f"Subject {repeated.iloc[0]} stands in two of the folders {folders}: rename one of them.")
    cohort = assign_splits(cohort, **study.config["split"])
    for needed, splits in (("training", ["training"]), ("holdout or external", ["holdout", "external"])):
        if not cohort.split.isin(splits).any():
            raise ValueError(
                f"The study {study.name} has no {needed} subject in {study.data}: put scans there (training/ for those "
                "that train, test/ for external ones), or change the counts under split."
            )
    return cohort


def fingerprint(cohort: pd.DataFrame) -> str:
    """SHA-256 over the names, centres, splits, FLAIRs and references of a cohort, wherever they lie."""
    whole = hashlib.sha256()
    for row in cohort.sort_values("subject").itertuples():
        whole.update(f"{row.subject}\n{row.centre}\n{row.split}\n".encode())
        for path in (row.flair, row.reference):
            with open(path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def read_folder(root: Path) -> pd.DataFrame:
    """List the subjects of a folder, be it a BIDS data set or in the challenge's layout.

    Errors as in `read_bids` and `read_challenge`; also PermissionError where a FLAIR or reference may not be read, and
    ValueError where a table or a file cannot be named after a subject or centre.
    """
    cohort = (read_bids if is_bids(root) else read_challenge)(root)
    for name in (*cohort.subject, *cohort.centre):
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name) or len(os.fsencode(name)) > LONGEST_NAME:
            raise ValueError(
                f"{root} holds the name {ascii(name)}: rename it without line breaks or broken characters, in at most "
                f"{LONGEST_NAME} bytes."
            )
    for path in (*cohort.flair, *cohort.reference):
        if not os.access(path, os.R_OK):
            raise PermissionError(f"{path} may not be read: make the file readable.")
    return cohort
