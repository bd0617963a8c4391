"""Make the bundled networks of the structures (`wmhlib.apply.structures`) from synthetic heads, and measure them.

    python -m wmhlib.apply.train_structures config/structures.yaml

For each structure it writes `<structure>.keras` beside the bundled network, and for all of them `structures.csv` with
one row per holdout head. Another run continues where an interrupted one stopped.
"""

import argparse
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.apply import structures
from wmhlib.apply.lesions import REGIONS, lesions_of
from wmhlib.cohort import load_cohort
from wmhlib.inference import BUNDLED
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.intake.nifti import read_scan
from wmhlib.metrics import METRICS, MaskPair, voxel_mm3
from wmhlib.running.files import PathLike, replacing, write_table
from wmhlib.slices import write_slices
from wmhlib.study import Study, open_study
from wmhlib.training import train


def mask_of_structure(reference: PathLike, structure: str) -> Path:
    """The file of a structure's mask beside the reference of a synthetic head."""
    return Path(reference).with_name(f"{structure}.nii.gz")


def train_structure(study: Study, structure: str, cohort: pd.DataFrame) -> Path:
    """Train the study's only loss and seed towards a structure, without notebooks; returns the network's file."""
    own = study.changed(study=f"{study.name}-{structure}")
    heads = cohort[cohort.split == "training"]
    heads = heads.assign(reference=[mask_of_structure(path, structure) for path in heads.reference])
    [preparation], [(loss, seed)] = own.preparations, own.trainings
    write_slices(heads, own.slices / preparation.name, own.config.preprocessing.size_px, preparation)
    train(own, loss, seed)
    return own.model(loss, seed) / "model.keras"


def measure_head(head) -> dict:
    """What the bundled networks find in a synthetic head, a row of a cohort table: per structure the Dice, the true volume
    and that found in ml; and of the true lesions of each region, how many have it with the ventricles that were found."""
    found, row, true = structures.structures_of(head.flair), {"subject": head.subject}, {}
    for structure in STRUCTURES:
        reference = read_scan(mask_of_structure(head.reference, structure))
        true[structure] = np.asarray(reference.dataobj) > 0
        mask = nibabel.Nifti1Image(getattr(found, structure).astype(np.uint8), reference.affine)
        voxel_ml = voxel_mm3(reference.affine) / 1000
        row[f"{structure}_dice"] = METRICS["dice"].of(MaskPair(reference, mask))
        row[f"{structure}_true_ml"] = voxel_ml * true[structure].sum()
        row[f"{structure}_found_ml"] = voxel_ml * np.asarray(mask.dataobj).sum()
    labels = read_scan(head.reference)
    lesions = nibabel.Nifti1Image((np.asarray(labels.dataobj) == 1).astype(np.float32), labels.affine)
    regions, again = (
        lesions_of(lesions, 0.5, ventricles=where)[1].region for where in (true["ventricles"], found.ventricles)
    )
    for region in REGIONS:
        row[region] = int((regions == region).sum())
        row[f"{region}_again"] = int(((regions == region) & (again == region)).sum())
    return row


def make(study: Study) -> pd.DataFrame:
    """Train and measure the networks of all structures and write them beside the bundled network; returns the table."""
    cohort = load_cohort(study)
    for structure in STRUCTURES:
        trained = train_structure(study, structure, cohort)
        with replacing(structures.file_of(structure)) as temporary:
            shutil.copyfile(trained, temporary)
    heads = cohort[cohort.split == "holdout"]
    rows = [measure_head(head) for head in tqdm(heads.itertuples(), "holdout heads", len(heads), unit="head")]
    table = pd.DataFrame(rows).round(3)
    write_table(BUNDLED.with_name("structures.csv"), table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m wmhlib.apply.train_structures", description=make.__doc__)
    parser.add_argument("config")
    print(make(open_study(parser.parse_args().config)).describe().T.to_string())
