"""Make the bundled network from a finished study: `model.keras`, its training range and its model card.

    python -m wmhlib.apply.model_card config/transfer.yaml
    python -m wmhlib.apply.model_card config/transfer.yaml --measure-again

The second command needs no training: it measures the present network again, after a change of how scans are segmented.
The threshold is chosen on the study's synthetic holdout subjects. The metrics are measured on its external scans, which
are real if `data/real` has any. As in notebook 07, probabilities are averaged over the scan and its mirror image.
"""

import argparse
import datetime
import shutil
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.apply.lesions import REGIONS
from wmhlib.apply.structures import structures_of
from wmhlib.apply.suitability import AGREEMENT, agreement
from wmhlib.cohort import load_cohort
from wmhlib.evaluation.lesions import SMALL_MM3, lesion_records
from wmhlib.evaluation.threshold import threshold_mask, tune_threshold
from wmhlib.inference import BUNDLED, load_generator, mask_of, prepared, two_looks
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.intake.grids import Volume
from wmhlib.intake.masks import read_pair_of_masks
from wmhlib.intake.phantom import cohort_recipe
from wmhlib.metrics import CHALLENGE, METRICS, MaskPair
from wmhlib.report.pages import templates
from wmhlib.running.files import PathLike, read_json, read_table, replacing, sha256, write_json
from wmhlib.study import Study, open_study

CUTS = np.arange(0.1, 0.91, 0.05).round(2)
"""Candidate thresholds."""


def dice_by_threshold(reference: Volume, likely: Volume) -> np.ndarray:
    """Dice with the reference at each of the thresholds `CUTS`: (threshold,); NaN where both masks are empty."""
    lesion, values, *_ = read_pair_of_masks(reference, likely, foreground=CUTS[0])
    both = [(lesion & (values >= threshold)).sum() for threshold in CUTS]
    sizes = [lesion.sum() + (values >= threshold).sum() for threshold in CUTS]
    return 2 * np.array(both) / np.where(sizes, sizes, np.nan)


def looks_inside(network: keras.Model, flair: PathLike) -> tuple[nibabel.Nifti1Image, list[np.ndarray]]:
    """The mean probability and the two looks of a scan inside the skull, as notebook 07 computes them."""
    seen = prepared(network, flair)
    return two_looks(network, seen, structures_of(seen).intracranial)


def best_threshold(network: keras.Model, subjects: pd.DataFrame) -> tuple[float, np.ndarray]:
    """The threshold chosen on the rows of a cohort table, and Dice (subject, threshold) at every threshold of `CUTS`,
    of the subjects that have one at each.

    The chosen threshold is the one nearest to 0.5 whose mean Dice is at most one standard error (of the paired
    differences) below the best, because a few subjects cannot distinguish more (the one-standard-error rule of Breiman
    et al. 1984, Classification and Regression Trees). ValueError if no subject has a lesion.
    """
    scores = np.array(
        [
            dice_by_threshold(row.reference, looks_inside(network, row.flair)[0])
            for row in tqdm(subjects.itertuples(), "threshold", len(subjects), unit="scan")
        ]
    )
    known = scores[~np.isnan(scores).any(axis=1)]  # no Dice where subject and mask are without a lesion
    if not len(known):
        raise ValueError("No holdout subject has a lesion, so no threshold can be chosen: raise split.holdout.")
    return nearest_to_half(known), known


