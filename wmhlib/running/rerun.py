"""Repeat a finished study from its `run.json` and compare the tables.

Input: a `run.json` with the `tables/` next to it. Output: the study `<study>-again`, one line per table, and warnings
if the machine, the code or the scans have changed.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from wmhlib.running.files import ROOT, PathLike, write_json
from wmhlib.running.provenance import provenance
from wmhlib.study import open_study

SUFFIX = "-again"
"""Suffix of the repeated study's name."""


def changes(before: dict, now: dict) -> list[str]:
    """One sentence per value that differs between two records under the same keys; lists count as one value."""
    sentences = []
    for key in before.keys() & now.keys():
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            sentences += [f"{key}, {sentence}" for sentence in changes(before[key], now[key])]
        elif before[key] != now[key]:
            sentences.append(f"{key}: {before[key]} then, {now[key]} now")
    return sorted(sentences)


def compare(before: PathLike, now: PathLike, name: str) -> str | None:
    """The differences of a table from an earlier one of the study `name`; None if all bytes are equal.

    The name of the repeated study, which differs by `SUFFIX`, is ignored.
    """
    before, now = Path(before), Path(now)
    if not now.is_file():
        return "it was not produced again"
    if before.read_bytes() == now.read_bytes().replace(f"{name}{SUFFIX},".encode(), f"{name},".encode()):
        return None
    old, new = (pd.read_csv(path, na_values=[""], keep_default_na=False) for path in (before, now))
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return f"{len(old)} rows and {len(old.columns)} columns then, {len(new)} and {len(new.columns)} now"
    numbers = [column for column in old if all(pd.api.types.is_numeric_dtype(table[column]) for table in (old, new))]
    others = [column for column in old if column not in numbers and column != "study"]
    texts = sum(int((old[column].astype(str) != new[column].astype(str)).sum()) for column in others)
    apart = (old[numbers].astype(float) - new[numbers].astype(float)).abs()
    apart[old[numbers].isna() & new[numbers].isna()] = 0
    largest = apart.fillna(np.inf).max()
    if not len(largest) or largest.max() == 0:
        return f"texts that differ: {texts}" if texts else "only the format of numbers differs"
    return f"largest difference {largest.max():.3g}, in {largest.idxmax()}" + (
        f"; texts that differ: {texts}" * bool(texts)
    )


def main() -> None:
    """Repeat a study from its run.json as <study>-again and compare the tables with those next to the file."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.running.rerun", description=main.__doc__)
    parser.add_argument("run", type=Path, help="a study's run.json, with its tables next to it")
    parser.add_argument("--data", default="", help="the folder of its scans; not needed for a synthetic cohort")
    parser.add_argument("--profile", default="local", help="as for make report")
    parser.add_argument("--cores", help="as for make report")
    arguments = parser.parse_args()
    try:
        if not arguments.run.is_file():
            raise FileNotFoundError(
                f"There is no file {arguments.run}: give that of a finished study, such as RUN=reports/demo/run.json."
            )
        before = json.loads(arguments.run.read_text(encoding="utf-8"))
        name, configuration, trainings = before["study"], before["configuration"], before["trainings"]
        tables = sorted((arguments.run.parent / "tables").glob("*.csv"))
        if not tables:
            raise FileNotFoundError(
                f"There are no tables next to {arguments.run}: copy its folder tables/ there for comparison."
            )
        again = ROOT / "reports" / f"{name}{SUFFIX}"
        write_json(again / "configuration.yaml", configuration | {"study": again.name})  # JSON is YAML
        open_study(again / "configuration.yaml", arguments.data)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        sys.exit(f"{arguments.run} is not a study's run.json ({error!r}): give the file written by make report.")
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot repeat the study. {error}")
    for line in changes(before, provenance()):
        print(f"Warning: {line}.")
    command = [sys.executable, "-m", "wmhlib.running.command", again / "configuration.yaml", "--data", arguments.data]
    command += ["--profile", arguments.profile, *(["--cores", arguments.cores] if arguments.cores else [])]
    backend = {"KERAS_BACKEND": trainings[0]["backend"]} if trainings else {}
    sys.stdout.flush()
    if code := subprocess.run(command, env=backend | os.environ).returncode:
        sys.exit(code)
    now = json.loads((again / "run.json").read_text(encoding="utf-8"))
    compared = ("scans", "features")
    differences = changes({key: before.get(key, {}) for key in compared}, {key: now[key] for key in compared})
    for old, new in zip(trainings, now["trainings"], strict=True):
        which = f"training {old['loss']}, seed {old['seed']}"
        differences += [
            f"{which}, {line}"
            for line in changes({key: old.get(key, new[key]) for key in ("backend", "precision")}, new)
        ]
    for line in differences:
        print(f"Warning: {line}.")
    differing = 0
    for table in tables:
        how = compare(table, again / "tables" / table.name, name)
        differing += how is not None
        print(f"  {table.name}: {how or 'identical'}")
    print(f"{len(tables) - differing} of {len(tables)} tables are identical; the new ones are in {again}/tables")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
