"""The bundled network: the choice of its threshold, and the table of centres in its model card."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from wmhlib.apply import model_card
from wmhlib.apply.model_card import CUTS


def test_dice_at_every_threshold_by_hand():
    """Two of three lesion voxels at 0.6, one at 0.3; a false one at 0.45; one of other pathology, which never
    counts."""
    labels, likely = np.zeros((2, 4, 4, 3), np.float32)
    labels[1, 1:4, 1], labels[3, 3, 1] = 1, 2
    likely[1, 1:3, 1], likely[1, 3, 1], likely[2, 0, 1], likely[3, 3, 1] = 0.6, 0.3, 0.45, 0.9
    reference, probability = (nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1])) for values in (labels, likely))
    found = dict(zip(CUTS.tolist(), model_card.dice_by_threshold(reference, probability), strict=True))
    assert found[0.2] == pytest.approx(6 / 7) and found[0.4] == pytest.approx(4 / 6)
    assert found[0.5] == pytest.approx(4 / 5) and found[0.7] == 0
    nothing = nibabel.Nifti1Image(labels * 0, reference.affine)
    assert np.isnan(model_card.dice_by_threshold(nothing, nothing)).all()


def test_a_threshold_moves_from_one_half_only_where_subjects_show_it():
    random, steps = np.random.default_rng(1), np.abs(CUTS - 0.7)
    clear = 0.6 - steps[None] + 0.001 * random.standard_normal((12, len(CUTS)))
    assert model_card.nearest_to_half(clear) == pytest.approx(0.7)
    noisy = 0.6 - 0.02 * steps[None] + 0.2 * random.standard_normal((12, len(CUTS)))
    assert abs(model_card.nearest_to_half(noisy) - 0.5) < 0.11
    assert model_card.nearest_to_half(clear[:1]) == pytest.approx(0.7)


def test_a_subject_without_a_dice_chooses_no_threshold(monkeypatch):
    clear = 0.6 - np.abs(CUTS - 0.7)[None] + 0.001 * np.random.default_rng(1).standard_normal((12, len(CUTS)))
    lesion_free = np.where(CUTS < 0.5, 0, np.nan)  # marked at low thresholds, and right where nothing is marked
    monkeypatch.setattr(model_card, "looks_inside", lambda network, flair: (None, []))
    monkeypatch.setattr(model_card, "dice_by_threshold", lambda reference, likely: reference)
    for undefined in (lesion_free, np.full(len(CUTS), np.nan)):
        subjects = pd.DataFrame({"flair": "", "reference": [*clear, undefined]})
        threshold, known = model_card.best_threshold(None, subjects)
        assert threshold == pytest.approx(0.7) and np.array_equal(known, clear)
    with pytest.raises(ValueError, match="No holdout subject has a lesion"):
        model_card.best_threshold(None, subjects[-1:])


def test_the_card_has_a_row_per_centre_and_the_mean_of_the_centres():
    rows = {
        "centre": ["a", "a", "b"],
        "subject": list("123"),
        "dice": [0.4, 0.6, 0.8],
        "hd95_mm": [10, 20, 5],
        "avd_pct": 1.0,
    }
    rows |= {
        "lesion_recall": 0.5,
        "lesion_f1": 0.5,
        "small": [1, 2, 3],
        "small_found": [1, 0, 2],
        "large": 4,
        "large_found": 3,
    }
    table = model_card.by_centre(pd.DataFrame(rows | {"false_positives": [2, 4, 0]}))
    assert table.centre.tolist() == ["a", "b", "mean of the centres"] and table.scans.tolist() == ["2", "1", "3"]
    assert table.Dice.tolist() == ["0.50", "0.80", "0.65"], "each centre counts the same"
    assert table["false positives per scan"].tolist() == ["3.0", "0.0", "1.5"]
    assert table.filter(like="below").iloc[:, 0].tolist() == ["1 of 3", "2 of 3", "3 of 6"]
    assert table["larger lesions detected"].tolist() == ["6 of 8", "3 of 4", "9 of 12"]
