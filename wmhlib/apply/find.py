"""Which scans are meant, and a name for the results of each that no other scan or network has."""

import glob
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from wmhlib.running.files import ROOT, PathLike, write_json

RESULTS = {"mask": "_mask.nii.gz", "probability": "_probability.nii.gz", "picture": ".png", "record": ".json"}
"""What a scan's name is followed by in its results; a search for scans leaves the first two out."""

IDENTITY = ("scan", "scan_sha256", "network_sha256")
"""What a record (`<name>.json`) tells results apart by: the scan's path and content, and the network."""

LONGEST = 160
"""Bytes of a name, so that a file of it can be written on any disk."""


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


def safe_names(scans: Iterable[PathLike]) -> list[str]:
    """A name for each scan's results: letters, digits, `_`, `-` and single dots, at most `LONGEST` bytes, none twice.

    It is the file's name, with all its BIDS entities; where several scans share that, the folders that tell them apart
    come before it; where this is not enough, a number comes behind it. Names that differ only in case count as one.
    """
    paths = [Path(os.path.abspath(scan)) for scan in scans]
    stems = [re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE) for path in paths]
    alike = [_folded(stem) for stem in stems]
    top, names, taken = os.path.commonpath([path.parent for path in paths]), [], set()
    for path, stem in zip(paths, stems, strict=True):
        text = os.path.join(os.path.relpath(path.parent, top), stem) if alike.count(_folded(stem)) > 1 else stem
        base = _cut(re.sub(r"\.{2,}", ".", re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))))
        name = next(name for name in _numbered(base) if _folded(name) not in taken)
        names, taken = [*names, name], taken | {_folded(name)}
    return names


def read_records(out: PathLike) -> dict[str, dict]:
    """The record of every result in a folder, by the result's name."""
    paths = sorted(Path(out).glob(f"*{RESULTS['record']}"))
    return {path.name.removesuffix(RESULTS["record"]): record for path in paths if (record := read_record(path))}


def read_record(path: PathLike) -> dict:
    """The record of one result; empty where there is none, or another file has its name."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and all(isinstance(record.get(key), str) for key in IDENTITY) else {}


def take_name(out: PathLike, wanted: str, record: dict, records: dict[str, dict]) -> str:
    """Take a name for results in `out` and write its record: the name that this scan and network had before; else the
    wanted one; else, where that is another's, one with the folders that tell the two scans apart, or a number.

    Parameters
    ----------
    wanted
        As `safe_names` gives it.
    record
        `IDENTITY` and whatever else the record should say.
    records
        As `read_records` gives them; the new one is added.
    """
    there = {_folded(path.name) for path in Path(out).iterdir()}
    own = [name for name, known in records.items() if all(known[key] == record[key] for key in IDENTITY)]
    rivals = [known["scan"] for name, known in records.items() if _folded(name) == _folded(wanted)]
    told_apart = [safe_names([rival, record["scan"]])[1] for rival in rivals]
    names = itertools.chain(own, [wanted], told_apart, _numbered(wanted))
    name = next(
        name for name in names if name in own or not any(_folded(name + end) in there for end in RESULTS.values())
    )
    write_json(Path(out) / f"{name}{RESULTS['record']}", record)
    records[name] = record
    return name


def _folded(name: str) -> str:
    """A name as a disk sees it that makes no difference between upper and lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _numbered(name: str) -> Iterable[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def _cut(text: str) -> str:
    """The end of a text that fits into a name."""
    while len(os.fsencode(text)) > LONGEST:
        text = text[1:]
    return text.strip("._-") or "scan"
