import numpy as np
import pandas as pd

from wmhlib import figures
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


def test_figure_5_counts_subjects_per_bin():
    rows = [
        {"loss": loss, "seed": 1, "split": "external", "centre": "C", "subject": name, "dice": 0.5, "hd95_mm": 5.0,
         "avd_pct": 20.0, "lesion_recall": 0.5, "lesion_f1": 0.5, "positive_class_density_pct": density,
         "predicted_density_pct": 0.1}
        for loss in ("dice", "siamese") for name, density in (("a", 0.01), ("b", 0.02), ("c", 0.2))
    ]  # fmt: skip
    figure = figures.volume_difference_by_density(pd.DataFrame(rows), "external")
    assert [trace.name for trace in figure.data] == ["Dice", "Siamese"]
    assert list(figure.layout.xaxis.categoryarray) == ["0-0.03 %<br>n = 2", "0.1-0.3 %<br>n = 1"]
