"""Plotly figures from saved tables and arrays; nothing is computed here that a table does not hold.

One colour a loss in every figure (Okabe and Ito's palette, told apart by colour-blind readers), units on every axis.
"""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
from PIL import Image, ImageDraw
from plotly.subplots import make_subplots
from scipy.ndimage import binary_erosion
from skimage.transform import resize

from wmhlib.statistics import LOSSES, METRICS, over_seeds

plotly.io.renderers.default = "plotly_mimetype"  # JupyterLab draws it, and so does the exported page

COLOURS = {
    "reference": "#ffd400",
    "dice": "#0072b2",
    "tversky": "#56b4e9",
    "generalized_dice": "#009e73",
    "siamese": "#d55e00",
    "siamese_minmax": "#cc79a7",
    "global_threshold": "#8c8c8c",
}

DENSITY_EDGES_PCT = (0.0, 0.03, 0.1, 0.3, 1.0, 100.0)
"""Bins of positive class density; the first is the paper's own (Figure 5), the others are spaced evenly in ratio."""


def _present(table: pd.DataFrame) -> list[str]:
    return [loss for loss in LOSSES if loss in set(table.loss)]


def training_curves(histories: dict[str, pd.DataFrame]) -> go.Figure:
    """Loss and validation Dice by epoch, one line a training; the epoch kept is marked.

    `histories` maps a loss's name to its `history.csv`. Losses differ in scale, so each is drawn relative to its
    first epoch.
    """
    figure = make_subplots(1, 2, subplot_titles=("training loss, first epoch = 1", "validation Dice"))
    for loss, history in histories.items():
        best = history.index[history.kept][-1]
        style = {"name": LOSSES[loss], "legendgroup": loss, "line": {"color": COLOURS[loss]}, "mode": "lines+markers"}
        relative = history.loss / history.loss.iloc[0]
        figure.add_scatter(x=history.epoch, y=relative, row=1, col=1, **style)
        sizes = np.where(history.index == best, 13, 5)
        marker = {"marker": {"size": sizes, "color": COLOURS[loss]}, "showlegend": False}
        figure.add_scatter(x=history.epoch, y=history.validation_dice, row=1, col=2, **style, **marker)
    figure.update_xaxes(title="epoch")
    figure.update_layout(height=380, margin={"t": 50, "b": 50})
    return figure


