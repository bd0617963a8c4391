"""Training, selection of the epoch, and inference, on a study that takes seconds; run on every backend."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
import pytest

from wmhlib import checkpoints, inference, trainers, training
from wmhlib.cohort import load_cohort
from wmhlib.generator import dense_unet
from wmhlib.siamese import vgg19_features
from wmhlib.slices import VIEWS, write_slices
from wmhlib.study import Study, open_study
from wmhlib.threshold import threshold_mask, tune_threshold


@pytest.fixture
def study(settings, write_config, tmp_path, monkeypatch) -> Study:
    """The miniature study with its slices and a random discriminator in a folder of its own."""
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    (tmp_path / "config").mkdir()
    source = Path(__file__).parents[1] / "config" / "schema.yaml"
    (tmp_path / "config" / "schema.yaml").write_text(source.read_text())
    study = open_study(write_config(settings))
    cohort = load_cohort(study)
    write_slices(cohort[cohort.split.isin(["training", "validation"])], study.slices / "whole", 32)
    study.discriminator.parent.mkdir(parents=True)
    vgg19_features(32).save(study.discriminator)
    return study


@pytest.mark.parametrize("loss", ["dice", "siamese", "siamese_minmax"])
def test_training_keeps_the_best_epoch_and_repeats_itself(study, loss):
    history = training.train(study, loss, seed=1)
    assert list(history.epoch) == [1, 2] and np.isfinite(history.drop(columns="kept").to_numpy()).all()
    record = json.loads((study.model(loss, 1) / "training.json").read_text())
    assert record["kept_epoch"] == history.epoch[history.validation_dice.idxmax()]
    model = inference.load_generator(study.model(loss, 1) / "model.keras")
    shutil.rmtree(study.model(loss, 1))
    again = training.train(study, loss, seed=1)
    columns = ["loss", "dice", "validation_dice"]
    assert np.array_equal(history[columns], again[columns]), "same seed, same machine: the same numbers"
    repeated = inference.load_generator(study.model(loss, 1) / "model.keras")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), repeated.get_weights(), strict=True))
    assert not training.train(study, loss, seed=2)[columns].equals(history[columns])
    checkpoints.finish(study.model(loss, 1))
    left = {path.name for path in study.model(loss, 1).iterdir()}
    assert left == {"started.json", "model.keras", "history.csv", "training.json"} | (
        {"diary.csv"} if loss != "dice" else set()
    )


def test_every_loss_of_a_seed_starts_from_the_same_weights_and_leaves_vgg19_alone(study):
    features = keras.saving.load_model(study.discriminator, compile=False)
    before = [np.array(weight) for weight in features.get_weights()]
    trainer = trainers.LossTrainer(dense_unet(32, 4, 2, 2, seed=1), training.make_loss("siamese", {}, features))
    trainer.compile(optimizer="adam", metrics=[trainers.PooledDice()])
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
        mask = inference.mask_of(inference.probability(copy, scan))
        assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)
        assert mask.get_data_dtype() == np.uint8
        drawn, there = np.asarray(mask.dataobj) > 0, np.asarray(scan.dataobj) > 0
        assert 2 * (drawn & there).sum() / (drawn.sum() + there.sum()) > 0.85, codes


def test_a_trained_network_says_what_it_saw(settings, write_config, tmp_path):
    settings["preprocessing"]["view"] = "head"
    network = training.make_generator(open_study(write_config(settings)), "siamese", 1)
    network.save(tmp_path / "model.keras")
    assert inference.load_generator(tmp_path / "model.keras").inputs[0].name == "head"


def test_the_global_threshold_is_the_best_there_is(study):
    cohort = load_cohort(study)
    level, dice = tune_threshold(cohort[cohort.split == "training"])
    assert 0.4 < level < 1 and dice > 0.95, "the miniature lesions are the brightest voxels"
    first = cohort.iloc[0]
    mask = np.asarray(threshold_mask(first.flair, level).dataobj)
    assert np.array_equal(mask > 0, np.asarray(nibabel.load(first.reference).dataobj) == 1)


def test_batch_norm_is_measured_at_the_weights_as_they_are():
    generator = dense_unet(16, 4, 1, 1, seed=1)
    random = np.random.default_rng(0)
    batches = [(random.uniform(-100, 150, (4, 16, 16, 3)).astype(np.float32), None) for _ in range(5)]
    trainers.Measurement(generator).over(batches)
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
    write_slices(load_cohort(study).query("split == 'training'"), study.slices / "whole", 32)
    history = training.train(study, "dice", seed=1)
    assert history.validation_dice.isna().all() and history.kept.all()
    record = json.loads((study.model("dice", 1) / "training.json").read_text())
    assert record["kept_epoch"] == 2 and record["validation_dice"] is None


KILLED = """
import sys
from pathlib import Path
import wmhlib.study
wmhlib.study.ROOT = Path(sys.argv[1])
from wmhlib import training
training.train(wmhlib.study.open_study(sys.argv[2]), sys.argv[3], 1)
"""


@pytest.mark.timeout(300)
def test_a_training_killed_at_random_moments_ends_as_an_unbroken_one(settings, study, write_config, tmp_path):
    settings["training"] |= {"epochs": 8, "steps_per_epoch": 5}
    config, folder = write_config(settings), study.model("siamese_minmax", 1)
    training.train(open_study(config), "siamese_minmax", 1)
    whole = {name: (folder / name).read_bytes() for name in ("history.csv", "diary.csv")}
    weights = inference.load_generator(folder / "model.keras").get_weights()
    shutil.rmtree(folder)
    moments = np.random.default_rng(seed := int(time.time())).uniform(0, 0.5, 3)
    print(f"moments drawn with seed {seed}")  # shown where the test fails
    for rows, moment in zip((1, 3, 6), moments, strict=True):
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path, config, "siamese_minmax"], stderr=subprocess.PIPE
        )
        while run.poll() is None and _rows(folder) < rows:
            time.sleep(0.02)
        time.sleep(moment)
        run.kill()
        said = run.communicate()[1].decode()
        assert _rows(folder) >= rows, said
    training.train(open_study(config), "siamese_minmax", 1)
    untimed = [_untimed(text) for text in (whole["history.csv"], (folder / "history.csv").read_bytes())]
    assert untimed[0] == untimed[1] and whole["diary.csv"] == (folder / "diary.csv").read_bytes()
    again = inference.load_generator(folder / "model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))


def _rows(folder: Path) -> int:
    history = folder / "history.csv"
    return history.read_text().count("\n") - 1 if history.is_file() else 0


def _untimed(history: bytes) -> list[bytes]:
    """All columns of a history but the last, the seconds."""
    return [line.rpartition(b",")[0] for line in history.splitlines()]


def test_a_lost_checkpoint_is_said_and_nothing_else_is_touched(study, monkeypatch):
    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(study, "dice", 1, watch=stop)
    folder = study.model("dice", 1)
    checkpoint = folder / "epoch-1-generator.weights.h5"
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match="No checkpoint at .*epoch-1-generator.weights.h5.*remove the folder"):
        training.train(study, "dice", 1)
    assert (folder / "model.keras").is_file() and _rows(folder) == 1
    checkpoint.write_bytes(kept)
    assert list(training.train(study, "dice", 1).epoch) == [1, 2]


def test_a_training_that_is_done_is_not_repeated(study, monkeypatch, capsys):
    """Neither where what comes after it in notebook 04 was cut off, nor where 04 runs again for another reason."""
    first, folder = training.train(study, "dice", 1), study.model("dice", 1)
    stamp, record = (folder / "model.keras").stat().st_mtime_ns, (folder / "training.json").read_text()
    monkeypatch.setattr(training, "provenance", lambda: {"commit": "another"})
    for finished in (False, True):
        if finished:
            checkpoints.finish(folder)
        (folder / "training.json").unlink()  # as Snakemake does with what it is about to have made again
        watched = []
        assert training.train(study, "dice", 1, watch=watched.append).equals(first)
        assert (folder / "model.keras").stat().st_mtime_ns == stamp and [len(one) for one in watched] == [2]
        assert (folder / "training.json").read_text() == record, "what it was made with then, not now"
        assert "not repeated; to train it again, remove reports/" in capsys.readouterr().out
    (folder / "model.keras").unlink()
    assert training.train(study, "dice", 1).epoch.max() == 2 and (folder / "model.keras").is_file()
    assert json.loads((folder / "training.json").read_text())["commit"] == "another", "trained again"


def test_other_vgg19_weights_and_a_lost_diary_start_over_only_what_looks_at_vgg19(study):
    def trained() -> dict:
        for loss in ("dice", "siamese"):
            training.train(study, loss, 1)
        return {loss: (study.model(loss, 1) / "model.keras").stat().st_mtime_ns for loss in ("dice", "siamese")}

    first = trained()
    features = keras.saving.load_model(study.discriminator, compile=False)
    features.set_weights([weight + 0.01 for weight in features.get_weights()])
    features.save(study.discriminator)
    second = trained()
    assert second["dice"] == first["dice"] and second["siamese"] != first["siamese"]
    (study.model("siamese", 1) / "diary.csv").unlink()
    third = trained()
    assert third["dice"] == first["dice"] and third["siamese"] != second["siamese"]


def test_a_network_that_diverged_marks_nothing(study):
    scan = load_cohort(study).flair.iloc[0]
    network = training.make_generator(study, "dice", 1)
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    likely = inference.probability(network, scan)
    assert not np.asarray(likely.dataobj).any() and not np.asarray(inference.mask_of(likely).dataobj).any()


@pytest.mark.parametrize("name", ["images.npy", "references.npy", "index.csv"])
def test_a_training_on_other_slices_starts_over(study, name):
    training.train(study, "dice", 1)
    stamp = (study.model("dice", 1) / "model.keras").stat().st_mtime_ns
    path = study.slices / "whole" / name
    content = path.read_bytes()
    path.write_bytes(content.rstrip() + b"0\n" if name == "index.csv" else content[:-1] + bytes([content[-1] ^ 1]))
    training.train(study, "dice", 1)
    assert (study.model("dice", 1) / "model.keras").stat().st_mtime_ns != stamp


def test_a_changed_setting_starts_over(settings, study, write_config):
    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(study, "dice", 1, watch=stop)
    settings["training"]["learning_rate"] = 0.01
    seen = []
    training.train(open_study(write_config(settings)), "dice", 1, watch=lambda history: seen.append(len(history)))
    assert seen == [1, 2]


def test_the_adversary_raises_what_the_generator_lowers(study):
    """One step of each player on a fixed batch: the content loss goes up, then down; each leaves the other's weights."""
    recipe = study.recipe("siamese_minmax")
    features = training.make_features(study, recipe)
    generator = training.make_generator(study, "siamese_minmax", 1)
    criterion = training.make_loss("siamese_minmax", recipe["loss"], features)
    trainer, adversary = trainers.LossTrainer(generator, criterion), trainers.Adversary(generator, criterion)
    for player in (trainer, adversary):
        player.compile(keras.optimizers.SGD(1e-6), jit_compile=keras.backend.backend() == "jax")
    random = np.random.default_rng(0)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    reference = (random.random((2, 32, 32, 1)) > 0.9).astype(np.float32)

    def content():
        return float(criterion.bound_to(keras.ops.convert_to_tensor(image))(reference, generator(image, training=True)))

    def weights(model):
        return [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]

    before, drawn, judged = content(), weights(generator), weights(features)
    adversary.train_on_batch(image, reference)
    assert content() > before
    assert all(map(np.array_equal, drawn, weights(generator))) and not all(
        map(np.array_equal, judged, weights(features))
    )
    before, judged = content(), weights(features)
    trainer.train_on_batch(image, reference)
    assert content() < before
    assert all(map(np.array_equal, judged, weights(features))) and not all(
        map(np.array_equal, drawn, weights(generator))
    )


