"""The min-max game (paper 3.2.2 and 5): an adversary maximises the content loss that the generator minimises.

Before every `discriminator_every`-th step of the generator, the adversary takes a step on the same batch by changing
the filters of the feature network; `wmhlib.training.run_epoch` alternates the two. The module also has the step log of
content losses, and a stabilisation of the game by limiting how far filters may move.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from wmhlib.batches import Pair
from wmhlib.learner import COMPILED, Learner, WatchedAdam
from wmhlib.settings import Training
from wmhlib.siamese import MinMaxLoss, SiameseContentLoss

LOOK_EVERY, MOST_LOOKS = 20, 200
"""Least number of steps between measurements of the probe batch, and the approximate number of measurements in a long
training."""


class Adversary(Learner):
    """The second player of the game: it increases the content loss by changing the filters of the feature network."""

    def __init__(self, generator: keras.Model, criterion: MinMaxLoss):
        super().__init__(generator, criterion, name="adversary")
        self.every = criterion.discriminator_every

    @property
    def trained(self) -> keras.Model:
        return self.features

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -super().compute_loss(x, y, ops.stop_gradient(y_pred))


def make_adversary(learner: Learner, beta_1: float, beta_2: float) -> Adversary | None:
    """The compiled adversary of a learner with the min-max loss, whose feature network it unfreezes; None for other
    losses."""
    criterion = learner.criterion
    if not isinstance(criterion, MinMaxLoss):
        return None
    criterion.features.trainable = True
    if criterion.most_drift is not None:
        for weight in criterion.features.weights:
            weight.constraint = Tether(ops.convert_to_numpy(weight), criterion.most_drift)
    adversary = Adversary(learner.generator, criterion)
    adversary.compile(WatchedAdam(criterion.discriminator_rate, beta_1, beta_2), **COMPILED)
    return adversary


class Tether(keras.constraints.Constraint):
    """Limits the distance of a weight from its initial value to a fraction of its initial length, to stabilise the
    game."""

    def __init__(self, start: np.ndarray, fraction: float):
        self.start, self.longest = start, fraction * float(np.linalg.norm(start))

    def __call__(self, value):
        moved = value - self.start
        length = ops.maximum(ops.norm(ops.reshape(moved, (-1,))), 1e-12)
        return self.start + moved * ops.minimum(1.0, self.longest / length)


class StepLog:
    """The log of a training with a content loss, step by step, for notebook 06: `steps.csv`.

    `rows` has one dict per step: `step` (from 1), `generator_gradient_norm` and `discriminator_gradient_norm` (of the
    adversary's last step; NaN with frozen features). At the first and every `every`-th step, it also has values of a
    fixed batch, the probe: `distance_<tap>` (Equation 1), `strength_<tap>` (root mean square of the reference's
    features), `drift` of the filters (length of the change / initial length), and `density_pct` and
    `reference_density_pct`, the per cent of lesion pixels in the prediction and the reference.
    """

    def __init__(self, learner: Learner, adversary: Adversary | None, probe: Pair, steps: int, rows: list[dict]):
        self.learner, self.adversary, self.probe, self.rows = learner, adversary, probe, rows
        self.every = max(LOOK_EVERY, steps // MOST_LOOKS)
        self.start = [ops.convert_to_numpy(weight) for weight in learner.features.weights]
        self.look = ProbeLook(learner)

    def looks(self, step: int) -> bool:
        """Whether the probe is measured after this step, counted from 1."""
        return step == 1 or step % self.every == 0

    def add(self, generator_gradient_norm: float, discriminator_gradient_norm: float = np.nan) -> None:
        """Record the next step. If the probe is measured, the networks must be in the state after that step."""
        row: dict = {"step": len(self.rows) + 1, "generator_gradient_norm": generator_gradient_norm}
        row["discriminator_gradient_norm"] = discriminator_gradient_norm
        if self.looks(row["step"]):
            row |= self.look.at(self.learner, *self.probe) | {"drift": self._drift()}
        self.rows.append(row)

    def _drift(self) -> float:
        if not self.start:
            return 0.0  # the features have no weights
        now = [ops.convert_to_numpy(weight) for weight in self.learner.features.weights]
        apart = sum(np.square(a - b).sum() for a, b in zip(now, self.start, strict=True))
        return float(np.sqrt(apart / sum(np.square(a).sum() for a in self.start)))


class ProbeLook(keras.Model):
    """A compiled measurement of a learner on a batch, with copies of its networks so that nothing is changed."""

    def __init__(self, learner: Learner):
        super().__init__(
            name="probe_look", dtype="float32"
        )  # the loss takes float32 images, whatever the dtype of the networks
        self.generator, self.features = map(keras.models.clone_model, (learner.generator, learner.features))
        self.features.trainable = False
        self.criterion = learner.criterion.with_features(self.features)
        self.compile(**COMPILED)

    def call(self, batch):
        image, reference = batch
        criterion = self.criterion.bound_to(image)
        prediction = self.generator(image, training=True)
        masks = {"density_pct": prediction, "reference_density_pct": reference}
        row = {name: 100 * ops.mean(ops.cast(mask > 0.5, "float32")) for name, mask in masks.items()}
        taps = zip(criterion.distances(reference, prediction), criterion.features_of(reference), strict=True)
        for tap, (distance, features) in enumerate(taps, start=1):
            strength = ops.sqrt(ops.mean(ops.square(ops.cast(features, "float32"))))
            row |= {f"distance_{tap}": distance, f"strength_{tap}": strength}
        return {name: ops.reshape(value, (1,)) for name, value in row.items()}

    def at(self, learner: Learner, image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Density of prediction and reference, and distance and strength of every tap, for a batch."""
        for copy, original in ((self.generator, learner.generator), (self.features, learner.features)):
            for mine, theirs in zip(copy.variables, original.variables, strict=True):
                mine.assign(ops.copy(theirs))
        return {name: float(value[0]) for name, value in self.predict_on_batch((image, reference)).items()}


@dataclasses.dataclass
class Players:
    """The parts of a training: the learner, the adversary of the min-max game, and the step log."""

    learner: Learner
    adversary: Adversary | None = None
    log: StepLog | None = None

    def variables(self) -> list:
        """All variables that the next step depends on, built, without repetition."""
        players = [player for player in (self.learner, self.adversary) if player]
        for player in players:
            player.build((None, *player.generator.input_shape[1:]))
            player.optimizer.build(player.trainable_variables)
        return list({id(variable): variable for player in players for variable in player.state()}.values())


def make_players(learner: Learner, settings: Training, probe: Pair, rows: list[dict]) -> Players:
    """The learner with its adversary (min-max game only) and its step log in `rows` (content losses only)."""
    players = Players(learner, make_adversary(learner, settings.beta_1, settings.beta_2))
    if isinstance(learner.criterion, SiameseContentLoss):
        steps = settings.epochs * settings.steps_per_epoch
        players.log = StepLog(learner, players.adversary, probe, steps, rows)
    return players
