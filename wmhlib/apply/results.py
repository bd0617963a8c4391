"""Where a scan's results are saved: a unique name, a record, and a row of `volumes.csv`.

Only results of the same scan and network are replaced, and masks that people changed are kept. Scans are identified by
path and checksum, networks by checksum.
"""

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wmhlib.apply import lesions
from wmhlib.intake.nifti import changed_since
from wmhlib.intake.roles import folded
from wmhlib.running.files import PathLike, read_json, sha256, write_json

MADE_WITH = ["network", "network_sha256", "structures_sha256", "wmhlib", "code"]
"""Columns of every row: the network's file and checksum, the checksum of the networks of the skull and ventricles, the version
of wmhlib, and a digest of its code."""

COLUMNS = ["scan", "status", "reason", "lesions", "volume_ml", "largest_lesion_ml", "periventricular_ml", "deep_ml"]
COLUMNS += ["intracranial_ml", "ventricles_ml", "voxel_mm", "verdict", "mirror_dice", "warnings", "threshold"]
COLUMNS += ["smallest_mm3", "mask", *MADE_WITH]
"""Columns of `volumes.csv`. `intracranial_ml` is the volume inside the skull or, of a skull-stripped scan, of what is left."""

LATER = {
    "periventricular_ml",
    "deep_ml",
    "intracranial_ml",
    "ventricles_ml",
    "ventricle_mm",
    "region",
    "structures_sha256",
}
"""Columns that tables of the first version lack; they stay empty there."""

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
    """The record of every result in a folder, by name; copies of records under another name are ignored."""
    paths = sorted(Path(out).glob(f"*{RESULTS['record']}"))
    records = {path.name.removesuffix(RESULTS["record"]): read_record(path) for path in paths}
    return {name: record for name, record in records.items() if record and record.get("name", name) == name}


def changed_names(out: PathLike, records: dict[str, dict]) -> set[str]:
    """The names of the results whose masks people changed."""
    return {name for name, record in records.items() if changed_since(Path(out) / f"{name}{RESULTS['mask']}", record)}


def read_record(path: PathLike) -> dict:
    """The record of one result; empty if the file does not exist or is not a record."""
    record = read_json(path)
    return record if all(isinstance(record.get(key), str) for key in IDENTITY) else {}


def free_name(
    out: PathLike, wanted: str, record: dict, records: dict[str, dict], changed: set[str]
) -> tuple[str, list[str]]:
    """Choose a name for results in `out`; also notes on earlier results of the scan that are kept.

    The first free name of these is used: the earlier name of this scan and network; `wanted`; the name with the folders
    that distinguish it from the scan that has `wanted`; `wanted` with a number.

    Parameters
    ----------
    wanted
        A name from `safe_names`.
    record
        The keys of `IDENTITY`.
    records
        Output of `read_records`, and records of results that are still to be saved.
    changed
        Output of `changed_names`.
    """
    existing_files = {folded(path.name) for path in Path(out).iterdir()}
    existing_files |= {folded(name + RESULTS["record"]) for name in records}
    of_scan = [
        name for name, known in records.items() if all(known[key] == record[key] for key in ("scan", "network_sha256"))
    ]
    own = [name for name in of_scan if records[name]["scan_sha256"] == record["scan_sha256"]]
    older = [name for name in of_scan if name not in own]
    kept = changed & {*own}
    own = [name for name in own if name not in kept]
    rivals = [known["scan"] for name, known in records.items() if folded(name) == folded(wanted)]
    distinguished = [safe_names([rival, record["scan"]])[1] for rival in rivals]
    names = itertools.chain(own, [wanted], distinguished, _numbered(wanted))
    name = next(
        name for name in names if name in own or not {folded(name + end) for end in RESULTS.values()} & existing_files
    )
    notes = [
        f"{other}{RESULTS['mask']} was changed by hand and is kept; this result is {name}" for other in sorted(kept)
    ]
    notes += [f"The scan's content has changed; {other} is of its earlier content" for other in older]
    if name != wanted and wanted not in records and (Path(out) / f"{wanted}{RESULTS['mask']}").exists():
        notes.append(f"{wanted}{RESULTS['mask']} exists without its record and is kept; this result is {name}")
    return name, notes