def test_a_tether_holds_the_filters(settings, study, write_config):
    settings["losses"]["siamese_minmax"] |= {"discriminator_rate": 0.1, "most_drift": 0.01}
    training.train(open_study(write_config(settings)), "siamese_minmax", 1)
    drift = pd.read_csv(study.model("siamese_minmax", 1) / "diary.csv").drift
    assert 0 < drift.max() <= 0.0101


def test_variants_see_their_own_view_centres_and_network(settings, study, write_config):
    settings["losses"] = {
        "dice_small": {
            "loss": "dice",
            "labels": "soft",
            "epsilon": 1,
            "generator": {"filters": 2, "output_prior": 0.3},
        },
        "dice_no_a": {"loss": "dice", "labels": "hard", "epsilon": 1, "without": "A", "training": {"epochs": 1}},
        "siamese_deep": {"loss": "siamese", "labels": "soft", "taps": 3, "weights": "random", "mask": "before"},
        "siamese_shallow": {"loss": "siamese", "labels": "soft", "taps": 1},
    }
    study = open_study(write_config(settings))
    assert study.taps == 1 and study.recipe("dice_small")["generator"]["output_prior"] == 0.3
    for loss in settings["losses"]:
        training.train(study, loss, 1)
    records = {loss: json.loads((study.model(loss, 1) / "training.json").read_text()) for loss in settings["losses"]}
    assert records["dice_small"]["parameters"] < records["siamese_deep"]["parameters"]
    assert records["dice_no_a"]["training_slices"] * 2 == records["dice_small"]["training_slices"]
    assert len(pd.read_csv(study.model("dice_no_a", 1) / "history.csv")) == 1
    with pytest.raises(ValueError, match="without names Q, but the centres .* are A, B/scanner"):
        settings["losses"] = {"dice": {"labels": "hard", "epsilon": 1, "without": "Q"}}
        training.train(open_study(write_config(settings)), "dice", 1)
    assert "distance_3" in pd.read_csv(study.model("siamese_deep", 1) / "diary.csv")


