"""Training, selection of the epoch, and inference, on a study that takes seconds.

CI repeats on JAX what has the marker jax: what depends on the backend."""

import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import miniature, naming
from keras import ops

from wmhlib import features, inference, learner, losses, training
from wmhlib.cohort import load_cohort
from wmhlib.evaluation import records, scoring
from wmhlib.evaluation.threshold import threshold_mask, tune_threshold
from wmhlib.generator import dense_unet
from wmhlib.intake.scans import BrightnessWarning
from wmhlib.minmax import Adversary
from wmhlib.running.checkpoints import finish
from wmhlib.running.files import sha256
from wmhlib.siamese import SiameseContentLoss
from wmhlib.slices import VIEWS, write_slices
from wmhlib.study import Study, open_study

BUNDLED_GENERATOR = {"network": "plain_unet", "filters": 16, "depth": 4, "convolutions": 2}


@pytest.fixture(scope="module")
def prepared(challenge, tmp_path_factory) -> Path:
    """A folder with the slices and a random VGG19 of the miniature study, made once for all tests."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "study.yaml").write_text(yaml.safe_dump(miniature(challenge)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wmhlib.study.ROOT", root)
        study = open_study(root / "study.yaml")
        cohort = load_cohort(study)
        write_slices(cohort[cohort.split.isin(["training", "validation"])], study.slices / "whole", 32)
        study.features.mkdir(parents=True)
        features.save_arrays(features.build(32), study.features / "vgg19.npz")
    return root


@pytest.fixture(scope="module")
def dice_trained(prepared, tmp_path_factory) -> Path:
    """The same folder after a training with Dice."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(prepared, root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wmhlib.study.ROOT", root)
        training.train(open_study(root / "study.yaml"), "dice", 1)
    return root


