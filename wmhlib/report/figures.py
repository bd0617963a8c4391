"""Plotly figures of a study's results, from saved tables. Only means over seeds and bins are computed here.

Each loss has the same colour in every figure (Okabe and Ito's palette, which colour-blind readers can distinguish), and
every axis has its unit. Figures of data and trainings: `wmhlib.report.training_figures`.
"""

import html
import itertools
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import plotly.io
from IPython.display import Markdown, display

from wmhlib.evaluation.froc import LESIONS, RATES
from wmhlib.evaluation.names import UNTRAINED, colour, measured_in, of_losses, present, title
from wmhlib.evaluation.tables import over_seeds
from wmhlib.metrics import METRICS

plotly.io.renderers.default = "plotly_mimetype"  # both JupyterLab and the exported page draw it

DENSITY_EDGES_PCT = (0.0, 0.03, 0.1, 0.3, 1.0, 100.0)
"""Bin edges of positive class density in per cent; the first bin is the paper's (Figure 5), the others are evenly
spaced in ratio."""

KINDS = ("missed", "found", "false")
"""Kinds of lesions in the lesion map, in the legend's order."""

BARS = {"thickness": 1.4, "width": 3}
"""Style of the error bars."""


def show(figure: go.Figure, caption: str) -> None:
    """Display a figure with its caption below, in JupyterLab and in the exported page."""
    display(figure, Markdown(f"*{html.escape(caption)}*"))


def drawn(
    draw: Callable, table: pd.DataFrame, height: int, hover: str, orders: dict | None = None, **options
) -> go.Figure:
    """A plotly.express figure with losses in the usual order, by title and colour; panels are titled by their value.

    `hover` is a plotly hover template, `orders` are further category orders, and `options` are passed to `draw`.
    Subjects are escaped, because they appear in hover text.
    """
    losses = present(table)
    table = table.sort_values("loss", key=lambda names: names.map(losses.index), kind="stable")
    table = table.assign(loss=table.loss.map(title))
    if "subject" in table:
        table["subject"] = table.subject.astype(str).map(html.escape)
    options = {"color": "loss"} | ({"points": "all"} if draw is px.box else {"render_mode": "svg"}) | options
    options["labels"] = {"loss": "", "value": ""} | options.get("labels", {})
    colours = {title(name): colour(name) for name in (*losses, *KINDS)}
    orders = {name: list(order) for name, order in ({"loss": map(title, losses)} | (orders or {})).items()}
    figure = draw(table, color_discrete_map=colours, category_orders=orders, **options)
    figure.for_each_annotation(lambda panel: panel.update(text=panel.text.partition("=")[2], font_size=14))
    figure.update_layout(legend={"title": "", "orientation": "h", "y": -0.25})
    return figure.update_traces(hovertemplate=hover).update_layout(height=height, margin={"t": 75, "b": 50})


