import pytest

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
