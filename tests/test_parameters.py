"""Unknown and invalid parameters of notebooks are refused before anything else happens."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import nbformat
import pytest
import yaml
from conftest import naming
from tqdm import tqdm

from wmhlib.running import configuration, parameters
from wmhlib.running.files import ROOT, write_json

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
OWN = {"config": "config/demo.yaml", "data": "", "loss": "siamese", "seed": 1, "your_own": False}


@pytest.fixture(autouse=True)
def no_claim(monkeypatch):
    """Looking at the parameters of the demonstration leaves nothing in its folder."""
    monkeypatch.setattr(parameters, "claim", lambda *_: None)


def run_cells(monkeypatch, *cells: str) -> None:
    """Pretend that a notebook has run these cells and is in the one that checks."""
    shell = SimpleNamespace(user_ns={"In": ["", *cells, "parameters.check(...)"]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_checks_all_its_parameters_first(script):
    cells = [cell.split("\n", 1) for cell in script.read_text(encoding="utf-8").split("\n# %%")[1:]]
    place = next(number for number, (head, _) in enumerate(cells) if 'tags=["parameters"]' in head)
    names = {node.id for node in ast.walk(ast.parse(cells[place][1])) if isinstance(node, ast.Name)}
    *imports, check = ast.parse(cells[place + 1][1]).body
    assert {keyword.arg for keyword in check.value.keywords} == names
    assert [ast.unparse(one) for one in imports] == ["from wmhlib.running import parameters"]
    assert names <= parameters.TEXTS | parameters.CHECKS.keys(), "each has a check"


def test_checking_loads_nothing_that_takes_long():
    code = "import sys, wmhlib.running.parameters; print(sorted({'keras', 'tensorflow', 'jax', 'nibabel'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_a_notebook_has_is_taken(monkeypatch, tmp_path):
    parameters.check(**OWN)
    for cells in (
        ['loss = "dice"'],
        ['loss = "dice"  # edited', "# Parameters\nseed = 2"],
        ["import os", "import pathlib\nbelow = pathlib.Path('data')\ndata = below / 'x'", "# Parameters\nseed = 2\n"],
        ["other = 3", 'loss = "dice"'],
        ['loss = "dice"\nlos = "dice"', 'loss = "dice"  # corrected, and run again'],
        ['loss = "dice"', "%%time\nlos = 3"],
        ['loss = "dice"', "los = 3  # a cell of one's own, between"],
    ):
        run_cells(monkeypatch, *cells)
        parameters.check(**OWN)
    parameters.check(**OWN | {"config": ROOT / "config" / "demo.yaml", "data": tmp_path, "seed": 2**32 - 1})


@pytest.mark.parametrize(
    "cells",
    [
        ['loss = "siamese"', '# Parameters\nlos = "tversky"\n'],
        ['loss = "siamese"', '# Parameters\nseed = 2\nlos = "tversky"\n'],
        ['loss = "siamese"\nlos = "tversky"'],
        ['loss = "siamese"\nlos = "tversky"', "# Parameters\nseed = 2\n"],
        ['loss: str = "siamese"\nlos: str = "tversky"'],
    ],
)
def test_a_name_that_a_notebook_does_not_have_is_refused(monkeypatch, cells):
    run_cells(monkeypatch, *cells)
    with pytest.raises(parameters.Refused, match=naming("los", "loss")) as caught:
        parameters.check(**OWN)
    assert caught.value._render_traceback_() == [str(caught.value)] and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config", "data", "loss"])
@pytest.mark.parametrize("value", [2024, 7, 1e3, None, True, ["a"], {"a": 1}])
def test_what_papermill_made_of_text_is_refused(name, value):
    with pytest.raises(parameters.Refused, match=naming(name, repr(value), "-r")):
        parameters.check(**OWN | {name: value})


@pytest.mark.parametrize("name", ["scans", "model", "out", "bids"])
@pytest.mark.parametrize("value", [2024, None, ["a.nii", "b.nii"]])
def test_notebook_7_takes_text_alone(name, value):
    own = {"scans": str(ROOT / "tests/golden/aligned/wmh.nii.gz"), "model": "", "out": "", "bids": ""}
    parameters.check(**own)
    with pytest.raises(parameters.Refused, match=naming(name, repr(value), "-r")):
        parameters.check(**own | {name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "seed": ["7", 1.0, 0, -1, 2**32, True, None, [1]],
        "your_own": ["True", 1, None],
        "loss": ["tverski", "", "Dice"],
        "config": ["config/nowhere.yaml", "", "config", "README.md"],
        "data": ["/nowhere/scans"],
        "scans": ["/nowhere/scans", "*.nothing", ""],
        "model": ["/nowhere/model.keras", "config"],
        "out": [str(ROOT / "README.md"), str(ROOT / "README.md" / "below")],
        "bids": [str(ROOT / "README.md")],
    }.items(),
)
def test_a_value_that_cannot_be_used_is_refused(name, values):
    for value in values:
        with pytest.raises(parameters.Refused, match=naming(value)) as caught:
            parameters.check(**(OWN if name in OWN else {}) | {name: value})
        assert "\n" not in str(caught.value)


PART = {"config": "config/demo.yaml", "data": "", "centres": "", "losses": "", "seeds": ""}


@pytest.fixture
def listed_centres(tmp_path, monkeypatch) -> Path:
    """The demonstration with its cohort's table somewhere else: Elm is for training alone."""
    table = tmp_path / "reports" / "demo" / "tables" / "cohort.csv"
    table.parent.mkdir(parents=True)
    table.write_text("subject,centre,split,reason\n1,Elm,training,\n2,Alder,holdout,\n3,Dover/P15T,external,\n")
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return table


