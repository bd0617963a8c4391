"""Figures have the right points, colours and intervals; their appearance in plotly is not tested."""

import numpy as np
import pandas as pd
import pytest
from conftest import scores

from wmhlib.evaluation import statistics, tables
from wmhlib.evaluation.names import OTHERS, colour, measured_in, title
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report import figures, training_figures


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    """A tenth of the study's resamples, and no full garbage collection, which statsmodels does for every correction."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.fixture
def table() -> pd.DataFrame:
    return scores(dice=[0.2, 0.4, 0.6], siamese=[0.5, 0.6, 0.7], observer_o3=[0.8, 0.8, 0.9])


def points(figure) -> pd.DataFrame:
    """Every point that is drawn: `name` in the legend, `x`, `y`, `colour`, `text`, `above` and `below` (or right and left)
    it, and its `panel`, from 1."""
    rows = []
    for trace in figure.data:
        bars = next(
            (trace[side] for side in ("error_x", "error_y") if side in trace and trace[side].array is not None), None
        )
        words = trace.hovertext if trace.hovertext is not None else trace.text
        for number, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
            own = trace.marker.color or trace.line.color
            rows.append(
                {"name": trace.name, "x": x, "y": y, "panel": int((trace.xaxis or "x").removeprefix("x") or 1)}
                | {"colour": own if isinstance(own, str) else own[number]}
                | {"text": words[number] if isinstance(words, (list, tuple, np.ndarray)) else words}
                | {"above": bars.array[number] if bars else None, "below": bars.arrayminus[number] if bars else None}
            )
    return pd.DataFrame(rows)


def lines(figure, panel: int = 1) -> list[float]:
    """Where lines are drawn across a panel, by height."""
    axis = f"y{panel if panel > 1 else ''}"
    return [shape.y0 for shape in figure.layout.shapes if shape.yref == axis and shape.y0 == shape.y1]


def test_every_loss_has_one_colour_of_its_own():
    names = [name for name, loss in LOSSES.items() if loss.__module__.startswith("wmhlib")] + list(OTHERS)
    assert len({colour(name) for name in names}) == len({title(name) for name in names}) == len(names) >= 12


def test_metric_panels_have_every_subject_under_every_loss(table):
    drawn = points(figures.metric_panels(table, "external"))
    dice = drawn[drawn.panel == 1]
    assert dice.y[dice.name == "Siamese"].tolist() == [0.5, 0.6, 0.7] and len(dice) == 9
    assert drawn.panel.nunique() == len(measured_in(table)) >= 5


def test_figure_5_counts_subjects_per_bin(table):
    table["positive_class_density_pct"] = table.subject.map({"0": 0.01, "1": 0.02, "2": 0.2})
    figure = figures.volume_difference_by_density(table, "external")
    assert [trace.name for trace in figure.data] == ["Dice", "Siamese", "Observer O3"]
    assert list(figure.layout.xaxis.categoryarray) == ["0-0.03 %<br>n = 2", "0.1-0.3 %<br>n = 1"]
    drawn = points(figure)
    assert set(drawn.x) == set(figure.layout.xaxis.categoryarray) and (drawn.y == 10).all()


def test_paired_slopes_have_a_line_a_subject_and_the_mean(table):
    figure = figures.paired_slopes(table, "external", ("dice",))
    assert len(figure.data) == 4 and all(list(line.x) == ["Dice", "Siamese"] for line in figure.data)
    assert sorted(list(line.y) for line in figure.data[:3]) == [[0.2, 0.5], [0.4, 0.6], [0.6, 0.7]]
    mean = points(figure).query("name == 'mean'")
    assert mean.y.tolist() == pytest.approx([0.4, 0.6])
    assert mean.colour.tolist() == [colour("dice"), colour("siamese")]


def test_detection_by_size_draws_intervals_in_the_losss_colour():
    rows = [("external", "siamese", "below 10 mm³", 0.0, 12, 0.5, 0.4, 0.7)]
    table = pd.DataFrame(rows, columns=["split", "loss", "size", "from_mm3", "lesions", "detected", "low", "high"])
    more = pd.concat([table, table.assign(loss="observer_o3", size="30 to 100 mm³", from_mm3=30.0)])
    figure = figures.detection_by_size(more, "external")
    drawn = points(figure).set_index("name")
    assert drawn.y["Siamese"] == 0.5 and drawn.colour["Siamese"] == colour("siamese")
    assert (drawn.above["Siamese"], drawn.below["Siamese"]) == pytest.approx((0.2, 0.1))
    assert drawn.x.to_dict() == {"Siamese": "below 10 mm³<br>n = 12", "Observer O3": "30 to 100 mm³<br>n = 12"}
    assert list(figure.layout.xaxis.categoryarray) == list(drawn.x), "from the smallest lesions to the largest"


def test_volume_agreement_has_a_panel_a_loss():
    volumes = pd.DataFrame(
        {"loss": "dice", "seed": [1, 2], "split": "external", "centre": "C", "subject": "<b>", "reference_ml": 4.0,
         "predicted_ml": [5.0, 7.0]}
    )  # fmt: skip
    volumes = pd.concat([volumes, volumes.assign(loss="siamese", predicted_ml=4.0)])
    figure = figures.volume_agreement(volumes, tables.volume_agreement(volumes), "external")
    drawn = points(figure).set_index("panel")
    assert drawn.x.to_dict() == {1: 5, 2: 4} and drawn.y.to_dict() == {1: 2, 2: 0} and set(drawn.text) == {"&lt;b&gt;"}
    assert lines(figure, 1) == [2] and lines(figure, 2) == [0], "the bias; one subject has no limits"


def test_losses_keep_their_colours_by_centre_and_in_the_gap(table):
    split = pd.concat([table, table.assign(split="holdout", centre="<A>", subject="h" + table.subject)])
    centres = points(figures.by_centre(tables.summary(split, by_centre=True)))
    assert set(centres.x) == {"&lt;A&gt;<br>holdout, n = 3", "C<br>external, n = 3"}
    assert centres.groupby("name").colour.unique().map(list).to_dict() == {
        title(name): [colour(name)] for name in ("dice", "siamese", "observer_o3")
    }
    gap = points(figures.generalisation_gap(tables.generalisation_gap(split)))
    assert gap.groupby("y").colour.unique().map(list).to_dict() == {
        title(name): [colour(name)] for name in ("dice", "siamese")
    }
    assert gap.x.tolist() == pytest.approx([0] * len(gap)), "both data sets are alike"


def test_the_lesion_map_tells_found_missed_and_false_apart():
    rows = [("reference", True, 0.0), ("reference", False, 10.0), ("false detection", None, 40.0)]
    table = pd.DataFrame(rows, columns=["kind", "found", "x_mm"]).assign(
        loss="dice", seed=1, split="external", subject="<s>", y_mm=0.0, volume_mm3=27.0
    )
    drawn = points(figures.lesion_map(table.astype({"found": "boolean"}), "external", seed=1))
    at = {title("found"): -5, title("missed"): 5, title("false"): 35}
    assert drawn.set_index("name").x.to_dict() == at and set(drawn.text) == {"&lt;s&gt;"}
    assert drawn.set_index("name").colour.to_dict() == {title(kind): colour(kind) for kind in figures.KINDS}


def test_differences_stand_on_the_side_that_is_better(table):
    figure = figures.differences(tables.comparisons(table), "external")
    dice = points(figure).query("panel == 1").iloc[0]
    assert dice.y == "Dice" and dice.x == pytest.approx(-0.2) and dice.colour == colour("dice")
    backwards = [axis.autorange == "reversed" for axis in figure.select_xaxes()]
    assert backwards == [not metric.higher_is_better for metric in METRICS.values()]


def test_training_dice_is_drawn_where_nothing_validates():
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [2.0, 1.0], "dice": [0.3, 0.6], "validation_dice": [np.nan] * 2, "kept": [True] * 2}
    )
    figure = training_figures.training_curves({"dice": history})
    drawn = points(figure)
    assert drawn.y[drawn.panel == 1].tolist() == [1, 0.5] and drawn.y[drawn.panel == 2].tolist() == [0.3, 0.6]
    assert "training Dice" in [note.text for note in figure.layout.annotations]
    validated = training_figures.training_curves({"dice": history.assign(validation_dice=[0.2, 0.1])})
    assert points(validated).query("panel == 2").y.tolist() == [0.2, 0.1]


def test_step_logs_have_a_line_a_training_in_every_panel():
    rows = {
        "step": [1, 2],
        "distance": [1.0, 2.0],
        "strength": [1.0, np.nan],
        "drift": [0.0, 1.0],
        "density_pct": [1, 2],
    }
    rows |= {"generator_gradient_norm": [1.0, 2.0], "discriminator_gradient_norm": [3.0, 4.0]}
    figure = training_figures.step_logs({"siamese": pd.DataFrame(rows)}, reference_pct=1.5)
    drawn = points(figure)
    assert set(drawn.colour) == {colour("siamese")} and drawn.panel.nunique() == len(training_figures.STEP_PANELS) == 6
    seen = sorted(some.dropna(subset="y").y.tolist() for _, some in drawn.groupby("panel"))
    assert seen == sorted([[1, 2], [1], [0, 1], [1, 2], [1, 2], [3, 4]]), "what was not looked at is not drawn"
    assert [shape.y0 for shape in figure.layout.shapes] == [1.5], "the density of the reference"
    assert sum(axis.type == "log" for axis in figure.select_yaxes()) == 4
