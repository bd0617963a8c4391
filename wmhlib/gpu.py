"""Training with the slices on the device and many steps per call (JAX on a GPU).

A training step of the paper takes a few milliseconds on a GPU, less than the host needs to rotate eight slices and
start the step (D-043). This module copies the slices of a training to the device once. Batches are drawn, rotated and
preprocessed there, and an epoch is one call. Batch n has the slices and angles that `wmhlib.batches.TrainingBatches`
draws for it, up to rounding. `wmhlib.training.OnHost` does the same step by step on every backend.
"""

import functools

import keras
import numpy as np
from keras import ops

from wmhlib.augmentations import rotation_deg
from wmhlib.batches import LABEL_VALUES, TrainingBatches, has_gpu
from wmhlib.generator import network_input
from wmhlib.learner import BatchNormMeasurement, Learner
from wmhlib.minmax import Players, StepLog

VALIDATED = 32
"""Number of slices in a validation batch."""


def suits(batches: TrainingBatches) -> bool:
    """Whether slices can stay on the device: JAX on a GPU, with no augmentation other than rotation, as in the
    paper."""
    rotated_alone = all(augmentation.func is rotation_deg for augmentation in batches.augmentations)
    return keras.backend.backend() == "jax" and has_gpu() and rotated_alone and len(batches.augmentations) <= 1


def rotated(images, angles_deg):
    """Images (batch, size, size, channels) rotated about their centres, like `wmhlib.augmentations.turned`."""
    radians = angles_deg * (np.pi / 180)
    cos, sin, centre = ops.cos(radians), ops.sin(radians), (images.shape[1] - 1) / 2
    shifts = centre * (1 - cos + sin), centre * (1 - cos - sin)
    rows = ops.stack([cos, -sin, shifts[0], sin, cos, shifts[1], 0 * cos, 0 * cos], axis=1)
    return ops.image.affine_transform(images, rows, "bilinear", "nearest", data_format="channels_last")


