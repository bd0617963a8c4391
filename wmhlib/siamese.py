"""The discriminator: a two-path VGG19, and the content loss it gives (paper 2.2, Equation 1, Figure 3).

In flow the preprocessed image x, the reference mask y and the predicted mask y'. Both products x·y and x·y' go through
one VGG19, frozen but in the min-max game; the loss is the mean squared difference of their features at the first max pools
(two in the paper). As a rule the image is preprocessed first and masked after, so the masked-out background has
ImageNet's mean colour (0), mid-grey brain is near it, and bright lesions stand out (D-006).

Weights come from `WMH_VGG19_WEIGHTS` where that is set, else from Keras's own ImageNet file, else, with no network,
from a He-normal draw; which one is always reported. VGG19: Simonyan and Zisserman 2014, arXiv:1409.1556.
"""

import hashlib
import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import ops
from keras.applications import vgg19

from wmhlib.losses import GeneralizedDiceLoss
from wmhlib.slices import IMAGENET_MEANS

WEIGHTS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
WEIGHTS_MD5 = "253f8cb515780f3b799900260a226db6"  # as Keras itself checks it
TIMEOUT_S = 8  # after which a silent network counts as none


def vgg19_features(size: int, taps: int = 2) -> keras.Model:
    """VGG19 up to its `taps`-th max pool, with the output of each of these pools, as a frozen model.

    For slices of 224 and two taps the features are (batch, 112, 112, 64) and (batch, 56, 56, 128) (paper 2.2). The
    weights are a He-normal draw until `load_vgg19` gives them others.
    """
    whole = vgg19.VGG19(include_top=False, weights=None, input_shape=(size, size, 3))
    pools = [whole.get_layer(f"block{tap + 1}_pool").output for tap in range(taps)]
    features = keras.Model(whole.input, pools, name="vgg19_features")
    for number, layer in enumerate(layer for layer in features.layers if layer.weights):
        start = keras.initializers.HeNormal(seed=number)
        layer.set_weights([start(layer.kernel.shape), ops.zeros(layer.bias.shape)])
    features.trainable = False
    return features


