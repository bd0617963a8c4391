"""A cohort as a pandas table with one row per scan, and its split, balanced over centres (paper 3.1).

Input: a folder in the WMH Challenge's layout or BIDS. Output: the table that all later stages read: `subject, centre,
split, flair, reference`, and the `reason` for each split. Scans below `test/` are `external`: never used for training
or tuning. All scans of a person are in the same split; names that differ only after `_ses-` or another BIDS entity
belong to one person.
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
from wmhlib.intake.folders import NOTES, left_out, listed
from wmhlib.intake.nifti import AUTOMATIC, is_automatic
from wmhlib.intake.phantom import write_cohort
from wmhlib.running.files import ROOT, PathLike, sha256
from wmhlib.study import Study

LONGEST_NAME = 200
"""Most bytes of a subject's or centre's name; with suffixes, file names derived from it must not exceed 255 bytes."""


def assign_splits(
    cohort: pd.DataFrame,
    training: int | None,
    validation: int,
    holdout: int,
    seed: int,
    external: list[str] | None = None,
    drawn_from: list[str] | None = None,
) -> pd.DataFrame:
    """Draw the training, validation and holdout subjects at random, in equal numbers per centre (paper 3.1).

    Counts are totals over all centres; if a count is not divisible, the remaining subjects come from randomly drawn
    centres. If `drawn_from` names centres, validation and holdout subjects come from these alone. With `training` None,
    all remaining subjects are used. A subject with several scans counts once. External subjects stay external. If
    `external` names centres, exactly the subjects of these are external, in whichever folder they are, and other
    subjects below `test/` are left out.

    Returns
    -------
    DataFrame
        A copy with `split` and `reason`; subjects beyond the counts are left out and listed in `attrs["notes"]`.

    Raises
    ------
    ValueError
        A centre has too few subjects, a centre in `external` or `drawn_from` does not exist, the names of two centres
        differ only in case or spaces, or a subject's scans would be in two splits.
    """
    roles.refuse_two_spellings(cohort.centre)
    if "reason" not in cohort:
        cohort = cohort.assign(reason=cohort.split.map({"external": "external in its folder"}).fillna(""))
    for key, names in (("external", external), ("drawn_from", drawn_from)):
        if unknown := set(names or []) - set(cohort.centre):
            wrong, centres = ", ".join(sorted(unknown)), ", ".join(sorted(cohort.centre.unique()))
            raise ValueError(f"split.{key} names {wrong}, but the centres are {centres}: correct the name.")
    cohort = cohort.copy() if external is None else _only_external(cohort, external)
    people = cohort.subject.map(roles.person)
    roles.refuse_two_roles(cohort, people)
    counts = {"holdout": holdout, "validation": validation, "training": training}
    for index, split in _drawn(cohort, people, counts, seed, drawn_from):
        cohort.loc[people == people[index], ["split", "reason"]] = split, f"drawn with seed {seed}"
    return _without(cohort, cohort.split == "", "not needed for the counts under split")


def _drawn(
    cohort: pd.DataFrame,
    people: pd.Series,
    counts: dict[str, int | None],
    seed: int,
    drawn_from: list[str] | None,
) -> Iterator[tuple[int, str]]:
    """The first scan of every person drawn, and the person's split."""
    own = cohort[cohort.split == ""]
    own = own[~people[own.index].duplicated()]
    random = np.random.default_rng(seed)
    centres = random.permutation(sorted(own.centre.unique()))
    waiting = {centre: list(random.permutation(own.index[own.centre == centre])) for centre in centres}
    turn = 0
    for split, count in counts.items():
        allowed = [centre for centre in centres if split == "training" or centre in (drawn_from or centres)]
        for _ in range(sum(map(len, waiting.values())) if count is None else count):
            if not allowed:
                where = (
                    f" in the centres of split.drawn_from, {', '.join(drawn_from)}" if drawn_from and waiting else ""
                )
                raise ValueError(
                    f"There are no subjects for the split {split}{where}, because all are external: change split or data."
                )
            if count is None:
                centre = max(waiting, key=lambda name: len(waiting[name]))
            else:
                centre = allowed[turn % len(allowed)]
                turn += 1
            if not waiting[centre]:
                requested = ", ".join(f"{name}={number}" for name, number in counts.items())
                raise ValueError(
                    f"Centre {centre} has {(own.centre == centre).sum()} subject(s) (with {(cohort.centre == centre).sum()} "
                    f"scan(s)), too few to divide {requested} "
                    f"evenly over {len(allowed)} centre(s): lower the counts under split."
                )
            yield waiting[centre].pop(), split


def _without(cohort: pd.DataFrame, gone: pd.Series, why: str) -> pd.DataFrame:
    """A cohort without the rows in `gone`, which are listed in its notes with the reason `why`."""
    kept = cohort[~gone].reset_index(drop=True)
    kept.attrs[NOTES] = [*cohort.attrs.get(NOTES, []), *((subject, why) for subject in cohort.subject[gone])]
    return kept


def _only_external(cohort: pd.DataFrame, external: list[str]) -> pd.DataFrame:
    """A copy in which exactly the subjects of these centres are external; other subjects below `test/` are left out."""
    gone = ~cohort.centre.isin(external) & (cohort.split != "")
    kept = _without(cohort, gone, "external in its folder, but its centre is not in split.external")
    kept.loc[kept.centre.isin(external), ["split", "reason"]] = "external", "its centre is in split.external"
    return kept


