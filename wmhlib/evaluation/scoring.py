"""Score a study's masks: notebook 05 computes the tables once, and all figures and sentences use them.

Input: the masks below `reports/<study>/masks/`, human observers' masks if available, and the references. Output: one
row per (loss, seed, subject), one row per lesion, and summaries of both.
"""

import itertools
from collections.abc import Collection
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from wmhlib.evaluation import froc, published, records, tables, thresholds
from wmhlib.evaluation.lesions import lesion_records, operating_points, volumes_ml
from wmhlib.evaluation.names import OBSERVERS, SPLITS
from wmhlib.evaluation.threshold import threshold_mask, tune_threshold
from wmhlib.inference import load_generator, mask_of, probability
from wmhlib.intake.masks import in_memory
from wmhlib.intake.nifti import save_image
from wmhlib.intake.roles import person
from wmhlib.metrics import MaskPair, measured, positive_class_density
from wmhlib.running.checkpoints import finish
from wmhlib.running.files import read_table, write_table
from wmhlib.running.parallel import in_threads
from wmhlib.study import Study

NO_SEED = 0
"""The seed of rows without training: the global threshold and human observers."""


def write_threshold_masks(study: Study, subjects: pd.DataFrame) -> tuple[float, float]:
    """Tune one global threshold on the training subjects and segment the unseen scans with it.

    Returns the level, as a fraction of each volume's maximum, and its mean Dice on the training subjects.
    """
    level, dice = tune_threshold(subjects[subjects.split == "training"])
    for row in subjects[subjects.split.isin(SPLITS)].itertuples():
        mask = threshold_mask(row.flair, level)
        save_image(mask, study.mask("global_threshold", NO_SEED, row.subject))
    return level, dice


def observers(study: Study, unseen: pd.DataFrame) -> pd.DataFrame:
    """Masks of further human observers, if the data has them: `loss` (`observer_o3`, …), `subject`, `mask` (a path).

    The challenge's release has them as
    `additional_annotations/<observer>/training/<site>[/<scanner>]/<id>/result.nii.gz`. They have no label 2; scoring
    removes that of the reference from both masks.
    """
    rows, root = [], study.data.resolve()
    own = [row for row in unseen.itertuples() if Path(row.reference).is_relative_to(root)]
    for observer, row in itertools.product(OBSERVERS, own):
        place = Path(row.reference).parent.relative_to(root)
        folder = study.data / "additional_annotations" / observer / place
        masks = [folder / name for name in ("result.nii.gz", "result.nii") if (folder / name).is_file()]
        rows += [(observer, row.subject, mask) for mask in masks[:1]]
    return pd.DataFrame(rows, columns=["loss", "subject", "mask"])


def segment_unseen(
    study: Study, loss: str, seed: int, unseen: pd.DataFrame, validation: pd.DataFrame | None = None
) -> None:
    """Segment the unseen scans with a finished training: a mask per scan, and the operating points of all thresholds.

    For the `validation` subjects, which choose a threshold, only the operating points are saved.

    Raises
    ------
    ValueError
        The training, or the network that it started from, has seen one of the subjects.
    """
    seen = set(map(person, records.subjects_seen(study, loss, seed)))
    if known := [subject for subject in unseen.subject if person(subject) in seen]:
        raise ValueError(
            f"{loss}, seed {seed} was trained or validated on {', '.join(known)}, which are now unseen subjects: run "
            "notebooks 01 to 04 of this study again."
        )
    names, start = records.seen_by_start(study, loss, seed)
    seen = set(map(person, names))
    if known := [subject for subject in unseen.subject if person(subject) in seen]:
        raise ValueError(
            f"{loss}, seed {seed} started from {start}, which was trained on subjects named {', '.join(known)}, as some unseen "
            "subjects are: leave these out, choose another training.start, or, if they are other people, remove "
            "subjects_seen from the training.json beside that file."
        )
    generator, points = load_generator(study.model(loss, seed) / "model.keras"), []
    for row in tqdm(unseen.itertuples(), "segment", len(unseen), unit="scan"):
        likely = probability(generator, row.flair)
        save_image(mask_of(likely), study.mask(loss, seed, row.subject))
        points.append(operating_points(row.reference, likely))
    froc.write_points(study, loss, seed, unseen, points)
    if validation is not None:
        points = [operating_points(row.reference, probability(generator, row.flair)) for row in validation.itertuples()]
        froc.write_points(study, loss, seed, validation, points, "validation")
    finish(study.model(loss, seed))


