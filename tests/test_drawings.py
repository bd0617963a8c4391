"""Drawings of networks: one box per layer at the height of its resolution, and one edge per input."""

import keras
import pytest

from wmhlib.generator import Seeds, dense_block, dense_unet
from wmhlib.report import drawings


def boxes(figure) -> dict[str, list[tuple[float, str]]]:
    """Height and filters of the boxes, by their kind."""
    return {
        trace.name: list(zip(map(float, trace.y), trace.text, strict=True))
        for trace in figure.data
        if trace.mode != "lines"
    }


def edges(figure) -> set[tuple[int, int]]:
    return {(round(trace.x[0]), round(trace.x[-1])) for trace in figure.data if trace.mode == "lines"}


def test_a_generator_is_a_u_with_its_skips():
    figure = drawings.network(dense_unet(32, filters=4, depth=2, convolutions=2), "A title")
    drawn = boxes(figure)
    assert drawn["convolution, norm, leaky ReLU"] == [
        *[(0, "4")] * 2, *[(-1, "8")] * 2, *[(-2, "16")] * 2, *[(-1, "8")] * 2, *[(0, "4")] * 2, (0, "1")
    ]  # fmt: skip
    assert drawn["2 × 2 max pool"] == [(-1, "8"), (-2, "16")], "two convolutions side by side"
    assert drawn["transposed convolution"] == [(-1, "8"), (0, "4")]
    assert {(1, 13), (2, 13), (4, 10), (5, 10)} <= edges(figure), "what came down is seen again on the way up"
    assert figure.layout.title.text == "A title" and list(figure.layout.yaxis.ticktext) == ["8 px", "16 px", "32 px"]


@pytest.mark.parametrize("convolutions", [1, 3])
def test_in_a_dense_block_each_convolution_sees_all_before_it(convolutions):
    image = keras.Input((16, 16, 3))
    figure = drawings.network(keras.Model(image, dense_block(image, 8, convolutions, Seeds(1))))
    made = range(1, convolutions + 1)
    wanted = {(before, now) for now in made for before in range(now)}
    wanted |= {(before, convolutions + 1) for before in made} if convolutions > 1 else set()
    assert edges(figure) == wanted
    assert len(boxes(figure)["convolution, norm, leaky ReLU"]) == convolutions
