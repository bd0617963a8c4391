"""Sentences computed from the study's tables, so that they stay true for any data.

Input: the tables of `wmhlib.evaluation`. Output: the findings of the report's front page. A difference counts as shown where its 95 % interval excludes zero *and* the paired test stays
below 0.05 after Holm's correction for the losses compared in that figure; where nothing is shown, the sentence says so.
"""

import html
from collections.abc import Iterable

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import LESIONS, RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import UNTRAINED, shown, title
from wmhlib.metrics import METRICS

WHERE = {"holdout": "the held-out subjects", "external": "the external subjects"}
LEVEL = 0.05


def holds(row: pd.Series) -> bool:
    """Whether a comparison's interval excludes zero and its corrected p lies below 0.05."""
    return bool((row.low > 0 or row.high < 0) and row.p_holm < LEVEL)


def _name(metric: str) -> str:
    return METRICS[metric].title.replace("Lesion", "lesion")


def _by(row) -> str:
    """One shown difference in words: figure, size, interval, p."""
    size, low, high = (shown(row.metric, value) for value in _size(row))
    return f"{_name(row.metric)} by {size} ({low} to {high}, {_p(row.p_holm)})"


def _size(row) -> tuple[float, float, float]:
    """How large a shown difference is, whichever way it goes, and the nearer and the farther end of its interval."""
    return abs(row.difference), *sorted((abs(row.low), abs(row.high)))


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def leaders(table: pd.DataFrame, split: str) -> list[str]:
    """Which trained loss has the best mean Dice and lesion recall of a split; none where a mean leaves subjects out."""
    here = table[(table.split == split) & ~table.loss.isin(UNTRAINED)].set_index("loss")
    sentences = []
    for metric in ("dice", "lesion_recall") if len(here) else ():
        if count := int(here[f"{metric}_undefined"].sum()):
            sentences.append(
                f"On {WHERE[split]}, {_name(metric)} is undefined for {count} masks, so no loss is called best in it."
            )
            continue
        order = here[f"{metric}_mean"].sort_values(ascending=False)
        best = here[here[f"{metric}_mean"] == order.iloc[0]]
        text = f"On {WHERE[split]}, {' and '.join(title(loss) for loss in best.index)} "
        text += (
            f"{'has' if len(best) == 1 else 'share'} the highest mean {_name(metric)} ({shown(metric, order.iloc[0])}"
        )
        if len(best) == 1 and np.isfinite(best[f"{metric}_low"].iloc[0]):
            bounds = (shown(metric, best[f"{metric}_{end}"].iloc[0]) for end in ("low", "high"))
            text += f", 95 % interval {' to '.join(bounds)}"
        text += ")"
        if len(order) > len(best):
            text += f", before {title(order.index[len(best)])} ({shown(metric, order.iloc[len(best)])})"
        sentences.append(text + ".")
    return sentences


def against_siamese(comparison: pd.DataFrame, split: str) -> list[str]:
    """What is shown of the other losses against the Siamese one in a split; plainly, where it is nothing."""
    here = comparison[comparison.split == split]
    if not len(here):
        return []
    against = title(here.against.iloc[0])
    if here.p.isna().all():
        return [f"On {WHERE[split]}, {here.subjects.max():.0f} subject(s) are too few to compare losses."]
    sentences = []
    for rival, rows in here[here.apply(holds, axis=1)].groupby("loss", sort=False):
        ahead = (rows.difference < 0) == rows.metric.map(lambda metric: METRICS[metric].higher_is_better)
        parts = [
            f"{how} than {title(rival)} loss in {'; in '.join(_by(row) for row in some.itertuples())}"
            for how, some in (("better", rows[ahead]), ("worse", rows[~ahead]))
            if len(some)
        ]
        sentences.append(f"On {WHERE[split]}, {against} loss is {'; and '.join(parts)}.")
    if sentences:
        return sentences
    rivals, subjects = here.loss.unique(), int(here.subjects.max())
    text = (
        f"On {WHERE[split]}, nothing is significant: no difference between {against} and "
        f"{', '.join(title(loss) for loss in rivals)} in any of the five figures has both an interval without zero and "
        f"p < {LEVEL} after Holm's correction ({subjects} subjects)"
    )
    if len(rivals) * 2 / 2**subjects >= LEVEL:  # the smallest p of a test that changes signs
        text += ", and with so few no difference could"
    return [text + "."]