def _with_interval(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> pd.DataFrame:
    """95 % intervals in plotly's form: distances `below` and `above` the value, 0 where undefined."""
    return table.assign(below=(table[value] - table[low]).fillna(0), above=(table[high] - table[value]).fillna(0))


def _by_metric(per_subject: pd.DataFrame, split: str, titles: dict[str, str]) -> pd.DataFrame:
    """A table of `loss, subject, metric` (its title) and `value`, averaged over seeds."""
    subjects = over_seeds(per_subject[per_subject.split == split]).rename(columns=titles)
    return subjects.melt(["loss", "subject"], list(titles.values()), var_name="metric")


def metric_panels(per_subject: pd.DataFrame, split: str) -> go.Figure:
    """The metrics of every subject by loss, with the mean: one panel per metric, one point per subject (averaged over
    seeds)."""
    arrows = {
        name: f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"
        for name, metric in measured_in(per_subject).items()
    }
    figure = drawn(
        px.box, _by_metric(per_subject, split, arrows), 440, "%{hovertext}: %{y:.3f}", {"metric": arrows.values()},
        x="loss", y="value", facet_col="metric", facet_col_spacing=0.045, hover_name="subject",
    )  # fmt: skip
    figure.update_traces(boxmean=True, jitter=0.4, pointpos=0, marker_size=5, line_width=1.2)
    figure.update_yaxes(matches=None, showticklabels=True, rangemode="tozero").update_xaxes(showticklabels=False)
    return figure.update_layout(margin={"l": 40, "r": 10, "b": 20}, legend_y=-0.05)


def volume_difference_by_density(per_subject: pd.DataFrame, split: str) -> go.Figure:
    """Figure 5: absolute volume difference (%) against binned positive class density (%), one box per loss."""
    subjects = over_seeds(per_subject[(per_subject.split == split) & (per_subject.loss != "global_threshold")])
    names = [f"{low:g}-{high:g} %" for low, high in itertools.pairwise(DENSITY_EDGES_PCT)]
    names[-1] = f"over {DENSITY_EDGES_PCT[-2]:g} %"
    bins = pd.cut(subjects.positive_class_density_pct, DENSITY_EDGES_PCT, labels=names, include_lowest=True)
    counts = bins[~subjects.subject.duplicated()].value_counts()
    labels = {name: f"{name}<br>n = {counts[name]}" for name in names if counts[name]}
    figure = drawn(
        px.box, subjects.assign(bin=bins.astype(str).map(labels)), 480, "%{hovertext}: %{y:.1f} %",
        {"bin": labels.values()}, x="bin", y="avd_pct", hover_name="subject",
        labels={"bin": "positive class density of the reference", "avd_pct": "absolute volume difference (%)"},
    )  # fmt: skip
    figure.update_traces(jitter=0.3, pointpos=0, marker_size=5).update_yaxes(rangemode="tozero")
    return figure.add_hline(y=100, line_dash="dot", annotation_text="100 %: nothing predicted, or twice the volume")


def paired_slopes(
    per_subject: pd.DataFrame, split: str, metrics: tuple[str, ...] = ("dice", "lesion_recall")
) -> go.Figure:
    """Every subject's metrics by loss, averaged over seeds and joined by a line, with the mean of each loss."""
    titles = {metric: METRICS[metric].title for metric in metrics}
    values = _by_metric(per_subject[~per_subject.loss.isin(UNTRAINED)], split, titles)
    figure = drawn(
        px.line, values, 420, "%{hovertext}: %{y:.3f}", {"metric": titles.values()}, x="loss", y="value", color=None,
        line_group="subject", facet_col="metric", facet_col_spacing=0.06, hover_name="subject",
    )  # fmt: skip
    figure.update_traces(line={"color": "rgba(128,128,128,0.45)", "width": 1})
    losses = present(values)
    for column, (_, points) in enumerate(values.groupby("metric", sort=False), start=1):
        means = points.groupby("loss").value.mean()[losses]
        figure.add_scatter(
            x=[title(loss) for loss in losses], y=means, name="mean", mode="lines+markers", showlegend=False,
            line={"color": "#8c8c8c", "width": 3}, marker={"size": 13, "color": [colour(loss) for loss in losses]},
            row=1, col=column,
        )  # fmt: skip
    return figure.update_yaxes(range=[0, 1.02])


def detection_by_size(table: pd.DataFrame, split: str) -> go.Figure:
    """Fraction of lesions detected by lesion volume, one line per loss, with 95 % intervals."""
    rows = table[table.split == split].sort_values("from_mm3")
    counts = rows.groupby("from_mm3").lesions.transform("max")
    rows = _with_interval(rows.assign(size=rows["size"] + "<br>n = " + counts.astype(str)), "detected")
    figure = drawn(
        px.line, rows, 480, "%{y:.0%}", {"size": rows["size"].unique()}, x="size", y="detected", markers=True,
        error_y="above", error_y_minus="below", line_dash="loss",
        line_dash_map={title(loss): "dot" if loss in UNTRAINED else "solid" for loss in present(rows)},
        labels={"size": "volume of the reference lesion", "detected": "fraction of lesions detected"},
    )  # fmt: skip
    figure.update_traces(error_y=BARS).update_layout(scattermode="group", scattergap=0.7)
    return figure.update_yaxes(tickformat=".0%", range=[0, 1.04])


def froc(curves: pd.DataFrame, split: str) -> go.Figure:
    """Fraction of lesions detected by false positives per scan at every threshold, one line per loss; 0.5 is marked.

    Thresholds that detect fewer lesions than a stricter one are left out. Points below 0.5 false positives per scan are
    drawn at 0.5.
    """
    points = curves[curves.split == split].sort_values(["false_detections", "recall"])
    highest, marked = points.groupby(["loss", "lesions"]).recall.cummax(), np.isclose(points.threshold, 0.5)
    titles = {name: words for name, (words, *_) in LESIONS.items()}
    points = points.assign(
        lesions=points.lesions.map(titles), size=np.where(marked, 13, 4), place=points.false_detections.clip(lower=0.5)
    )
    at_edge = points.place == points.place.min()
    best_there = points.groupby(["loss", "lesions", "place"]).recall.transform("max")
    hidden = at_edge & (points.recall < best_there)  # otherwise a vertical line at the edge
    figure = drawn(
        px.line, points[((points.recall >= highest) & ~hidden) | marked], 460,
        "threshold %{customdata[1]:.4g}: %{y:.0%} detected, %{customdata[2]:.1f} false positives",
        {"lesions": titles.values()}, x="place", y="recall", facet_col="lesions", markers=True, log_x=True,
        custom_data=["size", "threshold", "false_detections"],
        labels={"place": "false positives per scan", "recall": "fraction of lesions detected"},
    )  # fmt: skip
    figure.for_each_trace(lambda trace: trace.update(marker={"size": trace.customdata[:, 0], "opacity": 1}))
    figure.update_xaxes(range=np.log10([0.5, 64]).tolist(), tickvals=[*RATES, 32])
    return figure.update_yaxes(tickformat=".0%", range=[0, 1.04])


def calibration(table: pd.DataFrame, split: str) -> go.Figure:
    """Fraction of voxels that are lesion by predicted probability, one line per loss; dotted: perfect calibration."""
    figure = drawn(
        px.line, table[table.split == split], 430,
        "predicted %{x:.2f}: %{y:.0%} are lesion, of %{customdata[0]:,} voxels",
        x="predicted", y="fraction", markers=True, custom_data=["voxels"],
        labels={"predicted": "predicted probability", "fraction": "fraction that is lesion"},
    )  # fmt: skip
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"dash": "dot", "color": "#888888"})
    return figure.update_yaxes(tickformat=".0%", range=[0, 1.02]).update_xaxes(range=[0, 1])


