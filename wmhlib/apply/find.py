"""Which scans are meant: a file, a folder, a pattern, or several of these."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from wmhlib.intake.folders import may_be_flair, may_be_scan, not_fetched, search
from wmhlib.running.files import ROOT, PathLike


def find_scans(scans: PathLike) -> list[Path]:
    """A file, a folder, a glob, or several of these separated by `os.pathsep`, as files in order, each once.

    A folder or glob stands for the NIfTI files in it or below it, but for hidden files and masks or probability maps, be
    they earlier results (`wmhlib.intake.folders.may_be_scan`); of a folder only those with FLAIR in their name, if there are
    any. Links to folders are followed, and no folder is searched twice. Paths are relative to the working directory, else
    to the project. What is not there is kept among others, so that it is reported.

    Raises FileNotFoundError: nothing of it is there, or nothing was fetched.
    Raises PermissionError: a folder may not be read.
    """
    text, paths = str(scans).strip(), []
    for piece in [text] if os.path.exists(text) else filter(None, text.split(os.pathsep)):
        places = Path(piece).expanduser(), ROOT / piece
        if not (path := next(filter(Path.exists, places), None)):
            matches = (_scans(map(Path, glob.glob(str(place), recursive=True))) for place in places)
            paths += next(filter(None, matches), [Path(piece)])
        elif path.is_file():
            paths.append(path)
        else:
            inside = _scans(search(path).files)
            paths += list(filter(may_be_flair, inside)) or inside
    paths = list({os.path.abspath(path): path for path in paths}.values())
    if not any(path.is_file() for path in paths):
        if get := next(filter(None, map(not_fetched, paths)), ""):
            raise FileNotFoundError(f"The content of {text!r} was not fetched: run {get}.")
        raise FileNotFoundError(
            f"No scan at {text!r}: give a NIfTI file, a folder with .nii or .nii.gz files, a pattern such as "
            f"'scans/*.nii.gz', or several of these separated by {os.pathsep!r}."
        )
    return paths


def _scans(paths: Iterable[Path]) -> list[Path]:
    """The scans among files, also those that were not fetched, so that these are reported."""
    return sorted(path for path in paths if may_be_scan(path) and (path.is_file() or not_fetched(path)))
