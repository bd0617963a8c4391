"""A study's masks as scored tables: what notebook 5 computes once and every figure and sentence reads.

In flow the masks below `reports/<study>/masks/`, human observers' masks where the data has them, and the references;
out flow one row per (loss, seed, subject), one per lesion, and the summaries of both.
"""

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from skimage.transform import resize
from tqdm import tqdm

from wmhlib import context, findings, froc, slices, statistics
from wmhlib.metrics import challenge_metrics, in_memory, lesion_records, positive_class_density, volumes_ml
from wmhlib.scans import save_image
from wmhlib.study import Study, replacing
from wmhlib.threshold import threshold_mask, tune_threshold

NO_SEED = 0
"""Stands in the seed column of what was not trained: the threshold, human observers."""


def write_threshold_masks(study: Study, subjects: pd.DataFrame) -> tuple[float, float]:
    """Tune one global threshold on the training subjects and mark the unseen scans with it.

    Returns the level, as a share of each volume's maximum, and its mean Dice on the training subjects.
    """
    level, dice = tune_threshold(subjects[subjects.split == "training"])
    for row in subjects[subjects.split.isin(["holdout", "external"])].itertuples():
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
    for observer, row in itertools.product(statistics.OBSERVERS, own):
        place = Path(row.reference).parent.relative_to(root)
        mask = study.data / "additional_annotations" / observer / place / "result.nii.gz"
        if mask.is_file():
            rows.append((observer, row.subject, mask))
    return pd.DataFrame(rows, columns=["loss", "subject", "mask"])


def _masks(study: Study, unseen: pd.DataFrame) -> list[tuple[str, int, object, Path]]:
    """(loss, seed, subject's row, mask) of everything that is scored; every mask is known to exist."""
    trainings = [*study.trainings, ("global_threshold", NO_SEED)]
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
        figures = challenge_metrics(reference, result) | {
            "positive_class_density_pct": density,
            "predicted_density_pct": positive_class_density(result),
        }
        lesions = lesion_records(reference, result)
        for place, (key, value) in enumerate(keys.items()):
            lesions.insert(place, key, value)
        rows.append((keys | figures, keys | volumes_ml(reference, result), lesions))
    return rows


