"""Folders searched to the last file, as data sets need it: nothing below them is passed over without a word.

Input: folders. Output: every file and folder below them. Links to folders are followed, each folder is read once, and a link
back up ends there. Files whose content was never fetched (DataLad, git-annex, Git LFS) are told from broken ones.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from wmhlib.running.files import PathLike

COLUMNS = ["subject", "centre", "split", "flair", "reference"]
"""What the readers of data sets list."""

Notes = list[tuple[str, str]]
NOTES = "notes"
"""The key of a cohort's `attrs` with what a reader of the study should know: pairs (what, why), as text."""

POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull --include"}
"""How a file begins that stands for content kept elsewhere, and what fetches that."""


class Tree(NamedTuple):
    """What lies below folders: every file (also links that lead nowhere), every folder, links to folders listed before with
    the place where these are listed, and folders that may not be read."""

    files: list[Path]
    folders: list[Path]
    again: list[tuple[Path, Path]]
    closed: list[Path]


def search(*tops: PathLike, may_be_closed: bool = False) -> Tree:
    """List everything below these folders, but for hidden files and folders; behind links only what is nowhere else.

    Raises
    ------
    PermissionError
        A folder may not be read, unless `may_be_closed`; the message names it.
    """
    tops = tuple(map(Path, tops))
    tree, seen = Tree([], [], [], []), {}
    waiting, links = list(reversed(tops)), []
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
    path = Path(path)
    return path.name.startswith(".") and not path.name.startswith("..")


def refuse_closed(folder: PathLike) -> None:
    """PermissionError where a folder may not be read; the message names it."""
    folder = Path(folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"The folder {folder} cannot be read: make it readable, or move it elsewhere.")


def refuse_twice(tree: Tree, subjects: set[Path]) -> None:
    """Refuse a link by which one of these subjects' folders is reached a second time: it would count as two subjects.

    Raises
    ------
    ValueError
        The message names the link and the folder.
    """
    for link, first in tree.again:
        if any(first in (folder, *folder.parents) for folder in subjects):
            raise ValueError(
                f"{link} and {first} are one folder, whose scans would count twice: remove one of the two."
            )


def is_made(path: PathLike) -> bool:
    """Whether a file is a mask or a probability map by its name, as this project and BIDS end these, and so no scan."""
    path = Path(path)
    return bool(re.search(r"_(mask|probability|probseg|dseg)\.nii(\.gz)?$", path.name, re.IGNORECASE))


def looks_like(path: PathLike, *words: str) -> bool:
    """Whether a file is a NIfTI with one of these words in its name, in any case."""
    path = Path(path)
    name = path.name.lower()
    return name.endswith((".nii", ".nii.gz")) and any(word in name for word in words)


def looks_like_flair(path: PathLike) -> bool:
    """Whether a file's name says that it is a FLAIR."""
    path = Path(path)
    return looks_like(path, "flair") and not is_made(path)


def not_fetched(path: str | Path) -> str:
    """What to run where a file stands for content that was never fetched; empty where the content is there, or lost."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        annexed = "annex/objects" in os.path.realpath(path).replace(os.sep, "/")
        return f"`datalad get {path}` or `git annex get {path}`" if annexed else ""
    if path.is_file() and path.stat().st_size < 1024 and os.access(path, os.R_OK):
        start = path.read_bytes()
        return next((f"`{get} {path}`" for mark, get in POINTERS.items() if start.startswith(mark)), "")
    return ""


def broken_links(tree: Tree) -> Notes:
    """A note for every link that leads nowhere, but for those to content that can be fetched."""
    return [
        (str(path), f"a link that leads nowhere, to {os.readlink(path)}")
        for path in tree.files
        if path.is_symlink() and not path.exists() and not not_fetched(path)
    ]


def shortened(notes: Notes, root: PathLike) -> Notes:
    """Notes that name each file from the data set's folder on, as a page for others should."""
    root = Path(root)
    return [(os.path.relpath(what, root.parent), why) for what, why in notes]


def inventory(*roots: PathLike) -> list[tuple[str, str]]:
    """What a cohort of these folders follows from: every NIfTI file with its size, every table and description with its text."""
    roots = tuple(map(Path, roots))
    entries = []
    for root in roots:
        for path in search(root, may_be_closed=True).files:
            if path.name in ("participants.tsv", "dataset_description.json") and os.access(path, os.R_OK):
                entries.append((os.path.relpath(path, root), repr(path.read_bytes())))
            elif looks_like(path, ""):
                entries.append(
                    (os.path.relpath(path, root), str(path.stat().st_size) if path.exists() else "not there")
                )
    return sorted(entries)