def load_vgg19(size: int, taps: int = 2) -> tuple[keras.Model, dict]:
    """The discriminator's features with the best weights to be had, and where these came from.

    Returns
    -------
    features
        As `vgg19_features`.
    origin
        `weights` (`imagenet` or `random`), `source` (in words) and, for a file, its `sha256`.

    Raises
    ------
    FileNotFoundError, ValueError
        `WMH_VGG19_WEIGHTS` names no file, or one that does not hold VGG19's layers. (A file asked for by name is
        never silently replaced by random weights.)
    """
    features = vgg19_features(size, taps)
    if named := os.environ.get("WMH_VGG19_WEIGHTS"):
        path = Path(named).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"WMH_VGG19_WEIGHTS names {path}, where no file is: correct it, or unset it.")
        source = f"the file {path.name} named by WMH_VGG19_WEIGHTS"
    else:
        path, problem = _download(WEIGHTS_URL)
        if path is None:
            return features, {"weights": "random", "source": f"He-normal random features, since {problem}"}
        source = "Keras's ImageNet weights"
    try:
        with h5py.File(path) as file:
            listed = set(np.asarray(file.attrs["layer_names"]).astype(str))  # Keras passes by what is not listed
            missing = {layer.name for layer in features.layers if layer.weights} - (listed & set(file))
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        features.load_weights(path, by_name=True)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold VGG19's weights ({error}): use Keras's notop file.") from error
    return features, {"weights": "imagenet", "source": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _download(url: str) -> tuple[Path | None, str]:
    """Keras's cached copy of a weights file, else the download; (None, why) within seconds where there is no network.

    Only the first contact is limited in time; a download that has begun may take as long as data keep coming.
    """
    name = Path(urllib.parse.urlparse(url).path).name
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not (home / "models" / name).is_file():
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
        if "reached" not in answer:
            return None, f"the download server could not be reached ({answer.get('problem', 'no answer')})"
    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    try:
        return Path(keras.utils.get_file(name, url, cache_dir=home, cache_subdir="models", file_hash=WEIGHTS_MD5)), ""
    except Exception as error:  # get_file raises a bare Exception for every failure
        return None, f"the download failed ({error})"
    finally:
        socket.setdefaulttimeout(limit)


class SiameseContentLoss(keras.losses.Loss):
    """Equation 1, summed over the taps: the mean squared difference of VGG19's features of x·y and x·y'.

    Called as `loss(y_true, y_pred)` on masks (batch, size, size, 1), once bound to the images they belong to:
    `loss.bound_to(image)(y_true, y_pred)`; the training step does this for every batch.

    Parameters
    ----------
    features
        A model from an image (batch, size, size, 3) to a list of feature maps, as `load_vgg19` gives.
    mask
        `after` VGG19's preprocessing, or `before` it: the background of the masked image is then black, not ImageNet's
        mean colour (D-006).
    normalise
        Divide the features of every place by their length, so that a tap's distance cannot grow beyond 4 / channels,
        however large the features (after Zhang et al. 2018, doi:10.1109/CVPR.2018.00068).
    generalized_dice
        Weight of the generalized Dice loss that is added; 0 for the content loss alone.
    """

    def __init__(
        self,
        features: keras.Model,
        mask: str = "after",
        normalise: bool = False,
        generalized_dice: float = 0.0,
        name: str = "siamese",
    ):
        super().__init__(name=name)
        self.features, self.mask, self.normalise, self.generalized_dice = features, mask, normalise, generalized_dice
        self.image = None

    def bound_to(self, image) -> "SiameseContentLoss":
        """The same loss for the masks of this batch of preprocessed images (batch, size, size, 3)."""
        bound = self.with_features(self.features)
        bound.image = image
        return bound

    def with_features(self, features: keras.Model) -> "SiameseContentLoss":
        """The same loss by another network's features."""
        return SiameseContentLoss(features, self.mask, self.normalise, self.generalized_dice, self.name)

    def masked(self, mask):
        """The bound images times a mask (batch, size, size, 1)."""
        if self.image is None:
            raise ValueError("The Siamese loss compares masked images: call loss.bound_to(image)(y_true, y_pred).")
        means = ops.convert_to_tensor(IMAGENET_MEANS, self.image.dtype)
        return self.image * mask if self.mask == "after" else (self.image + means) * mask - means

    def seen(self, mask) -> list:
        """VGG19's features of the bound images times a mask, a tap each."""
        taps = self.features(self.masked(mask), training=False)
        return list(taps) if isinstance(taps, list | tuple) else [taps]  # Keras gives a single output bare

    def squared_differences(self, y_true, y_pred) -> list:
        """Squared differences of the features at each tap, (batch, height, width, channels): where the loss comes from.

        No gradient flows to the reference.
        """
        paths = [self.seen(mask) for mask in (ops.stop_gradient(y_true), y_pred)]
        if not self.features.trainable:
            paths[0] = [ops.stop_gradient(tap) for tap in paths[0]]
        paths = [[ops.cast(tap, "float32") for tap in path] for path in paths]
        if self.normalise:
            paths = [[ops.normalize(tap, axis=-1) for tap in path] for path in paths]
        return [ops.square(a - b) for a, b in zip(*paths, strict=True)]

    def distances(self, y_true, y_pred) -> list:
        """Equation 1 at each tap: a scalar each."""
        return [ops.mean(squares) for squares in self.squared_differences(y_true, y_pred)]

    def call(self, y_true, y_pred):
        content = sum(self.distances(y_true, y_pred))
        if self.generalized_dice:
            content = content + self.generalized_dice * GeneralizedDiceLoss()(y_true, y_pred)
        return content