def test_a_part_of_a_study_is_taken(listed_centres):
    parameters.check(**PART)
    parameters.check(**PART | {"centres": "Dover/P15T , Alder", "losses": "dice,siamese", "seeds": "1"})
    parameters.check(**PART | {"seeds": 1})  # what papermill makes of it
    assert parameters.listed(" a, b ,") == ["a", "b"] and parameters.listed("") == [] and parameters.listed(2) == ["2"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("losses", "dice, tverski", ("tverski", "tversky")),
        ("seeds", "1,7", ("7",)),
        ("seeds", "one", ("seeds", "one")),
        ("seeds", [1], ("seeds", "[1]")),
        ("centres", "Elm", ("Elm", "Alder", "cohort.csv")),
        ("centres", 3, ("centres", "-r")),
    ],
)
def test_a_part_that_a_study_does_not_have_is_refused(listed_centres, name, value, words):
    with pytest.raises(parameters.Refused, match=naming(*words)) as caught:
        parameters.check(**PART | {name: value})
    assert "\n" not in str(caught.value)


def test_centres_are_chosen_once_they_are_listed(listed_centres):
    listed_centres.unlink()
    with pytest.raises(parameters.Refused, match=naming("cohort.csv", "01_explore_data")):
        parameters.check(**PART | {"centres": "Alder"})


def test_the_losses_of_a_configuration_with_a_base_are_known(tmp_path):
    shutil.copy(ROOT / "config" / "demo.yaml", tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "demo.yaml", "losses": {"mine": {"loss": "dice"}, "dice": None}}))
    for name in ("mine", "tversky"):
        parameters.check(config=path, loss=name)
    with pytest.raises(parameters.Refused, match=naming(path, "dice")):
        parameters.check(config=path, loss="dice")


@pytest.mark.slow
def test_papermill_ends_with_the_sentence(tmp_path):
    """A misspelt name or an impossible value is refused within seconds, in one sentence, in the terminal and in the
    copy."""
    out = tmp_path / "out.ipynb"
    for arguments, words in (
        (["-p", "los", "tversky"], ("los", "loss")),
        (["-y", "seed: [1]"], ("seed", "[1]")),
        (["-p", "config", "1e3"], ("config", "1000.0", "-r")),
    ):
        command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / "04_train.ipynb", out, *arguments]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        cells = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
        [error] = [output for cell in cells for output in cell.outputs]
        assert ran.returncode == 1 and ran.stderr.strip().endswith(error.evalue) and error.traceback == [error.evalue]
        assert all(word in error.evalue for word in words)
        assert [cell.execution_count for cell in cells[:4]] == [1, 2, 3, None], "nothing was imported"


