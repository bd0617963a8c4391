"""Shared by the readers of both layouts: the recursive search of folders, the table, and notes on what was left out.

Links to folders are followed, but each folder is read only once, so circular links are harmless. Files whose content
was never fetched (DataLad, git-annex, Git LFS) are distinguished from broken ones.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wmhlib.running.files import PathLike

COLUMNS = ["subject", "centre", "split", "flair", "reference"]
"""Columns of the table that the readers of data sets return."""

Notes = list[tuple[str, str]]
NOTES = "notes"
"""The key of a cohort's `attrs` for notes to the user: pairs of text (file or folder, reason)."""

POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull --include"}
"""First bytes of a placeholder for content stored elsewhere, and the command that fetches it."""


MADE = re.compile(
    r"(mask|seg|segmentation|labels?|lesions?|wmh|roi|probability|probseg|prob|pve_?\d|bias(field)?)$"
    r"|^(lesions?[_-]?mask|w?c[1-6](?=[^_\d-])|ples_)"
    r"|(^|[_-])(mask|seg|segmentation|labels?|roi|prob|probs|probability|probseg)([_-]|$)",
    re.IGNORECASE,
)
"""File names (without suffix) of images derived from a scan, such as masks, labels and probability maps."""

OTHER_CONTRAST = re.compile(
    r"(^|[^a-z0-9])(t1|t1w|mp2?rage|t2|t2w|t2star|pd|pdw|dwi|adc|dti|bold|swi|asl|cbf)([^a-z0-9]|$)", re.IGNORECASE
)
"""Names of images with another contrast than FLAIR."""

TABLE = re.compile(r"(participants?|subjects?|demographics?)\..*(?<!\.json)", re.IGNORECASE)
"""Names of files at the root of a data set that may say which subjects are kept from training, but are not read."""


class Tree(NamedTuple):
    """The content of folders: files (including broken links), folders, links to folders that are already listed with
    the listed path, and folders that cannot be read."""

    files: list[Path]
    folders: list[Path]
    again: list[tuple[Path, Path]]
    closed: list[Path]


def search(*tops: PathLike, may_be_closed: bool = False) -> Tree:
    """List everything below these folders except hidden files and folders; linked folders only if not listed elsewhere.

    Raises
    ------
    PermissionError
        A folder cannot be read and `may_be_closed` is False; the message names it.
    """
    tree, seen = Tree([], [], [], []), {}
    waiting, links = [Path(top) for top in reversed(tops)], []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = folder.resolve()
        if real in seen:
            tree.again.append((folder, seen[real]))
            continue
        if may_be_closed and not os.access(folder, os.R_OK | os.X_OK):
            tree.closed.append(folder)
            continue
        refuse_closed(folder)
        seen[real] = folder
        tree.folders.append(folder)
        entries = sorted(path for path in folder.iterdir() if not is_hidden(path))
        below = [path for path in entries if path.is_dir()]
        tree.files.extend(path for path in entries if path not in set(below))
        waiting += reversed([path for path in below if not path.is_symlink()])
        links += [path for path in below if path.is_symlink() and path.resolve() not in (real, *real.parents)]
    return tree


def is_hidden(path: PathLike) -> bool:
    """Whether a file or folder is hidden, such as `.git`, `.snapshot` or `._FLAIR.nii.gz`."""
    return bool(re.match(r"\.[^.]", Path(path).name))


