"""What `fit` fits: a generator with the loss it learns from, and, in the min-max game, the adversary that works against it.

Paper 3.2.2 and 5. In the game VGG19 is unfrozen: before each step of the generator, which lowers the content loss, the
adversary raises it on the same batch by changing VGG19's filters. Both are plain Keras models over the same two networks;
each owns the weights of one player.
"""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from wmhlib.batches import PlainBatches, ReadAhead
from wmhlib.siamese import SiameseContentLoss


class PooledDice(keras.metrics.Metric):
    """Dice coefficient of all slices together, prediction and reference cut at one half; one yardstick for every loss.

    Gives 0 where neither holds a positive pixel.
    """

    def __init__(self, name: str = "dice"):
        super().__init__(name=name)
        self.both = self.add_weight(name="both", initializer="zeros")
        self.sizes = self.add_weight(name="sizes", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        reference, prediction = ops.cast(y_true > 0.5, "float32"), ops.cast(y_pred > 0.5, "float32")
        self.both.assign_add(ops.sum(reference * prediction))
        self.sizes.assign_add(ops.sum(reference) + ops.sum(prediction))

    def result(self):
        return 2 * self.both / ops.maximum(self.sizes, 1.0)


def pooled_dice(trainer: "LossTrainer", batches: PlainBatches) -> float:
    """`PooledDice` of what the generator gives for batches, on one device, since several could not share an odd last one."""
    both = sizes = 0
    for image, reference in batches:
        found = trainer.predict_on_batch(image)[: len(image)] > 0.5  # TensorFlow's devices each give the whole batch
        lesion = reference > 0.5
        both, sizes = both + int((found & lesion).sum()), sizes + int(found.sum()) + int(lesion.sum())
    return 2 * both / max(sizes, 1)


class Numbered(keras.utils.PyDataset):
    """Batches as `fit` takes them: by number, and not as a stream, since Keras may open a data set twice and
    read ahead (on several devices it does; D-032)."""

    def __init__(self, batches: ReadAhead):
        super().__init__()
        self.batches = batches

    @property
    def num_batches(self) -> None:
        return None  # without end

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.batches[number]


class LossTrainer(keras.Model):
    """A generator together with the loss it learns from; the loss is bound to the images of each batch.

    Only the generator's weights are trained, whatever networks the loss holds.
    """

    def __init__(self, generator: keras.Model, criterion: keras.losses.Loss, name: str = "loss_trainer"):
        super().__init__(name=name)
        self.generator, self.criterion = generator, criterion
        self.features = getattr(criterion, "features", None)

    @property
    def player(self) -> keras.Model:
        """The network whose weights are trained."""
        return self.generator

    @property
    def trainable_variables(self):
        return self.player.trainable_variables

    @property
    def non_trainable_variables(self):
        own = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in own]

    trainable_weights, non_trainable_weights = trainable_variables, non_trainable_variables

    def call(self, image, training=None):
        return self.generator(image, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        criterion = self.criterion.bound_to(x) if hasattr(self.criterion, "bound_to") else self.criterion
        strategy = getattr(self, "distribute_strategy", None)  # TensorFlow's, which adds up what its devices find
        return criterion(y, y_pred) / (strategy.num_replicas_in_sync if strategy else 1)


class Adversary(LossTrainer):
    """The other player: raises the content loss of the generator's predictions by changing VGG19's filters (paper 5)."""

    def __init__(self, generator: keras.Model, criterion: SiameseContentLoss):
        super().__init__(generator, criterion, name="adversary")

    @property
    def player(self) -> keras.Model:
        return self.features

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -super().compute_loss(x, y, ops.stop_gradient(y_pred))


class WatchedAdam(keras.optimizers.Adam):
    """Adam that remembers the length of its last gradient, all weights together: `gradient_norm`."""

    def build(self, variables):
        super().build(variables)
        self.gradient_norm = self.add_variable(shape=(), initializer="zeros", name="gradient_norm")

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        self.gradient_norm.assign(ops.sqrt(sum(ops.sum(ops.square(ops.cast(one, "float32"))) for one in grads)))
        return super().apply(grads, trainable_variables)


class Tether(keras.constraints.Constraint):
    """Keeps a weight within `share` of its starting length from where it started: a remedy for the min-max game."""

    def __init__(self, start: np.ndarray, share: float):
        self.start, self.longest = start, share * float(np.linalg.norm(start))

    def __call__(self, value):
        step = value - self.start
        return self.start + step * ops.minimum(
            1.0, self.longest / ops.maximum(ops.norm(ops.reshape(step, (-1,))), 1e-12)
        )


class Ascent(keras.callbacks.Callback):
    """Lets the adversary take its step before every `every`-th step of the generator, on the batch that it will see.

    `done` are the steps that a training which goes on has behind it.
    """

    def __init__(self, adversary: Adversary, batches: ReadAhead, every: int = 1, done: int = 0):
        super().__init__()
        self.adversary, self.batches, self.every, self.done, self.step = adversary, batches, every, done, 0

    def on_train_batch_begin(self, batch, logs=None):
        if (self.done + self.step) % self.every == 0:
            synchronise(self.model)
            self.adversary.train_on_batch(*self.batches[self.step])
        self.step += 1


NORM = "_gradient_norm"


class Diary(keras.callbacks.Callback):
    """What happens step by step between generator and VGG19, for notebook 06.

    `rows` holds a dict a step: `step` (from 1), `generator_gradient_norm`, `discriminator_gradient_norm` (NaN where VGG19 is
    frozen; where TensorFlow trains on several devices, of the first one's share of the batch) and, at the first and every
    `every`-th step, of one batch that is always the same: `distance_<tap>` (Equation 1), `strength_<tap>` (root mean square of
    the reference's features), `drift` of VGG19's filters from where they began (length of the change over length at the
    `start`, VGG19's weights) and `density_pct` and `reference_density_pct`, the shares of pixels predicted and in the
    reference.
    """

    def __init__(
        self,
        probe: tuple[np.ndarray, np.ndarray],
        start: list[np.ndarray],
        trainer: LossTrainer,
        adversary: Adversary | None,
        every: int,
        rows: list[dict],
    ):
        super().__init__()
        self.probe, self.start, self.adversary, self.every, self.rows = probe, start, adversary, every, rows
        self.look, self.watched = Look(trainer), (trainer.generator, trainer.features)

    def on_train_batch_end(self, batch, logs=None):
        synchronise(self.model)
        row = {"step": len(self.rows) + 1}
        for name, player in (("generator", self.model), ("discriminator", self.adversary)):
            row[name + NORM] = last_gradient(player) if player else np.nan
        if row["step"] == 1 or row["step"] % self.every == 0:
            row |= self.look.at(*self.watched, *self.probe) | {"drift": self._drift()}
        self.rows.append(row)

    def on_epoch_end(self, epoch, logs=None):
        # read only now: a device that is asked at every step has to wait at every step
        for row in self.rows[-self.params["steps"] :]:
            row |= {name: float(value) for name, value in row.items() if name.endswith(NORM)}

    def _drift(self) -> float:
        now = [ops.convert_to_numpy(weight) for weight in self.model.features.weights]
        apart = sum(np.square(a - b).sum() for a, b in zip(now, self.start, strict=True))
        return float(np.sqrt(apart / sum(np.square(a).sum() for a in self.start)))


class Look(keras.Model):
    """What a training makes of a batch at this moment, compiled: copies of its networks, so that looking changes nothing."""

    def __init__(self, trainer: LossTrainer):
        super().__init__(name="look", dtype="float32")  # the loss takes images as they are, whatever the networks take
        self.generator, self.features = map(keras.models.clone_model, (trainer.generator, trainer.features))
        self.features.trainable = False
        self.criterion = trainer.criterion.with_features(self.features)
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, batch):
        image, reference = batch
        criterion = self.criterion.bound_to(image)
        prediction = self.generator(image, training=True)
        row = {
            name: 100 * ops.mean(ops.cast(mask > 0.5, "float32"))
            for name, mask in (("density_pct", prediction), ("reference_density_pct", reference))
        }
        looked = zip(criterion.distances(reference, prediction), criterion.seen(reference), strict=True)
        for tap, (distance, features) in enumerate(looked, start=1):
            row |= {
                f"distance_{tap}": distance,
                f"strength_{tap}": ops.sqrt(ops.mean(ops.square(ops.cast(features, "float32")))),
            }
        return {name: ops.reshape(value, (1,)) for name, value in row.items()}

    def at(self, generator, features, image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Density of prediction and reference, and the distance and strength of every tap, for a batch."""
        for copy, original in ((self.generator, generator), (self.features, features)):
            for mine, theirs in zip(copy.variables, original.variables, strict=True):
                mine.assign(ops.copy(theirs))
        return {name: float(value[0]) for name, value in self.predict_on_batch((image, reference)).items()}


def last_gradient(player: LossTrainer):
    """The length of a player's last gradient as a tensor of its own; mixed precision wraps the optimizer in another."""
    return getattr(player.optimizer, "inner_optimizer", player.optimizer).gradient_norm + 0.0


def synchronise(model: keras.Model) -> None:
    """Bring a model's variables in step with a running `fit`; only JAX keeps them elsewhere meanwhile."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


class Measurement(keras.Model):
    """Replaces batch norm's running statistics by their mean over batches, at the weights as they are now; compiled once.

    Running averages lag behind weights that still move fast: a few hundred steps then train well and infer nonsense, and
    validation swings from epoch to epoch (D-003). After Wu and Johnson 2021, arXiv:2105.07576, section 3.
    """

    def __init__(self, generator: keras.Model):
        super().__init__(name="measurement")
        self.generator = generator
        self.compile(jit_compile=keras.backend.backend() == "jax")

    @property
    def norms(self) -> list[keras.layers.BatchNormalization]:
        return [layer for layer in self.generator.layers if isinstance(layer, keras.layers.BatchNormalization)]

    def call(self, image):
        usual = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0  # the running statistics are then this batch's
        try:
            return self.generator(image, training=True)
        finally:
            for norm, before in zip(self.norms, usual, strict=True):
                norm.momentum = before

    def over(self, batches: Iterable) -> None:
        """Measure over batches `(image, reference)`; none leave the statistics as they are."""
        running = [variable for norm in self.norms for variable in (norm.moving_mean, norm.moving_variance)]
        found = []
        for image, _ in batches:
            self.predict_on_batch(image)
            found.append([ops.convert_to_numpy(variable) for variable in running])
        for variable, values in zip(running, zip(*found, strict=True), strict=False):
            variable.assign(np.mean(values, axis=0))
