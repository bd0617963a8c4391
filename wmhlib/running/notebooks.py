"""Notebooks as they lie in `notebooks/`: cells alone, so that looking at one leaves nothing to commit.

Input: a notebook as JupyterLab saves it. Output: the same without outputs, counts and the kernel's own name. `make setup` has
JupyterLab call it; outputs stay in the open tab, and the executed copies of a study lie in `reports/<study>/notebooks`.
"""

from pathlib import Path

import nbformat

from wmhlib.running.files import ROOT

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook with its cells and their tags alone, in place, and cell ids that follow from their order."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def clean_before_saving(model: dict, path: str, contents_manager, **_) -> None:
    """Clean a notebook of the project's `notebooks/` that is about to be saved; a hook of Jupyter's contents manager."""
    folder = Path(contents_manager.root_dir, path.strip("/")).resolve().parent
    if model["type"] == "notebook" and folder == ROOT / "notebooks":
        model["content"] = cleaned(nbformat.from_dict(model["content"]))
