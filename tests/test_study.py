"""Configurations, the paths of a study, safe file writing, and the command that runs a study."""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from typing import Annotated

import pytest
from conftest import as_nobody, full_disk, naming
from pydantic import Field

from wmhlib import augmentations, losses
from wmhlib.running import command
from wmhlib.running.configuration import write_copy
from wmhlib.running.files import ROOT, alone, replacing, write_json
from wmhlib.study import Study, open_study


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "config").glob("*.yaml") if path.name != "schema.yaml"])
def test_every_configuration_that_ships_is_valid(name):
    assert open_study(f"config/{name}").name == name.removesuffix(".yaml")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"colour": "red"}, "colour"),
        ({"question": None}, "question"),
        ({"seeds": []}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"seeds": [0]}, "seeds.0"),
        ({"seeds": [2**32]}, "seeds.0"),
        ({"seeds": [True]}, "seeds.0"),
        ({"training": {"epochs": -1}}, "training.epochs"),
        ({"study": "../elsewhere"}, "study"),
        ({"augmentation": {"rotate": 30}}, "augmentation.rotate"),
        ({"augmentation": {"rotation_deg": 181}}, "augmentation.rotation_deg"),
        ({"augmentation": {"rotation_deg": "30"}}, "augmentation.rotation_deg"),
        ({"augmentation": {"flip_probability": 1.5}}, "augmentation.flip_probability"),
        ({"augmentation": {"zoom_pct": -1}}, "augmentation.zoom_pct"),
        ({"preprocessing": {"size_px": 33, "view": "whole"}}, "preprocessing.size_px"),
        ({"preprocessing": {"size_px": 32, "view": "half"}}, "preprocessing.view"),
        ({"preprocessing": {"size_px": 32, "view": "head", "intensity": "max"}}, "preprocessing.intensity"),
        ({"losses": {"dice": {"intensity": "median"}}}, "losses.dice"),
        ({"losses": {}}, "losses"),
        ({"losses": {"Dice": {"loss": "dice"}}}, "losses.Dice"),
        ({"losses": {"hinge": {}}}, "losses.hinge.loss"),
        ({"losses": {"dice": {"epsilom": 1}}}, "losses.dice.epsilom"),
        ({"losses": {"dice": {"epsilon": "1"}}}, "losses.dice.epsilon"),
        ({"losses": {"dice": {"epsilon": 0}}}, "losses.dice.epsilon"),
        ({"losses": {"dice": {"labels": "firm"}}}, "losses.dice.labels"),
        ({"losses": {"dice": {"taps": 2}}}, "losses.dice.taps"),
        ({"losses": {"dice": {"training": {"epoch": 1}}}}, "losses.dice.training.epoch"),
        ({"losses": {"dice": {"augmentation": {"rotate": 1}}}}, "losses.dice.augmentation.rotate"),
        ({"losses": {"dice": {"augmentation": {"blur_px": -1}}}}, "losses.dice.augmentation.blur_px"),
        ({"losses": {"tversky": {"alpha": -0.1}}}, "losses.tversky.alpha"),
        ({"losses": {"siamese": {"mask": "never"}}}, "losses.siamese.mask"),
        ({"losses": {"siamese": {"normalise": 1}}}, "losses.siamese.normalise"),
        ({"losses": {"siamese": {"weights": "other"}}}, "losses.siamese.weights"),
        ({"losses": {"siamese": {"network": "VGG20"}}}, "losses.siamese"),
        ({"losses": {"siamese": {"taps": 0}}}, "losses.siamese.taps"),
        ({"losses": {"siamese": {"taps": 6}}}, "losses.siamese"),  # VGG19 has five
        ({"losses": {"siamese": {"taps": ["block9_pool"]}}}, "losses.siamese"),
        ({"losses": {"siamese": {"network": "MobileNetV2"}}}, "losses.siamese"),
        ({"losses": {"siamese_minmax": {}}}, "losses.siamese_minmax.discriminator_rate"),
        ({"losses": {"dice": {"loss": "generalized_dice"}}}, "losses.dice"),
        ({"losses": {"observer_o3": {"loss": "siamese"}}}, "losses.observer_o3"),
    ],
)
def test_a_bad_configuration_is_refused_by_file_and_key(settings, write_config, change, key):
    path = write_config(settings | change)
    with pytest.raises(ValueError, match=naming(path, key)) as raised:
        open_study(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["seeds", "losses", "training", "question"])
