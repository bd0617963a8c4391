"""A cohort as a pandas table, one row per subject, and its split into evenly drawn parts (paper 3.1).

Input: a folder in the WMH Challenge's layout or BIDS. Output: the table that every later stage reads: `subject, centre,
split, flair, reference`. Whatever lies under `test/` is `external`: never trained on, never tuned on.
"""

import hashlib
import os
import re

import numpy as np
import pandas as pd

from wmhlib.intake.bids import is_bids, read_bids
from wmhlib.intake.challenge import read_challenge
from wmhlib.intake.phantom import write_cohort
from wmhlib.running.files import PathLike
from wmhlib.study import Study

LONGEST_NAME = 200
"""Bytes of a subject's or centre's name: a file named after it has an ending too, and 255 are the most that fit."""


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
    cohort = cohort.copy() if external is None else _only_external(cohort, external)
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


def _only_external(cohort: pd.DataFrame, external: list[str]) -> pd.DataFrame:
    """A copy in which exactly the subjects of these centres are external; others below `test/` are left out."""
    if unknown := set(external) - set(cohort.centre):
        raise ValueError(
            f"split.external names {', '.join(sorted(unknown))}, but the centres here are "
            f"{', '.join(sorted(cohort.centre.unique()))}: correct the name."
        )
    kept = cohort[cohort.centre.isin(external) | (cohort.split == "")].reset_index(drop=True)
    kept.loc[kept.centre.isin(external), "split"] = "external"
    return kept


def load_cohort(study: Study) -> pd.DataFrame:
    """The cohort of a study with its splits; makes the synthetic one first where the configuration asks for it.

    Subjects of the folders under `data.external` are external, whatever these folders say of them.
    """
    if phantom := study.config.data.phantom:
        write_cohort(study.data, phantom.subjects, phantom.seed, scale=phantom.scale)
    tables = [read_folder(study.data)]
    for folder in study.external:
        tables.append(read_folder(folder).assign(split="external"))
    cohort = pd.concat(tables, ignore_index=True)
    repeated = cohort.subject[cohort.subject.str.casefold().duplicated()]  # masks are files of these names
    if len(repeated):
        folders = ", ".join(map(str, (study.data, *study.external)))
        raise ValueError(
            f"Subject {repeated.iloc[0]} stands twice in {folders}, where upper and lower case are the same: rename one."
        )
    cohort = assign_splits(cohort, **study.config.split.model_dump())
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


def read_folder(root: PathLike) -> pd.DataFrame:
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
