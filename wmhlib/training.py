"""One `fit` for every loss (paper 3.2.2).

Input: the memory-mapped slices of the training and validation subjects. Output, per (loss, seed), a folder with `model.keras`
(the generator at its best epoch), `history.csv` (a row per epoch), for losses that look at features `steps.csv` (a row per
step) and `training.json` (what, where, how long). Every loss of one seed starts from the same weights and sees the same
batches: only the loss and its labels differ, and what a variant's entry says.

An interrupted training resumes from its last whole epoch and ends with the same weights as an uninterrupted one; a finished
one is not repeated while what it follows from is the same (`wmhlib.running.checkpoints`).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib import features, gpu
from wmhlib.batches import PlainBatches, ReadAhead, TrainingBatches, chosen_augmentations
from wmhlib.generator import build
from wmhlib.learner import COMPILED, BatchNormMeasurement, Learner, PooledDice, WatchedAdam, pooled_dice, precision
from wmhlib.losses import LOSSES, Loss
from wmhlib.minmax import Players, make_players
from wmhlib.running.checkpoints import Checkpoints
from wmhlib.running.files import alone, write_json
from wmhlib.running.keys import follows_from
from wmhlib.running.provenance import provenance
from wmhlib.settings import Recipe, Training
from wmhlib.siamese import SiameseContentLoss
from wmhlib.slices import open_slices
from wmhlib.study import Study

LEAST_TISSUE_PCT = 1.0
"""Slices with less tissue are air: they teach nothing, and batches with many of them unsettle batch norm (D-010)."""


def train(study: Study, loss: str, seed: int, watch: Callable | None = None) -> pd.DataFrame:
    """Train the generator with one loss and one seed into `study.model(loss, seed)`; returns the history.

    Resumes a training of the same settings, slices, features and code; a finished one is not repeated (D-028). `watch`, if
    given, is called with the history so far and the generator after every epoch that is saved, for a curve that grows; of a
    training that is done with the whole history and None.

    The epoch kept is the one with the highest Dice of all validation slices together, for every loss alike (D-008).
    Where the split has no validation subjects, it is the last epoch (D-009).

    Raises
    ------
    FileNotFoundError
        Notebook 02 or 03 of this study was not run yet, or the checkpoint of an interrupted training is gone.
    ValueError
        The study does not configure this loss, no training slice holds a lesion, or the centre to leave out is not there.
    BlockingIOError
        Another process is at this training.
    MemoryError
        The device has too little memory.
    """
    recipe = study.recipe(loss)
    with alone(study.model(loss, seed)), precision(recipe.training.precision) as policy:
        try:
            return _train(study, loss, recipe, seed, policy, watch)
        except Exception as error:  # TensorFlow and JAX each have an error of their own, with this in its text
            if "RESOURCE_EXHAUSTED" not in str(error) and "OOM when" not in str(error):
                raise
            raise MemoryError(
                f"{loss}, seed {seed}: the device has too little memory for batches of {recipe.training.batch_size} slices "
                f"of {study.config.preprocessing.size_px} pixels: lower training.batch_size, generator.filters or "
                "preprocessing.size_px, or set training.precision to mixed_bfloat16."
            ) from error


def _train(study: Study, loss: str, recipe: Recipe, seed: int, policy: str, watch: Callable | None) -> pd.DataFrame:
    settings, slices = recipe.training, open_slices(study.slices / recipe.preparation.name)
    rows, validation_rows = choose_slices(slices[2], recipe, loss)
    network = make_features(study, recipe)
    checkpoints = Checkpoints(study.model(loss, seed))
    devices = [str(device) for device in keras.distribution.list_devices()]
    made_with = checkpoints.begin(
        follows_from(study, recipe, network, seed, policy),
        {"devices": devices, "precision": policy, **provenance()},
        logs_steps=issubclass(LOSSES[recipe.loss], SiameseContentLoss),
    )
    keras.utils.set_random_seed(seed)
    learner = make_learner(recipe, study.config.preprocessing.size_px, seed, network)
    if checkpoints.epochs < settings.epochs:
        with make_data(recipe, *slices[:2], rows, validation_rows, seed) as data:
            fit(
                make_players(learner, settings, data.measuring[0], checkpoints.steps),
                data,
                settings,
                checkpoints,
                watch,
            )
    else:
        print(f"{loss}, seed {seed}: already trained with the same settings, slices, features and code.")
        if watch:
            watch(pd.DataFrame(checkpoints.history), None)
    seen = sorted(set(slices[2].subject[np.union1d(rows, validation_rows)]))
    return _record(study, loss, recipe, seed, learner, checkpoints, len(rows), made_with | {"subjects_seen": seen})


class Data(NamedTuple):
    """What a training reads: training batches, batches that measure batch norm, validation batches."""

    training: ReadAhead
    measuring: ReadAhead
    validation: PlainBatches


@contextlib.contextmanager
def make_data(recipe: Recipe, images, references, rows, validation_rows, seed: int) -> Iterator[Data]:
    """The batches of a training, from the arrays of `open_slices` and the rows of `choose_slices`. Those that measure batch
    norm are of seed 0, the same for every seed."""
    size, augmented = recipe.training.batch_size, chosen_augmentations(recipe.augmentation)
    batches = [TrainingBatches(images, references, rows, recipe.labels, size, augmented, s) for s in (seed, 0)]
    validation = PlainBatches(images, references, validation_rows, recipe.labels, size)
    with ReadAhead(batches[0]) as training, ReadAhead(batches[1], end=recipe.training.batch_norm_batches) as measuring:
        yield Data(training, measuring, validation)


def fit(
    players: Players, data: Data, settings: Training, checkpoints: Checkpoints, watch: Callable | None = None
) -> None:
    """Train to the last epoch, from wherever the checkpoints are; after each epoch measure batch norm and validate.

    Saves after each epoch; where epochs take less time than saving, every `OnDevice.save_every_s`.
    """
    way = (gpu.OnDevice if gpu.suits(data.training.batches) else OnHost)(players, data)
    steps, variables = settings.steps_per_epoch, players.variables()
    if checkpoints.epochs:
        checkpoints.restore(variables)
    started = time.monotonic() - (checkpoints.history[-1]["seconds"] if checkpoints.history else 0)
    saved = time.monotonic()
    name = f"{checkpoints.folder.parent.name} {checkpoints.folder.name}"
    for epoch in tqdm(range(checkpoints.epochs, settings.epochs), name, unit="epoch"):
        logs = way.run_epoch(range(epoch * steps, (epoch + 1) * steps))
        way.measure()
        dice = way.validation_dice() if len(data.validation) else math.nan
        best = max((row["validation_dice"] for row in checkpoints.history if row["kept"]), default=-1.0)
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), "dice": float(logs["dice"]), "validation_dice": dice}
        row |= {"kept": not len(data.validation) or dice > best, "seconds": round(time.monotonic() - started, 1)}
        checkpoints.add(row, players.learner.generator)
        if epoch + 1 < settings.epochs and time.monotonic() - saved < way.save_every_s:
            continue
        checkpoints.save(players.learner.generator, variables)
        saved = time.monotonic()
        if watch:
            watch(pd.DataFrame(checkpoints.history), players.learner.generator)


class OnHost:
    """Epochs step by step, with batches read ahead in threads: on every backend."""

    save_every_s = 0.0

    def __init__(self, players: Players, data: Data):
        self.players, self.data = players, data
        self.measurement = BatchNormMeasurement(players.learner.generator)

    def run_epoch(self, steps: range) -> dict:
        """As the function of this name."""
        return run_epoch(self.players, self.data.training, steps)

    def measure(self) -> None:
        """Batch norm's statistics at the current weights."""
        self.measurement.over(self.data.measuring[number] for number in range(self.data.measuring.end or 0))

    def validation_dice(self) -> float:
        """Pooled Dice of the validation slices."""
        return pooled_dice(self.players.learner, self.data.validation)


