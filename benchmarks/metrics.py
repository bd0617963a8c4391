"""How long the challenge's figures take: per golden pair, and as volume and lesion count grow.

From the repository root, on one core and from arrays in memory:

    taskset -c 0 .venv/bin/python benchmarks/metrics.py path/to/golden

The folder holds `pairs/<name>/{wmh,result}.nii.gz`; without one, only synthetic masks are timed. Times
are wall time in ms. Other work on the machine lengthens the median; the minimum tells what the code needs.
"""

import argparse
import time
from pathlib import Path

import nibabel
import numpy as np

from wmhlib.metrics import challenge_metrics


def timed(reference: nibabel.Nifti1Image, result: nibabel.Nifti1Image, repeats: int) -> tuple[float, float]:
    """Median and minimum over the repeats, in ms, after one run to warm up."""
    challenge_metrics(reference, result)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        challenge_metrics(reference, result)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times)), min(times)


def in_memory(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    return nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)


def synthetic(shape: tuple[int, int, int], lesions: int, seed: int) -> tuple[nibabel.Nifti1Image, ...]:
    """A reference of small boxes at random places of the middle half; the result is it moved by a voxel."""
    random = np.random.default_rng(seed)
    reference = np.zeros(shape, np.float32, order="F")  # as nibabel reads a file
    for start in random.integers(np.array(shape) // 4, np.array(shape) * 3 // 4, size=(lesions, 3)):
        box = zip(start, start + random.integers(1, [7, 7, 4]), strict=True)
        reference[tuple(slice(first, last) for first, last in box)] = 1
    result = np.asfortranarray(np.roll(reference, 1, axis=0).astype(np.uint8))
    return tuple(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])) for values in (reference, result))


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("golden", type=Path, nargs="?", help="folder with pairs/<name>/{wmh,result}.nii.gz")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic masks")
    arguments = parser.parse_args()

    if arguments.golden:
        folders = sorted(path for path in (arguments.golden / "pairs").glob("*") if path.is_dir())
        if not folders:
            parser.error(f"no pairs in {arguments.golden / 'pairs'}")
        print(f"{'golden pair':24}{'shape':>18}{'median ms':>12}{'minimum ms':>12}")
        medians = []
        for folder in folders:
            reference, result = in_memory(folder / "wmh.nii.gz"), in_memory(folder / "result.nii.gz")
            median, least = timed(reference, result, arguments.repeats)
            medians.append(median)
            print(f"{folder.name:24}{'x'.join(map(str, reference.shape)):>18}{median:12.1f}{least:12.1f}")
        print(f"over pairs: median {np.median(medians):.1f} ms, largest {max(medians):.1f} ms\n")

    print(f"{'synthetic':24}{'shape':>18}{'median ms':>12}{'minimum ms':>12}")
    shapes = [(120, 120, 24), (240, 240, 24), (240, 240, 48), (240, 240, 96), (480, 480, 96)]
    cases = [(shape, 100) for shape in shapes]
    cases += [((240, 240, 48), lesions) for lesions in (1, 10, 100, 400, 1600)]
    for shape, lesions in cases:
        median, least = timed(*synthetic(shape, lesions, arguments.seed), arguments.repeats)
        print(f"{f'{lesions} boxes':24}{'x'.join(map(str, shape)):>18}{median:12.1f}{least:12.1f}")


if __name__ == "__main__":
    main()
