"""Looking at a notebook in JupyterLab leaves nothing to commit."""

import json
import shutil
import subprocess

import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

from wmhlib.running import notebooks
from wmhlib.running.files import ROOT

HOOK = "wmhlib.running.notebooks.clean_before_saving"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the project's notebooks, as the project's."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    return tmp_path / "notebooks"


def look_at(folder, name: str) -> None:
    """Open a notebook, run it and save it, as JupyterLab does."""
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(folder), pre_save_hook=HOOK)
    model = manager.get(name)
    model["content"].metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "name": "python3"}
    model["content"].metadata["language_info"] = {"name": "python", "version": "3.13.1"}
    for cell in model["content"].cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="seen")], 7
            cell.metadata["collapsed"] = False
    manager.save(model, name)


@pytest.mark.parametrize("name", ["04_train.ipynb", "06_diagnose_minmax.ipynb"])
def test_a_notebook_that_was_run_and_saved_is_as_it_was(folder, name):
    before = {path.name: path.read_bytes() for path in folder.glob("[0-9]*")}
    look_at(folder, name)
    assert {path.name: path.read_bytes() for path in folder.glob("[0-9]*")} == before


def test_a_notebook_elsewhere_keeps_its_outputs(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mine")
    look_at(tmp_path / "mine", "04_train.ipynb")
    assert "seen" in (tmp_path / "mine" / "04_train.ipynb").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_lab_passes_options_and_set_up_names_the_hook():
    dry = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/installed", "lab", "OPTIONS=--port 8890"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "jupyter lab" in dry and "--port 8890" in dry
    setting = (ROOT / "Makefile").read_text(encoding="utf-8").split("echo '")[1].split("'")[0]
    assert json.loads(setting) == {"FileContentsManager": {"pre_save_hook": HOOK}}
