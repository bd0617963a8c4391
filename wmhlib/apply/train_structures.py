"""Make the bundled networks of the structures (`wmhlib.apply.structures`) from synthetic heads, and measure them.

    python -m wmhlib.apply.train_structures config/structures.yaml

For each structure it writes `<structure>.keras` beside the bundled network, and for all of them `structures.csv`: one row
per structure and holdout head. Another run continues where an interrupted one stopped.
"""

import argparse
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.apply import structures
from wmhlib.apply.lesions import lesions_of
from wmhlib.cohort import load_cohort
from wmhlib.inference import BUNDLED
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.intake.phantom import subject
from wmhlib.metrics import METRICS, MaskPair, voxel_mm3
from wmhlib.running.files import ROOT, PathLike, replacing, write_table
from wmhlib.slices import write_slices
from wmhlib.study import Study, open_study
from wmhlib.training import train


def study_of(study: Study, structure: str) -> Study:
    """The study with a cohort whose references mark a structure."""
    root = str(Path(study.config.data.root) / structure)
    return study.changed(study=f"{study.name}-{structure}", data={"root": root, "phantom": {"structure": structure}})


def train_structure(study: Study) -> Path:
    """Train the only loss and seed of a study without notebooks; returns the network's file."""
    cohort, [preparation], [(loss, seed)] = load_cohort(study), study.preparations, study.trainings
    training = cohort[cohort.split == "training"]
    write_slices(training, study.slices / preparation.name, study.config.preprocessing.size_px, preparation)
    train(study, loss, seed)
    return study.model(loss, seed) / "model.keras"


def measured(study: Study, cohorts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Dice and volumes of the structures in the holdout heads, and of their true lesions how many have the region
    that the true ventricles give."""
    rows = []
    phantom, label_maps = study.config.data.phantom, ROOT / str(study.config.data.phantom.label_maps)
    holdout = cohorts["ventricles"].query("split == 'holdout'")
    for head in tqdm(holdout.itertuples(), "holdout heads", len(holdout), unit="head"):
        found = structures.structures_of(head.flair)
        images = {}
        for structure in STRUCTURES:
            table = cohorts[structure].set_index("subject")
            images[structure] = nibabel.load(table.reference[head.subject])
            mask = getattr(found, structure).astype(np.uint8)
            pair = MaskPair(images[structure], nibabel.Nifti1Image(mask, images[structure].affine))
            ml = voxel_mm3(images[structure].affine) / 1000
            row = {"subject": head.subject, "structure": structure, "dice": METRICS["dice"].of(pair)}
            row |= {"true_ml": ml * np.asarray(images[structure].dataobj).sum(), "found_ml": ml * mask.sum()}
            rows.append(row)
        number = int(head.subject) - 1000
        _, wmh = subject(phantom.seed, "random", number, phantom.scale, label_maps)
        lesions = nibabel.Nifti1Image((np.asarray(wmh.dataobj) == 1).astype(np.float32), wmh.affine)
        true, seen = (
            lesions_of(lesions, 0.5, 0, ventricles)[1].region
            for ventricles in (np.asarray(images["ventricles"].dataobj) > 0, found.ventricles)
        )
        rows[-1] |= {"lesions": len(true), "same_region": int((true == seen).sum())}
    return pd.DataFrame(rows)


def write(study: Study, folder: PathLike = BUNDLED.parent) -> pd.DataFrame:
    """Train and measure the networks of all structures and write them to a folder; returns the table."""
    cohorts = {}
    for structure in STRUCTURES:
        own = study_of(study, structure)
        with replacing(structures.file_of(structure)) as temporary:
            shutil.copyfile(train_structure(own), temporary)
        cohorts[structure] = load_cohort(own)
    table = measured(study, cohorts).round(3)
    write_table(Path(folder) / "structures.csv", table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m wmhlib.apply.train_structures", description=write.__doc__)
    parser.add_argument("config")
    result = write(open_study(parser.parse_args().config))
    print(result.groupby("structure")[["dice", "true_ml", "found_ml"]].describe().T.to_string())
