"""VGG19's ImageNet weights: a local file, or Keras's own file, downloaded once to Keras's cache.

The environment variable `WMH_VGG19_WEIGHTS` names a local file. If it is set, random weights are never used instead.
"""

import os
import urllib.parse
from pathlib import Path

import h5py
import keras
import numpy as np
from tqdm import tqdm

from wmhlib.intake import web
from wmhlib.running.files import PathLike

VGG19_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
VGG19_MD5 = "253f8cb515780f3b799900260a226db6"  # the checksum in Keras


def vgg19_file() -> tuple[Path | None, str]:
    """The weights file and its origin in words; (None, reason) if it is not available.

    Raises
    ------
    FileNotFoundError
        `WMH_VGG19_WEIGHTS` names a file that does not exist.
    """
    if named := os.environ.get("WMH_VGG19_WEIGHTS"):
        path = Path(named).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"WMH_VGG19_WEIGHTS names {path}, which does not exist: correct or unset the variable."
            )
        return path, f"the file {path.name} named by WMH_VGG19_WEIGHTS"
    target = keras_home() / "models" / Path(urllib.parse.urlparse(VGG19_URL).path).name
    checksum = f"MD5:{VGG19_MD5}"
    try:
        if not (target.is_file() and web.digest(target, checksum) == checksum):
            web.reach(VGG19_URL)
            print(f"Downloading VGG19's weights (80 MB, once) from {VGG19_URL} …", flush=True)
            with web.open_session() as session, tqdm(unit="B", unit_scale=True, desc=target.name) as bar:
                web.receive(session, VGG19_URL, target, checksum, advance=bar.update)
    except OSError as error:
        return None, f"VGG19's weights could not be downloaded: {getattr(error, 'what', error)}"
    return target, "Keras's ImageNet weights"


def load_by_name(model: keras.Model, path: PathLike) -> None:
    """Load the layers of a VGG19 from an HDF5 file of weights in Keras's layout.

    Raises
    ------
    ValueError
        The file lacks layers of the model; the message names the file.
    """
    try:
        with h5py.File(path) as file:
            listed = set(np.asarray(file.attrs["layer_names"]).astype(str))  # Keras skips layers that are not listed
            missing = {layer.name for layer in model.layers if layer.weights} - (listed & set(file))
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        model.load_weights(path, by_name=True)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not contain VGG19's weights ({error}): use Keras's notop file.") from error


def keras_home() -> Path:
    """The folder of Keras's downloads."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
