"""A cohort as a pandas table, one row per scan, and its split into evenly drawn parts (paper 3.1).

Input: a folder in the WMH Challenge's layout or BIDS. Output: the table that every later stage reads: `subject, centre,
split, flair, reference`, and the `reason` of each split. Whatever lies under `test/` is `external`: never trained on, never
tuned on. All scans of one person are in one split: names that differ from `_ses-` on, or another entity of BIDS, are one.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from wmhlib.intake import roles
from wmhlib.intake.bids import is_bids, read_bids
from wmhlib.intake.challenge import read_challenge
from wmhlib.intake.folders import NOTES
from wmhlib.intake.nifti import AUTOMATIC, is_automatic
from wmhlib.intake.phantom import write_cohort
from wmhlib.running.files import ROOT, PathLike, sha256
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
    at random. `training` None takes every subject left over. A subject with several scans counts once. External subjects
    stay external; where `external` names centres, just the subjects of these are external, whichever folder they lie in,
    and others below `test/` are left out.

    Returns
    -------
    DataFrame
        A copy with `split` and its `reason` filled in; subjects beyond the counts are left out, as `attrs["notes"]` says.

    Raises
    ------
    ValueError
        A centre has fewer subjects than its share, a centre named under `external` has none, two centres have one name
        but for case or spaces, or a subject's scans would be in two splits.
    """
    roles.refuse_two_spellings(cohort.centre)
    if "reason" not in cohort:
        cohort = cohort.assign(reason=cohort.split.map({"external": "external in its folder"}).fillna(""))
    cohort = cohort.copy() if external is None else _only_external(cohort, external)
    people = cohort.subject.map(roles.person)
    roles.refuse_two_roles(cohort, people)
    counts = {"holdout": holdout, "validation": validation, "training": training}
    for index, split in _drawn(cohort, people, counts, seed):
        cohort.loc[people == people[index], ["split", "reason"]] = split, f"drawn with seed {seed}"
    return _without(cohort, cohort.split == "", "more than the counts under split ask for")


def _drawn(
    cohort: pd.DataFrame, people: pd.Series, counts: dict[str, int | None], seed: int
) -> Iterator[tuple[int, str]]:
    """The first scan of every person drawn, and the split that this person is drawn for."""
    own = cohort[cohort.split == ""]
    own = own[~people[own.index].duplicated()]
    random = np.random.default_rng(seed)
    centres = random.permutation(sorted(own.centre.unique()))
    waiting = {centre: list(random.permutation(own.index[own.centre == centre])) for centre in centres}
    turn = 0
    for split, count in counts.items():
        for _ in range(sum(map(len, waiting.values())) if count is None else count):
            if not waiting:
                raise ValueError(f"There is no subject to draw {split} from: all of them are external.")
            if count is None:
                centre = max(waiting, key=lambda name: len(waiting[name]))
            else:
                centre = centres[turn % len(centres)]
                turn += 1
            if not waiting[centre]:
                asked = ", ".join(f"{name}={number}" for name, number in counts.items())
                raise ValueError(
                    f"Centre {centre} has {(own.centre == centre).sum()} subject(s), too few for an even share of {asked} over "
                    f"{len(centres)} centre(s): lower the counts under split."
                )
            yield waiting[centre].pop(), split


def _without(cohort: pd.DataFrame, gone: pd.Series, why: str) -> pd.DataFrame:
    """A cohort without some of its rows, and with a note on them."""
    kept = cohort[~gone].reset_index(drop=True)
    kept.attrs[NOTES] = [*cohort.attrs.get(NOTES, []), *((subject, why) for subject in cohort.subject[gone])]
    return kept


def _only_external(cohort: pd.DataFrame, external: list[str]) -> pd.DataFrame:
    """A copy in which exactly the subjects of these centres are external; others below `test/` are left out."""
    if unknown := set(external) - set(cohort.centre):
        names, centres = ", ".join(sorted(unknown)), ", ".join(sorted(cohort.centre.unique()))
        raise ValueError(f"split.external names {names}, but the centres are {centres}: correct the name.")
    gone = ~cohort.centre.isin(external) & (cohort.split != "")
    kept = _without(cohort, gone, "external in its folder, but its centre is not under split.external")
    kept.loc[kept.centre.isin(external), ["split", "reason"]] = "external", "its centre is under split.external"
    return kept


