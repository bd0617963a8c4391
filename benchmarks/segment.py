"""Where the time goes when scans are segmented with the bundled network, as in notebook 07.

    .venv/bin/python benchmarks/segment.py SCAN [SCAN ...] [--against torch --python /path/to/python]

Input: NIfTI files. Output: a Markdown table with a row per scan: its voxels, seconds in all, and the share of each part; and the
cores in use. Every scan is segmented twice, and the second time counts (the first compiles). With `--against torch`, the network's
own time is compared with that of the same layers in PyTorch (`torch_step.py`), on as many slices of the same size, without a gradient.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np

from wmhlib.apply import segment
from wmhlib.batches import cores

PARTS = {
    "prepared": "reading and slicing",
    "structures_of": "skull and ventricles",
    "two_looks": "network, two looks",
    "lesions_of": "lesions",
    "quality_picture": "picture",
    "save_image": "writing",
}
"""The functions of `wmhlib.apply.segment` that are timed."""


def timed(seconds: Counter, name: str, function):
    """The function, which adds its duration to `seconds`."""

    def call(*arguments, **keywords):
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[name] += time.perf_counter() - started

    return call


def slices_seen(network, path: str) -> int:
    """How many slices of a scan the network sees, in both looks."""
    seen = segment.prepared(network, path)
    inside = np.asarray(segment.structures_of(seen).intracranial)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(inside.astype(np.uint8), seen.scan.affine))
    return 2 * int((np.asarray(image.dataobj).any((0, 1)) & seen.slices.any((1, 2))).sum())


def seconds_in_torch(python: str, network, slices: int) -> float:
    """Seconds of PyTorch for the same layers on as many slices, in batches of 8."""
    settings = {"network": "plain_unet", "widths": [16, 32, 64, 96, 128], "convolutions": 2, "forward": True}
    settings |= {"size": network.input_shape[1], "batch": 8, "threads": cores()}
    command = [python, Path(__file__).with_name("torch_step.py"), json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        started = 0.0
        for number in range(2 + -(-slices // 8)):
            started = started if number > 2 else time.perf_counter()
            process.stdin.write("step\n")
            process.stdin.flush()
            process.stdout.readline()
        took = time.perf_counter() - started
        process.stdin.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+")
    parser.add_argument("--against", choices=["torch"])
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch, for --against")
    arguments = parser.parse_args()
    path, network, trained_on = segment.open_network()
    seconds: Counter = Counter()
    for name in PARTS:
        setattr(segment, name, timed(seconds, name, getattr(segment, name)))
    columns = [*PARTS.values(), "other"] + ["PyTorch over ours"] * bool(arguments.against)
    print(f"| scan | voxels | s | cores in use | {' | '.join(columns)} |\n{'|---' * (4 + len(columns))}|")
    for scan in arguments.scans:
        with tempfile.TemporaryDirectory() as folder:
            segment.segment_scans(network, [scan], folder, trained_on, path)
        seconds.clear()
        with tempfile.TemporaryDirectory() as folder:
            started, used = time.perf_counter(), time.process_time()
            table = segment.segment_scans(network, [scan], folder, trained_on, path)
            took, used = time.perf_counter() - started, time.process_time() - used
        assert table.status[0] == "done", table.reason[0]
        shares = [seconds[name] / took for name in PARTS]
        cells = [f"{share:.0%}" for share in (*shares, 1 - sum(shares))]
        if arguments.against:
            ours = seconds["two_looks"]
            cells.append(f"{seconds_in_torch(arguments.python, network, slices_seen(network, scan)) / ours:.2f}")
        shape = " x ".join(map(str, nibabel.load(scan).shape[:3]))
        print(f"| {Path(scan).name} | {shape} | {took:.1f} | {used / took:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
