"""Metrics of the min-max game from a step log, worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from wmhlib.evaluation import game


def step_log(strength: list[float], distance: list[float], gradient: list[float]) -> pd.DataFrame:
    """Four steps, of which the first and the last were looked at."""
    return pd.DataFrame(
        {
            "step": [1, 2, 3, 4],
            "generator_gradient_norm": gradient,
            "discriminator_gradient_norm": np.nan,
            "density_pct": [1.0, np.nan, np.nan, 2.5],
            "reference_density_pct": [3.0, np.nan, np.nan, 3.0],
            "distance_1": [distance[0] / 2, np.nan, np.nan, distance[1] / 2],
            "strength_1": [1.0, np.nan, np.nan, 1.0],
            "distance_2": [distance[0] / 2, np.nan, np.nan, distance[1] / 2],
            "strength_2": [strength[0], np.nan, np.nan, strength[1]],
            "drift": [0.0, np.nan, np.nan, 0.1],
        }
    )


def test_a_game_that_only_turns_the_volume_up_is_seen_through():
    played = game.game(step_log(strength=[2, 6], distance=[10, 90], gradient=[1, 2, 3, 4]))
    assert (played["strength_ratio"], played["distance_ratio"], played["scale_free_ratio"]) == (3, 9, 1)
    assert (played["drift_pct"], played["gradient_ratio"], played["density_pct"], played["steps"]) == (10, 4, 2.5, 4)
    assert np.isnan(played["diverged_at"])


def test_a_frozen_loss_keeps_its_features():
    frozen = game.game(step_log(strength=[2, 2], distance=[10, 5], gradient=[1, 1, 1, 0.001]))
    assert (frozen["strength_ratio"], frozen["distance_ratio"], frozen["scale_free_ratio"]) == (1, 0.5, 0.5)
    assert frozen["gradient_ratio"] == pytest.approx(0.001)


def test_the_first_step_without_a_finite_gradient_is_named():
    assert game.game(step_log([2, 2], [10, 5], [1, 1, np.inf, np.nan]))["diverged_at"] == 3


def test_features_that_fell_silent_have_no_scale_free_distance():
    assert np.isnan(game.game(step_log([2, 0], [10, 5], [1, 1, 1, 1]))["scale_free_ratio"])


def test_steps_are_relative_to_the_first_look_and_drift_is_in_per_cent():
    drawn = game.relative_steps(step_log(strength=[2, 6], distance=[10, 90], gradient=[1, 2, 3, 4]))
    assert drawn.distance.iloc[[0, 3]].tolist() == [1, 9] and drawn.strength.iloc[[0, 3]].tolist() == [1, 3]
    assert drawn.drift.iloc[[0, 3]].tolist() == pytest.approx([0, 10])
    assert drawn.distance[1:3].isna().all(), "what was not looked at stays empty"
