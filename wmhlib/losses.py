"""The overlap losses the paper compares with (3.2.4): Dice, Tversky, generalized Dice.

Each is a Keras loss of `y_true` and `y_pred`, both (batch, size, size, 1): reference values 0/1 (or soft ones) and
probabilities. Sums run over the whole batch, as in the Keras code of the paper's time, so that slices without lesions
count (D-007). Each gives one number, 0 at perfect agreement.
"""

import keras
from keras import ops


class DiceLoss(keras.losses.Loss):
    """1 - (2 sum(p g) + e) / (sum(p) + sum(g) + e), with e = 1 (paper 3.2.4; after Milletari et al. 2016,
    doi:10.1109/3DV.2016.79)."""

    def __init__(self, epsilon: float = 1.0, name: str = "dice"):
        super().__init__(name=name)
        self.epsilon = epsilon

    def call(self, y_true, y_pred):
        both = ops.sum(y_true * y_pred)
        return 1 - (2 * both + self.epsilon) / (ops.sum(y_true) + ops.sum(y_pred) + self.epsilon)


class TverskyLoss(keras.losses.Loss):
    """1 - (TP + e) / (TP + alpha FP + beta FN + e) (Salehi et al. 2017, doi:10.1007/978-3-319-67389-9_44).

    TP, FP and FN are the soft counts sum(p g), sum(p (1 - g)), sum((1 - p) g). The paper sets alpha 0.3 and beta 0.7
    (3.2.4): missing a lesion costs more than inventing one.
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7, epsilon: float = 1.0, name: str = "tversky"):
        super().__init__(name=name)
        self.alpha, self.beta, self.epsilon = alpha, beta, epsilon

    def call(self, y_true, y_pred):
        both = ops.sum(y_true * y_pred)
        invented = ops.sum((1 - y_true) * y_pred)
        missed = ops.sum(y_true * (1 - y_pred))
        return 1 - (both + self.epsilon) / (both + self.alpha * invented + self.beta * missed + self.epsilon)


class GeneralizedDiceLoss(keras.losses.Loss):
    """1 - 2 sum_c w_c sum(p_c g_c) / sum_c w_c sum(p_c + g_c) over lesion and background (Sudre et al. 2017,
    doi:10.1007/978-3-319-67558-9_28).

    w_c = 1 / (sum g_c)^2 gives a class the same say whatever its volume. A class that the batch lacks counts as one
    pixel, which keeps its weight finite.
    """

    def __init__(self, name: str = "generalized_dice"):
        super().__init__(name=name)

    def call(self, y_true, y_pred):
        reference = ops.concatenate([y_true, 1 - y_true], axis=-1)  # (batch, size, size, class)
        prediction = ops.concatenate([y_pred, 1 - y_pred], axis=-1)
        volume = ops.sum(reference, axis=(0, 1, 2))  # (class,)
        weight = 1 / ops.square(ops.maximum(volume, 1.0))
        both = ops.sum(weight * ops.sum(reference * prediction, axis=(0, 1, 2)))
        either = ops.sum(weight * ops.sum(reference + prediction, axis=(0, 1, 2)))
        return 1 - 2 * both / either
