"""One `fit` for every loss (paper 3.2.2).

Input: the memory-mapped slices of the training and validation subjects. Output per (loss, seed): a folder with
`model.keras` (the generator of the best epoch), `history.csv` (one row per epoch), for content losses `steps.csv` (one
row per step), and `training.json` (settings, machine, duration). All losses of one seed start from the same weights and
see the same batches. Only the loss, its labels and the changes in a variant's entry differ.
An interrupted training resumes from its last complete epoch and ends with the same weights as an uninterrupted one. A
finished training is not repeated unless something that determines it has changed (`wmhlib.running.checkpoints`).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib import features, gpu
from wmhlib.batches import PlainBatches, ReadAhead, TrainingBatches, chosen_augmentations
from wmhlib.generator import build
from wmhlib.inference import BUNDLED, load_generator
from wmhlib.learner import COMPILED, BatchNormMeasurement, Learner, PooledDice, WatchedAdam, pooled_dice, precision
from wmhlib.losses import LOSSES, Loss
from wmhlib.minmax import Players, make_players
from wmhlib.running.checkpoints import Checkpoints
from wmhlib.running.files import alone, find, read_json, write_json
from wmhlib.running.keys import follows_from
from wmhlib.running.provenance import provenance
from wmhlib.settings import Recipe, Training
from wmhlib.siamese import SiameseContentLoss
from wmhlib.slices import open_slices
from wmhlib.study import Study

LEAST_TISSUE_PCT = 1.0
"""Least tissue in a training slice, in per cent of its pixels. Slices of air contribute nothing, and batches with many
of them disturb batch norm (D-010)."""


def train(study: Study, loss: str, seed: int, watch: Callable | None = None) -> pd.DataFrame:
    """Train the generator with one loss and one seed into `study.model(loss, seed)`; returns the history.

    It resumes a training with the same settings, slices, features and code, and does not repeat a finished one (D-028).
    `watch`, if given, is called after every saved epoch with the history so far and the generator, for example to
    update a curve. For a finished training, it is called with the whole history and None.

    For every loss, the epoch with the highest Dice over all validation slices together is kept (D-008). Without
    validation subjects, it is the last epoch (D-009).

    Raises
    ------
    FileNotFoundError
        Notebook 02 or 03 of this study was not run yet, or the checkpoint of an interrupted training is missing.
    ValueError
        The study has no such loss, no training slice has a lesion, or the centre to exclude does not exist.
    BlockingIOError
        Another process is running this training.
    MemoryError
        The device has not enough memory.
    """
    recipe = study.recipe(loss)
    with alone(study.model(loss, seed)), precision(recipe.training.precision) as policy:
        try:
            return _train(study, loss, recipe, seed, policy, watch)
        except Exception as error:  # TensorFlow and JAX have different errors with this text
            if "RESOURCE_EXHAUSTED" not in str(error) and "OOM when" not in str(error):
                raise
            raise MemoryError(
                f"{loss}, seed {seed}: the device has not enough memory for batches of {recipe.training.batch_size} "
                f"slices of {study.config.preprocessing.size_px} pixels: lower training.batch_size, generator.filters "
                "or preprocessing.size_px, or set training.precision to mixed_bfloat16."
            ) from error


def _train(study: Study, loss: str, recipe: Recipe, seed: int, policy: str, watch: Callable | None) -> pd.DataFrame:
    settings = recipe.training
    images, references, index = open_slices(study.slices / recipe.preparation.name)
    rows, validation_rows = choose_slices(index, recipe, loss)
    network = make_features(study, recipe)
    checkpoints = Checkpoints(study.model(loss, seed))
    devices = [str(device) for device in keras.distribution.list_devices()]
    start, before = start_file(settings), seen_before(settings)
    if start and start.resolve().is_relative_to(checkpoints.folder.resolve()):
        raise ValueError(f"training.start: {start} is the training's own result: copy it to another folder first.")
    keras.utils.set_random_seed(seed)
    learner = make_learner(recipe, study.config.preprocessing.size_px, seed, network)  # refuses an unsuitable start
    made_with = checkpoints.begin(
        follows_from(study, recipe, network, seed, policy, start),
        {"devices": devices, "precision": policy, **provenance()},
        logs_steps=issubclass(LOSSES[recipe.loss], SiameseContentLoss),
    )
    if checkpoints.epochs < settings.epochs:
        with make_data(recipe, images, references, rows, validation_rows, seed) as data:
            players = make_players(learner, settings, data.measuring[0], checkpoints.steps)
            fit(players, data, settings, checkpoints, watch)
    else:
        print(f"{loss}, seed {seed}: already trained with the same settings, slices, features and code.")
        if watch:
            watch(pd.DataFrame(checkpoints.history), None)
    seen = sorted(set(index.subject[np.union1d(rows, validation_rows)]))
    made_with |= {"subjects_seen": seen, "seen_by_start": before} | ({"start": str(start)} if start else {})
    return _record(study, loss, recipe, seed, learner, checkpoints, len(rows), made_with)


class Data(NamedTuple):
    """The data of a training: training batches, batches that measure batch norm, and validation batches."""

    training: ReadAhead
    measuring: ReadAhead
    validation: PlainBatches


@contextlib.contextmanager
def make_data(recipe: Recipe, images, references, rows, validation_rows, seed: int) -> Iterator[Data]:
    """The batches of a training, from the arrays of `open_slices` and the rows of `choose_slices`.

    Batches that measure batch norm use seed 0, the same for all trainings.
    """
    size, augmented = recipe.training.batch_size, chosen_augmentations(recipe.augmentation)
    batches = [TrainingBatches(images, references, rows, recipe.labels, size, augmented, s) for s in (seed, 0)]
    validation = PlainBatches(images, references, validation_rows, recipe.labels, size)
    with ReadAhead(batches[0]) as training, ReadAhead(batches[1], end=recipe.training.batch_norm_batches) as measuring:
        yield Data(training, measuring, validation)


def fit(
    players: Players, data: Data, settings: Training, checkpoints: Checkpoints, watch: Callable | None = None
) -> None:
    """Train from the last checkpoint to the last epoch; after each epoch, measure batch norm and validate.

    It saves after each epoch or, if epochs are shorter than saving, every `OnDevice.save_every_s` seconds.
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
    """Epochs step by step, with batches prepared in threads, on every backend."""

    save_every_s = 0.0

    def __init__(self, players: Players, data: Data):
        self.players, self.data = players, data
        self.measurement = BatchNormMeasurement(players.learner.generator)

    def run_epoch(self, steps: range) -> dict:
        """See the function `run_epoch`."""
        return run_epoch(self.players, self.data.training, steps)

    def measure(self) -> None:
        """Measure batch norm's statistics at the current weights."""
        self.measurement.over(self.data.measuring[number] for number in range(self.data.measuring.end or 0))

    def validation_dice(self) -> float:
        """Pooled Dice of the validation slices."""
        return pooled_dice(self.players.learner, self.data.validation)


