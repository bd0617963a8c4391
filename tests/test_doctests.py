"""The worked examples in the docstrings of metrics give the values that they state."""

import doctest

import pytest

from wmhlib import metrics
from wmhlib.evaluation import froc, thresholds
from wmhlib.metrics import CHALLENGE, METRICS


@pytest.mark.parametrize("module", [metrics, froc, thresholds], ids=lambda module: module.__name__)
def test_worked_examples(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("name", CHALLENGE)
def test_every_metric_has_a_worked_example_and_a_source(name):
    docstring = METRICS[name].of.__doc__
    assert ">>>" in docstring and "doi:10." in docstring
