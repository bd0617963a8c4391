"""Which scans are meant, and a name for the results of each."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from wmhlib.intake.folders import is_made, looks_like, not_fetched, search
from wmhlib.running.files import ROOT

RESULTS = {"mask": "_mask.nii.gz", "probability": "_probability.nii.gz", "picture": ".png"}
"""What a scan's name is followed by in its results; a search for scans leaves the first two out."""


def find_scans(scans: str | Path) -> list[Path]:
    """A file, a folder, a glob, or several of these separated by `os.pathsep`, as files in order, each once.

    A folder or glob stands for the NIfTI files in it or below it, but for hidden files and masks or probability maps, be
    they earlier results (`wmhlib.intake.folders.is_made`); of a folder only those with FLAIR in their name, if there are
    any. Links to folders are followed, and no folder is searched twice. Paths are relative to the working directory, else
    to the project. What is not there is kept among others, so that it is reported.

    Raises
    ------
    FileNotFoundError
        Nothing of it is there, or nothing was fetched.
    PermissionError
        A folder may not be read.
    """
    text, found = str(scans).strip(), []
    for piece in [text] if os.path.exists(text) else filter(None, text.split(os.pathsep)):
        path = next((base for base in (Path(piece).expanduser(), ROOT / piece) if base.exists()), None)
        if path and path.is_file():
            found.append(path)
        elif path:
            inside = _scans(search(path).files)
            found += [one for one in inside if "flair" in one.name.lower()] or inside
        else:
            found += _search(str(Path(piece).expanduser())) or _search(str(ROOT / piece)) or [Path(piece)]
    found = list({os.path.abspath(path): path for path in found}.values())
    if not any(path.is_file() for path in found):
        if get := next(filter(None, map(not_fetched, found)), ""):
            raise FileNotFoundError(f"The content of {found[0]} was not fetched: run {get}.")
        raise FileNotFoundError(
            f"No scan at {text!r}: give a NIfTI file, a folder with .nii or .nii.gz files, a pattern such as "
            f"'scans/*.nii.gz', or several of these separated by {os.pathsep!r}."
        )
    return found


def _search(pattern: str) -> list[Path]:
    return _scans(map(Path, glob.glob(pattern, recursive=True)))


def _scans(paths: Iterable[Path]) -> list[Path]:
    """The scans among files, also those that were not fetched, so that these are reported."""
    scans = [path for path in paths if looks_like(path, "") and not is_made(path)]
    return sorted(path for path in scans if path.is_file() or not_fetched(path))


def safe_names(scans: list[Path]) -> list[str]:
    """A name for each scan's results: letters, digits, `_`, `-` and single dots, at most 50 characters, none twice.

    It is the file's name; where several scans share that, the folders that tell them apart stand before it; where this
    is not enough, a number stands behind it.
    """
    stems = [re.sub(r"\.nii(\.gz)?$", "", path.name) for path in scans]
    places = [os.path.abspath(path.parent) for path in scans]
    top, names = os.path.commonpath(places), []
    for stem, place in zip(stems, places, strict=True):
        text = os.path.join(os.path.relpath(place, top), stem) if stems.count(stem) > 1 else stem
        base = re.sub(r"\.{2,}", ".", re.sub(r"[^\w.-]+", "_", text))[-50:].strip("._-") or "scan"
        name, number = base, 2
        while name.lower() in map(str.lower, names):
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names
