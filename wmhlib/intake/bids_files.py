"""Files of a BIDS data set: the entities in their names, and their makers according to `dataset_description.json`.

Input: paths. Output: a `BidsFile` with its entities, and the content of descriptions. No voxels are read.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from wmhlib.intake.folders import not_fetched, remedy
from wmhlib.running.files import PathLike

NAME = re.compile(r"((?:[a-z]+-[0-9a-zA-Z+]+_)+)([0-9a-zA-Z]+)\.nii(?:\.gz)?")
LABELS = ("wmh", "lesion")
DESCRIPTION = "dataset_description.json"
RAW_EXAMPLE = '{"Name": "…", "BIDSVersion": "1.9.0"}'
DERIVATIVE_EXAMPLE = (
    '{"Name": "…", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "Manual", '
    '"Description": "…"}]}'
)


class BidsFile(NamedTuple):
    """An image with a BIDS name: path, entities in their order, suffix, and whether people made it (for masks)."""

    path: Path
    entities: dict[str, str]
    suffix: str
    by_hand: bool = False

    def is_lesion_mask(self) -> bool:
        return self.suffix == "mask" and self.entities.get("label", "").lower() in LABELS


def parsed(path: PathLike) -> BidsFile | None:
    """A file with its entities and suffix; None if its name does not follow BIDS."""
    if not (named := NAME.fullmatch(Path(path).name)):
        return None
    entities = dict(part.split("-", 1) for part in named[1].rstrip("_").split("_"))
    return BidsFile(Path(path), entities, named[2]) if "sub" in entities else None


def described(folder: PathLike, example: str) -> dict:
    """The content of a folder's `dataset_description.json`.

    Raises
    ------
    FileNotFoundError
        The file is missing; the message gives an `example` of its content, or the command that fetches it.
    ValueError
        The file is not a JSON object.
    """
    path = Path(folder) / DESCRIPTION
    if get := not_fetched(path):
        raise FileNotFoundError(f"The content of {path} has not been fetched: run {get}.")
    if not path.is_file():
        advice = remedy(path) if path.is_symlink() else f"create it with the content {example}"
        raise FileNotFoundError(f"{path} is missing, but BIDS requires it to describe {folder}: {advice}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("not an object in braces")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON object as required by BIDS ({error}): correct it.") from None
    return content


def makers(derivative: PathLike) -> list[str]:
    """The makers of a derivative in lower case, from `GeneratedBy` of its description (formerly `PipelineDescription`).

    BIDS uses "manual" for people. Errors as in `described`.
    """
    content = described(derivative, DERIVATIVE_EXAMPLE)
    steps = content.get("GeneratedBy", content.get("PipelineDescription", []))
    steps = steps if isinstance(steps, list) else [steps]
    return [str(step.get("Name", "")).strip().lower() for step in steps if isinstance(step, dict)]
