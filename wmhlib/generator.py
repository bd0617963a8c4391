"""The generator: a 2D U-Net of dense blocks (paper 2.1, Figure 2).

Input: a preprocessed slice (batch, size, size, 3). Output: the probability of WMH (batch, size, size, 1).
Sources: U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28), dense blocks (Huang et al. 2017,
doi:10.1109/CVPR.2017.243).
"""

import math

import keras
import numpy as np
from keras import layers

IMAGENET_MEANS = (103.939, 116.779, 123.68)
"""Mean colour of ImageNet, blue-green-red, 0-255: what VGG19 was trained to see subtracted (paper 3.2.1)."""


def network_input(grey: np.ndarray) -> np.ndarray:
    """Grey images (..., size, size) in 0-1 as VGG19 expects them: (..., size, size, 3), blue-green-red, means subtracted.

    Every loss trains on this same input (paper 3.2.1). The image must be brought to 0-255 before the means are subtracted:
    left in 0-1 it is a nearly constant -110 and nothing is learnt (D-006).
    """
    return (grey[..., np.newaxis] * 255 - np.asarray(IMAGENET_MEANS)).astype(np.float32)


class Seeds:
    """Initializers that follow one after the other from one seed."""

    def __init__(self, seed: int):
        self.generator = keras.random.SeedGenerator(seed)

    def next(self) -> int:
        return int(keras.random.randint((), 0, 2**31 - 1, seed=self.generator))

    def glorot(self) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=self.next())


def convolution(x, width: int, seeds: Seeds):
    """3x3 convolution, batch norm, leaky ReLU with slope 0.1 (paper 2.1)."""
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=seeds.glorot())(x)
    x = layers.BatchNormalization()(x)
    return layers.LeakyReLU(negative_slope=0.1)(x)


def dense_block(x, width: int, convolutions: int, seeds: Seeds):
    """Convolutions that each see the block's input and everything the block made before; returns what they made (D-005)."""
    made: list = []
    for _ in range(convolutions):
        made.append(convolution(layers.Concatenate()([x, *made]) if made else x, width, seeds))
    return layers.Concatenate()(made) if len(made) > 1 else made[0]


def doubled(x, width: int, seeds: Seeds):
    """A 2x2 transposed convolution with stride 2: (batch, side, side, channels) to (batch, 2 side, 2 side, width).

    Written as what it is, four 1x1 convolutions whose results lie beside each other: the gradient of Keras's
    `Conv2DTranspose` takes a GPU 40 % of the paper's step, this one a few per cent (D-043). Starts as Keras's would:
    Glorot's limit counts the 2x2 kernel on both sides.
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
        Filters of each convolution in the first dense block; they double at every 2x2 max pool (32 in the paper).
    depth
        Dense blocks on the way down; as many on the way up, and one between (the paper's grid search; D-005).
    convolutions
        Convolutions per dense block.
    output_prior
        Probability of WMH that the untrained network gives everywhere: the background's label (D-004).
    seed
        Of the initial weights, so that every loss of one seed starts from the same network.
    preparation
        How the network's scans are prepared: the name of a `wmhlib.slices.Preparation`. It is the name of the input layer,
        so that a saved network says it.

    Raises
    ------
    ValueError
        `size` is not a multiple of 2**depth.
    """
    if size % 2**depth:
        raise ValueError(f"Slices of {size} pixels cannot be halved {depth} times: choose a multiple of {2**depth}.")
    seeds, skips = Seeds(seed), []
    x = image = keras.Input((size, size, 3), name=preparation)
    for level in range(depth):
        x = dense_block(
            x, filters * 2**level, convolutions, seeds
        )  # (batch, size / 2**level, size / 2**level, channels)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = dense_block(x, filters * 2**depth, convolutions, seeds)
    for level in reversed(range(depth)):
        x = doubled(x, filters * 2**level, seeds)
        x = dense_block(layers.Concatenate()([skips[level], x]), filters * 2**level, convolutions, seeds)
    return keras.Model(image, probability(x, output_prior, seeds), name="dense_unet")


def probability(x, output_prior: float, seeds: Seeds):
    """1x1 convolution and sigmoid, which start at `output_prior` everywhere (D-004)."""
    bias = keras.initializers.Constant(math.log(output_prior / (1 - output_prior)))
    kernel = keras.initializers.RandomNormal(stddev=0.01, seed=seeds.next())
    settings = {"kernel_initializer": kernel, "bias_initializer": bias, "name": "wmh"}
    return layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", **settings)(x)
