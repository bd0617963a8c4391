"""All settings of a configuration with types, limits and defaults, and the checks of a file.

Unknown keys, wrong types and invalid values are refused in one sentence that names the file and the key. The settings
of a loss, a feature network or an augmentation are the arguments of its constructor or function, so nothing is listed
twice. `config/schema.json` is generated from this module (`make schema`).
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from wmhlib import features
from wmhlib.augmentations import AUGMENTATIONS, amount
from wmhlib.generator import GENERATORS
from wmhlib.intake.scans import INTENSITIES
from wmhlib.intake.sources import SOURCES
from wmhlib.losses import LOSSES
from wmhlib.running.configuration import merged
from wmhlib.running.files import PathLike
from wmhlib.siamese import MinMaxLoss  # noqa: F401  registers the content losses
from wmhlib.slices import VIEWS, Preparation

RESERVED = ("global_threshold", "observer_", "reference", "found", "missed", "false")
"""Prefixes that names of entries below `losses` must not have, because tables use them for masks without training."""

Labels = Literal["hard", "soft"]
View = Literal[VIEWS]  # type: ignore[valid-type]
Intensity = Literal[INTENSITIES]  # type: ignore[valid-type]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


class Settings(pydantic.BaseModel):
    """A part of a configuration. Unknown keys, wrong types and invalid values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Phantom(Settings):
    seed: NonNegativeInt
    subjects: Annotated[dict[str, PositiveInt], Field(min_length=1)]
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    label_maps: Text | None = None  # a folder of label maps of heads, such as head-label-maps; None: only the template
    structures: bool = False  # also write masks of the structures in wmhlib/intake/anatomy.py


class Data(Settings):
    root: Text
    also: list[Text] = []  # additional folders whose subjects may train, unless split.external names their centre
    external: list[Text] = []  # additional folders whose subjects are all external
    download: list[Literal[tuple(SOURCES)]] = []  # type: ignore[valid-type]
    phantom: Phantom | None = None


class Split(Settings):
    training: PositiveInt | None  # None: all remaining subjects
    validation: NonNegativeInt
    holdout: NonNegativeInt
    seed: NonNegativeInt
    external: list[Text] | None = None  # centres; None: all subjects below test/
    drawn_from: Annotated[list[Text], Field(min_length=1)] | None = (
        None  # centres of the validation and holdout subjects; None: all
    )


class Preprocessing(Settings):
    size_px: Annotated[int, Field(ge=16, le=1024)]
    view: View
    intensity: Intensity = "maximum"


class Training(Settings):
    epochs: PositiveInt
    steps_per_epoch: PositiveInt
    batch_size: PositiveInt
    batch_norm_batches: NonNegativeInt  # D-003; 0 keeps the running averages
    learning_rate: PositiveFloat
    beta_1: Fraction
    beta_2: Fraction
    precision: Literal["float32", "mixed_bfloat16", "auto"] = "float32"  # D-031
    start: Text | None = (
        None  # a model.keras with the first weights, or `bundled`; None: random weights of the seed, D-060
    )


class Generator(Settings):
    network: Literal[tuple(GENERATORS)] = "dense_unet"  # type: ignore[valid-type]
    filters: PositiveInt
    depth: PositiveInt
    convolutions: PositiveInt
    output_prior: Fraction  # D-004


class OutputPrior(Settings):
    hard: Fraction
    soft: Fraction


class StudyGenerator(Generator):
    output_prior: OutputPrior  # type: ignore[assignment] # by the labels of each loss


class Recipe(Settings):
    """The settings with which an entry below `losses` is trained: those of the study, with the entry's changes."""

    loss: str  # a name in `wmhlib.losses.LOSSES`
    labels: Labels
    view: View
    intensity: Intensity
    without: Text | list[Text] | None = None  # a centre or centres to exclude from training
    augmentation: dict[str, float]
    training: Training
    generator: Generator
    settings: dict[str, Any]  # the loss's own settings, including defaults
    features: dict[str, Any] | None  # network, taps and weights of the feature network; None without one

    @property
    def preparation(self) -> Preparation:
        return Preparation(self.view, self.intensity)

    @property
    def left_out(self) -> list[str]:
        """The centres left out of training."""
        return [self.without] if isinstance(self.without, str) else self.without or []


class Configuration(Settings):
    study: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    question: str
    data: Data
    split: Split
    preprocessing: Preprocessing
    augmentation: dict[str, float]
    generator: StudyGenerator
    training: Training
    losses: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], dict], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=1, le=2**32 - 1)]], Field(min_length=1)]  # 0 marks what has no seed