@pytest.fixture
def study(prepared, settings, write_config, tmp_path, monkeypatch) -> Study:
    """The miniature study in a folder of its own."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    return open_study(write_config(settings))


@pytest.fixture
def trained(dice_trained, study, tmp_path) -> Study:
    """The miniature study, trained with Dice."""
    shutil.copytree(dice_trained, tmp_path, dirs_exist_ok=True)
    return study


def stamp(study: Study, loss: str) -> int:
    """When the network of a loss was written."""
    return (study.model(loss, 1) / "model.keras").stat().st_mtime_ns


def stop(history, _):
    """As a training that is cut off after its first epoch."""
    raise KeyboardInterrupt


@pytest.mark.jax
@pytest.mark.slow
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
    finish(study.model(loss, 1))
    left = {path.name for path in study.model(loss, 1).iterdir()}
    assert left == {"started.json", "model.keras", "history.csv", "training.json"} | (
        {"steps.csv"} if loss != "dice" else set()
    )


@pytest.mark.slow
def test_another_seed_and_augmentations_change_a_training(trained):
    columns = ["loss", "dice", "validation_dice"]
    plain = training.train(trained, "dice", 1)[columns]
    assert not training.train(trained, "dice", seed=2)[columns].equals(plain)
    changed = trained.changed(study="augmented", augmentation={"flip_probability": 0.5, "noise_pct": 5})
    shutil.copytree(trained.slices, changed.slices)
    assert not training.train(changed, "dice", 1).loss.equals(plain.loss)


@pytest.mark.jax
@pytest.mark.slow
def test_every_loss_of_a_seed_starts_from_the_same_weights_and_leaves_vgg19_alone(study):
    starts = []
    for loss in ("dice", "siamese"):
        recipe = study.recipe(loss)
        network = training.make_features(study, recipe)
        starts.append(training.make_learner(recipe, 32, 1, network).generator.get_weights())
    assert all(map(np.array_equal, starts[0][:-1], starts[1][:-1])), "all but the bias of the last layer"
    assert starts[0][-1] != starts[1][-1]
    before = [np.array(weight) for weight in network.get_weights()]
    one = learner.Learner(dense_unet(32, 4, 2, 2, seed=1), SiameseContentLoss(network))
    one.compile(optimizer="adam", metrics=[learner.PooledDice()], **learner.COMPILED)
    start = [np.array(weight) for weight in one.generator.get_weights()]
    random = np.random.default_rng(0)
    image = random.uniform(-100, 150, (4, 32, 32, 3)).astype(np.float32)
    one.step(image, (random.random((4, 32, 32, 1)) > 0.9).astype(np.float32))
    assert any(not np.array_equal(a, b) for a, b in zip(start, one.generator.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


@pytest.mark.slow
def test_a_training_can_start_from_a_trained_network(trained, tmp_path, monkeypatch):
    file = trained.model("dice", 1) / "model.keras"
    tuned = trained.changed(losses={"tuned": {"loss": "dice", "labels": "soft", "training": {"start": str(file)}}})
    start = training.make_generator(tuned.recipe("tuned"), 32, seed=3)
    assert all(map(np.array_equal, start.get_weights(), inference.load_generator(file).get_weights()))
    training.train(tuned, "tuned", 1)
    started = json.loads((tuned.model("tuned", 1) / "started.json").read_text())
    assert started["follows_from"]["training"]["start"] == sha256(file)
    before = stamp(tuned, "tuned")
    moved = tmp_path / "moved.keras"
    shutil.copyfile(file, moved)
    training.train(tuned.changed(losses={"tuned": {"training": {"start": str(moved)}}}), "tuned", 1)
    assert stamp(tuned, "tuned") == before, "the same network under another name: not trained again"
    training.train(trained, "dice", 2)
    shutil.copyfile(trained.model("dice", 2) / "model.keras", file)
    training.train(tuned, "tuned", 1)
    assert stamp(tuned, "tuned") > before, "the network that it starts from has changed"
    before = stamp(tuned, "tuned")
    broken = tuned.changed(losses={"tuned": {"training": {"start": str(tmp_path / "broken.keras")}}})
    (tmp_path / "broken.keras").write_bytes(file.read_bytes()[:999])
    own = tuned.changed(losses={"tuned": {"training": {"start": str(tuned.model("tuned", 1) / "model.keras")}}})
    for refused, words in ((broken, "cannot be loaded"), (own, "own result")):
        with pytest.raises(ValueError, match=naming("training.start", words)):
            training.train(refused, "tuned", 1)
        assert stamp(tuned, "tuned") == before, "the finished training is whole"
    file.with_name("training.json").write_text(json.dumps({"subjects_seen": ["a stranger", "10"]}))
    training.train(tuned, "tuned", 2)
    assert records.seen_by_start(tuned, "tuned", 2) == (["10", "a stranger"], str(file))
    unseen = pd.DataFrame({"subject": ["10"], "flair": [""]})
    monkeypatch.setattr(records, "subjects_seen", lambda *_: [])
    with pytest.raises(ValueError, match=naming(file, "10", "training.start")):
        scoring.segment_unseen(tuned, "tuned", 2, unseen)
    file.with_name("training.json").write_text(json.dumps({"subjects_seen": "abc"}))
    with pytest.raises(ValueError, match=naming("training.json", "subjects_seen")):
        training.train(tuned, "tuned", 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"start": "nowhere.keras"}}, ("nowhere.keras", "training.start")),
        ({"training": {"start": "bundled"}}, ("training.start", "weights", "set generator")),
        ({"training": {"start": "wmhlib"}}, ("training.start", "wmhlib", "not a .keras file")),
        ({"training": {"start": "bundled"}, "generator": BUNDLED_GENERATOR}, ("head_tissue", "whole", "preprocessing")),
    ],
)
def test_an_unsuitable_start_is_refused_in_one_sentence(study, change, words):
    tuned = study.changed(losses={"tuned": {"loss": "dice", **change}})
    with pytest.raises((ValueError, FileNotFoundError), match=naming(*words)):
        training.make_generator(tuned.recipe("tuned"), 32, 1)


def test_what_is_missing_is_said_in_one_sentence(study):
    with pytest.raises(ValueError, match=naming(study.path, "tversky")):
        training.train(study, "tversky", 1)
    (study.features / "vgg19.npz").unlink()
    with pytest.raises(FileNotFoundError, match=naming(study.features / "vgg19.npz")):
        training.train(study, "siamese", 1)
    with pytest.raises(FileNotFoundError, match=naming(study.model("dice", 1) / "model.keras")):
        inference.load_generator(study.model("dice", 1) / "model.keras")


@pytest.mark.jax
@pytest.mark.parametrize("view", VIEWS)
def test_masks_lie_on_the_scans_own_grid(view):
    """A network that answers with the image itself must put its answer where the image is, whatever the orientation."""
    image = keras.Input((32, 32, 3), name=view)
    copy = keras.Model(image, keras.layers.Rescaling(1 / 255, 103.939 / 255)(image[..., :1]))
    values = np.zeros((20, 24, 5), np.float32)
    values[3:8, 15:20, 2] = 10
    values[0, 0] = 1  # with two values it would be a mask
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


@pytest.mark.parametrize(("intensity", "name"), [("maximum", "head"), ("tissue", "head_tissue")])
def test_a_trained_network_says_what_it_saw(settings, write_config, tmp_path, intensity, name):
    settings["preprocessing"] |= {"view": "head", "intensity": intensity}
    network = training.make_generator(open_study(write_config(settings)).recipe("siamese"), 32, 1)
    network.save(tmp_path / "model.keras")
    assert inference.load_generator(tmp_path / "model.keras").inputs[0].name == name


def test_a_scan_is_segmented_at_the_brightness_its_network_was_trained_on():
    """Networks that answer with the image itself, and a scan with four hot voxels."""
    values = np.zeros((32, 32, 9), np.float32)
    values[4:28, 4:28, 1:8] = 100
    values[10:14, 10:14, 3:6] = 200
    values[20, 20, 2:6] = 4000
    likely = {}
    for name in ("whole", "whole_tissue"):
        image = keras.Input((32, 32, 3), name=name)
        copy = keras.Model(image, keras.layers.Rescaling(1 / 255, 103.939 / 255)(image[..., :1]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            likely[name] = inference.probability(copy, nibabel.Nifti1Image(values, np.eye(4))).get_fdata()
        assert any(one.category is BrightnessWarning for one in caught) == (name == "whole")
    assert np.allclose([likely["whole"][12, 12, 4], likely["whole_tissue"][12, 12, 4]], [0.05, 0.92], atol=1e-4)
    image = keras.Input((32, 32, 3), name="input_layer")
    unknown = keras.Model(image, image[..., :1])
    with pytest.raises(ValueError, match=naming("input_layer", "head_tissue")):
        inference.probability(unknown, nibabel.Nifti1Image(values, np.eye(4)))


@pytest.mark.slow
def test_a_study_may_train_one_loss_at_both_brightnesses(settings, trained, write_config):
    settings["losses"] = {"dice": {}, "dice_tissue": {"loss": "dice", "intensity": "tissue"}}
    both = open_study(write_config(settings))
    prepared = load_cohort(both).query("split in ['training', 'validation']")
    write_slices(prepared, both.slices / "whole_tissue", 32, both.recipe("dice_tissue").preparation)
    before = stamp(both, "dice")
    losses_seen = [training.train(both, name, 1).loss for name in settings["losses"]]
    assert stamp(both, "dice") == before, "trained as it was alone"
    assert not losses_seen[0].equals(losses_seen[1])
    model = inference.load_generator(both.model("dice_tissue", 1) / "model.keras")
    assert model.inputs[0].name == "whole_tissue"


def test_the_global_threshold_is_the_best_there_is(study):
    cohort = load_cohort(study)
    level, dice = tune_threshold(cohort[cohort.split == "training"])
    assert 0.4 < level < 1 and dice > 0.95, "the miniature lesions are the brightest voxels"
    first = cohort.iloc[0]
    mask = np.asarray(threshold_mask(first.flair, level).dataobj)
    assert np.array_equal(mask > 0, np.asarray(nibabel.load(first.reference).dataobj) == 1)


@pytest.mark.jax
def test_batch_norm_is_measured_at_the_weights_as_they_are():
    generator = dense_unet(16, 4, 1, 1, seed=1)
    random = np.random.default_rng(0)
    batches = [(random.uniform(-100, 150, (4, 16, 16, 3)).astype(np.float32), None) for _ in range(5)]
    learner.BatchNormMeasurement(generator).over(batches)
    convolution, norm = generator.layers[1], generator.layers[2]
    outputs = [ops.convert_to_numpy(convolution(image)) for image, _ in batches]
    means = np.mean([output.mean(axis=(0, 1, 2)) for output in outputs], axis=0)
    assert np.allclose(ops.convert_to_numpy(norm.moving_mean), means, rtol=1e-3, atol=1e-3)
    variances = np.mean([output.var(axis=(0, 1, 2)) for output in outputs], axis=0)
    assert np.allclose(ops.convert_to_numpy(norm.moving_variance), variances, rtol=1e-3)
    assert norm.momentum == 0.99


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_killed_at_random_moments_ends_as_an_unbroken_one(settings, study, write_config, tmp_path):
    settings["training"] |= {"epochs": 8, "steps_per_epoch": 5}
    config, folder = write_config(settings), study.model("siamese_minmax", 1)
    training.train(open_study(config), "siamese_minmax", 1)
    whole = {name: (folder / name).read_bytes() for name in ("history.csv", "steps.csv")}
    weights = inference.load_generator(folder / "model.keras").get_weights()
    shutil.rmtree(folder)
    moments = np.random.default_rng(seed := int(time.time())).uniform(0, 0.5, 2)
    print(f"moments drawn with seed {seed}")  # shown where the test fails
    for rows, moment in zip((1, 5), moments, strict=True):
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
    assert untimed[0] == untimed[1] and whole["steps.csv"] == (folder / "steps.csv").read_bytes()
    again = inference.load_generator(folder / "model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))


def _rows(folder: Path) -> int:
    history = folder / "history.csv"
    return history.read_text().count("\n") - 1 if history.is_file() else 0


def _untimed(history: bytes) -> list[bytes]:
    """All columns of a history but the last, the seconds."""
    return [line.rpartition(b",")[0] for line in history.splitlines()]


@pytest.mark.slow
def test_a_lost_checkpoint_is_said_and_nothing_else_is_touched(study, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        training.train(study, "dice", 1, watch=stop)
    folder = study.model("dice", 1)
    checkpoint = folder / "epoch-1.npz"
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match=naming(checkpoint)):
        training.train(study, "dice", 1)
    assert (folder / "model.keras").is_file() and _rows(folder) == 1
    checkpoint.write_bytes(kept)
    assert list(training.train(study, "dice", 1).epoch) == [1, 2]


@pytest.mark.slow
def test_a_training_that_is_done_is_not_repeated(trained, monkeypatch, capsys):
    """Neither where what comes after it in notebook 04 was cut off, nor where 04 runs again for another reason."""
    folder = trained.model("dice", 1)
    first = pd.read_csv(folder / "history.csv")
    before, record = stamp(trained, "dice"), (folder / "training.json").read_text()
    monkeypatch.setattr(training, "provenance", lambda: {"commit": "another"})
    for finished in (False, True):
        if finished:
            finish(folder)
        (folder / "training.json").unlink()  # as Snakemake does with what it is about to have made again
        watched = []
        assert training.train(trained, "dice", 1, watch=lambda *given, to=watched: to.append(given)).equals(first)
        assert stamp(trained, "dice") == before
        assert [(len(history), generator) for history, generator in watched] == [(2, None)]
        assert (folder / "training.json").read_text() == record, "what it was made with then, not now"
        assert "dice" in capsys.readouterr().out, "says that there is nothing to do"
    (folder / "model.keras").unlink()
    assert training.train(trained, "dice", 1).epoch.max() == 2 and (folder / "model.keras").is_file()
    assert json.loads((folder / "training.json").read_text())["commit"] == "another", "trained again"


@pytest.mark.slow
def test_other_vgg19_weights_and_a_lost_step_log_start_over_only_what_looks_at_vgg19(trained):
    def again() -> dict:
        for loss in ("dice", "siamese"):
            training.train(trained, loss, 1)
        return {loss: stamp(trained, loss) for loss in ("dice", "siamese")}

    first = again()
    network = features.build(32)
    network.set_weights([weight + 0.01 for weight in network.get_weights()])
    features.save_arrays(network, trained.features / "vgg19.npz")
    second = again()
    assert second["dice"] == first["dice"] and second["siamese"] != first["siamese"]
    (trained.model("siamese", 1) / "steps.csv").unlink()
    third = again()
    assert third["dice"] == first["dice"] and third["siamese"] != second["siamese"]


def test_a_network_that_diverged_marks_nothing(study):
    scan = load_cohort(study).flair.iloc[0]
    network = training.make_generator(study.recipe("dice"), 32, 1)
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    likely = inference.probability(network, scan)
    assert not np.asarray(likely.dataobj).any() and not np.asarray(inference.mask_of(likely).dataobj).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images.npy", "references.npy", "index.csv"])
def test_a_training_on_other_slices_starts_over(trained, name):
    before = stamp(trained, "dice")
    path = trained.slices / "whole" / name
    content = path.read_bytes()
    path.write_bytes(content.rstrip() + b"0\n" if name == "index.csv" else content[:-1] + bytes([content[-1] ^ 1]))
    seen = []
    training.train(trained, "dice", 1, watch=lambda history, _: seen.append(len(history)))
    assert seen == [1, 2] and stamp(trained, "dice") != before


@pytest.mark.slow
def test_a_changed_setting_starts_over(settings, trained, write_config):
    settings["training"]["learning_rate"] = 0.01
    seen = []
    training.train(open_study(write_config(settings)), "dice", 1, watch=lambda history, _: seen.append(len(history)))
    assert seen == [1, 2]


@pytest.mark.jax
@pytest.mark.slow
def test_the_adversary_raises_what_the_generator_lowers(study):
    """One step of each player on a fixed batch: the content loss goes up, then down; each leaves the other's weights."""
    recipe = study.recipe("siamese_minmax")
    network = training.make_features(study, recipe)
    network.trainable = True
    generator, criterion = training.make_generator(recipe, 32, 1), training.make_loss(recipe, network)
    lowers, raises = learner.Learner(generator, criterion), Adversary(generator, criterion)
    for player in (lowers, raises):
        player.compile(keras.optimizers.SGD(1e-6), **learner.COMPILED)
    random = np.random.default_rng(0)
    image = random.uniform(-100, 150, (2, 32, 32, 3)).astype(np.float32)
    reference = (random.random((2, 32, 32, 1)) > 0.9).astype(np.float32)

    def content():
        return float(criterion.bound_to(ops.convert_to_tensor(image))(reference, generator(image, training=True)))

    def weights(model):
        return [ops.convert_to_numpy(weight) for weight in model.trainable_weights]

    before, drawn, judged = content(), weights(generator), weights(network)
    raises.step(image, reference)
    assert content() > before
    assert all(map(np.array_equal, drawn, weights(generator))) and not all(
        map(np.array_equal, judged, weights(network))
    )
    before, judged = content(), weights(network)
    lowers.step(image, reference)
    assert content() < before
    assert all(map(np.array_equal, judged, weights(network))) and not all(
        map(np.array_equal, drawn, weights(generator))
    )


