"""Looking into the brain: axial slices with masks over them, in JupyterLab and in a page without a kernel.

In flow arrays in canonical orientation (i to the patient's right, j to anterior, k to superior), out flows a
plain plotly figure that carries its own pictures as 8-bit PNGs, one frame a slice. So its slider and its
choice of mask work wherever plotly draws: in JupyterLab, and in exported HTML with the network off. They are
for the eye, resampled to square pixels of a size that the figure states; nothing is measured on them.
"""

import base64
import html
import io
import json
import zlib
from collections.abc import Callable, Sequence

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageColor
from scipy.ndimage import binary_erosion

from wmhlib.figures import COLOURS

ERROR_COLOURS = {kind: COLOURS[kind] for kind in ("found", "missed", "false")}
"""Found, missed and falsely found voxels, distinct to colour-blind readers; `colours` may override."""

FILL_ALPHA = 165
"""Opacity of filled masks, of 255: the tissue below stays visible."""

MASK_DETAIL = 2
"""Mask pixels per FLAIR pixel along each axis: outlines stay thin and small lesions keep their shape."""

GREY_BITS = 0b11111110
"""Grey values are kept in steps of two: finer ones are noise to the eye, and cost a sixth of a page."""

JUMP = {"frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}, "mode": "immediate"}
"""How a frame replaces another: at once."""


def upright(plane: np.ndarray) -> np.ndarray:
    """An axial plane (i, j) as picture (row, column), seen from the feet: anterior up, left on the right."""
    return plane[::-1, ::-1].T


def data_uri(picture: Image.Image, **options) -> str:
    """A picture as PNG inside a data URI."""
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=9, **options)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def resample(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 picture at `size` (width, height), averaged where it shrinks; shape (height, width)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BILINEAR))


def overlay_uri(codes: np.ndarray, colours: Sequence[str], alpha: int) -> str:
    """Codes 0 (clear), 1, 2, 3 in the given colours, as palette PNG with 2 bits a pixel."""
    picture = Image.fromarray(codes.astype(np.uint8)).convert("P")
    palette = [(0, 0, 0), *(ImageColor.getrgb(colour)[:3] for colour in colours)]
    picture.putpalette([value for colour in palette for value in colour])
    return data_uri(picture, bits=2, transparency=bytes([0] + [alpha] * len(colours)))


def brain_box(flair: np.ndarray) -> tuple[slice, slice]:
    """In-plane bounds of the non-zero voxels, with two voxels of margin where the scan has them."""
    filled = (np.flatnonzero(flair.any(axis=(1, 2))), np.flatnonzero(flair.any(axis=(0, 2))))
    return tuple(slice(max(part[0] - 2, 0), part[-1] + 3) for part in filled)


def slice_sources(grey: np.ndarray, masks: list[np.ndarray], size: tuple[int, int], palette: list[str]) -> list[str]:
    """One slice's pictures: FLAIR, then fill and errors of every result, then the reference's outline.

    `grey` is an upright uint8 picture, `masks` upright boolean pictures beginning with the reference;
    `palette` holds their colours and then those of found, missed and false.
    """
    detail = (size[0] * MASK_DETAIL, size[1] * MASK_DETAIL)
    masks = [resample(mask.astype(np.uint8) * 255, detail) >= 128 for mask in masks]
    flair = Image.fromarray(resample(grey, size) & GREY_BITS)
    sources = [data_uri(flair, compress_type=zlib.Z_FILTERED)]
    for mask, colour in zip(masks[1:], palette[1:], strict=False):
        errors = np.select([mask & masks[0], masks[0], mask], [1, 2, 3], 0)
        sources += [overlay_uri(mask, [colour], FILL_ALPHA), overlay_uri(errors, palette[-3:], FILL_ALPHA)]
    if masks:
        sources.append(overlay_uri(masks[0] & ~binary_erosion(masks[0]), palette[:1], 255))
    return sources


