"""Training, selection of the epoch, and inference, on a study that takes seconds; run on every backend."""

import json

import keras
import nibabel
import numpy as np
import pytest

from wmhlib import inference, training
from wmhlib.cohort import load_cohort
from wmhlib.generator import dense_unet
from wmhlib.siamese import vgg19_features
from wmhlib.slices import VIEWS, write_slices
from wmhlib.study import Study, open_study


@pytest.fixture
def study(settings, write_config, tmp_path, monkeypatch) -> Study:
    """The miniature study with its slices and a random discriminator in a folder of its own."""
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    (tmp_path / "config").mkdir()
    from pathlib import Path

    source = Path(__file__).parents[1] / "config" / "schema.yaml"
    (tmp_path / "config" / "schema.yaml").write_text(source.read_text())
    study = open_study(write_config(settings))
    cohort = load_cohort(study)
    write_slices(cohort[cohort.split.isin(["training", "validation"])], study.slices, 32)
    study.discriminator.parent.mkdir(parents=True)
    vgg19_features(32).save(study.discriminator)
    return study


@pytest.mark.parametrize("loss", ["dice", "siamese"])
def test_training_keeps_the_best_epoch_and_repeats_itself(study, loss):
    history = training.train(study, loss, seed=1)
    assert list(history.epoch) == [1, 2] and np.isfinite(history.drop(columns="kept").to_numpy()).all()
    record = json.loads((study.model(loss, 1) / "training.json").read_text())
    assert record["kept_epoch"] == history.epoch[history.validation_dice.idxmax()]
    model = inference.load_generator(study.model(loss, 1) / "model.keras")
    again = training.train(study, loss, seed=1)
    columns = ["loss", "dice", "validation_loss", "validation_dice"]
    assert np.array_equal(history[columns], again[columns]), "same seed, same machine: the same numbers"
    repeated = inference.load_generator(study.model(loss, 1) / "model.keras")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), repeated.get_weights(), strict=True))
    assert not training.train(study, loss, seed=2)[columns].equals(history[columns])


def test_every_loss_of_a_seed_starts_from_the_same_weights_and_leaves_vgg19_alone(study):
    features = keras.saving.load_model(study.discriminator, compile=False)
    before = [np.array(weight) for weight in features.get_weights()]
    trainer = training.LossTrainer(dense_unet(32, 4, 2, 2, seed=1), training.make_loss("siamese", {}, features))
    trainer.compile(optimizer="adam", metrics=[training.PooledDice()])
    start = [np.array(weight) for weight in trainer.generator.get_weights()]
    random = np.random.default_rng(0)
    image = random.uniform(-100, 150, (4, 32, 32, 3)).astype(np.float32)
    trainer.fit(image, (random.random((4, 32, 32, 1)) > 0.9).astype(np.float32), verbose=0)
    assert any(not np.array_equal(a, b) for a, b in zip(start, trainer.generator.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, features.get_weights(), strict=True))


def test_what_is_missing_is_said_in_one_sentence(study):
    with pytest.raises(ValueError, match="has no loss 'tversky'"):
        training.train(study, "tversky", 1)
    study.discriminator.unlink()
    with pytest.raises(FileNotFoundError, match="run notebook 03_build_networks"):
        training.train(study, "siamese", 1)
    with pytest.raises(FileNotFoundError, match="run notebook 04_train"):
        inference.load_generator(study.model("dice", 1) / "model.keras")


@pytest.mark.parametrize("view", VIEWS)
def test_masks_lie_on_the_scans_own_grid(view):
    """A network that answers with the image itself must put its answer where the image is, whatever the orientation."""
    image = keras.Input((32, 32, 3), name=view)
    copy = keras.Model(image, keras.layers.Rescaling(1 / 255, 103.939 / 255)(image[..., :1]))
    values = np.zeros((20, 24, 5), np.float32)
    values[3:8, 15:20, 2] = 10
    for codes in ("RAS", "LPS", "PSL"):
        turn = nibabel.orientations.axcodes2ornt(codes)
        scan = nibabel.Nifti1Image(values, np.diag([1, 1.2, 3, 1.0])).as_reoriented(
            nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turn)
        )
        mask = inference.segment(copy, scan)
        assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)
        assert mask.get_data_dtype() == np.uint8
        drawn, there = np.asarray(mask.dataobj) > 0, np.asarray(scan.dataobj) > 0
        assert 2 * (drawn & there).sum() / (drawn.sum() + there.sum()) > 0.85, codes


def test_a_trained_network_says_what_it_saw(settings, write_config, tmp_path):
    settings["preprocessing"]["view"] = "head"
    network = training.make_generator(open_study(write_config(settings)), "soft", 1)
    network.save(tmp_path / "model.keras")
    assert inference.load_generator(tmp_path / "model.keras").inputs[0].name == "head"


def test_the_global_threshold_is_the_best_there_is(study):
    cohort = load_cohort(study)
    level, dice = inference.tune_threshold(cohort[cohort.split == "training"])
    assert 0.4 < level < 1 and dice > 0.95, "the miniature lesions are the brightest voxels"
    first = cohort.iloc[0]
    mask = np.asarray(inference.threshold_mask(first.flair, level).dataobj)
    assert np.array_equal(mask > 0, np.asarray(nibabel.load(first.reference).dataobj) == 1)


def test_batch_norm_is_measured_at_the_weights_as_they_are():
    generator = dense_unet(16, 4, 1, 1, seed=1)
    random = np.random.default_rng(0)
    batches = [(random.uniform(-100, 150, (4, 16, 16, 3)).astype(np.float32), None) for _ in range(5)]
    training.measure_batch_norm(generator, iter(batches), 5)
    convolution, norm = generator.layers[1], generator.layers[2]
    outputs = [keras.ops.convert_to_numpy(convolution(image)) for image, _ in batches]
    means = np.mean([output.mean(axis=(0, 1, 2)) for output in outputs], axis=0)
    assert np.allclose(keras.ops.convert_to_numpy(norm.moving_mean), means, rtol=1e-3, atol=1e-3)
    variances = np.mean([output.var(axis=(0, 1, 2)) for output in outputs], axis=0)
    assert np.allclose(keras.ops.convert_to_numpy(norm.moving_variance), variances, rtol=1e-3)
    assert norm.momentum == 0.99


def test_without_validation_subjects_the_last_epoch_is_kept(settings, study, write_config):
    split = {"training": None, "validation": 0, "holdout": 0, "seed": 1}
    study = open_study(write_config(settings | {"split": split}))
    write_slices(load_cohort(study).query("split == 'training'"), study.slices, 32)
    history = training.train(study, "dice", seed=1)
    assert history.validation_dice.isna().all() and history.kept.all()
    record = json.loads((study.model("dice", 1) / "training.json").read_text())
    assert record["kept_epoch"] == 2 and record["validation_dice"] is None