def segmented(study: Study, unseen: pd.DataFrame) -> list[tuple[str, int]]:
    """The trainings with masks of all unseen subjects, as (loss, seed)."""
    return [
        training
        for training in study.trainings
        if all(study.mask(*training, subject).is_file() for subject in unseen.subject)
    ]


def _masks(study: Study, unseen: pd.DataFrame, trainings: list[tuple[str, int]]) -> list[tuple[str, int, object, Path]]:
    """(loss, seed, subject's row, mask) of everything to score; FileNotFoundError if a mask does not exist."""
    subjects = {row.subject: row for row in unseen.itertuples()}
    tasks = [
        (loss, seed, row, study.mask(loss, seed, name))
        for (loss, seed), (name, row) in itertools.product(trainings, subjects.items())
    ]
    for loss, seed, _, mask in tasks:
        if not mask.is_file():
            raise FileNotFoundError(
                f"No mask found at {mask}: run notebook 04_train with loss={loss} and seed={seed} first."
            )
    people = observers(study, unseen)
    return tasks + [(row.loss, NO_SEED, subjects[row.subject], row.mask) for row in people.itertuples()]


def _score(tasks: list[tuple[str, int, object, Path]]) -> list[tuple[dict, dict, pd.DataFrame]]:
    """For each mask of one subject, its rows of `per_subject.csv` and `volumes.csv`, and its lesions."""
    rows, subject = [], tasks[0][2]
    reference = in_memory(subject.reference)
    density = positive_class_density(reference)
    for loss, seed, _, mask in tasks:
        result = in_memory(mask)
        keys = {"loss": loss, "seed": seed}
        keys |= {"split": subject.split, "centre": subject.centre, "subject": subject.subject}
        pair = MaskPair(reference, result)
        scores = measured(pair) | {
            "positive_class_density_pct": density,
            "predicted_density_pct": positive_class_density(result),
        }
        lesions = lesion_records(pair)
        for place, (key, value) in enumerate(keys.items()):
            lesions.insert(place, key, value)
        rows.append((keys | scores, keys | volumes_ml(pair), lesions))
    return rows


def score_masks(study: Study, unseen: pd.DataFrame, trainings: list[tuple[str, int]]) -> dict[str, pd.DataFrame]:
    """Score the masks of trainings (loss, seed) and of human observers, on all cores.

    Returns
    -------
    dict
        `per_subject`: `study, loss, seed, split, centre, subject`, every metric of `wmhlib.metrics.METRICS`,
        `positive_class_density_pct` of the reference and `predicted_density_pct` of the mask. `per_lesion`: `study`,
        the same keys and the columns of `lesion_records`, one row per reference lesion and per false positive.
        `volumes`: `study`, the same keys, `reference_ml` and `predicted_ml` without other pathology.

    Raises
    ------
    FileNotFoundError
        A mask is missing; the message names it.
    """
    masks = _masks(study, unseen, trainings)
    by_subject: dict[str, list] = {}
    for task in masks:
        by_subject.setdefault(task[2].subject, []).append(task)
    scored = in_threads(_score, list(by_subject.values()), "score", "subject")
    rows_of = {}
    for tasks, rows in zip(by_subject.values(), scored, strict=True):
        rows_of |= {
            (loss, seed, subject.subject): row for (loss, seed, subject, _), row in zip(tasks, rows, strict=True)
        }
    in_order = [rows_of[loss, seed, subject.subject] for loss, seed, subject, _ in masks]
    scores, volumes, lesions = zip(*in_order, strict=True)
    scored_tables = {"per_subject": pd.DataFrame(scores), "volumes": pd.DataFrame(volumes)}
    scored_tables["per_lesion"] = pd.concat(
        [table for table in lesions if len(table)] or lesions[:1], ignore_index=True
    )
    for table in scored_tables.values():
        table.insert(0, "study", study.name)
    return scored_tables


