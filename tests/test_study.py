import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

import pytest
from conftest import as_nobody, full_disk

from wmhlib import study
from wmhlib.study import ROOT, alone, open_study, replacing, write_json


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "config").glob("*.yaml") if path.name != "schema.yaml"])
def test_every_configuration_that_ships_is_valid(name):
    assert open_study(f"config/{name}").name == name.removesuffix(".yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"seeds": []}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [2**32]}, "seeds"),
        ({"training": {"epochs": -1}}, "training"),
        ({"study": "../elsewhere"}, "study"),
        ({"losses": {"hinge": {}}}, "losses"),
        ({"losses": {"dice": {"labels": "hard", "epsilon": 1, "taps": 2}}}, "at losses.dice: .*taps"),
        ({"losses": {"siamese_minmax": {"labels": "soft"}}}, "discriminator_rate"),
        (
            {"losses": {"dice": {"loss": "generalized_dice", "labels": "hard"}}},
            "taken for something else; .*generalized_dice_2",
        ),
        ({"losses": {"observer_o3": {"loss": "siamese", "labels": "soft"}}}, "taken for something else"),
        ({"preprocessing": {"size_px": 33, "view": "whole"}}, "multiple of 4"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(settings, write_config, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        open_study(write_config(settings | change))
    assert "study.yaml" in str(raised.value)


def test_a_configuration_may_build_on_another_and_vary_its_losses(settings, write_config):
    base = write_config(settings)
    variant = base.with_name("variant.yaml")
    losses = "{dice: null, siamese_minmax: null, siamese_1_tap: {loss: siamese, labels: hard, taps: 1, generator: {depth: 1}}}"
    variant.write_text(f"base: study.yaml\nstudy: variant\nsplit: {{training: null}}\nlosses: {losses}\n")
    found = open_study(variant)
    assert found.kinds == {"siamese": "siamese", "siamese_1_tap": "siamese"} and not found.has_game and found.taps == 2
    assert found.config["split"] == settings["split"] | {"training": None} and found.name == "variant"
    recipe = found.recipe("siamese_1_tap")
    assert recipe["loss"] == {"taps": 1, "weights": "imagenet"} and recipe["training"] == settings["training"]
    assert recipe["generator"] == settings["generator"] | {"depth": 1, "output_prior": 0.01}
    variant.write_text("base: nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match="No configuration to build on at .*nowhere.yaml"):
        open_study(variant)


def test_two_runs_of_one_study_at_once_are_refused(settings, write_config):
    folder = open_study(path := write_config(settings)).folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = [sys.executable, "-m", "wmhlib.study", path]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.returncode == 1 and run.stderr.count("\n") == 1
        assert "is being written by another run of it: wait for that one to end" in run.stderr
    finally:
        shutil.rmtree(folder)


def test_a_training_is_held_by_one_process_at_a_time(tmp_path):
    with alone(tmp_path / "models" / "dice" / "seed-1"):
        with pytest.raises(BlockingIOError, match="seed-1 is being written by another process: wait"):
            with alone(tmp_path / "models" / "dice" / "seed-1"):
                pass
        with alone(tmp_path / "models" / "dice" / "seed-2"):
            pass
    with alone(tmp_path / "models" / "dice" / "seed-1"):
        pass


def test_other_vgg19_weights_make_the_discriminator_anew(settings, write_config, tmp_path, monkeypatch):
    opened, weights = open_study(write_config(settings)), tmp_path / "weights.h5"
    monkeypatch.setattr(study, "ROOT", tmp_path)
    record = opened.discriminator.with_suffix(".json")
    weights.write_bytes(b"any")
    for known, named, stays in (
        ({"weights": "random"}, "", True),
        ({"weights": "random"}, weights, False),
        ({"weights": "imagenet", "sha256": hashlib.sha256(b"any").hexdigest()}, weights, True),
    ):
        write_json(record, known)
        monkeypatch.setenv("WMH_VGG19_WEIGHTS", str(named))
        study._forget_other_weights(opened)
        assert record.is_file() == stays


def test_broken_yaml_is_refused(tmp_path):
    (tmp_path / "broken.yaml").write_text("study: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        open_study(tmp_path / "broken.yaml")


def test_a_configuration_that_cannot_be_read_is_named(open_folder):
    with pytest.raises(IsADirectoryError, match="cannot be read .*: name a YAML file"):
        open_study(open_folder)
    (open_folder / "closed.yaml").touch(0o000)
    with as_nobody(), pytest.raises(PermissionError, match=r"closed\.yaml cannot be read \(Permission denied\)"):
        open_study(open_folder / "closed.yaml")
    (open_folder / "latin.yaml").write_bytes(b"study: caf\xe9")
    with pytest.raises(ValueError, match=r"latin\.yaml is not valid YAML"):
        open_study(open_folder / "latin.yaml")


def test_another_data_folder_replaces_the_configured_one_and_its_phantom(settings, write_config, tmp_path):
    settings["data"]["phantom"] = {"seed": 1, "subjects": {"Alder": 1}, "scale": 0.25}
    study = open_study(write_config(settings), tmp_path)
    assert study.data == tmp_path and "phantom" not in study.config["data"]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        open_study(tmp_path / "nowhere.yaml")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ENOSPC", "free some space"),
        ("EDQUOT", "free some space"),
        ("EACCES", "make the folder writable"),
        ("EPERM", "make the folder writable"),
        ("EROFS", "make the folder writable"),
    ],
)
def test_what_keeps_a_file_from_being_written_is_one_sentence(tmp_path, code, remedy):
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
    with pytest.raises(type(error)) as raised, replacing(tmp_path / "table.csv"):
        raise error
    assert str(raised.value) == f"{tmp_path / 'table.csv'} cannot be written ({error.strerror}): {remedy}."
    assert type(raised.value) is type(error) and not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(OSError, match=r"table\.csv cannot be written \(File too large\): raise the limit"), full_disk():
        study.write_json(target, {"long": "x" * 200_000})
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(open_folder):
    (open_folder / "file").touch()
    for below in ("file/table.csv", "file/deep/table.csv"):
        with pytest.raises(OSError, match=r"table\.csv cannot be written \(.*\): move away what stands in its place"):
            study.write_json(open_folder / below, {})
    open_folder.chmod(0o555)
    for below in ("table.csv", "new/deep/table.csv"):
        with as_nobody(), pytest.raises(PermissionError, match=r"table\.csv .*denied\): make the folder writable\.$"):
            study.write_json(open_folder / below, {})
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
    monkeypatch.setattr(study.Study, "folder", tmp_path / "file" / "reports")
    monkeypatch.setattr(sys, "argv", ["study", str(write_config(settings))])
    (tmp_path / "file").touch()
    with pytest.raises(
        SystemExit, match=r"^Cannot start the study\. .*index\.html cannot be written \(Not a directory\)"
    ):
        study.main()
