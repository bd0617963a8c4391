"""VGG19's ImageNet weights: a named local file, else Keras's own file, downloaded once.

`WMH_VGG19_WEIGHTS` names a local file. A file asked for by name is never silently replaced by random weights.
"""

import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import h5py
import keras
import numpy as np

from wmhlib.running.files import PathLike

VGG19_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
VGG19_MD5 = "253f8cb515780f3b799900260a226db6"  # as Keras itself checks it
TIMEOUT_S = 8  # after which a silent network counts as none


def vgg19_file() -> tuple[Path | None, str]:
    """The weights file and where it came from, in words; (None, why) where there is none.

    Raises
    ------
    FileNotFoundError
        `WMH_VGG19_WEIGHTS` names no file.
    """
    if named := os.environ.get("WMH_VGG19_WEIGHTS"):
        path = Path(named).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"WMH_VGG19_WEIGHTS names {path}, where no file is: correct it, or unset it.")
        return path, f"the file {path.name} named by WMH_VGG19_WEIGHTS"
    name = Path(urllib.parse.urlparse(VGG19_URL).path).name
    if not (keras_home() / "models" / name).is_file() and (problem := unreachable(VGG19_URL)):
        return None, problem
    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    try:
        options = {"cache_dir": keras_home(), "cache_subdir": "models", "file_hash": VGG19_MD5}
        return Path(keras.utils.get_file(name, VGG19_URL, **options)), "Keras's ImageNet weights"
    except Exception as error:  # get_file raises a bare Exception for every failure
        return None, f"the download failed ({error})"
    finally:
        socket.setdefaulttimeout(limit)


def load_by_name(model: keras.Model, path: PathLike) -> None:
    """Load the layers of a VGG19 from an HDF5 file of weights in Keras's layout.

    Raises
    ------
    ValueError
        The file does not hold every layer of the model; the message names the file.
    """
    try:
        with h5py.File(path) as file:
            listed = set(np.asarray(file.attrs["layer_names"]).astype(str))  # Keras passes over what is not listed
            missing = {layer.name for layer in model.layers if layer.weights} - (listed & set(file))
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        model.load_weights(path, by_name=True)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold VGG19's weights ({error}): use Keras's notop file.") from error


def keras_home() -> Path:
    """The folder where Keras keeps what it downloads."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def unreachable(url: str) -> str:
    """Why a server does not answer within `TIMEOUT_S`; empty where it does."""
    answer = {}

    def ask() -> None:  # in a thread of its own: looking a name up cannot be given a time limit
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S):
                answer["reached"] = True
        except OSError as error:
            answer["problem"] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if "reached" in answer:
        return ""
    return f"the download server could not be reached ({answer.get('problem', 'no answer')})"
