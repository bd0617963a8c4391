import numpy as np
import pandas as pd
import pytest
from conftest import scores

from wmhlib import figures, statistics
from wmhlib.figures import COLOURS
from wmhlib.statistics import LOSSES


def test_every_loss_has_one_colour_of_its_own():
    assert set(LOSSES) <= set(figures.COLOURS) and len(set(figures.COLOURS.values())) == len(figures.COLOURS)


def test_slices_are_seen_from_the_feet_with_anterior_up():
    grey = np.zeros((8, 12))
    grey[7, 11] = 1  # the patient's right, anterior
    picture = figures.outlined(grey, {}, side=12)
    assert picture.shape == (12, 8, 3)
    assert np.unravel_index(picture[..., 0].argmax(), (12, 8)) == (0, 0), "right of the patient is left in the picture"


def test_an_outline_has_the_losss_colour_and_an_open_inside():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    picture = figures.outlined(np.zeros((20, 20)), {"siamese": mask}, side=40)
    assert tuple(picture[10, 20]) == (213, 94, 0) and tuple(picture[20, 20]) == (0, 0, 0)


@pytest.fixture
def table() -> pd.DataFrame:
    return scores(dice=[0.2, 0.4, 0.6], siamese=[0.5, 0.6, 0.7], observer_o3=[0.8, 0.8, 0.9])


def colours(figure) -> set[str]:
    """Of markers of traces that have a name."""
    return {trace.marker.color for trace in figure.data if isinstance(trace.marker.color, str)}


def test_figure_5_counts_subjects_per_bin(table):
    table["positive_class_density_pct"] = table.subject.map({"0": 0.01, "1": 0.02, "2": 0.2})
    figure = figures.volume_difference_by_density(table, "external")
    assert [trace.name for trace in figure.data] == ["Dice", "Siamese", "Observer O3"]
    assert list(figure.layout.xaxis.categoryarray) == ["0-0.03 %<br>n = 2", "0.1-0.3 %<br>n = 1"]


def test_paired_slopes_have_a_line_a_subject_and_the_mean(table):
    figure = figures.paired_slopes(table, "external", ("dice",))
    assert len(figure.data) == 4 and list(figure.data[0].x) == ["Dice", "Siamese"]
    assert list(figure.data[-1].y) == [pytest.approx(0.4), pytest.approx(0.6)]
    assert figure.data[-1].marker.color == (COLOURS["dice"], COLOURS["siamese"])


def test_detection_by_size_draws_intervals_in_the_losss_colour():
    rows = [("external", "siamese", "below 10 mm³", 0.0, 12, 0.5, 0.4, 0.7)]
    table = pd.DataFrame(rows, columns=["split", "loss", "size", "from_mm3", "lesions", "detected", "low", "high"])
    figure = figures.detection_by_size(table, "external")
    more = pd.concat([table, table.assign(loss="observer_o3", size="30 to 100 mm³", from_mm3=30.0)])
    observer = figures.detection_by_size(more, "external").data[1]
    assert 0.9 < observer.x[0] < 1.1, "the bin that only one of them has is in its own place"
    bars = figure.data[0].error_y
    assert bars.array[0] == pytest.approx(0.2) and bars.arrayminus[0] == pytest.approx(0.1)
    assert (
        figure.layout.xaxis.ticktext == ("below 10 mm³<br>n = 12",) and figure.data[0].line.color == COLOURS["siamese"]
    )


def test_volume_agreement_has_a_panel_a_loss():
    volumes = pd.DataFrame(
        {"loss": "dice", "seed": [1, 2], "split": "external", "centre": "C", "subject": "<b>", "reference_ml": 4.0,
         "predicted_ml": [5.0, 7.0]}
    )  # fmt: skip
    figure = figures.volume_agreement(volumes, statistics.volume_agreement(volumes), "external")
    assert (figure.data[0].x[0], figure.data[0].y[0]) == (5, 2) and figure.data[0].text[0] == "&lt;b&gt;"
    assert figure.layout.shapes[0].y0 == 2, "the bias"


def test_every_loss_keeps_its_colour(table):
    split = pd.concat([table, table.assign(split="holdout", centre="<A>", subject="h" + table.subject)])
    drawn = [
        figures.by_centre(statistics.summary(split, by_centre=True)),
        figures.generalisation_gap(statistics.generalisation_gap(split)),
    ]
    assert all({COLOURS["dice"], COLOURS["siamese"]} <= colours(figure) for figure in drawn)
    assert drawn[0].layout.xaxis.ticktext == ("&lt;A&gt;<br>holdout, n = 3", "C<br>external, n = 3")


def test_the_lesion_map_tells_found_missed_and_false_apart():
    rows = [("reference", True, 0.0), ("reference", False, 10.0), ("false detection", None, 40.0)]
    table = pd.DataFrame(rows, columns=["kind", "found", "x_mm"]).assign(
        loss="dice", seed=1, split="external", subject="s", y_mm=0.0, volume_mm3=27.0
    )
    figure = figures.lesion_map(table, "external", seed=1)
    assert {trace.name: trace.x[0] for trace in figure.data} == {"missed": 5, "found": -5, "false": 35}


def test_training_dice_is_drawn_where_nothing_validates():
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [2.0, 1.0], "dice": [0.3, 0.6], "validation_dice": [np.nan] * 2, "kept": [True] * 2}
    )
    figure = figures.training_curves({"dice": history})
    assert list(figure.data[1].y) == [0.3, 0.6] and figure.layout.annotations[1].text == "training Dice"


def test_differences_stand_on_the_side_that_is_better(table):
    figure = figures.differences(statistics.comparisons(table), "external")
    dice = figure.data[0]
    assert list(dice.y) == ["Dice"] and dice.x[0] == pytest.approx(-0.2) and dice.marker.color == (COLOURS["dice"],)
    reversed_axes = [axis.autorange == "reversed" for axis in figure.select_xaxes()]
    assert reversed_axes == [not better for _, better in statistics.METRICS.values()]


def test_diaries_have_a_line_a_training_in_every_panel():
    rows = {
        "step": [1, 2],
        "distance": [1.0, 2.0],
        "strength": [1.0, np.nan],
        "drift": [0.0, 1.0],
        "density_pct": [1, 2],
    }
    rows |= {"generator_gradient_norm": [1.0, 2.0], "discriminator_gradient_norm": [np.nan, np.nan]}
    figure = figures.diaries({"siamese": pd.DataFrame(rows)}, reference_pct=1.5)
    assert len(figure.data) == len(figures.DIARY) and figure.layout.shapes[0].y0 == 1.5
    assert [list(trace.x) for trace in figure.data][1] == [1], "what was not looked at is not drawn"
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis3.type is None
