"""Comparison of a repeated study with the original; repeating one is tested in test_notebooks.py."""

import json
import re
import sys

import pytest
import yaml

from wmhlib.running import rerun
from wmhlib.running.files import ROOT

TABLE = "study,loss,seed,dice\ns{},dice,1,0.5\ns{},siamese,1,{}\n"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (TABLE.format("-again", "-again", "0.250"), ["numbers"]),
        (TABLE.format("-again", "-again", "0.125"), ["0.125", "dice"]),
        (TABLE.format("-again", "-again", ""), ["inf", "dice"]),
        (TABLE.format("-again", "-again", "0.25").replace("siamese", "tversky"), ["texts", "1"]),
        (TABLE.format("-again", "-again", "0.5").replace("siamese", "dice"), ["0.25", "dice", "texts", "1"]),
        ("study,loss\n", ["2 rows", "4 columns", "0", "2"]),
        (None, ["not"]),
    ],
)
def test_how_a_table_differs(tmp_path, now, said):
    (tmp_path / "before.csv").write_text(TABLE.format("", "", "0.25"))
    if now is not None:
        (tmp_path / "now.csv").write_text(now)
    how = rerun.compare(tmp_path / "before.csv", tmp_path / "now.csv", "s")
    assert re.search(".*".join(map(re.escape, said)), how), how


def test_a_table_that_differs_in_the_name_of_the_study_alone_is_the_same(tmp_path):
    (tmp_path / "before.csv").write_text(TABLE.format("", "", "0.25"))
    (tmp_path / "now.csv").write_text(TABLE.format("-again", "-again", "0.25"))
    assert rerun.compare(tmp_path / "before.csv", tmp_path / "now.csv", "s") is None


def test_what_changed_is_said_key_by_key():
    before = {"commit": "a", "versions": {"keras": "3.15", "numpy": "2"}, "old": 1}
    now = {"commit": "b", "versions": {"keras": "3.16", "numpy": "2"}, "new": 1}
    commit, keras = rerun.changes(before, now)  # what only one of them has is no change
    assert re.search(r"commit\b.*\ba\b.*\bb\b", commit) and re.search(r"versions\b.*keras\b.*3\.15.*3\.16", keras)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "run.json"),
        ("[]", "run.json"),
        ("{}", "run.json.*'study'"),
        (json.dumps({"study": "s", "configuration": {}, "trainings": []}), "run.json.*tables"),
        (None, "run.json"),
    ],
)
def test_what_is_no_finished_study_is_refused_in_one_sentence(tmp_path, monkeypatch, content, said):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["rerun", str(tmp_path / "run.json")])
    with pytest.raises(SystemExit, match=said) as raised:
        rerun.main()
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_profiles_name_rules_of_the_workflow():
    text = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    rules = set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", text, re.MULTILINE))
    for path in (ROOT / "workflow" / "profiles").glob("*/config.yaml"):
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = {rule for key in ("set-threads", "set-resources", "groups") for rule in profile.get(key, {})}
        assert named <= rules, f"{path} names {named - rules}"
