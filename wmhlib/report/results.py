"""A finished study as a page of `docs/results/`, and the list of these pages: tables that `make results` writes, none typed.

Input: the tables, `run.json` and the configuration of a study that `make report` has finished, or of several. Output:
Markdown. Every number names the command that makes it again.
"""

from wmhlib.running import light  # noqa: F401, I001  Keras without TensorFlow

# isort: split
import argparse
import datetime
import functools
from pathlib import Path

import pandas as pd

from wmhlib.cohort import load_cohort
from wmhlib.evaluation import scoring
from wmhlib.evaluation.names import in_brackets, of_losses, shown, title
from wmhlib.intake.phantom import cohort_recipe
from wmhlib.metrics import METRICS
from wmhlib.report import answer
from wmhlib.report.pages import templates
from wmhlib.report.scoreboard import differing
from wmhlib.running.files import ROOT, PathLike, read_json, replacing
from wmhlib.study import Study, open_study

PAGES = ROOT / "docs" / "results"


TOGETHER = (
    "What is due to the centre: each centre was segmented by networks of its own training, and the intervals resample scans "
    "as if one network had segmented all."
)
"""What a page of several studies does not show."""


def results_page(studies: list[Study], name: str = "") -> str:
    """The page of a finished study, or of several whose unseen scans differ, such as those that leave out one centre each.

    Raises
    ------
    FileNotFoundError
        `make report` has not finished a study.
    ValueError
        The studies differ in more than their scans, lack external scans, or share one.
    """
    first, records = studies[0], [read_json(study.folder / "run.json") for study in studies]
    for study, record in zip(studies, records, strict=True):
        if not record:
            raise FileNotFoundError(
                f"No run.json in {study.folder}: run `make report CONFIG={study.path}` to its end first."
            )
    tables, seeds = joined(studies), len(first.config.seeds)
    cohorts = [load_cohort(study) for study in studies]
    synthetic = [cohort.flair.map(study.is_synthetic) for cohort, study in zip(cohorts, studies, strict=True)]
    only_synthetic = all(
        answer.unseen_is_synthetic(study, cohort, tables["summary"])
        for study, cohort in zip(studies, cohorts, strict=True)
    )
    alike = all(answer.one_kind(study, cohort) for study, cohort in zip(studies, cohorts, strict=True))
    split = answer.unseen_split(tables["summary"])
    own_trainings = [first.recipes[loss].training for loss in first.losses]
    trainings = [training for record in records for training in record["trainings"]]
    files = " ".join(f"config/{study.path.name}" for study in studies)
    return templates.get_template("results.md.j2").render(
        study=first,
        name=name or first.name,
        commands=[f"make report CONFIG=config/{study.path.name}" for study in studies],
        page_command=f'make results CONFIG="{files}" NAME={name}' if name else f"make results CONFIG={files}",
        record=records[-1],
        machines=sorted({f"{record['machine']}, Keras {record['versions']['keras']}" for record in records}),
        backends=sorted({training["backend"] for training in trainings}),
        trainings=trainings,
        hours=sum(training["seconds"] for training in trainings) / 3600,
        finished=max(
            datetime.date.fromtimestamp((study.folder / "run.json").stat().st_mtime) for study in studies
        ).isoformat(),
        recipes=sorted({cohort_recipe(study.data) for study in studies if study.config.data.phantom}),
        abouts=list(
            dict.fromkeys(answer.about(cohort, drawn, seeds) for cohort, drawn in zip(cohorts, synthetic, strict=True))
        ),
        headline=answer.headline(tables, answer.unseen_scans(tables, cohorts, only_synthetic)),
        answers=answer.answers(tables, seeds, own_trainings, alike),
        verdicts=[*answer.verdicts(tables), *answer.variants(tables)],
        cannot_say=answer.cannot_say(tables, seeds, only_synthetic, own_trainings) + [TOGETHER] * (len(studies) > 1),
        split=split,
        parts={
            "Metrics": _rows(metrics(tables, split)),
            "Lesions detected at equal false positives (%)": _rows(at_equal_rates(tables["froc_scores"], split)),
            "The same by size": _rows(by_size(tables["froc_by_size"], split)),
            "Lesions detected by size at the threshold 0.5 (%)": _rows(by_size(tables["detection_by_size"], split)),
            "Dice by centre": _rows(by_centre(tables["centres"], split)),
        },
    )