TWO_DEVICES = """
import sys
from pathlib import Path
import keras
import wmhlib.study
wmhlib.study.ROOT = Path(sys.argv[1])
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from wmhlib import training
plain = training.PlainBatches
training.PlainBatches = lambda images, references, rows, *more: plain(images, references, rows[1:], *more)  # an odd number
history = training.train(wmhlib.study.open_study(sys.argv[2]), sys.argv[3], 1)
print(history.loss.tolist())
"""


@pytest.mark.parametrize(
    ("precision", "devices", "loss"),
    [("float32", 2, "siamese"), ("float32", 2, "siamese_minmax"), ("mixed_float16", 1, "siamese")],
)
def test_two_devices_or_mixed_precision_train(settings, study, write_config, tmp_path, precision, devices, loss):
    """Several devices give what one gives, but for batch norm, which sees a device's share of the batch on TensorFlow."""
    alone = training.train(study, loss, 1)
    settings["training"] |= {"devices": devices, "precision": precision}
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", TWO_DEVICES, tmp_path, write_config(settings), loss]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert np.allclose(found, alone.loss, rtol=0.02)


def test_more_devices_than_there_are_and_too_little_memory_say_what_to_do(settings, study, write_config, monkeypatch):
    settings["training"] |= {"devices": 2, "precision": "mixed_float16"}
    with pytest.raises(ValueError, match="Use mixed_bfloat16"):
        training.train(open_study(write_config(settings)), "dice", 1)
    settings["training"] |= {"devices": 99, "precision": "float32"}
    with pytest.raises(ValueError, match="training.devices is 99, but .* lower it"):
        training.train(open_study(write_config(settings)), "dice", 1)

    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 GiB.")

    monkeypatch.setattr(training, "_train", full)
    with pytest.raises(
        MemoryError, match="too little memory for batches of 4 slices of 32 pixels: lower training.batch_size"
    ):
        training.train(study, "dice", 1)