def move_in(folder: PathLike, out: PathLike, name: str, record: dict) -> dict:
    """Move the finished results of a scan from `folder` to `out` and write its record, which is returned."""
    record, path = record | {"name": name}, Path(out) / f"{name}{RESULTS['record']}"
    checksum = sha256(Path(folder) / f"{name}{RESULTS['mask']}")
    write_json(path, record)  # without the checksum, so that an interruption does not look like a change by hand
    for result in Path(folder).iterdir():
        result.replace(Path(out) / result.name)
    write_json(path, record | {"mask_sha256": checksum})
    return record | {"mask_sha256": checksum}


def _numbered(name: str) -> Iterable[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def read_rows(path: PathLike, columns: list[str] = COLUMNS) -> pd.DataFrame:
    """The rows of a `volumes.csv`, or a table with other `columns`, as text, so that they can be written back unchanged;
    no rows without a file.

    Raises
    ------
    ValueError
        The file is another table, or has another separator.
    """
    try:
        rows = pd.read_csv(path, dtype=str, na_values=[""], keep_default_na=False).dropna(how="all")
    except FileNotFoundError:
        return pd.DataFrame(columns=columns, dtype=str)
    except ValueError:  # includes the errors of pandas and of UTF-8 decoding
        rows = pd.DataFrame()
    rows = rows.assign(**{column: np.nan for column in columns if column in LATER and column not in rows.columns})
    if missing := [column for column in columns if column not in rows.columns]:
        raise ValueError(
            f"{path} is not a table of this notebook: its first line has no column {missing[0]}. If a spreadsheet program "
            "saved it, save it in UTF-8 with commas between columns; otherwise move it, or set out to another folder."
        )
    return rows


LESION_TABLE = ["scan", *lesions.COLUMNS, *MADE_WITH]
"""Columns of `lesions.csv` and of each scan's lesions."""


def read_lesions(out: PathLike, names: Iterable[str]) -> pd.DataFrame:
    """The lesions of the results with these names. Errors as in `read_rows`."""
    tables = [
        read_rows(Path(out) / f"{name}{RESULTS['lesions']}", LESION_TABLE)[LESION_TABLE] for name in sorted(names)
    ]
    return pd.concat([pd.DataFrame(columns=LESION_TABLE, dtype=str), *tables], ignore_index=True)


def check_lesions(out: PathLike, names: Iterable[str]) -> None:
    """ValueError if `lesions.csv` or a table of one of these results is another table, or has columns that people added."""
    read_lesions(out, names)
    rows = read_rows(Path(out) / "lesions.csv", LESION_TABLE)
    if added := [column for column in rows.columns if column not in LESION_TABLE]:
        raise ValueError(
            f"{Path(out) / 'lesions.csv'} has the column {added[0]}, which would be lost: rename the file, or set out to "
            "another folder."
        )


HAND = "The mask was changed by hand; these numbers are of the automatic mask"
"""The warning and verdict of a result whose mask people changed."""


def marked_as_changed(rows: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    """Rows of `volumes.csv` with `HAND` as verdict, and in the warnings, of those whose mask people changed."""
    masks = rows["mask"].fillna("").map(os.path.basename).str.removesuffix(RESULTS["mask"])
    texts = rows["warnings"].fillna("")
    new = masks.isin(names) & ~texts.str.contains(HAND, regex=False)
    warned = texts.mask(new, (texts + "; " + HAND).str.removeprefix("; "))
    return rows.assign(warnings=warned, verdict=rows["verdict"].mask(new, f"{HAND}."))


def without_rows_of(earlier: pd.DataFrame, scan: str, name: str) -> pd.DataFrame:
    """Earlier rows without those of the result `name` and without failed attempts at this scan."""
    failed = (earlier.status == "failed") & (earlier.scan.fillna("").map(os.path.abspath) == os.path.abspath(scan))
    return earlier[~failed & (earlier["mask"].fillna("").map(os.path.basename) != f"{name}{RESULTS['mask']}")]


def network_sha256(network: Any, model: PathLike) -> str:
    """The SHA-256 of a Keras model's file or, without a file, of its layers and weights."""
    if Path(model).is_file():
        return sha256(model)
    content = hashlib.sha256(network.to_json().encode())
    for weight in network.get_weights():
        content.update(weight.tobytes())
    return content.hexdigest()
