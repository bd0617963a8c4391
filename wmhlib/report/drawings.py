"""A drawing of a Keras network: one box per convolution, whose size shows its filters and whose height its resolution.
A U-Net looks like a U with horizontal skip connections. In a dense block, arcs show the inputs of a convolution other
than the output of the previous one.
"""

from typing import Any

import keras
import numpy as np
import plotly.graph_objects as go

BOXES = {
    "InputLayer": ("input", "#555555"),
    "Conv2D": ("convolution, norm, leaky ReLU", "#0072b2"),
    "MaxPooling2D": ("2 × 2 max pool", "#d55e00"),
    "Reshape": ("transposed convolution", "#009e73"),
    "Concatenate": ("side by side", "#8a6d00"),  # where a network ends with it
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
    for kind, (words, colour) in BOXES.items():
        own = [n for n, node in enumerate(nodes) if type(node).__name__ == kind]
        sizes = [8 + 4 * np.log2(nodes[n].output.shape[-1]) for n in own]
        shapes = [" × ".join(map(str, nodes[n].output.shape[1:])) for n in own]
        figure.add_scatter(
            x=own,
            y=level[own],
            mode="markers+text",
            marker={"symbol": "square", "size": sizes, "color": colour, "opacity": 1},
            text=[str(nodes[n].output.shape[-1]) for n in own],
            textfont={"color": "white", "size": 11},
            customdata=shapes,
            hovertemplate=words + ": %{customdata}<extra></extra>",
            name=words,
        )
    sides = sorted(set(level))
    ticks = [f"{round(full * 2**side)} px" for side in sides]
    figure.update_yaxes(tickvals=sides, ticktext=ticks, showgrid=False, zeroline=False, range=[min(sides) - 0.5, 0.75])
    figure.update_xaxes(visible=False)
    return figure.update_layout(
        height=200 + 65 * len(sides), title=title, legend={"orientation": "h"}, template="plotly_white"
    )


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