@pytest.mark.slow
def test_a_tether_holds_the_filters(settings, study, write_config):
    settings["losses"]["siamese_minmax"] |= {"discriminator_rate": 0.1, "most_drift": 0.01}
    training.train(open_study(write_config(settings)), "siamese_minmax", 1)
    drift = pd.read_csv(study.model("siamese_minmax", 1) / "steps.csv").drift
    assert 0 < drift.max() <= 0.0101


@pytest.mark.slow
def test_variants_see_their_own_view_centres_and_network(settings, study, write_config):
    settings["losses"] = {
        "dice_small": {
            "loss": "dice",
            "labels": "soft",
            "epsilon": 1,
            "generator": {"filters": 2, "output_prior": 0.3},
            "without": ["A"],
            "training": {"epochs": 1},
        },
        "siamese_deep": {"loss": "siamese", "labels": "soft", "taps": 3, "weights": "random", "mask": "before"},
        "siamese_shallow": {"loss": "siamese", "labels": "soft", "taps": 1},
    }
    study = open_study(write_config(settings))
    assert study.pretrained_taps == {"vgg19": ["block1_pool"]}
    assert study.recipe("dice_small").generator.output_prior == 0.3
    for loss in settings["losses"]:
        training.train(study, loss, 1)
    small, deep, _ = (json.loads((study.model(loss, 1) / "training.json").read_text()) for loss in settings["losses"])
    assert small["parameters"] < deep["parameters"] and small["training_slices"] * 2 == deep["training_slices"]
    epochs = [len(pd.read_csv(study.model(loss, 1) / "history.csv")) for loss in settings["losses"]]
    assert epochs == [1, 2, 2]
    with pytest.raises(ValueError, match=naming("losses.dice.without", "Q", "A", "B/scanner")):
        settings["losses"] = {"dice": {"labels": "hard", "epsilon": 1, "without": "Q"}}
        training.train(open_study(write_config(settings)), "dice", 1)
    steps = {loss: pd.read_csv(study.model(loss, 1) / "steps.csv") for loss in ("siamese_deep", "siamese_shallow")}
    assert "distance_3" in steps["siamese_deep"] and "distance_2" not in steps["siamese_shallow"]


