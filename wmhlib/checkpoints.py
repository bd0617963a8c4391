"""What a training writes after every epoch, how one that was cut off goes on, and how one that is done is known again.

In flow the running `fit`; out flow `started.json` (what the training follows from), `model.keras` (the best epoch so far),
`history.csv`, `diary.csv` and, until the training is done, `epoch-<n>-<player>.weights.h5`. Each is whole or not there;
`history.csv` is written last and says which epoch counts.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import keras
import pandas as pd
from tqdm import tqdm

from wmhlib.batches import PlainBatches, ReadAhead
from wmhlib.study import replacing, write_json
from wmhlib.trainers import Measurement, pooled_dice


class KeepBest(keras.callbacks.Callback):
    """Validates after every epoch, saves the generator whenever it beats every epoch before, and what it takes to go on.

    `measuring` are the batches whose first `measured` set batch norm's statistics, `validation` those of the validation
    figures; where there are none, every epoch is saved over the one before. `watch`, if given, is called with the history
    so far. `players` are the models of which weights and optimizer go into the checkpoint, by name.
    """

    def __init__(
        self,
        folder: Path,
        players: dict[str, keras.Model],
        history: list[dict],
        diary: list[dict],
        measuring: ReadAhead,
        measured: int,
        validation: PlainBatches,
        watch: Callable | None = None,
    ):
        super().__init__()
        self.folder, self.players, self.history, self.diary, self.watch = folder, players, history, diary, watch
        self.measuring, self.measured, self.validation = measuring, measured, validation
        self.measurement = Measurement(players["generator"].generator)
        self.best = max((row["validation_dice"] for row in history if row["kept"]), default=-1.0)

    def on_train_begin(self, logs=None):
        before = self.history[-1]["seconds"] if self.history else 0
        self.started = time.monotonic() - before
        name = f"{self.folder.parent.name} {self.folder.name}"
        self.bar = tqdm(total=self.params["epochs"], initial=len(self.history), unit="epoch", desc=name)

    def on_epoch_end(self, epoch, logs=None):
        self.measurement.over(self.measuring[number] for number in range(self.measured))
        checked = pooled_dice(self.model, self.validation) if len(self.validation) else math.nan
        row = {"epoch": epoch + 1, "loss": logs["loss"], "dice": logs["dice"], "validation_dice": checked}
        kept = not len(self.validation) or row["validation_dice"] > self.best
        if kept:
            self.best = row["validation_dice"]
            with replacing(self.folder / "model.keras") as temporary:
                self.model.generator.save(temporary)
        self.history.append(row | {"kept": kept, "seconds": round(time.monotonic() - self.started, 1)})
        self._write(epoch + 1)
        if self.watch:
            self.watch(pd.DataFrame(self.history))
        self.bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "validation_dice")}, refresh=False)
        self.bar.update()

    def _write(self, epoch: int) -> None:
        """The checkpoint of an epoch; `history.csv` comes last and says which epoch is whole."""
        for name, player in self.players.items():
            with replacing(checkpoint(self.folder, epoch, name)) as temporary:
                player.save_weights(temporary, overwrite=True)
        for name, rows in (("diary", self.diary), ("history", self.history)):
            if rows:
                with replacing(self.folder / f"{name}.csv") as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
        for name in self.players:
            checkpoint(self.folder, epoch - 1, name).unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        self.bar.close()


def checkpoint(folder: Path, epoch: int, player: str) -> Path:
    """Where a training keeps the weights and the optimizer of one player after an epoch, until it is done."""
    return folder / f"epoch-{epoch}-{player}.weights.h5"


def finish(folder: Path) -> None:
    """Remove what a training needs to go on: called when all that follows from it is written."""
    for left in folder.glob("epoch-*.weights.h5"):
        left.unlink()


def begun(folder: Path, follows_from: dict, made_with: dict) -> tuple[list[dict], list[dict], dict]:
    """History and diary of a training that follows from just this, cut off or done, and what it was made with.

    Where there is none, or a file of it is gone, the folder is cleaned and a training begun: two empty lists, and `made_with`.
    """
    started, logs = folder / "started.json", ["history", *(["diary"] if "taps" in follows_from["loss"] else [])]
    for left in folder.glob(".unfinished-*"):  # of a process that was killed while it wrote
        left.unlink()
    if started.is_file():
        before = json.loads(started.read_text(encoding="utf-8"))
        same = before.get("follows_from") == json.loads(json.dumps(follows_from))
        if same and all((folder / name).is_file() for name in ("model.keras", *(f"{log}.csv" for log in logs))):
            rows = {log: pd.read_csv(folder / f"{log}.csv").to_dict("records") for log in logs}
            steps = len(rows["history"]) * follows_from["training"]["steps_per_epoch"]
            return rows["history"], rows.get("diary", [])[:steps], before["made_with"]
    shutil.rmtree(folder, ignore_errors=True)
    write_json(started, {"follows_from": follows_from, "made_with": made_with})
    return [], [], made_with
