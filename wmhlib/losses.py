"""The registry of losses, and the overlap losses of the paper's comparison (3.2.4): Dice, Tversky, generalized Dice.

A loss is a class. Input: `y_true` (reference values 0/1 or soft labels) and `y_pred` (probabilities), both (batch,
size, size, 1). Output: one number, 0 for perfect agreement. Sums are over the whole batch, as in the Keras code at the
time of the paper, so slices without lesions contribute (D-007).
"""

import inspect
from typing import Self

import keras
from keras import ops
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from wmhlib.running.registry import register

LOSSES: dict[str, type["Loss"]] = {}
"""All losses by their name in configurations, folders and tables. Defining a subclass of `Loss` adds it."""


STUDY_KEYS = {"loss", "labels", "view", "intensity", "without", "augmentation", "training", "generator"}
"""Keys of an entry below `losses` that override settings of the study instead of being the loss's own."""


class Loss(keras.losses.Loss):
    """Base class of all losses.

    A subclass defines its name, its title and colour for figures, the labels that it is trained on, and optionally
    what it measures, in plain words for the front page:

        class FocalLoss(Loss, name="focal", title="Focal", colour="#882255", labels="hard"):
            measures = "every pixel, and hard ones most"
            def __init__(self, gamma: float = 2.0): ...
            def call(self, y_true, y_pred): ...

    The constructor's arguments are the loss's settings in a configuration. A loss with an argument `features` receives
    a feature network (`wmhlib.features`) with the configured taps. After `bound_to`, `self.image` has the images of the
    masks, (batch, size, size, 3).
    """

    key = title = colour = measures = ""
    labels = "hard"
    features: keras.Model | None = None
    image = None

    def __init_subclass__(cls, name: str = "", title: str = "", colour: str = "", labels: str = "hard", **more):
        super().__init_subclass__(**more)
        if not name:
            return  # a base class of other losses
        if taken := STUDY_KEYS & set(inspect.signature(cls.__init__).parameters):
            raise TypeError(f"{cls.__name__} has an argument {taken.pop()!r}, which is a key of every loss: rename it.")
        cls.key, cls.title, cls.colour, cls.labels = name, title or name.replace("_", " ").capitalize(), colour, labels
        register(LOSSES, name, cls)

    def __init__(self):
        super().__init__(name=self.key)

    @classmethod
    def looks_at_features(cls) -> bool:
        """Whether the loss compares the feature maps of a pretrained network."""
        return "features" in inspect.signature(cls.__init__).parameters

    def bound_to(self, image) -> Self:
        """A copy of the loss for the masks of these images (batch, size, size, 3)."""
        return self.copied(image=image)

    def copied(self, **changed) -> Self:
        """A copy with changed attributes (Keras copies through a configuration, which networks do not have)."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__ | changed)
        return other


class DiceLoss(Loss, name="dice", title="Dice", colour="#0072b2"):
    """1 - (2 sum(p g) + e) / (sum(p) + sum(g) + e) for probabilities p and reference g, with e = 1 (paper 3.2.4).

    After Milletari et al. 2016, doi:10.1109/3DV.2016.79.
    """

    measures = "the overlap of the two masks"

    def __init__(self, epsilon: PositiveFloat = 1.0):
        super().__init__()
        self.epsilon = epsilon

    def call(self, y_true, y_pred):
        overlap = ops.sum(y_true * y_pred)
        return 1 - (2 * overlap + self.epsilon) / (ops.sum(y_true) + ops.sum(y_pred) + self.epsilon)


class DiceCrossEntropyLoss(DiceLoss, name="dice_cross_entropy", title="Dice + cross-entropy", colour="#999933"):
    """The Dice loss plus `cross_entropy` times the mean of -g log p - (1 - g) log(1 - p).

    Cross-entropy gives better calibrated probabilities, and a gradient for slices without lesions (after Isensee et al.
    2021, doi:10.1038/s41592-020-01008-z).
    """

    measures = "the overlap, and the cross-entropy of every pixel"

    def __init__(self, epsilon: PositiveFloat = 1.0, cross_entropy: NonNegativeFloat = 1.0):
        super().__init__(epsilon)
        self.cross_entropy = cross_entropy

    def call(self, y_true, y_pred):
        sure = ops.clip(y_pred, 1e-6, 1 - 1e-6)
        entropy = -ops.mean(y_true * ops.log(sure) + (1 - y_true) * ops.log(1 - sure))
        return super().call(y_true, y_pred) + self.cross_entropy * entropy


class LesionWiseLoss(DiceCrossEntropyLoss, name="lesion_wise", title="Lesion-wise", colour="#882255"):
    """`dice_cross_entropy` plus `lesions` times sum(w (-log p)) / sum(w) with w = g / n, n the lesion pixels around a pixel.

    n counts a window of `window_px`. The weights of a lesion that fits in it, with no other near, add up to 1, so the
    sum is a mean over lesions, in which a small one counts as much as a large one (the aim of Kofler et al. 2022,
    arXiv:2205.08209, without their connected components).
    """

    measures = "the overlap, the cross-entropy of every pixel, and that of every lesion, whatever its size"

    def __init__(
        self,
        epsilon: PositiveFloat = 1.0,
        cross_entropy: NonNegativeFloat = 1.0,
        lesions: NonNegativeFloat = 1.0,
        window_px: PositiveInt = 15,
    ):
        super().__init__(epsilon, cross_entropy)
        self.lesions, self.window_px = lesions, window_px

    def call(self, y_true, y_pred):
        side, half = self.window_px, self.window_px // 2
        padded = ops.pad(y_true, ((0, 0), (half, side - 1 - half), (half, side - 1 - half), (0, 0)))
        around = ops.average_pool(padded, side, strides=1, padding="valid") * side**2
        weight = y_true / ops.maximum(around, 1.0)
        missed = -ops.sum(weight * ops.log(ops.clip(y_pred, 1e-6, 1.0))) / ops.maximum(ops.sum(weight), 1.0)
        return super().call(y_true, y_pred) + self.lesions * missed


class TverskyLoss(Loss, name="tversky", title="Tversky", colour="#56b4e9"):
    """1 - (TP + e) / (TP + alpha FP + beta FN + e) (Salehi et al. 2017, doi:10.1007/978-3-319-67389-9_44).

    TP, FP and FN are the soft counts sum(p g), sum(p (1 - g)), sum((1 - p) g). The paper sets alpha 0.3 and beta 0.7
    (3.2.4): a missed lesion costs more than a false positive.
    """

    measures = "the overlap, where a missed lesion costs more than a false positive"

    def __init__(self, alpha: NonNegativeFloat = 0.3, beta: NonNegativeFloat = 0.7, epsilon: PositiveFloat = 1.0):
        super().__init__()
        self.alpha, self.beta, self.epsilon = alpha, beta, epsilon

    def call(self, y_true, y_pred):
        true_positives = ops.sum(y_true * y_pred)
        false_positives = ops.sum((1 - y_true) * y_pred)
        false_negatives = ops.sum(y_true * (1 - y_pred))
        weighted = true_positives + self.alpha * false_positives + self.beta * false_negatives
        return 1 - (true_positives + self.epsilon) / (weighted + self.epsilon)


class GeneralizedDiceLoss(Loss, name="generalized_dice", title="Generalized Dice", colour="#009e73"):
    """1 - 2 sum_c w_c sum(p_c g_c) / sum_c w_c sum(p_c + g_c) over lesion and background (Sudre et al. 2017,
    doi:10.1007/978-3-319-67558-9_28).

    w_c = 1 / (sum g_c)^2 makes the weight of a class independent of its volume. A class that is absent from the batch
    counts as one pixel, which keeps its weight finite.
    """

    measures = "the overlap of lesion and of background, with equal weight whatever their volumes"

    def call(self, y_true, y_pred):
        reference = ops.concatenate([y_true, 1 - y_true], axis=-1)  # (batch, size, size, class)
        prediction = ops.concatenate([y_pred, 1 - y_pred], axis=-1)
        volume = ops.sum(reference, axis=(0, 1, 2))  # (class,)
        weight = 1 / ops.square(ops.maximum(volume, 1.0))
        overlap = ops.sum(weight * ops.sum(reference * prediction, axis=(0, 1, 2)))
        total = ops.sum(weight * ops.sum(reference + prediction, axis=(0, 1, 2)))
        return 1 - 2 * overlap / total
