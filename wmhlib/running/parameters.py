"""Check the parameters of a notebook for misspelt names and invalid values, before any slow import.

papermill adds a cell with its parameters unchecked, and converts text that looks like a number, True, False or None.
"""

import ast
import csv
import difflib
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wmhlib.apply.find import find_scans
from wmhlib.running.configuration import claim, read_settings
from wmhlib.running.files import ROOT, PathLike, find
from wmhlib.running.quiet import start_keras


class Refused(ValueError):
    """An invalid parameter of a notebook; a notebook shows only the message, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython shows this instead of a traceback
        return [str(self)]


def check(**values: Any) -> None:
    """Refuse unknown parameters of a notebook and invalid values.

    Parameters
    ----------
    values
        All parameters of the notebook by name: `config`, `data`, `beside`, `loss`, `seed`, `your_own`, `centres`, `losses`,
        `seeds` of a study's notebooks; `scans`, `model`, `out`, `bids`, `threshold`, `smallest_mm3` of notebook 07.

    Raises
    ------
    Refused
        A name in the parameters cell is unknown, or a value has the wrong type or is invalid.
    """
    for name in _assigned(values):
        if name not in values:
            close = difflib.get_close_matches(name, values, 1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise Refused(f"There is no parameter {name}: this notebook has {', '.join(values)}{hint}")
    for name in values.keys() & TEXTS:
        if not isinstance(values[name], str | os.PathLike):
            raise Refused(
                f"{name} is {values[name]!r}, but must be text: put it in quotes in a cell, or use -r instead of "
                "papermill's -p, which converts text that looks like a number, True, False or None (007 becomes 7). "
                f"Separate several scans by {os.pathsep!r} in one text."
            )
    try:
        checked = {name: refuse(values[name]) for name, refuse in CHECKS.items() if name in values}
        if "scans" in values and values.get("out"):
            folders = {os.path.realpath(scan.parent) for scan in checked["scans"]}
            if os.path.realpath(ROOT / os.path.expanduser(values["out"])) in folders:
                raise ValueError(
                    f"Scans are in {values['out']}, where their results would be written: set out to another folder."
                )
        if "config" in values:
            names = ("config", "data", "loss", "centres", "losses", "seeds")
            _check_study(**{name: values[name] for name in names if name in values})
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from None
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        start_keras()


def listed(text: str | int) -> list[str]:
    """The names in a text with commas between; none in an empty one. A single seed may be a number."""
    return [name.strip() for name in str(text).split(",") if name.strip()]


def _assigned(known: dict) -> list[str]:
    """The names assigned, but not used, by the parameters cell run before this cell and by the cell that papermill
    inserts after it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    names: list[str] = []
    for cell in reversed(shell.user_ns["In"][-3:-1] if shell else []):
        try:
            statements = ast.parse(cell).body
        except SyntaxError:
            break
        parts = [part for line in statements if isinstance(line, ast.Assign | ast.AnnAssign) for part in ast.walk(line)]
        stored = [part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
        injected = cell.startswith("# Parameters")
        if not (injected or known.keys() & stored):
            break
        used = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
        names += [name for name in stored if name not in used]
        if not injected:
            break
    return names


def _check_seed(seed: Any) -> None:
    if type(seed) is not int or not 1 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}: give a whole number from 1 to {2**32 - 1}.")


def _check_switch(your_own: Any) -> None:
    if type(your_own) is not bool:
        raise ValueError(f"your_own is {your_own!r}: give True or False.")


def _check_threshold(threshold: Any) -> None:
    if type(threshold) not in (int, float) or not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold!r}: give a number of at least 0 (0: the network's own threshold) and below 1."
        )


def _check_smallest(smallest_mm3: Any) -> None:
    if type(smallest_mm3) not in (int, float) or not 0 <= smallest_mm3 < 1e6:
        raise ValueError(f"smallest_mm3 is {smallest_mm3!r}: give a volume in mm³ (0: keep all lesions).")


def _check_model(model: PathLike) -> None:
    if not str(model):
        return
    path = find(model, "model")
    if not path.is_file():
        raise ValueError(f"{model} is a folder: give the model.keras in it.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{model} is truncated or not a model.keras: copy it again.")


def _check_beside(folder: PathLike) -> None:
    if str(folder) and not find(folder, "folder of scans").is_dir():
        raise ValueError(f"beside is {folder}, a file: give a folder of scans in the challenge's layout or BIDS.")


def _check_folder(folder: PathLike) -> None:
    """Refuse an output folder that cannot be written."""
    place = ROOT / os.path.expanduser(folder)
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is not writable" if existing.is_dir() else "is a file"
        raise ValueError(f"Results cannot be written to {folder}, because {existing} {reason}: give another folder.")


def _check_seeds(seeds: Any) -> None:
    if type(seeds) not in (str, int) or not all(seed.isdecimal() for seed in listed(seeds)):
        raise ValueError(f"seeds is {seeds!r}: give whole numbers with commas between, such as '1,2', or '' for all.")


def _check_study(
    config: PathLike,
    data: PathLike = "",
    loss: str | None = None,
    centres: str = "",
    losses: str = "",
    seeds: str | int = "",
) -> None:
    path, settings = read_settings(config)
    entries, study, root = settings.get("losses"), settings.get("study"), settings.get("data")
    if isinstance(entries, dict):
        names = [name for name, entry in entries.items() if entry is not None]
        _check_names("loss", listed(losses) if loss is None else [loss], names, path)
    if isinstance(settings.get("seeds"), list):
        _check_names("seed", listed(seeds), settings["seeds"], path)
    if centres and isinstance(study, str):
        table = ROOT / "reports" / study / "tables" / "cohort.csv"
        _check_names("centre with unseen scans", listed(centres), _unseen_centres(table), table)
    folder: Any = find(data, "data folder") if str(data) else root.get("root") if isinstance(root, dict) else None
    if isinstance(study, str) and re.fullmatch("[a-z0-9][a-z0-9_-]*", study) and isinstance(folder, str | Path):
        claim(ROOT / "reports" / study, path, ROOT / Path(folder).expanduser())


def _check_names(what: str, wanted: list[str], known: Iterable[Any], path: PathLike) -> None:
    """Refuse names, such as those of losses, that a file does not have."""
    names = [str(name) for name in known]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"{path} has no {what} {unknown[0]!r}; it has {', '.join(names)}.")


def _unseen_centres(table: Path) -> list[str]:
    """The centres of the holdout and external scans in `cohort.csv`."""
    if not table.is_file():
        raise ValueError(f"No centre can be chosen before {table} lists them: run notebook 01_explore_data first.")
    with table.open(encoding="utf-8", newline="") as file:
        return sorted({row["centre"] for row in csv.DictReader(file) if row["split"] in ("holdout", "external")})


TEXTS = {"config", "data", "beside", "loss", "centres", "losses", "scans", "model", "out", "bids"}
"""Parameters that are text."""

CHECKS: dict[str, Callable[[Any], Any]] = {
    "seed": _check_seed,
    "seeds": _check_seeds,
    "your_own": _check_switch,
    "beside": _check_beside,
    "scans": find_scans,
    "model": _check_model,
    "out": _check_folder,
    "bids": _check_folder,
    "threshold": _check_threshold,
    "smallest_mm3": _check_smallest,
}
"""The check of each parameter, which raises an error for invalid values; that of `scans` returns the files."""
