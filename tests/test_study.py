import errno
import os
import sys

import pytest
from conftest import as_nobody, full_disk

from wmhlib import study
from wmhlib.study import ROOT, open_study, replacing


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "config").glob("*.yaml") if path.name != "schema.yaml"])
def test_every_configuration_that_ships_is_valid(name):
    assert open_study(f"config/{name}").name == name.removesuffix(".yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"seeds": []}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"training": {"epochs": -1}}, "training"),
        ({"study": "../elsewhere"}, "study"),
        ({"losses": {"hinge": {}}}, "losses"),
        ({"preprocessing": {"size_px": 33, "view": "whole"}}, "multiple of 4"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(settings, write_config, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        open_study(write_config(settings | change))
    assert "study.yaml" in str(raised.value)


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