def run_epoch(players: Players, batches: ReadAhead, steps: range) -> dict:
    """Run the steps of one epoch; returns the means of loss and Dice.

    In the min-max game, the adversary takes a step before every `discriminator_every`-th step of the generator, on the
    same batch.
    """
    learner, adversary = players.learner, players.adversary
    learner.begin_epoch()
    logs: dict = {}
    for step in steps:
        image, reference = batches[step]
        if adversary and step % adversary.every == 0:
            adversary.step(image, reference)  # increases the content loss by changing the feature network's filters
        logs = learner.step(image, reference)  # decreases the loss by changing the generator's weights
        if players.log:
            players.log.add(*(player.gradient_norm for player in (learner, adversary) if player))
    return logs


def make_learner(recipe: Recipe, size: int, seed: int, network: keras.Model | None) -> Learner:
    """The generator of a recipe before training, with its loss, compiled.

    All losses of a seed start from the same weights. If these are random, the bias of the last layer differs: it starts at
    the background's label value (D-004). The learning rate decays to zero along a half cosine (D-016).
    """
    settings = recipe.training
    generator = make_generator(recipe, size, seed)
    learner = Learner(generator, make_loss(recipe, network))
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * settings.steps_per_epoch)
    learner.compile(WatchedAdam(rate, settings.beta_1, settings.beta_2), metrics=[PooledDice()], **COMPILED)
    return learner


