"""Files of a training: how it is saved after epochs, how an interrupted run resumes and a finished one is recognised.

Output in the folder of a training: `started.json` (everything that determines the training), `model.keras` (the best
epoch so far), `history.csv`, `steps.csv` and, until the training is finished, `epoch-<n>.npz` (the state of all
networks and optimizers). Files are complete or missing, never partial. `history.csv` is written last and defines the
last complete epoch.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops

from wmhlib.running.files import PathLike, replacing, write_json, write_table


class Checkpoints:
    """The files of one training; see the module's docstring."""

    def __init__(self, folder: PathLike):
        self.folder = Path(folder)
        self.history: list[dict] = []
        self.steps: list[dict] = []
        self.best: list[np.ndarray] | None = None  # the weights of the best epoch if they are not written yet

    @property
    def epochs(self) -> int:
        """The number of complete epochs."""
        return len(self.history)

    def begin(self, follows_from: dict, made_with: dict, logs_steps: bool) -> dict:
        """Resume the training in this folder if `follows_from` is equal to that recorded; otherwise clear the folder.

        Returns `made_with` as recorded when the training began.
        """
        started, logs = self.folder / "started.json", ["history", *(["steps"] if logs_steps else [])]
        for leftover in self.folder.glob(".unfinished-*"):  # from a process killed while writing
            leftover.unlink()
        if started.is_file():
            before = json.loads(started.read_text(encoding="utf-8"))
            same = before.get("follows_from") == json.loads(json.dumps(follows_from))
            if same and all(
                (self.folder / name).is_file() for name in ("model.keras", *(f"{log}.csv" for log in logs))
            ):
                rows = {log: pd.read_csv(self.folder / f"{log}.csv").to_dict("records") for log in logs}
                self.history = rows["history"]
                self.steps = rows.get("steps", [])[: self.epochs * follows_from["training"]["steps_per_epoch"]]
                return before["made_with"]
        shutil.rmtree(self.folder, ignore_errors=True)
        write_json(started, {"follows_from": follows_from, "made_with": made_with})
        return made_with

    def state(self, epoch: int) -> Path:
        """The file with the state of all networks and optimizers after an epoch."""
        return self.folder / f"epoch-{epoch}.npz"

    def restore(self, variables: list) -> None:
        """Set variables to their values after the last complete epoch.

        Raises
        ------
        FileNotFoundError
            The state of that epoch is missing.
        """
        path = self.state(self.epochs)
        if not path.is_file():
            raise FileNotFoundError(
                f"The checkpoint {path} is missing, although history.csv has epoch {self.epochs}: restore it, or "
                "delete the folder to start over."
            )
        with np.load(path, allow_pickle=False) as arrays:
            for number, variable in enumerate(variables):
                variable.assign(arrays[str(number)])

    def add(self, row: dict, generator: keras.Model) -> None:
        """Add an epoch and, if `row` marks it as the best so far, remember the generator's weights."""
        self.history.append(row)
        if row["kept"]:
            self.best = generator.get_weights()

    def save(self, generator: keras.Model, variables: list) -> None:
        """Write the generator of the best epoch, the state and the logs."""
        if self.best is not None:
            current = generator.get_weights()
            generator.set_weights(self.best)
            with replacing(self.folder / "model.keras") as temporary:
                generator.save(temporary)
            generator.set_weights(current)
            self.best = None
        with replacing(self.state(self.epochs)) as temporary:
            np.savez(temporary, **{str(n): ops.convert_to_numpy(value) for n, value in enumerate(variables)})
        if self.steps:
            write_table(self.folder / "steps.csv", pd.DataFrame(self.steps))
        write_table(self.folder / "history.csv", pd.DataFrame(self.history))
        for earlier in set(self.folder.glob("epoch-*.npz")) - {self.state(self.epochs)}:
            earlier.unlink()


def finish(folder: PathLike) -> None:
    """Remove the state needed to resume; called when all results of a training are written."""
    for leftover in Path(folder).glob("epoch-*.npz"):
        leftover.unlink()
