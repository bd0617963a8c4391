"""What the readers of both layouts share: folders searched to the last file, the table, and notes on what was left out.

Links to folders are followed, each folder is read once, and a link back up ends there. Files whose content was never fetched
(DataLad, git-annex, Git LFS) are distinguished from broken ones.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wmhlib.running.files import PathLike

COLUMNS = ["subject", "centre", "split", "flair", "reference"]
"""What the readers of data sets list."""

Notes = list[tuple[str, str]]
NOTES = "notes"
"""The key of a cohort's `attrs` with what a reader of the study should know: pairs (what, why), as text."""

POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull --include"}
"""How a placeholder for content kept elsewhere begins, and what fetches that."""


MADE = re.compile(
    r"(mask|seg|segmentation|labels?|lesions?|wmh|roi|probability|probseg|prob|pve_?\d)$|^(lesions?[_-]?mask|mask|seg|roi)[_-]",
    re.IGNORECASE,
)
"""How a file's name ends or begins, but for its ending, where programs or people made it from a scan."""


class Tree(NamedTuple):
    """What lies below folders: every file (also links that lead nowhere), every folder, links to folders listed before with
    the place where these are listed, and folders that may not be read."""

    files: list[Path]
    folders: list[Path]
    again: list[tuple[Path, Path]]
    closed: list[Path]


def search(*tops: PathLike, may_be_closed: bool = False) -> Tree:
    """List everything below these folders, but for hidden files and folders; behind links only what is nowhere else.

    Raises PermissionError: a folder may not be read, unless `may_be_closed`; the message names it.
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
    """Whether a file or folder is one that programs hide, such as `.git`, `.snapshot` or `._FLAIR.nii.gz`."""
    return bool(re.match(r"\.[^.]", Path(path).name))


def refuse_closed(folder: PathLike) -> None:
    """PermissionError where a folder may not be read; the message names it."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"The folder {folder} cannot be read: make it readable, or move it elsewhere.")


def refuse_twice(tree: Tree, subjects: set[Path]) -> None:
    """Refuse a link by which one of these subjects' folders is reached a second time: it would count as two subjects.

    Raises ValueError, which names the link and the folder.
    """
    for link, first in tree.again:
        if any(first in (folder, *folder.parents) for folder in subjects):
            raise ValueError(f"{link} and {first} are one folder, whose scans would count twice: remove one of them.")


def may_be_scan(path: PathLike) -> bool:
    """Whether a file is a NIfTI by its name, and not a mask, labels or a probability map."""
    name = re.sub(r"\.nii(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)
    return name != Path(path).name and not MADE.search(name)


def may_be_flair(path: PathLike) -> bool:
    """Whether a file may be a scan and its name says that it is a FLAIR; in a BIDS name the last part does."""
    name = re.sub(r"^sub-.*_(?=[^_]+$)", "", Path(path).name.lower())
    return may_be_scan(path) and "flair" in name


def not_fetched(*paths: PathLike) -> str:
    """What to run for those files whose content was never fetched; empty where it is there, or lost."""
    return " and ".join(f"`{get} {path}`" for path in paths if (get := _fetches(Path(path))))


def _fetches(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "datalad get" * ("annex/objects" in os.path.realpath(path).replace(os.sep, "/"))
    if path.is_file() and path.stat().st_size < 1024 and os.access(path, os.R_OK):
        start = path.read_bytes()
        return next((get for mark, get in POINTERS.items() if start.startswith(mark)), "")
    return ""


def remedy(path: PathLike) -> str:
    """What to do about a file that is not there: fetch it, correct the link to it, or check the path."""
    if get := not_fetched(path):
        return f"its content was not fetched, so run {get}"
    return f"correct the link, which leads to {os.readlink(path)}" if os.path.islink(path) else "check the path"


def broken_links(tree: Tree) -> Notes:
    """A note for every link that leads nowhere, but for those to content that can be fetched."""
    links = [path for path in tree.files if path.is_symlink() and not path.exists() and not not_fetched(path)]
    return [(str(path), f"a link that leads nowhere, to {os.readlink(path)}") for path in links]


def misplaced(root: PathLike, known: Iterable[str], expected: str) -> Notes:
    """Notes on FLAIRs, links that lead nowhere and closed folders in a data set's folder, but for its `known` folders."""
    entries = [path for path in sorted(Path(root).iterdir()) if not is_hidden(path)]
    tree = search(*(path for path in entries if path.is_dir() and path.name not in known), may_be_closed=True)
    tree.files.extend(path for path in entries if not path.is_dir())
    notes = [(str(path), f"named like a FLAIR, but not at {expected}") for path in filter(may_be_flair, tree.files)]
    return notes + broken_links(tree) + [(str(folder), "a folder that may not be read") for folder in tree.closed]


def cohort_table(rows: list[tuple], notes: Notes, root: PathLike, expected: str) -> pd.DataFrame:
    """The table of a data set, sorted, with its notes, in which files are named from the data set's folder on.

    Raises FileNotFoundError: there are no rows; the message says what was `expected`, and what was left out.
    Raises ValueError: two rows are one subject; the message names their FLAIRs.
    """
    if not rows:
        left_out = "".join(f". Left out: {what}, {why}" for what, why in notes[:3])
        raise FileNotFoundError(f"No scans in {root}: expected {expected} (see data/README.md){left_out}.")
    cohort = pd.DataFrame(rows, columns=COLUMNS).sort_values(["split", "centre", "subject"], ignore_index=True)
    for subject, flairs in cohort.groupby("subject").flair:
        if len(flairs) > 1:
            raise ValueError(f"{' and '.join(flairs)} are both subject {subject}: rename or remove one of them.")
    cohort.attrs[NOTES] = [(os.path.relpath(what, Path(root).parent), why) for what, why in notes]
    return cohort


def inventory(*roots: PathLike) -> list[tuple[str, str]]:
    """What a cohort of these folders follows from: every NIfTI file with its size, every table and description with its text."""
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
