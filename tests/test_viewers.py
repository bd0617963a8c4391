"""The slice viewer: which voxel lands where in its pictures, what its controls show, how large it is."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wmhlib.viewers import browse, slice_viewer

COLOURS = {"reference": "#ffd400", "dice": "#d55e00", "siamese": "#56b4e9"}


def picture(source: str) -> Image.Image:
    """The PNG inside a data URI."""
    kind, _, encoded = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def pixels(source: str) -> np.ndarray:
    """(row, column, RGBA) of a data URI's PNG."""
    return np.asarray(picture(source).convert("RGBA"))


def marked(*indices) -> np.ndarray:
    mask = np.zeros((7, 8, 9), bool)
    for index in indices:
        mask[index] = True
    return mask


@pytest.fixture
def flair():
    """A grey 7x8x9 volume with one bright voxel: patient's right, anterior, slice 2."""
    volume = np.full((7, 8, 9), 100.0)
    volume[6, 7, 2] = 900
    return volume


def test_right_anterior_voxel_lands_top_left(flair):
    figure = slice_viewer(flair, (1, 1, 3), {}, {}, "corner")
    grey = np.asarray(picture(figure.frames[2].data[0].source))
    assert grey.dtype == np.uint8 and grey.shape == (8, 7)  # rows along j, columns along i
    assert np.unravel_index(grey.argmax(), grey.shape) == (0, 0)
    assert np.asarray(picture(figure.frames[3].data[0].source)).max() < grey.max()
    letters = {note.text: (note.x, note.y) for note in figure.layout.annotations}
    assert letters["R"][0] < 0.5 < letters["L"][0] and letters["P"][1] < 0.5 < letters["A"][1]


def test_frames_and_slider_name_the_slices_with_brain(flair):
    flair[..., [0, 8]] = 0
    reference = marked((1, 1, 5), (1, 2, 5), (1, 1, 4))
    figure = slice_viewer(flair, (1, 1, 3), {"reference": reference}, COLOURS, "")
    assert [frame.name for frame in figure.frames] == [str(k) for k in range(1, 8)]
    slider = figure.layout.sliders[0]
    assert [step.args[0][0] for step in slider.steps] == [frame.name for frame in figure.frames]
    assert slider.steps[slider.active].label == "5"  # the largest reference area
    assert [trace.source for trace in figure.data if trace.type == "image"] == [
        image.source for image in figure.frames[slider.active].data
    ]
    chosen = slice_viewer(flair, (1, 1, 3), {}, {}, "", slices=[2, 4])
    assert [frame.name for frame in chosen.frames] == ["2", "4"]


def test_pixels_are_square_millimetres(flair):
    figure = slice_viewer(flair, (1, 2, 5), {"reference": marked((0, 0, 0))}, COLOURS, "")
    assert picture(figure.data[0].source).size == (7, 16)
    assert figure.data[0].dx == figure.data[0].dy == 1
    assert picture(figure.data[1].source).size == (14, 32) and figure.data[1].dx == 0.5
    assert figure.layout.yaxis.scaleanchor == "x"
    assert (figure.layout.xaxis.range, figure.layout.yaxis.range) == ((0, 7), (16, 0))
    small = slice_viewer(flair, (1, 2, 5), {}, {}, "", max_pixels=8)
    assert picture(small.data[0].source).size == (4, 8)


def test_overlays_lie_on_their_voxels(flair):
    reference = marked((6, 7, 2), (5, 7, 2))  # top left, two pixels wide
    result = marked((5, 7, 2), (0, 0, 2))  # one of them found, one falsely found at bottom right
    figure = slice_viewer(flair, (1, 1, 3), {"reference": reference, "dice": result}, COLOURS, "")
    _, fill, _, outline = (pixels(image.source)[::2, ::2] for image in figure.frames[2].data)
    alpha = fill[0, 1, 3]
    assert np.argwhere(fill[..., 3]).tolist() == [[0, 1], [7, 6]] and 100 < alpha < 220
    assert tuple(fill[0, 1, :3]) == (0xD5, 0x5E, 0x00)
    assert np.argwhere(outline[..., 3] == 255).tolist() == [[0, 0], [0, 1]]
    named = {**COLOURS, "found": "#00ff00", "missed": "#0000ff", "false": "#ff0000"}
    masks = {"reference": reference, "dice": result}
    errors = pixels(slice_viewer(flair, (1, 1, 3), masks, named, "").frames[2].data[2].source)[::2, ::2]
    assert tuple(errors[0, 1, :3]) == (0, 255, 0) and tuple(errors[0, 0, :3]) == (0, 0, 255)
    assert tuple(errors[7, 6, :3]) == (255, 0, 0)
    assert np.count_nonzero(errors[..., 3]) == 3