def small_lesions(detection: pd.DataFrame, false: pd.DataFrame, split: str) -> list[str]:
    """Who finds small lesions, and at what price in false detections."""
    here = detection[(detection.split == split) & (detection.from_mm3 < SMALL_MM3) & ~detection.loss.isin(UNTRAINED)]
    if not len(here):
        return []
    rate = here.groupby("loss").apply(lambda some: np.average(some.detected, weights=some.lesions)).sort_values()
    price = false[false.split == split].set_index("loss").per_scan
    best, worst = rate.index[-1], rate.index[0]
    text = (
        f"Of the lesions below {SMALL_MM3:g} mm³ on {WHERE[split]}, {title(best)} finds {rate[best]:.0%} "
        f"(with {price[best]:.1f} false detections a scan)"
    )
    if best != worst:
        text += f", {title(worst)} {rate[worst]:.0%} ({price[worst]:.1f})"
    return [text + "."]


def equal_rates(scores: pd.DataFrame, comparison: pd.DataFrame, split: str) -> list[str]:
    """Who finds most lesions where all mark equally much falsely, and what is shown of it against the Siamese loss.

    Variants, which are not compared here, are not named where others are.
    """
    compared = {*comparison.loss, *comparison.against} or set(scores.loss)
    parts = []
    for lesions, (words, *_) in LESIONS.items():
        here = scores[(scores.split == split) & (scores.lesions == lesions) & scores.score.notna()]
        here = here[here.loss.isin(compared)].sort_values("score", ascending=False, kind="stable")
        if len(here):
            shares = ", ".join(f"{title(row.loss)} {row.score:.0%}" for row in here.itertuples())
            parts.append(f"of {words} {shares}{_shown_ahead(comparison, split, lesions)}")
    if not parts:
        return []
    rates = f"{', '.join(map(str, RATES[:-1]))} and {RATES[-1]}"
    text = f"On {WHERE[split]}, at the same number of false detections (averaged over {rates} a scan), the losses find "
    return [text + "; ".join(parts) + "."]


def _shown_ahead(comparison: pd.DataFrame, split: str, lesions: str) -> str:
    """In brackets, which losses are shown to find more or fewer of such lesions than the Siamese one; nothing untested."""
    here = comparison[(comparison.split == split) & (comparison.lesions == lesions) & comparison.p.notna()]
    if not len(here):
        return ""
    found = []
    for _, row in here[here.apply(holds, axis=1)].iterrows():
        size, low, high = (100 * value for value in _size(row))
        more = "more" if row.difference > 0 else "fewer"
        found.append(
            f"{title(row.loss)} {size:.1f} points {more} than {title(row.against)}, {low:.1f} to {high:.1f}, "
            + _p(row.p_holm)
        )
    against = title(here.against.iloc[0])
    return f" (shown: {'; '.join(found)})" if found else f" (no difference from {against} is shown)"


def ablations(table: pd.DataFrame, split: str) -> list[str]:
    """Which variant changes Dice or lesion recall of the loss it varies, as far as the study shows it."""
    here = table[(table.split == split) & table.metric.isin(["dice", "lesion_recall"])]
    if not len(here):
        return []
    found = here[here.apply(holds, axis=1)]
    parts = [
        f"{title(row.loss)} {'raises' if row.difference > 0 else 'lowers'} {_by(row)} against {title(row.against)}"
        for row in found.itertuples()
    ]
    if not parts:
        return [
            f"On {WHERE[split]}, none of the {here.loss.nunique()} variants is shown to change Dice or lesion recall."
        ]
    rest = here.loss.nunique() - found.loss.nunique()
    others = f"; of the other {rest} nothing is shown" if rest else ""
    return [f"On {WHERE[split]}, of {here.loss.nunique()} variants: {'; '.join(parts)}{others}."]


