"""Run `torch_step.py`, which times the same network in PyTorch."""

import json
import subprocess
from pathlib import Path

from wmhlib.batches import cores


class InTorch:
    """A process that holds the same network in PyTorch and takes a step when told."""

    def __init__(self, python: str, generator, size: int, batch: int, bfloat16: bool = False, forward: bool = False):
        """`generator` has the settings of `wmhlib.settings.Generator`; `forward`: predict without training."""
        levels = range(generator.depth + 1)
        widths = {
            "dense_unet": [generator.filters * 2**level for level in levels],
            "plain_unet": [generator.filters * max(1, 2 * level) for level in levels],
        }[generator.network]
        settings = {"network": generator.network, "widths": widths, "convolutions": generator.convolutions}
        settings |= {"size": size, "batch": batch, "threads": cores(), "bfloat16": bfloat16, "forward": forward}
        command = [python, Path(__file__).with_name("torch_step.py"), json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.weights = int(self._answer())

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("The process with PyTorch ended: give a --python whose environment has torch.")
        return line

    def step(self) -> None:
        """One step; returns when it is done."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
