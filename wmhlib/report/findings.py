"""Sentences computed from the study's tables, so that they stay true for any data.

Input: the tables of `wmhlib.evaluation`. Output: the findings on the report's front page. A difference is called
significant if its 95 % interval excludes zero and the p value of the paired test is below 0.05 after Holm's correction
for the losses compared in that metric (D-019). If no difference is significant, the sentence says so.
"""

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import LESIONS, RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import UNTRAINED, of_losses, shown, title
from wmhlib.metrics import METRICS

WHERE = {"holdout": "the holdout subjects", "external": "the external subjects"}
LEVEL = 0.05


def holds(row: pd.Series) -> bool:
    """Whether a comparison is significant: its interval excludes zero and its corrected p is below 0.05."""
    return bool((row.low > 0 or row.high < 0) and row.p_holm < LEVEL)


def significant(pairs: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that `holds` calls significant."""
    return pairs[np.array([holds(row) for row in pairs.itertuples()], dtype=bool)]


def name_in_sentence(metric: str) -> str:
    """A metric's title as it stands within a sentence."""
    return METRICS[metric].title.replace("Lesion", "lesion")


def _by(row) -> str:
    """A significant difference in words: metric, size, interval, p."""
    size, low, high = (shown(row.metric, value) for value in _size(row))
    return f"{name_in_sentence(row.metric)} by {size} (95 % interval {low} to {high}, {p_in_words(row.p_holm)})"


def _size(row) -> tuple[float, float, float]:
    """The absolute value of a significant difference, and the ends of its interval, the one closer to zero first."""
    return abs(row.difference), *sorted((abs(row.low), abs(row.high)))


def attainable(rivals: int, subjects: int) -> bool:
    """Whether the smallest p of a test that changes signs is below `LEVEL` after Holm's correction over the rivals."""
    return rivals * 2 / 2**subjects < LEVEL


def p_in_words(value: float) -> str:
    """A p value to three decimals."""
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def leaders(table: pd.DataFrame, split: str) -> list[str]:
    """The trained loss with the best mean Dice and lesion recall in a split; none is named if the metric is undefined
    for a mask."""
    losses = of_losses(table, split).set_index("loss")
    sentences = []
    for metric in ("dice", "lesion_recall") if len(losses) else ():
        if count := int(losses[f"{metric}_undefined"].sum()):
            sentences.append(
                f"On {WHERE[split]}, {name_in_sentence(metric)} is undefined for {count} mask(s), so no loss is named best."
            )
            continue
        order = losses[f"{metric}_mean"].sort_values(ascending=False)
        best = losses[losses[f"{metric}_mean"] == order.iloc[0]]
        text = f"On {WHERE[split]}, {' and '.join(title(loss) for loss in best.index)} "
        text += f"{'has' if len(best) == 1 else 'share'} the highest mean {name_in_sentence(metric)} "
        text += f"({shown(metric, order.iloc[0])}"
        if len(best) == 1 and np.isfinite(best[f"{metric}_low"].iloc[0]):
            bounds = (shown(metric, best[f"{metric}_{end}"].iloc[0]) for end in ("low", "high"))
            text += f", 95 % interval {' to '.join(bounds)}"
        text += ")"
        if len(order) > len(best):
            text += f", followed by {title(order.index[len(best)])} ({shown(metric, order.iloc[len(best)])})"
        sentences.append(text + ".")
    return sentences


def against_siamese(comparison: pd.DataFrame, split: str) -> list[str]:
    """The significant differences between the Siamese loss and the others in a split; a sentence too if there is
    none."""
    compared = comparison[comparison.split == split]
    if not len(compared):
        return []
    against = title(compared.against.iloc[0])
    if compared.p.isna().all():
        return [f"On {WHERE[split]}, {compared.subjects.max():.0f} subject(s) are too few to compare losses."]
    sentences = []
    for rival, rows in significant(compared).groupby("loss", sort=False):
        ahead = (rows.difference < 0) == rows.metric.map(lambda metric: METRICS[metric].higher_is_better)
        parts = [
            f"{how} than the {title(rival)} loss in {'; in '.join(_by(row) for row in side.itertuples())}"
            for how, side in (("better", rows[ahead]), ("worse", rows[~ahead]))
            if len(side)
        ]
        sentences.append(f"On {WHERE[split]}, the {against} loss is {'; and '.join(parts)}.")
    if sentences:
        return sentences
    rivals, subjects = compared.loss.unique(), int(compared.subjects.max())
    text = (
        f"On {WHERE[split]}, no difference is significant between {against} and "
        f"{', '.join(title(loss) for loss in rivals)}: in no metric does the 95 % interval exclude zero with "
        f"p < {LEVEL} after Holm's correction ({subjects} subjects)."
    )
    if not attainable(len(rivals), subjects):
        text += " With so few subjects, no difference could reach significance."
    return [text]


def small_rate(detection: pd.DataFrame, split: str) -> pd.Series:
    """The fraction of small lesions that each loss detects, from `detection_by_size`."""
    small = of_losses(detection, split)
    small = small[small.from_mm3 < SMALL_MM3]
    if not len(small):
        return pd.Series(dtype=float)
    return small.groupby("loss").apply(lambda rows: np.average(rows.detected, weights=rows.lesions))


def small_lesions(detection: pd.DataFrame, false: pd.DataFrame, split: str) -> list[str]:
    """The losses that detect most and fewest small lesions, with their false positives per scan."""
    rate = small_rate(detection, split).sort_values()
    if not len(rate):
        return []
    false_positives = false[false.split == split].set_index("loss").per_scan
    best, worst = rate.index[-1], rate.index[0]
    text = (
        f"Of the lesions below {SMALL_MM3:g} mm³ on {WHERE[split]}, {title(best)} detects {rate[best]:.0%} "
        f"(with {false_positives[best]:.1f} false positives per scan)"
    )
    if best != worst:
        text += f", {title(worst)} {rate[worst]:.0%} ({false_positives[worst]:.1f})"
    return [text + "."]


def equal_rates(scores: pd.DataFrame, comparison: pd.DataFrame, split: str) -> list[str]:
    """The fraction of lesions each loss detects at equal false positives, and the significant differences from the
    Siamese loss.

    If losses were compared, only those are named; variants are not.
    """
    compared = {*comparison.loss, *comparison.against} or set(scores.loss)
    parts = []
    for lesions, (words, *_) in LESIONS.items():
        rows = scores[(scores.split == split) & (scores.lesions == lesions) & scores.score.notna()]
        rows = rows[rows.loss.isin(compared)].sort_values("score", ascending=False, kind="stable")
        if len(rows):
            fractions = ", ".join(f"{title(row.loss)} {row.score:.0%}" for row in rows.itertuples())
            parts.append(f"{words}, {fractions}{_shown_ahead(comparison, split, lesions)}")
    if not parts:
        return []
    rates = f"{', '.join(map(str, RATES[:-1]))} and {RATES[-1]}"
    text = f"Fraction detected on {WHERE[split]} at equal false positives (mean over {rates} per scan): "
    return [text + "; ".join(parts) + "."]


def _shown_ahead(comparison: pd.DataFrame, split: str, lesions: str) -> str:
    """In brackets, the losses that detect significantly more or fewer of these lesions than the Siamese loss; empty if
    untested."""
    tested = comparison[(comparison.split == split) & (comparison.lesions == lesions) & comparison.p.notna()]
    if not len(tested):
        return ""
    differences = []
    for _, row in tested[tested.apply(holds, axis=1)].iterrows():
        size, low, high = (100 * value for value in _size(row))
        more = "more" if row.difference > 0 else "fewer"
        differences.append(
            f"{title(row.loss)} {size:.1f} percentage points {more} than {title(row.against)}, {low:.1f} to "
            f"{high:.1f}, " + p_in_words(row.p_holm)
        )
    if not differences:
        return f" (no significant difference from {title(tested.against.iloc[0])})"
    return f" (significant: {'; '.join(differences)})"


def ablations(table: pd.DataFrame, split: str) -> list[str]:
    """The variants that significantly change Dice or lesion recall of the loss they vary."""
    tested = table[(table.split == split) & table.metric.isin(["dice", "lesion_recall"])]
    if not len(tested):
        return []
    significant = tested[tested.apply(holds, axis=1)]
    variants = tested.loss.nunique()
    parts = [
        f"{title(row.loss)} {'raises' if row.difference > 0 else 'lowers'} {_by(row)} compared with "
        f"{title(row.against)}"
        for row in significant.itertuples()
    ]
    if not parts:
        return [f"On {WHERE[split]}, none of the {variants} variants changes Dice or lesion recall significantly."]
    rest = variants - significant.loss.nunique()
    others = f"; no significant change by the other {rest}" if rest else ""
    return [f"On {WHERE[split]}, of {variants} variants: {'; '.join(parts)}{others}."]


VANISHED = 0.01  # below this fraction of the frozen loss's gradient ratio, the gradient counts as vanished


def minmax(games: pd.DataFrame, table: pd.DataFrame, reference_pct: float) -> list[str]:
    """How the adversary changes its features, which gradient the generator receives, and the outcome of the game and
    its variants.

    `games` has the values of `wmhlib.evaluation.game.game` per `loss` and `seed`, `table` is the study's summary. The
    game is compared with the frozen Siamese loss; all values are means over seeds. Empty if the study lacks either.
    """
    mean = games.groupby("loss", sort=False).mean(numeric_only=True)
    if not {"siamese", "siamese_minmax"} <= set(mean.index):
        return []
    played, frozen = mean.loc["siamese_minmax"], mean.loc["siamese"]
    vanishes = "vanishes" if played.gradient_ratio < VANISHED * frozen.gradient_ratio else "does not vanish"
    sentences = [
        f"In {played.steps:.0f} steps of the generator, the adversary moves VGG19's filters by {played.drift_pct:.1f} "
        f"% of their length. The features of the same masked image become {played.strength_ratio:.2f} times as strong "
        "(1.00 when frozen).",
        f"The content loss of the same batch becomes {played.distance_ratio:.2f} times its first value with the game "
        f"and {frozen.distance_ratio:.2f} times without it. Divided by the square of the features' strength, it becomes "
        f"{played.scale_free_ratio:.2f} and {frozen.scale_free_ratio:.2f} times its first value. The generator's "
        f"gradient becomes {played.gradient_ratio:.2f} and {frozen.gradient_ratio:.2f} times as long: in the game, it "
        f"{vanishes}.",
    ]
    for name in mean.index:
        if name == "siamese":
            continue
        ends = [
            f"{row[name]:.2f} on {WHERE[split]} ({row['siamese']:.2f} frozen)"
            for split, row in table.pivot(index="split", columns="loss", values="dice_mean").iterrows()
        ]
        text = (
            f"{title(name)} reaches a mean Dice of {' and '.join(ends)}. At its last measurement, it predicts lesion "
        )
        text += f"in {mean.density_pct[name]:.2f} % of the pixels; the reference has {reference_pct:.2f} %"
        broken = games[(games.loss == name) & games.diverged_at.notna()]
        sentences.append(text + (f"; {len(broken)} training(s) diverged." if len(broken) else "."))
    return sentences


def floor(table: pd.DataFrame, split: str) -> list[str]:
    """Whether every loss has a higher mean Dice than the tuned global threshold."""
    mean_dice = table[table.split == split].set_index("loss").dice_mean
    if "global_threshold" not in mean_dice or len(mean_dice) == 1:
        return []
    level = mean_dice["global_threshold"]
    below = [title(loss) for loss, dice in mean_dice.items() if loss not in UNTRAINED and not dice > level]
    text = f"On {WHERE[split]}, the tuned brightness threshold reaches a mean Dice of {level:.2f}. "
    return [text + (f"Losses that are not better: {', '.join(below)}." if below else "Every loss is better.")]


def gaps(gap: pd.DataFrame) -> list[str]:
    """The change in Dice from the holdout to the external subjects per loss, highest first."""
    rows = gap[(gap.metric == "dice") & ~gap.loss.isin(UNTRAINED)].sort_values("gap").reset_index(drop=True)
    if not len(rows) or not np.isfinite(rows.gap.iloc[0]):
        return []
    parts = []
    for row in rows.itertuples():
        text = f"{title(row.loss)} {-row.gap:+.2f}"
        parts.append(text + (f" [{-row.high:+.2f}, {-row.low:+.2f}]" if np.isfinite(row.low) else ""))
    return [f"Change in mean Dice from the holdout to the external subjects, highest first: {', '.join(parts)}."]


def findings(tables: dict[str, pd.DataFrame]) -> list[str]:
    """All findings on the front page, from the tables of `wmhlib.evaluation.scoring.summarise`."""
    sentences = []
    for split in WHERE:
        sentences += leaders(tables["summary"], split) + against_siamese(tables["comparisons"], split)
        sentences += small_lesions(tables["detection_by_size"], tables["false_detections"], split)
        sentences += equal_rates(tables["froc_scores"], tables["froc_comparisons"], split)
        sentences += floor(tables["summary"], split) + ablations(tables["ablations"], split)
    return sentences + gaps(tables["generalisation_gap"])
