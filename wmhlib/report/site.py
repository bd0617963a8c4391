"""The report of a finished study: `run.json`, one HTML page per notebook, and the front page `index.html`.

Input: the executed notebooks, the tables and the records saved with the models. Output: files that a collaborator
without Python can open from a folder or an e-mail.
"""

from wmhlib.running import light  # noqa: F401, I001  Keras without TensorFlow

# isort: split
import argparse
from pathlib import Path

import pandas as pd

from wmhlib.cohort import fingerprint, load_cohort
from wmhlib.evaluation import published, records, scoring
from wmhlib.evaluation.names import UNTRAINED, colour, title
from wmhlib.report import answer, figures, pages, scoreboard
from wmhlib.report.captions import ceiling, table1_caption
from wmhlib.report.findings import findings
from wmhlib.report.pictures import disputed, looks, montage, sample
from wmhlib.running.files import write_json
from wmhlib.running.provenance import provenance
from wmhlib.study import Study, open_study

PAGES = {
    "01_explore_data": ("Scans, lesions and splits", "centres, grids, lesion loads, split; viewer for one scan"),
    "02_preprocess": (
        "From a scan to the network's input",
        "the network's input, and how much Dice is lost by resampling",
    ),
    "03_build_networks": ("The two networks and the losses", "generator, VGG19 discriminator, behaviour of each loss"),
    "04_train": ("Training", "training curves, validation slices"),
    "05_evaluate": ("Losses compared on unseen scans", "tables, every subject, samples; viewer for segmented scans"),
    "06_diagnose_minmax": ("The min-max game", "what happens when VGG19 is trained against the generator"),
}


SPLITS_IN_WORDS = {
    "holdout": "holdout: other subjects of the training centres",
    "external": "external: centres not used in training",
}
PUBLISHED_IN_WORDS = {
    "MICCAI holdout": "holdout of the WMH Challenge (MICCAI 2017)",
    "CAIN": "CAIN: the paper's external centres",
}
"""What the scans of a split are, in the front page's table."""


def page_list(study: Study) -> list[tuple[str, str, str]]:
    """(name of the executed notebook, title, one-line summary) of every page of the study, in reading order."""
    listed = []
    for name, (heading, line) in PAGES.items():
        if name == "04_train":
            listed += [(page, f"{heading}: {what}", line) for page, what in training_pages(study)]
        elif name != "06_diagnose_minmax" or study.has_game:
            listed.append((name, heading, line))
    return listed


def training_pages(study: Study) -> list[tuple[str, str]]:
    """(name of the executed notebook, loss and seed) of every training."""
    return [(f"04_train-{loss}-seed-{seed}", f"{title(loss)}, seed {seed}") for loss, seed in study.trainings]


def cards(study: Study) -> list[tuple[str, list[tuple[str, str]], str]]:
    """The entries of the front page: title, (file, text) of each link, one-line summary. All trainings share one."""
    several = len(study.config.seeds) > 1
    links = [(f"{page}.html", what if several else what.split(", seed")[0]) for page, what in training_pages(study)]
    of_page = {name: [(f"{name}.html", heading)] for name, heading, _ in page_list(study)} | {"04_train": links}
    return [(heading, of_page[name], line) for name, (heading, line) in PAGES.items() if name in of_page]


def run_record(study: Study) -> dict:
    """How the study's results were made, enough for `wmhlib.running.rerun`: configuration, scans, code, versions,
    devices, seeds, weights, and the outcome of each training."""
    keys = ("loss", "seed", "kept_epoch", "validation_dice", "seconds", "parameters", "backend", "devices", "commit")
    trainings, now = [], provenance()
    for record in records.trainings(study):
        row = {key: record[key] for key in (*keys, "precision")}
        trainings.append(row | ({} if record["versions"] == now["versions"] else {"versions": record["versions"]}))
    subjects = load_cohort(study)
    return {
        "study": study.name,
        "seeds": study.config.seeds,
        "scans": {"subjects": len(subjects), "sha256": fingerprint(subjects)},
        "features": records.origins(study),
        **now,
        "trainings": trainings,
        "configuration": study.raw,
    }


def warning(study: Study) -> str | None:
    """The warning at the top of every page if a feature network has random instead of pretrained weights; otherwise
    None."""
    origins = records.origins(study)
    random = [network for network in study.pretrained_taps if origins[network]["weights"] == "random"]
    parts = [
        f"random {network} features, not ImageNet's: {origins[network]['source'].rstrip('.')}" for network in random
    ]
    return f"The Siamese loss used {'; '.join(parts)}." if parts else None


