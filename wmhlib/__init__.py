"""Shared code of the study: whatever two notebooks or a test would otherwise write twice.

Modules in the order data passes through them, each knowing only those before it: study; scans; phantom, bids, metrics,
threshold, sources; cohort, download; slices, batches; losses, siamese, generator, trainers, checkpoints; training, inference;
statistics; froc; figures, findings, context; viewers, report; evaluation, segmentation; site. `pyproject.toml` holds them to it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines are not part of a report