class OnDevice:
    """The epochs of a training with slices on the device.

    The variables of all networks are up to date after every method. `data` is the output of
    `wmhlib.training.make_data`.
    """

    save_every_s = 20.0
    """Seconds between checkpoints, each of which takes as long as an epoch."""

    def __init__(self, players: Players, data):
        import jax

        self.players, self.training, self.validation = players, data.training.batches, data.validation
        training, validation = self.training, self.validation
        self.rows = np.union1d(training.rows, validation.rows)
        self.slices = [jax.device_put(array[self.rows]) for array in (training.images, training.references)]
        self.measuring = self._plan(data.measuring.batches, range(data.measuring.end or 0))
        self.measurement = BatchNormMeasurement(players.learner.generator)
        self.measurement.build(players.learner.generator.input_shape)
        for player in self._everyone():  # Keras creates the variables of metrics with the first batch
            player.test_on_batch(*training[0])
            player.begin_epoch()
        self._steps = jax.jit(self._take_steps, donate_argnums=0)
        self._statistics = jax.jit(self._batch_statistics)
        self._overlap = jax.jit(self._sizes)

    def run_epoch(self, steps: range) -> dict:
        """Run the steps of one epoch; returns the means of loss and Dice. Equivalent to `wmhlib.training.run_epoch`."""
        plan, log = self._plan(self.training, steps), self.players.log
        self.players.learner.begin_epoch()
        for first, end in _spans(steps, log):
            norms = self._take(plan, steps.start, first, end)
            if log:
                for row in norms:
                    log.add(*map(float, row))
        return self.players.learner.get_metrics_result()

    def measure(self) -> None:
        """Measure batch norm's statistics at the current weights (`BatchNormMeasurement`)."""
        if not len(self.measuring[0]):
            return
        means = self._statistics(self._values(), self.slices, self.measuring)
        for variable, value in zip(self.measurement.running, means, strict=True):
            variable.assign(value)

    def validation_dice(self) -> float:
        """Pooled Dice of the validation slices."""
        rows = np.searchsorted(self.rows, self.validation.rows)
        blank = -len(rows) % VALIDATED  # the last batch is padded with slices that are not counted
        counted = np.concatenate([np.ones(len(rows), bool), np.zeros(blank, bool)]).reshape(-1, VALIDATED)
        rows = np.concatenate([rows, np.zeros(blank, rows.dtype)]).reshape(-1, VALIDATED)
        overlap, sizes = self._overlap(self._values(), self.slices, (rows, counted))
        return float(2 * overlap / max(float(sizes), 1.0))

    def _everyone(self) -> list[Learner]:
        return [player for player in (self.players.learner, self.players.adversary) if player]

    def _groups(self, player: Learner) -> tuple[list, ...]:
        """The variables of a player in the groups of Keras's stateless training step on JAX."""
        parts = (player.trainable_variables, player.non_trainable_variables, player.optimizer.variables)
        return (*parts, player.metrics_variables)

    def _variables(self) -> dict[int, keras.Variable]:
        return {id(one): one for player in self._everyone() for group in self._groups(player) for one in group}

    def _values(self) -> dict:
        return {key: variable.value for key, variable in self._variables().items()}

    def _plan(self, batches: TrainingBatches, numbers: range) -> tuple[np.ndarray, np.ndarray]:
        """The slices on the device and the angles (degrees) of these batches: two arrays (batch number, slice)."""
        size, most = batches.batch_size, [one.keywords["most"] for one in batches.augmentations] or [0.0]
        rows = np.array([batches.rows_of(number) for number in numbers], int).reshape(-1, size)
        angles = [batches.random(1, number).uniform(-most[0], most[0], size) for number in numbers]
        return np.searchsorted(self.rows, rows).astype(np.int32), np.array(angles, np.float32).reshape(-1, size)

    def _batch(self, slices, rows, angles=None):
        """The batch that the host would make: image and reference for these rows of the slices, rotated by `angles`."""
        pair = ops.stack([ops.cast(ops.take(array, rows, axis=0), "float32") for array in slices], axis=-1)
        if angles is not None:
            pair = rotated(pair, angles)
        low, high = LABEL_VALUES[self.training.labels]
        return network_input(pair[..., 0]), ops.where(pair[..., 1:] > 0.5, high, low)

    def _take(self, plan, start: int, first: int, end: int) -> np.ndarray:
        """Take the steps from `first` to before `end`; returns gradient norms (step, player), NaN without an
        adversary."""
        numbers = np.arange(first, first + len(plan[0]), dtype=np.int32)
        values, norms = self._steps(self._values(), self.slices, plan, first - start, end - first, numbers)
        for key, variable in self._variables().items():
            variable.assign(values[key])
        return ops.convert_to_numpy(norms)[: end - first]

    def _take_steps(self, values, slices, plan, first, count, numbers):
        adversary = self.players.adversary

        def take(turn, state):
            values, norms = state
            pair = self._batch(slices, plan[0][first + turn], plan[1][first + turn])
            if adversary:
                is_its_turn = numbers[turn] % adversary.every == 0
                moves = functools.partial(self._step, adversary)
                values = ops.cond(is_its_turn, lambda: moves(values, pair), lambda: values)
            values = self._step(self.players.learner, values, pair)
            lengths = [values[id(player.optimizer.gradient_norm)] for player in self._everyone()]
            lengths += [ops.full((), np.nan)] * (2 - len(lengths))
            return values, ops.slice_update(norms, (turn, 0), ops.stack(lengths)[None])

        return ops.fori_loop(0, count, take, (values, ops.zeros((len(numbers), 2))))

    def _step(self, player: Learner, values: dict, pair) -> dict:
        """All values after one step of a player on a batch."""
        groups = self._groups(player)
        _, state = player.train_step(tuple([values[id(one)] for one in group] for group in groups), pair)
        changed = {
            id(one): value
            for group, news in zip(groups, state, strict=True)
            for one, value in zip(group, news, strict=True)
        }
        return values | changed

    def _stateless(self, network: keras.Model, values: dict, image):
        """What a network makes of images outside a training step, and its variables that are not trained,
        afterwards."""
        own = network.trainable_variables, network.non_trainable_variables
        return network.stateless_call(*([values[id(one)] for one in group] for group in own), image)

    def _batch_statistics(self, values, slices, plan):
        places = [
            [id(one) for one in self.measurement.non_trainable_variables].index(id(v)) for v in self.measurement.running
        ]

        def look(_, drawn):
            image, _reference = self._batch(slices, *drawn)
            _prediction, others = self._stateless(self.measurement, values, image)
            return None, [others[place] for place in places]

        return [ops.mean(several, axis=0) for several in ops.scan(look, None, plan)[1]]

    def _sizes(self, values, slices, plan):
        generator = self.players.learner.generator

        def look(sums, batch):
            rows, counted = batch
            image, reference = self._batch(slices, rows)
            prediction, _ = self._stateless(generator, values, image)
            masks = [
                ops.cast((mask > 0.5) & counted[:, None, None, None], "float32") for mask in (reference, prediction)
            ]
            return (sums[0] + ops.sum(masks[0] * masks[1]), sums[1] + ops.sum(masks[0]) + ops.sum(masks[1])), None

        return ops.scan(look, (ops.zeros(()), ops.zeros(())), plan)[0]


def _spans(steps: range, log: StepLog | None) -> list[tuple[int, int]]:
    """An epoch's steps in spans (first, end) that end where the log measures the probe, and at the epoch's end."""
    ends = [taken for taken in range(steps.start + 1, steps.stop) if log and log.looks(taken)] + [steps.stop]
    return list(zip([steps.start, *ends[:-1]], ends, strict=True))
