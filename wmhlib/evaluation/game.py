"""The min-max game in numbers, from the step log of each training: `minmax.csv` and what notebook 06 draws."""

import numpy as np
import pandas as pd


def relative_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """A training's `steps.csv` as notebook 06 draws it.

    Returns
    -------
    DataFrame
        `step, distance` (all taps together) and `strength` (of the last tap), both relative to the first look, `drift` in
        per cent, `generator_gradient_norm, discriminator_gradient_norm, density_pct`.
    """
    taps = [name for name in rows if name.startswith("distance_")]
    distance, strength = rows[taps].sum(axis=1, min_count=1), rows[f"strength_{len(taps)}"]
    table = rows[["step", "generator_gradient_norm", "discriminator_gradient_norm", "density_pct"]].copy()
    return table.assign(
        distance=distance / distance.iloc[0], strength=strength / strength.iloc[0], drift=100 * rows.drift
    )


def game(rows: pd.DataFrame) -> dict:
    """The beginning and the end of a step log in numbers, for `minmax.csv`.

    Returns
    -------
    dict
        `steps`; `drift_pct` at the end; `strength_ratio` and `distance_ratio`, last look over first; `scale_free_ratio`, the
        same of the distance over the squared strength, so that features that merely grow leave it where it was;
        `gradient_ratio`, the generator's gradient of the last tenth of the steps over that of the first (medians);
        `density_pct` at the last look; `diverged_at`, the first step with a gradient that is not finite, NaN without one.
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