def run_epoch(players: Players, batches: ReadAhead, steps: range) -> dict:
    """The steps of one epoch; returns the means of loss and Dice. In the min-max game the adversary
    takes its step before every `discriminator_every`-th step of the generator, on the same batch."""
    learner, adversary = players.learner, players.adversary
    learner.begin_epoch()
    logs: dict = {}
    for step in steps:
        image, reference = batches[step]
        if adversary and step % adversary.every == 0:
            adversary.step(image, reference)  # raises the content loss: the filters of the features move
        logs = learner.step(image, reference)  # lowers the loss: the generator's weights move
        if players.log:
            players.log.add(*(player.gradient_norm for player in (learner, adversary) if player))
    return logs


def make_learner(recipe: Recipe, size: int, seed: int, network: keras.Model | None) -> Learner:
    """The untrained generator of a recipe with its loss, compiled.

    Every loss of a seed starts from the same weights but for the last layer's bias, which starts where the labels have
    the background (D-004). The learning rate falls to zero along a half cosine (D-016).
    """
    settings = recipe.training
    generator = make_generator(recipe, size, seed)
    learner = Learner(generator, make_loss(recipe, network))
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * settings.steps_per_epoch)
    learner.compile(WatchedAdam(rate, settings.beta_1, settings.beta_2), metrics=[PooledDice()], **COMPILED)
    return learner


