"""Metrics of the min-max game from the step logs of trainings: `minmax.csv` and the curves of notebook 06."""

import numpy as np
import pandas as pd

from wmhlib.evaluation.names import title


def relative_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """A training's `steps.csv` in the form that notebook 06 plots.

    Returns
    -------
    DataFrame
        `step`, `distance` (sum over taps) and `strength` (of the last tap), both relative to the first measurement,
        `drift` in per cent, `generator_gradient_norm, discriminator_gradient_norm, density_pct`.
    """
    taps = [name for name in rows if name.startswith("distance_")]
    distance, strength = rows[taps].sum(axis=1, min_count=1), rows[f"strength_{len(taps)}"]
    table = rows[["step", "generator_gradient_norm", "discriminator_gradient_norm", "density_pct"]].copy()
    return table.assign(
        distance=distance / distance.iloc[0], strength=strength / strength.iloc[0], drift=100 * rows.drift
    )


HEADS = {
    "steps": "steps",
    "drift_pct": "drift of the filters (%)",
    "strength_ratio": "features' strength",
    "distance_ratio": "content loss",
    "scale_free_ratio": "content loss without strength",
    "gradient_ratio": "generator's gradient",
    "density_pct": "pixels predicted as lesion (%)",
    "diverged_at": "diverged at step",
}
"""Titles of the columns of `minmax.csv`."""


def readable(games: pd.DataFrame) -> pd.DataFrame:
    """The table of `game` per loss and seed with titles; without the last column where nothing diverged."""
    shown = games.assign(loss=games.loss.map(title)).set_index(["loss", "seed"])
    return shown.dropna(axis=1, how="all").rename(columns=HEADS).round(3)


def game(rows: pd.DataFrame) -> dict:
    """Changes from the beginning to the end of a step log, for `minmax.csv`.

    Returns
    -------
    dict
        `steps`; `drift_pct` at the end; `strength_ratio` and `distance_ratio`, last measurement / first;
        `scale_free_ratio`, the same for distance / strength², which does not change if the features only grow;
        `gradient_ratio`, the median gradient norm of the generator in the last tenth of the steps / that in the first
        tenth; `density_pct` at the last measurement; `diverged_at`, the first step with a gradient that is not finite,
        NaN if there is none.
    """
    table, tenth = relative_steps(rows), max(len(rows) // 10, 1)
    last, norms = table[table.density_pct.notna()].iloc[-1], rows.generator_gradient_norm
    diverged = rows.step[~np.isfinite(norms)]
    return {
        "steps": len(rows),
        "drift_pct": last.drift,
        "strength_ratio": last.strength,
        "distance_ratio": last.distance,
        "scale_free_ratio": last.distance / last.strength**2 if last.strength else np.nan,
        "gradient_ratio": norms.tail(tenth).median() / norms.head(tenth).median(),
        "density_pct": last.density_pct,
        "diverged_at": diverged.iloc[0] if len(diverged) else np.nan,
    }
