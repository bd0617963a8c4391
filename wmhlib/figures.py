"""Plotly figures from saved tables and arrays; no statistic is computed here beyond means over seeds and bins.

One colour a loss in every figure (Okabe and Ito's palette, told apart by colour-blind readers), units on every axis.
"""

import base64
import colorsys
import html
import io
import zlib

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
from IPython.display import Markdown, display
from PIL import Image, ImageDraw
from plotly.subplots import make_subplots
from scipy.ndimage import binary_erosion
from skimage.transform import resize

from wmhlib.froc import LESIONS, RATES
from wmhlib.statistics import LOSSES, METRICS, UNTRAINED, over_seeds, present

plotly.io.renderers.default = "plotly_mimetype"  # JupyterLab draws it, and so does the exported page


class _Colours(dict):
    def __missing__(self, loss: str) -> str:
        hue, lightness = zlib.crc32(loss.encode()) % 360 / 360, 0.38 + 0.14 * (len(loss) % 2)
        return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.6))


COLOURS = _Colours(
    {
        "reference": "#ffd400",
        "dice": "#0072b2",
        "tversky": "#56b4e9",
        "generalized_dice": "#009e73",
        "siamese": "#d55e00",
        "siamese_minmax": "#cc79a7",
        "global_threshold": "#8c8c8c",
        "observer_o3": "#5a5a5a",
        "observer_o4": "#3c3c3c",
        "found": "#2bb58f",
        "missed": "#4aa8ff",
        "false": "#ff6a3d",
    }
)
"""A colour a loss; a configuration's variants of a loss take a hue by their name."""

DENSITY_EDGES_PCT = (0.0, 0.03, 0.1, 0.3, 1.0, 100.0)
"""Bins of positive class density; the first is the paper's own (Figure 5), the others are spaced evenly in ratio."""


def show(figure: go.Figure, caption: str) -> None:
    """Display a figure with its caption below, in JupyterLab and in the exported page."""
    display(figure, Markdown(f"*{html.escape(caption)}*"))


