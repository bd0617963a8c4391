"""Augmentations: small functions of one slice, its reference and random numbers (paper 3.2.1: rotation alone).

Each takes an image (size, size) float32 in 0-1, its mask (size, size), a `numpy.random.Generator` and `most`, how far it
may go; it returns an image in 0-1 and a boolean mask. A configuration names them with their `most`, the unit in the name:

    augmentation: {rotation_deg: 30, flip_probability: 0.5}

Defining a function under `@augmentation` adds it, in this file or in a cell.
"""

import inspect
from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeFloat
from scipy.ndimage import affine_transform, gaussian_filter, rotate, zoom

from wmhlib.running.registry import register

AUGMENTATIONS: dict[str, Callable] = {}
"""Every augmentation by the name that configurations use."""


def augmentation(function: Callable) -> Callable:
    """Register a function of (image, reference, random, most) under its own name; TypeError where it takes others."""
    if list(inspect.signature(function).parameters) != ["image", "reference", "random", "most"]:
        raise TypeError(f"{function.__name__} needs the arguments image, reference, random, most.")
    register(AUGMENTATIONS, function.__name__, function)
    return function


def amount(name: str):
    """The type of an augmentation's `most`, with its limits; any number where it says none."""
    kind = inspect.signature(AUGMENTATIONS[name]).parameters["most"].annotation
    return float if kind is inspect.Parameter.empty else kind


@augmentation
def rotation_deg(image, reference, random, most: Annotated[float, Field(ge=0, le=180)]):
    """Rotate both about the centre by up to `most` degrees either way; see `turned`."""
    return turned(image, reference, random.uniform(-most, most))


def turned(image: np.ndarray, reference: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """An image (size, size) and its mask rotated together about the centre.

    Linear interpolation; the outside repeats the edge, as Keras's generators do by default (paper 3.2.1; D-012). The mask is
    cut at 0.5.
    """
    settings = {"reshape": False, "order": 1, "mode": "nearest"}
    return rotate(image, angle_deg, **settings), rotate(reference.astype(np.float32), angle_deg, **settings) > 0.5


@augmentation
def flip_probability(image, reference, random, most: Annotated[float, Field(ge=0, le=1)]):
    """Swap left and right (the first axis of a slice) with this probability."""
    return (image[::-1], reference[::-1]) if random.random() < most else (image, reference)


@augmentation
def zoom_pct(image, reference, random, most: Annotated[float, Field(ge=0, lt=100)]):
    """Magnify or shrink both about the centre by up to `most` per cent; the outside repeats the edge."""
    step = 1 / (1 + random.uniform(-most, most) / 100)
    offset = (1 - step) * (np.array(image.shape) - 1) / 2
    settings = {"offset": offset, "order": 1, "mode": "nearest"}
    drawn = affine_transform(reference.astype(np.float32), [step, step], **settings)
    return affine_transform(image, [step, step], **settings), drawn > 0.5


@augmentation
def gamma_pct(image, reference, random, most: NonNegativeFloat):
    """Raise intensities to a power of up to 1 + `most` per cent, or its inverse."""
    return image ** ((1 + most / 100) ** random.uniform(-1, 1)), reference


@augmentation
def blur_px(image, reference, random, most: NonNegativeFloat):
    """Blur with a Gaussian whose SD is up to `most` pixels."""
    return gaussian_filter(image, random.uniform(0, most)), reference


@augmentation
def noise_pct(image, reference, random, most: NonNegativeFloat):
    """Add Gaussian noise whose SD is up to `most` per cent of the intensity range."""
    noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(random.uniform(0, most) / 100)
    return np.clip(image + noise, 0, 1), reference


@augmentation
def bias_field_pct(image, reference, random, most: NonNegativeFloat):
    """Multiply by a smooth field that strays up to `most` per cent from 1, as a receive coil's sensitivity does."""
    coarse = random.uniform(-most, most, (4, 4)) / 100
    smooth = zoom(coarse, np.array(image.shape) / 4, order=1, grid_mode=True, mode="nearest")
    return np.clip(image * (1 + smooth), 0, 1).astype(np.float32), reference
