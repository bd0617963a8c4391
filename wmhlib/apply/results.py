"""Where a scan's results are saved: a unique name, a record, and a row of `volumes.csv`.

Only results of the same scan and network are replaced. Scans are identified by path and checksum, networks by checksum.
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
"""Columns of every row: the network's file and checksum, the version of wmhlib, and a digest of its code."""

COLUMNS = ["scan", "status", "reason", "lesions", "volume_ml", "largest_lesion_ml", "tissue_ml", "voxel_mm", "verdict"]
COLUMNS += ["mirror_dice", "warnings", "threshold", "smallest_mm3", "mask", *MADE_WITH]
"""Columns of `volumes.csv`. `tissue_ml` is the brain volume of a skull-stripped scan, otherwise the visible head
volume."""

RESULTS = {"mask": "_mask.nii.gz", "probability": "_probability.nii.gz", "picture": ".png", "record": ".json"}
RESULTS |= {"lesions": "_lesions.csv"}
"""Suffixes of a scan's result files. The search for scans skips files with the first two."""

IDENTITY = ("scan", "scan_sha256", "network_sha256")
"""Keys of a record (`<name>.json`) that identify a result: the scan's path and content, and the network."""

LONGEST = 160
"""Most bytes of a name, so that its files can be written on any file system."""


def safe_names(scans: Iterable[PathLike]) -> list[str]:
    """A name for each scan's results: letters, digits, `_`, `-` and single dots, at most `LONGEST` bytes, none twice.

    A name is the file's name with all its BIDS entities. If several scans share it, the folders that distinguish them
    are put in front; if this is not enough, a number is appended. Names that differ only in case count as equal.
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
    """The record of every result in a folder, by name."""
    paths = sorted(Path(out).glob(f"*{RESULTS['record']}"))
    return {path.name.removesuffix(RESULTS["record"]): record for path in paths if (record := read_record(path))}


def read_record(path: PathLike) -> dict:
    """The record of one result; empty if the file does not exist or is not a record."""
    record = read_json(path)
    return record if all(isinstance(record.get(key), str) for key in IDENTITY) else {}


def take_name(out: PathLike, wanted: str, record: dict, records: dict[str, dict]) -> str:
    """Choose a name for results in `out` and write its record.

    The first free name of these is used: the earlier name of this scan and network; `wanted`; the name with the folders
    that distinguish it from the scan that has `wanted`; `wanted` with a number.

    Parameters
    ----------
    wanted
        A name from `safe_names`.
    record
        The keys of `IDENTITY`, and anything else to record.
    records
        Output of `read_records`; the new record is added.
    """
    existing_files = {folded(path.name) for path in Path(out).iterdir()}
    own = [name for name, known in records.items() if all(known[key] == record[key] for key in IDENTITY)]
    rivals = [known["scan"] for name, known in records.items() if folded(name) == folded(wanted)]
    distinguished = [safe_names([rival, record["scan"]])[1] for rival in rivals]
    names = itertools.chain(own, [wanted], distinguished, _numbered(wanted))
    name = next(
        name for name in names if name in own or not {folded(name + end) for end in RESULTS.values()} & existing_files
    )
    write_json(Path(out) / f"{name}{RESULTS['record']}", record)
    records[name] = record
    return name


def _numbered(name: str) -> Iterable[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def read_rows(path: PathLike) -> pd.DataFrame:
    """The rows of a `volumes.csv` as text, so that they can be written back unchanged; no rows without a file.

    Raises
    ------
    ValueError
        The file is another table.
    """
    try:
        rows = pd.read_csv(path, dtype=str, na_values=[""], keep_default_na=False)
    except FileNotFoundError:
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    except ValueError:  # includes the errors of pandas and of UTF-8 decoding
        rows = pd.DataFrame()
    if not {"scan", "status", "mask"} <= set(rows.columns):
        raise ValueError(f"{path} was not written by this notebook: move it, or set out to another folder.")
    return rows


def join_lesions(out: PathLike) -> None:
    """Write `lesions.csv` with the lesions of all scans whose results are in a folder."""
    tables = [pd.read_csv(path, dtype=str) for path in sorted(Path(out).glob(f"*{RESULTS['lesions']}"))]
    if tables:
        write_table(Path(out) / "lesions.csv", pd.concat(tables, ignore_index=True))


def without_rows_of(earlier: pd.DataFrame, scan: str, name: str) -> pd.DataFrame:
    """Earlier rows without those of the result `name` and without failed attempts at this scan."""
    failed = (earlier.status == "failed") & (earlier.scan == scan)
    return earlier[~failed & (earlier["mask"].fillna("").map(os.path.basename) != f"{name}{RESULTS['mask']}")]


def network_sha256(network: Any, model: PathLike) -> str:
    """The SHA-256 of a Keras model's file or, without a file, of its layers and weights."""
    if Path(model).is_file():
        return sha256(model)
    content = hashlib.sha256(network.to_json().encode())
    for weight in network.get_weights():
        content.update(weight.tobytes())
    return content.hexdigest()