def score(study: Study, unseen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All scores of a study: `score_masks` of all trainings and the threshold, and the operating points of the
    trainings.

    The tables `operating_points` and `validation_points` have `study`, the same keys and the columns of
    `wmhlib.evaluation.lesions.operating_points`.

    Raises
    ------
    FileNotFoundError
        A loss and seed of the configuration is not trained yet; the message names the missing file.
    """
    scored = score_masks(study, unseen, [*study.trainings, ("global_threshold", NO_SEED)])
    for name, points in (
        ("operating_points", froc.read_points(study, unseen)), ("validation_points", froc.read_validation(study))
    ):  # fmt: skip
        points.insert(0, "study", study.name)
        scored[name] = points
    return scored


def choose(
    study: Study,
    unseen: pd.DataFrame,
    centres: Collection[str] = (),
    losses: Collection[str] = (),
    seeds: Collection[str] = (),
) -> tuple[Study, pd.DataFrame, str]:
    """A part of a study: these centres of the unseen scans, losses and seeds; all where none is named.

    Returns
    -------
    tuple
        The study with these losses and seeds alone, the rows of `unseen` of these centres, and what was chosen in words,
        which is empty where that is everything: only then may the study's tables be written.
    """
    every = {"centres": list(unseen.centre.unique()), "losses": list(study.recipes), "seeds": study.config.seeds}
    kept = {
        what: [name for name in names if not wanted or str(name) in wanted]
        for (what, names), wanted in zip(every.items(), (centres, losses, seeds), strict=True)
    }
    parts = [f"{what} {', '.join(map(str, kept[what]))}" for what in every if len(kept[what]) < len(every[what])]
    if parts:
        entries = dict.fromkeys(set(study.recipes) - set(kept["losses"]))
        study = study.changed(losses=entries, seeds=kept["seeds"])
    return study, unseen[unseen.centre.isin(kept["centres"])], "; ".join(parts)


def of_scans(scored: dict[str, pd.DataFrame], unseen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What `score` gives, of these scans alone. Validation subjects stay: they choose thresholds, and are not scored."""
    return {
        name: table if name == "validation_points" else table[table.subject.isin(unseen.subject)].reset_index(drop=True)
        for name, table in scored.items()
    }


SUMMARIES = {
    "summary": lambda so_far, kinds: tables.summary(so_far["per_subject"]),
    "table1": lambda so_far, kinds: published.table1(so_far["summary"]),
    "table2": lambda so_far, kinds: published.table2(so_far["summary"], kinds),
    "centres": lambda so_far, kinds: tables.summary(so_far["per_subject"], by_centre=True),
    "comparisons": lambda so_far, kinds: tables.comparisons(so_far["per_subject"], kinds=kinds),
    "ablations": lambda so_far, kinds: tables.ablations(so_far["per_subject"], kinds),
    "volume_agreement": lambda so_far, kinds: tables.volume_agreement(so_far["volumes"]),
    "detection_by_size": lambda so_far, kinds: tables.detection_by_size(so_far["per_lesion"]),
    "false_detections": lambda so_far, kinds: tables.false_detections(so_far["per_lesion"], so_far["per_subject"]),
    "generalisation_gap": lambda so_far, kinds: tables.generalisation_gap(so_far["per_subject"]),
    "froc": lambda so_far, kinds: froc.curves(so_far["operating_points"]),
    "froc_scores": lambda so_far, kinds: froc.scores(so_far["operating_points"]),
    "froc_by_size": lambda so_far, kinds: froc.by_size(so_far["operating_points"]),
    "own_thresholds": lambda so_far, kinds: thresholds.own_thresholds(
        so_far["operating_points"], so_far["validation_points"]
    ),
    "calibration": lambda so_far, kinds: thresholds.calibration(so_far["operating_points"]),
    "froc_comparisons": lambda so_far, kinds: froc.comparisons(so_far["operating_points"], kinds),
}
"""Every summary table by name, from the earlier tables and the losses of the study's entries (`Study.kinds`)."""

SCORED = ("per_subject", "volumes", "per_lesion", "operating_points", "validation_points")
"""The tables of `score`."""


def summarise(scored: dict[str, pd.DataFrame], kinds: dict[str, str]) -> dict[str, pd.DataFrame]:
    """All tables for figures and sentences, from the output of `score`; they are saved under `tables/`."""
    so_far = dict(scored)
    for name, summary in SUMMARIES.items():
        so_far[name] = summary(so_far, kinds)
    return so_far


def save_tables(study: Study, found: dict[str, pd.DataFrame]) -> None:
    """Write `tables/<name>.csv`; an interruption leaves no partial file."""
    for name, table in found.items():
        write_table(study.tables / f"{name}.csv", table)


def load_tables(study: Study) -> dict[str, pd.DataFrame]:
    """The tables written by `save_tables`; FileNotFoundError, which says what to run, if one is missing."""
    names = [*SCORED, *SUMMARIES]
    if missing := [name for name in names if not (study.tables / f"{name}.csv").is_file()]:
        raise FileNotFoundError(f"No {missing[0]}.csv in {study.tables}: run notebook 05_evaluate of this study first.")
    return {name: read_table(study.tables / f"{name}.csv") for name in names}