def volume_agreement(volumes: pd.DataFrame, table: pd.DataFrame, split: str) -> go.Figure:
    """Bland-Altman plot: predicted minus reference volume against their mean, one panel per loss, with bias and
    limits."""
    trained = of_losses(volumes, split)
    means = trained.groupby(["loss", "subject"])[["reference_ml", "predicted_ml"]].mean().reset_index()
    means["mean_ml"] = (means.reference_ml + means.predicted_ml) / 2
    means["difference_ml"] = means.predicted_ml - means.reference_ml
    figure = drawn(
        px.scatter, means, 400, "%{hovertext}: %{y:+.2f} ml<extra></extra>", x="mean_ml", y="difference_ml",
        facet_col="loss", hover_name="subject",
        labels={"mean_ml": "mean of both (ml)", "difference_ml": "predicted minus reference (ml)"},
    )  # fmt: skip
    for column, loss in enumerate(present(means), start=1):
        agreement = table[(table.split == split) & (table.loss == loss)].iloc[0]
        line = {"color": colour(loss), "dash": "dot", "width": 1}
        figure.add_hline(y=agreement.bias_ml, line=line | {"dash": "dash", "width": 2}, col=column)
        for limit in filter(np.isfinite, (agreement.lower_limit_ml, agreement.upper_limit_ml)):
            figure.add_hline(y=limit, line=line, col=column)
    return figure.update_traces(marker_size=7).update_layout(showlegend=False)


def _intervals(table: pd.DataFrame, value: str, height: int, hover: str, metrics: Iterable[str], **options):
    """A value per loss with its interval and a line at zero: one row per loss, one panel per metric."""
    titles = {metric: METRICS[metric].title for metric in metrics}
    rows = _with_interval(table[table.metric.isin(titles)].replace({"metric": titles}), value)
    figure = drawn(
        px.scatter, rows, height, hover, {"metric": titles.values()}, x=value, y="loss", facet_col="metric",
        error_x="above", error_x_minus="below", **options,
    )  # fmt: skip
    figure.update_traces(marker_size=10, error_x=BARS).add_vline(x=0, line={"color": "#888", "width": 1})
    return figure.update_xaxes(matches=None).update_layout(showlegend=False)