def checked(settings: dict, path: PathLike) -> tuple[Configuration, dict[str, Recipe]]:
    """Settings as a configuration and the recipe of every entry below `losses`; `path` is their file, for messages.

    Raises
    ------
    ValueError
        A key is unknown or missing, or a value is of the wrong type or impossible; the message names the file and the
        key.
    """
    config: Configuration = _validated(Configuration, settings, path)
    _check_augmentation(config.augmentation, path, "augmentation")
    recipes = {name: _recipe(name, entry, settings, path) for name, entry in config.losses.items()}
    depth = max(recipe.generator.depth for recipe in recipes.values())
    if config.preprocessing.size_px % 2**depth:
        multiple = max(1, round(config.preprocessing.size_px / 2**depth)) * 2**depth
        raise ValueError(
            f"{path}, at preprocessing.size_px: {config.preprocessing.size_px} is not a multiple of {2**depth}, as "
            f"required by {depth} max pools: choose, for example, {multiple}."
        )
    return config, recipes


def _recipe(name: str, entry: dict, settings: dict, path: PathLike) -> Recipe:
    """The recipe of an entry below `losses`. Keys of the study override its settings; others are the loss's own
    settings."""
    own = {"loss": name} | entry
    kind = LOSSES[_one_of(LOSSES, own.pop("loss"), path, f"losses.{name}.loss")]
    if (name in LOSSES and name != kind.key) or name.startswith(RESERVED):
        raise ValueError(
            f"{path}, at losses.{name}: this name is reserved: choose another one, for example {kind.key}_2."
        )
    labels = own.pop("labels", kind.labels)
    prior = settings["generator"]["output_prior"].get(str(labels))
    shared = {
        "labels": labels,
        "view": own.pop("view", settings["preprocessing"]["view"]),
        "intensity": own.pop("intensity", settings["preprocessing"].get("intensity", "maximum")),
        "without": own.pop("without", None),
        "augmentation": merged(settings["augmentation"], own.pop("augmentation", {})),
        "training": merged(settings["training"], own.pop("training", {})),
        "generator": merged(settings["generator"] | {"output_prior": prior}, own.pop("generator", {})),
    }
    of_features = {key: own.pop(key) for key in inspect.signature(features.chosen).parameters if key in own}
    looks_at = None
    if kind.looks_at_features():
        _validated(model_of(features.chosen), of_features, path, "losses", name)
        try:
            looks_at = features.chosen(**of_features)
        except ValueError as error:
            raise ValueError(f"{path}, at losses.{name}: {error}") from None
    else:
        own |= of_features  # refused below like other unknown keys of the loss
    _check_augmentation(shared["augmentation"], path, "losses", name, "augmentation")
    own = _validated(model_of(kind), own, path, "losses", name).model_dump()
    own = {"loss": kind.key, **shared, "settings": own, "features": looks_at}
    return _validated(Recipe, own, path, "losses", name)


def _check_augmentation(settings: Any, path: PathLike, *where: str) -> None:
    """Refuse an unknown augmentation, or an amount outside its limits."""
    _validated(dict[str, float], settings, path, *where)
    for name, most in settings.items():
        _validated(amount(_one_of(AUGMENTATIONS, name, path, ".".join((*where, name)))), most, path, *where, name)


def model_of(function: Callable) -> type[Settings]:
    """The arguments of a constructor as settings with types, limits and defaults, except the feature network."""
    signature = inspect.signature(function, eval_str=True).parameters.items()
    parameters = {
        key: p for key, p in signature if key != "features" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    fields: dict[str, Any] = {
        key: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for key, p in parameters.items()
    }
    try:
        return pydantic.create_model(function.__name__, __base__=Settings, **fields)
    except pydantic.errors.PydanticUserError:
        raise TypeError(
            f"Annotate the arguments of {function.__name__} with a type such as int, float, bool or str, or with a "
            "limit."
        ) from None


def _validated(kind: Any, value: Any, path: PathLike, *where: str) -> Any:
    """The value checked against a type; ValueError in one sentence that names the file, the key and the value."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = " ".join(".".join(map(str, (*where, *first["loc"]))).split()) or "the top level"  # in one line
        problem = first["msg"][:1].lower() + first["msg"][1:]
        raise ValueError(f"{path}, at {key}: {problem}, found {str(first['input'])[:80]!r}.") from None


def _one_of(registry: dict, name: Any, path: PathLike, key: str) -> str:
    if name not in registry:
        raise ValueError(f"{path}, at {key}: {name!r} does not exist: choose from {', '.join(registry)}.")
    return name