VANISHED = 0.01  # of what the frozen loss leaves of its gradient


def minmax(games: pd.DataFrame, table: pd.DataFrame, reference_pct: float) -> list[str]:
    """What the adversary did, what the generator got, what came of it, and what each variant of the game changes.

    `games` has `game`'s figures per `loss` and `seed`, `table` is the study's summary; the frozen Siamese loss is what the
    game is compared with. Means over seeds throughout. Empty where the study has not both.
    """
    mean = games.groupby("loss", sort=False).mean(numeric_only=True)
    if not {"siamese", "siamese_minmax"} <= set(mean.index):
        return []
    played, frozen = mean.loc["siamese_minmax"], mean.loc["siamese"]
    vanishes = "vanishes" if played.gradient_ratio < VANISHED * frozen.gradient_ratio else "does not vanish"
    sentences = [
        f"In {played.steps:.0f} steps of the generator the adversary moves VGG19's filters by {played.drift_pct:.1f} % of "
        "their length; the features of one and the same masked image become "
        f"{played.strength_ratio:.2f} times as strong (1.00 when frozen).",
        "The content loss of one and the same batch becomes "
        f"{played.distance_ratio:.2f} times what it was with the game and {frozen.distance_ratio:.2f} times without; with the "
        f"features' strength divided out, {played.scale_free_ratio:.2f} and {frozen.scale_free_ratio:.2f}. The generator's "
        f"gradient becomes {played.gradient_ratio:.2f} and {frozen.gradient_ratio:.2f} times as long: in the game it {vanishes}.",
    ]
    for name in mean.index:
        if name == "siamese":
            continue
        ends = [
            f"{row[name]:.2f} on {WHERE[split]} ({row['siamese']:.2f} frozen)"
            for split, row in table.pivot(index="split", columns="loss", values="dice_mean").iterrows()
        ]
        text = f"{title(name)} reaches a mean Dice of {' and '.join(ends)}; at its last look {mean.density_pct[name]:.2f} % of "
        text += f"the pixels were predicted, where the reference has {reference_pct:.2f} %"
        broken = games[(games.loss == name) & games.diverged_at.notna()]
        sentences.append(text + (f"; {len(broken)} training(s) diverged." if len(broken) else "."))
    return sentences


def floor(table: pd.DataFrame, split: str) -> list[str]:
    """Whether every loss beats the tuned global threshold."""
    here = table[table.split == split].set_index("loss").dice_mean
    if "global_threshold" not in here or len(here) == 1:
        return []
    level = here["global_threshold"]
    below = [title(loss) for loss, dice in here.items() if loss not in UNTRAINED and not dice > level]
    text = f"On {WHERE[split]}, the tuned global threshold reaches a Dice of {level:.2f}; "
    return [text + (f"not better than it: {', '.join(below)}." if below else "every loss beats it.")]


def gaps(gap: pd.DataFrame) -> list[str]:
    """Which loss loses least Dice on the external subjects."""
    here = gap[(gap.metric == "dice") & ~gap.loss.isin(UNTRAINED)].sort_values("gap").reset_index(drop=True)
    if not len(here) or not np.isfinite(here.gap.iloc[0]):
        return []
    parts = []
    for row in here.itertuples():
        text = f"{title(row.loss)} {row.gap:+.2f}"
        parts.append(text + (f" [{row.low:+.2f}, {row.high:+.2f}]" if np.isfinite(row.low) else ""))
    return [f"Dice lost from the held-out to the external subjects, least first: {', '.join(parts)}."]


