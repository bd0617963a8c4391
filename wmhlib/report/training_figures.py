"""Plotly figures of the data and of trainings: lesion loads, intensities, training curves, step logs."""

import html
import json

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from wmhlib.report.figures import drawn

STEP_PANELS = {
    "distance": ("content loss, first measurement = 1", True),
    "strength": ("strength of the features, first measurement = 1", True),
    "drift": ("drift of VGG19's filters (%)", False),
    "generator_gradient_norm": ("generator's gradient", True),
    "discriminator_gradient_norm": ("adversary's gradient", True),
    "density_pct": ("pixels predicted (%)", False),
}
"""The quantities of a step log that notebook 06 shows: title, and whether the axis is logarithmic."""


def output(figure: go.Figure) -> dict:
    """A figure as a cell's output, for `display(…, raw=True, display_id=True)` and its `update`.

    Displaying the figure itself would add another copy below with every update.
    """
    return {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": "a figure"}


def training_curves(histories: dict[str, pd.DataFrame]) -> go.Figure:
    """Loss and validation Dice (training Dice without validation subjects) by epoch; the epoch kept is marked.

    `histories` maps a loss's name to its `history.csv`. Losses differ in scale, so each is shown relative to its first
    epoch.
    """
    table = pd.concat(
        history.drop(columns="kept").assign(
            loss=loss, relative=history.loss / history.loss.iloc[0],
            size=np.where(history.index == history.index[history.kept][-1], 13, 5),
        )
        for loss, history in histories.items()
    )  # fmt: skip
    titles = {"relative": "training loss, first epoch = 1"}
    titles |= (
        {"validation_dice": "validation Dice"} if table.validation_dice.notna().any() else {"dice": "training Dice"}
    )
    figure = drawn(
        px.line, table.rename(columns=titles).melt(["loss", "epoch", "size"], list(titles.values())), 400, "%{y:.3f}",
        x="epoch", y="value", facet_col="variable", facet_col_spacing=0.06, markers=True, custom_data="size",
    )  # fmt: skip
    figure.for_each_trace(lambda trace: trace.update(marker_size=trace.customdata[:, 0]))
    return figure.update_yaxes(matches=None, showticklabels=True)


def step_logs(tables: dict[str, pd.DataFrame], reference_pct: float) -> go.Figure:
    """Changes of generator and VGG19 by step: one line per training, one panel per quantity.

    `tables` maps a loss's name to the output of `wmhlib.evaluation.game.relative_steps`; `reference_pct` is the
    percentage of lesion pixels in the reference.
    """
    titles = {column: words for column, (words, _) in STEP_PANELS.items()}
    values = pd.concat(table.rename(columns=titles).assign(loss=loss) for loss, table in tables.items())
    values = values.melt(["loss", "step"], list(titles.values()), var_name="panel")
    never_measured = values.groupby(["loss", "panel"]).value.transform("count") == 0  # keep these rows: the panel stays
    figure = drawn(
        px.line, values[values.value.notna() | never_measured], 620, "step %{x}: %{y:.3g}", {"panel": titles.values()},
        x="step", y="value", facet_col="panel", facet_col_wrap=3, facet_col_spacing=0.05, facet_row_spacing=0.16,
    )  # fmt: skip
    figure.update_yaxes(matches=None, showticklabels=True).update_xaxes(showticklabels=True)
    for number, (_, logarithmic) in enumerate(STEP_PANELS.values()):
        if logarithmic:  # plotly.express counts rows from the bottom
            figure.update_yaxes(type="log", exponentformat="power", row=2 - number // 3, col=number % 3 + 1)
    dotted = {"color": "#888", "dash": "dot"}
    figure.add_hline(y=reference_pct, line=dotted, annotation_text="reference", row=1, col=3)
    return figure.update_traces(line_width=1.6).update_layout(legend_y=-0.12)


def moves(table: pd.DataFrame) -> go.Figure:
    """The content loss of one batch after every move of the min-max game: `player, content_loss`, in order."""
    figure = go.Figure()
    line = {"color": "#999999", "width": 1.5}
    figure.add_scatter(x=table.index, y=table.content_loss, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for player, rows in table.groupby("player", sort=False):
        marker = {"size": 11, "color": {"discriminator": "#cc79a7", "generator": "#0072b2"}.get(player, "#555555")}
        figure.add_scatter(
            x=rows.index,
            y=rows.content_loss,
            mode="markers",
            marker=marker,
            name=f"after the {player}" if player != "start" else "start",
        )
    figure.update_xaxes(title="move").update_yaxes(title="content loss", rangemode="tozero")
    return figure.update_layout(height=340, margin={"t": 20})


def density_histogram(table: pd.DataFrame) -> go.Figure:
    """Lesion load (ml, logarithmic) of every subject by centre; `table` has the columns `centre, subject,
    volume_ml`."""
    table = table.astype({"centre": str, "subject": str}).sort_values("centre", kind="stable")
    figure = px.box(
        table.assign(centre=table.centre.map(html.escape), subject=table.subject.map(html.escape)), x="centre",
        y="volume_ml", color="centre", points="all", log_y=True, hover_name="subject",
        labels={"centre": "", "volume_ml": "WMH volume (ml)"},
    )  # fmt: skip
    figure.update_traces(jitter=0.4, pointpos=0, hovertemplate="%{hovertext}: %{y:.2f} ml")
    return figure.update_layout(height=380, showlegend=False, margin={"t": 20})


def intensity_histograms(histograms: dict[str, tuple[np.ndarray, np.ndarray]]) -> go.Figure:
    """Fraction of voxels by intensity, one line per centre: name to (bin centres, fraction)."""
    figure = go.Figure()
    for name, (intensities, fractions) in histograms.items():
        figure.add_scatter(x=intensities, y=fractions, name=html.escape(name), mode="lines")
    figure.update_xaxes(title="intensity / volume maximum").update_yaxes(title="fraction of non-zero voxels")
    return figure.update_layout(height=340, margin={"t": 20})


def power_spectra(frequencies: np.ndarray, spectra: dict[str, np.ndarray]) -> go.Figure:
    """Power of axial slices (mm², tissue = 1) by spatial frequency (cycles/mm), one line per centre; both
    logarithmic."""
    figure = go.Figure()
    for name, power in spectra.items():
        dash = "dot" if name.endswith(", compared") else "solid"
        figure.add_scatter(x=frequencies, y=power, name=html.escape(name), mode="lines", line_dash=dash)
    figure.update_xaxes(title="spatial frequency (cycles/mm)", type="log")
    figure.update_yaxes(title="power (mm², tissue = 1)", type="log", exponentformat="power")
    return figure.update_layout(height=380, margin={"t": 20})
