"""A drawing of a Keras network: one box per convolution, whose size shows its channels and whose height its resolution.

A U-Net looks like a U with horizontal skip connections. In a dense block, arcs show the inputs of a convolution other
than the output of the previous one. The discriminator is drawn as two paths through one network (Figure 3 of the paper).
"""

from typing import Any

import keras
import numpy as np
import plotly.graph_objects as go

from wmhlib.report.pictures import png_uri

BOXES = {
    "InputLayer": ("input", "#555555"),
    "Conv2D": ("convolution, norm, leaky ReLU", "#0072b2"),
    "MaxPooling2D": ("2 × 2 max pool", "#d55e00"),
    "Reshape": ("transposed convolution", "#009e73"),
    "Concatenate": ("concatenation", "#8a6d00"),  # where a network ends with it
}
"""The layers that are drawn, by class name: label and colour. Other layers are skipped, and edges pass through them."""


def network(model: keras.Model, title: str = "") -> go.Figure:
    """Draw a functional model of pictures (batch, side, side, channels)."""
    layers = {layer.name: layer for layer in model.layers}
    seen, nodes, edges = {}, [], []
    for entry in model.get_config()["layers"]:
        layer = layers[entry["name"]]
        sources = sorted(set().union(*(seen[name] for name in _inputs(entry["inbound_nodes"]))) if seen else set())
        joins = layer is model.layers[-1] and type(layer).__name__ == "Concatenate"
        if not (joins or _drawn(layer)):
            seen[layer.name] = set(sources)
            continue
        seen[layer.name] = {len(nodes)}
        edges += [(source, len(nodes)) for source in sources]
        nodes.append(layer)
    full = nodes[0].output.shape[1]
    level = np.array([-np.log2(full / node.output.shape[1]) for node in nodes])
    figure = go.Figure()
    for start, end in edges:
        across = end - start > 1 and level[start] == level[end]
        lift = 0.18 + 0.05 * min(end - start, 4) if across else 0
        x, y = np.linspace(start, end, 20), np.linspace(level[start], level[end], 20)
        y = y + lift * np.sin(np.linspace(0, np.pi, 20))
        line = {"color": "#999999", "width": 1.5 if across else 2.5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    sizes = [8 + 4 * np.log2(node.output.shape[-1]) for node in nodes]
    hover = [f"{BOXES[type(node).__name__][0]}: {_shape(node)}" for node in nodes]
    _add_boxes(figure, nodes, range(len(nodes)), level, sizes, hover)
    sides = sorted(set(level))
    ticks = [f"{round(full * 2**side)} px" for side in sides]
    figure.update_yaxes(tickvals=sides, ticktext=ticks, showgrid=False, zeroline=False, range=[min(sides) - 0.5, 0.75])
    figure.update_xaxes(visible=False)
    return figure.update_layout(
        height=200 + 65 * len(sides), title=title, legend={"orientation": "h"}, template="plotly_white"
    )


def two_paths(features: keras.Model, seen: dict[str, np.ndarray], title: str = "") -> go.Figure:
    """Draw the Siamese discriminator: two pictures, the same network for both, and a squared difference at each tap.

    Parameters
    ----------
    features
        A network without branches, from a picture to its taps, such as VGG19 up to its second max pool.
    seen
        What enters each path, by its name: (rows, columns, 3) uint8. Two, the reference's first.
    """
    layers = [layer for layer in features.layers if _drawn(layer) and type(layer).__name__ != "InputLayer"]
    taps = {tensor._keras_history.operation.name for tensor in features.outputs}
    steps, end = np.arange(1, len(layers) + 1), len(layers) + 1
    hover = [f"{layer.name}: {_shape(layer)}" for layer in layers]
    figure = go.Figure()
    grey, orange = {"color": "#999999", "width": 2}, {"color": "#b8860b", "width": 2, "dash": "dot"}
    for number, column in enumerate([n for n, layer in zip(steps, layers, strict=True) if layer.name in taps], start=1):
        figure.add_scatter(
            x=[column] * 3 + [end],
            y=[1, 0, 0.5, 0.5],
            mode="lines",
            line=orange,
            hoverinfo="skip",
            showlegend=False,
        )
        difference = f"tap {number}: ‖ difference ‖² / N"
        figure.add_annotation(x=column, y=0.5, text=difference, showarrow=False, bgcolor="white")
    for height, (name, picture) in zip((1, 0), seen.items(), strict=True):
        figure.add_scatter(
            x=[0.4, steps[-1]], y=[height, height], mode="lines", line=grey, hoverinfo="skip", showlegend=False
        )
        place = {"x": 0, "y": height, "sizex": 0.8, "sizey": 0.8, "xanchor": "center", "yanchor": "middle"}
        figure.add_layout_image(source=png_uri(picture), xref="x", yref="y", **place)
        figure.add_annotation(x=0, y=height + 0.49, text=name, showarrow=False)
        heights, sizes = np.full(len(steps), height), np.full(len(steps), 38)
        _add_boxes(figure, layers, steps, heights, sizes, hover, without=", norm, leaky ReLU", legend=bool(height))
    figure.add_annotation(x=end, y=0.5, text="<b>L</b>", showarrow=False, bgcolor="white", font={"size": 20})
    same = "the same weights in both paths"
    figure.add_annotation(x=(1 + steps[-1]) / 2, y=1.53, text=same, showarrow=False, font={"color": "#666666"})
    figure.update_xaxes(visible=False, range=[-0.6, end + 0.4]).update_yaxes(visible=False, range=[-0.6, 1.7])
    return figure.update_layout(
        height=430, title=title, legend={"orientation": "h"}, template="plotly_white", margin={"l": 10, "r": 10}
    )


def _add_boxes(figure: go.Figure, layers, x, y, sizes, hover, without: str = "", legend: bool = True) -> None:
    """A box per layer with its channels in it; `without` are words to leave out of the legend's names in `BOXES`."""
    for kind, (words, colour) in BOXES.items():
        own = [n for n, layer in enumerate(layers) if type(layer).__name__ == kind]
        if not own:
            continue
        figure.add_scatter(
            x=[x[n] for n in own],
            y=[y[n] for n in own],
            mode="markers+text",
            marker={"symbol": "square", "size": [sizes[n] for n in own], "color": colour, "opacity": 1},
            text=[str(layers[n].output.shape[-1]) for n in own],
            textfont={"color": "white", "size": 11},
            hovertext=[hover[n] for n in own],
            hoverinfo="text",
            name=words.removesuffix(without),
            showlegend=legend,
        )


def _shape(layer: keras.layers.Layer) -> str:
    return " × ".join(map(str, layer.output.shape[1:]))


def _drawn(layer: keras.layers.Layer) -> bool:
    """Whether a layer is drawn. A transposed convolution is a 1x1 convolution and two reshapes, of which the last is
    drawn."""
    kind = type(layer).__name__
    if kind == "Conv2D":
        return layer.kernel_size != (1, 1) or layer.activation.__name__ != "linear"
    return kind in BOXES and kind != "Concatenate" and (kind != "Reshape" or len(layer.output.shape) == 4)


def _inputs(nodes: Any) -> list[str]:
    """The names of the input layers in a layer's `inbound_nodes`."""
    if isinstance(nodes, dict):
        history = (
            nodes.get("config", {}).get("keras_history") if nodes.get("class_name") == "__keras_tensor__" else None
        )
        return [history[0]] if history else [name for value in nodes.values() for name in _inputs(value)]
    return [name for value in nodes for name in _inputs(value)] if isinstance(nodes, list | tuple) else []
