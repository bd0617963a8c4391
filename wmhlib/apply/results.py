"""What becomes of a scan's results: a name that no other scan or network has, a record, a row of `volumes.csv`.

Results are replaced by those of the same scan and network only; scans and networks are distinguished by path and checksum.
"""

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from wmhlib.intake.roles import folded
from wmhlib.running.files import PathLike, read_json, sha256, write_json, write_table

MADE_WITH = ["network", "network_sha256", "wmhlib", "code"]
"""In every row: the network's file and its checksum, the version of wmhlib and a digest of its code."""

COLUMNS = ["scan", "status", "reason", "lesions", "volume_ml", "largest_lesion_ml", "tissue_ml", "voxel_mm", "verdict"]
COLUMNS += ["mirror_dice", "warnings", "threshold", "smallest_mm3", "mask", *MADE_WITH]
"""Of `volumes.csv`. `tissue_ml` is the volume of the brain where a scan is stripped, else of the head in sight."""

RESULTS = {"mask": "_mask.nii.gz", "probability": "_probability.nii.gz", "picture": ".png", "record": ".json"}
RESULTS |= {"lesions": "_lesions.csv"}
"""What a scan's name is followed by in its results; a search for scans leaves the first two out."""

IDENTITY = ("scan", "scan_sha256", "network_sha256")
"""What a record (`<name>.json`) tells results apart by: the scan's path and content, and the network."""

LONGEST = 160
"""Bytes of a name, so that a file of it can be written on any disk."""


def safe_names(scans: Iterable[PathLike]) -> list[str]:
    """A name for each scan's results: letters, digits, `_`, `-` and single dots, at most `LONGEST` bytes, none twice.

    It is the file's name, with all its BIDS entities; where several scans share that, the folders that tell them apart
    come before it; where this is not enough, a number comes behind it. Names that differ only in case count as one.
    """
    paths = [Path(os.path.abspath(scan)) for scan in scans]
    stems = [re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE) for path in paths]
    alike = [folded(stem) for stem in stems]
    top, names, taken = os.path.commonpath([path.parent for path in paths]), [], set()
    for path, stem in zip(paths, stems, strict=True):
        text = os.path.join(os.path.relpath(path.parent, top), stem) if alike.count(folded(stem)) > 1 else stem
        safe = re.sub(r"\.{2,}", ".", re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)))
        base = safe.encode()[-LONGEST:].decode(errors="ignore").strip("._-") or "scan"
        names.append(next(name for name in _numbered(base) if folded(name) not in taken))
        taken.add(folded(names[-1]))
    return names


def read_records(out: PathLike) -> dict[str, dict]:
    """The record of every result in a folder, by the result's name."""
    paths = sorted(Path(out).glob(f"*{RESULTS['record']}"))
    return {path.name.removesuffix(RESULTS["record"]): record for path in paths if (record := read_record(path))}


def read_record(path: PathLike) -> dict:
    """The record of one result; empty where there is none, or another file has its name."""
    record = read_json(path)
    return record if all(isinstance(record.get(key), str) for key in IDENTITY) else {}


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
    there = {folded(path.name) for path in Path(out).iterdir()}
    own = [name for name, known in records.items() if all(known[key] == record[key] for key in IDENTITY)]
    rivals = [known["scan"] for name, known in records.items() if folded(name) == folded(wanted)]
    told_apart = [safe_names([rival, record["scan"]])[1] for rival in rivals]
    names = itertools.chain(own, [wanted], told_apart, _numbered(wanted))
    name = next(name for name in names if name in own or not {folded(name + end) for end in RESULTS.values()} & there)
    write_json(Path(out) / f"{name}{RESULTS['record']}", record)
    records[name] = record
    return name


def _numbered(name: str) -> Iterable[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def read_rows(path: PathLike) -> pd.DataFrame:
    """The rows of a `volumes.csv` as text, so that they are written as they were; none where there is no file.

    Raises ValueError: the file is another table.
    """
    try:
        rows = pd.read_csv(path, dtype=str, na_values=[""], keep_default_na=False)
    except FileNotFoundError:
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    except ValueError:  # among them those of pandas and of UTF-8
        rows = pd.DataFrame()
    if not {"scan", "status", "mask"} <= set(rows.columns):
        raise ValueError(f"{path} is not a table of this notebook: move it, or name another folder as out.")
    return rows


def join_lesions(out: PathLike) -> None:
    """Write `lesions.csv`: the lesions of every scan whose results lie in a folder."""
    tables = [pd.read_csv(path, dtype=str) for path in sorted(Path(out).glob(f"*{RESULTS['lesions']}"))]
    if tables:
        write_table(Path(out) / "lesions.csv", pd.concat(tables, ignore_index=True))


def without_rows_of(earlier: pd.DataFrame, scan: str, name: str) -> pd.DataFrame:
    """Rows without those of the result `name`, and without those of a scan that failed before."""
    failed = (earlier.status == "failed") & (earlier.scan == scan)
    return earlier[~failed & (earlier["mask"].fillna("").map(os.path.basename) != f"{name}{RESULTS['mask']}")]


def network_sha256(network: Any, model: PathLike) -> str:
    """The checksum of a Keras model's file; where there is none, of its layers and weights."""
    if Path(model).is_file():
        return sha256(model)
    content = hashlib.sha256(network.to_json().encode())
    for weight in network.get_weights():
        content.update(weight.tobytes())
    return content.hexdigest()
