"""What keeps the bundled network's masks from their references: lesions missed, false positives, or borders.

    .venv/bin/python benchmarks/limits.py data/real [--masks FOLDER]

Input: a folder of scans with references, in the challenge's layout or BIDS. It is segmented as in notebook 07. Output:
a Markdown table of mean Dice per centre, as it is and with one kind of mistake taken away: each scan's best threshold instead of
the network's; no false positives (components that touch no lesion); no lesion missed (those without a voxel in common are
added); neither; and exact borders of the lesions that were detected. With `--masks`, the masks `FOLDER/<centre>/<subject>.nii.gz`
are measured instead of the network's, such as those of a second rater: what people reach.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.apply.model_card import CUTS, looks_inside
from wmhlib.apply.segment import open_network
from wmhlib.cohort import read_folder
from wmhlib.intake.masks import read_pair_of_masks
from wmhlib.report.pictures import untouched


def dice(lesion: np.ndarray, mask: np.ndarray) -> float:
    return 2 * (lesion & mask).sum() / (lesion.sum() + mask.sum())


def without_mistakes(reference, likely, threshold: float) -> dict[str, float]:
    """Dice of a scan's mask, and without each kind of mistake."""
    lesion, values, *_ = read_pair_of_masks(reference, likely, foreground=CUTS[0])
    mask = values >= threshold
    missed, false = untouched(lesion, mask), untouched(mask, lesion)
    return {
        "as it is": dice(lesion, mask),
        "own threshold": max(dice(lesion, values >= cut) for cut in CUTS),
        "no false positives": dice(lesion, mask & ~false),
        "no lesion missed": dice(lesion, mask | missed),
        "neither": dice(lesion, mask & ~false | missed),
        "exact borders": dice(lesion, lesion & ~missed | false),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="data/real")
    parser.add_argument("--masks", type=Path, help="a folder of masks to measure instead of the network's")
    arguments = parser.parse_args()
    if arguments.masks is None:
        _, network, trained_on = open_network()
    rows = []
    for row in tqdm(read_folder(arguments.folder).itertuples(), "scans", unit="scan"):
        if arguments.masks is None:
            found = without_mistakes(row.reference, looks_inside(network, row.flair)[0], trained_on["threshold"])
        elif (path := arguments.masks / row.centre / f"{row.subject}.nii.gz").is_file():
            found = without_mistakes(row.reference, path, 0.5)
        else:
            continue
        rows.append({"centre": row.centre} | found)
    centres = pd.DataFrame(rows).groupby("centre", sort=False).mean()
    centres.loc["mean of the centres"] = centres.mean()
    print(centres.to_markdown(floatfmt=".2f"))


if __name__ == "__main__":
    main()
