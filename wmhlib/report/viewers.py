"""Viewers: three linked planes with masks over them, and a table of lesions with the mask of each loss.

Input: arrays in canonical orientation (i to the patient's right, j to anterior, k to superior) and tables. Output:
widgets. The browser draws everything (`templates/viewer.js` and `explorer.js`) from volumes packed here as 8-bit PNGs.
With a kernel, anywidget loads further subjects when they are chosen. Exported pages without a kernel use the same
packed volumes, which are part of the output under `MIME` (D-022). The pictures are for viewing at reduced resolution;
no metric is measured on them.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anywidget
import nibabel
import numpy as np
import pandas as pd
import traitlets
from nibabel.spatialimages import SpatialImage
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from wmhlib.evaluation.names import colour, shown, title
from wmhlib.evaluation.scoring import NO_SEED
from wmhlib.intake.grids import laid_over
from wmhlib.intake.masks import box_around
from wmhlib.intake.scans import read_pair
from wmhlib.metrics import METRICS
from wmhlib.report.pictures import png_uri
from wmhlib.running.files import PathLike
from wmhlib.study import Study

MIME = "application/vnd.wmhlib.viewer+json"
"""Type of the output that an exported page draws: `{"kind": "slices" or "lesions", …}`. JupyterLab shows the widget
instead."""

TEMPLATES = Path(__file__).parent / "templates"

ERRORS = [{"label": title(kind), "colour": colour(kind)} for kind in ("found", "missed", "false")]

GREY_BITS = 0b11111110
"""Grey values are kept in steps of two: finer steps are not visible, and would add a sixth to a page's size."""

SIDE_MM, SIDE_PX = 64, 80
"""Width of the explorer's pictures in mm and in pixels."""

LISTED_LESIONS = 400
"""Most lesions that the explorer lists (about 2 MB of pictures)."""


