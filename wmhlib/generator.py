"""The generator: a 2D U-Net of dense blocks (paper 2.1, Figure 2).

In flows a preprocessed slice (batch, size, size, 3), out flows the probability of WMH (batch, size, size, 1).
Building parts: U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28), dense blocks (Huang et al. 2017,
doi:10.1109/CVPR.2017.243).
"""

import math

import keras
from keras import layers


def dense_unet(
    size: int,
    filters: int = 32,
    depth: int = 4,
    convolutions: int = 2,
    output_prior: float = 0.1,
    seed: int = 0,
    view: str = "whole",
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
        Convolutions in a dense block. Each sees the block's input and everything the block made before it.
    output_prior
        Probability of WMH the untrained network gives everywhere: the background's soft label (D-004).
    seed
        Of the initial weights, so that every loss of one seed starts from the same network.
    view
        What of a slice it is to see (`wmhlib.slices.VIEWS`). It is the name of the input layer, so that a saved network
        says how its scans must be prepared.

    Raises
    ------
    ValueError
        `size` is not a multiple of 2**depth.
    """
    if size % 2**depth:
        raise ValueError(f"Slices of {size} pixels cannot be halved {depth} times: choose a multiple of {2**depth}.")
    seeds = keras.random.SeedGenerator(seed)

    def start() -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=int(next_seed()))

    def next_seed() -> int:
        return keras.random.randint((), 0, 2**31 - 1, seed=seeds)

    def convolution(x, width: int):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=start())(x)
        x = layers.BatchNormalization()(x)
        return layers.LeakyReLU(negative_slope=0.1)(x)

    def dense_block(x, width: int):
        made = []
        for _ in range(convolutions):
            made.append(convolution(layers.Concatenate()([x, *made]) if made else x, width))
        return layers.Concatenate()(made) if len(made) > 1 else made[0]

    x = image = keras.Input((size, size, 3), name=view)
    skips = []
    for level in range(depth):
        x = dense_block(x, filters * 2**level)  # (batch, size / 2**level, size / 2**level, channels)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = dense_block(x, filters * 2**depth)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2, kernel_initializer=start())(x)
        x = dense_block(layers.Concatenate()([skips[level], x]), filters * 2**level)
    bias = keras.initializers.Constant(math.log(output_prior / (1 - output_prior)))
    kernel = keras.initializers.RandomNormal(stddev=0.01, seed=int(next_seed()))
    probability = layers.Conv2D(
        1, 1, activation="sigmoid", dtype="float32", kernel_initializer=kernel, bias_initializer=bias, name="wmh"
    )(x)
    return keras.Model(image, probability, name="dense_unet")
