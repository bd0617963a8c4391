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

OF_A_SCAN = re.compile(rf"_(?:{'|'.join(key for key in ENTITIES if key not in ('sample', 'split'))})-", re.IGNORECASE)
"""The start of the part of a name that distinguishes scans of one person, written in entities: `_ses-2`."""

DATE = r"(?:19|20)\d\d[-_]?(?:0[1-9]|1[0-2])[-_]?(?:0[1-9]|[12]\d|3[01])"
VISIT_WORD = (
    r"(?:study|session|ses|visit|timepoint|time|tp|scan|exam|wave|screening|base-?line|bl|follow[\s_-]?up|fu|re-?scan"
    r"|re-?test|repeat|pre|post|flair|year|week|day|month|mo)"
)
VISIT = re.compile(
    rf"[\s._-]+(?:{VISIT_WORD}[\s_-]*(?:\d{{1,2}}(?:\.\d+)?|[a-z])?|[tv]\d{{1,2}}(?:\.\d+)?|[myw]\d{{1,3}}|d\d{{1,4}}"
    rf"|\d{{1,3}}\s*(?:mo|months?|m|years?|y|weeks?|w|days?|d)|(?:mr[_-])?d\d{{4}}|{DATE})$",
    re.IGNORECASE,
)
"""The last part of a name if it is that of a visit: `_study2`, `_T1`, `_baseline`, `_M12`, `_12m`, `_20190301`."""

ROLE = re.compile(
    r"(?:external|test(?:ing)?(?:set)?|hold|held|out|of|validation|val|unseen"
    r"|(?:data)?sets?|data|cases?|groups?|subjects?|patients?|split|samples?|sites?|cent(?:re|er)s?|hospitals?|cohort"
    r"|[\d\s()_-])++",
    re.IGNORECASE,
)
"""Words of a role that keeps a subject from training, such as `external validation`; see `names_role`."""


def names_role(text: str) -> bool:
    """Whether a text says no more than that something is kept from training.

    >>> [names_role(text) for text in ("external", "Test cases 2", "hold-out", "test-retest", "site 2", "group")]
    [True, True, True, False, False, False]
    """
    kept = r"external|test|(hold|held)[\s_-]?out|val|unseen|out[\s_-]of"
    return bool(ROLE.fullmatch(text) and re.search(kept, text, re.IGNORECASE))


def person(subject: str) -> str:
    """The person of a scan: the subject's name without entities such as `_ses-2` and visits such as `_T1`, in lower case.

    Visits are cut off only if a digit remains, since `AD_T1` and `AD_T2` are two people of a group.

    >>> [person(name) for name in ("P7_ses-1", "P7_T1_rescan", "7_20190301", "AD_T2")]
    ['p7', 'p7', '7', 'ad_t2']
    """
    own = OF_A_SCAN.split(subject)[0] or subject
    while (shorter := VISIT.sub("", own)) != own and re.search(r"\d", shorter):
        own = shorter
    return folded(own)


def is_visit(name: str) -> bool:
    """Whether the name of a folder is surely that of a visit or a date, not of a subject.

    >>> [is_visit(name) for name in ("ses-1", "20190301", "baseline", "scan01", "T1")]
    [True, True, True, False, False]
    """
    word = r"ses-.+|(session|visit|timepoint)[\s_-]*\d{1,3}|base-?line|follow[\s_-]?up[\s_-]*\d*"
    return bool(re.fullmatch(f"{word}|{DATE}", name, re.IGNORECASE))


def folded(name: str) -> str:
    """A name normalised for case, spaces and the encoding of accents."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def without_zeros(text: str) -> str:
    """A text whose numbers have no zeros in front."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def refuse_two_spellings(centres: pd.Series) -> None:
    """ValueError if names of centres differ only in case, separators or zeros of a number, since a configuration names only
    one."""
    names = pd.Series(centres.unique(), dtype=str)
    plain = names.map(lambda name: re.sub(r"[\s_-]+", " ", without_zeros(folded(name)).removesuffix(".0")))
    for _, alike in names.groupby(plain):
        if len(alike) > 1:
            both = " and ".join(map(repr, alike))
            raise ValueError(
                f"The centres {both} differ only in case, spaces, accents, hyphens or zeros: give them one name."
            )


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
    written = cohort[cohort.flair.map(os.path.getsize) > 0]  # empty files are refused later, by their names
    for _, same in written.groupby(written.flair.map(content)):
        if same.split.nunique() > 1:
            both = " and ".join(f"{row.subject} ({row.split}, {row.flair})" for row in same.itertuples())
            raise ValueError(f"The same FLAIR would be in two splits: {both}. Remove one of them.")


def refuse_repeated(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Refuse two scans with one name, a person in two folders, and a file of two subjects; `tables` are by folder.

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
                f"Subject {subjects} exists twice in {places}, or these are scans of one person: rename or remove one of "
                "them."
            )
    for which, what in (("flair", "FLAIR"), ("reference", "mask")):
        for path, scans in rows.groupby(rows[which].map(os.path.realpath)):
            if len(scans) > 1:
                raise ValueError(
                    f"The subjects {' and '.join(scans.subject)} have the same {what} {path}: remove one of them."
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
