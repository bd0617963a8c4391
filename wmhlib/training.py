"""One `fit` for every loss (paper 3.2.2).

In flow the memory-mapped slices of the training and validation subjects; out flow, per (loss, seed), a folder with
`model.keras` (the generator at its best epoch), `history.csv` (a row an epoch), for losses with VGG19 `diary.csv` (a row a
step) and `training.json` (what, where, how long). Every loss of one seed starts from the same weights and sees the same
batches: only the loss differs.

A training that was cut off goes on from its last whole epoch and ends with the same weights as an unbroken one, and one that is
done is not repeated: `started.json` says what it follows from; until `wmhlib.checkpoints.finish`,
`epoch-<n>-<player>.weights.h5` hold both players and their optimizers.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from wmhlib.batches import PlainBatches, ReadAhead, TrainingBatches
from wmhlib.checkpoints import KeepBest, begun, checkpoint
from wmhlib.generator import dense_unet
from wmhlib.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss
from wmhlib.siamese import SiameseContentLoss, vgg19_features
from wmhlib.slices import open_slices
from wmhlib.study import TRAINED_BY, Study, alone, provenance, write_json
from wmhlib.trainers import Adversary, Ascent, Diary, LossTrainer, Numbered, PooledDice, Tether, WatchedAdam

LEAST_TISSUE_PCT = 1.0
"""Slices with less tissue are air: they teach nothing, and batches with many of them unsettle batch norm (D-010)."""

DIARY_EVERY, DIARY_LOOKS = 20, 200
"""Steps between two looks at the batch that is always the same, in the diary, and how many of these a long training takes."""


def make_loss(kind: str, settings: dict, features: keras.Model | None = None) -> keras.losses.Loss:
    """The loss of a recipe. A new loss is added here and in `config/schema.yaml`.

    Parameters
    ----------
    kind, settings
        `kind` and `loss` of `Study.recipe`.
    features
        VGG19's features, for the Siamese losses.
    """
    makers = {
        "dice": DiceLoss,
        "tversky": TverskyLoss,
        "generalized_dice": GeneralizedDiceLoss,
        "siamese": lambda **own: SiameseContentLoss(features, **own),
        "siamese_minmax": lambda **own: SiameseContentLoss(features, **own),
    }
    elsewhere = ("taps", "weights", "discriminator_rate", "discriminator_every", "most_drift")
    return makers[kind](**{key: value for key, value in settings.items() if key not in elsewhere})


def make_features(study: Study, recipe: dict) -> keras.Model | None:
    """VGG19 as a recipe wants it: its number of taps, the study's weights or random ones, trainable in the min-max game.

    None where the loss does not look at VGG19.

    Raises
    ------
    FileNotFoundError
        Notebook 03 of this study was not run yet.
    """
    wanted = recipe["loss"]
    if "taps" not in wanted:
        return None
    if not study.discriminator.is_file():
        raise FileNotFoundError(
            f"No VGG19 at {study.discriminator}: run notebook 03_build_networks of this study first."
        )
    features = vgg19_features(study.config["preprocessing"]["size_px"], wanted["taps"])
    if wanted["weights"] == "imagenet":
        stored = keras.saving.load_model(study.discriminator, compile=False, safe_mode=True)
        for layer in (layer for layer in features.layers if layer.weights):
            layer.set_weights(stored.get_layer(layer.name).get_weights())
    features.trainable = recipe["kind"] == "siamese_minmax"
    for weight in features.weights if "most_drift" in wanted else ():
        weight.constraint = Tether(keras.ops.convert_to_numpy(weight), wanted["most_drift"])
    return features


def make_generator(study: Study, loss: str, seed: int) -> keras.Model:
    """The untrained generator of an entry below `losses`.

    Every loss of a seed starts from the same weights but for the last layer's bias, which starts where the labels put
    the background (D-004).
    """
    recipe = study.recipe(loss)
    return dense_unet(study.config["preprocessing"]["size_px"], **recipe["generator"], seed=seed, view=recipe["view"])


def make_players(study: Study, loss: str, seed: int, features: keras.Model | None) -> dict[str, LossTrainer]:
    """What `fit` trains for an entry below `losses`, compiled: the `generator` and, in the min-max game, the `adversary`.

    `features` as `make_features` gives them.
    """
    recipe = study.recipe(loss)
    settings, generator = recipe["training"], make_generator(study, loss, seed)
    criterion = make_loss(recipe["kind"], recipe["loss"], features)
    rate = keras.optimizers.schedules.CosineDecay(
        settings["learning_rate"], settings["epochs"] * settings["steps_per_epoch"]
    )  # D-016
    momenta = (settings["beta_1"], settings["beta_2"])
    compiled = {"jit_compile": keras.backend.backend() == "jax"}
    players = {"generator": LossTrainer(generator, criterion)}
    players["generator"].compile(WatchedAdam(rate, *momenta), metrics=[PooledDice()], **compiled)
    if recipe["kind"] == "siamese_minmax":
        players["adversary"] = Adversary(generator, criterion)
        players["adversary"].compile(WatchedAdam(recipe["loss"]["discriminator_rate"], *momenta), **compiled)
    return players


def precision_here(wanted: str) -> str:
    """Keras's dtype policy for a configured precision: `auto` takes the faster of two on this machine (D-031).

    That is mixed_bfloat16 where TensorFlow runs on a processor with matrix units for bfloat16 (AMX), else float32.
    """
    if wanted != "auto":
        return wanted
    on_processor = all("cpu" in str(device).lower() for device in keras.distribution.list_devices())
    flags = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else ()
    has_units = keras.backend.backend() == "tensorflow" and on_processor and "amx_bf16" in flags
    return "mixed_bfloat16" if has_units else "float32"


@contextlib.contextmanager
def machine(precision: str, devices: int = 1, batch_size: int = 0) -> Iterator[None]:
    """Train with this Keras dtype policy and on this many devices, by the backend's own data parallelism.

    Every device takes its share of each batch. TensorFlow computes losses and batch norm per share, JAX for the whole batch.

    Raises
    ------
    ValueError
        There are fewer devices, the backend is another, or the precision or the batch does not go with several devices.
    """
    if devices > 1 and precision == "mixed_float16":  # Keras 3.15 then logs losses of another scale
        raise ValueError(
            "training.precision is mixed_float16 on several devices, which is not sound yet. Use mixed_bfloat16."
        )
    policy, backend = keras.config.dtype_policy(), keras.backend.backend()
    found = keras.distribution.list_devices()
    if devices > len(found):
        raise ValueError(
            f"training.devices is {devices}, but {len(found)} can be seen ({', '.join(map(str, found))}): lower it."
        )
    if batch_size % devices:
        raise ValueError(
            f"training.batch_size is {batch_size}, which {devices} devices cannot share evenly: change one."
        )
    keras.config.set_dtype_policy(precision)
    try:
        if devices == 1:
            yield
        elif backend == "jax":
            keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:devices]))
            yield
        elif backend == "tensorflow":
            import tensorflow as tf

            with tf.distribute.MirroredStrategy(found[:devices]).scope():
                yield
        else:
            raise ValueError(f"training.devices is {devices}, which the backend {backend} does not serve: use 1.")
    finally:
        keras.config.set_dtype_policy(policy)
        keras.distribution.set_distribution(None)


def train(study: Study, loss: str, seed: int, watch: Callable | None = None) -> pd.DataFrame:
    """Train the generator with one loss and one seed into `study.model(loss, seed)`; returns the history.

    Goes on where a training of the same settings, slices, features and code was cut off; one that is done is not repeated (D-028).
    `watch`, if given, is called with the history so far after every epoch, for a curve that grows.

    The epoch kept is the one with the highest Dice of all validation slices together, for every loss alike (D-008).
    Where the split has no validation subjects, it is the last epoch (D-009).

    Raises
    ------
    FileNotFoundError
        Notebook 02 or 03 of this study was not run yet, or the checkpoint of a training that was cut off is gone.
    ValueError
        The study does not configure this loss, no training slice holds a lesion, or the centre to leave out is not there.
    BlockingIOError
        Another process is at this training.
    MemoryError
        The device has too little memory.
    """
    recipe = study.recipe(loss)
    settings = recipe["training"]
    settings["precision"] = precision_here(settings.get("precision", "float32"))
    devices = settings.get("devices", 1)
    with alone(study.model(loss, seed)), machine(settings["precision"], devices, settings["batch_size"]):
        try:
            return _train(study, loss, recipe, seed, watch)
        except Exception as error:  # TensorFlow and JAX each have an error of their own, with this in its text
            if "RESOURCE_EXHAUSTED" not in str(error) and "OOM when" not in str(error):
                raise
            raise MemoryError(
                f"{loss}, seed {seed}: the device has too little memory for batches of {settings['batch_size']} slices of "
                f"{study.config['preprocessing']['size_px']} pixels: lower training.batch_size, generator.filters or "
                "preprocessing.size_px, or set training.precision to mixed_float16."
            ) from error


def _digest(slices: Path, features: list[np.ndarray]) -> str:
    """Of everything but the settings that a training follows from: the slices, VGG19's weights, the code."""
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in features))
    code = [Path(__file__).with_name(f"{name}.py") for name in TRAINED_BY]
    for path in (*sorted(slices.iterdir()), *code):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _train(study: Study, loss: str, recipe: dict, seed: int, watch: Callable | None) -> pd.DataFrame:
    settings, labels, size = recipe["training"], recipe["labels"], study.config["preprocessing"]["size_px"]
    place = study.slices / recipe["view"]
    images, references, index = open_slices(place)
    if recipe["without"] and recipe["without"] not in set(index.centre):
        raise ValueError(
            f"losses.{loss}.without names {recipe['without']}, but the centres of the training and validation subjects are "
            f"{', '.join(sorted(index.centre.unique()))}: correct the name."
        )
    own = (index.split == "training") & (index.centre != recipe["without"])
    rows = index.index[own & (index.tissue_pct >= LEAST_TISSUE_PCT)].to_numpy()
    checked_rows = index.index[(index.split == "validation") & (index.centre != recipe["without"])].to_numpy()
    if not index.lesion_density_pct[rows].any():
        raise ValueError(f"No training slice of {loss} in {place} holds a lesion: check the references of the data.")
    features = make_features(study, recipe)
    unplayed = features.get_weights() if features else []

    keras.utils.set_random_seed(seed)
    players = make_players(study, loss, seed, features)
    trainer = players["generator"]

    folder = study.model(loss, seed)
    what = {"backend": keras.backend.backend(), "seed": seed, "size_px": size, **study.config["augmentation"], **recipe}
    devices = [str(device) for device in keras.distribution.list_devices()]
    history, diary, made_with = begun(
        folder, what | {"made_of": _digest(place, unplayed)}, {"devices": devices, **provenance()}
    )
    done = len(history)
    if done < settings["epochs"]:
        for name, player in players.items() if done else ():
            player.build((None, size, size, 3))
            player.optimizer.build(player.trainable_variables)
            path = checkpoint(folder, done, name)
            if not path.is_file():
                raise FileNotFoundError(
                    f"No checkpoint at {path}, though history.csv says that epoch {done} is whole: put it back, or remove the "
                    "folder to start over."
                )
            player.load_weights(path)

        augmented = {"labels": labels, "batch_size": settings["batch_size"], **study.config["augmentation"]}
        first = done * settings["steps_per_epoch"]
        batches = ReadAhead(TrainingBatches(images, references, rows, **augmented, seed=seed, first=first))
        unseen_angles = ReadAhead(TrainingBatches(images, references, rows, **augmented, seed=0))
        keeper = KeepBest(
            folder,
            players,
            history,
            diary,
            unseen_angles,
            settings["batch_norm_batches"],
            PlainBatches(images, references, checked_rows, labels, settings["batch_size"]),
            watch,
        )
        callbacks = [keeper]
        if features is not None:
            every = max(DIARY_EVERY, settings["epochs"] * settings["steps_per_epoch"] // DIARY_LOOKS)
            callbacks.insert(0, Diary(unseen_angles[0], unplayed, trainer, players.get("adversary"), every, diary))
        if "adversary" in players:
            every = recipe["loss"].get("discriminator_every", 1)
            callbacks.insert(0, Ascent(players["adversary"], batches, every, first))
        trainer.fit(
            Numbered(batches),
            initial_epoch=done,
            epochs=settings["epochs"],
            steps_per_epoch=settings["steps_per_epoch"],
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
    else:
        print(
            f"{loss}, seed {seed}, was trained with just these settings, slices, features and code, and is not repeated; to "
            f"train it again, remove {folder.relative_to(study.folder.parents[1])}."
        )
        if watch:
            watch(pd.DataFrame(history))
    table = pd.DataFrame(history)
    kept = table[table.kept].iloc[-1]
    write_json(
        folder / "training.json",
        {
            "loss": loss,
            "seed": seed,
            "backend": keras.backend.backend(),
            "parameters": int(np.sum([np.prod(weight.shape) for weight in trainer.trainable_weights])),
            "training_slices": len(rows),
            "kept_epoch": int(kept.epoch),
            "validation_dice": float(kept.validation_dice) if len(checked_rows) else None,
            "seconds": float(table.seconds.iloc[-1]),
            "recipe": recipe,
        }
        | made_with,
    )
    return table
