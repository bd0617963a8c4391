"""A network with its loss, as a Keras model for one training step.

The loss is bound to the images of each batch. Only the learner's own network is trained, not the networks in the loss.
The module also has the metric shared by all losses (pooled Dice), and the measurement of batch norm's statistics before
validation.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
from keras import ops

from wmhlib.batches import Pair, PlainBatches, has_gpu
from wmhlib.losses import Loss

COMPILED = {"jit_compile": keras.backend.backend() == "jax"}
"""XLA is always used by JAX; with TensorFlow, it makes these convolutions slower on a CPU."""


class Learner(keras.Model):
    """The generator with its loss."""

    def __init__(self, generator: keras.Model, criterion: Loss, name: str = "learner"):
        super().__init__(name=name)
        self.generator, self.criterion = generator, criterion
        self.features: keras.Model = criterion.features  # an attribute, so that Keras tracks its weights

    @property
    def trained(self) -> keras.Model:
        """The network whose weights are trained."""
        return self.generator

    @property
    def trainable_variables(self):
        return self.trained.trainable_variables

    @property
    def non_trainable_variables(self):
        own = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in own]

    trainable_weights, non_trainable_weights = trainable_variables, non_trainable_variables

    def call(self, image, training=None):
        return self.generator(image, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.criterion.bound_to(x)(y, y_pred)

    def begin_epoch(self) -> None:
        """Reset the means of loss and metrics."""
        super().reset_metrics()

    def reset_metrics(self) -> None:
        """Does nothing: Keras calls it before every batch, but the means are over an epoch (see `begin_epoch`)."""

    def step(self, image: np.ndarray, reference: np.ndarray) -> dict:
        """One training step on a batch; returns the means of loss and metrics since `begin_epoch`."""
        return self.train_on_batch(image, reference, return_dict=True)

    @property
    def gradient_norm(self) -> float:
        """The norm of the last gradient over all weights."""
        return float(ops.convert_to_numpy(self.optimizer.gradient_norm))

    def state(self) -> list:
        """All variables that the next step depends on: those of the networks and of the optimizer."""
        return [*self.variables, *self.optimizer.variables]


class WatchedAdam(keras.optimizers.Adam):
    """Adam that records the norm of its last gradient: `gradient_norm`."""

    def build(self, variables):
        super().build(variables)
        self.gradient_norm = self.add_variable(shape=(), initializer="zeros", name="gradient_norm")

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in grads]
        self.gradient_norm.assign(ops.sqrt(sum(squares)))
        return super().apply(grads, trainable_variables)


class PooledDice(keras.metrics.Metric):
    """Dice over all slices together, at the threshold 0.5 for prediction and reference; 0 if neither has a lesion
    pixel."""

    def __init__(self, name: str = "dice"):
        super().__init__(name=name)
        self.overlap = self.add_weight(name="overlap", initializer="zeros")
        self.sizes = self.add_weight(name="sizes", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        reference, prediction = ops.cast(y_true > 0.5, "float32"), ops.cast(y_pred > 0.5, "float32")
        self.overlap.assign_add(ops.sum(reference * prediction))
        self.sizes.assign_add(ops.sum(reference) + ops.sum(prediction))

    def result(self):
        return 2 * self.overlap / ops.maximum(self.sizes, 1.0)


def pooled_dice(learner: Learner, batches: PlainBatches) -> float:
    """`PooledDice` of the generator's predictions for batches."""
    dice = PooledDice()
    for image, reference in batches:
        dice.update_state(reference, learner.predict_on_batch(image))
    return float(dice.result())


class BatchNormMeasurement(keras.Model):
    """Replaces batch norm's running statistics by their mean over batches at the current weights; compiled once.

    Running averages lag behind fast-changing weights: after a few hundred steps, training is good but inference is
    wrong, and validation varies strongly between epochs (D-003). After Wu and Johnson 2021, arXiv:2105.07576, section
    3.
    """

    def __init__(self, generator: keras.Model):
        super().__init__(name="batch_norm_measurement")
        self.generator = generator
        self.compile(**COMPILED)

    @property
    def norms(self) -> list[keras.layers.BatchNormalization]:
        return [layer for layer in self.generator.layers if isinstance(layer, keras.layers.BatchNormalization)]

    @property
    def running(self) -> list[keras.Variable]:
        """The running means and variances of all batch norm layers."""
        return [variable for norm in self.norms for variable in (norm.moving_mean, norm.moving_variance)]

    def call(self, image):
        usual = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0  # the running statistics become those of this batch
        try:
            return self.generator(image, training=True)
        finally:
            for norm, momentum in zip(self.norms, usual, strict=True):
                norm.momentum = momentum

    def over(self, batches: Iterable[Pair]) -> None:
        """Measure over batches `(image, reference)`; without batches, the statistics are not changed."""
        measured = []
        for image, _ in batches:
            self.predict_on_batch(image)
            measured.append([ops.convert_to_numpy(variable) for variable in self.running])
        for variable, values in zip(self.running, zip(*measured, strict=True), strict=False):
            variable.assign(np.mean(values, axis=0))


@contextlib.contextmanager
def precision(wanted: str) -> Iterator[str]:
    """Use this dtype policy of Keras in the block; `auto` selects the faster one on this machine (D-031).

    This is mixed_bfloat16 for TensorFlow on a CPU with matrix units for bfloat16 (AMX), otherwise float32.
    """
    if wanted == "auto":
        flags = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else ()
        has_units = keras.backend.backend() == "tensorflow" and not has_gpu() and "amx_bf16" in flags
        wanted = "mixed_bfloat16" if has_units else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(wanted)
    try:
        yield wanted
    finally:
        keras.config.set_dtype_policy(before)
