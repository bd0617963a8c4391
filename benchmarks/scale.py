"""How time and memory of each stage grow with a study: synthetic cohorts of 10, 40 and 170 subjects in five real grids.

From the repository root, in minutes to half an hour:

    .venv/bin/python benchmarks/scale.py --subjects 10 40 170

Every stage is the notebook that `make report` runs, in a process of its own, at 224 pixels. One short training stands for
all, since a training's length is set by its steps; the masks of five losses and three seeds, which notebook 05 scores and
shows, are the references grown or shrunk at random. Output: a table as Markdown, `reports/scale.html` with the same as
a picture, and the reports themselves; of these, how long the slowest page takes to open. Memory is the largest process of a
stage. Both cohort and reports are removed first, so that nothing is found ready.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import plotly.express as px
import yaml
from playwright.sync_api import sync_playwright
from scipy.ndimage import binary_dilation, binary_erosion
from tqdm import tqdm

from wmhlib.cohort import load_cohort
from wmhlib.intake.nifti import read_scan, save_image
from wmhlib.running.files import ROOT
from wmhlib.study import Study, open_study

SHARES = {"Alder": 40, "Birch": 40, "Cedar/S3T": 40, "Dover/P15T": 40, "Dover/P3T": 10}
"""Subjects a centre in a cohort of 170; smaller cohorts have their share, and one of each at least."""

TRAINED = ("dice", 1)


def write_study(subjects: int, size: int) -> Study:
    """A configuration of five losses and three seeds over a cohort of this many subjects, all else as in the demonstration."""
    counts = {centre: max(1, round(share * subjects / 170)) for centre, share in SHARES.items()}
    counts["Dover/P15T"] += subjects - sum(counts.values())
    training, validation = 3 * max(1, round(16 * subjects / 170)), 3 * min(2, subjects // 40)
    holdout = sum(count for centre, count in counts.items() if "Dover" not in centre) - training - validation
    settings = {
        "base": "demo.yaml",
        "study": f"scale-{subjects}",
        "question": f"How do time and memory grow? {subjects} subjects.",
        "data": {"root": f"data/scale-{subjects}", "phantom": {"subjects": counts}},
        "split": {"training": training, "validation": validation, "holdout": holdout},
        "preprocessing": {"size_px": size, "view": "whole"},
        "training": {"epochs": 1, "steps_per_epoch": 20, "batch_norm_batches": 4},
        "losses": {
            "siamese_minmax": None,
            "siamese_hard": {"loss": "siamese", "labels": "hard"},
        },  # 06 has no game to read
        "seeds": [1, 2, 3],
    }
    path = ROOT / "config" / f".scale-{subjects}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    study = open_study(path)
    for folder in (study.folder, study.data, study.slices):
        shutil.rmtree(folder, ignore_errors=True)
    return study


def measured(*command: object) -> tuple[float, float]:
    """Seconds that a command takes, and GiB of the largest of its processes.

    Raises
    ------
    RuntimeError
        The command failed.
    """
    started = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}: run it by hand to see why.")
    return time.monotonic() - started, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def executed_training(study: Study, loss: str, seed: int) -> Path:
    return study.folder / "notebooks" / f"04_train-{loss}-seed-{seed}.ipynb"


def imitate(study: Study) -> None:
    """What the other trainings would have left: the one that was run under their names, and masks that resemble the reference."""
    done = study.model(*TRAINED)
    random, cohort = np.random.default_rng(0), load_cohort(study)
    unseen = list(cohort[cohort.split.isin(["holdout", "external"])].itertuples())
    for loss, seed in study.trainings:
        if (loss, seed) != TRAINED:
            shutil.copytree(done, study.model(loss, seed))
            shutil.copy(executed_training(study, *TRAINED), executed_training(study, loss, seed))
    for row in tqdm(unseen, "imitated masks", unit="subject"):
        reference = read_scan(row.reference)
        lesion = np.rint(np.asarray(reference.dataobj)) == 1
        shapes = [binary_dilation(lesion), binary_erosion(lesion), lesion]
        for loss, seed in study.trainings:
            mask = random.choice(3, p=[0.3, 0.3, 0.4])
            noise = random.random(lesion.shape) > 0.99999
            save_image(
                nibabel.Nifti1Image((shapes[mask] | noise).astype(np.uint8), reference.affine),
                study.mask(loss, seed, row.subject),
            )


def stages(study: Study) -> pd.DataFrame:
    """Run the study stage by stage: `subjects, stage, seconds, GiB`."""
    run = [sys.executable, "workflow/notebook.py", "--config", study.path]
    executed = study.folder / "notebooks"
    one = ["-p", "loss", TRAINED[0], "-p", "seed", TRAINED[1]]
    rows = [
        (name, *measured(*run, name, executed / f"{name}.ipynb"))
        for name in ("01_explore_data", "02_preprocess", "03_build_networks")
    ]
    rows.append(("04_train", *measured(*run, "04_train", executed_training(study, *TRAINED), *one)))
    imitate(study)
    rows.append(("05_evaluate", *measured(*run, "05_evaluate", executed / "05_evaluate.ipynb")))
    rows.append(("report", *measured(sys.executable, "-m", "wmhlib.report.site", study.path)))
    table = pd.DataFrame(rows, columns=["stage", "seconds", "GiB"])
    table.insert(0, "subjects", len(load_cohort(study)))
    return table


def seconds_to_open(page: Path) -> float:
    """Until headless Chromium has loaded and drawn a page; NaN where no Chromium is installed."""
    if not (chromium := shutil.which("chromium")):
        return math.nan
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view, started = browser.new_page(), time.monotonic()
        view.goto(page.as_uri())
        view.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[10, 40, 170])
    parser.add_argument("--size", type=int, default=224, help="side of a slice in pixels")
    arguments = parser.parse_args()
    tables = []
    for subjects in arguments.subjects:
        study = write_study(subjects, arguments.size)
        try:
            tables.append(stages(study))
        finally:
            study.path.unlink()
        pages = {page: (page.stat().st_size / 1e6, seconds_to_open(page)) for page in study.folder.glob("*.html")}
        print(tables[-1].round(1).to_string(index=False))
        for what, place, unit in (("largest page", 0, "MB"), ("page slowest to open", 1, "s")):
            page = max(pages, key=lambda one: pages[one][place])
            print(f"{subjects} subjects, the {what}: {page.name}, {pages[page][place]:.1f} {unit}", flush=True)
    table = pd.concat(tables)
    print("\n" + table.pivot(index="stage", columns="subjects", values=["seconds", "GiB"]).round(1).to_string())
    long = table.melt(["subjects", "stage"], ["seconds", "GiB"], "figure")
    figure = px.line(long, x="subjects", y="value", color="stage", facet_col="figure", markers=True)
    figure.update_yaxes(matches=None, showticklabels=True, rangemode="tozero", title="")
    figure.for_each_annotation(lambda words: words.update(text=words.text.split("=")[-1]))
    figure.write_html(ROOT / "reports" / "scale.html")
    print(f"\nPicture: {Path('reports/scale.html')}")


if __name__ == "__main__":
    main()