def load_cohort(study: Study) -> pd.DataFrame:
    """The cohort of a study with its splits. A synthetic cohort is made first if configured.

    All subjects of the folders in `data.external` are external, and those of `data.also` are not, unless their centre is under
    `split.external` or `participants.tsv` says so.

    Raises
    ------
    ValueError
        A subject or a scan is in two folders or two splits, or the study has no training or no unseen subjects. Also as
        `read_folder` and `assign_splits`.
    """
    places = [os.path.realpath(folder) for folder in (study.data, *study.also, *study.external)]
    if repeated := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"{study.name} names the folder {repeated[0]} twice under data: remove one of them.")
    # read first, because simulating scans takes minutes
    also, external = ({folder: read_folder(folder) for folder in folders} for folders in (study.also, study.external))
    if phantom := study.config.data.phantom:
        label_maps = ROOT / Path(phantom.label_maps).expanduser() if phantom.label_maps else None
        write_cohort(
            study.data,
            phantom.subjects,
            phantom.seed,
            scale=phantom.scale,
            label_maps=label_maps,
            structures=phantom.structures,
        )
    tables = {study.data: _with_reason(study.data, read_folder(study.data))}
    for folder, table in also.items():  # their test/ may train
        tables[folder] = _with_reason(folder, table if is_bids(folder) else table.assign(split=""))
    for folder, table in external.items():
        tables[folder] = table.assign(split="external", reason="its folder is in data.external")
    roles.refuse_repeated(tables)
    cohort = pd.concat(tables.values(), ignore_index=True)
    cohort.attrs[NOTES] = [note for table in tables.values() for note in table.attrs[NOTES]]
    cohort = assign_splits(cohort, **study.config.split.model_dump())
    roles.refuse_copies(cohort)
    for needed, splits in (("training", ["training"]), ("holdout or external", ["holdout", "external"])):
        if not cohort.split.isin(splits).any():
            where = "training/ for training, test/ for external subjects"
            if is_bids(study.data):
                where = "external subjects are named in participants.tsv"
            raise ValueError(
                f"{study.name} has no {needed} subject: add scans to {study.data} ({where}), or lower the counts under "
                f"split{left_out(cohort.attrs[NOTES])}."
            )
    return cohort


def _with_reason(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A folder's table with the reason why subjects are external."""
    reason = "external in participants.tsv" if is_bids(folder) else "below test/"
    return table.assign(reason=table.split.map({"external": reason}).fillna(""))


def account(cohort: pd.DataFrame) -> str:
    """The subjects of each split with the reason, and the scans left out of a cohort of `load_cohort`, as text.

    Scans of one split with the same content are listed too, because they may be one subject with two names.
    """

    def named(scans: pd.DataFrame) -> str:
        return " and ".join(f"{row.subject} ({row.split})" for row in scans.itertuples())

    lines = []
    for (split, reason), scans in cohort.groupby(["split", "reason"], sort=False):
        lines.append(f"{split}, {reason}: {len(scans)} scan(s)")
        lines += [f"    {centre}: {', '.join(own.subject)}" for centre, own in scans.groupby("centre")]
    notes = list(cohort.attrs.get(NOTES, []))
    people = cohort.subject.map(roles.person)
    for _, scans in cohort.groupby(people):
        if len(scans) > 1:
            notes.append((", ".join(scans.subject), "scans of one person, kept in one split"))
    for _, scans in cohort.groupby(people.str.removeprefix("sub-").map(roles.without_zeros)):
        if people[scans.index].nunique() > 1:
            notes.append((named(scans), "Warning: names that differ only in zeros or sub-, perhaps of one person"))
    for _, same in cohort.groupby(cohort.flair.map(roles.content)):
        if len(same) > 1:
            notes.append((named(same), "Warning: the same image under two names"))
    return "\n".join([*lines, *["", "Left out, or to be checked:"] * bool(notes), *listed(notes)])


def fingerprint(cohort: pd.DataFrame) -> str:
    """SHA-256 of the names, centres, splits, FLAIRs and references of a cohort, independent of their paths."""
    whole = hashlib.sha256()
    for row in cohort.sort_values("subject").itertuples():
        whole.update(f"{row.subject}\n{row.centre}\n{row.split}\n".encode())
        for path in (row.flair, row.reference):
            whole.update(bytes.fromhex(sha256(path)))
    return whole.hexdigest()


def read_folder(root: PathLike) -> pd.DataFrame:
    """List the subjects of a BIDS data set or of a folder in the challenge's layout.

    Errors as in `read_bids` and `read_challenge`. Also PermissionError if a FLAIR or reference cannot be read, and
    ValueError if a reference was made by this project, or a subject's or centre's name cannot be used for files.
    """
    cohort = (read_bids if is_bids(root) else read_challenge)(root)
    for name in (*cohort.subject, *cohort.centre):
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name) or len(os.fsencode(name)) > LONGEST_NAME:
            raise ValueError(
                f"{root} has the name {ascii(name)}: rename it to at most {LONGEST_NAME} bytes without line breaks or "
                "invalid characters."
            )
    for path in (*cohort.flair, *cohort.reference):
        if not os.access(path, os.R_OK):
            raise PermissionError(f"{path} cannot be read: change its permissions.")
    for path in filter(is_automatic, cohort.reference):
        raise ValueError(
            f"{path} was made by this project and cannot be a reference: remove it. If people have corrected it, clear "
            f"descrip in its header, which is {AUTOMATIC.decode()!r}, and remove its .json with the network's checksum."
        )
    return cohort