def test_choices_show_their_traces(flair):
    masks = {name: marked((1, 1, 1)) for name in COLOURS}
    figure = slice_viewer(flair, (1, 1, 3), masks, COLOURS, "")
    menu = figure.layout.updatemenus[0]
    labels = ["FLAIR alone", "reference", "dice", "siamese"]
    labels += [f"{name}: found, missed, false" for name in ("dice", "siamese")]
    assert [button.label for button in menu.buttons] == labels
    shown = {button.label: button.args[0]["visible"] for button in menu.buttons}
    # FLAIR, fill and errors of dice, of siamese, outline; keys of three masks, of three kinds of error
    assert shown["FLAIR alone"] == [True] + [False] * 11
    assert np.flatnonzero(shown["siamese"]).tolist() == [0, 3, 5, 6, 8]
    assert np.flatnonzero(shown["dice: found, missed, false"]).tolist() == [0, 2, 9, 10, 11]
    assert [trace.visible for trace in figure.data] == shown["dice"]  # the figure opens as its menu stands


def test_window_ignores_the_background():
    flair = np.zeros((40, 40, 3))
    flair[10:30, 10:30] = np.linspace(200, 300, 1200).reshape(20, 20, 3)
    grey = np.asarray(picture(slice_viewer(flair, (1, 1, 1), {}, {}, "").frames[1].data[0].source))
    assert grey.shape == (24, 24)  # the box around the brain and its margin
    brain = grey[2:-2, 2:-2]
    assert grey[0, 0] == 0 and brain.min() < 5 and brain.max() > 250 and 120 < np.median(brain) < 135


def test_a_name_stays_text(flair):
    name = "<script>alert(1)</script>"
    figure = slice_viewer(flair, (1, 1, 3), {name: marked((1, 1, 1))}, {name: "#ffffff"}, name)
    assert "<script" not in figure.to_json()
    assert figure.layout.title.text == "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.mark.parametrize(
    ("flair", "masks", "slices", "message"),
    [
        (np.zeros((7, 8, 9)), {}, None, "no voxel"),
        (np.ones((7, 8, 9)), {"reference": np.ones((8, 7, 9))}, None, "reference has shape"),
        (np.ones((7, 8, 9)), {}, [], "No slice"),
    ],
)
def test_refuses_what_cannot_be_shown(flair, masks, slices, message):
    with pytest.raises(ValueError, match=message):
        slice_viewer(flair, (1, 1, 3), masks, COLOURS, "", slices)


def test_a_48_slice_viewer_stays_below_2_mb():
    generator = np.random.default_rng(0)
    i, j = np.mgrid[-1:1:224j, -1:1:200j]
    brain = (i**2 + j**2 < 0.9)[..., np.newaxis]
    tissue = 500 + 300 * np.cos(9 * (i + j))[..., np.newaxis]
    flair = brain * generator.normal(tissue, 30, (224, 200, 48))
    lesions = brain & (np.sin(9 * i) * np.cos(11 * j) > 0.8)[..., np.newaxis] & np.ones(48, bool)
    masks = {name: np.roll(lesions, shift, 0) for shift, name in enumerate(COLOURS)}
    figure = slice_viewer(flair, (1, 1, 3), masks, COLOURS, "size")
    assert len(figure.frames) == 48
    assert len(figure.to_json()) < 2e6


def test_browse_shows_the_chosen_subject(flair):
    widget = browse({name: lambda: (flair, (1, 1, 3), {}) for name in ("first", "second")}, {})
    choice, picture = widget.children
    for name in ("first", "second"):
        choice.value = name
        (output,) = picture.outputs
        assert output["data"]["application/vnd.plotly.v1+json"]["layout"]["title"]["text"] == name