def cohort(loads: pd.DataFrame) -> str:
    """What notebook 01 shows, from `lesion_loads.csv`: who is unseen, how imbalanced the classes are, how much loads vary."""
    unseen = loads[loads.split == "external"]
    text = f"The cohort has {len(loads)} scans, {loads.split.eq('training').sum()} of them for training"
    if len(unseen):
        text += f" and {len(unseen)} external ones, of {_listed(sorted(unseen.centre.unique()))}"
    density = loads.positive_class_density_pct.median()
    text += (
        f". Lesions fill a median of {density:.2g} % of a volume: a mask without any lesion is right in "
        f"{100 - density:.2f} % of the voxels and detects nothing."
    )
    if not loads.lesions.any():
        return text
    centres = loads.groupby("centre").volume_ml.median().sort_values()
    lowest, highest = (
        f"{_short(centres[name])} ml at {_listed([name])}" for name in (centres.index[0], centres.index[-1])
    )
    return (
        f"{text} The median load is {lowest} and {highest}; the largest is {_short(loads.volume_ml.max())} ml. In the median "
        f"scan, half of the lesions are smaller than {_short(loads.median_lesion_mm3.median())} mm³."
    )


def preparation(ceilings: pd.DataFrame, index: pd.DataFrame, size: int) -> str:
    """What notebook 02 shows, from `ceilings.csv` and the `index.csv` of the slices: what resampling costs, how few slices hold
    lesions."""
    measured, holding = ceilings.dropna(subset="dice"), index[index.lesion_density_pct > 0]
    centres, text = measured.groupby("centre").dice.mean().sort_values(), ""
    if len(measured):
        text = (
            f"On slices of {size} × {size} pixels, the ceiling of Dice is {centres.iloc[0]:.2f} on average at "
            f"{_listed(centres.index[:1])} and {centres.iloc[-1]:.2f} at {_listed(centres.index[-1:])}; the lowest scan has "
            f"{measured.dice.min():.2f}. "
        )
    text += f"Of {len(index)} slices for training and validation, {len(holding) / len(index):.0%} hold a lesion"
    return text + (
        f"; in these it fills a median of {holding.lesion_density_pct.median():.2g} % of the pixels."
        if len(holding)
        else "."
    )


def _listed(names: Iterable[str]) -> str:
    """Names from data, such as those of centres, as Markdown shows them."""
    return ", ".join(map(html.escape, names))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def segmented(table: pd.DataFrame) -> str:
    """What notebook 07 shows, from its table of scans: how many masks there are, how much lesion, and how many to doubt."""
    done = table[table.status == "done"]
    text = f"{len(done)} of {len(table)} scans {'has' if len(done) == 1 else 'have'} a mask."
    if not len(done):
        return text
    empty, doubtful = int((done.lesions == 0).sum()), int((done.warnings.fillna("") != "").sum())
    text += (
        f" The median mask has {_short(done.volume_ml.median())} ml in {done.lesions.median():.0f} lesions; volumes are "
        f"{_short(done.volume_ml.min())} to {_short(done.volume_ml.max())} ml. Empty masks: {empty}. Masks with a warning: "
    )
    return text + (f"{doubtful}, to be looked at first." if doubtful else "none, which does not make them right.")


def findings(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Everything the front page says, from the tables that `wmhlib.evaluation.summarise` gives."""
    sentences = []
    for split in WHERE:
        sentences += leaders(tables["summary"], split) + against_siamese(tables["comparisons"], split)
        sentences += small_lesions(tables["detection_by_size"], tables["false_detections"], split)
        sentences += equal_rates(tables["froc_scores"], tables["froc_comparisons"], split)
        sentences += floor(tables["summary"], split) + ablations(tables["ablations"], split)
    return sentences + gaps(tables["generalisation_gap"])