def metric_panels(per_subject: pd.DataFrame, split: str) -> go.Figure:
    """The five figures of every subject by loss, with mean: one panel a metric, one point a subject (seeds averaged)."""
    subjects = over_seeds(per_subject[per_subject.split == split])
    titles = [f"{name} {'↑' if better else '↓'}" for name, better in METRICS.values()]
    figure = make_subplots(1, len(METRICS), subplot_titles=titles, horizontal_spacing=0.045)
    for column, metric in enumerate(METRICS, start=1):
        for loss in _present(subjects):
            some = subjects[subjects.loss == loss]
            figure.add_trace(
                go.Box(
                    y=some[metric], name=LOSSES[loss], legendgroup=loss, showlegend=column == 1,
                    marker={"color": COLOURS[loss], "size": 5}, line={"width": 1.2}, boxmean=True, boxpoints="all",
                    jitter=0.4, pointpos=0, text=some.subject.map(html.escape), hovertemplate="%{text}: %{y:.3f}",
                ),
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(showticklabels=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=440, margin={"t": 85, "b": 20, "l": 40, "r": 10}, legend={"orientation": "h"})
    return figure


def volume_difference_by_density(per_subject: pd.DataFrame, split: str) -> go.Figure:
    """Figure 5: absolute volume difference (%) against binned positive class density (%), one box a loss."""
    subjects = over_seeds(per_subject[(per_subject.split == split) & (per_subject.loss != "global_threshold")])
    names = [f"{low:g}-{high:g} %" for low, high in zip(DENSITY_EDGES_PCT, DENSITY_EDGES_PCT[1:], strict=False)]
    names[-1] = f"over {DENSITY_EDGES_PCT[-2]:g} %"
    density = subjects.positive_class_density_pct
    subjects["bin"] = pd.cut(density, DENSITY_EDGES_PCT, labels=names, include_lowest=True)
    counts = subjects.drop_duplicates("subject").bin.value_counts()
    figure = go.Figure()
    for loss in _present(subjects):
        some = subjects[subjects.loss == loss]
        figure.add_trace(
            go.Box(
                x=[f"{name}<br>n = {counts[name]}" for name in some.bin], y=some.avd_pct, name=LOSSES[loss],
                marker={"color": COLOURS[loss], "size": 5}, boxpoints="all", jitter=0.3, pointpos=0,
                text=some.subject.map(html.escape), hovertemplate="%{text}: %{y:.1f} %",
            )
        )  # fmt: skip
    order = [f"{name}<br>n = {counts[name]}" for name in names if counts[name]]
    figure.update_xaxes(title="positive class density of the reference", categoryorder="array", categoryarray=order)
    figure.update_yaxes(title="absolute volume difference (%)", rangemode="tozero")
    figure.add_hline(y=100, line_dash="dot", annotation_text="100 %: nothing found, or twice as much")
    figure.update_layout(boxmode="group", height=480, margin={"t": 60}, legend={"orientation": "h", "y": -0.25})
    return figure


def outlined(grey: np.ndarray, outlines: dict[str, np.ndarray], side: int = 256) -> np.ndarray:
    """An axial slice (i, j), seen from the feet with anterior up, with outlines: (rows, columns, 3) uint8.

    Outlines are drawn at `side` pixels on the longer side, in the colours of the names in `outlines`.
    """
    shape = tuple(np.maximum(np.round(np.array(grey.shape) / max(grey.shape) * side), 1).astype(int))
    picture = np.repeat((np.clip(resize(grey, shape, order=1), 0, 1) * 255)[..., np.newaxis], 3, axis=2)
    for name, mask in outlines.items():
        mask = resize(mask.astype(float), shape, order=1, anti_aliasing=False) > 0.5
        colour = [int(COLOURS[name][start : start + 2], 16) for start in (1, 3, 5)]
        picture[mask & ~binary_erosion(mask, iterations=1)] = colour
    return picture[::-1, ::-1].transpose(1, 0, 2).astype(np.uint8)


def prediction_samples(rows: list[dict]) -> go.Figure:
    """Figure 4: one row a scan, one column a loss, the prediction's outline over the FLAIR, the reference's first.

    Each row is a dict of `title`, `grey` (i, j) in 0-1, and `masks`: name to boolean (i, j), `reference` first; the
    arrays have square pixels.
    """
    names = list(rows[0]["masks"])
    titles = ["Reference" if name == "reference" else LOSSES[name] for name in names]
    figure = make_subplots(
        len(rows), len(names), column_titles=titles, row_titles=[html.escape(row["title"]) for row in rows],
        horizontal_spacing=0.005, vertical_spacing=0.01,
    )  # fmt: skip
    for line, row in enumerate(rows, start=1):
        for column, name in enumerate(names, start=1):
            picture = outlined(row["grey"], {name: row["masks"][name]})
            figure.add_trace(go.Image(z=picture, hoverinfo="skip"), row=line, col=column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=60 + 260 * len(rows), margin={"t": 40, "b": 10, "l": 10, "r": 30})
    return figure


def picture_row(pictures: dict[str, np.ndarray]) -> go.Figure:
    """Pictures (rows, columns, 3) uint8 side by side, each under its name."""
    figure = make_subplots(1, len(pictures), column_titles=list(map(html.escape, pictures)), horizontal_spacing=0.01)
    for column, picture in enumerate(pictures.values(), start=1):
        figure.add_trace(go.Image(z=picture, hoverinfo="skip"), row=1, col=column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=340, margin={"t": 40, "b": 10, "l": 10, "r": 10})
    return figure


def montage(rows: list[dict], side: int = 200) -> Image.Image:
    """The rows of `prediction_samples` as one picture with the losses' names on top, for where plotly is not."""
    names = list(rows[0]["masks"])
    picture = Image.new("RGB", (side * len(names), 24 + side * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(names):
        pen.text((column * side + side // 2, 12), LOSSES.get(name, "Reference"), "black", anchor="mm", font_size=14)
        for line, row in enumerate(rows):
            drawn = Image.fromarray(outlined(row["grey"], {name: row["masks"][name]}))
            drawn.thumbnail((side, side))
            picture.paste(drawn, (column * side + (side - drawn.width) // 2, 24 + line * side))
    return picture


def density_histogram(table: pd.DataFrame) -> go.Figure:
    """Lesion load of every subject by centre: `centre, volume_ml`, one point a subject, logarithmic."""
    figure = go.Figure()
    for centre, some in table.groupby("centre"):
        figure.add_trace(
            go.Box(
                y=some.volume_ml, name=html.escape(str(centre)), boxpoints="all", jitter=0.4, pointpos=0,
                text=some.subject.map(html.escape), hovertemplate="%{text}: %{y:.2f} ml",
            )
        )  # fmt: skip
    figure.update_yaxes(type="log", title="WMH volume (ml)")
    figure.update_layout(height=380, showlegend=False, margin={"t": 20})
    return figure


def intensity_histograms(histograms: dict[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Share of voxels by intensity, one line a centre: name to (bin centres, share)."""
    figure = go.Figure()
    for name, (centres, share) in histograms.items():
        figure.add_scatter(x=centres, y=share, name=html.escape(name), mode="lines")
    figure.update_xaxes(title="intensity / volume maximum")
    figure.update_yaxes(title="share of non-zero voxels")
    figure.update_layout(height=340, margin={"t": 20})
    return figure