def png_uri(picture: np.ndarray) -> str:
    """A uint8 picture, grey (row, column) or colour (row, column, 3), as PNG inside a data URI."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def _error_bars(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> dict:
    """95 % intervals as plotly wants them: distances from the value; none where undefined."""
    return {
        "type": "data", "symmetric": False, "thickness": 1.4, "width": 3,
        "array": (table[high] - table[value]).fillna(0), "arrayminus": (table[value] - table[low]).fillna(0),
    }  # fmt: skip


def training_curves(histories: dict[str, pd.DataFrame]) -> go.Figure:
    """Loss and validation Dice (training Dice, where nothing validates) by epoch; the epoch kept is marked.

    `histories` maps a loss's name to its `history.csv`. Losses differ in scale, so each is drawn relative to its
    first epoch.
    """
    validated = any(history.validation_dice.notna().any() for history in histories.values())
    dice = "validation_dice" if validated else "dice"
    titles = ("training loss, first epoch = 1", "validation Dice" if validated else "training Dice")
    figure = make_subplots(1, 2, subplot_titles=titles)
    for loss, history in histories.items():
        best = history.index[history.kept][-1]
        style = {"name": LOSSES[loss], "legendgroup": loss, "line": {"color": COLOURS[loss]}, "mode": "lines+markers"}
        relative = history.loss / history.loss.iloc[0]
        figure.add_scatter(x=history.epoch, y=relative, row=1, col=1, **style)
        sizes = np.where(history.index == best, 13, 5)
        marker = {"marker": {"size": sizes, "color": COLOURS[loss]}, "showlegend": False}
        figure.add_scatter(x=history.epoch, y=history[dice], row=1, col=2, **style, **marker)
    figure.update_xaxes(title="epoch")
    figure.update_layout(height=380, margin={"t": 50, "b": 50})
    return figure


def metric_panels(per_subject: pd.DataFrame, split: str) -> go.Figure:
    """The five figures of every subject by loss, with mean: one panel a metric, one point a subject (seeds averaged)."""
    subjects = over_seeds(per_subject[per_subject.split == split])
    titles = [f"{name} {'↑' if better else '↓'}" for name, better in METRICS.values()]
    figure = make_subplots(1, len(METRICS), subplot_titles=titles, horizontal_spacing=0.045)
    for column, metric in enumerate(METRICS, start=1):
        for loss in present(subjects):
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
    for loss in present(subjects):
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


def paired_slopes(
    per_subject: pd.DataFrame, split: str, metrics: tuple[str, ...] = ("dice", "lesion_recall")
) -> go.Figure:
    """Every subject's figure under every loss, joined by a line (seeds averaged), with the mean of each loss."""
    subjects = over_seeds(per_subject[per_subject.split == split])
    losses = [loss for loss in present(subjects) if loss not in UNTRAINED]
    figure = make_subplots(1, len(metrics), subplot_titles=[METRICS[metric][0] for metric in metrics])
    names = [LOSSES[loss] for loss in losses]
    for column, metric in enumerate(metrics, start=1):
        values = subjects.pivot(index="subject", columns="loss", values=metric)[losses]
        for name, line in values.iterrows():
            figure.add_scatter(
                x=names, y=line, mode="lines", line={"color": "rgba(128,128,128,0.45)", "width": 1}, showlegend=False,
                text=[html.escape(str(name))] * len(names), hovertemplate="%{text}: %{y:.3f}<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
        figure.add_scatter(
            x=names, y=values.mean(), mode="lines+markers", line={"color": "#8c8c8c", "width": 3}, showlegend=False,
            marker={"size": 13, "color": [COLOURS[loss] for loss in losses]}, name="mean", row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(range=[0, 1.02])
    figure.update_layout(height=420, margin={"t": 50, "b": 40})
    return figure


def detection_by_size(table: pd.DataFrame, split: str) -> go.Figure:
    """Share of lesions found by lesion volume, one line a loss, with 95 % intervals."""
    here = table[table.split == split].sort_values("from_mm3")
    sizes = here.groupby("from_mm3").agg(name=("size", "first"), lesions=("lesions", "max"))
    places = {low: number for number, low in enumerate(sizes.index)}
    figure = go.Figure()
    losses = present(here)
    for number, loss in enumerate(losses):
        some = here[here.loss == loss]
        dash = "dot" if loss in UNTRAINED else "solid"
        figure.add_scatter(
            x=some.from_mm3.map(places) + (number - (len(losses) - 1) / 2) * 0.06, y=some.detected, name=LOSSES[loss],
            mode="lines+markers", line={"color": COLOURS[loss], "dash": dash}, error_y=_error_bars(some, "detected"),
            hovertemplate="%{y:.0%}",
        )  # fmt: skip
    labels = [f"{row.name}<br>n = {row.lesions}" for row in sizes.itertuples()]
    figure.update_xaxes(title="volume of the reference lesion", tickvals=list(range(len(labels))), ticktext=labels)
    figure.update_yaxes(title="share of lesions found", tickformat=".0%", range=[0, 1.04])
    figure.update_layout(height=480, margin={"t": 60}, legend={"orientation": "h", "y": -0.25})
    return figure


def froc(curves: pd.DataFrame, split: str) -> go.Figure:
    """Share of lesions found by false detections a scan as the cut moves, one line a loss; the cut at one half is marked.

    Cuts that find less than a stricter one are left out, and what lies below half a false detection a scan is drawn there.
    """
    here = curves[curves.split == split]
    figure = make_subplots(1, len(LESIONS), subplot_titles=[words for words, *_ in LESIONS.values()], shared_yaxes=True)
    for column, lesions in enumerate(LESIONS, start=1):
        for loss in present(here):
            some = here[(here.loss == loss) & (here.lesions == lesions)]
            some = some.sort_values(["false_detections", "recall"])
            some = some[(some.recall >= some.recall.cummax()) | np.isclose(some.threshold, 0.5)]
            figure.add_scatter(
                x=some.false_detections.clip(lower=0.5), y=some.recall, name=LOSSES[loss], legendgroup=loss, showlegend=column == 1,
                mode="lines+markers", line={"color": COLOURS[loss]},
                marker={"size": np.where(np.isclose(some.threshold, 0.5), 13, 4), "color": COLOURS[loss], "opacity": 1},
                text=[f"cut at {threshold:.4g}" for threshold in some.threshold],
                customdata=some.false_detections,
                hovertemplate="%{text}: %{y:.0%} found, %{customdata:.1f} false", row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(
        title="false detections a scan", type="log", range=np.log10([0.5, 64]).tolist(), tickvals=[*RATES, 32]
    )
    figure.update_yaxes(tickformat=".0%", range=[0, 1.04])
    figure.update_yaxes(title="share of lesions found", row=1, col=1)
    figure.update_layout(height=440, margin={"t": 70}, legend={"orientation": "h", "y": -0.2})
    return figure


def volume_agreement(volumes: pd.DataFrame, table: pd.DataFrame, split: str) -> go.Figure:
    """Bland-Altman: predicted less reference volume against their mean, one panel a loss, with bias and limits."""
    each = volumes[volumes.split == split].groupby(["loss", "subject"])[["reference_ml", "predicted_ml"]].mean()
    limits = table[table.split == split].set_index("loss")
    losses = [loss for loss in present(limits.reset_index()) if loss not in UNTRAINED]
    figure = make_subplots(1, len(losses), subplot_titles=[LOSSES[loss] for loss in losses], shared_yaxes=True)
    for column, loss in enumerate(losses, start=1):
        some, row = each.loc[loss], limits.loc[loss]
        figure.add_scatter(
            x=(some.reference_ml + some.predicted_ml) / 2, y=some.predicted_ml - some.reference_ml, mode="markers",
            marker={"color": COLOURS[loss], "size": 7}, showlegend=False, text=some.index.map(html.escape),
            hovertemplate="%{text}: %{y:+.2f} ml<extra></extra>", row=1, col=column,
        )  # fmt: skip
        figure.add_hline(y=row.bias_ml, line={"color": COLOURS[loss], "dash": "dash"}, row=1, col=column)
        for edge in (row.lower_limit_ml, row.upper_limit_ml):
            if np.isfinite(edge):
                figure.add_hline(y=edge, line={"color": COLOURS[loss], "dash": "dot", "width": 1}, row=1, col=column)
    figure.update_xaxes(title="mean of both (ml)")
    figure.update_yaxes(title="predicted less reference (ml)", row=1, col=1)
    figure.update_layout(height=400, margin={"t": 50})
    return figure


def differences(comparison: pd.DataFrame, split: str) -> go.Figure:
    """Each loss less the one it is compared with, with 95 % intervals: one panel a figure, better to the right."""
    here = comparison[comparison.split == split]
    losses = present(here)[::-1]
    figure = make_subplots(1, len(METRICS), subplot_titles=[name for name, _ in METRICS.values()], shared_yaxes=True)
    for column, (metric, (_, more_is_better)) in enumerate(METRICS.items(), start=1):
        some = here[here.metric == metric].set_index("loss").reindex(losses)
        figure.add_scatter(
            x=some.difference, y=[LOSSES[loss] for loss in losses], mode="markers", showlegend=False,
            marker={"color": [COLOURS[loss] for loss in losses], "size": 10},
            error_x=_error_bars(some, "difference") | {"color": "#666"}, customdata=some[["against", "p_holm"]],
            hovertemplate="%{x:.3f} against %{customdata[0]}, p after Holm %{customdata[1]:.3f}<extra>%{y}</extra>",
            row=1, col=column,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": "#888", "width": 1}, row=1, col=column)
        if not more_is_better:
            figure.update_xaxes(autorange="reversed", row=1, col=column)
    figure.update_layout(height=120 + 34 * len(losses), margin={"t": 60, "l": 10})
    return figure


DIARY = {
    "distance": ("content loss, first look = 1", True),
    "strength": ("strength of the features, first look = 1", True),
    "drift": ("drift of VGG19's filters (%)", False),
    "generator_gradient_norm": ("generator's gradient", True),
    "discriminator_gradient_norm": ("adversary's gradient", True),
    "density_pct": ("pixels predicted (%)", False),
}
"""What notebook 06 shows of a diary: title, and whether the axis is logarithmic."""


def diaries(tables: dict[str, pd.DataFrame], reference_pct: float) -> go.Figure:
    """How generator and VGG19 fare step by step: one line a training, one panel a quantity.

    `tables` maps a loss's name to what `wmhlib.findings.diary` gives; `reference_pct` is what should be predicted.
    """
    figure = make_subplots(2, 3, subplot_titles=[title for title, _ in DIARY.values()], vertical_spacing=0.16)
    for number, (column, (_, logarithmic)) in enumerate(DIARY.items()):
        place = {"row": number // 3 + 1, "col": number % 3 + 1}
        for loss, table in tables.items():
            some = table[["step", column]].dropna()
            figure.add_scatter(
                x=some.step, y=some[column], name=LOSSES[loss], legendgroup=loss, showlegend=number == 0,
                line={"color": COLOURS[loss], "width": 1.6}, mode="lines", hovertemplate="step %{x}: %{y:.3g}", **place,
            )  # fmt: skip
        if logarithmic:
            figure.update_yaxes(type="log", exponentformat="power", **place)
        figure.update_xaxes(title="step", **place)
    figure.add_hline(
        y=reference_pct, line={"color": "#888", "dash": "dot"}, annotation_text="reference", row=2, col=3
    )  # fmt: skip
    figure.update_layout(height=620, margin={"t": 60}, legend={"orientation": "h", "y": -0.12})
    return figure


def by_centre(centres: pd.DataFrame, metric: str = "dice") -> go.Figure:
    """A figure's mean by centre, one point a loss, with 95 % intervals."""
    figure = go.Figure()
    places = list(dict.fromkeys(zip(centres.split, centres.centre, strict=True)))
    losses = present(centres)
    for number, loss in enumerate(losses):
        some = centres[centres.loss == loss]
        at = [places.index(place) for place in zip(some.split, some.centre, strict=True)]
        figure.add_scatter(
            x=np.array(at) + (number - (len(losses) - 1) / 2) * 0.09,
            y=some[f"{metric}_mean"], mode="markers", name=LOSSES[loss], marker={"color": COLOURS[loss], "size": 10},
            error_y=_error_bars(some, f"{metric}_mean", f"{metric}_low", f"{metric}_high"), hovertemplate="%{y:.3f}",
        )  # fmt: skip
    counts = centres.groupby(["split", "centre"]).subjects.max()
    labels = [f"{html.escape(place[1])}<br>{place[0]}, n = {counts[place]}" for place in places]
    figure.update_xaxes(tickvals=list(range(len(places))), ticktext=labels)
    figure.update_yaxes(title=METRICS[metric][0], rangemode="tozero")
    figure.update_layout(height=440, margin={"t": 40}, legend={"orientation": "h", "y": -0.25})
    return figure


def generalisation_gap(table: pd.DataFrame) -> go.Figure:
    """Mean on holdout less mean on external subjects by loss, with 95 % intervals: one panel a figure of overlap."""
    metrics = ("dice", "lesion_recall", "lesion_f1")
    figure = make_subplots(1, len(metrics), subplot_titles=[METRICS[name][0] for name in metrics], shared_yaxes=True)
    for column, metric in enumerate(metrics, start=1):
        here = table[table.metric == metric].set_index("loss", drop=False)
        losses = present(here)[::-1]
        for loss in losses:
            some = here.loc[[loss]]
            figure.add_scatter(
                x=some.gap, y=[LOSSES[loss]], mode="markers", marker={"color": COLOURS[loss], "size": 11},
                error_x=_error_bars(some, "gap"), showlegend=False, hovertemplate="%{x:+.3f}<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=0, line={"color": "#8c8c8c", "dash": "dot"}, row=1, col=column)
    figure.update_xaxes(title="holdout less external")
    figure.update_layout(height=340, margin={"t": 50, "l": 140})
    return figure


def lesion_map(per_lesion: pd.DataFrame, split: str, seed: int) -> go.Figure:
    """Where lesions were found, missed and invented under one seed, seen from the feet, one panel a loss.

    Millimetres in each scan's own space, about the centre of the subject's reference lesions, since scans are not
    registered to one another.
    """
    here = per_lesion[(per_lesion.split == split) & ~per_lesion.loss.isin(UNTRAINED)]
    here = here[here.seed == seed]
    centre = here[here.kind == "reference"].groupby("subject")[["x_mm", "y_mm"]].mean()
    here = here.join(centre.add_suffix("_centre"), on="subject")
    kinds = {
        "missed": (here.kind == "reference") & (here.found != True),  # noqa: E712  NA counts as neither
        "found": (here.kind == "reference") & (here.found == True),  # noqa: E712
        "false": here.kind == "false detection",
    }
    losses = present(here)
    figure = make_subplots(1, len(losses), subplot_titles=[LOSSES[loss] for loss in losses])
    for column, loss in enumerate(losses, start=1):
        for kind, chosen in kinds.items():
            some = here[chosen & (here.loss == loss)]
            figure.add_scatter(
                x=some.x_mm - some.x_mm_centre, y=some.y_mm - some.y_mm_centre, mode="markers", name=kind,
                legendgroup=kind, showlegend=column == 1, text=some.subject.map(html.escape),
                hovertemplate="%{text}, %{customdata:.0f} mm³<extra></extra>", customdata=some.volume_mm3,
                marker={
                    "color": COLOURS[kind], "opacity": 0.7, "line": {"width": 0},
                    "size": np.clip(2 * np.cbrt(some.volume_mm3), 3, 24),
                },
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="right – left (mm)", range=[75, -75])
    figure.update_yaxes(range=[-95, 95])
    for number in range(1, len(losses) + 1):
        figure.update_yaxes(scaleanchor=f"x{number if number > 1 else ''}", row=1, col=number)
    figure.update_yaxes(title="posterior – anterior (mm)", row=1, col=1)
    figure.update_layout(height=460, margin={"t": 60}, legend={"orientation": "h", "y": -0.25})
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
            figure.add_trace(go.Image(source=png_uri(picture), hoverinfo="skip"), row=line, col=column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=60 + 260 * len(rows), margin={"t": 40, "b": 10, "l": 10, "r": 30})
    return figure


def picture_row(pictures: dict[str, np.ndarray]) -> go.Figure:
    """Pictures (rows, columns, 3) uint8 side by side, each under its name."""
    figure = make_subplots(1, len(pictures), column_titles=list(map(html.escape, pictures)), horizontal_spacing=0.01)
    for column, picture in enumerate(pictures.values(), start=1):
        figure.add_trace(go.Image(source=png_uri(picture), hoverinfo="skip"), row=1, col=column)
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
        pen.text(
            (column * side + side // 2, 12),
            "Reference" if name == "reference" else LOSSES[name],
            "black",
            anchor="mm",
            font_size=14,
        )
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
