"""Raster pictures of slices with outlines, for figures, viewers and the README; samples of Figure 4."""

import base64
import html
import io
from collections.abc import Callable, Sequence

import cc3d
import nibabel
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image, ImageDraw
from plotly.subplots import make_subplots
from scipy.ndimage import binary_erosion
from skimage.transform import resize

from wmhlib.evaluation.names import colour, title
from wmhlib.intake.grids import laid_over
from wmhlib.intake.scans import read_pair
from wmhlib.slices import TISSUE, Box, Preparation, axial_slices, box_of, cut_out, round_trip
from wmhlib.study import Study

MARGIN_MM = 15
"""Margin around the masks in pictures of a scan under every loss."""


def png_uri(picture: np.ndarray) -> str:
    """A uint8 picture, grey (row, column) or colour (row, column, 3), as a PNG data URI."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def outlined(grey: np.ndarray, outlines: dict[str, np.ndarray], side: int = 256, width: int = 1) -> np.ndarray:
    """An axial slice (i, j) with outlines, seen from the feet with anterior up: (rows, columns, 3) uint8.

    `outlines` maps the name of a loss or mask, which sets the colour, to a mask (i, j). The longer side gets `side`
    pixels, the outlines `width`.
    """
    shape = tuple(np.maximum(np.round(np.array(grey.shape) / max(grey.shape) * side), 1).astype(int))
    picture = np.repeat((np.clip(resize(grey, shape, order=1), 0, 1) * 255)[..., np.newaxis], 3, axis=2)
    for name, mask in outlines.items():
        mask = resize(mask.astype(float), shape, order=1, anti_aliasing=False) > 0.5
        picture[mask & ~binary_erosion(mask, iterations=width)] = rgb(name)
    return from_the_feet(picture)


def rgb(name: str) -> list[int]:
    """The colour of a loss or mask as red, green and blue, 0 to 255."""
    return [int(colour(name)[n : n + 2], 16) for n in (1, 3, 5)]


def from_the_feet(picture: np.ndarray) -> np.ndarray:
    """An axial colour slice (i, j, 3), seen from the feet with anterior up: (rows, columns, 3) uint8."""
    return picture[::-1, ::-1].transpose(1, 0, 2).astype(np.uint8)


def _pictures(rows: list[list[np.ndarray]], **titles: list[str]) -> go.Figure:
    """Pictures (rows, columns, 3) uint8 on a grid, with `column_titles` and `row_titles`."""
    heights = [max(picture.shape[0] / picture.shape[1] for picture in pictures) for pictures in rows]
    height = 60 + round(860 / max(4, len(rows[0])) * sum(heights))  # a page is about 860 pixels wide
    figure = make_subplots(
        len(rows), len(rows[0]), row_heights=heights, horizontal_spacing=0.007, vertical_spacing=0.01, **titles
    )
    for line, pictures in enumerate(rows, start=1):
        for column, picture in enumerate(pictures, start=1):
            figure.add_trace(go.Image(source=png_uri(picture), hoverinfo="skip"), row=line, col=column)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.update_layout(height=height, margin={"t": 40, "b": 10, "l": 10, "r": 30})


def prediction_samples(rows: list[dict]) -> go.Figure:
    """Figure 4: one row per scan, one column per mask, outlines over the FLAIR; the reference comes first.

    Each row is the output of `sample` with a `title`.
    """
    pictures = [[outlined(row["grey"], drawn, 384, 2) for drawn in _outlines(row).values()] for row in rows]
    names, scans = list(_outlines(rows[0])), [html.escape(row["title"]) for row in rows]
    return _pictures(pictures, column_titles=names, row_titles=scans)


def picture_row(pictures: dict[str, np.ndarray]) -> go.Figure:
    """Pictures (rows, columns, 3) uint8 side by side, each under its name."""
    return _pictures([list(pictures.values())], column_titles=[html.escape(name) for name in pictures])


def augmented_row(image: np.ndarray, reference: np.ndarray, changes: Sequence[Callable], draws: int = 3) -> go.Figure:
    """A slice (size, size) in 0-1 with its mask as it is, and `draws` times as augmentations, functions of (image, reference,
    random), change both one after another."""
    pictures = {"as it is": outlined(image, {"reference": reference})}
    for seed in range(1, draws + 1):
        random, changed, mask = np.random.default_rng(seed), image, reference
        for change in changes:
            changed, mask = change(changed, mask, random)
        pictures[f"draw {seed}"] = outlined(changed, {"reference": mask})
    return picture_row(pictures)


def round_trip_row(row, size: int, preparation: Preparation) -> go.Figure:
    """A row of the cohort table: its reference on the scan, on the network's slices, back on the scan, and what that loses (the
    colour of missed lesions) and adds (of false positives), at the slice with the largest reference area."""
    flair, image = read_pair(row.flair, row.reference, preparation.intensity)
    reference, back = np.asarray(image.dataobj, dtype=bool), round_trip(flair, image, size, preparation.view)
    k = int(reference.sum(axis=(0, 1)).argmax())
    small = axial_slices(cut_out(reference[..., [k]], box_of(flair, preparation.view)), size)[0]
    head = box_of(flair, "head")
    grey, before, after = (cut_out(volume[..., k], head) for volume in (flair.get_fdata(), reference, back))
    return picture_row(
        {
            f"{row.centre}, {row.subject}: original": outlined(grey, {"reference": before}),
            f"on the network's {size} × {size}": outlined(small.astype(np.float32), {}),
            "back on the scan": outlined(grey, {"found": after}),
            "lost and added": outlined(grey, {"missed": before & ~after, "false": after & ~before}),
        }
    )


def middle_and_worst(per_subject: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The subject of each split whose mean Dice over the losses is the middle one, and the worst, as (split, `middle` or
    `worst`, subject), external subjects first; one subject alone is the worst."""
    chosen = []
    for split, scores in sorted(per_subject.groupby("split"), key=lambda part: part[0] != "external"):
        order = scores.groupby("subject").dice.mean().sort_values().index
        names = {order[(len(order) - 1) // 2]: "middle", order[0]: "worst"}
        chosen += [(split, which, name) for name, which in names.items()]
    return chosen


def montage(rows: list[dict], side: int = 200) -> Image.Image:
    """The rows of `prediction_samples` as one picture with the losses' names on top, for documents without plotly."""
    names = list(_outlines(rows[0]))
    picture = Image.new("RGB", (side * len(names), 24 + side * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(names):
        pen.text((column * side + side // 2, 12), name, "black", anchor="mm", font_size=14)
        for line, row in enumerate(rows):
            drawn = Image.fromarray(outlined(row["grey"], _outlines(row)[name], 2 * side, 2))
            drawn.thumbnail((side, side))
            picture.paste(drawn, (column * side + (side - drawn.width) // 2, 24 + line * side))
    return picture


def looks(row: dict) -> list[tuple[str, str]]:
    """A row of `disputed` as (title, PNG data URI) pairs: the FLAIR alone, the reference, then every loss's mask."""
    drawn = {"FLAIR": {}} | _outlines(row)
    return [(name, png_uri(outlined(row["grey"], outlines, 384, 2))) for name, outlines in drawn.items()]


def _outlines(row: dict) -> dict[str, dict[str, np.ndarray]]:
    """What is drawn over a row of `sample`, by title: the reference, then every loss's mask, with the lesions that it misses and
    its false positives in their own colours."""
    drawn = {title("reference"): {"reference": row["masks"]["reference"]}}
    for loss in row["missed"]:
        drawn[title(loss)] = {"found": row["masks"][loss], "missed": row["missed"][loss], "false": row["false"][loss]}
    return drawn


def _volumes(
    study: Study, subjects: pd.DataFrame, name: str, losses: list[str], seed: int
) -> tuple[nibabel.Nifti1Image, dict[str, np.ndarray]]:
    """A subject's FLAIR (`tissue`), and boolean masks of its shape by name, `reference` first."""
    row = subjects.set_index("subject").loc[name]
    flair, mask = read_pair(row.flair, row.reference, "tissue")
    masks = {"reference": np.asarray(mask.dataobj) > 0}
    for loss in losses:
        path = study.mask(loss, seed, name)
        masks[loss] = np.asarray(laid_over(path, flair, f"the FLAIR {row.flair} and the mask {path}").dataobj) > 0
    return flair, masks


def _largest_slice(flair: nibabel.Nifti1Image, reference: np.ndarray) -> int:
    """The axial slice with the largest reference area; with most tissue if there is no lesion."""
    shown = reference if reference.any() else np.asarray(flair.dataobj) > TISSUE
    return int(shown.sum(axis=(0, 1)).argmax())


def _cut(flair: nibabel.Nifti1Image, k: int, box: Box, **masks: dict[str, np.ndarray]) -> dict:
    """Axial slice `k` in a box with square pixels: `grey` (i, j) in 0-1, and each of `masks`, name to boolean (i, j)."""
    spacing = nibabel.affines.voxel_sizes(flair.affine)[:2]
    shape = np.round(np.ptp(box, axis=1) * spacing / spacing.min()).astype(int)
    grey = resize(cut_out(flair.get_fdata(dtype=np.float32)[..., k], box), shape, order=1)
    return {"grey": np.clip(grey / np.percentile(grey, 99.5), 0, 1)} | {
        kind: {name: resize(cut_out(mask[..., k], box), shape, order=0) for name, mask in of_kind.items()}
        for kind, of_kind in masks.items()
    }


def sample(study: Study, subjects: pd.DataFrame, name: str, losses: list[str], seed: int) -> dict:
    """One row of Figure 4: a subject's axial slice with the largest reference area, cropped to the masks, with square
    pixels.

    Without a lesion, the slice with most tissue is taken.

    Returns
    -------
    dict
        `grey` (i, j) in 0-1; `masks`, name to boolean (i, j), `reference` first; `missed` and `false`, per loss: the
        reference's lesions without an overlap with its mask, and the components of its mask without an overlap with the
        reference, boolean (i, j).
    """
    flair, masks = _volumes(study, subjects, name, losses, seed)
    return _around_masks(flair, _largest_slice(flair, masks["reference"]), masks, *_mistakes(masks))


def disputed(study: Study, subjects: pd.DataFrame, name: str, losses: list[str], seed: int) -> dict:
    """A subject's axial slice with most lesions that some losses detect and others miss, cropped to the masks.

    If the losses agree on every lesion, it is the slice of `sample`. Returns the same as `sample`.
    """
    flair, masks = _volumes(study, subjects, name, losses, seed)
    missed, false = _mistakes(masks)
    unlike = np.any(list(missed.values()), axis=0) & ~np.all(list(missed.values()), axis=0)
    labels = cc3d.connected_components(unlike, connectivity=26)
    counts = [np.count_nonzero(np.unique(labels[..., k])) for k in range(labels.shape[2])]
    k = int(np.argmax(counts)) if unlike.any() else _largest_slice(flair, masks["reference"])
    return _around_masks(flair, k, masks, missed, false)


def _mistakes(masks: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The lesions of `reference` that each other mask misses, and the false positives of each."""
    reference, losses = masks["reference"], [name for name in masks if name != "reference"]
    missed = {loss: untouched(reference, masks[loss]) for loss in losses}
    return missed, {loss: untouched(masks[loss], reference) for loss in losses}


def _around_masks(flair: nibabel.Nifti1Image, k: int, masks: dict, missed: dict, false: dict) -> dict:
    """Axial slice `k`, cropped to the masks in it; see `sample`."""
    box = _box_around(np.any([mask[..., k] for mask in masks.values()], axis=0), flair)
    return _cut(flair, k, box, masks=masks, missed=missed, false=false)


def _box_around(marked: np.ndarray, flair: nibabel.Nifti1Image) -> Box:
    """The part of an axial slice around a mask (i, j), with a margin of `MARGIN_MM` inside the head; the whole head for an
    empty mask or one that reaches beyond it."""
    head, spacing = box_of(flair, "head"), nibabel.affines.voxel_sizes(flair.affine)
    box = []
    for axis, (start, stop) in enumerate(head):
        places, margin = np.flatnonzero(marked.any(axis=1 - axis)), round(MARGIN_MM / spacing[axis])
        if len(places) and start <= places[0] and places[-1] < stop:
            start, stop = max(start, int(places[0]) - margin), min(stop, int(places[-1]) + margin + 1)
        box.append((start, stop))
    return tuple(box)


def untouched(lesions: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The 26-connected components of a mask without a voxel in the other mask."""
    labels = cc3d.connected_components(lesions, connectivity=26)
    return lesions & ~np.isin(labels, np.unique(labels[other]))
