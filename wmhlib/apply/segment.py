"""Segment your own scans with a trained network, with the information needed to accept or reject each mask.

Input: NIfTI files and a `model.keras`. Output per scan: `<name>_mask.nii.gz` (uint8 0/1) and
`<name>_probability.nii.gz` (float32 0-1) on the scan's own grid, `<name>.png` for visual control, `<name>_lesions.csv`
with one row per lesion, `<name>.json` that identifies the scan and the network, and a row of `volumes.csv`.
`lesions.csv` has the lesions of all scans in the folder. Only results of the same scan and network are replaced; a mask
that people changed is kept. A lesion is a 26-connected component, as in `wmhlib.metrics`; volumes are in ml. A scan that
may be unsuitable for the network is segmented too, with a warning in its row (`wmhlib.apply.suitability`).
"""

import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import nibabel
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.apply import results
from wmhlib.apply.lesions import lesions_of, volumes_by_region
from wmhlib.apply.pictures import quality_picture
from wmhlib.apply.results import RESULTS
from wmhlib.apply.structures import structure_doubts, structures_of, structures_sha256
from wmhlib.apply.suitability import (
    agreement,
    agreement_doubt,
    brightness_doubt,
    read_range,
    verdict,
)
from wmhlib.batches import cores, has_gpu
from wmhlib.inference import BUNDLED, THRESHOLD, load_generator, prepared, two_looks
from wmhlib.intake import plausible
from wmhlib.intake.bids import write_derivative
from wmhlib.intake.nifti import noting, open_scan, read_scan, save_image
from wmhlib.intake.roles import content
from wmhlib.intake.scans import BrightnessWarning, read_flair
from wmhlib.metrics import voxel_mm3
from wmhlib.running.files import ROOT, PathLike, alone, replacing, sha256, write_table, writing
from wmhlib.running.parallel import in_processes
from wmhlib.running.provenance import code_sha256
from wmhlib.slices import Preparation


def open_network(model: PathLike = "") -> tuple[Path, keras.Model, dict]:
    """The path of a network, the network, and the range of its training scans (empty if the file is missing).

    Parameters
    ----------
    model
        A `model.keras`; empty: the bundled network.

    Raises
    ------
    FileNotFoundError
        The file does not exist; the message says what to run.
    ValueError
        The file is not a network of this project, or its `training_range.json` cannot be read.
    """
    path = Path(model).expanduser() if str(model) else BUNDLED
    path = path if path.exists() else ROOT / path
    if path.is_file() and path.suffix != ".keras":
        raise ValueError(
            f"{path} is not a .keras file: give a model.keras, the only format that can be loaded in safe mode."
        )
    try:
        network = load_generator(path)
        sides = network.input_shape, network.output_shape
    except FileNotFoundError:
        raise
    except Exception as error:  # Keras raises many kinds
        raise ValueError(f"{path} cannot be loaded as a Keras model in safe mode ({_sentence(error)[:150]}).") from None
    size = sides[0][1] if isinstance(sides[0], tuple) and len(sides[0]) == 4 else None
    if not isinstance(size, int) or sides != ((None, size, size, 3), (None, size, size, 1)):
        raise ValueError(
            f"{path} has input {sides[0]} and output {sides[1]}: give a network with input (None, size, size, 3) and "
            "output (None, size, size, 1), such as those of notebook 04_train."
        )
    try:
        Preparation.named(network.inputs[0].name)
    except ValueError as error:
        raise ValueError(f"The preparation of scans for {path} is unknown. {error}") from None
    return path, network, read_range(path.with_name("training_range.json"))


