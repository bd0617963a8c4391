"""Files of a BIDS data set: what their names say, and what `dataset_description.json` says of who made them.

Input: paths. Output: a `BidsFile` with its entities, and the content of descriptions. No voxel is read.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from wmhlib.intake.folders import remedy
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
    """An image named as BIDS asks, its entities in their order, its suffix, and whether people made it (masks)."""

    path: Path
    entities: dict[str, str]
    suffix: str
    by_hand: bool = False

    def is_lesion_mask(self) -> bool:
        return self.suffix == "mask" and self.entities.get("label", "").lower() in LABELS


def parsed(path: PathLike) -> BidsFile | None:
    """What a file's name says, where it is named as BIDS asks."""
    if not (named := NAME.fullmatch(Path(path).name)):
        return None
    entities = dict(part.split("-", 1) for part in named[1].rstrip("_").split("_"))
    return BidsFile(Path(path), entities, named[2]) if "sub" in entities else None


def described(folder: PathLike, example: str) -> dict:
    """The content of a folder's `dataset_description.json`.

    Raises FileNotFoundError: there is none; the message says what to write, such as `example`, or how to fetch it.
    Raises ValueError: it is not JSON with an object.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        advice = remedy(path) if path.is_symlink() else f"write a file that holds {example}"
        raise FileNotFoundError(f"{path} is missing, so that BIDS does not say what {folder} holds: {advice}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("no object in braces")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON as BIDS asks ({error}): correct it.") from None
    return content


def makers(derivative: PathLike) -> list[str]:
    """Who made a derivative, in lower case: `GeneratedBy` of its description, formerly `PipelineDescription`; BIDS's word
    for people is "manual". Errors as in `described`."""
    content = described(derivative, DERIVATIVE_EXAMPLE)
    steps = content.get("GeneratedBy", content.get("PipelineDescription", []))
    steps = steps if isinstance(steps, list) else [steps]
    return [str(step.get("Name", "")).strip().lower() for step in steps if isinstance(step, dict)]