def make_generator(recipe: Recipe, size: int, seed: int) -> keras.Model:
    """The generator of a recipe before training: with random weights, or with those of the file `training.start`.

    Raises
    ------
    FileNotFoundError
        The file of `training.start` does not exist.
    ValueError
        Its network has other layers, or was trained on scans prepared in another way.
    """
    generator = build(size, **recipe.generator.model_dump(), seed=seed, preparation=recipe.preparation.name)
    if path := start_file(recipe.training):
        earlier = _load_start(path)
        shapes = [[weight.shape for weight in model.weights] for model in (earlier, generator)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"training.start: the network in {path} has other layers ({len(shapes[0])} arrays of weights) than the "
                f"generator of this study ({len(shapes[1])}): set generator to its network, filters, depth and convolutions."
            )
        if earlier.inputs[0].name != generator.inputs[0].name:
            raise ValueError(
                f"training.start: the network in {path} was trained on scans prepared as {earlier.inputs[0].name}, but this "
                f"study prepares them as {generator.inputs[0].name}: change preprocessing.view or intensity."
            )
        generator.set_weights(earlier.get_weights())
    return generator


def start_file(settings: Training) -> Path | None:
    """The file named by `training.start`; None without one. FileNotFoundError if it does not exist."""
    if settings.start == "bundled":
        return BUNDLED
    return find(settings.start, "network for training.start") if settings.start else None


def _load_start(path: Path) -> keras.Model:
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(f"training.start: {path} is not a .keras file: give a model.keras of notebook 04_train.")
    try:
        model = load_generator(path)
        assert model.built
        return model
    except Exception as error:  # Keras raises many kinds
        raise ValueError(
            f"training.start: {path} cannot be loaded as a Keras model in safe mode ({type(error).__name__}): give a "
            "model.keras of notebook 04_train."
        ) from None


def seen_before(settings: Training) -> list[str]:
    """The subjects on which the network of `training.start` was trained, if the `training.json` beside it lists them.

    For the bundled network it lists none: it was trained on synthetic heads alone (D-060). ValueError if the file has
    another kind of list.
    """
    path = start_file(settings)
    if path is None:
        return []
    listing = path.with_name("training.json")
    record = read_json(listing)
    lists = [record.get(key) or [] for key in ("subjects_seen", "seen_by_start")]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise ValueError(f"{listing} has no list of names as subjects_seen: correct or remove it.")
    return sorted({name for names in lists for name in names})


def make_loss(recipe: Recipe, network: keras.Model | None = None) -> Loss:
    """The loss of a recipe; `network` is the output of `make_features`."""
    return LOSSES[recipe.loss](**({"features": network} if recipe.features else {}), **recipe.settings)


def make_features(study: Study, recipe: Recipe) -> keras.Model | None:
    """The feature network of a recipe up to its taps, with the study's weights or random ones; None for overlap losses.

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
    """The rows of the training and validation slices of a recipe, without those of excluded centres.

    Raises
    ------
    ValueError
        A centre to exclude does not exist, or no training slice has a lesion.
    """
    if unknown := set(recipe.left_out) - set(index.centre):
        raise ValueError(
            f"losses.{loss}.without names {', '.join(sorted(unknown))}, but the centres of the training and validation "
            f"subjects are {', '.join(sorted(index.centre.unique()))}: correct the name."
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
