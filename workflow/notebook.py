"""Run one notebook of a study with papermill as a step of the workflow, and print one line when it is done.

The executed copy has no pairing metadata, so that JupyterLab opens it as a plain notebook. If a cell fails, the error
is printed in one line, and the copy with everything up to this cell is kept.
"""

import argparse
import importlib.util
import io
import os
import re
import sys
import time
import warnings
from pathlib import Path

import nbformat
import papermill

from wmhlib.running.files import replacing, writing

ROOT = Path(__file__).resolve().parents[1]


def literal(path: Path) -> str:
    """A path with escaped braces, because papermill replaces parameters between braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


BAR = re.compile(r"([^\r\n|]+?): +\d+%\|[^|\r\n]*\| *(\d+)/(\d+) \[[\d:]+<([\d:?]+)[^\]]*?([a-z]+)/([a-z]+)\]")
"""A progress bar of tqdm: description, done, total, time left, unit."""

EVERY_S = 20
"""Seconds between two progress lines of a step."""


class Progress(io.TextIOBase):
    """Receives a notebook's error stream and prints the state of its progress bars every `EVERY_S` seconds."""

    def __init__(self, label: str):
        self.label, self.last_printed = label, time.monotonic()

    def write(self, text: str) -> int:
        bars = BAR.findall(text)
        if bars and time.monotonic() - self.last_printed >= EVERY_S:
            self.last_printed = time.monotonic()
            description, done, total, left, *rate = bars[-1]
            unit = rate[0] if rate[0] != "s" else rate[1]  # steps per second, or seconds per step
            remaining = "" if "?" in left else f", about {left} left"
            print(
                f"  {time.strftime('%H:%M:%S')}  {self.label}: {description.strip()}, {done} of {total} "
                f"{unit}s{remaining}",
                flush=True,
            )
        return len(text)


NUMBERS = {"seed": int, "threshold": float, "smallest_mm3": float}


def typed(name: str, value: str) -> str | bool | float:
    """A parameter with the type that its notebook expects; all but numbers stay text, since a folder may be named
    007."""
    try:
        return NUMBERS[name](value)
    except (KeyError, ValueError):
        return {"True": True, "False": False}.get(value, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", help="name of the notebook, such as 04_train")
    parser.add_argument("output", type=Path, help="path of the executed copy")
    parser.add_argument("--config", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--threads", help="number of threads for TensorFlow; default: all cores")
    parser.add_argument("--light", action="store_true", help="start Keras without TensorFlow, since nothing is trained")
    parser.add_argument("--page", type=Path, help="also write the executed copy as an HTML page")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    parameters = {name: typed(name, value) for name, value in arguments.parameters}
    study = {name: value for name in ("config", "data") if (value := getattr(arguments, name))}
    started = time.monotonic()
    label = " ".join([arguments.notebook, *(f"{name}={value}" for name, value in parameters.items())])
    print(f"  {time.strftime('%H:%M:%S')}  {label} …", flush=True)
    if arguments.threads:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), arguments.threads)
        os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    if arguments.light and importlib.util.find_spec("jax"):  # Keras's NumPy backend needs JAX
        os.environ.setdefault("KERAS_BACKEND", "numpy")
    try:
        with warnings.catch_warnings(), writing(arguments.output):
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            log = os.open(arguments.output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 2)  # log messages of libraries
            warnings.simplefilter("ignore")  # papermill raises deprecation warnings
            papermill.execute_notebook(
                literal(ROOT / "notebooks" / f"{arguments.notebook}.ipynb"),
                literal(arguments.output),
                study | parameters,
                cwd=ROOT,
                progress_bar=False,
                stderr_file=Progress(label),
            )
    except papermill.PapermillExecutionError as error:
        print(f"  {label} failed: {error.evalue} (see {arguments.output})", flush=True)
        sys.exit(1)
    except OSError as error:
        print(f"  {label} failed: {error}", flush=True)
        sys.exit(1)
    copy = nbformat.read(arguments.output, as_version=4)
    copy.metadata.pop("jupytext", None)
    for cell in copy.cells:
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
    with replacing(arguments.output) as temporary:
        nbformat.write(copy, temporary)
    if arguments.page:
        from wmhlib.running import light  # noqa: F401, I001  before the next import: Keras without TensorFlow
        from wmhlib.report.pages import export_page

        export_page(arguments.output, arguments.page, arguments.page.parent.name, [])
    print(f"  {time.strftime('%H:%M:%S')}  {label}: done in {time.monotonic() - started:.0f} s", flush=True)
    if arguments.page:
        print(f"Open {arguments.page}.")


if __name__ == "__main__":
    main()