def on_grid_of(scan: nibabel.spatialimages.SpatialImage, values: np.ndarray) -> nibabel.Nifti1Image:
    """Values of a scan's shape as a NIfTI image with the scan's affine, codes, voxel sizes and units only.

    Values keep their dtype and are not scaled; the display range is 0 to 1.
    """
    if not isinstance(scan.header, nibabel.Nifti1Header):
        return nibabel.Nifti1Image(values, scan.affine)
    kind = nibabel.Nifti2Image if isinstance(scan.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    header = kind.header_class()
    header.set_data_shape(values.shape)
    header["pixdim"][:4], header["xyzt_units"] = scan.header["pixdim"][:4], scan.header["xyzt_units"]
    for field in scan.header:
        if field.startswith(("qform_", "sform_", "quatern_", "qoffset_", "srow_")):
            header[field] = scan.header[field]
    header.set_data_dtype(values.dtype)
    header["cal_min"], header["cal_max"] = 0, 1
    return kind(values, scan.affine, header)


def segment_scan(
    network: keras.Model,
    path: PathLike,
    name: str,
    out: PathLike,
    trained_on: dict,
    threshold: float = THRESHOLD,
    smallest_mm3: float = 0.0,
    told: Iterable[str] = (),
) -> tuple[dict, pd.DataFrame]:
    """Segment one scan and write its results to `out` under `name`.

    Probabilities are averaged over the scan and its mirror image, and are 0 outside the skull. `told` are notes on the
    file that are known already. Errors as in `read_flair`.

    Returns
    -------
    row, lesions
        The values of its row of `volumes.csv` from `lesions` on, and the table of its lesions.
    """
    out, preparation = Path(out), Preparation.named(network.inputs[0].name)
    with noting() as notes, warnings.catch_warnings():
        warnings.simplefilter("ignore", BrightnessWarning)  # brightness_doubt compares with the training scans
        seen = prepared(network, path)
    scan, notes = seen.scan, [*notes, *told]
    if isinstance(scan.header, nibabel.Nifti1Header) and not scan.header["qform_code"] + scan.header["sform_code"]:
        notes.append(
            "The file does not define the orientation (qform and sform codes are 0), so left and right may be swapped"
        )
    with noting():  # these notes were already collected
        flair, tissue = (
            seen.flair if preparation.intensity == kind else read_flair(path, kind) for kind in ("maximum", "tissue")
        )
    with noting():
        structures = structures_of(seen)
    mean, looks = two_looks(network, seen, structures.intracranial)
    agreed = agreement(*(look >= threshold for look in looks))
    doubts = [brightness_doubt(flair, trained_on, preparation.intensity), *plausible.doubts(flair)]
    doubts = [text for text in (*doubts, *structure_doubts(structures), agreement_doubt(agreed)) if text]
    likely = on_grid_of(scan, np.asarray(mean.dataobj))
    lesion_mask, table = lesions_of(likely, threshold, smallest_mm3, structures.ventricles)
    mask = on_grid_of(scan, lesion_mask.astype(np.uint8))
    save_image(likely, out / f"{name}{RESULTS['probability']}")
    remark = f"{len(table)} lesions, {table.volume_ml.sum():.1f} ml" + (
        ", doubtful" if doubts else ", see the note on its file" * bool(notes)
    )
    with replacing(out / f"{name}{RESULTS['picture']}") as temporary:
        canonical_mask, canonical_likely = (
            np.asarray(nibabel.as_closest_canonical(image).dataobj) for image in (mask, likely)
        )
        quality_picture(tissue, canonical_mask > 0, canonical_likely, name, remark).save(temporary)
    save_image(mask, out / f"{name}{RESULTS['mask']}")
    voxel_ml = voxel_mm3(scan.affine) / 1000
    return {
        "lesions": len(table),
        "volume_ml": int(lesion_mask.sum()) * voxel_ml,
        "largest_lesion_ml": table.volume_ml.max() if len(table) else 0.0,
        **volumes_by_region(table),
        "intracranial_ml": structures.intracranial_ml,
        "ventricles_ml": structures.ventricles_ml,
        "voxel_mm": " x ".join(f"{side:.3g}" for side in nibabel.affines.voxel_sizes(scan.affine)),
        "verdict": verdict(not len(table), doubts, notes),
        "mirror_dice": agreed,
        "warnings": "; ".join([*doubts, *notes]),
        "threshold": threshold,
        "smallest_mm3": smallest_mm3,
        "mask": str(out / f"{name}{RESULTS['mask']}"),
    }, table


MANY = 6
"""From so many scans on, they are segmented by a process per core. Each process takes some ten seconds to start."""


class Plan(NamedTuple):
    """A scan to segment: the name of its results, their record, and notes on its file that are known already."""

    path: Path
    name: str
    record: dict
    told: list[str]


def _planned(
    scans: list[Path], made_with: dict, out: Path, records: dict[str, dict], changed: set[str]
) -> list[Plan | str]:
    """The plan for each scan, or why it cannot be read; `records` and `changed` as in `free_name`."""
    plans: list[Plan | str] = []
    first_with: dict[bytes, Path] = {}
    names = results.safe_names(scans)
    for path, wanted in zip(tqdm(scans, "check", unit="scan", leave=False), names, strict=True):
        try:
            open_scan(path)
            record = made_with | {"scan": os.path.abspath(path), "scan_sha256": sha256(path)}
            record = {key: _readable(text) for key, text in record.items()}
            name, told = results.free_name(out, wanted, record, records, changed)
            twin = first_with.setdefault(content(path), path)
            told += [f"The file has the same content as {twin}"] if twin != path else []
            records[name] = record
            plans.append(Plan(path, name, record, told))
        except Exception as error:  # one failing scan must not stop the others
            plans.append(_sentence(error))
    return plans


def _segmented(
    network: keras.Model, trained_on: dict, threshold: float, smallest_mm3: float, folder: Path, numbered: tuple
) -> tuple[int, dict | str]:
    """Write the results of a numbered plan to a folder of its own in `folder`; returns its number, and the values of its
    row from `segment_scan` or why it failed."""
    number, plan = numbered
    if isinstance(plan, str):
        return number, plan
    own = folder / str(number)
    try:
        with writing(own):
            own.mkdir()
            values, lesions = segment_scan(
                network, plan.path, plan.name, own, trained_on, threshold, smallest_mm3, plan.told
            )
            if sha256(plan.path) != plan.record["scan_sha256"]:
                raise ValueError(f"{plan.path} was changed during the run: segment it again.")
            lesions.insert(0, "scan", _readable(str(plan.path)))
            lesions = lesions.assign(**{key: plan.record[key] for key in results.MADE_WITH})
            write_table(own / f"{plan.name}{RESULTS['lesions']}", lesions)
        return number, values
    except Exception as error:  # one failing scan must not stop the others
        shutil.rmtree(own, ignore_errors=True)
        return number, _sentence(error)


def _moved_in(
    plan: Plan | str, outcome: dict | str, own: Path, out: Path, records: dict[str, dict]
) -> tuple[str, dict]:
    """Move a scan's results from its own folder to `out`, and note them in `records`; returns their name (empty if the scan
    failed) and the values of its row."""
    if isinstance(plan, str) or isinstance(outcome, str):
        return "", {"status": "failed", "reason": outcome}
    try:
        with writing(out):
            records[plan.name] = results.move_in(own, out, plan.name, plan.record)
    except Exception as error:  # one failing scan must not stop the others
        return "", {"status": "failed", "reason": _sentence(error)}
    return plan.name, outcome | {"mask": str(out / f"{plan.name}{RESULTS['mask']}")}


def _segmented_in_process(model: str, *arguments) -> tuple[int, dict | str]:
    """`_segmented` in another process, which loads the network from its file once."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # read when TensorFlow first computes
    return _segmented(_network_of(model), *arguments)


@functools.cache
def _network_of(model: str) -> keras.Model:
    return open_network(model)[1]


def _with_processes(scans: list[Path], model: str) -> bool:
    """Whether scans are segmented by several processes: many scans, on a processor, with TensorFlow (JAX cannot be limited
    to one thread), by a network that has a file."""
    suits = not has_gpu() and keras.backend.backend() == "tensorflow" and cores() > 1
    return suits and len(scans) >= MANY and Path(model).is_file()


def _outcomes(
    network: keras.Model, scans: list[Path], plans: list[Plan | str], model: str, settings: tuple
) -> Generator[tuple[int, dict | str], None, None]:
    """`_segmented` of every plan as it finishes, by one process or several."""
    numbered = list(enumerate(plans))
    if _with_processes(scans, model):
        return in_processes(functools.partial(_segmented_in_process, model, *settings), numbered, cores())
    return (_segmented(network, *settings, plan) for plan in numbered)


def segment_scans(
    network: keras.Model,
    scans: Iterable[PathLike],
    out: PathLike,
    trained_on: dict,
    model: PathLike = "",
    threshold: float | None = None,
    smallest_mm3: float = 0.0,
) -> pd.DataFrame:
    """Segment scans into a folder. `volumes.csv` is updated after each scan, `lesions.csv` at the end.

    Only a scan's row is kept in memory. On a processor, `MANY` or more scans are segmented by a process per core.

    Parameters
    ----------
    out
        Output folder, relative to the project's folder; empty: `data/segmented`.
    model
        The file of `network`, for the records. Without a file, all scans are segmented in this process.
    threshold
        Voxels with at least this probability are marked; None: the network's own threshold (`trained_on`), otherwise
        0.5.
    smallest_mm3
        Smaller lesions are left out.

    Returns
    -------
    DataFrame
        One row per scan with `COLUMNS`. A scan that fails has the status `failed` and the reason in one sentence; its
        earlier results are kept. In `volumes.csv` these rows follow those of other scans and networks.

    Raises
    ------
    ValueError
        A scan is in the output folder itself, or the folder's `volumes.csv` or `lesions.csv` is another table that would
        be replaced.
    BlockingIOError, OSError
        Another process is writing to the folder, or it cannot be created.
    ChildProcessError
        One of several processes was ended. Scans that are finished stay in the folder.
    """
    out, scans = ROOT / Path(out or "data/segmented").expanduser(), [Path(scan) for scan in scans]
    if any(path.exists() and path.parent.resolve() == out.resolve() for path in scans):
        raise ValueError(f"Scans are in {out}, where their results would be written: set out to another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Results cannot be written to {out} ({error.strerror}): set out to another folder.") from None
    model = os.path.abspath(model) if str(model) else ""
    threshold = trained_on.get("threshold", THRESHOLD) if threshold is None else threshold
    made_with = {"network": model, "network_sha256": results.network_sha256(network, model)}
    made_with |= {
        "structures_sha256": structures_sha256(),
        "wmhlib": importlib.metadata.version("wmhlib"),
        "code": code_sha256()[:12],
    }
    with alone(out / "volumes.csv"):
        records, earlier = results.read_records(out), results.read_rows(out / "volumes.csv")
        results.check_lesions(out, records)  # before hours of work
        changed = results.changed_names(out, records)
        earlier = results.marked_as_changed(earlier, changed)
        plans = _planned(scans, made_with, out, dict(records), changed)
        rows: dict[int, dict] = {}
        with writing(out):
            unfinished = tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out)
        with unfinished as folder:
            settings = trained_on, threshold, smallest_mm3, Path(folder)
            with contextlib.closing(_outcomes(network, scans, plans, model, settings)) as outcomes:
                for number, outcome in tqdm(outcomes, "segment", len(plans), unit="scan"):
                    name, status = _moved_in(plans[number], outcome, Path(folder) / str(number), out, records)
                    row = {"scan": str(scans[number]), "status": "done", **made_with, **status}
                    rows[number] = {
                        key: _readable(value) if isinstance(value, str) else value for key, value in row.items()
                    }
                    earlier = results.without_rows_of(earlier, rows[number]["scan"], name)
                    in_order = [rows[key] for key in sorted(rows)]
                    table = pd.DataFrame(in_order, columns=results.COLUMNS).astype({"lesions": "Int64"})
                    write_table(out / "volumes.csv", pd.concat([earlier, table.astype(object)], ignore_index=True))
        write_table(out / "lesions.csv", results.read_lesions(out, records.keys() - changed))
    return table


def write_bids(table: pd.DataFrame, root: PathLike, model: PathLike) -> list[str]:
    """Write the masks of a table of `segment_scans` to a BIDS derivative at `root`, relative to the project's folder.

    A scan named `sub-<label>_…` keeps all its entities. For other scans, the name of the results becomes the subject
    label.

    Returns
    -------
    list
        One sentence per mask that was not written, for example because a mask of another scan or network exists.
    """
    root, problems = ROOT / Path(root).expanduser(), []
    for row in table[table.status == "done"].itertuples():
        scan, mask = Path(row.scan).name, Path(row.mask)
        name = mask.name.removesuffix(RESULTS["mask"])
        record = results.read_record(mask.with_name(f"{name}{RESULTS['record']}"))
        named = re.search(r"(?<![0-9a-zA-Z])sub-([0-9a-zA-Z]+(_[a-z]+-[0-9a-zA-Z]+)*)", scan)
        try:
            subject = named[1] if named else re.sub("[^0-9a-zA-Z]", "", name)
            write_derivative(root, subject, read_scan(mask), scan, f"the network {Path(model).name}", record)
        except (OSError, ValueError) as error:
            problems.append(_sentence(error))
    return problems


def _sentence(error: Exception) -> str:
    ours = type(error) in (ValueError, FileNotFoundError, FileExistsError, PermissionError, OSError)
    return " ".join(f"{'' if ours else f'{type(error).__name__}: '}{error}".split())


def _readable(text: str) -> str:
    """Text with bytes that are not UTF-8, such as in file names, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