def joined(studies: list[Study]) -> dict[str, pd.DataFrame]:
    """The tables of `wmhlib.evaluation.scoring.summarise` over the unseen scans of all studies together."""
    parts = [scoring.load_tables(study) for study in studies]
    if len(studies) == 1:
        return parts[0]
    first = studies[0]
    for study, part in zip(studies, parts, strict=True):
        if (study.kinds, study.config.seeds, shared(study)) != (first.kinds, first.config.seeds, shared(first)):
            raise ValueError(
                f"{study.name} has other losses, seeds or training settings than {first.name}: give studies that differ only "
                "in their scans."
            )
        unseen = part["per_subject"].query("split == 'external'")
        if not set(study.kinds) <= set(unseen.loss):
            raise ValueError(f"{study.name} has no external scans under every loss: run `make report` of it again.")
    scored = {
        name: pd.concat([part[name] for part in parts], ignore_index=True).assign(study=first.name)
        for name in scoring.SCORED
    }
    if scored["per_subject"].duplicated(["loss", "seed", "centre", "subject"]).any():
        raise ValueError(f"Two of the studies have the same unseen scan: {', '.join(study.name for study in studies)}.")
    return scoring.summarise(scored, first.kinds)


def shared(study: Study) -> dict:
    """The settings in which studies on one page must agree: all but name, question, scans and splits."""
    apart = ("study", "question", "data", "split", "losses")
    settings = {key: value for key, value in study.raw.items() if key not in apart}
    return settings | {name: recipe.model_dump(exclude={"without"}) for name, recipe in study.recipes.items()}


def metrics(tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """The mean of every metric with its 95 % interval, and `better` or `worse` for a significant difference; one row per loss."""
    rows, pairs = of_losses(tables["summary"], split), tables["comparisons"].query("split == @split")
    cells = {"loss": rows.loss.map(title)}
    for name, metric in METRICS.items():
        differs = differing(pairs[pairs.metric == name], metric.higher_is_better)
        ends = rows[[f"{name}_{end}" for end in ("mean", "low", "high")]].to_numpy(float)
        cells[metric.title] = [
            f"{in_brackets(functools.partial(shown, name), *values)} {differs.get(loss, '')}".rstrip()
            for loss, values in zip(rows.loss, ends, strict=True)
        ]
    return pd.DataFrame(cells)


def at_equal_rates(scores: pd.DataFrame, split: str) -> pd.DataFrame:
    """The per cent of lesions detected at the rates of `wmhlib.evaluation.froc` with their 95 % intervals, one row per
    loss."""
    rows = of_losses(scores, split)
    cells = [
        in_brackets("{:.0f}".format, *(100 * value for value in (row.score, row.low, row.high)))
        for row in rows.itertuples()
    ]
    table = rows.assign(cell=cells, lesions=rows.lesions.map({"all": "all lesions", "small": answer.SMALL}))
    return table.pivot_table("cell", "loss", "lesions", aggfunc="first", sort=False).rename(index=title).reset_index()


def by_centre(centres: pd.DataFrame, split: str) -> pd.DataFrame:
    """The mean Dice of every loss at every centre, and the mean of the centres; no rows if there is one centre."""
    dice = of_losses(centres, split).pivot_table("dice_mean", "loss", "centre", sort=False)
    if len(dice.columns) < 2:
        return pd.DataFrame()
    dice["mean of the centres"] = dice.mean(axis=1)
    return dice.map("{:.2f}".format, na_action="ignore").rename(index=title).reset_index()


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
    """Write the page of each finished study, or one page of several, and the list of pages again."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.report.results", description=main.__doc__)
    parser.add_argument("config", nargs="+")
    parser.add_argument("--name", default="", help="write one page with this name, of all studies together")
    arguments = parser.parse_args()
    try:
        studies = [open_study(config) for config in arguments.config]
        several = {arguments.name: studies} if arguments.name else {study.name: [study] for study in studies}
        pages = {name: results_page(group, arguments.name) for name, group in several.items()}
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    for name, text in pages.items():
        with replacing(PAGES / f"{name}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"Wrote docs/results/{name}.md.")
    with replacing(PAGES.with_suffix(".md")) as temporary:
        temporary.write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
