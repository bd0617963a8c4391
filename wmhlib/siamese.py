"""The Siamese content loss: a feature network compares two masked images (paper 2.2, Equation 1, Figure 3).

Input: the preprocessed image x, the reference mask y and the predicted mask y'. Both products x·y and x·y' go through
one feature network (VGG19 in the paper), frozen except in the min-max game; the loss is the mean squared difference of
their features at its taps. The image is preprocessed first and masked after, so the masked-out background has
ImageNet's mean colour (0), mid-grey brain is near it, and bright lesions stand out (D-006).
"""

from typing import Literal

import keras
from keras import ops
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from wmhlib.generator import IMAGENET_MEANS
from wmhlib.losses import GeneralizedDiceLoss, Loss


class SiameseContentLoss(Loss, name="siamese", title="Siamese", colour="#d55e00", labels="soft"):
    """Equation 1, summed over the taps: the mean squared difference of the features of x·y and x·y'.

    Called as `loss(y_true, y_pred)` on masks (batch, size, size, 1), once bound to the images they belong to:
    `loss.bound_to(image)(y_true, y_pred)`; the training step does this for every batch.

    Parameters
    ----------
    features
        A model from an image (batch, size, size, 3) to a list of feature maps, as `wmhlib.features.load` gives.
    mask
        `after` the preprocessing, or `before` it: the background of the masked image is then black, not ImageNet's
        mean colour (D-006).
    normalise
        Divide the features at every place by their length, so that a tap's distance cannot exceed 4 / channels,
        however large the features (after Zhang et al. 2018, doi:10.1109/CVPR.2018.00068).
    generalized_dice
        Weight of the generalized Dice loss that is added; 0 for the content loss alone.
    """

    features: keras.Model

    def __init__(
        self,
        features: keras.Model,
        mask: Literal["after", "before"] = "after",
        normalise: bool = False,
        generalized_dice: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        self.features: keras.Model = features
        self.mask, self.normalise, self.generalized_dice = mask, normalise, generalized_dice

    def with_features(self, features: keras.Model) -> "SiameseContentLoss":
        """The same content loss by another network's features."""
        return self.copied(features=features)

    def masked(self, mask):
        """The bound images times a mask (batch, size, size, 1)."""
        if self.image is None:
            raise ValueError("The Siamese loss compares masked images: call loss.bound_to(image)(y_true, y_pred).")
        means = ops.convert_to_tensor(IMAGENET_MEANS, self.image.dtype)
        return self.image * mask if self.mask == "after" else (self.image + means) * mask - means

    def seen(self, mask) -> list:
        """The features of the bound images times a mask, one array per tap."""
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
        """Equation 1 at each tap: one scalar per tap."""
        return [ops.mean(squares) for squares in self.squared_differences(y_true, y_pred)]

    def call(self, y_true, y_pred):
        content = sum(self.distances(y_true, y_pred))
        if self.generalized_dice:
            content = content + self.generalized_dice * GeneralizedDiceLoss()(y_true, y_pred)
        return content


class MinMaxLoss(SiameseContentLoss, name="siamese_minmax", title="Siamese min-max", colour="#cc79a7", labels="soft"):
    """The content loss of the min-max game (paper 5): an adversary raises it by changing the features' filters.

    Parameters
    ----------
    discriminator_rate
        The adversary's learning rate (paper 5: 0.00001).
    discriminator_every
        Steps of the generator per step of the adversary (D-025).
    most_drift
        How far a weight may move from its start, as a fraction of its length there; None: no limit. A remedy (D-030).
    """

    def __init__(
        self,
        features: keras.Model,
        discriminator_rate: PositiveFloat,
        discriminator_every: PositiveInt = 1,
        most_drift: PositiveFloat | None = None,
        mask: Literal["after", "before"] = "after",
        normalise: bool = False,
        generalized_dice: NonNegativeFloat = 0.0,
    ):
        super().__init__(features, mask, normalise, generalized_dice)
        self.discriminator_rate, self.discriminator_every = discriminator_rate, discriminator_every
        self.most_drift = most_drift
