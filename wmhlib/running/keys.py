"""Everything that determines a training; it is repeated only if one of these changes (D-028).

Settings, the content of slices and feature weights, and a digest of the code that the training uses.
"""

import hashlib

import keras

from wmhlib import features
from wmhlib.augmentations import AUGMENTATIONS
from wmhlib.losses import LOSSES
from wmhlib.running import code
from wmhlib.running.files import PathLike, sha256
from wmhlib.settings import Recipe
from wmhlib.siamese import MinMaxLoss
from wmhlib.study import Study

ROOTS = [("wmhlib.training", name) for name in ("fit", "make_learner", "choose_slices", "make_data")]
ROOTS += [("wmhlib.minmax", "Players")]
"""The entry points of the code of every training."""

ELSEWHERE = tuple(
    f"wmhlib.{name}" for name in ("running", "intake", "evaluation", "report", "apply", "settings", "study")
)
"""Code on which trained weights depend only through slices and settings, which are compared by value."""


def follows_from(
    study: Study, recipe: Recipe, network: keras.Model | None, seed: int, precision: str, start: PathLike | None = None
) -> dict:
    """Everything that determines the weights of a training, as text and numbers; `precision` is the dtype policy, `start`
    the file of the first weights, whose content counts and whose name does not."""
    content = hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights()) if network else b"")
    for path in sorted((study.slices / recipe.preparation.name).iterdir()):
        with path.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    settings = recipe.model_dump()
    settings["training"]["start"] = sha256(start) if start else None
    return {
        **settings,
        "augmentation": list(recipe.augmentation.items()),  # their order matters
        "seed": seed,
        "precision": precision,
        "backend": keras.backend.backend(),
        "size_px": study.config.preprocessing.size_px,
        "content": content.hexdigest(),
        "code": code_of(recipe),
    }


def code_of(recipe: Recipe) -> str:
    """A digest of the code of a training: `fit`, batches, loss, feature network, augmentations and adversary."""
    loss, elsewhere = LOSSES[recipe.loss], ELSEWHERE
    parts: list = [*ROOTS, loss, *(AUGMENTATIONS[name] for name in recipe.augmentation)]
    if recipe.features:
        network = type(features.find(recipe.features["network"]))
        parts += [("wmhlib.training", "make_features"), ("wmhlib.minmax", "StepLog"), network]
        elsewhere += () if network is features.Application else ("wmhlib.features.Application",)
    if issubclass(loss, MinMaxLoss):
        parts += [("wmhlib.minmax", "make_adversary")]
    return code.digest(parts, elsewhere)