def test_a_key_that_is_missing_is_named(settings, write_config, key):
    del settings[key]
    path = write_config(settings)
    with pytest.raises(ValueError, match=naming(path, key)):
        open_study(path)


def test_settings_left_out_of_a_loss_are_its_own_defaults(settings, write_config):
    settings["losses"] = {"dice": {}, "tversky": {"alpha": 0.5}, "siamese": {}}
    study = open_study(write_config(settings))
    assert study.recipe("tversky").settings == {"alpha": 0.5, "beta": 0.7, "epsilon": 1.0}
    assert study.recipe("dice").labels == "hard" and study.recipe("siamese").labels == "soft"
    assert study.recipe("dice").generator.output_prior == 0.01 and study.recipe("siamese").generator.output_prior == 0.1
    assert study.recipe("dice").features is None
    expected = {"network": "vgg19", "taps": ["block1_pool", "block2_pool"], "weights": "imagenet"}
    assert study.recipe("siamese").features == expected and study.pretrained_taps == {"vgg19": expected["taps"]}
    with pytest.raises(ValueError, match=naming(study.path, "generalized_dice")):
        study.recipe("generalized_dice")


def test_a_configuration_may_build_on_another_and_vary_its_losses(settings, write_config):
    base = write_config(settings)
    variant = base.with_name("variant.yaml")
    entries = "{dice: null, siamese_minmax: null, siamese_1_tap: {loss: siamese, labels: hard, taps: 1, generator: {depth: 1}}}"
    variant.write_text(f"base: study.yaml\nstudy: variant\nsplit: {{training: null}}\nlosses: {entries}\n")
    found = open_study(variant)
    assert found.kinds == {"siamese": "siamese", "siamese_1_tap": "siamese"} and not found.has_game
    assert found.pretrained_taps == {"vgg19": ["block1_pool", "block2_pool"]}
    assert found.config.split.model_dump(exclude={"external", "drawn_from"}) == settings["split"] | {"training": None}
    assert found.name == "variant" and found.path == variant
    recipe = found.recipe("siamese_1_tap")
    assert recipe.loss == "siamese" and recipe.labels == "hard" and recipe.features["taps"] == ["block1_pool"]
    assert recipe.training.model_dump(exclude={"precision", "start"}) == settings["training"]
    assert recipe.generator.model_dump() == settings["generator"] | {
        "network": "dense_unet",
        "depth": 1,
        "output_prior": 0.01,
    }
    variant.write_text("base: nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match=naming("nowhere.yaml")):
        open_study(variant)


def test_every_preparation_of_a_study_is_listed_once_its_own_first(settings, write_config):
    settings["preprocessing"] |= {"view": "head", "intensity": "tissue"}
    settings["losses"] = {
        "dice": {"intensity": "maximum"},
        "tversky": {},
        "dice_pad": {"loss": "dice", "view": "pad"},
        "dice_again": {"loss": "dice", "intensity": "maximum"},
    }
    study = open_study(write_config(settings))
    assert [each.name for each in study.preparations] == ["head_tissue", "head", "pad_tissue"]
    assert study.recipe("dice_pad").preparation == ("pad", "tissue")
    del settings["preprocessing"]["intensity"]
    assert [each.name for each in open_study(write_config(settings)).preparations] == ["head", "pad"]


def test_a_study_can_be_changed_without_its_file(settings, write_config, registries):
    class Shy(losses.Loss, name="shy", title="Shy", colour="#000000"):
        def __init__(self, gamma: Annotated[float, Field(gt=0)] = 2.0):
            super().__init__()
            self.gamma = gamma

    study = open_study(write_config(settings))
    changed = study.changed(losses={"shy": {"gamma": 3.0}, "shy_soft": {"loss": "shy", "labels": "soft"}, "dice": None})
    assert list(changed.recipes) == ["siamese", "siamese_minmax", "shy", "shy_soft"] and "shy" not in study.recipes
    assert changed.recipe("shy").settings == {"gamma": 3.0} and changed.recipe("shy_soft").settings == {"gamma": 2.0}
    assert (changed.name, changed.path, changed.data) == (study.name, study.path, study.data)
    with pytest.raises(ValueError, match=naming(study.path, "losses.shy.gamma")):
        study.changed(losses={"shy": {"gamma": -1.0}})
    with pytest.raises(ValueError, match=naming(study.path, "losses.shy.delta")):
        study.changed(losses={"shy": {"delta": 1.0}})
    turned = study.changed(augmentation={"flip_probability": 0.5})
    assert turned.recipe("dice").augmentation == {"rotation_deg": 30, "flip_probability": 0.5}


def test_an_augmentation_of_your_own_is_known_to_configurations(settings, write_config, registries):
    @augmentations.augmentation
    def darken_pct(image, reference, random, most: Annotated[float, Field(ge=0, le=50)]):
        return image * (1 - random.uniform(0, most) / 100), reference

    @augmentations.augmentation
    def without_limits(image, reference, random, most):
        return image, reference

    study = open_study(write_config(settings))
    wanted = {"darken_pct": 20.0, "without_limits": 1}
    assert study.changed(augmentation=wanted).recipe("dice").augmentation == {"rotation_deg": 30} | wanted
    with pytest.raises(ValueError, match=naming(study.path, "augmentation.darken_pct")):
        study.changed(augmentation={"darken_pct": 60.0})


@pytest.mark.slow
def test_two_runs_of_one_study_at_once_are_refused(settings, write_config):
    folder = open_study(path := write_config(settings)).folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            words = [sys.executable, "-m", "wmhlib.running.command", path]
            run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.returncode == 1 and run.stderr.count("\n") == 1 and str(folder) in run.stderr
    finally:
        shutil.rmtree(folder)


def test_a_training_is_held_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "models" / "dice"
    with alone(folder / "seed-1"):
        with pytest.raises(BlockingIOError, match=naming(folder / "seed-1")):
            with alone(folder / "seed-1"):
                pass
        with alone(folder / "seed-2"):
            pass
    with alone(folder / "seed-1"):
        pass


def test_other_vgg19_weights_make_the_feature_network_anew(settings, write_config, tmp_path, monkeypatch):
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    opened, weights = open_study(write_config(settings)), tmp_path / "weights.h5"
    record = opened.features / "origins.json"
    weights.write_bytes(b"any")
    for known, named, stays in (
        ({"weights": "random"}, "", True),
        ({"weights": "random"}, weights, False),
        ({"weights": "imagenet", "sha256": hashlib.sha256(b"any").hexdigest()}, weights, True),
    ):
        write_json(record, {"vgg19": known})
        monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(named))
        command.forget_other_weights(opened)
        assert record.is_file() == stays