def refuse_closed(folder: PathLike) -> None:
    """Raise PermissionError if a folder cannot be read; the message names it."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(
            f"The folder {folder} cannot be read: make it readable or move it out of the data folder."
        )


def refuse_twice(tree: Tree, subjects: set[Path]) -> None:
    """Refuse a link through which a subject's folder is reached a second time, since it would count as two subjects.

    Raises
    ------
    ValueError
        There is such a link; the message names the link and the folder.
    """
    for link, first in tree.again:
        if any(first in (folder, *folder.parents) for folder in subjects):
            raise ValueError(
                f"{link} and {first} are the same folder, whose scans would count twice: remove one of them."
            )


def may_be_scan(path: PathLike) -> bool:
    """Whether a file's name is that of a NIfTI file and not of a mask, label or probability map."""
    name = re.sub(r"\.nii(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)
    return name != Path(path).name and not MADE.search(name)


def may_be_flair(path: PathLike) -> bool:
    """Whether a file may be a scan and has FLAIR (or dark-fluid, tirm) in its name; for BIDS names, in the suffix."""
    name = re.sub(r"^sub-.*_(?=[^_]+$)", "", Path(path).name.lower())
    return may_be_scan(path) and bool(re.search(r"flair|dark[\s_-]?fluid|tirm", name))


def not_fetched(*paths: PathLike) -> str:
    """The commands that fetch the content of those files that have only a placeholder; empty if there are none."""
    return " and ".join(f"`{get} {path}`" for path in paths if (get := _fetches(Path(path))))


def _fetches(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "datalad get" * ("annex/objects" in os.path.realpath(path).replace(os.sep, "/"))
    if path.is_file() and path.stat().st_size < 1024 and os.access(path, os.R_OK):
        start = path.read_bytes()
        return next((get for mark, get in POINTERS.items() if start.startswith(mark)), "")
    return ""


def remedy(path: PathLike) -> str:
    """How to fix a missing file: fetch it, correct the link to it, or check the path."""
    if get := not_fetched(path):
        return f"its content has not been fetched, so run {get}"
    return f"correct the link, which points to {os.readlink(path)}" if os.path.islink(path) else "check the path"


def broken_links(tree: Tree) -> Notes:
    """A note for every broken link, except those to content that can be fetched."""
    links = [path for path in tree.files if path.is_symlink() and not path.exists() and not not_fetched(path)]
    return [(str(path), f"a broken link to {os.readlink(path)}") for path in links]


def misplaced(root: PathLike, known: Iterable[str], expected: str) -> Notes:
    """Notes on FLAIRs, broken links and unreadable folders in a data set's folder, outside its `known` folders."""
    entries = [path for path in sorted(Path(root).iterdir()) if not is_hidden(path)]
    tree = search(*(path for path in entries if path.is_dir() and path.name not in known), may_be_closed=True)
    tree.files.extend(path for path in entries if not path.is_dir())
    notes = [(str(path), f"named like a FLAIR, but not at {expected}") for path in filter(may_be_flair, tree.files)]
    notes += [
        (str(path), "not read for roles")
        for path in tree.files
        if TABLE.fullmatch(path.name) and path.name not in known
    ]
    return notes + broken_links(tree) + [(str(folder), "a folder that cannot be read") for folder in tree.closed]


def listed(notes: Notes, most: int = 50) -> list[str]:
    """Notes as lines of text: each reason, followed by its files or folders, `most` of them by name."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in notes:
        by_reason.setdefault(reason, []).append(path)
    lines = []
    for reason, paths in by_reason.items():
        lines += [f"    {reason}:", *(f"        {path}" for path in paths[:most])]
        lines += [f"        and {len(paths) - most} more"] * (len(paths) > most)
    return lines


def left_out(notes: Notes) -> str:
    """The first notes as the end of an error message; empty without notes."""
    return "".join(f". Left out: {path}, {reason}" for path, reason in notes[:3])


def cohort_table(rows: list[tuple], notes: Notes, root: PathLike, expected: str) -> pd.DataFrame:
    """The sorted table of a data set with its notes, which name files relative to the parent of the data set's folder.

    Raises
    ------
    FileNotFoundError
        There are no rows; the message says what was `expected` and what was left out.
    ValueError
        Two rows have the same subject; the message names their FLAIRs.
    """
    if not rows:
        raise FileNotFoundError(f"No scans found in {root}: expected {expected} (see data/README.md){left_out(notes)}.")
    cohort = pd.DataFrame(rows, columns=COLUMNS).sort_values(["split", "centre", "subject"], ignore_index=True)
    for subject, flairs in cohort.groupby("subject").flair:
        if len(flairs) > 1:
            raise ValueError(f"{' and '.join(flairs)} both belong to subject {subject}: rename or remove one of them.")
    cohort.attrs[NOTES] = [(os.path.relpath(path, Path(root).parent), reason) for path, reason in notes]
    return cohort


def inventory(*roots: PathLike) -> list[tuple[str, str]]:
    """The files that determine a cohort of these folders: NIfTI files with size, tables and descriptions with their
    text."""
    entries = []
    for root in roots:
        for path in search(root, may_be_closed=True).files:
            content = ""
            if path.name in ("participants.tsv", "dataset_description.json") and os.access(path, os.R_OK):
                content = repr(path.read_bytes())
            elif path.name.lower().endswith((".nii", ".nii.gz")):
                content = str(path.stat().st_size) if path.exists() else "not there"
            entries += [(os.path.relpath(path, root), content)] if content else []
    return sorted(entries)
