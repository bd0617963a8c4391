"""The Siamese content loss: a feature network compares two masked images (paper 2.2, Equation 1, Figure 3).

Input: the preprocessed image x, the reference mask y and the predicted mask y'. Both products x·y and x·y' pass through
the same feature network (VGG19 in the paper), which is frozen except in the min-max game. Output: the mean squared
difference of their features at its taps. The image is masked after preprocessing, so the masked background has
ImageNet's mean colour (0). Mid-grey brain has values near it, and bright lesions differ from it (D-006).
"""

from typing import Literal

import keras
from keras import ops
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from wmhlib.generator import IMAGENET_MEANS
from wmhlib.losses import GeneralizedDiceLoss, Loss

Mask = Literal["after", "before", "painted"]


class SiameseContentLoss(Loss, name="siamese", title="Siamese", colour="#d55e00", labels="soft"):
    """Equation 1, summed over the taps: the mean squared difference of the features of x·y and x·y'.

    It is called on masks (batch, size, size, 1) after it is bound to their images: `loss.bound_to(image)(y_true,
    y_pred)`. The training step does this for every batch.

    Parameters
    ----------
    features
        A model from an image (batch, size, size, 3) to a list of feature maps, such as from `wmhlib.features.load`.
    mask
        Multiply the image by the mask `after` preprocessing (the paper's way), or `before` it; the background is then
        black instead of ImageNet's mean colour (D-006). Or `painted`: leave the image as it is and paint the mask on it
        in white, so that the network sees the surroundings of a lesion, and grey false positives cost as much as others.
    normalise
        Divide the features at every position by their length, so that a tap's distance is at most 4 / channels, however
        large the features are (after Zhang et al. 2018, doi:10.1109/CVPR.2018.00068).
    generalized_dice
        Weight of an additional generalized Dice loss; 0 for the content loss alone.
    """

    measures = (
        "how different the lesions in the two masks look to a network trained on photographs, through which both pass"
    )

    features: keras.Model

    def __init__(
        self,
        features: keras.Model,
        mask: Mask = "after",
        normalise: bool = False,
        generalized_dice: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        self.features: keras.Model = features
        self.mask, self.normalise, self.generalized_dice = mask, normalise, generalized_dice

    def with_features(self, features: keras.Model) -> "SiameseContentLoss":
        """A copy of the loss with another feature network."""
        return self.copied(features=features)

    def masked(self, mask):
        """The bound images as a mask (batch, size, size, 1) shows them; ValueError if no image is bound."""
        if self.image is None:
            raise ValueError("The Siamese loss compares masked images: call loss.bound_to(image)(y_true, y_pred).")
        means = ops.convert_to_tensor(IMAGENET_MEANS, self.image.dtype)
        if self.mask == "painted":
            return self.image + (255 - means - self.image) * mask
        return self.image * mask if self.mask == "after" else (self.image + means) * mask - means

    def features_of(self, mask) -> list:
        """The features of the bound images with a mask, one array per tap."""
        taps = self.features(self.masked(mask), training=False)
        return list(taps) if isinstance(taps, list | tuple) else [taps]  # Keras does not put a single output in a list

    def squared_differences(self, y_true, y_pred) -> list:
        """Squared differences of the features at each tap, (batch, height, width, channels).

        No gradient flows through the reference (D-013).
        """
        paths = [self.features_of(mask) for mask in (ops.stop_gradient(y_true), y_pred)]
        if not self.features.trainable:
            paths[0] = [ops.stop_gradient(tap) for tap in paths[0]]
        paths = [[ops.cast(tap, "float32") for tap in path] for path in paths]
        if self.normalise:
            paths = [[ops.normalize(tap, axis=-1) for tap in path] for path in paths]
        return [ops.square(a - b) for a, b in zip(*paths, strict=True)]

    def distances(self, y_true, y_pred) -> list:
        """Equation 1 for each tap: one scalar per tap."""
        return [ops.mean(squares) for squares in self.squared_differences(y_true, y_pred)]

    def call(self, y_true, y_pred):
        content = sum(self.distances(y_true, y_pred))
        if self.generalized_dice:
            content = content + self.generalized_dice * GeneralizedDiceLoss()(y_true, y_pred)
        return content


class MinMaxLoss(SiameseContentLoss, name="siamese_minmax", title="Siamese min-max", colour="#cc79a7", labels="soft"):
    """The content loss of the min-max game (paper 5): an adversary increases it by changing the feature network's
    filters.

    Parameters
    ----------
    discriminator_rate
        The adversary's learning rate (paper 5: 0.00001).
    discriminator_every
        Steps of the generator per step of the adversary (D-025).
    most_drift
        Largest distance of a weight from its start, as a fraction of its initial length; None: no limit. A
        stabilisation of the game (D-030).
    """

    measures = "as Siamese, while the network trained on photographs is trained on to see a larger difference"

    def __init__(
        self,
        features: keras.Model,
        discriminator_rate: PositiveFloat,
        discriminator_every: PositiveInt = 1,
        most_drift: PositiveFloat | None = None,
        mask: Mask = "after",
        normalise: bool = False,
        generalized_dice: NonNegativeFloat = 0.0,
    ):
        super().__init__(features, mask, normalise, generalized_dice)
        self.discriminator_rate, self.discriminator_every = discriminator_rate, discriminator_every
        self.most_drift = most_drift
