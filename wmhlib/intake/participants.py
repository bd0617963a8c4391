"""`participants.tsv` of a BIDS data set: each subject's centre, and whether it is external.

Input: the table as written by people: ids with or without `sub-`, leading zeros or surrounding spaces, column names and
values in any case. Output: a `Participant` per subject. Everything that could put an external subject into training is
refused: an external row that matches no subject, a row that matches two or lacks a cell, a subject with two rows, an unknown
split, a split in another column.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from wmhlib.intake.folders import Notes, not_fetched, remedy
from wmhlib.intake.roles import names_role
from wmhlib.running.files import PathLike

CENTRE_COLUMNS = ("centre", "center", "site", "site_id")
MISSING = ("", "n/a", "na", "nan", "n.a.", "none", "null", "#n/a", "<na>", "-")
SPLIT_VALUES = {**dict.fromkeys(MISSING, ""), "training": "", "external": "external"}
"""Accepted values of the column `split` and their meaning; an empty split is drawn later."""

YES = ("yes", "y", "true", "x", "1")


class Participant(NamedTuple):
    """A subject's centre (empty if not given), split (`external` or empty), and the line of its row (0 without a
    row)."""

    centre: str = ""
    split: str = ""
    line: int = 0


def read_participants(root: PathLike, subjects: Iterable[str], notes: Notes) -> dict[str, Participant]:
    """The rows of `participants.tsv` for these subjects, by label without `sub-`; empty without the file.

    Rows of people without images that are not external are added to `notes`.

    Raises
    ------
    ValueError
        The file is not a table with ids, or a row or value is invalid; the message names the file and the line.
    FileNotFoundError
        The file is a link whose content was not fetched.
    """
    path = Path(root) / "participants.tsv"
    if get := not_fetched(path):
        raise FileNotFoundError(f"The content of {path} has not been fetched: run {get}.")
    if not path.is_file():
        _refuse_another_name(path)
        return {}
    people: dict[str, Participant] = {}
    labels = sorted(set(subjects))
    rows = _rows(path)
    _refuse_other_columns(path, rows)
    for line, row in rows:
        written, where, split = row["participant_id"], f"{path}, line {line}", row.get("split", "")
        if split.casefold() not in SPLIT_VALUES:
            raise ValueError(f"{where}: the split {split!r} is unknown: use external (never trained on) or n/a.")
        matches = _matching(written, labels)
        if not matches and not SPLIT_VALUES[split.casefold()]:
            notes.append((where, f"the id {written!r} matches no subject of the data set"))
            continue
        if len(matches) != 1:
            subjects_matched = " and ".join(f"sub-{label}" for label in matches) or "no subject of the data set"
            raise ValueError(
                f"{where}: the id {written!r} matches {subjects_matched}, expected one: correct or remove the row."
            )
        [label] = matches
        if label in people:
            raise ValueError(f"{where}: sub-{label} also has a row in line {people[label].line}: keep one of them.")
        centre = next((row[name] for name in CENTRE_COLUMNS if row.get(name, "").casefold() not in MISSING), "")
        people[label] = Participant(centre, SPLIT_VALUES[split.casefold()], line)
    missing = [f"sub-{label}" for label in labels if label not in people]
    if missing and any(one.split for one in people.values()):
        raise ValueError(
            f"{path} names external subjects, but has no row for {', '.join(missing)}: add a row for each, with n/a for "
            "those that may train."
        )
    return people


def refuse_split_elsewhere(tables: Iterable[PathLike]) -> None:
    """ValueError if one of these tables of sessions or scans has a column `split`, which is not read."""
    for path in tables:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            if "split" in file.readline().casefold().split():
                raise ValueError(f"{path} has a column split, which would be ignored: give it in participants.tsv.")


def _refuse_another_name(path: Path) -> None:
    """Refuse a table of participants that would be overlooked: one with another name, or without content."""
    if path.is_symlink():
        raise FileNotFoundError(f"{path} cannot be read: {remedy(path)}.")
    for other in path.parent.iterdir():
        name = other.name.lower()
        if (
            re.fullmatch(r"participants?.{0,9}(\.(tsv|csv|txt|tab|dat|xlsx?|ods)(~|\.\w+)?)?", name)
            and other.name != path.name
            and not name.endswith(".json")
        ):
            raise ValueError(f"{other} would be ignored: save it as {path}, with tabs between the columns.")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Every row with its line number; column names in lower case, names and values without surrounding spaces."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a tab-separated table in UTF-8 ({error}): export it again.") from None
    for number, cells in lines:
        if broken := [cell for cell in cells if re.search(r"[\n\r]", cell)]:
            raise ValueError(
                f"{path}, line {number}: the cell {broken[0]!r} spans lines: close or remove its quotation mark."
            )
    lines = [(number, cells) for number, cells in lines if any(cells)]
    names = [name.casefold() for name in (lines[0][1] if lines else [])]
    if "participant_id" not in names or any(name and names.count(name) > 1 for name in names):
        raise ValueError(f"{path} has the columns {names}: add participant_id and remove repeated names.")
    for number, cells in lines[1:]:
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise ValueError(
                f"{path}, line {number} has {len(cells)} cells for {len(names)} columns: correct the row, with n/a for "
                "missing values."
            )
    return [(number, dict(zip(names, cells, strict=False))) for number, cells in lines[1:]]


def _refuse_other_columns(path: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    """Refuse a role in another column than `split`, where no row has a split."""
    if any(row.get("split", "").casefold() not in MISSING for _, row in rows):
        return
    for number, row in rows:
        for name, cell in row.items():
            kept = names_role(cell) or (names_role(name.removeprefix("is_")) and cell.casefold() in YES)
            harmless = name == "participant_id" or (name == "test" and cell.isdigit())  # an id, a score
            if kept and not harmless:
                raise ValueError(
                    f"{path}, line {number}: {cell!r} in the column {name} would be ignored: fill a column named split, "
                    "with external for subjects that are never trained on and n/a for the others."
                )


def _matching(written: str, labels: list[str]) -> list[str]:
    """The labels that match an id exactly, otherwise ignoring case, otherwise ignoring case and leading zeros."""
    own = re.sub("^sub-", "", written, flags=re.IGNORECASE)
    for key in (str, str.casefold, lambda label: re.sub(r"0*(\d+)", r"\1", label.casefold())):
        if matches := [label for label in labels if key(label) == key(own)]:
            return matches
    return []