def sheet(volume: np.ndarray, columns: int) -> np.ndarray:
    """A volume (i, j, k) as one picture of its slices in `columns` columns; within a slice, j runs down and i
    across."""
    nx, ny, nz = volume.shape
    rows = -(-nz // columns)
    padded = np.zeros((nx, ny, rows * columns), volume.dtype)
    padded[..., :nz] = volume
    return padded.reshape(nx, ny, rows, columns).transpose(2, 1, 3, 0).reshape(rows * ny, columns * nx)


def mask_codes(masks: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """At most eight boolean masks of one shape as uint8 with one bit per mask; the first mask is the lowest bit."""
    if len(masks) > 8:
        raise ValueError(f"{len(masks)} masks were given, but a picture holds at most 8: choose fewer.")
    codes = np.zeros(shape, np.uint8)
    for bit, mask in enumerate(masks):
        codes |= mask.astype(np.uint8) << bit
    return codes


def pack_scan(
    flair: np.ndarray,
    affine: np.ndarray,
    masks: dict[str, np.ndarray],
    called: str,
    figures: pd.DataFrame | None = None,
    max_pixels: int = 160,
) -> dict:
    """One scan for the slice viewer, cropped to the head.

    Parameters
    ----------
    flair, affine
        Volume (i, j, k) in canonical orientation, in any unit, and its affine to world mm.
    masks
        At most eight masks of the FLAIR's shape by name: `reference` first, then names of losses.
    called
        The scan's name, shown as plain text.
    figures
        The metrics, one row per mask, indexed by its name.
    max_pixels
        Largest in-plane size of the longer side; the pictures are never finer than the scan.

    Raises
    ------
    ValueError
        The scan is empty, there are more than eight masks, or a mask has another shape.
    """
    _refuse_unshowable(flair, masks, called)
    box = box_around(np.logical_or.reduce([flair > 0.04 * flair.max(), *(mask != 0 for mask in masks.values())]))
    flair, head_masks = flair[box], [mask[box] != 0 for mask in masks.values()]
    low, high = float(flair.min()), float(np.percentile(flair[flair > 0], 99.9)) if (flair > 0).any() else flair.max()
    full_grey = np.clip((flair - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    grey, packed_masks, to_full = _shrunk_in_plane(full_grey, head_masks, max_pixels)
    to_world = affine @ nibabel.affines.from_matvec(np.eye(3), [part.start for part in box]) @ to_full
    columns = int(np.ceil(np.sqrt(grey.shape[2])))
    return {
        "title": called,
        "shape": list(grey.shape),
        "spacing": nibabel.affines.voxel_sizes(to_world).round(4).tolist(),
        "affine": to_world.round(4).tolist(),
        "columns": columns,
        "grey": png_uri(sheet((grey * 255).astype(np.uint8) & GREY_BITS, columns)),
        "codes": png_uri(sheet(mask_codes(packed_masks, grey.shape), columns)),
        "low": low,
        "high": high,
        "window": _window(grey),
        "opening": _shrunk_voxel(_opening(head_masks), to_full, grey.shape),
        "masks": [{"name": name, "label": _label(name), "colour": colour(name)} for name in masks],
        "errors": ERRORS,
        "figures": {"columns": [metric.title for metric in METRICS.values()], "rows": _metric_rows(figures)},
    }


def _refuse_unshowable(flair: np.ndarray, masks: dict[str, np.ndarray], called: str) -> None:
    if len(masks) > 8:
        raise ValueError(f"{len(masks)} masks were given for {called}, but the viewer shows at most 8.")
    for name, mask in masks.items():
        if mask.shape != flair.shape:
            raise ValueError(f"Mask {name} of {called} has shape {mask.shape}, but the FLAIR has {flair.shape}.")
    if not flair.any():
        raise ValueError(f"All voxels of the FLAIR of {called} are zero, so there is nothing to show.")


def _shrunk_in_plane(
    grey: np.ndarray, masks: list[np.ndarray], max_pixels: int
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Volume and masks with at most `max_pixels` in plane, and the affine (4, 4) from their voxels to the original
    ones."""
    to_full, factor = np.eye(4), max_pixels / max(grey.shape[:2])
    if factor >= 1:
        return grey, masks, to_full
    size = tuple(max(round(count * factor), 1) for count in grey.shape[:2])
    steps = np.array(grey.shape[:2]) / size
    to_full[:2, :2], to_full[:2, 3] = np.diag(steps), (steps - 1) / 2
    grey = resize(grey, (*size, grey.shape[2]), order=1, anti_aliasing=True)
    masks = [resize(mask.astype(np.float32), grey.shape, order=1, anti_aliasing=False) >= 0.5 for mask in masks]
    return grey, masks, to_full


def _shrunk_voxel(voxel: list[int], to_full: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """The voxel of the shrunk scan that contains a voxel of the full scan."""
    return [
        int(min(index / step, count - 1)) for index, step, count in zip(voxel, to_full.diagonal(), shape, strict=False)
    ]


def _window(grey: np.ndarray) -> list[int]:
    """The initial grey window (0-255) of the viewer, from a volume with values 0 to 1."""
    tissue = grey[grey > 0.05]
    low, high = np.percentile(tissue, [0.5, 99.8]) if tissue.size else (0, 1)
    return [int(low * 255 * 0.8), int(min(high * 255, 255))]


def _metric_rows(figures: pd.DataFrame | None) -> list[dict]:
    """The metrics of every mask as text for the viewer's table."""
    if figures is None:
        return []
    return [
        {"name": name, "cells": [_label(name), *(_figure(metric, row[metric]) for metric in METRICS)]}
        for name, row in figures.iterrows()
    ]


def _label(name: str) -> str:
    return name if name == "reference" else title(name)


def _figure(metric: str, value: float) -> str:
    return "undefined" if np.isnan(value) else shown(metric, value)


def _opening(masks: list[np.ndarray]) -> list[int]:
    """The initial voxel: the first mask's voxel nearest its centroid in its largest slice; if it is empty, the volume's
    centre."""
    first = masks[0] if masks else None
    if first is None or not first.any():
        shape = np.array(first.shape if first is not None else (2, 2, 2))
        return (shape // 2).tolist()
    k = int(first.sum(axis=(0, 1)).argmax())
    voxels = np.argwhere(first[..., k])
    return [*voxels[np.square(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()].tolist(), k]


def _laid_over(row, masks: dict[str, PathLike]) -> tuple[SpatialImage, dict[str, SpatialImage]]:
    """The FLAIR of one row of a cohort table in canonical orientation, and the reference and these masks on its
    grid."""
    flair, reference = read_pair(row.flair, row.reference, "tissue")
    on_grid = {
        name: laid_over(path, flair, f"the FLAIR {row.flair} and the mask {path}") for name, path in masks.items()
    }
    return flair, {"reference": reference} | on_grid


def pack_subject(row, masks: dict[str, PathLike], figures: pd.DataFrame | None = None, max_pixels: int = 160) -> dict:
    """One row of the cohort table for the slice viewer, with its reference and the masks at `masks`' paths; see
    `pack_scan`."""
    flair, images = _laid_over(row, masks)
    volumes = {name: np.asarray(image.dataobj) for name, image in images.items()}
    volume = flair.get_fdata(dtype=np.float32)
    return pack_scan(volume, flair.affine, volumes, f"{row.subject}, {row.centre}", figures, max_pixels)


class _Packed(anywidget.AnyWidget):
    """A widget whose output also includes, under `MIME`, the data with which a page without a kernel draws the same."""

    def packed(self) -> dict:
        raise NotImplementedError

    def _repr_mimebundle_(self, **keywords):
        bundle = super()._repr_mimebundle_(**keywords)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(data or {"text/plain": repr(self)}), MIME: self.packed()}, metadata


class SliceViewer(_Packed):
    """Three linked planes of the chosen subject, with masks over them.

    Parameters
    ----------
    subjects
        The displayed name of each subject and a function that packs it (`pack_scan`), called when it is chosen. The
        first subject is shown first.
    exported
        How many subjects, from the first, an exported page includes.
    """

    _esm = (
        (TEMPLATES / "viewer.js").read_text(encoding="utf-8")
        + """
    export default {
      render({ model, el }) {
        const show = mountViewer(el, model.get("names"), (name) => { model.set("wanted", name); model.save_changes(); });
        const update = () => show(model.get("scan"));
        model.on("change:scan", update);
        update();
        return () => model.off("change:scan", update);
      },
    };"""
    )
    _css = (TEMPLATES / "viewer.css").read_text(encoding="utf-8")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scan = traitlets.Dict().tag(sync=True)
    wanted = traitlets.Unicode().tag(sync=True)

    def __init__(self, subjects: dict[str, Callable[[], dict]], exported: int = 1):
        self.subjects, self.exported = subjects, list(subjects)[:exported]
        first = next(iter(subjects))
        super().__init__(names=list(subjects), scan=self.of(first), wanted=first)

    def of(self, name: str) -> dict:
        """The packed scan of a subject, titled by the name in the menu."""
        return self.subjects[name]() | {"title": name}

    @traitlets.observe("wanted")
    def _load(self, change):
        if change.new not in self.subjects or change.new == self.scan["title"]:
            return
        try:
            self.scan = self.of(change.new)
        except Exception as error:  # otherwise it would only appear in the kernel's log
            self.scan = {"title": change.new, "problem": f"{change.new} cannot be shown: {error}"}

    def packed(self) -> dict:
        scans = [self.scan if name == self.scan["title"] else self.of(name) for name in self.exported]
        return {"kind": "slices", "scans": scans}


def results_viewer(
    study: Study, unseen: pd.DataFrame, per_subject: pd.DataFrame, first: Sequence[str], losses: Sequence[str]
) -> SliceViewer:
    """The unseen scans under every seed, with the masks and metrics of these losses, at most seven.

    The subjects in `first`, under the study's first seed, are on top, and in an exported page.
    """
    seeds, rows = study.config.seeds, unseen.set_index("subject", drop=False)

    def packed(name: str, seed: int) -> dict:
        own = per_subject[(per_subject.subject == name) & per_subject.seed.isin([seed, NO_SEED])]
        masks: dict[str, PathLike] = {loss: study.mask(loss, seed, name) for loss in losses}
        return pack_subject(rows.loc[name], masks, own.set_index("loss").loc[list(losses)])

    every = [(name, seeds[0]) for name in first] + list(itertools.product(unseen.subject, seeds))
    shown_as = {(name, seed): f"{rows.split[name]} {name}, seed {seed}" for name, seed in every}
    return SliceViewer({label: partial(packed, *which) for which, label in shown_as.items()}, exported=len(first))


class LesionExplorer(_Packed):
    """A sortable, filterable table of reference lesions; the chosen lesion is shown with the mask of each loss."""

    _esm = (
        (TEMPLATES / "viewer.js").read_text(encoding="utf-8")
        + (TEMPLATES / "explorer.js").read_text(encoding="utf-8")
        + "export default { render({ model, el }) { mountExplorer(el, model.get('lesions')); } };"
    )
    _css = (TEMPLATES / "viewer.css").read_text(encoding="utf-8")
    lesions = traitlets.Dict().tag(sync=True)

    def packed(self) -> dict:
        return {"kind": "lesions", "lesions": self.lesions}


def pack_lesions(
    per_lesion: pd.DataFrame,
    subjects: pd.DataFrame,
    masks: Callable[[str, str], PathLike],
    losses: Sequence[str],
    seed: int,
) -> dict:
    """The reference lesions of `per_lesion.csv` for the explorer, with one picture per lesion.

    Parameters
    ----------
    per_lesion
        Rows of all losses and seeds. Each loss gets the fraction of its seeds that detected a lesion.
    subjects
        Rows of the cohort table for these subjects.
    masks
        Function from loss and subject to the path of the mask of the seed shown.
    losses
        Names of trained losses, in order.
    seed
        The seed whose masks the pictures show.
    """
    table = _shares_found(per_lesion, losses)
    listed, rows = most_telling(table, losses), {}
    for subject in subjects[subjects.subject.isin(listed.subject)].itertuples():
        lesions = listed[listed.subject == subject.subject]
        packed = _lesion_rows(subject, lesions, {loss: masks(loss, subject.subject) for loss in losses})
        rows |= dict(zip(lesions.index, packed, strict=True))
    return {
        "losses": [{"label": _label(loss), "colour": colour(loss)} for loss in losses],
        "errors": ERRORS,
        "reference": colour("reference"),
        "seed": seed,
        "side_mm": SIDE_MM,
        "side_px": SIDE_PX,
        "all": len(table),
        "rows": [rows[lesion] for lesion in listed.index if lesion in rows],
    }


def _shares_found(per_lesion: pd.DataFrame, losses: Sequence[str]) -> pd.DataFrame:
    """One row per reference lesion, with a column per loss: the fraction of its seeds that detected the lesion."""
    references = per_lesion[(per_lesion.kind == "reference") & per_lesion.loss.isin(losses)]
    keys = ["subject", "lesion"]
    fractions = references.assign(found=references.found.astype(float)).pivot_table("found", keys, "loss")
    table = references.drop_duplicates(keys).drop(columns="found").merge(fractions, on=keys)
    return table.reindex(columns=[*table.columns, *(loss for loss in losses if loss not in table)])


def _lesion_rows(subject, lesions: pd.DataFrame, masks: dict[str, PathLike]) -> list[dict]:
    """The explorer's rows for one subject's lesions, with pictures; `masks` maps losses to files."""
    flair, images = _laid_over(subject, masks)
    volumes = [flair.get_fdata(dtype=np.float32), *(np.asarray(image.dataobj) for image in images.values())]
    high = np.percentile(volumes[0][volumes[0] > 0.05], 99.8)
    rows = []
    for _, lesion in lesions.iterrows():
        centre = nibabel.affines.apply_affine(flair.affine, [lesion.i, lesion.j, lesion.slice])
        grey, *mask_patches = _patches(volumes, flair.affine, centre)
        rows.append(
            {
                "subject": lesion.subject,
                "centre": lesion.centre,
                "split": lesion.split,
                "volume": round(float(lesion.volume_mm3), 1),
                "mm": [round(float(lesion[axis]), 1) for axis in ("x_mm", "y_mm", "z_mm")],
                "found": [round(float(lesion[loss]), 3) for loss in masks],
                "grey": png_uri((np.clip(grey / high, 0, 1) * 255).astype(np.uint8) & GREY_BITS),
                "codes": png_uri(mask_codes([patch > 0.5 for patch in mask_patches], grey.shape)),
            }
        )
    return rows


def most_telling(lesions: pd.DataFrame, losses: Sequence[str]) -> pd.DataFrame:
    """At most `LISTED_LESIONS` rows: lesions of external scans first, and in each split those first whose fraction detected (one
    column per loss) differs most between losses, of these the smallest; then the largest of those on which all losses agree."""
    fractions = lesions[list(losses)]
    apart = fractions.max(axis=1) - fractions.min(axis=1)
    order = lesions.assign(
        other=lesions.split != "external", apart=-apart, volume=lesions.volume_mm3 * np.where(apart > 0, 1, -1)
    )
    return lesions.loc[order.sort_values(["other", "apart", "volume"])[:LISTED_LESIONS].index]


def _patches(volumes: list[np.ndarray], affine: np.ndarray, centre_mm: np.ndarray) -> list[np.ndarray]:
    """Square patches of `SIDE_MM` from the axial slice at a world point, seen from the feet: (row, column) floats.

    The first volume is interpolated linearly, the others by nearest neighbour; outside the scan the value is 0.
    """
    i, j, k = nibabel.affines.apply_affine(np.linalg.inv(affine), centre_mm)
    spacing = nibabel.affines.voxel_sizes(affine)
    offsets = ((np.arange(SIDE_PX) + 0.5) / SIDE_PX - 0.5) * SIDE_MM
    across, down = (
        i - offsets / spacing[0],
        j - offsets / spacing[1],
    )  # the patient's right is on the left, anterior is up
    places = np.stack(np.broadcast_arrays(across[None, :], down[:, None]))
    plane = int(np.clip(round(k), 0, volumes[0].shape[2] - 1))
    return [
        map_coordinates(volume[..., plane].astype(np.float32), places, order=0 if number else 1)
        for number, volume in enumerate(volumes)
    ]
