"""One `fit` for every loss (paper 3.2.2).

In flow the memory-mapped slices of the training and validation subjects; out flow, per (loss, seed), a folder with
`model.keras` (the generator at its best epoch), `history.csv` (a row an epoch) and `training.json` (what, where, how
long). Every loss of one seed starts from the same weights and sees the same batches: only the loss differs.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops
from tqdm import tqdm

from wmhlib.batches import plain_batches, training_batches
from wmhlib.generator import dense_unet
from wmhlib.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss
from wmhlib.siamese import SiameseContentLoss
from wmhlib.slices import open_slices
from wmhlib.study import Study, provenance, replacing, write_json

LEAST_TISSUE_PCT = 1.0
"""Slices with less tissue are air: they teach nothing, and batches with many of them unsettle batch norm (D-010)."""


def make_loss(name: str, settings: dict, features: keras.Model | None = None) -> keras.losses.Loss:
    """The loss of a configuration entry. A new loss is added here and in `config/schema.yaml`.

    Parameters
    ----------
    name, settings
        The key and the value below `losses` in the configuration.
    features
        VGG19's features, for the Siamese loss.
    """
    settings = {key: value for key, value in settings.items() if key != "labels"}
    makers = {
        "dice": DiceLoss,
        "tversky": TverskyLoss,
        "generalized_dice": GeneralizedDiceLoss,
        "siamese": lambda: SiameseContentLoss(features),
    }
    return makers[name](**settings)


def make_generator(study: Study, labels: str, seed: int) -> keras.Model:
    """The study's untrained generator for losses with these labels (`hard` or `soft`).

    Every loss of a seed starts from the same weights but for the last layer's bias, which starts where the labels put
    the background (D-004).
    """
    settings = study.config["generator"] | {"output_prior": study.config["generator"]["output_prior"][labels]}
    preprocessing = study.config["preprocessing"]
    return dense_unet(preprocessing["size_px"], **settings, seed=seed, view=preprocessing["view"])


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


class LossTrainer(keras.Model):
    """A generator together with the loss it learns from; the loss is bound to the images of each batch."""

    def __init__(self, generator: keras.Model, criterion: keras.losses.Loss):
        super().__init__(name="loss_trainer")
        self.generator, self.criterion = generator, criterion

    def call(self, image, training=None):
        return self.generator(image, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        criterion = self.criterion.bound_to(x) if hasattr(self.criterion, "bound_to") else self.criterion
        return criterion(y, y_pred)


def measure_batch_norm(generator: keras.Model, batches: Iterator, count: int) -> None:
    """Replace batch norm's running statistics by their mean over `count` batches, at the weights as they are now.

    Running averages lag behind weights that still move fast: a few hundred steps then train well and infer nonsense, and
    validation swings from epoch to epoch (D-003). After Wu and Johnson 2021, arXiv:2105.07576, section 3.
    """
    norms = [layer for layer in generator.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for number, (image, _) in enumerate(itertools.islice(batches, count), start=1):
        for norm in norms:
            norm.momentum = 1 - 1 / number  # a mean over all batches so far
        generator(image, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class KeepBest(keras.callbacks.Callback):
    """Validates after every epoch, writes the history, and saves the generator whenever it beats every epoch before.

    `measuring` and `validation` give fresh batches: for batch norm's statistics, and for the validation figures. With no
    validation `steps`, every epoch is saved over the one before. `watch`, if given, is called with the history so far.
    """

    def __init__(
        self,
        measuring: Callable,
        measured: int,
        validation: Callable,
        steps: int,
        folder: Path,
        epochs: int,
        watch: Callable | None = None,
    ):
        super().__init__()
        self.watch = watch
        self.measuring, self.measured = measuring, measured
        self.validation, self.steps, self.folder = validation, steps, folder
        self.history, self.best = [], -1.0
        self.bar = tqdm(total=epochs, unit="epoch", desc=f"{folder.parent.name} {folder.name}")
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        measure_batch_norm(self.model.generator, self.measuring(), self.measured)
        checked = {"loss": math.nan, "dice": math.nan}
        if self.steps:
            checked = self.model.evaluate(self.validation(), steps=self.steps, verbose=0, return_dict=True)
        row = {"epoch": epoch + 1, "loss": logs["loss"], "dice": logs["dice"]}
        row |= {f"validation_{name}": checked[name] for name in ("loss", "dice")}
        kept = not self.steps or row["validation_dice"] > self.best
        if kept:
            self.best = row["validation_dice"]
            with replacing(self.folder / "model.keras") as temporary:
                self.model.generator.save(temporary)
        self.history.append(row | {"kept": kept, "seconds": round(time.monotonic() - self.started, 1)})
        with replacing(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.history).to_csv(temporary, index=False)
        if self.watch:
            self.watch(pd.DataFrame(self.history))
        self.bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "validation_dice")}, refresh=False)
        self.bar.update()

    def on_train_end(self, logs=None):
        self.bar.close()


def train(study: Study, loss: str, seed: int, watch: Callable | None = None) -> pd.DataFrame:
    """Train the generator with one loss and one seed into `study.model(loss, seed)`; returns the history.

    `watch`, if given, is called with the history so far after every epoch, for a curve that grows.

    The epoch kept is the one with the highest Dice of all validation slices together, for every loss alike (D-008).
    Where the split has no validation subjects, it is the last epoch (D-009).

    Raises
    ------
    FileNotFoundError
        Notebook 02 or 03 of this study was not run yet.
    ValueError
        The study does not configure this loss, or no training slice holds a lesion.
    """
    if loss not in study.config["losses"]:
        raise ValueError(f"{study.config_path} has no loss {loss!r}; it has {', '.join(study.config['losses'])}.")
    settings = study.config["training"]
    images, references, index = open_slices(study.slices)
    rows = index.index[(index.split == "training") & (index.tissue_pct >= LEAST_TISSUE_PCT)].to_numpy()
    checked_rows = index.index[index.split == "validation"].to_numpy()
    if not index.lesion_density_pct[rows].any():
        raise ValueError(f"No training slice in {study.slices} holds a lesion: check the references of the data.")
    features = None
    if loss == "siamese":
        if not study.discriminator.is_file():
            raise FileNotFoundError(
                f"No VGG19 at {study.discriminator}: run notebook 03_build_networks of this study first."
            )
        features = keras.saving.load_model(study.discriminator, compile=False, safe_mode=True)
    labels, batch_size = study.config["losses"][loss]["labels"], settings["batch_size"]

    keras.utils.set_random_seed(seed)
    generator = make_generator(study, labels, seed)
    trainer = LossTrainer(generator, make_loss(loss, study.config["losses"][loss], features))
    steps = settings["epochs"] * settings["steps_per_epoch"]
    rate = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], steps)  # D-016
    optimizer = keras.optimizers.Adam(rate, settings["beta_1"], settings["beta_2"])
    trainer.compile(optimizer=optimizer, metrics=[PooledDice()], jit_compile=keras.backend.backend() == "jax")
    folder = study.model(loss, seed)
    folder.mkdir(parents=True, exist_ok=True)
    augmented = {
        "labels": labels,
        "batch_size": batch_size,
        "rotation_deg": study.config["augmentation"]["rotation_deg"],
    }
    keeper = KeepBest(
        lambda: training_batches(images, references, rows, **augmented, seed=0),
        settings["batch_norm_batches"],
        lambda: plain_batches(images, references, checked_rows, labels, batch_size),
        math.ceil(len(checked_rows) / batch_size),
        folder,
        settings["epochs"],
        watch,
    )
    trainer.fit(
        training_batches(images, references, rows, **augmented, seed=seed),
        epochs=settings["epochs"],
        steps_per_epoch=settings["steps_per_epoch"],
        shuffle=False,
        callbacks=[keeper],
        verbose=0,
    )
    history = pd.DataFrame(keeper.history)
    kept = history[history.kept].iloc[-1]
    write_json(
        folder / "training.json",
        {
            "loss": loss,
            "seed": seed,
            "backend": keras.backend.backend(),
            "devices": [str(device) for device in keras.distribution.list_devices()],
            "parameters": int(np.sum([np.prod(weight.shape) for weight in generator.trainable_weights])),
            "training_slices": len(rows),
            "kept_epoch": int(kept.epoch),
            "validation_dice": float(kept.validation_dice) if len(checked_rows) else None,
            "seconds": float(history.seconds.iloc[-1]),
        }
        | provenance(),
    )
    return history
