"""Recognise scans of the same person, so that no person is in two splits, under two names or in two folders.

Input: cohort tables. Output: the person of each scan, or errors. Names are compared without regard to case, as some
file systems do.
"""

import os
import re
import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

ENTITIES = (
    "ses sample task tracksys acq ce trc stain rec dir run mod echo flip inv mt part proc hemi space split".split()
)
ENTITIES += "recording chunk seg res den label desc".split()
"""The entities of a file's name after the subject, in BIDS order."""

LATER_SCAN = re.compile(
    rf"_(?:{'|'.join(ENTITIES)})-"
    r"|[\s._-]+(?:(?:study|session|ses|visit|timepoint|time|tp|scan|exam|wave|month|year|week|day|fu|bl|t|v)[\s_-]*\d+"
    r"|[myw]\d{1,2}|base-?line|bl|follow[\s_-]?up|fu|re-?scan|re-?test|repeat)$",
    re.IGNORECASE,
)
"""The part of a subject's name that distinguishes scans of one person: `_ses-2`, `_study2`, `_T1`, `_baseline`, `_M12`."""


def person(subject: str) -> str:
    """The person of a scan: the subject's name up to `LATER_SCAN`, in lower case."""
    return folded(LATER_SCAN.split(subject)[0] or subject)


def folded(name: str) -> str:
    """A name normalised for case, spaces and the encoding of accents."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def refuse_two_spellings(centres: pd.Series) -> None:
    """ValueError if names of centres differ only in case, spaces or zeros of a number, since a configuration names only
    one."""
    names = pd.Series(centres.unique(), dtype=str)
    for _, alike in names.groupby(names.map(lambda name: re.sub(r"^0+(?=\d)|(?<=\d)\.0$", "", folded(name)))):
        if len(alike) > 1:
            both = " and ".join(map(repr, alike))
            raise ValueError(f"The centres {both} differ only in case, spaces, accents or zeros: give them one name.")


def refuse_two_roles(cohort: pd.DataFrame, people: pd.Series) -> None:
    """ValueError if one scan of a person is external and another may train. `people` has the `person` of each row."""
    for _, scans in cohort.groupby(people):
        if scans.split.nunique() > 1:
            roles = ", ".join(
                f"{row.subject} of {row.centre}: {row.split or 'may train'}" for row in scans.itertuples()
            )
            raise ValueError(f"One subject would be in two splits ({roles}): move its scans together, or rename one.")


def refuse_copies(cohort: pd.DataFrame) -> None:
    """ValueError if a FLAIR of one split has exactly the content of one of another split."""
    for _, same in cohort.groupby(cohort.flair.map(content)):
        if same.split.nunique() > 1:
            both = " and ".join(f"{row.subject} ({row.split}, {row.flair})" for row in same.itertuples())
            raise ValueError(f"The same FLAIR would be in two splits: {both}. Remove one of them.")


def refuse_repeated(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Refuse two scans with one name, a person in two folders, and a file under two names; `tables` are by folder.

    Raises
    ------
    ValueError
        A scan is repeated; the message names the subjects and the folders or the file.
    """
    rows = pd.concat([table.assign(folder=str(folder)) for folder, table in tables.items()], ignore_index=True)
    for _, scans in rows.groupby(rows.subject.map(person)):
        folders = scans.folder.unique()
        if len(folders) > 1 or scans.subject.map(folded).duplicated().any():
            subjects, places = " and ".join(scans.subject.unique()), " and ".join(folders)
            raise ValueError(
                f"Subject {subjects} exists twice in {places} (ignoring case): rename or remove one of them."
            )
    for path, scans in rows.groupby(rows.flair.map(os.path.realpath)):
        if len(scans) > 1:
            raise ValueError(
                f"The subjects {' and '.join(scans.subject)} have the same FLAIR {path}: remove one of them."
            )


def content(path: str | Path) -> bytes:
    """CRC-32 and size of a file's content. A gzip file ends with them, so it is not decompressed."""
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(max(os.path.getsize(path) - 8, 0))
            if any((end := file.read())[4:]):
                return end
        file.seek(0)
        whole = file.read()
    return zlib.crc32(whole).to_bytes(4, "little") + (len(whole) % 2**32).to_bytes(4, "little")
