"""A study's masks as scored tables: what notebook 5 computes once and every figure and sentence reads.

In flow the masks below `reports/<study>/masks/` and the references; out flows one row per (loss, seed, subject).
"""

import itertools
import json

import nibabel
import numpy as np
import pandas as pd
from skimage.transform import resize
from tqdm import tqdm

from wmhlib import inference, slices
from wmhlib.metrics import challenge_metrics, positive_class_density
from wmhlib.statistics import METRICS
from wmhlib.study import Study

THRESHOLD_SEED = 0  # a threshold has no seed; this stands in its column


def write_threshold_masks(study: Study, subjects: pd.DataFrame) -> tuple[float, float]:
    """Tune one global threshold on the training subjects and mark the unseen scans with it.

    Returns the level, as a share of each volume's maximum, and its mean Dice on the training subjects.
    """
    level, dice = inference.tune_threshold(subjects[subjects.split == "training"])
    for row in subjects[subjects.split.isin(["holdout", "external"])].itertuples():
        mask = inference.threshold_mask(row.flair, level)
        inference.save_image(mask, study.mask("global_threshold", THRESHOLD_SEED, row.subject))
    return level, dice


def score(study: Study, unseen: pd.DataFrame) -> pd.DataFrame:
    """Score every mask of the study: `per_subject.csv`.

    Returns
    -------
    DataFrame
        `study, loss, seed, split, centre, subject`, the five figures of `challenge_metrics`,
        `positive_class_density_pct` of the reference and `predicted_density_pct` of the mask.

    Raises
    ------
    FileNotFoundError
        A loss and seed of the configuration was not trained yet; the message names the mask that is missing.
    """
    trainings = [
        *itertools.product(study.config["losses"], study.config["seeds"]),
        ("global_threshold", THRESHOLD_SEED),
    ]
    rows = []
    for (loss, seed), subject in tqdm(list(itertools.product(trainings, unseen.itertuples())), "score", unit="mask"):
        mask = study.mask(loss, seed, subject.subject)
        if not mask.is_file():
            raise FileNotFoundError(f"No mask at {mask}: run notebook 04_train with loss={loss} and seed={seed} first.")
        keys = (study.name, loss, seed, subject.split, subject.centre, subject.subject)
        rows.append(
            dict(zip(("study", "loss", "seed", "split", "centre", "subject"), keys, strict=True))
            | challenge_metrics(subject.reference, mask)
            | {
                "positive_class_density_pct": positive_class_density(subject.reference),
                "predicted_density_pct": positive_class_density(mask),
            }
        )
    return pd.DataFrame(rows)


def vgg19_origin(study: Study) -> dict:
    """Where the study's VGG19 weights came from, as notebook 3 wrote it."""
    return json.loads(study.discriminator.with_suffix(".json").read_text(encoding="utf-8"))


def caption(study: Study, per_subject: pd.DataFrame) -> str:
    """What a reader must know to read Table 1: subjects, seeds, weights, the rule for undefined figures."""
    counts = per_subject.groupby("split").subject.nunique()
    seeds = per_subject[per_subject.loss != "global_threshold"].seed.nunique()
    undefined = int(per_subject[list(METRICS)].isna().to_numpy().sum())
    return (
        f"Study {study.name}: {' and '.join(f'{count} {split}' for split, count in counts.items())} subjects, "
        f"{seeds} seed(s) a loss. Mean ± SD over subjects, seeds averaged first; in brackets the 95 % bootstrap interval "
        f"of the mean. Undefined figures are left out and counted ({undefined} here). "
        f"VGG19: {vgg19_origin(study)['source']}."
    )


def sample(study: Study, subjects: pd.DataFrame, name: str, losses: list[str], seed: int) -> dict:
    """One row of Figure 4: the slice of a subject with the largest reference area, with square pixels.

    Returns a dict of `grey` (i, j) in 0-1 and `masks`, name to boolean (i, j), `reference` first.
    """
    row = subjects.set_index("subject").loc[name]
    flair, reference = slices.read_flair(row.flair), np.asarray(slices.read_reference(row.reference).dataobj) > 0
    volume = flair.get_fdata(dtype=np.float32)
    k = int(reference.sum(axis=(0, 1)).argmax())
    filled = volume[..., k] > 0.2  # past the noise of air
    box = tuple(slice(part[0], part[-1] + 1) for part in (np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))))
    spacing = nibabel.affines.voxel_sizes(flair.affine)[:2]
    shape = np.round(np.array([side.stop - side.start for side in box]) * spacing / spacing.min()).astype(int)
    masks = {"reference": reference} | {
        loss: np.asarray(slices.canonical(study.mask(loss, seed, name)).dataobj) > 0 for loss in losses
    }
    grey = resize(volume[..., k][box], shape, order=1)
    return {
        "grey": np.clip(grey / np.percentile(grey, 99.5), 0, 1),
        "masks": {which: resize(mask[..., k][box].astype(bool), shape, order=0) for which, mask in masks.items()},
    }
