"""Each training's own threshold, chosen only on validation subjects, its effect, and calibration."""

import numpy as np
import pandas as pd
import pytest

from wmhlib.evaluation import statistics, thresholds


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)


def points(split: str, **by_loss: dict) -> pd.DataFrame:
    """Operating points of one seed: loss to subject to (marked, overlap) at 0.2, 0.5 and 0.8; references have 10 voxels."""
    rows = [
        (split, loss, 1, subject, cut, 10, marked, overlap)
        for loss, subjects in by_loss.items()
        for subject, values in subjects.items()
        for cut, (marked, overlap) in zip((0.2, 0.5, 0.8), values, strict=True)
    ]
    names = ["split", "loss", "seed", "subject", "threshold", "reference_voxels", "marked_voxels", "overlap_voxels"]
    return pd.DataFrame(rows, columns=names)


LOW = [(10, 10), (4, 4), (0, 0)]  # Dice 1, 8/14, 0: best where little is asked
HIGH = [(40, 10), (20, 10), (10, 10)]  # 0.4, 2/3, 1: best where much is asked


def test_a_threshold_is_chosen_by_the_validation_subjects_alone():
    validation = points("validation", dice={"v": LOW}, siamese={"v": HIGH})
    assert thresholds.chosen(validation).to_dict() == {("dice", 1): 0.2, ("siamese", 1): 0.8}
    unseen = points("external", dice=dict.fromkeys("abc", HIGH), siamese=dict.fromkeys("abc", HIGH))
    table = thresholds.own_thresholds(unseen, validation).set_index("loss")
    assert table.dice_own.to_dict() == pytest.approx({"dice": 0.4, "siamese": 1.0}), "Dice's own is bad here, and stays"
    assert table.gain.to_dict() == pytest.approx({"dice": 0.4 - 2 / 3, "siamese": 1 / 3})
    assert np.allclose(table.dice_half, 2 / 3) and (table.low <= table.dice_own).all()


def test_of_equal_thresholds_the_one_nearest_to_one_half_is_chosen():
    same = [(10, 10)] * 3
    assert thresholds.chosen(points("validation", dice={"v": same})).tolist() == [0.5]
    nothing = [(0, 0)] * 3
    empty = points("validation", dice={"v": nothing}).assign(reference_voxels=0)
    assert thresholds.dice(empty).isna().all() and thresholds.chosen(empty).tolist() == [0.5]


def test_without_validation_there_is_no_row():
    unseen = points("external", dice={"a": LOW})
    table = thresholds.own_thresholds(unseen, points("validation"))
    assert table.empty and "dice_own" in table.columns


def test_calibration_is_the_fraction_of_lesion_in_each_range_of_probability():
    """Of 40 - 20 voxels between 0.2 and 0.5 none is lesion, of 10 between 0.5 and 0.8 none, of 10 above 0.8 all."""
    table = thresholds.calibration(points("external", dice={"a": HIGH, "b": HIGH}))
    assert np.allclose(table.predicted, [0.35, 0.65, 0.9]) and table.fraction.tolist() == [0, 0, 1]
    assert table.voxels.tolist() == [40, 20, 20]
    saturated = thresholds.calibration(points("external", dice={"a": [(10, 10)] * 3}))
    assert saturated.predicted.tolist() == [0.9], "ranges without a voxel are left out"