def test_broken_yaml_is_refused(tmp_path):
    (tmp_path / "broken.yaml").write_text("study: [")
    with pytest.raises(ValueError, match=naming(tmp_path / "broken.yaml")):
        open_study(tmp_path / "broken.yaml")


@pytest.mark.parametrize("text", ["", "[1, 2]", "a word", "losses: 3"])
def test_yaml_that_holds_no_study_is_refused(tmp_path, text):
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(ValueError, match=naming(tmp_path / "other.yaml")):
        open_study(tmp_path / "other.yaml")


def test_a_configuration_that_cannot_be_read_is_named(open_folder):
    with pytest.raises(IsADirectoryError, match=naming(open_folder)):
        open_study(open_folder)
    (open_folder / "closed.yaml").touch(0o000)
    with as_nobody(), pytest.raises(PermissionError, match=naming(open_folder / "closed.yaml")):
        open_study(open_folder / "closed.yaml")
    (open_folder / "latin.yaml").write_bytes(b"study: caf\xe9")
    with pytest.raises(ValueError, match=naming(open_folder / "latin.yaml")):
        open_study(open_folder / "latin.yaml")


def test_another_data_folder_replaces_the_configured_one_and_its_phantom(settings, write_config, tmp_path):
    settings["data"]["phantom"] = {"seed": 1, "subjects": {"Alder": 1}, "scale": 0.25}
    study = open_study(write_config(settings), tmp_path)
    assert study.data == tmp_path and study.config.data.phantom is None


def test_missing_files_are_named(settings, write_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "nowhere.yaml")):
        open_study(tmp_path / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "scans")):
        open_study(write_config(settings), tmp_path / "scans")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS"])
