"""The golden pairs in the repository; `tests/golden/README.md` shows the calculation of every number."""

import runpy
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from wmhlib.metrics import challenge_metrics

GOLDEN = Path(__file__).parent / "golden"
FIGURES = pd.read_csv(GOLDEN / "figures.csv", index_col="pair")
MAKE = runpy.run_path(str(GOLDEN / "make.py"))


def files(pair: str) -> tuple[Path, Path]:
    return GOLDEN / pair / "wmh.nii.gz", GOLDEN / pair / "result.nii.gz"


@pytest.mark.parametrize("pair", FIGURES.index)
def test_metrics_agree_with_the_scorer(pair):
    metrics = challenge_metrics(*files(pair))
    assert list(metrics) == list(FIGURES.columns)
    for name, value in metrics.items():
        rounding = 1e-7 if (pair, name) == ("oblique", "hd95_mm") else 1e-9  # of axes kept in float32: golden/README.md
        assert value == pytest.approx(FIGURES.at[pair, name], rel=0, abs=rounding), name


@pytest.mark.parametrize("pair", FIGURES.index)
def test_files_are_what_make_draws_and_calculates(pair):
    affine, masks = MAKE["PAIRS"][pair]["affine"], MAKE["masks"](pair)
    for path, drawn in zip(files(pair), masks, strict=True):
        stored = nibabel.load(path)
        assert np.array_equal(stored.dataobj, drawn) and stored.get_data_dtype() == drawn.dtype
        assert stored.affine == pytest.approx(affine, abs=1e-6)
    calculated = MAKE["metrics"](MAKE["calculation"](*masks, affine))
    assert calculated == pytest.approx(FIGURES.loc[pair].to_dict(), rel=1e-12)


def test_every_pair_has_its_row():
    assert list(MAKE["PAIRS"]) == list(FIGURES.index)