@pytest.mark.slow
def test_a_step_of_the_workflow_takes_text_as_text(tmp_path):
    """`workflow/notebook.py`: a folder may be called 007."""
    command = [sys.executable, "workflow/notebook.py", "07_segment_scan", tmp_path / "out.ipynb"]
    ran = subprocess.run([*command, "-p", "scans", "007"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    failed = ran.stdout.splitlines()[-1]
    assert ran.returncode == 1 and "'007'" in failed and ran.stdout.count("\n") == 2
    (tmp_path / "a file").touch()
    command[3] = tmp_path / "a file" / "out.ipynb"
    ran = subprocess.run([*command, "-p", "scans", "x"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1 and str(tmp_path / "a file") in ran.stdout.splitlines()[-1] and not ran.stderr


def test_a_study_is_not_replaced_by_another_of_its_name(tmp_path):
    folder, here, there = tmp_path / "reports", tmp_path / "a.yaml", tmp_path / "b.yaml"
    scans, others = tmp_path / "scans", tmp_path / "others"
    for path in (here, there):
        path.touch()
    for path in (scans, others):
        path.mkdir()
    configuration.claim(folder, here, scans)
    configuration.claim(folder, there, scans)  # nothing is trained yet
    configuration.claim(folder, here, scans)
    model = folder / "models" / "dice" / "seed-1" / "model.keras"
    model.parent.mkdir(parents=True)
    model.touch()
    configuration.claim(str(folder), str(here), str(scans))
    for wrong in ((there, scans), (here, others)):
        with pytest.raises(ValueError, match=naming(folder, *({here, scans} - {*wrong}), *({*wrong} - {here, scans}))):
            configuration.claim(folder, *wrong)
    assert json.loads((folder / "made_from.json").read_text()) == {"configuration": str(here), "data": str(scans)}
    here.rename(tmp_path / "c.yaml")
    configuration.claim(folder, tmp_path / "c.yaml", scans)
    write_json(folder / "made_from.json", {"configuration": "config/demo.yaml", "data": "data"})
    with pytest.raises(ValueError, match=naming("config/demo.yaml")):
        configuration.claim(folder, "config/mini.yaml", Path("data"))


def test_a_step_says_how_far_it_is_and_how_long_it_takes(monkeypatch, capsys):
    """What `workflow/notebook.py` makes of tqdm's bars: a line now and then, also where the output is no terminal."""
    place = importlib.util.spec_from_file_location("notebook_step", ROOT / "workflow" / "notebook.py")
    step = importlib.util.module_from_spec(place)
    place.loader.exec_module(step)
    monkeypatch.setattr(step, "EVERY_S", -1)
    shown = step.Progress("04_train")
    for _ in tqdm(range(3), "dice seed-1", unit="epoch", file=shown):
        time.sleep(0.15)
    tqdm(range(2), "slices", unit="subject", file=shown).update(2)
    shown.write("a warning: 50% of nothing\n")
    lines = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert any(re.fullmatch(r"04_train: dice seed-1, 2 of 3 epochs, about 00:0\d left", line) for line in lines), lines
    assert lines[0] == "04_train: dice seed-1, 0 of 3 epochs" and lines[-1].startswith("04_train: slices, ")
    monkeypatch.setattr(step, "EVERY_S", 20)
    tqdm(range(2), "slices", file=step.Progress("02")).close()
    assert not capsys.readouterr().out, "not more often than that"


@pytest.mark.slow
def test_keras_starts_without_a_word_and_other_words_are_kept():
    program = (
        "import os, sys, types; from wmhlib.running.quiet import start_keras\n"
        "if sys.argv[1:]:\n"
        "    class Loud:\n"
        "        def find_spec(self, name, *_): os.write(2, b'a fault\\n') if name == 'keras' else None\n"
        "    sys.meta_path.insert(0, Loud())\n"
        "start_keras(); import keras; print(keras.backend.backend())"
    )
    for arguments, said in (([], ""), (["loud"], "a fault\n")):
        ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)
        assert (ran.returncode, ran.stderr) == (0, said) and ran.stdout.strip() == keras.backend.backend()
