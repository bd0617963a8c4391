"""What each notebook but 05 has shown, in sentences computed from its own tables.

Input: tables and numbers of the notebook. Output: Markdown.
"""

import html
from collections.abc import Iterable

import pandas as pd

from wmhlib.evaluation.names import ALL_SPLITS, in_words


def cohort(loads: pd.DataFrame) -> str:
    """What notebook 01 shows, from `lesion_loads.csv`: the splits, how imbalanced the classes are, how much loads vary."""
    external = loads[loads.split == "external"]
    parts = [f"{count} {split}" for split in ALL_SPLITS if (count := int((loads.split == split).sum()))]
    text = f"The cohort has {len(loads)} scans: {in_words(parts)}"
    if len(external):
        text += f" (of {_escaped(sorted(external.centre.unique()))})"
    density = loads.positive_class_density_pct.median()
    text += (
        f". Lesions fill a median of {density:.2g} % of a volume: a mask without any lesion is right in "
        f"{100 - density:.2f} % of the voxels and detects nothing."
    )
    if not loads.lesions.any():
        return text
    centres = loads.groupby("centre").volume_ml.median().sort_values()
    lowest, highest = (
        f"{_short(centres[name])} ml at {_escaped([name])}" for name in (centres.index[0], centres.index[-1])
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
            f"{_escaped(centres.index[:1])} and {centres.iloc[-1]:.2f} at {_escaped(centres.index[-1:])}; the lowest scan has "
            f"{measured.dice.min():.2f}. "
        )
    text += f"Of {len(index)} slices for training and validation, {len(holding) / len(index):.0%} hold a lesion"
    return text + (
        f"; in these it fills a median of {holding.lesion_density_pct.median():.2g} % of the pixels."
        if len(holding)
        else "."
    )


def changed_costs(costs: pd.DataFrame, remark: str = "") -> str:
    """Which faulty masks became cheaper or dearer.

    Parameters
    ----------
    costs
        A row per faulty mask, two columns (before and after a change), each scaled so that an empty mask costs 1.
    remark
        Added in brackets.
    """
    before, after = costs.columns
    faults = costs.drop(index=["perfect", "nothing"], errors="ignore")
    changes = [
        f"*{name}* costs {row[after]:.2f} of an empty mask instead of {row[before]:.2f}"
        for name, row in faults.iterrows()
        if abs(row[after] - row[before]) >= 0.005
    ]
    text = f"With {after}, {'; '.join(changes)}." if changes else f"With {after}, no faulty mask costs more or less."
    return f"{text} ({remark[:1].upper() + remark[1:]}.)" if remark else text


def networks(judged: pd.DataFrame, weights: int, origins: dict[str, dict], lesion_fraction: float) -> str:
    """What notebook 03 has shown.

    Parameters
    ----------
    judged
        A row per faulty mask, a column per loss, each scaled so that an empty mask costs 1.
    weights
        Of the generator.
    origins
        Of each feature network: `weights`, `imagenet` or `random`.
    lesion_fraction
        Of pixels, in the median slice with a lesion.
    """
    sentences = [f"The generator has {weights:,} weights."]
    for name, origin in origins.items():
        if origin["weights"] == "random":
            sentences.append(
                f"{name} has random weights, not ImageNet's: results of the Siamese loss are not the paper's."
            )
    everything = judged.loc["everything"]
    worse = list(everything[everything > 1].index)
    sentences.append(
        f"A mask that marks everything costs more than an empty one under {in_words(worse)}."
        if worse
        else "Under no loss does a mask that marks everything cost more than an empty one."
    )
    wide, thin = judged.loc["one pixel too wide"], judged.loc["one pixel too thin"]
    lenient = list(judged.columns[wide < thin])
    if lenient:
        sentences.append(
            f"{in_words(lenient)} {'prefers' if len(lenient) == 1 else 'prefer'} a mask that is too wide to one that is too thin."
        )
    everything_wins = 2 * (0.1 + 0.8 * lesion_fraction) / (1.1 + 0.8 * lesion_fraction)
    perfect = 1.8 * lesion_fraction / (0.1 + 1.8 * lesion_fraction)
    sentences.append(
        f"In the median slice with a lesion, {lesion_fraction:.2%} of the pixels are lesion: with soft labels, the Dice of "
        f"marking everything is {everything_wins:.2f} there, that of the perfect mask {perfect:.2f}."
    )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def training(history: pd.DataFrame, name: str) -> str:
    """What notebook 04 has shown.

    Parameters
    ----------
    history
        A row per epoch: `epoch, loss, dice, validation_dice, kept, seconds`, as `wmhlib.training.train` returns it.
    name
        The loss's title.
    """
    first, last, kept = history.iloc[0], history.iloc[-1], history[history.kept].iloc[-1]
    sentences = [
        f"{name}: the training Dice went from {first.dice:.2f} in the first epoch to {last.dice:.2f} in the last."
    ]
    if history.validation_dice.notna().any():
        sentences.append(
            f"The highest validation Dice was {kept.validation_dice:.2f}, in epoch {kept.epoch:.0f} of {len(history)}."
        )
        if kept.epoch == len(history) > 1:
            sentences.append("The last epoch was the best one: a longer training may do better.")
        elif last.validation_dice < kept.validation_dice - 0.05:
            sentences.append(f"By the last epoch it had fallen to {last.validation_dice:.2f}.")
    return "\n".join(f"- {sentence}" for sentence in sentences)


def moves(table: pd.DataFrame) -> str:
    """What the two players of the min-max game did to the content loss of one batch.

    Parameters
    ----------
    table
        A row per move, the first the start: `player` (`start`, `discriminator`, `generator`) and `content_loss`, after it.
    """
    change = 100 * table.content_loss.pct_change()
    means = change.groupby(table.player).mean()
    start, end = table.content_loss.iloc[0], table.content_loss.iloc[-1]
    return (
        f"A step of the discriminator changed the content loss by {means['discriminator']:+.2f} % on average, a step of the "
        f"generator by {means['generator']:+.2f} %; after {len(table) - 1} moves it was {end / start:.2f} times the start."
    )


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


def _escaped(names: Iterable[str]) -> str:
    """Names from data, such as those of centres, as Markdown shows them."""
    return ", ".join(map(html.escape, names))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