def load_cohort(study: Study) -> pd.DataFrame:
    """The cohort of a study with its splits; makes the synthetic one first where the configuration asks for it.

    Subjects of the folders under `data.external` are external and those of `data.also` are not, whatever these folders say of
    them; `split.external` then names the centres that are.

    Raises
    ------
    ValueError
        A subject or a scan is in two folders, or the study has none to train on or none unseen; and as `read_folder`,
        `assign_splits`.
    """
    # read first, since making scans takes minutes
    also, external = ({folder: read_folder(folder) for folder in folders} for folders in (study.also, study.external))
    if phantom := study.config.data.phantom:
        label_maps = ROOT / Path(phantom.label_maps).expanduser() if phantom.label_maps else None
        write_cohort(study.data, phantom.subjects, phantom.seed, scale=phantom.scale, label_maps=label_maps)
    tables = {study.data: read_folder(study.data)}
    reason = "external in participants.tsv" if is_bids(study.data) else "below test/"
    tables[study.data]["reason"] = tables[study.data].split.map({"external": reason}).fillna("")
    for folder, table in also.items():
        tables[folder] = table.assign(split="", reason="")
    for folder, table in external.items():
        tables[folder] = table.assign(split="external", reason="its folder is under data.external")
    roles.refuse_repeated(tables)
    cohort = pd.concat(tables.values(), ignore_index=True)
    cohort.attrs[NOTES] = [note for table in tables.values() for note in table.attrs[NOTES]]
    cohort = assign_splits(cohort, **study.config.split.model_dump())
    for needed, splits in (("training", ["training"]), ("holdout or external", ["holdout", "external"])):
        if not cohort.split.isin(splits).any():
            where = f"{study.data} (training/ for those that train, test/ for external ones)"
            raise ValueError(
                f"{study.name} has no {needed} subject: put scans into {where}, or lower the counts of split."
            )
    return cohort


def account(cohort: pd.DataFrame) -> str:
    """Who is in which split and why, and what was left out of a cohort of `load_cohort`, as text of many lines.

    Two scans of the same content are named as well: they may be one subject under two names.
    """
    lines = []
    for (split, reason), scans in cohort.groupby(["split", "reason"], sort=False):
        lines.append(f"{split}, {reason}: {len(scans)} scan(s)")
        lines += [f"    {centre}: {', '.join(own.subject)}" for centre, own in scans.groupby("centre")]
    notes: dict[str, list[str]] = {}
    for what, why in cohort.attrs.get(NOTES, []):
        notes.setdefault(why, []).append(what)
    for _, same in cohort.groupby(cohort.flair.map(roles.content)):
        if len(same) > 1:
            both = " and ".join(f"{row.subject} ({row.split})" for row in same.itertuples())
            notes.setdefault("Warning: the same image under two names", []).append(both)
    lines += ["", "Left out, or worth a look:"] if notes else []
    for why, what in notes.items():
        lines += [f"    {why}:", *(f"        {name}" for name in what)]
    return "\n".join(lines)


def fingerprint(cohort: pd.DataFrame) -> str:
    """SHA-256 over the names, centres, splits, FLAIRs and references of a cohort, wherever they lie."""
    whole = hashlib.sha256()
    for row in cohort.sort_values("subject").itertuples():
        whole.update(f"{row.subject}\n{row.centre}\n{row.split}\n".encode())
        for path in (row.flair, row.reference):
            whole.update(bytes.fromhex(sha256(path)))
    return whole.hexdigest()


def read_folder(root: PathLike) -> pd.DataFrame:
    """List the subjects of a folder, be it a BIDS data set or in the challenge's layout.

    Errors as in `read_bids` and `read_challenge`; also PermissionError where a FLAIR or reference may not be read, and
    ValueError where a reference was made by this project, or nothing can be named after a subject or centre.
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
    for path in filter(is_automatic, cohort.reference):
        raise ValueError(
            f"{path} was made by this project, so it cannot be a reference: remove it or, where people have corrected it, "
            f"clear its header's descrip, which is {AUTOMATIC.decode()!r}, and remove its .json with the network's checksum."
        )
    return cohort
