"""A finished study as a page of `docs/results/`, and the list of these pages: tables that `make results` writes, none typed.

Input: the tables, `run.json` and the configuration of a study that `make report` has finished. Output: Markdown. Every number
names the command that makes it again.
"""

from wmhlib.running import light  # noqa: F401, I001  Keras without TensorFlow

# isort: split
import argparse
import datetime
from pathlib import Path

import pandas as pd

from wmhlib.cohort import load_cohort
from wmhlib.evaluation import scoring
from wmhlib.evaluation.names import of_losses, shown, title
from wmhlib.metrics import METRICS
from wmhlib.report import answer
from wmhlib.report.pages import templates
from wmhlib.running.files import ROOT, PathLike, read_json, replacing
from wmhlib.study import Study, open_study

PAGES = ROOT / "docs" / "results"


def study_page(study: Study) -> str:
    """The page of a finished study; FileNotFoundError where `make report` has not finished it."""
    tables, record = scoring.load_tables(study), read_json(study.folder / "run.json")
    if not record:
        raise FileNotFoundError(
            f"No run.json in {study.folder}: run `make report CONFIG={study.path}` to its end first."
        )
    subjects, seeds = load_cohort(study), len(study.config.seeds)
    split, synthetic = answer.unseen_split(tables["summary"]), subjects.flair.map(study.is_synthetic)
    only_synthetic = answer.unseen_is_synthetic(study, subjects, tables["summary"])
    return templates.get_template("results.md.j2").render(
        study=study,
        command=f"make report CONFIG=config/{study.path.name}",
        record=record,
        hours=sum(training["seconds"] for training in record["trainings"]) / 3600,
        finished=datetime.date.fromtimestamp((study.folder / "run.json").stat().st_mtime).isoformat(),
        about=answer.about(subjects, synthetic, seeds),
        headline=answer.headline(tables, seeds, only_synthetic),
        verdicts=answer.verdicts(tables),
        cannot_say=answer.cannot_say(tables, seeds, only_synthetic),
        split=split,
        parts={
            "Metrics": _rows(metrics(tables["summary"], split)),
            "Dice by centre": _rows(by_centre(tables["centres"], split)),
            "Lesions detected by size (%)": _rows(by_size(tables["detection_by_size"], split)),
        },
    )  # fmt: skip


def metrics(summary: pd.DataFrame, split: str) -> pd.DataFrame:
    """The mean of every metric with its 95 % interval, one row per loss."""
    rows = of_losses(summary, split)
    cells = {"loss": rows.loss.map(title)}
    for name, metric in METRICS.items():
        cells[metric.title] = [
            f"{shown(name, row[f'{name}_mean'])} [{shown(name, row[f'{name}_low'])}, {shown(name, row[f'{name}_high'])}]"
            for _, row in rows.iterrows()
        ]
    return pd.DataFrame(cells)


def by_centre(centres: pd.DataFrame, split: str) -> pd.DataFrame:
    """The mean Dice of every loss at every centre, and the mean of the centres; no rows if there is one centre."""
    dice = of_losses(centres, split).pivot_table("dice_mean", "loss", "centre", sort=False)
    if len(dice.columns) < 2:
        return pd.DataFrame()
    dice["mean of the centres"] = dice.mean(axis=1)
    return dice.round(2).rename(index=title).reset_index()


def by_size(detection: pd.DataFrame, split: str) -> pd.DataFrame:
    """The per cent of lesions detected, one row per loss, one column per size with its number of lesions."""
    rows = of_losses(detection, split).sort_values("from_mm3", kind="stable")
    rows = rows.assign(size=rows["size"] + " (" + rows.lesions.astype(str) + ")")
    table = (100 * rows.pivot_table("detected", "loss", "size", sort=False)).round(0).astype("Int64")
    return table.rename(index=title).reset_index()


def _rows(table: pd.DataFrame) -> list[list[str]]:
    """The header and rows of a table as text for Markdown."""
    cells = [list(table.columns), *table.astype(object).where(table.notna(), "—").values.tolist()]
    return [[str(cell).replace("|", "\\|") for cell in row] for row in cells]


def index(folder: PathLike = PAGES) -> str:
    """The list of all pages: each with its question and its answer, which are its first and third paragraph."""
    entries = []
    for path in sorted(Path(folder).glob("*.md")):
        _, question, headline, *_ = path.read_text(encoding="utf-8").split("\n\n")
        entries.append({"name": path.stem, "question": question, "headline": headline})
    return templates.get_template("results_index.md.j2").render(entries=entries)


def main() -> None:
    """Write the page of a finished study, and the list of pages again."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.report.results", description=main.__doc__)
    parser.add_argument("config", nargs="+")
    for config in parser.parse_args().config:
        study = open_study(config)
        with replacing(PAGES / f"{study.name}.md") as temporary:
            temporary.write_text(study_page(study), encoding="utf-8")
        print(f"Wrote docs/results/{study.name}.md.")
    with replacing(PAGES.with_suffix(".md")) as temporary:
        temporary.write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
