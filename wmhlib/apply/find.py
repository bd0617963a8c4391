"""Find the scans to segment: a file, a folder, a pattern, or several of these."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from wmhlib.intake.folders import may_be_flair, may_be_scan, not_fetched, search
from wmhlib.running.files import ROOT, PathLike


def find_scans(scans: PathLike) -> list[Path]:
    """The scans of a file, a folder, a glob, or several of these separated by `os.pathsep`: each file once, in order.

    A folder or glob stands for the NIfTI files in or below it, except hidden files, masks and probability maps, such as
    earlier results (`wmhlib.intake.folders.may_be_scan`). If files in a folder have FLAIR in their name, only these are
    used. Links to folders are followed, and no folder is searched twice. Paths are relative to the working directory
    or, if not found there, to the project. A path that does not exist is kept if others exist, so that it is reported
    later.

    Raises
    ------
    FileNotFoundError
        None of the paths exists, or none was fetched.
    PermissionError
        A folder cannot be read.
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
            scans_in_folder = _scans(search(path).files)
            paths += list(filter(may_be_flair, scans_in_folder)) or scans_in_folder
    paths = list({os.path.abspath(path): path for path in paths}.values())
    if not any(path.is_file() for path in paths):
        if get := next(filter(None, map(not_fetched, paths)), ""):
            raise FileNotFoundError(f"The content of {text!r} has not been downloaded: run {get}.")
        raise FileNotFoundError(
            f"No scan found at {text!r}: give a NIfTI file, a folder with .nii or .nii.gz files, a pattern such as "
            f"'scans/*.nii.gz', or several of these separated by {os.pathsep!r}."
        )
    return paths


def _scans(paths: Iterable[Path]) -> list[Path]:
    """The scans among these files, including those not fetched, so that they are reported."""
    return sorted(path for path in paths if may_be_scan(path) and (path.is_file() or not_fetched(path)))
