"""The bundled network: the choice of its threshold, and the table of centres in its model card."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from wmhlib.apply import model_card, structures, train_structures
from wmhlib.apply.model_card import CUTS
from wmhlib.cohort import read_folder
from wmhlib.intake import phantom
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.running.files import ROOT
from wmhlib.study import open_study


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


def test_the_global_threshold_is_tuned_on_other_centres(tmp_path):
    """Lesions are at 0.9 of the maximum in centre a, but at 0.5 in b, where 0.9 is other tissue."""
    rows = []
    for centre, lesion, other in (("a", 90, 50), ("b", 50, 90)):
        labels = np.zeros((20, 20, 9), np.uint8)
        labels[5:8, 5:8, 4] = 1
        values = np.random.default_rng(1).integers(10, 30, labels.shape).astype(np.float32)
        values[12:15, 12:15, 4], values[labels == 1], values[0, 0, 0] = other, lesion, 100
        paths = [tmp_path / f"{centre}_{name}.nii.gz" for name in ("flair", "wmh")]
        for path, image in zip(paths, (values, labels), strict=True):
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), path)
        rows.append({"centre": centre, "flair": str(paths[0]), "reference": str(paths[1])})
    together = model_card.dice_of_global_threshold(pd.DataFrame(rows).assign(centre=["a", "b"]))
    assert together[1] < 0.2, "the level of a misses the lesion of b"
    assert np.isnan(model_card.dice_of_global_threshold(pd.DataFrame(rows[:1]))).all()


def test_structures_are_summarised_over_heads():
    heads = pd.DataFrame({"intracranial_dice": [0.9, 1.0], "intracranial_true_ml": [1000, 2000.0]})
    heads = heads.assign(intracranial_found_ml=[900, 2200.0], ventricles_dice=[0.5, 0.7])
    heads = heads.assign(ventricles_true_ml=[10, 40.0], ventricles_found_ml=[12, 30.0])
    inside, ventricles = model_card.by_structure(heads)
    assert (inside["dice"], inside["lowest"], inside["off"]) == pytest.approx((0.95, 0.9, 10))
    assert (ventricles["small"], ventricles["large"]) == pytest.approx((120, 75))


def test_a_head_whose_structures_are_found_as_they_are_has_a_dice_of_one(tmp_path, monkeypatch):
    phantom.write_cohort(tmp_path, {"Alder": 1}, 5, 0.3, structures=True)
    [head] = read_folder(tmp_path).itertuples()
    true = {
        name: np.asarray(nibabel.load(train_structures.mask_of_structure(head.reference, name)).dataobj) > 0
        for name in STRUCTURES
    }
    found = structures.Structures(**true, intracranial_ml=1400, ventricles_ml=30)
    monkeypatch.setattr(structures, "structures_of", lambda flair: found)
    row = train_structures.measure_head(head)
    assert row["intracranial_dice"] == row["ventricles_dice"] == 1
    assert row["ventricles_true_ml"] == pytest.approx(row["ventricles_found_ml"]) and row["ventricles_true_ml"] > 1
    assert row["periventricular"] == row["periventricular_again"] > 0 and row["deep"] == row["deep_again"] > 0
    nothing = found._replace(ventricles=np.zeros_like(found.ventricles))
    monkeypatch.setattr(structures, "structures_of", lambda flair: nothing)
    row = train_structures.measure_head(head)
    assert row["ventricles_dice"] == row["deep_again"] == 0, "lesions without a region"


@pytest.mark.slow
def test_the_networks_of_the_structures_are_trained_without_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    monkeypatch.setattr(structures, "BUNDLED", tmp_path / "model.keras")
    monkeypatch.setattr(train_structures, "BUNDLED", tmp_path / "model.keras")
    structures.network_of.cache_clear()
    study = open_study(ROOT / "config" / "structures.yaml").changed(
        data={
            "root": str(tmp_path / "heads"),
            "phantom": {"scale": 0.2, "subjects": {"random": 3}, "label_maps": None},
        },
        split={"holdout": 1},
        preprocessing={"size_px": 32},
        generator={"filters": 2, "depth": 2},
        training={"epochs": 1, "steps_per_epoch": 2},
    )
    table = train_structures.make(study)
    assert len(table) == 1 and table.equals(pd.read_csv(tmp_path / "structures.csv", dtype={"subject": str}))
    networks = [structures.network_of(name) for name in STRUCTURES]
    assert {network.input_shape for network in networks} == {(None, 32, 32, 3)}
    weights = [network.get_weights()[-1] for network in networks]
    assert not np.array_equal(*weights), "trained towards different masks"
    structures.network_of.cache_clear()