def differences(comparison: pd.DataFrame, split: str) -> go.Figure:
    """Each loss minus the one it is compared with, with 95 % intervals: one panel per metric, better to the right."""
    rows = comparison[comparison.split == split]
    rows = rows.assign(against=rows.against.map(title))
    hover = "%{x:.3f} against %{customdata[0]}, p after Holm %{customdata[1]:.3f}<extra>%{y}</extra>"
    figure = _intervals(
        rows, "difference", 135 + 34 * rows.loss.nunique(), hover, METRICS, custom_data=["against", "p_holm"],
        labels={"difference": ""},
    )  # fmt: skip
    for column, metric in enumerate(METRICS.values(), start=1):
        figure.update_xaxes(autorange=True if metric.higher_is_better else "reversed", col=column)
    return figure


def generalisation_gap(table: pd.DataFrame) -> go.Figure:
    """Mean on holdout minus mean on external subjects per loss, with 95 % intervals: one panel per metric of
    overlap."""
    metrics, labels = ("dice", "lesion_recall", "lesion_f1"), {"gap": "holdout minus external"}
    return _intervals(table, "gap", 340, "%{x:+.3f}<extra></extra>", metrics, labels=labels)


def by_centre(centres: pd.DataFrame, metric: str = "dice") -> go.Figure:
    """A metric's mean by centre, one point per loss, with 95 % intervals."""
    mean, counts = f"{metric}_mean", centres.groupby(["split", "centre"]).subjects.transform("max").astype(str)
    place = centres.centre.map(html.escape) + "<br>" + centres.split + ", n = " + counts
    figure = drawn(
        px.scatter, _with_interval(centres.assign(place=place), mean, f"{metric}_low", f"{metric}_high"), 440,
        "%{y:.3f}", {"place": place.unique()}, x="place", y=mean, error_y="above", error_y_minus="below",
        labels={"place": "", mean: METRICS[metric].title},
    )  # fmt: skip
    figure.update_traces(marker_size=10, error_y=BARS).update_layout(scattermode="group", scattergap=0.5)
    return figure.update_yaxes(rangemode="tozero")


def lesion_map(per_lesion: pd.DataFrame, split: str, seed: int) -> go.Figure:
    """Lesions detected, missed, and false positives of one seed, seen from the feet, one panel per loss.

    Axes are in mm in each scan's own space, relative to the centre of the subject's reference lesions, because scans
    are not registered to one another.
    """
    chosen = (per_lesion.split == split) & (per_lesion.seed == seed) & ~per_lesion.loss.isin(UNTRAINED)
    lesions, reference = per_lesion[chosen], per_lesion.kind[chosen] == "reference"
    centres = lesions[reference].groupby("subject")[["x_mm", "y_mm"]].mean().reindex(lesions.subject).to_numpy()
    kinds = np.where(reference, np.where(lesions.found.isin([True]), "found", "missed"), "false")
    lesions = lesions.assign(kind=[title(kind) for kind in kinds])
    lesions[["x", "y"]] = lesions[["x_mm", "y_mm"]] - centres
    lesions["diameter"] = np.clip(2 * np.cbrt(lesions.volume_mm3), 3, 24)
    figure = drawn(
        px.scatter, lesions, 460, "%{hovertext}, %{customdata[0]:.0f} mm³<extra></extra>",
        {"kind": map(title, KINDS)}, x="x", y="y", color="kind", facet_col="loss", size="diameter",
        opacity=0.7, hover_name="subject", custom_data="volume_mm3",
        labels={"x": "right – left (mm)", "y": "posterior – anterior (mm)"},
    )  # fmt: skip
    figure.update_traces(marker={"sizemode": "diameter", "sizeref": 1, "line_width": 0})
    figure.update_yaxes(range=[-95, 95]).update_yaxes(scaleanchor="x", col=1)
    return figure.update_xaxes(range=[75, -75], constrain="domain")
