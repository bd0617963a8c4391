"""Scans of your own through a trained network, one at a time, with whatever a person needs to trust or discard each mask.

Input: NIfTI files and a `model.keras`. Output, per scan: `<name>_mask.nii.gz` (uint8 0/1) and `<name>_probability.nii.gz`
(float32 0-1) on the scan's own grid, `<name>.png` to look at, `<name>.json` which says what scan and network they are of, and
a row of `volumes.csv`. Results are replaced by those of the same scan and network only. A lesion is a 26-connected
component, as in `wmhlib.metrics`; volumes are in ml. A scan that the network may be unable to read is segmented all the same,
and its row says why (`wmhlib.apply.suitability`).
"""

import importlib.metadata
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import cc3d
import keras
import nibabel
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from skimage.transform import resize
from tqdm import tqdm

from wmhlib.apply import results
from wmhlib.apply.results import RESULTS
from wmhlib.apply.suitability import agreement, agreement_doubt, brightness_doubt, read_range, size_doubt, verdict
from wmhlib.inference import THRESHOLD, load_generator, probability
from wmhlib.intake.bids import write_derivative
from wmhlib.intake.nifti import noting, open_scan, read_scan, save_image
from wmhlib.intake.scans import BrightnessWarning, read_flair
from wmhlib.metrics import voxel_mm3
from wmhlib.report.pictures import outlined
from wmhlib.running.files import ROOT, PathLike, alone, replacing, sha256, write_table
from wmhlib.slices import TISSUE, Preparation


def open_network(model: PathLike = "") -> tuple[Path, keras.Model, dict]:
    """Where the network is, the network, and the range of its training scans (empty where none is next to it).

    Parameters
    ----------
    model
        A `model.keras`; empty: the first one trained with the Siamese loss in any study.

    Raises
    ------
    FileNotFoundError
        There is none; the message says what to run.
    ValueError
        It is no network of this project, or its `training_range.json` cannot be read.
    """
    trained = sorted(ROOT.glob("reports/*/models/siamese/seed-*/model.keras"))
    if not str(model) and not trained:
        raise FileNotFoundError("No trained model below reports/: run `make report` first, or name a model.keras.")
    path = Path(model).expanduser() if str(model) else trained[0]
    path = path if path.exists() else ROOT / path
    if path.is_file() and path.suffix != ".keras":
        raise ValueError(f"{path} is not a model.keras, the only kind that can be loaded in safe mode: name one.")
    try:
        network = load_generator(path)
        sides = network.input_shape, network.output_shape
    except FileNotFoundError:
        raise
    except Exception as error:  # Keras raises many kinds
        raise ValueError(f"{path} cannot be loaded as a network in safe mode ({_sentence(error)[:150]}).") from None
    size = sides[0][1] if isinstance(sides[0], tuple) and len(sides[0]) == 4 else None
    if not isinstance(size, int) or sides != ((None, size, size, 3), (None, size, size, 1)):
        raise ValueError(
            f"{path} takes {sides[0]} and gives {sides[1]}; a network that takes (None, size, size, 3) and gives "
            "(None, size, size, 1) is needed, as notebook 04_train makes."
        )
    try:
        Preparation.named(network.inputs[0].name)
    except ValueError as error:
        raise ValueError(f"{path} does not say how scans are prepared for it. {error}") from None
    return path, network, read_range(path.with_name("training_range.json"))


