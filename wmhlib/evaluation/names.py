"""What made a mask, by the title and colour that a reader sees, in the order that every table and legend keeps.

Titles and colours of losses stand in their classes (`wmhlib.losses`); a configuration's variants of a loss come after them,
by their own names (`siamese_1_tap` reads "Siamese 1 tap").
"""

import colorsys
import zlib

import pandas as pd

from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS, Metric
from wmhlib.siamese import MinMaxLoss  # noqa: F401  its module registers the content losses

OTHERS = {
    "global_threshold": ("Global threshold", "#8c8c8c"),
    "observer_o3": ("Observer O3", "#5a5a5a"),
    "observer_o4": ("Observer O4", "#3c3c3c"),
    "reference": ("Reference", "#ffd400"),
    "found": ("Detected", "#2bb58f"),
    "missed": ("Missed", "#4aa8ff"),
    "false": ("False positive", "#ff6a3d"),
}
"""Titles and colours of what is not a loss (Okabe and Ito's palette, told apart by colour-blind readers)."""

OBSERVERS = ("observer_o3", "observer_o4")
UNTRAINED = ("global_threshold", *OBSERVERS)
"""Rows of a table that no loss trained: the floor and the human ceiling."""

SPLITS = ("holdout", "external")


def title(name: str) -> str:
    """The name that a reader sees."""
    if name in LOSSES:
        return LOSSES[name].title
    return OTHERS[name][0] if name in OTHERS else name.replace("_", " ").capitalize()


def colour(name: str) -> str:
    """One colour per loss in every figure; a variant, or a loss without a colour, takes a hue by its name."""
    given = LOSSES[name].colour if name in LOSSES else OTHERS.get(name, ("", ""))[1]
    if given:
        return given
    hue, lightness = zlib.crc32(name.encode()) % 360 / 360, 0.38 + 0.14 * (len(name) % 2)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.6))


def present(table: pd.DataFrame) -> list[str]:
    """What made masks in a table with a column `loss`, in order: losses, threshold and observers, variants."""
    order = [*LOSSES, *OTHERS]
    return sorted(table.loss.unique(), key=lambda loss: order.index(loss) if loss in order else len(order))


def measured_in(table: pd.DataFrame) -> dict[str, Metric]:
    """The metrics that a table has, by name, in the order of Table 1: an older table may lack one that was added since."""
    return {name: metric for name, metric in METRICS.items() if name in table or f"{name}_mean" in table}


def shown(metric: str, value: float) -> str:
    """A metric's value as a reader sees it."""
    return f"{value:.{METRICS[metric].digits}f}"
