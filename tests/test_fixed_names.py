"""The names that other tools call, with the arguments they call them with."""

import importlib
import inspect
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
import pytest

from wmhlib import features
from wmhlib.cohort import assign_splits, read_challenge
from wmhlib.generator import dense_unet
from wmhlib.inference import load_generator, segment
from wmhlib.losses import LOSSES, DiceLoss, GeneralizedDiceLoss, TverskyLoss
from wmhlib.metrics import challenge_metrics, positive_class_density
from wmhlib.running.files import ROOT
from wmhlib.siamese import SiameseContentLoss
from wmhlib.study import open_study

CALLS = [
    ("wmhlib.cohort.read_challenge", ["root"]),
    ("wmhlib.cohort.assign_splits", ["cohort", "training", "validation", "holdout", "seed"]),
    ("wmhlib.metrics.challenge_metrics", ["reference", "result"]),
    ("wmhlib.metrics.positive_class_density", ["reference"]),
    ("wmhlib.generator.dense_unet", ["size"]),
    ("wmhlib.inference.segment", ["model", "flair"]),
    ("wmhlib.inference.load_generator", ["path"]),
    ("wmhlib.siamese.SiameseContentLoss", ["features"]),
    ("wmhlib.losses.DiceLoss", []),
    ("wmhlib.losses.TverskyLoss", []),
    ("wmhlib.losses.GeneralizedDiceLoss", []),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_every_fixed_name_is_there_and_is_called_as_before(name, arguments):
    module, _, attribute = name.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), attribute))
    assert list(signature.parameters)[: len(arguments)] == arguments
    signature.bind(**dict.fromkeys(arguments)), signature.bind(*arguments)  # by name, and in this order


def test_the_losses_have_their_names():
    assert {"dice", "tversky", "generalized_dice", "siamese", "siamese_minmax"} <= set(LOSSES)


def test_losses_are_keras_losses_called_on_reference_and_prediction():
    random = np.random.default_rng(0)
    y_true = (random.random((2, 32, 32, 1)) > 0.9).astype(np.float32)
    y_pred = random.random((2, 32, 32, 1)).astype(np.float32)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    for loss in (DiceLoss(), TverskyLoss(), GeneralizedDiceLoss()):
        assert isinstance(loss, keras.losses.Loss) and float(loss(y_true=y_true, y_pred=y_pred)) > 0
    bound = SiameseContentLoss(features.build(32)).bound_to(image)
    assert isinstance(bound, keras.losses.Loss) and float(bound(y_true, y_pred)) > 0


def test_a_cohort_is_a_table_with_these_columns(challenge):
    cohort = read_challenge(root=challenge)
    assert isinstance(cohort, pd.DataFrame)
    assert list(cohort.columns) == ["subject", "centre", "split", "flair", "reference"]
    assert set(cohort.split) == {"", "external"}
    split = assign_splits(cohort=cohort, training=4, validation=2, holdout=2, seed=1)
    assert set(split.split) == {"training", "validation", "holdout", "external"}


def test_metrics_take_paths_as_text_paths_and_images(challenge):
    reference = next(challenge.rglob("wmh.nii.gz"))
    for one in (str(reference), Path(reference), nibabel.load(reference)):
        got = challenge_metrics(reference=one, result=one)
        assert got == {"dice": 1, "hd95_mm": 0, "avd_pct": 0, "lesion_recall": 1, "lesion_f1": 1}
        assert 0 < positive_class_density(reference=one) < 100


def test_a_scan_is_segmented_on_its_own_grid(challenge, tmp_path):
    flair = next(challenge.rglob("FLAIR.nii.gz"))
    dense_unet(32, 4, 2, 1).save(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", str(tmp_path / "model.keras")):
        model = load_generator(path)
    scan, masks = nibabel.load(flair), [segment(model, one) for one in (str(flair), Path(flair), nibabel.load(flair))]
    for mask in masks:
        assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1}
        assert np.array_equal(mask.dataobj, masks[0].dataobj)


@pytest.mark.parametrize("target", ["setup", "report", "test", "lab"])
def test_make_has_its_targets(target):
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_a_studys_folder_has_its_places(settings, write_config):
    study = open_study(write_config(settings))
    assert study.folder == ROOT / "reports" / "test-miniature" and study.tables == study.folder / "tables"
    assert study.model("dice", 2) == study.folder / "models" / "dice" / "seed-2"
    assert study.mask("dice", 2, "7") == study.folder / "masks" / "dice" / "seed-2" / "7.nii.gz"
    assert open_study("config/demo.yaml").name == "demo"
