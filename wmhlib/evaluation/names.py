"""Titles, colours and order of the losses and other sources of masks, the same in every table and figure.

Losses define their title and colour in their classes (`wmhlib.losses`). Variants in a configuration come after them and
are titled by their names (`siamese_1_tap` becomes "Siamese 1 tap").
"""

import colorsys
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS, Metric
from wmhlib.siamese import MinMaxLoss  # noqa: F401  registers the content losses

OTHERS = {
    "global_threshold": ("Brightness threshold", "#8c8c8c"),
    "observer_o3": ("Observer O3", "#5a5a5a"),
    "observer_o4": ("Observer O4", "#3c3c3c"),
    "reference": ("Reference", "#ffd400"),
    "found": ("Detected", "#a4de02"),
    "missed": ("Missed", "#c08bff"),
    "false": ("False positive", "#ff2e63"),
}
"""Titles and colours of everything that is not a loss."""

OBSERVERS = ("observer_o3", "observer_o4")
UNTRAINED = ("global_threshold", *OBSERVERS)
"""Rows of a table without training: the threshold baseline and the human observers."""

SPLITS = ("holdout", "external")
ALL_SPLITS = ("training", "validation", *SPLITS)


def title(name: str) -> str:
    """The displayed name of a loss or other source of masks."""
    if name in LOSSES:
        return LOSSES[name].title
    return OTHERS[name][0] if name in OTHERS else name.replace("_", " ").capitalize()


def colour(name: str) -> str:
    """The colour of a loss in every figure; a variant, or a loss without a colour, gets one from its name."""
    given = LOSSES[name].colour if name in LOSSES else OTHERS.get(name, ("", ""))[1]
    if given:
        return given
    hue, lightness = zlib.crc32(name.encode()) % 360 / 360, 0.38 + 0.14 * (len(name) % 2)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.6))


def present(table: pd.DataFrame) -> list[str]:
    """The values of a table's column `loss` in order: losses, threshold and observers, variants."""
    order = [*LOSSES, *OTHERS]
    return sorted(table.loss.unique(), key=lambda loss: order.index(loss) if loss in order else len(order))


def of_losses(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of trained losses in a split."""
    return table[(table.split == split) & ~table.loss.isin(UNTRAINED)]


def in_words(names: Sequence[str], word: str = "and") -> str:
    """Names as a reader lists them: `A`, `A and B`, `A, B and C`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def measured_in(table: pd.DataFrame) -> dict[str, Metric]:
    """The metrics in a table by name, in the order of Table 1; an older table may lack recently added ones."""
    return {name: metric for name, metric in METRICS.items() if name in table or f"{name}_mean" in table}


def with_interval(text: Callable[[float], str], mean: float, low: float, high: float) -> tuple[str, str]:
    """A mean and its interval as text, such as `0.50` and ` [0.40, 0.60]`: a dash, or nothing, where undefined."""
    if not np.isfinite(mean):
        return "—", ""
    interval = f" [{text(low)},\u00a0{text(high)}]" if np.isfinite(low) and np.isfinite(high) else ""
    return text(mean), interval  # a narrow table breaks before the bracket, not in it


def in_brackets(text: Callable[[float], str], mean: float, low: float, high: float) -> str:
    """`with_interval` in one piece, with plain spaces."""
    return "".join(with_interval(text, mean, low, high)).replace("\u00a0", " ")


def shown(metric: str, value: float) -> str:
    """A metric's value as text, rounded to its number of digits."""
    return f"{value:.{METRICS[metric].digits}f}"
