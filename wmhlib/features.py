"""Feature networks: pretrained networks whose feature maps the Siamese loss compares (paper 2.2).

The paper uses VGG19 up to its second max pool. The layers whose outputs are compared are called taps. Any network of
`keras.applications` can be used by its name, and so can a class of your own. Input: the generator's input (batch, size,
size, 3), blue-green-red with ImageNet's means subtracted. Output: a list of feature maps, one per tap.

If pretrained weights cannot be downloaded, weights are He-normal random numbers; their origin is always reported.
VGG19: Simonyan and Zisserman 2014, arXiv:1409.1556.
"""

import hashlib
import inspect
from collections.abc import Sequence
from typing import Annotated, Literal

import keras
import numpy as np
from keras import ops
from pydantic import Field, PositiveInt

from wmhlib.generator import IMAGENET_MEANS
from wmhlib.intake import web
from wmhlib.intake import weights as files
from wmhlib.running.files import PathLike
from wmhlib.running.registry import register

FEATURES: dict[str, type["FeatureNetwork"]] = {}
"""Feature networks by their name in configurations. Defining a subclass of `FeatureNetwork` adds it."""


class FeatureNetwork:
    """Base class. A subclass with a `name` is registered; `build` returns the network, `pretrained` loads its
    weights."""

    key = ""

    def __init_subclass__(cls, name: str = "", **more):
        super().__init_subclass__(**more)
        if name:
            cls.key = name
            register(FEATURES, name, cls)

    def build(self, size: int) -> keras.Model:
        """The complete network for slices of `size` pixels, on the generator's input, with any weights."""
        raise NotImplementedError

    def taps(self, wanted: int | Sequence[str]) -> list[str]:
        """The names of the layers to compare; a number stands for the first max pools of networks that have numbered
        pools."""
        if isinstance(wanted, int):
            raise ValueError(f"taps is {wanted}, but {self.key} has no numbered pools: give the names of its layers.")
        return list(wanted)

    def pretrained(self, model: keras.Model) -> dict:
        """Load the weights of a model from `build`, cut at its taps; returns their origin (see `load`)."""
        return {"weights": "random", "source": f"He-normal random features: {self.key} has no pretrained weights"}