def on_grid_of(scan: nibabel.spatialimages.SpatialImage, values: np.ndarray) -> nibabel.Nifti1Image:
    """Values of a scan's shape as a NIfTI with its affine, codes, voxel sizes and units, and nothing else of it.

    Values are stored as they are (their dtype, no scale), to be shown from 0 to 1.
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


def quality_picture(flair: nibabel.Nifti1Image, mask: np.ndarray, title: str) -> Image.Image:
    """The three axial slices with most of `mask`, or three evenly spaced ones where it is empty, outlined.

    `flair` is as `read_flair` gives it, best by `tissue`; `mask` is boolean and of its shape. Slices are seen from the feet,
    with square pixels fine enough that no voxel of the mask is lost.
    """
    volume, area = np.asarray(flair.dataobj), mask.sum(axis=(0, 1))
    count = min(3, len(area))
    evenly = np.linspace(0, len(area) - 1, count + 2)[1:-1].round().astype(int)
    chosen = np.sort(np.argsort(-area, kind="stable")[:count]) if area.any() else evenly
    extent = np.array(volume.shape[:2]) * nibabel.affines.voxel_sizes(flair.affine)[:2]
    shape = np.maximum(np.round(extent / extent.max() * max(384, *volume.shape[:2])), 1).astype(int)
    high = np.percentile(volume[volume > TISSUE], 99.8)
    drawn = []
    for k in chosen:
        grey = resize(np.minimum(volume[..., k] / high, 1), shape, order=1)
        lesion = resize(mask[..., k], shape, order=0)
        drawn.append(outlined(grey, {"siamese": lesion}, int(shape.max())))
    picture = Image.fromarray(np.pad(np.concatenate(drawn, axis=1), ((44, 0), (0, 0), (0, 0))))
    pen = ImageDraw.Draw(picture)
    pen.text((6, 4), title, "white", font_size=14)
    slices = ", ".join(str(k + 1) for k in chosen)
    pen.text((6, 24), f"axial slices {slices} of {len(area)}, seen from the feet", "white", font_size=12)
    return picture


def segment_scan(network: keras.Model, path: PathLike, name: str, out: PathLike, trained_on: dict) -> dict:
    """Segment one scan into `out` under `name`: what its row of `volumes.csv` holds from `lesions` on.
    Errors as in `read_flair`."""
    out = Path(out)
    with noting() as notes:
        flair, scan = read_flair(path), open_scan(path)
    if isinstance(scan.header, nibabel.Nifti1Header) and not scan.header["qform_code"] + scan.header["sform_code"]:
        notes.append("The file does not say how the head lies (qform and sform codes are 0), so left may be right")
    intensity = Preparation.named(network.inputs[0].name).intensity
    brightness = brightness_doubt(flair, trained_on, intensity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrightnessWarning)  # the doubt knows the training scans
        values = np.clip(np.asarray(probability(network, path).dataobj), 0, 1)
        mirrored = np.asarray(probability(network, path, mirrored=True).dataobj) >= THRESHOLD
    agreed = agreement(values >= THRESHOLD, mirrored)
    doubts = [text for text in (brightness, size_doubt(flair), agreement_doubt(agreed)) if text]
    mask = on_grid_of(scan, (values >= THRESHOLD).astype(np.uint8))
    save_image(on_grid_of(scan, values), out / f"{name}{RESULTS['probability']}")
    straight = np.asarray(nibabel.as_closest_canonical(mask).dataobj) > 0
    with replacing(out / f"{name}{RESULTS['picture']}") as temporary:
        quality_picture(read_flair(path, "tissue"), straight, name).save(temporary)
    save_image(mask, out / f"{name}{RESULTS['mask']}")
    labels, count = cc3d.connected_components(straight, connectivity=26, return_N=True)
    voxels, voxel_ml = np.bincount(labels.ravel(order="K"))[1:], voxel_mm3(scan.affine) / 1000
    return {
        "lesions": count,
        "volume_ml": int(voxels.sum()) * voxel_ml,
        "largest_lesion_ml": int(voxels.max(initial=0)) * voxel_ml,
        "verdict": verdict(not count, doubts),
        "mirror_dice": agreed,
        "warnings": "; ".join([*doubts, *notes]),
        "mask": str(out / f"{name}{RESULTS['mask']}"),
    }


def segment_scans(
    network: keras.Model, scans: Iterable[PathLike], out: PathLike, trained_on: dict, model: PathLike = ""
) -> pd.DataFrame:
    """Segment scans one after another into a folder and update its `volumes.csv` after each.

    `out` is relative to the project's folder; empty: `data/segmented`. `model` is where the network was read from, for the
    records. Nothing of a scan is kept in memory but its row.

    Returns
    -------
    DataFrame
        One row per scan, `COLUMNS`. A scan that fails has the status `failed`, its reason in one sentence, and no results.
        In `volumes.csv` these rows come behind those of other scans and networks.

    Raises
    ------
    ValueError
        A scan lies in the folder itself, or the folder's `volumes.csv` is another table: something would be replaced.
    BlockingIOError, OSError
        Another process writes into the folder, or it cannot be made.
    """
    out, scans = ROOT / Path(out or "data/segmented").expanduser(), [Path(scan) for scan in scans]
    if any(path.exists() and path.parent.resolve() == out.resolve() for path in scans):
        raise ValueError(
            f"Scans lie in {out}, where results would be written next to them: name another folder as out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Results cannot be written to {out} ({error.strerror}): name another folder as out.") from None
    model = os.path.abspath(model) if str(model) else ""
    made_with = {"network": model, "network_sha256": results.network_sha256(network, model)}
    made_with["wmhlib"] = importlib.metadata.version("wmhlib")
    with alone(out / "volumes.csv"):
        records, earlier, rows = results.read_records(out), results.read_rows(out / "volumes.csv"), []
        for path, wanted in zip(tqdm(scans, "segment", unit="scan"), results.safe_names(scans), strict=True):
            name, row = "", {"scan": str(path), "status": "done", "network": model}
            try:
                open_scan(path)
                record = made_with | {"scan": os.path.abspath(path), "scan_sha256": sha256(path)}
                name = results.take_name(out, wanted, {key: _readable(text) for key, text in record.items()}, records)
                row |= segment_scan(network, path, name, out, trained_on)
            except Exception as error:  # whatever is wrong with one scan, the others are segmented
                row |= {"status": "failed", "reason": _sentence(error)}
                for suffix in RESULTS.values() if name else ():
                    (out / f"{name}{suffix}").unlink(missing_ok=True)
            rows.append({key: _readable(value) if isinstance(value, str) else value for key, value in row.items()})
            earlier = results.without_rows_of(earlier, rows[-1]["scan"], name)
            table = pd.DataFrame(rows, columns=results.COLUMNS).astype({"lesions": "Int64"})
            write_table(out / "volumes.csv", pd.concat([earlier, table.astype(object)], ignore_index=True))
    return table


def write_bids(table: pd.DataFrame, root: PathLike, model: PathLike) -> list[str]:
    """Write the masks of a table of `segment_scans` into a BIDS derivative at `root`, relative to the project's folder.

    A scan called `sub-<label>_…` keeps all its entities; any other becomes a subject of its results' name.

    Returns
    -------
    list
        Of each mask that was not written, a sentence: for example, another scan's or network's is there already.
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


def pictures(table: pd.DataFrame, most: int = 12) -> list[Path]:
    """Where the quality-control pictures of the first scans that were segmented lie."""
    done = table[table.status == "done"].head(most)
    return [Path(mask.removesuffix(RESULTS["mask"]) + RESULTS["picture"]) for mask in done["mask"]]


def _sentence(error: Exception) -> str:
    ours = type(error) in (ValueError, FileNotFoundError, FileExistsError, PermissionError, OSError)
    return " ".join(f"{'' if ours else f'{type(error).__name__}: '}{error}".split())


def _readable(text: str) -> str:
    """Text that any file or page can hold, whatever bytes a file's name is made of."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
