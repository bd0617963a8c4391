"""Import this first if nothing is trained: Keras then starts quickly with its NumPy backend, without TensorFlow.

A backend chosen by the user is kept, and child processes are not affected. Keras's NumPy backend needs JAX; without it,
Keras starts as usual.
"""

import importlib.util
import os

NAME = "KERAS_BACKEND"

if NAME not in os.environ and importlib.util.find_spec("jax"):
    os.environ[NAME] = "numpy"
    import keras  # noqa: F401

    del os.environ[NAME]
