"""A finished study as a site: `run.json`, one HTML page a notebook, and `index.html` in front.

In flow the executed notebooks, the tables and the records beside the models; out flow files that a collaborator
without Python can open from a folder or an e-mail.
"""

import argparse
from pathlib import Path

from wmhlib import context, evaluation, figures, findings, report, statistics
from wmhlib.cohort import fingerprint, load_cohort
from wmhlib.study import Study, open_study, provenance, write_json

PAGES = {
    "01_explore_data": ("Explore the data", "centres, grids, lesion loads, split; look into a scan"),
    "02_preprocess": ("Preprocess", "what the network sees, and what resampling costs"),
    "03_build_networks": ("Build the networks", "generator, VGG19 discriminator, what each loss rewards"),
    "04_train": ("Train", "curves, validation slices"),
    "05_evaluate": ("Evaluate", "tables, every subject, samples; look into a segmented scan"),
    "06_diagnose_minmax": ("Diagnose the min-max game", "what happens when VGG19 plays against the generator"),
}


def page_list(study: Study) -> list[tuple[str, str, str]]:
    """(executed notebook's name, title, one line on it) of every page of the study, in reading order."""
    pages = []
    for name, (title, line) in PAGES.items():
        if name == "04_train":
            for loss, seed in study.trainings:
                pages.append((f"{name}-{loss}-seed-{seed}", f"Train: {statistics.LOSSES[loss]}, seed {seed}", line))
        elif name != "06_diagnose_minmax" or study.has_game:
            pages.append((name, title, line))
    return pages


def run_record(study: Study) -> dict:
    """What made the study's results, enough for `wmhlib.rerun`: configuration, scans, code, versions, devices, seeds,
    weights; and how the trainings went."""
    keys = ("loss", "seed", "kept_epoch", "validation_dice", "seconds", "parameters", "backend", "devices", "commit")
    trainings, present = [], provenance()
    for record in evaluation.trainings(study):
        row = {key: record[key] for key in keys} | {"precision": record["recipe"]["training"]["precision"]}
        trainings.append(row | ({} if record["versions"] == present["versions"] else {"versions": record["versions"]}))
    subjects = load_cohort(study)
    return {
        "study": study.name,
        "seeds": study.config["seeds"],
        "scans": {"subjects": len(subjects), "sha256": fingerprint(subjects)},
        "vgg19": evaluation.vgg19_origin(study),
        **present,
        "trainings": trainings,
        "configuration": study.config,
    }


def write_site(study: Study) -> Path:
    """Write `run.json`, every page and the front page of a study whose notebooks have all been run."""
    record = run_record(study)
    write_json(study.folder / "run.json", record)
    banner = None
    if record["vgg19"]["weights"] == "random" and study.taps:
        banner = f"The Siamese loss used random VGG19 features, not ImageNet's: {record['vgg19']['source']}."
    pages = page_list(study)
    links = [("index.html", study.name), *((f"{name}.html", title) for name, title, _ in pages)]
    for name, title, _ in pages:
        notebook = study.folder / "notebooks" / f"{name}.ipynb"
        report.export_page(notebook, study.folder / f"{name}.html", title, links, banner)

    tables = evaluation.load_tables(study)
    per_subject = tables["per_subject"]
    split = "external" if (per_subject.split == "external").any() else "holdout"
    trained = per_subject[~per_subject.loss.isin(statistics.UNTRAINED)]
    own = tables["froc"][[study.kinds[loss] == loss for loss in tables["froc"].loss]]  # without variants
    pictures = [
        figures.metric_panels(trained, split).update_layout(title=f"The five figures of the {split} subjects"),
        figures.froc(own, split).update_layout(
            title=f"Lesions found by false detections as the cut moves, {split} subjects; large: the cut at one half"
        ),
    ]
    report.write_index(
        study.folder / "index.html",
        f"WMH segmentation study: {study.name}",
        study.config["question"],
        findings.findings(tables),
        context.readable(tables["table1"], teams=1).to_html(escape=True, border=0),
        pictures,
        [(f"{name}.html", title, line) for name, title, line in pages],
        {key: value for key, value in record.items() if key != "trainings"}
        | {"trainings": {f"{one['loss']}, seed {one['seed']}": one for one in record["trainings"]}},
        banner,
        evaluation.caption(study, tables),
    )
    return study.folder / "index.html"


def main() -> None:
    """Write a study's report, or the picture of its samples that the README shows."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.site", description=main.__doc__)
    parser.add_argument("config")
    parser.add_argument("--data", default="")
    parser.add_argument("--picture", type=Path, help="write this PNG of the external samples instead of the report")
    arguments = parser.parse_args()
    study = open_study(arguments.config, arguments.data)
    if not arguments.picture:
        write_site(study)
        return
    losses = list(study.config["losses"])
    subjects = load_cohort(study)
    chosen = subjects[subjects.split == "external"].subject.iloc[:3]
    rows = [evaluation.sample(study, subjects, name, losses, study.config["seeds"][0]) for name in chosen]
    figures.montage(rows).save(arguments.picture)


if __name__ == "__main__":
    main()