def choices(names: list[str]) -> dict[str, list[bool]]:
    """What a reader can choose to see, and which of the figure's traces each choice shows.

    The traces are the pictures of `slice_sources`, then a legend entry for each mask and kind of error.
    """
    results = names[1:]
    traces = ["FLAIR", *(part for name in results for part in (f"fill {name}", f"errors {name}"))]
    traces += ["outline"] * bool(names) + [f"key {name}" for name in names] + list(ERROR_COLOURS)
    parts: dict[str, set[str]] = {"FLAIR alone": set()}
    if names:
        parts[names[0]] = {"outline", f"key {names[0]}"}
    for name in results:
        parts[name] = {*parts[names[0]], f"fill {name}", f"key {name}"}
    for name in results:
        parts[f"{name}: {', '.join(ERROR_COLOURS)}"] = {f"errors {name}", *ERROR_COLOURS}
    return {choice: [trace in {"FLAIR", *shown} for trace in traces] for choice, shown in parts.items()}


def slice_viewer(
    flair: np.ndarray,
    spacing_mm: Sequence[float],
    masks: dict[str, np.ndarray],
    colours: dict[str, str],
    title: str,
    slices: Sequence[int] | None = None,
    max_pixels: int = 224,
) -> go.Figure:
    """A scan's axial slices with a slider, and a choice of the mask drawn over them.

    Parameters
    ----------
    flair
        (i, j, k), canonical orientation; shown from percentile 0.5 to 99.5 of its non-zero voxels.
    spacing_mm
        Voxel size along i, j, k.
    masks
        Name to mask of FLAIR's shape, non-zero where marked. The first is the reference, drawn as an outline;
        each other is filled, and can be shown as what it found, missed and falsely found of the reference.
    colours
        Mask name to colour (hex); may also name `found`, `missed` and `false`.
    title
        Plain text; markup in it is shown, not interpreted.
    slices
        Which k to hold, by default all with a non-zero voxel; opens at the largest reference area.
    max_pixels
        Longer side of the FLAIR pictures; they are never made finer than the smaller voxel edge.

    Raises
    ------
    ValueError
        An empty scan, no slice chosen, or a mask of another shape.
    """
    for name, mask in masks.items():
        if mask.shape != flair.shape:
            raise ValueError(f"Mask {name} has shape {mask.shape}, the FLAIR {flair.shape}.")
    if not flair.any():
        raise ValueError("The FLAIR holds no voxel other than zero: nothing to show.")
    slices = [int(k) for k in (np.flatnonzero(flair.any(axis=(0, 1))) if slices is None else slices)]
    if not slices:
        raise ValueError("No slice was chosen.")
    low, high = np.percentile(flair[flair != 0], [0.5, 99.5])
    box = brain_box(flair)
    flair, cut = flair[box], [mask[box] != 0 for mask in masks.values()]
    extent_mm = np.array(flair.shape[:2]) * np.array(spacing_mm[:2])
    pixel_mm = float(max(extent_mm.max() / max_pixels, min(spacing_mm[:2])))
    size = tuple(int(number) for number in np.maximum(np.round(extent_mm / pixel_mm), 1))
    errors = {**ERROR_COLOURS, **colours}
    palette = [*(colours[name] for name in masks), *(errors[kind] for kind in ERROR_COLOURS)]

    sources = {}
    for k in slices:
        grey = np.clip((upright(flair[..., k]) - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
        sources[k] = slice_sources(grey, [upright(mask[..., k]) for mask in cut], size, palette)
    areas = [cut[0][..., k].sum() if cut else 0 for k in slices]
    opening = int(np.argmax(areas)) if any(areas) else len(slices) // 2
    return assemble(sources, opening, list(masks), palette, title, pixel_mm, size)


def assemble(
    sources: dict[int, list[str]],
    opening: int,
    names: list[str],
    palette: list[str],
    title: str,
    pixel_mm: float,
    size: tuple[int, int],
) -> go.Figure:
    """The figure around the pictures: traces, a frame and slider step each slice, letters, choice of mask.

    `sources` holds the pictures of each k, `opening` the position to begin with. Axes are in mm.
    """
    shown = choices(names)
    active = min(2, len(names))  # the first result over the reference, if there is one
    figure = go.Figure()
    for number, source in enumerate(list(sources.values())[opening]):
        step = pixel_mm / MASK_DETAIL if number else pixel_mm
        place = {"x0": step / 2, "y0": step / 2, "dx": step, "dy": step}
        figure.add_image(source=source, hoverinfo="skip", zsmooth="fast", **place)
    pictures = list(range(len(figure.data)))
    for name, colour in zip([*names, *ERROR_COLOURS], palette, strict=True):  # pictures have no legend
        marker = {"color": colour, "symbol": "square", "size": 12}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=html.escape(name))
    for trace, visible in zip(figure.data, list(shown.values())[active], strict=True):
        trace.visible = visible
    figure.frames = [
        go.Frame(name=str(k), data=[{"type": "image", "source": text} for text in texts], traces=pictures)
        for k, texts in sources.items()
    ]
    steps = [{"label": str(k), "method": "animate", "args": [[str(k)], JUMP]} for k in sources]
    buttons = [
        {"label": html.escape(choice), "method": "restyle", "args": [{"visible": visible}]}
        for choice, visible in shown.items()
    ]
    letters = {"R": (0.01, 0.5), "L": (0.99, 0.5), "A": (0.5, 0.99), "P": (0.5, 0.01)}
    lettering = {"xref": "x domain", "yref": "y domain", "showarrow": False, "bgcolor": "rgba(0,0,0,0.5)"}
    lettering["font"] = {"color": "#e8e8e8", "size": 14}
    resolution = f"{len(sources)} axial slices at {size[0]} × {size[1]} pixels of {pixel_mm:.2f} mm"
    top = {"y": 0.98, "yanchor": "top"}
    axis = {"visible": False, "constrain": "domain"}
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.01, "yanchor": "top"}
    menu = {"buttons": buttons, "active": active, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    slider = {"active": opening, "steps": steps, "currentvalue": {"prefix": "axial slice "}, "pad": {"t": 25}}
    return figure.update_layout(
        title={"text": html.escape(title), "subtitle": {"text": resolution}, "x": 0, "xref": "paper", **top},
        height=720,
        margin={"l": 10, "r": 10, "t": 118, "b": 110},
        plot_bgcolor="black",
        xaxis={**axis, "range": [0, size[0] * pixel_mm]},
        yaxis={**axis, "range": [size[1] * pixel_mm, 0], "scaleanchor": "x"},
        dragmode=False,
        showlegend=True,
        legend={**legend, "itemclick": False, "itemdoubleclick": False},
        annotations=[{"text": text, "x": x, "y": y, **lettering} for text, (x, y) in letters.items()],
        updatemenus=[{**menu, "pad": {"t": 0, "b": 0}}],
        sliders=[slider],
        meta={"viewer": "slices"},
    )


def browse(
    subjects: dict[str, Callable[[], tuple[np.ndarray, Sequence[float], dict[str, np.ndarray]]]],
    colours: dict[str, str],
) -> ipywidgets.VBox:
    """With a live kernel: a dropdown of subjects over the slice viewer of the chosen one.

    Each value of `subjects` is called when its subject is chosen and returns (flair, spacing_mm, masks).
    """
    choice = ipywidgets.Dropdown(options=list(subjects), description="Subject")
    picture = ipywidgets.Output()

    def show(_change: object = None) -> None:
        figure = slice_viewer(*subjects[choice.value](), colours, choice.value)
        data = {"application/vnd.plotly.v1+json": json.loads(figure.to_json())}
        picture.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    choice.observe(show, names="value")
    show()
    return ipywidgets.VBox([choice, picture])