def test_too_little_memory_says_what_to_lower(study, monkeypatch):
    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 GiB.")

    monkeypatch.setattr(training, "_train", full)
    with pytest.raises(MemoryError, match=naming("dice", "training.batch_size")):
        training.train(study, "dice", 1)


@pytest.mark.jax
@pytest.mark.slow
def test_mixed_precision_trains_nearly_alike(study):
    histories = [
        training.train(study.changed(training={"precision": precision}), "siamese", 1).loss
        for precision in ("float32", "mixed_bfloat16")
    ]
    assert np.allclose(*histories, rtol=0.1) and keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_loss_of_your_own_is_trained_and_trained_again_when_its_code_changes(study, registries):
    class Misses(losses.Loss, name="misses", title="Misses", colour="#882255", labels="soft"):
        """The mean squared error, with missed lesions dearer."""

        def __init__(self, dearer: float = 2.0):
            super().__init__()
            self.dearer = dearer

        def call(self, y_true, y_pred):
            return ops.mean(ops.square(y_true - y_pred) * (1 + self.dearer * y_true))

    mine = study.changed(losses={"misses": {"dearer": 3.0}})
    history = training.train(mine, "misses", 1)
    assert list(history.epoch) == [1, 2] and np.isfinite(history.loss).all()
    record = json.loads((mine.model("misses", 1) / "training.json").read_text())
    assert record["recipe"]["settings"] == {"dearer": 3.0} and record["recipe"]["labels"] == "soft"
    before = stamp(mine, "misses")
    training.train(mine, "misses", 1)
    assert stamp(mine, "misses") == before, "nothing has changed"

    class Others(losses.Loss, name="misses", title="Misses", colour="#882255", labels="soft"):
        def __init__(self, dearer: float = 2.0):
            super().__init__()
            self.dearer = dearer

        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred) * (1 + self.dearer * y_true))

    training.train(mine, "misses", 1)
    assert stamp(mine, "misses") != before


@pytest.mark.slow
def test_another_feature_network_trains_and_its_steps_are_logged(study):
    entry = {"loss": "siamese", "network": "MobileNetV2", "taps": ["block_1_expand_relu"], "weights": "random"}
    history = training.train(study.changed(losses={"siamese_mobile": entry}), "siamese_mobile", 1)
    assert np.isfinite(history.loss).all()
    steps = pd.read_csv(study.model("siamese_mobile", 1) / "steps.csv")
    assert len(steps) == 6 and (steps.generator_gradient_norm > 0).all() and steps.distance_1.notna().any()