def score(study: Study, unseen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Score every mask of the study, on both cores.

    Returns
    -------
    dict
        `per_subject`: `study, loss, seed, split, centre, subject`, the five figures of `challenge_metrics`,
        `positive_class_density_pct` of the reference and `predicted_density_pct` of the mask. `per_lesion`: `study`, the
        same keys and the columns of `lesion_records`, a row for every reference lesion and every false detection.
        `volumes`: `study`, the same keys, `reference_ml` and `predicted_ml` without other pathology. `operating_points`:
        `study`, the same keys and the columns of `wmhlib.metrics.operating_points`, of trained losses alone.

    Raises
    ------
    FileNotFoundError
        A loss and seed of the configuration was not trained yet; the message names what is missing.
    """
    masks, by_subject = _masks(study, unseen), {}
    for task in masks:
        by_subject.setdefault(task[2].subject, []).append(task)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # unzipping, most of the work, leaves the other core free
        scored = list(tqdm(pool.map(_score, by_subject.values()), "score", len(by_subject), unit="subject"))
    waiting = dict(zip(by_subject, map(iter, scored), strict=True))
    rows = [next(waiting[subject.subject]) for _, _, subject, _ in masks]  # in the order of the masks again
    figures, volumes, lesions = zip(*rows, strict=True)
    tables = {"per_subject": pd.DataFrame(figures), "volumes": pd.DataFrame(volumes)}
    tables["per_lesion"] = pd.concat([some for some in lesions if len(some)] or lesions[:1], ignore_index=True)
    tables["operating_points"] = froc.read_points(study, unseen)
    for table in tables.values():
        table.insert(0, "study", study.name)
    return tables


def summarise(scored: dict[str, pd.DataFrame], kinds: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Every table that figures and sentences read, from what `score` gives; all are saved under `tables/`.

    `kinds` maps the study's entries to the loss each of them is (`Study.kinds`).
    """
    per_subject, per_lesion = scored["per_subject"], scored["per_lesion"]
    summary = statistics.summary(per_subject)
    return scored | {
        "table1": context.table1(summary),
        "table2": context.table2(summary, kinds),
        "summary": summary,
        "centres": statistics.summary(per_subject, by_centre=True),
        "comparisons": statistics.comparisons(per_subject, kinds=kinds),
        "ablations": statistics.ablations(per_subject, kinds),
        "volume_agreement": statistics.volume_agreement(scored["volumes"]),
        "detection_by_size": statistics.detection_by_size(per_lesion),
        "false_detections": statistics.false_detections(per_lesion, per_subject),
        "generalisation_gap": statistics.generalisation_gap(per_subject),
        "froc": froc.curves(scored["operating_points"]),
        "froc_scores": froc.scores(scored["operating_points"]),
        "froc_comparisons": froc.comparisons(scored["operating_points"], kinds),
    }


def save_tables(study: Study, tables: dict[str, pd.DataFrame]) -> None:
    """Write `tables/<name>.csv`, each whole or not at all."""
    for name, table in tables.items():
        with replacing(study.tables / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)


def load_tables(study: Study) -> dict[str, pd.DataFrame]:
    """What `save_tables` wrote; FileNotFoundError says what to run where it did not."""
    names = [
        "per_subject",
        "volumes",
        "per_lesion",
        "table1",
        "table2",
        "summary",
        "centres",
        "comparisons",
        "ablations",
    ]
    names += ["volume_agreement", "detection_by_size", "false_detections", "generalisation_gap"]
    names += ["operating_points", "froc", "froc_scores", "froc_comparisons"]
    missing = [name for name in names if not (study.tables / f"{name}.csv").is_file()]
    if missing:
        raise FileNotFoundError(f"No {missing[0]}.csv in {study.tables}: run notebook 05_evaluate of this study first.")
    return {name: slices.read_table(study.tables / f"{name}.csv") for name in names}


def trainings(study: Study) -> list[dict]:
    """`training.json` of every loss and seed, as `wmhlib.training.train` wrote it."""
    paths = [study.model(loss, seed) / "training.json" for loss, seed in study.trainings]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def by_depth(study: Study) -> pd.DataFrame:
    """The grid search over dense blocks (paper 2.1), from a study with variants of `generator: depth`.

    Returns
    -------
    DataFrame
        By `dense blocks`, on the way down: `trainings`, their mean `validation Dice`, the `lowest` and the `highest`. No rows
        where a training of the study is not done.
    """
    if not all((study.model(loss, seed) / "training.json").is_file() for loss, seed in study.trainings):
        return pd.DataFrame()
    table = pd.DataFrame(trainings(study))
    blocks = table.recipe.map(lambda recipe: recipe["generator"]["depth"]).rename("dense blocks")
    columns = {"trainings": "size", "validation Dice": "mean", "lowest": "min", "highest": "max"}
    return table.groupby(blocks).validation_dice.agg(**columns)


def diary(study: Study, loss: str, seed: int) -> pd.DataFrame:
    """What happened step by step in a training whose loss looks at VGG19 (`wmhlib.trainers.Diary`)."""
    path = study.model(loss, seed) / "diary.csv"
    if not path.is_file():
        raise FileNotFoundError(f"No diary at {path}: run notebook 04_train with loss={loss} and seed={seed} first.")
    return pd.read_csv(path)


def vgg19_origin(study: Study) -> dict:
    """Where the study's VGG19 weights came from, as notebook 3 wrote it."""
    return json.loads(study.discriminator.with_suffix(".json").read_text(encoding="utf-8"))


def ceilings(study: Study) -> pd.DataFrame:
    """The highest Dice that slices of the study's size allow, per subject, as notebook 2 wrote it."""
    return slices.read_table(study.tables / "ceilings.csv")


def caption(study: Study, tables: dict[str, pd.DataFrame]) -> str:
    """What a reader must know to read Table 1: subjects, seeds, weights, the rule for undefined figures, the ceiling."""
    counts = tables["summary"].groupby("split", sort=False).subjects.max()
    return (
        f"Study {study.name}: {' and '.join(f'{count} {split}' for split, count in counts.items())} subjects, "
        f"{len(study.config['seeds'])} seed(s) a loss. Mean ± SD over subjects, seeds averaged first; in brackets the 95 % "
        f"bootstrap interval of the mean over subjects and seeds; ★ the best mean. {findings.undefined(tables['summary'])} "
        f"{findings.ceiling(ceilings(study))} "
        "The rank score (0 best, 1 worst of the challenge's teams) is approximate, and compares only for scans of the "
        "challenge." + (f" VGG19: {vgg19_origin(study)['source']}." if study.taps else "")
    )


def sample(study: Study, subjects: pd.DataFrame, name: str, losses: list[str], seed: int) -> dict:
    """One row of Figure 4: the slice of a subject with the largest reference area (most tissue, where there is no lesion),
    cut to the head, with square pixels.

    Returns a dict of `grey` (i, j) in 0-1 and `masks`, name to boolean (i, j), `reference` first.
    """
    row = subjects.set_index("subject").loc[name]
    flair, reference = slices.read_flair(row.flair), np.asarray(slices.read_reference(row.reference).dataobj) > 0
    volume = flair.get_fdata(dtype=np.float32)
    areas = reference.sum(axis=(0, 1)) if reference.any() else (volume > slices.TISSUE).sum(axis=(0, 1))
    k = int(areas.argmax())
    box = slices.box_of(flair, "head")
    spacing = nibabel.affines.voxel_sizes(flair.affine)[:2]
    shape = np.round(np.ptp(box, axis=1) * spacing / spacing.min()).astype(int)
    masks = {"reference": reference} | {
        loss: np.asarray(slices.canonical(study.mask(loss, seed, name)).dataobj) > 0 for loss in losses
    }
    grey = resize(slices.cut_out(volume[..., k], box), shape, order=1)
    return {
        "grey": np.clip(grey / np.percentile(grey, 99.5), 0, 1),
        "masks": {
            which: resize(slices.cut_out(mask[..., k].astype(bool), box), shape, order=0)
            for which, mask in masks.items()
        },
    }
