"""Shared code of the study: whatever two notebooks or a test would otherwise write twice.

Modules in the order data passes through them, each knowing only those before it: study; phantom, bids, metrics, sources;
cohort, download; slices, batches; generator, siamese, losses; training, inference; statistics; figures, findings,
context; viewers, report; evaluation, segmentation; site. `pyproject.toml` holds them to it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines are not part of a report