def nearest_to_half(known: np.ndarray) -> float:
    """The threshold of `CUTS` chosen by the rule of `best_threshold`, from Dice (subject, threshold) without NaN."""
    behind = known[:, [known.mean(axis=0).argmax()]] - known
    error = behind.std(axis=0, ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0
    good = CUTS[behind.mean(axis=0) <= error + 1e-9]
    return float(good[np.abs(good - 0.5).argmin()])


def figures(network: keras.Model, subjects: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The metrics, lesions detected by size, and false positives of each external scan: one row per scan."""
    rows = []
    for row in tqdm(subjects.itertuples(), "external scans", len(subjects), unit="scan"):
        likely, looks = looks_inside(network, row.flair)
        pair = MaskPair(row.reference, mask_of(likely, threshold))
        lesions = lesion_records(pair)
        real = lesions[lesions.kind == "reference"]
        small = real.volume_mm3 < SMALL_MM3
        rows.append(
            {"centre": row.centre, "subject": row.subject}
            | {name: METRICS[name].of(pair) for name in CHALLENGE}
            | {"small": small.sum(), "small_found": real.found[small].sum()}
            | {"large": (~small).sum(), "large_found": real.found[~small].sum()}
            | {"false_positives": len(lesions) - len(real)}
            | {"mirror_dice": agreement(*(look >= threshold for look in looks))}
        )
    return pd.DataFrame(rows)


def dice_of_global_threshold(subjects: pd.DataFrame) -> np.ndarray:
    """For each row of a cohort table, the Dice of one brightness threshold that is tuned on the other centres' scans; NaN
    without other centres."""
    scores = pd.Series(np.nan, subjects.index)
    for centre, scans in subjects.groupby("centre"):
        others = subjects[subjects.centre != centre]
        if others.empty:
            continue
        level, _ = tune_threshold(others)
        for row in scans.itertuples():
            scores[row.Index] = METRICS["dice"].of(MaskPair(row.reference, threshold_mask(row.flair, level)))
    return scores.to_numpy()


def by_centre(scans: pd.DataFrame) -> pd.DataFrame:
    """The rows of `figures` as shown in the model card: one row per centre, and the mean of the centres."""
    groups = scans.groupby("centre")
    means = groups[[*CHALLENGE, "false_positives"]].mean()
    counts = groups[["small", "small_found", "large", "large_found"]].sum()
    table = pd.concat([means, means.mean().to_frame("mean of the centres").T])
    shown = pd.DataFrame({"scans": groups.size()}).reindex(table.index)
    shown["scans"] = shown.scans.fillna(groups.size().sum()).astype(int).astype(str)
    for name in CHALLENGE:
        shown[METRICS[name].title] = table[name].map(f"{{:.{METRICS[name].digits}f}}".format)
    shown["false positives per scan"] = table.false_positives.map("{:.1f}".format)
    for size, title in (("small", f"lesions below {SMALL_MM3:g} mm³ detected"), ("large", "larger lesions detected")):
        pairs = pd.concat([counts, counts.sum().to_frame("mean of the centres").T]).astype(int)
        shown[title] = [f"{hits} of {total}" for hits, total in zip(pairs[f"{size}_found"], pairs[size], strict=True)]
    return shown.rename_axis("centre").reset_index()


FACTS = ("loss", "seed", "parameters", "training_slices", "machine", "commit")
"""The keys of a study's `training.json` that are bundled with the network."""


def bring(study: Study, folder: PathLike) -> None:
    """Copy the network of a study's first loss and first seed, its training range and `FACTS` to a folder.

    Raises
    ------
    FileNotFoundError
        The network is not trained yet.
    """
    folder, model = Path(folder), study.model(next(iter(study.recipes)), study.config.seeds[0]) / "model.keras"
    load_generator(model)
    folder.mkdir(exist_ok=True)
    for name in ("model.keras", "training_range.json"):
        with replacing(folder / name) as temporary:
            shutil.copyfile(model.with_name(name), temporary)
    record = read_json(model.with_name("training.json"))
    facts = {key: record[key] for key in FACTS} | {"minutes": round(record["seconds"] / 60), "made": _today()}
    training = next(iter(study.recipes.values())).training
    facts |= {"steps": training.epochs * training.steps_per_epoch, "heads": cohort_recipe(study.data)}
    write_json(folder / "training.json", facts)


def _today() -> str:
    return datetime.date.today().isoformat()


def measure(study: Study, folder: PathLike) -> None:
    """Choose the threshold of the network in a folder, measure it, and write its model card.

    Raises
    ------
    ValueError
        The study has no holdout subjects to choose the threshold on, or its synthetic heads are of another recipe than
        those that the network was trained on.
    """
    folder = Path(folder)
    record = read_json(folder / "training.json")
    if (heads_now := cohort_recipe(study.data)) != record["heads"]:
        raise ValueError(
            f"The network in {folder} was trained on synthetic heads of recipe {record['heads']}, but those of "
            f"{study.data} are of recipe {heads_now}: check out commit {record['commit']} to measure it again."
        )
    cohort, network = load_cohort(study), load_generator(folder / "model.keras")
    holdout = cohort[cohort.split == "holdout"]
    if holdout.empty:
        raise ValueError(f"{study.name} has no holdout subjects to choose the threshold on: set split.holdout.")
    threshold, known = best_threshold(network, holdout)
    external = cohort[cohort.split == "external"]
    scans = figures(network, external, threshold).assign(global_threshold_dice=dice_of_global_threshold(external))
    write_json(folder / "training_range.json", read_json(folder / "training_range.json") | {"threshold": threshold})
    scans.round(4).to_csv(folder / "figures.csv", index=False)
    heads = read_table(folder / "structures.csv")
    text = templates.get_template("model_card.md.j2").render(
        study=study.name,
        record=record,
        recipe=next(iter(study.recipes.values())),
        megabytes=f"{(folder / 'model.keras').stat().st_size / 1e6:.1f}",
        threshold=threshold,
        cuts=[(cut, f"{value:.3f}") for cut, value in zip(CUTS, known.mean(axis=0), strict=True)],
        holdout=len(known),
        table=by_centre(scans),
        scans=scans,
        doubtful=scans[scans.mirror_dice < AGREEMENT],
        worse=scans[scans.dice < scans.global_threshold_dice],
        trusted=scans[~(scans.mirror_dice < AGREEMENT)],
        agreement=AGREEMENT,
        structures=by_structure(heads),
        regions={region: (heads[f"{region}_again"].sum(), heads[region].sum()) for region in REGIONS},
        heads=len(heads),
        checksums={path.name: sha256(path) for path in sorted(folder.glob("*.keras"))},
        today=_today(),
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")


def by_structure(heads: pd.DataFrame) -> list[dict]:
    """Per structure of `structures.csv` (a row per head): mean and lowest Dice, mean absolute volume difference in %, and
    the found over the true volume in % of the heads below and above the median true volume."""
    rows = []
    for structure in STRUCTURES:
        dice, true, found = (heads[f"{structure}_{key}"] for key in ("dice", "true_ml", "found_ml"))
        large, share = true > true.median(), 100 * found / true
        row = {"structure": structure, "dice": dice.mean(), "lowest": dice.min(), "off": (share - 100).abs().mean()}
        rows.append(row | {"small": share[~large].mean(), "large": share[large].mean()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m wmhlib.apply.model_card", description="Make or measure the network."
    )
    parser.add_argument("config")
    parser.add_argument("--measure-again", action="store_true", help="only measure the bundled network again")
    arguments = parser.parse_args()
    study = open_study(arguments.config)
    if not arguments.measure_again:
        bring(study, BUNDLED.parent)
    measure(study, BUNDLED.parent)


if __name__ == "__main__":
    main()
