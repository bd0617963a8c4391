"""Which scans are meant: a file, a folder, a pattern, or several of these."""

import glob
import os
from pathlib import Path

from wmhlib.apply.results import RESULTS
from wmhlib.running.files import ROOT, PathLike


def find_scans(scans: PathLike) -> list[Path]:
    """A file, a folder, a glob, or several of these separated by `os.pathsep`, as files in order, each once.

    A folder or glob stands for the NIfTI files in it or below it, but for hidden files and earlier results
    (`*_mask.nii.gz`, `*_probability.nii.gz`); of a folder only those with FLAIR in their name, if there are any. Paths
    are relative to the working directory, else to the project. What is not there is kept among others, so that it
    is reported.

    Raises
    ------
    FileNotFoundError
        Nothing of it is there.
    """
    text, found = str(scans).strip(), []
    for piece in [text] if os.path.exists(text) else filter(None, text.split(os.pathsep)):
        path = next((base for base in (Path(piece).expanduser(), ROOT / piece) if base.exists()), None)
        if path and path.is_file():
            found.append(path)
        elif path:
            inside = _search(f"{glob.escape(str(path))}/**/*")
            found += [one for one in inside if "flair" in one.name.lower()] or inside
        else:
            found += _search(str(Path(piece).expanduser())) or _search(str(ROOT / piece)) or [Path(piece)]
    found = list({os.path.abspath(path): path for path in found}.values())
    if not any(path.is_file() for path in found):
        raise FileNotFoundError(
            f"No scan at {text!r}: give a NIfTI file, a folder with .nii or .nii.gz files, a pattern such as "
            f"'scans/*.nii.gz', or several of these separated by {os.pathsep!r}."
        )
    return found


def _search(pattern: str) -> list[Path]:
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))
    own = (RESULTS["mask"], RESULTS["probability"])
    scans = [path for path in paths if path.name.lower().endswith((".nii", ".nii.gz")) and path.is_file()]
    return [path for path in scans if not path.name.endswith(own)]