def write_site(study: Study) -> Path:
    """Write `run.json`, every page and the front page of a study, after all its notebooks were run."""
    record, banner = run_record(study), warning(study)
    write_json(study.folder / "run.json", record)
    subjects, seeds = load_cohort(study), len(study.config.seeds)
    synthetic = subjects.flair.map(study.is_synthetic)
    about = answer.about(subjects, synthetic, seeds)
    listed = page_list(study)
    links = [("index.html", study.name), *((f"{name}.html", heading) for name, heading, _ in listed)]
    for name, heading, _ in listed:
        notebook = study.folder / "notebooks" / f"{name}.ipynb"
        pages.export_page(notebook, study.folder / f"{name}.html", heading, links, banner, about)

    tables, trainings = scoring.load_tables(study), [study.recipes[loss].training for loss in study.losses]
    per_subject = tables["per_subject"]
    split = answer.unseen_split(tables["summary"])
    only_synthetic = answer.unseen_is_synthetic(study, subjects, tables["summary"])
    scans = answer.unseen_scans(tables, [subjects], only_synthetic)
    trained = per_subject[~per_subject.loss.isin(UNTRAINED)]
    losses = study.losses
    own = tables["froc"][tables["froc"].loss.isin(losses)]
    sizes = tables["froc_by_size"][tables["froc_by_size"].loss.isin(losses)]
    drawn = [
        figures.froc(own, split).update_layout(
            title="Lesions detected and false positives at every threshold (large dots: 0.5)"
        ),
        figures.detection_by_size(sizes, split).update_layout(
            title="Lesions detected by size, at equal false positives"
        ),
        figures.metric_panels(trained, split).update_layout(title=f"Metrics of the {split} subjects"),
    ]
    table1 = published.readable(tables["table1"], teams=0)
    is_own = table1.index.get_level_values("Source") == "this study"
    own_rows = table1[is_own].droplevel("Source").rename(index=SPLITS_IN_WORDS, level="Data")
    if only_synthetic:
        own_rows = own_rows.drop(columns="Challenge rank ≈ ↓")  # it is defined for the challenge's scans
    board, ceilings = scoreboard.scoreboard(tables, losses), records.ceilings(study)
    board["note"] += f" {ceiling(ceilings[ceilings.split == split])}"
    pages.write_index(
        study.folder / "index.html",
        f"WMH segmentation study: {study.name}",
        study.config.question,
        findings(tables),
        {
            heading: rows.loc[:, (rows != "—").any()].to_html(escape=True, border=0)
            for heading, rows in (
                (f"This study{': synthetic scans' * only_synthetic}", own_rows),
                (
                    "Published results on other scans: the paper, and how human observers agree",
                    table1[~is_own].rename(index=PUBLISHED_IN_WORDS, level="Data"),
                ),
            )
        },
        drawn,
        cards(study),
        {key: value for key, value in record.items() if key != "trainings"}
        | {"trainings": {f"{row['loss']}, seed {row['seed']}": row for row in record["trainings"]}},
        banner,
        table1_caption(study, tables),
        about=about,
        scans=scans,
        headline=answer.headline(tables, scans),
        answers=answer.answers(tables, seeds, trainings, answer.one_kind(study, subjects)),
        looks=telling_look(study, subjects, trained[trained.split == split], losses),
        board=board,
        verdicts=[*answer.verdicts(tables), *answer.variants(tables)],
        cannot_say=answer.cannot_say(tables, seeds, only_synthetic, trainings),
    )
    return study.folder / "index.html"


def telling_look(study: Study, subjects: pd.DataFrame, per_subject: pd.DataFrame, losses: list[str]) -> dict:
    """The unseen scan on which losses differ most in lesion recall, or with the lowest recall of a single loss, and the mask of
    each loss and its mistakes, for the front page."""
    recall = per_subject[per_subject.loss.isin(losses)].pivot_table("lesion_recall", "subject", "loss")
    several = len(recall.columns) > 1
    apart = recall.max(axis=1) - recall.min(axis=1) if several else -recall.min(axis=1)
    name = apart.idxmax() if apart.notna().any() else per_subject.subject.iloc[0]
    row = subjects.set_index("subject").loc[name]
    origin = "synthetic, " if study.is_synthetic(row.flair) else ""
    why = "on which the losses differ most in" if several else "with the lowest"
    caption = (
        f"Subject {name} ({origin}centre {row.centre}): the unseen scan {why} lesion recall, at the threshold 0.5. A lesion is "
        "detected if one voxel of the mask overlaps it, in this slice or another. An extreme example, not evidence of a ranking."
    )
    return {
        "pictures": looks(disputed(study, subjects, name, losses, study.config.seeds[0])),
        "key": [(title(kind), colour(kind)) for kind in ("reference", "found", "missed", "false")],
        "caption": caption,
    }


def main() -> None:
    """Write a study's report, or the picture of its samples shown in the README."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.report.site", description=main.__doc__)
    parser.add_argument("config")
    parser.add_argument("--data", default="")
    parser.add_argument(
        "--picture", type=Path, help="write a PNG of external samples to this path instead of the report"
    )
    arguments = parser.parse_args()
    study = open_study(arguments.config, arguments.data)
    if not arguments.picture:
        write_site(study)
        return
    losses = list(study.recipes)
    subjects = load_cohort(study)
    chosen = subjects[subjects.split == "external"].subject.iloc[:3]
    rows = [sample(study, subjects, name, losses, study.config.seeds[0]) for name in chosen]
    montage(rows).save(arguments.picture)


if __name__ == "__main__":
    main()
