"""The generator and its Dice training step in PyTorch, for `train_step.py` and `segment.py` with `--against torch`.

PyTorch and TensorFlow in one process crashed, so this is a process of its own (`in_torch.py` starts it). Its first line
is the number of weights. For every line on standard input, it takes one training step, or with `forward` it predicts,
and answers with a line. Layers, widths and operations are those of `wmhlib.generator.dense_unet` and `plain_unet`;
tensors are channels last, PyTorch's fastest layout on a CPU.
"""

import json
import sys

import numpy as np
import torch
from torch import nn


class Convolution(nn.Sequential):
    """3x3 convolution, norm, leaky ReLU."""

    def __init__(self, channels: int, width: int, norm: type[nn.Module]):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), norm(width, affine=True), nn.LeakyReLU(0.1, True)
        )


class Dense(nn.Module):
    """A dense block."""

    def __init__(self, channels: int, width: int, convolutions: int):
        super().__init__()
        inputs = [channels + width * number for number in range(convolutions)]
        self.parts = nn.ModuleList(Convolution(count, width, nn.BatchNorm2d) for count in inputs)
        self.out = width * convolutions

    def forward(self, x):
        made: list = []
        for part in self.parts:
            made.append(part(torch.cat([x, *made], 1) if made else x))
        return torch.cat(made, 1)


class Plain(nn.Sequential):
    """A sequence of convolutions with instance norm."""

    def __init__(self, channels: int, width: int, convolutions: int):
        inputs = [channels, *[width] * (convolutions - 1)]
        super().__init__(*(Convolution(count, width, nn.InstanceNorm2d) for count in inputs))
        self.out = width


class UNet(nn.Module):
    """The generator: `widths` are the filters per level, the lowest last."""

    def __init__(self, block: type, widths: list[int], convolutions: int):
        super().__init__()
        self.down, self.up, self.blocks, channels, skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), 3, []
        for width in widths:
            self.down.append(block(channels, width, convolutions))
            channels = self.down[-1].out
            skips.append(channels)
        for width, skip in zip(reversed(widths[:-1]), reversed(skips[:-1]), strict=True):
            self.up.append(nn.ConvTranspose2d(channels, width, 2, 2, bias=False))
            self.blocks.append(block(skip + width, width, convolutions))
            channels = self.blocks[-1].out
        self.last = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        skips = []
        for number, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if number else x)
            skips.append(x)
        for up, block, skip in zip(self.up, self.blocks, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([skip, up(x)], 1))
        return torch.sigmoid(self.last(x))


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    block = {"dense_unet": Dense, "plain_unet": Plain}[settings["network"]]
    network = UNet(block, settings["widths"], settings["convolutions"]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 0.001)
    random, shape = np.random.default_rng(0), (settings["batch"], settings["size"], settings["size"], 1)
    image = (255 * random.random((*shape[:3], 3)) - 110).astype(np.float32)
    reference = (random.random(shape) > 0.99).astype(np.float32)
    print(sum(weight.numel() for weight in network.parameters()), flush=True)
    x, y = (torch.from_numpy(values).permute(0, 3, 1, 2) for values in (image, reference))  # channels last already
    half = torch.autocast("cpu", torch.bfloat16, enabled=settings["bfloat16"])
    for _ in sys.stdin:
        if settings["forward"]:
            with torch.inference_mode(), half:
                print(float(network.eval()(x).sum()), flush=True)
            continue
        with half:
            likely = network(x).float()
        loss = 1 - (2 * (likely * y).sum() + 1) / (likely.sum() + y.sum() + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(float(loss.detach()), flush=True)


if __name__ == "__main__":
    main()
