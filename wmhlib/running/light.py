"""Imported first where nothing is trained: Keras then starts on its NumPy backend, quickly and without TensorFlow.

A backend that the user has chosen is kept, and processes started from here choose for themselves. Keras's NumPy backend needs
JAX; where it is not installed, Keras starts as usual.
"""

import importlib.util
import os

NAME = "KERAS_BACKEND"

if NAME not in os.environ and importlib.util.find_spec("jax"):
    os.environ[NAME] = "numpy"
    import keras  # noqa: F401

    del os.environ[NAME]
