"""Find the scans to segment: a file, a folder, a pattern, or several of these."""

import glob
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from wmhlib.intake.folders import OTHER_CONTRAST, Notes, left_out, may_be_flair, may_be_scan, not_fetched, search
from wmhlib.intake.formats import first_bytes, refuse_other_formats
from wmhlib.running.files import ROOT, PathLike


def find_scans(scans: PathLike, notes: Notes | None = None) -> list[Path]:
    """The scans of a file, a folder, a glob, or several of these separated by `os.pathsep`: each file once, in order.

    A folder or glob stands for the NIfTI files in or below it, except hidden files, masks and probability maps, such as
    earlier results (`wmhlib.intake.folders.may_be_scan`). If files in a folder have FLAIR in their name or are in a folder
    `FLAIR`, only these are used; otherwise all except those named like another contrast, such as T1. Links to folders are
    followed, and no folder is searched twice. Paths are relative to the working directory or, if not found there, to the
    project. A path that does not exist is kept if others exist, so that it is reported later. `notes` receives the
    images that were left out, with the reason.

    Raises
    ------
    FileNotFoundError
        None of the paths exists, or none was fetched.
    PermissionError
        A folder cannot be read.
    """
    text, paths, notes = str(scans).strip(), [], [] if notes is None else notes
    for piece in [text] if os.path.exists(text) else filter(None, text.split(os.pathsep)):
        places = Path(piece).expanduser(), ROOT / piece
        if not (path := next(filter(Path.exists, places), None)):
            matches = (list(map(Path, glob.glob(str(place), recursive=True))) for place in places)
            matched = next(filter(None, matches), [])
            found = _scans([match for match in matched if not match.is_dir()], notes)
            if not found or "**" not in piece:  # which matches the files below a folder as well
                found += [scan for match in matched if match.is_dir() for scan in _in_folder(match, notes)]
            paths += found or [Path(piece)]
        elif path.is_file():
            paths.append(path)
        else:
            paths += _in_folder(path, notes)
    paths = list({os.path.abspath(path): path for path in paths}.values())
    if not any(path.is_file() for path in paths):
        if get := next(filter(None, map(not_fetched, paths)), ""):
            raise FileNotFoundError(f"The content of {text!r} has not been downloaded: run {get}.")
        raise FileNotFoundError(
            f"No scan found at {text!r}: give a NIfTI file, a folder with .nii or .nii.gz files, a pattern such as "
            f"'scans/*.nii.gz', or several of these separated by {os.pathsep!r}{left_out(notes)}."
        )
    return paths


def _in_folder(folder: Path, notes: Notes) -> list[Path]:
    """The scans in and below a folder, without those of other contrasts, which are added to the notes."""
    scans = _scans(search(folder).files, notes)
    flairs = [scan for scan in scans if may_be_flair(scan) or scan.parent.name.lower() == "flair"]
    chosen = flairs or [scan for scan in scans if not OTHER_CONTRAST.search(scan.name)] or scans
    why = "no FLAIR in its name, unlike others in the folder" if flairs else "named like an image of another contrast"
    notes += [(str(scan), why) for scan in scans if scan not in set(chosen)]
    return chosen


def _scans(paths: Iterable[Path], notes: Notes) -> list[Path]:
    """The scans among these files, including those not fetched, so that they are reported; notes on other images."""
    chosen = []
    for path in sorted(paths):
        if may_be_scan(path) and (path.is_file() or not_fetched(path)):
            chosen.append(path)
        elif path.is_symlink() and not path.exists():
            notes.append((str(path), f"a broken link to {os.readlink(path)}"))
        elif path.is_file() and (why := _other_image(path)):
            notes.append((str(path), why))
    return chosen


def _other_image(path: Path) -> str:
    """Why an image is no scan to segment: its name is that of a mask or map, or its format is another; empty for files
    that are no images."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "named like a mask, label map or probability map"
    if not path.stat().st_size:
        return ""
    try:
        start = first_bytes(path)
        if start[344:347] == b"n+1" or start[4:7] == b"n+2":
            return "a NIfTI file whose name does not end in .nii or .nii.gz"
        refuse_other_formats(path, start)
    except (OSError, EOFError, zlib.error):
        return "a file that cannot be read"
    except ValueError as error:
        return str(error).removeprefix(f"{path} is ").rstrip(".")
    return ""
