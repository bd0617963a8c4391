"""The generator: a 2D U-Net of dense blocks (paper 2.1, Figure 2), and a plain U-Net.

Input: a preprocessed slice (batch, size, size, 3). Output: the probability of WMH (batch, size, size, 1).
Sources: U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28), dense blocks (Huang et al. 2017,
doi:10.1109/CVPR.2017.243), instance norm (Ulyanov et al. 2016, arXiv:1607.08022).
"""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

IMAGENET_MEANS = (103.939, 116.779, 123.68)
"""Mean colour of ImageNet, blue-green-red, 0-255, which VGG19 expects to be subtracted (paper 3.2.1)."""


def network_input(grey: np.ndarray) -> np.ndarray:
    """Convert grey images (..., size, size) in 0-1 to VGG19's input (..., size, size, 3): blue-green-red, means
    subtracted.

    All losses train on this input (paper 3.2.1). The image must be scaled to 0-255 before the means are subtracted;
    otherwise it is nearly constant at -110, and nothing is learnt (D-006).
    """
    return (grey[..., np.newaxis] * 255 - np.asarray(IMAGENET_MEANS)).astype(np.float32)


class Seeds:
    """A sequence of initializers from one seed."""

    def __init__(self, seed: int):
        self.generator = keras.random.SeedGenerator(seed)

    def next(self) -> int:
        return int(keras.random.randint((), 0, 2**31 - 1, seed=self.generator))

    def glorot(self) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=self.next())


def convolution(x, width: int, seeds: Seeds, norm: Callable = layers.BatchNormalization):
    """3x3 convolution, batch norm (or another `norm`), leaky ReLU with slope 0.1 (paper 2.1)."""
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=seeds.glorot())(x)
    return layers.LeakyReLU(negative_slope=0.1)(norm()(x))


def dense_block(x, width: int, convolutions: int, seeds: Seeds):
    """Convolutions whose input is the block's input and all earlier outputs of the block; returns all outputs
    (D-005)."""
    made: list = []
    for _ in range(convolutions):
        made.append(convolution(layers.Concatenate()([x, *made]) if made else x, width, seeds))
    return layers.Concatenate()(made) if len(made) > 1 else made[0]


def instance_norm() -> layers.Layer:
    """Normalisation of each channel of each slice to mean 0 and variance 1, then scaling; independent of the batch."""
    return layers.GroupNormalization(groups=-1, epsilon=1e-5)


def plain_block(x, width: int, convolutions: int, seeds: Seeds):
    """A sequence of convolutions with instance norm."""
    for _ in range(convolutions):
        x = convolution(x, width, seeds, instance_norm)
    return x


def doubled(x, width: int, seeds: Seeds):
    """A 2x2 transposed convolution with stride 2: (batch, side, side, channels) to (batch, 2 side, 2 side, width).

    It is implemented as the equivalent four 1x1 convolutions whose outputs are interleaved, because on a GPU the
    gradient of Keras's `Conv2DTranspose` takes 40 % of the paper's training step, and this one a few per cent (D-043).
    It is initialised like Keras's layer, whose Glorot limit includes the 2x2 kernel on both sides.
    """
    side, channels = x.shape[1], x.shape[-1]
    limit = math.sqrt(6 / (4 * (channels + width)))
    kernel = keras.initializers.RandomUniform(-limit, limit, seed=seeds.next())
    x = layers.Conv2D(4 * width, 1, use_bias=False, kernel_initializer=kernel)(x)
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((side, side, 2, 2, width))(x))
    return layers.Reshape((2 * side, 2 * side, width))(x)


def dense_unet(
    size: int,
    filters: int = 32,
    depth: int = 4,
    convolutions: int = 2,
    output_prior: float = 0.1,
    seed: int = 0,
    preparation: str = "whole",
) -> keras.Model:
    """Build the generator.

    Parameters
    ----------
    size
        Side of a slice in pixels, a multiple of 2**depth.
    filters
        Filters per convolution in the first dense block (32 in the paper); they double at every 2x2 max pool.
    depth
        Number of dense blocks in the encoder and in the decoder, with one more between them (the paper's grid search;
        D-005).
    convolutions
        Convolutions per dense block.
    output_prior
        Probability of WMH that the untrained network predicts everywhere: the background's label value (D-004).
    seed
        Seed of the initial weights; all losses of one seed start from the same network.
    preparation
        Preparation of the network's scans: the name of a `wmhlib.slices.Preparation`. It becomes the name of the input
        layer, so that it is saved with the network.

    Raises
    ------
    ValueError
        `size` is not a multiple of 2**depth.
    """
    widths = [filters * 2**level for level in range(depth + 1)]
    return _unet("dense_unet", size, dense_block, widths, convolutions, output_prior, seed, preparation)


def plain_unet(
    size: int,
    filters: int = 16,
    depth: int = 4,
    convolutions: int = 2,
    output_prior: float = 0.01,
    seed: int = 0,
    preparation: str = "whole",
) -> keras.Model:
    """A U-Net with instance norm and without dense blocks, for scans of any scanner; it takes a fraction of the time
    (D-053).

    The number of filters increases by 2 * `filters` per level. Parameters and errors as in `dense_unet`.
    """
    widths = [filters * max(1, 2 * level) for level in range(depth + 1)]
    return _unet("plain_unet", size, plain_block, widths, convolutions, output_prior, seed, preparation)


GENERATORS = {"dense_unet": dense_unet, "plain_unet": plain_unet}
"""The networks that a configuration can name as `generator.network`."""


def build(size: int, network: str = "dense_unet", **settings) -> keras.Model:
    """The untrained generator with this name in `GENERATORS` and these settings."""
    return GENERATORS[network](size, **settings)


def _unet(name, size, block, widths, convolutions, output_prior, seed, preparation) -> keras.Model:
    """Blocks of encoder and decoder with a skip connection per level; `widths` are the filters per level, the lowest
    last."""
    depth = len(widths) - 1
    if size % 2**depth:
        raise ValueError(f"Slices of {size} pixels cannot be halved {depth} times: choose a multiple of {2**depth}.")
    seeds, skips = Seeds(seed), []
    x = image = keras.Input((size, size, 3), name=preparation)
    for width in widths[:-1]:
        x = block(x, width, convolutions, seeds)  # (batch, size / 2**level, size / 2**level, channels)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, widths[-1], convolutions, seeds)
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        x = doubled(x, width, seeds)
        x = block(layers.Concatenate()([skip, x]), width, convolutions, seeds)
    return keras.Model(image, probability(x, output_prior, seeds), name=name)


def probability(x, output_prior: float, seeds: Seeds):
    """1x1 convolution and sigmoid, whose initial output is about `output_prior` everywhere (D-004)."""
    bias = keras.initializers.Constant(math.log(output_prior / (1 - output_prior)))
    kernel = keras.initializers.RandomNormal(stddev=0.01, seed=seeds.next())
    settings = {"kernel_initializer": kernel, "bias_initializer": bias, "name": "wmh"}
    return layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", **settings)(x)
