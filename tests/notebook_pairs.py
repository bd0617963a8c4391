"""Update every notebook from its script, which is the file to edit; with --check, list those that differ.

Only cells and their tags are compared: no outputs, no timestamps.
"""

import sys
from pathlib import Path

import jupytext
import nbformat

from wmhlib.running.notebooks import cleaned

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def made_from(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, the same every time it is made."""
    return cleaned(jupytext.read(script))


def main() -> None:
    drifted = []
    for script in sorted(NOTEBOOKS.glob("*.py")):
        text, target = nbformat.writes(made_from(script)) + "\n", script.with_suffix(".ipynb")
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            drifted.append(target.name)
            if "--check" not in sys.argv:
                target.write_text(text, encoding="utf-8")
    orphans = [path.name for path in NOTEBOOKS.glob("*.ipynb") if not path.with_suffix(".py").is_file()]
    if orphans:
        sys.exit(f"No script next to {', '.join(orphans)}: remove it, or make its script with jupytext.")
    if drifted and "--check" in sys.argv:
        sys.exit(f"These notebooks differ from their scripts: {', '.join(drifted)}. Edit the .py and run `make sync`.")
    print(f"{len(drifted)} notebook(s) updated" if drifted else "All notebooks match their scripts.")


if __name__ == "__main__":
    main()