def make_generator(recipe: Recipe, size: int, seed: int) -> keras.Model:
    """The untrained generator of a recipe."""
    return build(size, **recipe.generator.model_dump(), seed=seed, preparation=recipe.preparation.name)


def make_loss(recipe: Recipe, network: keras.Model | None = None) -> Loss:
    """The loss of a recipe; `network` as `make_features` gives it."""
    return LOSSES[recipe.loss](**({"features": network} if recipe.features else {}), **recipe.settings)


def make_features(study: Study, recipe: Recipe) -> keras.Model | None:
    """The feature network of a recipe, cut at its taps, with the study's weights or random ones; None for overlap losses.

    Raises
    ------
    FileNotFoundError
        Notebook 03 of this study was not run yet.
    """
    if recipe.features is None:
        return None
    network = recipe.features["network"]
    model = features.build(study.config.preprocessing.size_px, recipe.features["taps"], network)
    if recipe.features["weights"] == "imagenet":
        path = study.features / f"{network}.npz"
        if not path.is_file():
            raise FileNotFoundError(f"No {network} at {path}: run notebook 03_build_networks of this study first.")
        features.load_arrays(model, path)
    return model


def choose_slices(index: pd.DataFrame, recipe: Recipe, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the slices that a recipe trains on and validates on, without those of centres that are left out.

    Raises
    ------
    ValueError
        A centre to leave out is not there, or no training slice holds a lesion.
    """
    if unknown := set(recipe.left_out) - set(index.centre):
        raise ValueError(
            f"losses.{loss}.without names {', '.join(sorted(unknown))}, but the centres of the training and validation subjects are "
            f"{', '.join(sorted(index.centre.unique()))}: correct the name."
        )
    kept = index[~index.centre.isin(recipe.left_out)]
    own = kept[(kept.split == "training") & (kept.tissue_pct >= LEAST_TISSUE_PCT)]
    if not own.lesion_density_pct.any():
        raise ValueError(f"No training slice of {loss} holds a lesion: check the references of the data.")
    return own.index.to_numpy(), kept.index[kept.split == "validation"].to_numpy()


def _record(study, loss, recipe, seed, learner, checkpoints, training_slices, made_with) -> pd.DataFrame:
    """Write `training.json`; returns the history."""
    history = pd.DataFrame(checkpoints.history)
    kept = history[history.kept].iloc[-1]
    record = {
        "loss": loss,
        "seed": seed,
        "backend": keras.backend.backend(),
        "parameters": int(np.sum([np.prod(weight.shape) for weight in learner.trainable_weights])),
        "training_slices": training_slices,
        "kept_epoch": int(kept.epoch),
        "validation_dice": None if math.isnan(kept.validation_dice) else float(kept.validation_dice),
        "seconds": float(history.seconds.iloc[-1]),
        "recipe": recipe.model_dump(),
    }
    write_json(study.model(loss, seed) / "training.json", record | made_with)
    return history
