"""A study's masks as scored tables: what notebook 05 computes once and every figure and sentence reads.

Input: the masks below `reports/<study>/masks/`, human observers' masks where the data has them, and the references.
Output: one row per (loss, seed, subject), one per lesion, and the summaries of both.
"""

import itertools
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
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
from wmhlib.study import Study

NO_SEED = 0
"""Stands in the seed column of what was not trained: the threshold, human observers."""


def write_threshold_masks(study: Study, subjects: pd.DataFrame) -> tuple[float, float]:
    """Tune one global threshold on the training subjects and mark the unseen scans with it.

    Returns the level, as a share of each volume's maximum, and its mean Dice on the training subjects.
    """
    level, dice = tune_threshold(subjects[subjects.split == "training"])
    for row in subjects[subjects.split.isin(SPLITS)].itertuples():
        mask = threshold_mask(row.flair, level)
        save_image(mask, study.mask("global_threshold", NO_SEED, row.subject))
    return level, dice


def observers(study: Study, unseen: pd.DataFrame) -> pd.DataFrame:
    """Masks of further human observers, where the data has them: `loss` (`observer_o3`, …), `subject`, `mask` (a path).

    The challenge's release keeps them as `additional_annotations/<observer>/training/<site>[/<scanner>]/<id>/result.nii.gz`.
    They lack label 2; scoring cuts the reference's out of both masks.
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
    """Segment the unseen scans with a finished training: a mask per scan, and what every other threshold would detect. Of
    the `validation` subjects, if given, the latter alone: they choose a threshold.

    Raises
    ------
    ValueError
        The training has seen one of the subjects, since the splits were others then.
    """
    seen = set(map(person, records.subjects_seen(study, loss, seed)))
    if known := [subject for subject in unseen.subject if person(subject) in seen]:
        raise ValueError(
            f"{loss}, seed {seed} was trained or validated on {', '.join(known)}, which the cohort now keeps from training: "
            "run notebooks 01 to 04 of this study again."
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
    """The trainings whose masks are all there, as (loss, seed)."""
    return [own for own in study.trainings if all(study.mask(*own, subject).is_file() for subject in unseen.subject)]


def _masks(study: Study, unseen: pd.DataFrame, trainings: list[tuple[str, int]]) -> list[tuple[str, int, object, Path]]:
    """(loss, seed, subject's row, mask) of everything that is scored; every mask is known to exist."""
    subjects = {row.subject: row for row in unseen.itertuples()}
    found = [
        (loss, seed, row, study.mask(loss, seed, name))
        for (loss, seed), (name, row) in itertools.product(trainings, subjects.items())
    ]
    for loss, seed, _, mask in found:
        if not mask.is_file():
            raise FileNotFoundError(f"No mask at {mask}: run notebook 04_train with loss={loss} and seed={seed} first.")
    people = observers(study, unseen)
    return found + [(row.loss, NO_SEED, subjects[row.subject], row.mask) for row in people.itertuples()]


def _score(tasks: list[tuple[str, int, object, Path]]) -> list[tuple[dict, dict, pd.DataFrame]]:
    """Of each mask of one subject its rows for `per_subject.csv` and `volumes.csv`, and its lesions."""
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
        `positive_class_density_pct` of the reference and `predicted_density_pct` of the mask. `per_lesion`: `study`, the
        same keys and the columns of `lesion_records`, a row for every reference lesion and every false positive.
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
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # unzipping, most of the work, leaves the other cores free
        scored = list(tqdm(pool.map(_score, by_subject.values()), "score", len(by_subject), unit="subject"))
    rows_of = {}
    for tasks, rows in zip(by_subject.values(), scored, strict=True):
        rows_of |= {
            (loss, seed, subject.subject): row for (loss, seed, subject, _), row in zip(tasks, rows, strict=True)
        }
    in_order = [rows_of[loss, seed, subject.subject] for loss, seed, subject, _ in masks]
    scores, volumes, lesions = zip(*in_order, strict=True)
    found = {"per_subject": pd.DataFrame(scores), "volumes": pd.DataFrame(volumes)}
    found["per_lesion"] = pd.concat([table for table in lesions if len(table)] or lesions[:1], ignore_index=True)
    for table in found.values():
        table.insert(0, "study", study.name)
    return found


def score(study: Study, unseen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Everything of a study that is scored: `score_masks` of all trainings and the threshold; and `operating_points` and
    `validation_points`, of `study`, the same keys and the columns of `wmhlib.evaluation.lesions.operating_points`, of the
    trainings alone.

    Raises
    ------
    FileNotFoundError
        A loss and seed of the configuration was not trained yet; the message names what is missing.
    """
    found = score_masks(study, unseen, [*study.trainings, ("global_threshold", NO_SEED)])
    for name, points in (
        ("operating_points", froc.read_points(study, unseen)), ("validation_points", froc.read_validation(study))
    ):  # fmt: skip
        points.insert(0, "study", study.name)
        found[name] = points
    return found


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
    "summary": lambda found, kinds: tables.summary(found["per_subject"]),
    "table1": lambda found, kinds: published.table1(found["summary"]),
    "table2": lambda found, kinds: published.table2(found["summary"], kinds),
    "centres": lambda found, kinds: tables.summary(found["per_subject"], by_centre=True),
    "comparisons": lambda found, kinds: tables.comparisons(found["per_subject"], kinds=kinds),
    "ablations": lambda found, kinds: tables.ablations(found["per_subject"], kinds),
    "volume_agreement": lambda found, kinds: tables.volume_agreement(found["volumes"]),
    "detection_by_size": lambda found, kinds: tables.detection_by_size(found["per_lesion"]),
    "false_detections": lambda found, kinds: tables.false_detections(found["per_lesion"], found["per_subject"]),
    "generalisation_gap": lambda found, kinds: tables.generalisation_gap(found["per_subject"]),
    "froc": lambda found, kinds: froc.curves(found["operating_points"]),
    "froc_scores": lambda found, kinds: froc.scores(found["operating_points"]),
    "own_thresholds": lambda found, kinds: thresholds.own_thresholds(
        found["operating_points"], found["validation_points"]
    ),
    "calibration": lambda found, kinds: thresholds.calibration(found["operating_points"]),
    "froc_comparisons": lambda found, kinds: froc.comparisons(found["operating_points"], kinds),
}
"""Every summary table by its name, from the tables before it and the loss that each entry of the study is (`Study.kinds`)."""

SCORED = ("per_subject", "volumes", "per_lesion", "operating_points", "validation_points")
"""The tables that `score` gives."""


def summarise(scored: dict[str, pd.DataFrame], kinds: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Every table that figures and sentences read, from what `score` gives; all are saved under `tables/`."""
    found = dict(scored)
    for name, summary in SUMMARIES.items():
        found[name] = summary(found, kinds)
    return found


def save_tables(study: Study, found: dict[str, pd.DataFrame]) -> None:
    """Write `tables/<name>.csv`, each whole or not at all."""
    for name, table in found.items():
        write_table(study.tables / f"{name}.csv", table)


def load_tables(study: Study) -> dict[str, pd.DataFrame]:
    """What `save_tables` wrote; FileNotFoundError says what to run where it did not."""
    names = [*SCORED, *SUMMARIES]
    if missing := [name for name in names if not (study.tables / f"{name}.csv").is_file()]:
        raise FileNotFoundError(f"No {missing[0]}.csv in {study.tables}: run notebook 05_evaluate of this study first.")
    return {name: read_table(study.tables / f"{name}.csv") for name in names}
