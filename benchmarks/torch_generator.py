"""The paper's generator and a plain U-Net in PyTorch: the same networks as `wmhlib.generator`, to compare speed.

Input: a Keras network of `wmhlib.generator`. Output: a PyTorch module with its weights; outputs agree to about 1e-5. PyTorch's
own transposed convolution replaces the interleaved 1x1 convolutions (D-043). Memory is channels last, the faster layout.
"""

import keras
import numpy as np
import torch
from keras import layers
from torch import nn


class Block(nn.Module):
    """The convolutions of a level: dense (every output is an input of all later ones, all are returned) or in sequence."""

    def __init__(self, channels: int, width: int, count: int, dense: bool):
        super().__init__()
        inputs = [channels + number * width if dense or not number else width for number in range(count)]
        self.convolutions = nn.ModuleList(nn.Conv2d(wide, width, 3, padding=1, bias=False) for wide in inputs)
        norm = (lambda: nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)) if dense else lambda: Instance(width)
        self.norms = nn.ModuleList(norm() for _ in inputs)
        self.dense, self.width = dense, width * count if dense else width

    def forward(self, x):
        made = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            made.append(nn.functional.leaky_relu(norm(convolution(x)), 0.1))
            x = torch.cat([x, made[-1]], 1) if self.dense else made[-1]
        return torch.cat(made, 1) if self.dense and len(made) > 1 else made[-1]


class Instance(nn.InstanceNorm2d):
    def __init__(self, width: int):
        super().__init__(width, eps=1e-5, affine=True)


class UNet(nn.Module):
    """A U-Net of such blocks from (batch, 3, size, size) to probabilities (batch, 1, size, size)."""

    def __init__(self, widths: list[int], count: int, dense: bool):
        super().__init__()
        self.down, self.up, self.doubled, wide, skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), 3, []
        for width in widths:
            self.down.append(Block(wide, width, count, dense))
            wide = self.down[-1].width
            skips.append(wide)
        for width, skip in zip(reversed(widths[:-1]), reversed(skips[:-1]), strict=True):
            self.doubled.append(nn.ConvTranspose2d(wide, width, 2, stride=2, bias=False))
            self.up.append(Block(skip + width, width, count, dense))
            wide = self.up[-1].width
        self.last = nn.Conv2d(wide, 1, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for double, block, skip in zip(self.doubled, self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([skip, double(x)], 1))
        return torch.sigmoid(self.last(x))


def of_keras(network: keras.Model) -> UNet:
    """The same network in PyTorch, with the same weights."""
    dense = network.name == "dense_unet"
    kernels = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)]
    plain = [layer.kernel.shape for layer in kernels if layer.kernel.shape[0] == 3]
    depth = sum(layer.kernel.shape[0] == 1 for layer in kernels) - 1
    count = len(plain) // (2 * depth + 1)
    twin = UNet([shape[-1] for shape in plain[: count * (depth + 1) : count]], count, dense)
    twin = twin.to(memory_format=torch.channels_last)
    order = [module for block in twin.down for module in _modules(block)]
    for double, block in zip(twin.doubled, twin.up, strict=True):
        order += [double, *_modules(block)]
    own = [layer for layer in network.layers if layer.weights]
    with torch.no_grad():
        for layer, module in zip(own, [*order, twin.last], strict=True):
            _copy([np.asarray(keras.ops.convert_to_numpy(weight)) for weight in layer.weights], module)
    return twin


def _modules(block: Block) -> list[nn.Module]:
    return [module for pair in zip(block.convolutions, block.norms, strict=True) for module in pair]


def _copy(weights: list[np.ndarray], module: nn.Module) -> None:
    first, *others = map(torch.from_numpy, weights)
    if isinstance(module, nn.ConvTranspose2d):  # four 1x1 convolutions to one 2x2 kernel
        wide = first.shape[2]
        module.weight.copy_(first[0, 0].reshape(wide, 2, 2, -1).permute(0, 3, 1, 2))
    elif isinstance(module, nn.Conv2d):
        module.weight.copy_(first.permute(3, 2, 0, 1))
        if others:
            module.bias.copy_(others[0])
    else:
        module.weight.copy_(first)
        module.bias.copy_(others[0])
        if len(others) == 3:
            module.running_mean.copy_(others[1])
            module.running_var.copy_(others[2])
