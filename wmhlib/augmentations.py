"""Augmentations: functions of one slice, its reference and random numbers (paper 3.2.1: only rotation).

Input: an image (size, size) float32 in 0-1, its mask (size, size), a `numpy.random.Generator`, and the largest amount
`most`. Output: an image in 0-1 and a boolean mask. A configuration gives the largest amount of each; the name ends with
the unit:

    augmentation: {rotation_deg: 30, flip_probability: 0.5}

Defining a function under `@augmentation`, in this file or in a notebook cell, adds it.
"""

import inspect
from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeFloat
from scipy.ndimage import affine_transform, gaussian_filter, rotate, zoom

from wmhlib.running.registry import register

AUGMENTATIONS: dict[str, Callable] = {}
"""All augmentations by their name in configurations."""


def augmentation(function: Callable) -> Callable:
    """Register a function of (image, reference, random, most) by its name; TypeError if it has other arguments."""
    if list(inspect.signature(function).parameters) != ["image", "reference", "random", "most"]:
        raise TypeError(f"{function.__name__} needs the arguments image, reference, random, most.")
    register(AUGMENTATIONS, function.__name__, function)
    return function


def amount(name: str):
    """The type of an augmentation's `most` with its limits; float if it is not annotated."""
    kind = inspect.signature(AUGMENTATIONS[name]).parameters["most"].annotation
    return float if kind is inspect.Parameter.empty else kind


@augmentation
def rotation_deg(image, reference, random, most: Annotated[float, Field(ge=0, le=180)]):
    """Rotate image and reference about the centre by up to `most` degrees in either direction; see `turned`."""
    return turned(image, reference, random.uniform(-most, most))


def turned(image: np.ndarray, reference: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """An image (size, size) and its mask rotated together about the centre.

    Interpolation is linear, and the edge is repeated outside, as in Keras's generators by default (paper 3.2.1; D-012).
    The mask is thresholded at 0.5.
    """
    settings = {"reshape": False, "order": 1, "mode": "nearest"}
    return rotate(image, angle_deg, **settings), rotate(reference.astype(np.float32), angle_deg, **settings) > 0.5


@augmentation
def flip_probability(image, reference, random, most: Annotated[float, Field(ge=0, le=1)]):
    """Swap left and right (the first axis of a slice) with probability `most`."""
    return (image[::-1], reference[::-1]) if random.random() < most else (image, reference)


@augmentation
def zoom_pct(image, reference, random, most: Annotated[float, Field(ge=0, lt=100)]):
    """Scale image and reference about the centre by up to `most` per cent; the edge is repeated outside."""
    step = 1 / (1 + random.uniform(-most, most) / 100)
    offset = (1 - step) * (np.array(image.shape) - 1) / 2
    settings = {"offset": offset, "order": 1, "mode": "nearest"}
    drawn = affine_transform(reference.astype(np.float32), [step, step], **settings)
    return affine_transform(image, [step, step], **settings), drawn > 0.5


@augmentation
def gamma_pct(image, reference, random, most: NonNegativeFloat):
    """Raise intensities to a power between 1 / (1 + `most` per cent) and 1 + `most` per cent."""
    return image ** ((1 + most / 100) ** random.uniform(-1, 1)), reference


@augmentation
def blur_px(image, reference, random, most: NonNegativeFloat):
    """Blur the image with a Gaussian with an SD of up to `most` pixels."""
    return gaussian_filter(image, random.uniform(0, most)), reference


@augmentation
def noise_pct(image, reference, random, most: NonNegativeFloat):
    """Add Gaussian noise with an SD of up to `most` per cent of the intensity range."""
    noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(random.uniform(0, most) / 100)
    return np.clip(image + noise, 0, 1), reference


@augmentation
def bias_field_pct(image, reference, random, most: NonNegativeFloat):
    """Multiply by a smooth field within `most` per cent of 1, like the sensitivity of a receive coil."""
    coarse = random.uniform(-most, most, (4, 4)) / 100
    smooth = zoom(coarse, np.array(image.shape) / 4, order=1, grid_mode=True, mode="nearest")
    return np.clip(image * (1 + smooth), 0, 1).astype(np.float32), reference
