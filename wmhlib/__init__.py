"""Shared code of the study: whatever two notebooks or a test would otherwise write twice.

Modules in the order data passes through them, each knowing only those before it: study, phantom, cohort,
slices, batches, generator, siamese, losses, training, inference, metrics, statistics, figures, viewers, report.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines are not part of a report