class VGG19(FeatureNetwork, name="vgg19"):
    """The paper's network. Two taps are the first two max pools: (112, 112, 64) and (56, 56, 128) for slices of 224."""

    def build(self, size: int) -> keras.Model:
        return keras.applications.VGG19(include_top=False, weights=None, input_shape=(size, size, 3))

    layers = [f"block{n}_{part}" for n, convolutions in enumerate((2, 2, 4, 4, 4), start=1)
              for part in (*(f"conv{c + 1}" for c in range(convolutions)), "pool")]  # fmt: skip

    def taps(self, wanted: int | Sequence[str]) -> list[str]:
        names = [f"block{pool + 1}_pool" for pool in range(wanted)] if isinstance(wanted, int) else list(wanted)
        if unknown := [name for name in names if name not in self.layers]:
            raise ValueError(f"VGG19 has no layer {unknown[0]} to tap; it has {', '.join(self.layers)}.")
        return names

    def pretrained(self, model: keras.Model) -> dict:
        path, source = files.vgg19_file()
        if path is None:
            return {"weights": "random", "source": f"He-normal random features, since {source}"}
        files.load_by_name(model, path)
        return {"weights": "imagenet", "source": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


class OwnPreprocessing(keras.layers.Layer):
    """Converts the generator's input to red-green-blue in 0-255 and applies another network's own preprocessing."""

    def __init__(self, function):
        super().__init__(name="own_preprocessing")
        self.function = function

    def get_config(self) -> dict:
        return {"function": self.function}

    def call(self, image):
        return self.function(image[..., ::-1] + ops.convert_to_tensor(IMAGENET_MEANS[::-1], image.dtype))


class Application(FeatureNetwork):
    """A network of `keras.applications`, such as `MobileNetV2`, with its own preprocessing."""

    def __init__(self, key: str):
        modules = [module for module in vars(keras.applications).values() if inspect.ismodule(module)]
        homes = [module for module in modules if hasattr(module, key) and hasattr(module, "preprocess_input")]
        if not homes:
            raise ValueError(f"There is no feature network {key!r}: choose vgg19 or a network of keras.applications.")
        self.key, self.module = key, homes[0]

    def build(self, size: int, weights: str | None = None) -> keras.Model:
        image = keras.Input((size, size, 3), name="image")
        own = OwnPreprocessing(self.module.preprocess_input)(image)
        return getattr(self.module, self.key)(include_top=False, weights=weights, input_tensor=own)

    def pretrained(self, model: keras.Model) -> dict:
        kept = [path.name.lower().replace("_", "") for path in (files.keras_home() / "models").glob("*")]
        cached = any(name.startswith(f"{self.key.lower()}weights") for name in kept)
        try:
            if not cached:
                web.reach(files.VGG19_URL)  # the server of all of Keras's weights
            whole = self.build(model.input_shape[1], "imagenet")
        except Exception as error:  # Keras raises a plain Exception if a download fails
            return {"weights": "random", "source": f"He-normal random features, since {getattr(error, 'what', error)}"}
        copy_weights(whole, model)
        return {"weights": "imagenet", "source": f"Keras's ImageNet weights of {self.key}"}


def chosen(
    network: str = "vgg19",
    taps: PositiveInt | Annotated[list[str], Field(min_length=1)] = 2,
    weights: Literal["imagenet", "random"] = "imagenet",
) -> dict:
    """The feature network of a loss from its settings in a configuration (the arguments), with its taps by name.

    Raises
    ------
    ValueError
        The network does not exist, has no such tap, or has no pretrained weights although they are requested.
    """
    kind = find(network)
    if weights == "imagenet" and type(kind).pretrained is FeatureNetwork.pretrained:
        raise ValueError(f"{network} has no pretrained weights: set weights: random.")
    return {"network": network, "taps": kind.taps(taps), "weights": weights}


def find(network: str) -> FeatureNetwork:
    """The registered feature network with this name, or that of `keras.applications`; ValueError if there is none."""
    return FEATURES[network]() if network in FEATURES else Application(network)


def build(size: int, taps: int | Sequence[str] = 2, network: str = "vgg19") -> keras.Model:
    """A frozen feature network cut at its taps, with He-normal weights.

    For slices of 224 pixels and two taps of VGG19, the features are (batch, 112, 112, 64) and (batch, 56, 56, 128)
    (paper 2.2).

    Raises
    ------
    ValueError
        The network does not exist, or has no layer with the name of a tap.
    """
    kind = find(network)
    whole, names = kind.build(size), kind.taps(taps)
    known = {layer.name for layer in whole.layers}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{network} has no layer {unknown[0]!r} to tap: choose among {', '.join(sorted(known)[:40])} …"
        )
    model = keras.Model(whole.input, [whole.get_layer(name).output for name in names], name=f"{network}_features")
    for number, layer in enumerate(layer for layer in model.layers if layer.weights):
        start = keras.initializers.HeNormal(seed=number)
        for weight in layer.weights:
            if weight.name.endswith(("kernel", "bias")):
                weight.assign(start(weight.shape) if weight.name.endswith("kernel") else ops.zeros(weight.shape))
    model.trainable = False
    return model


def load(size: int, taps: int | Sequence[str] = 2, network: str = "vgg19") -> tuple[keras.Model, dict]:
    """A feature network with the best weights available, and their origin.

    Returns
    -------
    model
        As `build`.
    origin
        `weights` (`imagenet` or `random`), `source` (in words) and, for VGG19's file, its `sha256`.

    Raises
    ------
    FileNotFoundError, ValueError
        `WMH_VGG19_WEIGHTS` names a file that does not exist, or that lacks layers of VGG19.
    """
    model = build(size, taps, network)
    return model, find(network).pretrained(model)


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of each layer of `target` from the layer with the same name in `source`."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def save_arrays(model: keras.Model, path: PathLike) -> None:
    """Save a network's weights as arrays named `<layer>/<number>`, which can be loaded for other taps too."""
    np.savez(path, **{f"{layer.name}/{n}": w for layer in model.layers for n, w in enumerate(layer.get_weights())})


def load_arrays(model: keras.Model, path: PathLike) -> None:
    """Load weights saved by `save_arrays` layer by layer; FileNotFoundError if a layer was not saved."""
    with np.load(path, allow_pickle=False) as arrays:
        if missing := [layer.name for layer in model.layers if layer.weights and f"{layer.name}/0" not in arrays.files]:
            raise FileNotFoundError(
                f"{path} has no weights of {missing[0]}: run notebook 03_build_networks of a study whose losses tap "
                "as deep."
            )
        for layer in model.layers:
            if layer.weights:
                layer.set_weights([arrays[f"{layer.name}/{n}"] for n in range(len(layer.weights))])
