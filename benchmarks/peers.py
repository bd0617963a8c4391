"""What you would otherwise use: other networks, trained on the same scans for the same time on the same cores.

Every network starts from random weights. All but nnU-Net get the same augmented batches, as many steps as fit in the time, and a
learning rate that decays to 0 along a half cosine; then all segment the study's unseen scans on the scans' grids and are scored
with the same metrics. MONAI's BasicUNet and DiceCELoss keep their defaults. nnU-Net gets the same training scans as files, with
preparation, batches and schedule of its own (`in_nnunet.py`). Run one network at a time, on a machine that does nothing else:

    .venv/bin/pip install torch monai
    .venv/bin/python benchmarks/peers.py config/transfer.yaml --minutes 15 --networks plain_unet dense_unet --out peers.csv
    KERAS_BACKEND=jax .venv/bin/python benchmarks/peers.py config/transfer.yaml --minutes 15 --networks monai --out peers.csv
    .venv/bin/python benchmarks/peers.py config/transfer.yaml --minutes 15 --networks nnunet --python PYTHON --out peers.csv

MONAI runs in a process of its own, without TensorFlow, since PyTorch and TensorFlow in one process crashed. PYTHON is a Python
of an environment with nnunetv2.

Input: a study of which notebooks 01 and 02 are finished. Output: a Markdown table of mean Dice per centre, and with `--out` a
CSV with a row per network, duration and scan.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
from tqdm import tqdm

from wmhlib.batches import ReadAhead, TrainingBatches, chosen_augmentations
from wmhlib.cohort import load_cohort
from wmhlib.inference import mask_of, probability
from wmhlib.intake.masks import in_memory
from wmhlib.intake.scans import read_flair, read_pair
from wmhlib.learner import precision
from wmhlib.metrics import MaskPair, measured
from wmhlib.settings import Recipe
from wmhlib.slices import open_slices
from wmhlib.study import Study, open_study
from wmhlib.training import choose_slices, make_features, make_learner

WARM_UP, TIMED = 5, 15
"""Steps before the training that are not timed, and those that are."""


class Ours:
    """A network of `wmhlib.generator`, trained as a study trains it."""

    def __init__(self, study: Study, loss: str, network: str, steps: int):
        schedule = {"epochs": 1, "steps_per_epoch": steps, "start": None}  # random weights, as the others
        changed = study.changed(generator={"network": network}, training=schedule)
        recipe = changed.recipe(loss)
        learner = make_learner(recipe, study.config.preprocessing.size_px, 1, make_features(study, recipe))
        self.step, self.model, self.weights = learner.step, learner.generator, learner.generator.count_params()


class Monai:
    """MONAI's BasicUNet with its Dice and cross-entropy loss, with the parts of a Keras model that `probability` uses."""

    def __init__(self, recipe: Recipe, size: int, steps: int):
        import torch
        from monai.losses import DiceCELoss
        from monai.networks.nets import BasicUNet

        torch.manual_seed(1)
        self.torch = torch
        self.network = BasicUNet(spatial_dims=2, in_channels=3, out_channels=1).to(memory_format=torch.channels_last)
        self.loss = DiceCELoss(sigmoid=True)
        self.optimizer = torch.optim.Adam(self.network.parameters(), recipe.training.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.model, self.weights = self, sum(part.numel() for part in self.network.parameters())
        self.inputs, self.input_shape = [keras.Input((size, size, 3), name=recipe.preparation.name)], (None, size, size)

    def _tensor(self, values: np.ndarray):
        return self.torch.from_numpy(np.moveaxis(values, -1, 1)).contiguous(memory_format=self.torch.channels_last)

    def step(self, image: np.ndarray, reference: np.ndarray) -> None:
        """One training step on a batch."""
        self.network.train()
        self.optimizer.zero_grad()
        self.loss(self.network(self._tensor(image) / 128), self._tensor(reference)).backward()  # to about -1 to 1
        self.optimizer.step()
        self.schedule.step()

    def predict_on_batch(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (batch, size, size, 1)."""
        self.network.eval()
        with self.torch.no_grad():
            return np.moveaxis(self.torch.sigmoid(self.network(self._tensor(image) / 128)).numpy(), 1, -1)


def trained(make: Callable, batches: TrainingBatches, minutes: float, name: str):
    """A network after as many steps as fit in the time; `make` builds it for a number of steps. Also steps and minutes."""
    probe, seconds = make(WARM_UP + TIMED), []
    with ReadAhead(batches) as ahead:
        for number in range(WARM_UP + TIMED):
            started = time.perf_counter()
            probe.step(*ahead[number])
            seconds.append(time.perf_counter() - started)
        steps = max(1, round(60 * minutes / statistics.median(seconds[WARM_UP:])))
        network, started = make(steps), time.perf_counter()
        for number in tqdm(range(steps), name, unit="step"):
            network.step(*ahead[number])
    return network, steps, (time.perf_counter() - started) / 60


def by_nnunet(python: str, subjects: pd.DataFrame, unseen: pd.DataFrame, minutes: float, folder: Path) -> dict:
    """Train nnU-Net on the subjects and segment the unseen scans; `folder/masks` gets a mask per subject.

    Returns its number of `weights`, `steps`, slices per step (`batch`) and `minutes`.
    """
    data = folder / "raw" / "Dataset001_WMH"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (data / part).mkdir(parents=True)
    for row in subjects.itertuples():
        flair, reference = read_pair(row.flair, row.reference)
        nibabel.save(flair, data / "imagesTr" / f"{row.subject}_0000.nii.gz")
        nibabel.save(reference, data / "labelsTr" / f"{row.subject}.nii.gz")
    for row in unseen.itertuples():
        nibabel.save(read_flair(row.flair), data / "imagesTs" / f"{row.subject}_0000.nii.gz")
    about = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "WMH": 1}, "file_ending": ".nii.gz"}
    about |= {"numTraining": len(subjects), "overwrite_image_reader_writer": "NibabelIOWithReorient"}
    (data / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    command = [python, str(Path(__file__).with_name("in_nnunet.py")), str(folder), str(minutes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit("nnU-Net failed, see above.")
    return json.loads(line)


def scored(predict: Callable, unseen: pd.DataFrame) -> pd.DataFrame:
    """The metrics of each unseen scan; `predict` gives the mask of a row."""
    rows = []
    for row in tqdm(unseen.itertuples(), "segment", len(unseen), unit="scan"):
        result = in_memory(predict(row))
        rows.append(
            {"centre": row.centre, "subject": row.subject, **measured(MaskPair(in_memory(row.reference), result))}
        )
    return pd.DataFrame(rows)


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("config", nargs="?", default="config/transfer.yaml")
    parser.add_argument("--minutes", type=float, nargs="+", default=[15], help="of training, each its own training")
    names = ["plain_unet", "dense_unet", "monai", "nnunet"]
    parser.add_argument("--networks", nargs="+", choices=names, required=True)
    parser.add_argument("--out", type=Path, help="a CSV file, to which rows are added")
    parser.add_argument("--python", default=sys.executable, help="a Python that has nnunetv2, for nnunet")
    arguments = parser.parse_args()
    if "nnunet" in arguments.networks and subprocess.run([arguments.python, "-c", "import nnunetv2"]).returncode:
        parser.error(f"{arguments.python} has no nnunetv2: give a --python that has.")

    study = open_study(arguments.config)
    [loss, *_] = study.recipes
    recipe, subjects = study.recipe(loss), load_cohort(study)
    images, references, index = open_slices(study.slices / recipe.preparation.name)
    rows, _ = choose_slices(index, recipe, loss)
    chosen = chosen_augmentations(recipe.augmentation)
    batches = TrainingBatches(images, references, rows, recipe.labels, recipe.training.batch_size, chosen, seed=1)
    makers = {name: lambda steps, name=name: Ours(study, loss, name, steps) for name in names[:2]}
    makers["monai"] = lambda steps: Monai(recipe, study.config.preprocessing.size_px, steps)
    unseen, tables = subjects[subjects.split == "external"], []
    with precision(recipe.training.precision) as policy:
        for name in arguments.networks:
            for wanted in arguments.minutes:
                if name == "nnunet":
                    training = subjects[subjects.split == "training"]
                    with tempfile.TemporaryDirectory() as folder:
                        made_with = by_nnunet(arguments.python, training, unseen, wanted, Path(folder))
                        table = scored(lambda row: nibabel.load(f"{folder}/masks/{row.subject}.nii.gz"), unseen)
                else:
                    network, steps, took = trained(makers[name], batches, wanted, f"{name}, {wanted:g} minutes")
                    made_with = {"weights": network.weights, "steps": steps, "batch": recipe.training.batch_size}
                    made_with["minutes"] = round(took, 1)
                    table = scored(lambda row, model=network.model: mask_of(probability(model, row.flair)), unseen)
                tables.append(table.assign(network=name, **made_with))
                if arguments.out:
                    tables[-1].to_csv(arguments.out, mode="a", header=not arguments.out.exists(), index=False)
    table = pd.concat(tables)
    keys = ["network", "weights", "steps", "batch", "minutes"]
    dice = table.pivot_table("dice", keys, "centre", sort=False).assign(mean=lambda rows: rows.mean(axis=1))
    print(f"\nMean Dice per centre; our networks in {policy}, others in float32\n")
    print(dice.reset_index().to_markdown(index=False, floatfmt=".2f", intfmt=","))


if __name__ == "__main__":
    main()
