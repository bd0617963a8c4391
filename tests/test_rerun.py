"""What tells whether a study made again is the same; that it can be made again is tested in test_notebooks.py."""

import json
import sys

import pytest

from wmhlib import rerun

TABLE = "study,loss,seed,dice\ns{},dice,1,0.5\ns{},siamese,1,{}\n"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (TABLE.format("-again", "-again", "0.25"), None),
        (TABLE.format("-again", "-again", "0.250"), "only how numbers are written differs"),
        (TABLE.format("-again", "-again", "0.125"), "largest difference 0.125, in dice"),
        (TABLE.format("-again", "-again", ""), "largest difference inf, in dice"),
        (TABLE.format("-again", "-again", "0.25").replace("siamese", "tversky"), "texts that differ: 1"),
        (
            TABLE.format("-again", "-again", "0.5").replace("siamese", "dice"),
            "largest difference 0.25, in dice; texts that differ: 1",
        ),
        ("study,loss\n", "2 rows and 4 columns then, 0 and 2 now"),
        (None, "it was not made again"),
    ],
)
def test_how_a_table_differs(tmp_path, now, said):
    (tmp_path / "before.csv").write_text(TABLE.format("", "", "0.25"))
    if now is not None:
        (tmp_path / "now.csv").write_text(now)
    assert rerun.compare(tmp_path / "before.csv", tmp_path / "now.csv", "s") == said


def test_what_changed_is_said_key_by_key():
    before = {"commit": "a", "versions": {"keras": "3.15", "numpy": "2"}, "old": 1}
    now = {"commit": "b", "versions": {"keras": "3.16", "numpy": "2"}, "new": 1}
    assert rerun.changes(before, now) == ["commit: a then, b now", "versions, keras: 3.15 then, 3.16 now"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a study's run.json"),
        ("[]", "is not a study's run.json"),
        ("{}", "is not a study's run.json .*'study'"),
        (json.dumps({"study": "s", "configuration": {}, "trainings": []}), "No tables beside"),
        (None, "No file at .*run.json: name"),
    ],
)
def test_what_is_no_finished_study_is_refused_in_one_sentence(tmp_path, monkeypatch, content, said):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["rerun", str(tmp_path / "run.json")])
    with pytest.raises(SystemExit, match=said) as raised:
        rerun.main()
    assert "\n" not in str(raised.value)
