"""BIDS data sets in, BIDS derivatives out (Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44; read with pybids).

In flows a data set with `FLAIR` images and, in one of its derivatives, lesion masks (`label-WMH` or `label-lesion`,
suffix `mask`); out flows the table of `wmhlib.cohort`. Predictions flow out as a derivative of their own:

    sub-01/anat/sub-01_space-orig_label-WMH_mask.nii.gz     uint8 0/1 on the scan's own grid, with a JSON sidecar
    dataset_description.json
"""

import importlib.metadata
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import nibabel
import pandas as pd

from wmhlib.running.files import PathLike, refuse_unreadable, replacing, write_json

LABELS = ("WMH", "lesion")

ORDER = "ses sample task tracksys acq ce trc stain rec dir run mod echo flip inv mt part proc hemi space split".split()
ORDER += "recording chunk seg res den label desc".split()
"""The entities of a file's name behind the subject, in the order of BIDS."""


def is_bids(root: PathLike) -> bool:
    """Whether a folder is the root of a BIDS data set."""
    return os.path.isfile(Path(root) / "dataset_description.json")


def read_bids(root: PathLike) -> pd.DataFrame:
    """List every FLAIR of a BIDS data set that has a lesion mask, as `wmhlib.cohort.read_challenge` lists a challenge folder.

    `participants.tsv` may say more of a participant: `centre` (also `site`; else the data set's name) and `split`
    (`external`: never trained on; anything else may be). A subject is called by its entities, such as `01_ses-2`.

    Returns
    -------
    DataFrame
        `subject, centre, split, flair, reference`.

    Raises
    ------
    FileNotFoundError
        No FLAIR, or one without a mask; the message names what was expected.
    PermissionError
        A folder may not be read.
    ValueError
        `dataset_description.json` has no Name, `participants.tsv` is no table with ids, two masks fit one FLAIR, or pybids
        cannot read the folder.
    """
    root = Path(root).resolve()
    refuse_unreadable(root)
    description = root / "dataset_description.json"
    try:
        called = json.loads(description.read_text(encoding="utf-8"))["Name"]
        if not isinstance(called, str):
            raise TypeError("Name is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{description} is not JSON with a Name ({error!r}): correct it as BIDS asks.") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pybids warns of its own future
        from bids import BIDSLayout, BIDSLayoutIndexer

        try:  # sidecars are left alone: nothing here asks for them
            layout = BIDSLayout(root, derivatives=True, indexer=BIDSLayoutIndexer(validate=False, index_metadata=False))
        except Exception as error:  # pybids raises many kinds
            raise ValueError(
                f"{root} cannot be read as BIDS ({' '.join(repr(error).split())}): correct it as BIDS asks."
            ) from None
        scans = layout.get(suffix="FLAIR", extension=[".nii", ".nii.gz"], scope="raw")
        masks = layout.get(suffix="mask", extension=[".nii", ".nii.gz"], scope="derivatives")
    if not scans:
        raise FileNotFoundError(f"No FLAIR in {root}: expected sub-<label>/anat/sub-<label>_FLAIR.nii.gz.")
    masks = [(mask.path, mask.get_entities()) for mask in masks if mask.get_entities().get("label") in LABELS]
    people = {row["participant_id"]: row for row in _participants(root)}
    rows = []
    for scan in scans:
        entities = scan.get_entities()
        fitting = [
            path
            for path, own in masks
            if all(own.get(key) == entities.get(key) for key in ("subject", "session"))
            and all(own.get(key) in (entities.get(key), None) for key in ("run", "acquisition"))
        ]
        if len(fitting) != 1:
            found = "no lesion mask" if not fitting else " and ".join(fitting)
            kind = FileNotFoundError if not fitting else ValueError
            raise kind(
                f"{scan.path} has {found}: expected one derivatives/<name>/sub-{entities['subject']}/anat/"
                f"sub-{entities['subject']}_label-WMH_mask.nii.gz, with a dataset_description.json in derivatives/<name>."
            )
        person = people.get(f"sub-{entities['subject']}", {})
        centre = person.get("centre") or person.get("site") or called
        session = f"_ses-{entities['session']}" if "session" in entities else ""
        run = f"_run-{entities['run']}" if "run" in entities else ""
        split = "external" if person.get("split") == "external" else ""
        rows.append((f"{entities['subject']}{session}{run}", centre, split, scan.path, fitting[0]))
    columns = ["subject", "centre", "split", "flair", "reference"]
    return pd.DataFrame(rows, columns=columns).sort_values(["split", "centre", "subject"], ignore_index=True)


def _participants(root: Path) -> list[dict]:
    path = root / "participants.tsv"
    if not path.is_file():
        return []
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except ValueError as error:  # among them those of pandas and of UTF-8
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is no table of tab-separated UTF-8 ({said}): export it again.") from None
    if "participant_id" not in table:
        raise ValueError(f"{path} has no column participant_id, only {', '.join(table.columns)}: add it.")
    return table.replace("n/a", "").to_dict("records")


def write_derivative(
    root: PathLike, subject: str, mask: nibabel.Nifti1Image, source: str, model: str, record: dict | None = None
) -> Path:
    """Write one predicted mask into a BIDS derivative at `root`, which is begun where it is not there yet.

    Parameters
    ----------
    subject
        The participant, with its further entities if any (`01_ses-2_run-1`), all of which stay in the name; what BIDS does
        not allow in a label is left out.
    mask
        uint8 0/1 on the scan's own grid.
    source, model
        What it was made from, in words that name no person: the scan, and the network.
    record
        Checksums of both, `scan_sha256` and `network_sha256`, where they are known.

    Returns
    -------
    Path
        Of the mask; its JSON sidecar is next to it.

    Raises
    ------
    FileExistsError
        The place holds a mask made from something else, by the sidecar: nothing is replaced.
    ValueError
        Nothing of the subject can be in a label.
    """
    root = Path(root)
    name, *others = re.split(rf"_(?=(?:{'|'.join(ORDER)})-)", subject)
    pairs = {"sub": name, "space": "orig"} | dict(part.split("-", 1) for part in others) | {"label": "WMH"}
    entities = {key: re.sub(r"[^0-9a-zA-Z]", "", value) for key, value in pairs.items()}
    if not entities["sub"]:
        raise ValueError(f"Subject {subject!r} has no letter or digit for a BIDS label: rename it.")
    folder = root / f"sub-{entities['sub']}" / (f"ses-{entities['ses']}" if "ses" in entities else "") / "anat"
    stem = "_".join(f"{key}-{entities[key]}" for key in ("sub", *ORDER) if entities.get(key))
    path, beside = folder / f"{stem}_mask.nii.gz", folder / f"{stem}_mask.json"
    checksums = {key: (record or {}).get(key) for key in ("scan_sha256", "network_sha256")}
    sidecar = {"Type": "Lesion", "Sources": [source], "SpatialReference": source, "Description": f"Made by {model}."}
    sidecar |= {key: value for key, value in checksums.items() if value}
    if path.exists() and _read_json(beside) != sidecar:
        raise FileExistsError(f"{path} holds the mask of another scan or network: name another folder for these masks.")
    description = root / "dataset_description.json"
    if not description.is_file():
        made_by = {"Name": "wmhlib", "Version": importlib.metadata.version("wmhlib")}
        write_json(
            description,
            {
                "Name": "Predicted white matter hyperintensities",
                "BIDSVersion": "1.9.0",
                "DatasetType": "derivative",
                "GeneratedBy": [made_by],
            },
        )
    write_json(beside, sidecar)
    with replacing(path) as temporary:
        nibabel.save(mask, temporary)
    return path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
