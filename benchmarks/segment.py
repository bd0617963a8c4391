"""Where the time goes when scans are segmented with the bundled network, as in notebook 07.

    .venv/bin/python benchmarks/segment.py SCAN [SCAN ...] [--against torch --python /path/to/python]
    .venv/bin/python benchmarks/segment.py SCAN [SCAN ...] --together

Input: NIfTI files. Output: a Markdown table with a row per scan: its voxels, seconds in all, cores in use, and the
share of each part. Every scan is segmented twice, and the second time counts (the first compiles). With `--against
torch`, the last column is the time that the same layers take in PyTorch (`torch_step.py`, no gradient) for as many
slices, over the network's own. With `--together`, the time of all scans, segmented by one process and by one per core, in
turn, is measured instead, each with its start.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel
from in_torch import InTorch
from joblib.externals.loky import get_reusable_executor

from wmhlib import inference
from wmhlib.apply import segment
from wmhlib.batches import cores
from wmhlib.study import open_study

PARTS = {
    "prepared": "reading and slicing",
    "structures_of": "skull and ventricles",
    "two_looks": "both looks, resampled",
    "lesions_of": "lesions",
    "quality_picture": "picture",
    "save_image": "writing",
}
"""The functions of `wmhlib.apply.segment` that are timed."""

BATCH = 8
"""Slices in a batch of `wmhlib.inference.predicted`."""


def timed(seconds: Counter, name: str, function):
    """The function, which adds its duration to `seconds`, and the slices that it predicted."""

    def call(*arguments, **keywords):
        started = time.perf_counter()
        result = function(*arguments, **keywords)
        seconds[name] += time.perf_counter() - started
        if name == "predicted":
            seconds["slices"] += int(result.any(axis=(1, 2)).sum())
        return result

    return call


def print_together(scans: list[str]) -> None:
    path, network, trained_on = segment.open_network()
    print("| processes | s for all scans | over one process |\n|---|---|---|")
    first = None
    for count in (1, cores(), 1, cores()):
        segment.cores = lambda count=count: count
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            segment.segment_scans(network, scans, folder, trained_on, path)
            took = time.perf_counter() - started
        get_reusable_executor().shutdown(kill_workers=True)
        first = first or took
        print(f"| {count} | {took:.1f} | {took / first:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--against", choices=["torch"])
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch, for --against")
    arguments = parser.parse_args()
    if arguments.together:
        return print_together(arguments.scans)
    path, network, trained_on = segment.open_network()
    seconds: Counter = Counter()
    for name in PARTS:
        setattr(segment, name, timed(seconds, name, getattr(segment, name)))
    inference.predicted = timed(seconds, "predicted", inference.predicted)  # those of the structures are not counted
    torch = None
    if arguments.against:
        [recipe] = open_study("config/transfer.yaml").recipes.values()
        torch = InTorch(arguments.python, recipe.generator, network.input_shape[1], BATCH, forward=True)
        assert torch.weights == network.count_params(), "the bundled network has other layers than config/transfer.yaml"
    columns = [*PARTS.values(), "other", "network alone"] + ["PyTorch over ours"] * bool(torch)
    print(f"| scan | voxels | s | cores in use | {' | '.join(columns)} |\n{'|---' * (4 + len(columns))}|")
    for scan in arguments.scans:
        for _ in range(2):
            seconds.clear()
            with tempfile.TemporaryDirectory() as folder:
                started, used = time.perf_counter(), time.process_time()
                table = segment.segment_scans(network, [scan], folder, trained_on, path)
                took, used = time.perf_counter() - started, time.process_time() - used
        assert table.status[0] == "done", table.reason[0]
        shares = [seconds[name] / took for name in PARTS]
        cells = [f"{share:.0%}" for share in (*shares, 1 - sum(shares), seconds["predicted"] / took)]
        if torch:
            torch.step()
            batches, started = -(-seconds["slices"] // BATCH), time.perf_counter()
            for _ in range(batches):
                torch.step()
            cells.append(f"{(time.perf_counter() - started) / seconds['predicted']:.2f}")
        shape = " x ".join(map(str, nibabel.load(scan).shape[:3]))
        print(f"| {Path(scan).name} | {shape} | {took:.1f} | {used / took:.1f} | {' | '.join(cells)} |", flush=True)
    if torch:
        torch.close()


if __name__ == "__main__":
    main()