def test_what_keeps_a_file_from_being_written_is_one_sentence(tmp_path, code):
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
    with (
        pytest.raises(type(error), match=naming(tmp_path / "table.csv", error.strerror)) as raised,
        replacing(tmp_path / "table.csv"),
    ):
        raise error
    assert type(raised.value) is type(error) and "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(OSError, match=naming(target, os.strerror(errno.EFBIG))), full_disk():
        write_json(target, {"long": "x" * 200_000})
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_is_named(open_folder):
    (open_folder / "file").touch()
    for below in ("file/table.csv", "file/deep/table.csv"):
        with pytest.raises(OSError, match=naming(open_folder / below)):
            write_json(open_folder / below, {})
    open_folder.chmod(0o555)
    for below in ("table.csv", "new/deep/table.csv"):
        with as_nobody(), pytest.raises(PermissionError, match=naming(open_folder / below)):
            write_json(open_folder / below, {})
    assert [path.name for path in open_folder.iterdir()] == ["file"]


def test_errors_that_are_not_about_writing_pass_as_they_are(tmp_path):
    scan = "/elsewhere/scan.nii.gz"
    for error in (
        PermissionError(errno.EACCES, "no", scan),
        FileNotFoundError(errno.ENOENT, "no", scan),
        OSError("no"),
    ):
        with pytest.raises(type(error)) as raised, replacing(tmp_path / "table.csv"):
            raise error
        assert raised.value is error


def test_a_study_whose_folder_cannot_be_written_does_not_start(settings, write_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "folder", tmp_path / "file" / "reports")
    monkeypatch.setattr(sys, "argv", ["command", str(write_config(settings))])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=naming(tmp_path / "file" / "reports")):
        command.main()


def test_a_recipe_leaves_out_one_centre_or_several():
    study = open_study("config/demo.yaml").changed(
        losses={"dice": {"without": "A"}, "tversky": {"without": ["A", "B"]}}
    )
    assert [study.recipe(loss).left_out for loss in ("siamese", "dice", "tversky")] == [[], ["A"], ["A", "B"]]


def test_a_base_may_have_a_base_but_not_itself(tmp_path):
    shutil.copy(ROOT / "config" / "mini.yaml", tmp_path / "one.yaml")
    (tmp_path / "two.yaml").write_text("base: one.yaml\nstudy: two\ntraining: {epochs: 3}\n", encoding="utf-8")
    (tmp_path / "three.yaml").write_text("base: two.yaml\nseeds: [7]\n", encoding="utf-8")
    study = open_study(tmp_path / "three.yaml")
    assert (study.name, study.config.training.epochs, study.config.seeds) == ("two", 3, [7])
    (tmp_path / "one.yaml").write_text("base: three.yaml\n", encoding="utf-8")
    with pytest.raises(ValueError, match=naming(tmp_path / "three.yaml", "base")):
        open_study(tmp_path / "three.yaml")


def test_a_runs_copy_reads_as_the_original_while_that_is_edited(tmp_path):
    shutil.copy(ROOT / "config" / "demo.yaml", tmp_path / "base.yaml")
    mine, copy = tmp_path / "mine.yaml", tmp_path / "study" / "configuration.yaml"
    mine.write_text("base: base.yaml\nstudy: mine\ntraining: {epochs: 3}\n", encoding="utf-8")
    before = open_study(mine)
    write_copy(mine, copy)
    mine.write_text("study: [broken", encoding="utf-8")
    (tmp_path / "base.yaml").unlink()
    assert open_study(copy) == before and open_study(copy).path == mine


def test_a_run_says_beforehand_what_it_downloads_simulates_and_trains(monkeypatch):
    monkeypatch.delenv("WMH_VGG19_WEIGHTS", raising=False)
    demo = command.work(open_study("config/demo.yaml"))
    assert "VGG19's weights (80 MB)" in demo and "simulates 39 scans" in demo
    assert demo.endswith("trains 5 networks for 390 steps of 8 slices of 96 x 96 pixels")
    assert "head-label-maps (33 MB)" in command.work(open_study("config/transfer.yaml"))
    paper = command.work(open_study("config/paper.yaml"))
    assert "wmh-challenge" in paper and "simulates" not in paper and "25 networks for 10,000 steps" in paper
