"""nnU-Net's 2D network by its own planner, trained for a stated time. `peers.py` runs this in a Python that has nnunetv2.

    python in_nnunet.py FOLDER MINUTES

Input: `FOLDER/raw/Dataset001_WMH` in nnU-Net's format, with the scans to segment in `imagesTs`. Output: their masks in
`FOLDER/masks`, and on the last line of standard output the number of weights, steps, slices per step and minutes as JSON.

Preprocessing, network, loss, optimiser, augmentation and sliding window are nnU-Net's. Three things are not: the planner may use
1 GB instead of 8, since its batches of about fifty slices would leave two cores some dozens of steps; the learning rate decays by
the share of the time that has passed; and masks are of one look, without mirroring, like those of the other networks.
"""

import json
import os
import sys
import time
from pathlib import Path

folder, minutes = Path(sys.argv[1]), float(sys.argv[2])
os.environ |= {f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")}
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2"}

import torch  # noqa: E402
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.run.run_training import get_trainer_from_args  # noqa: E402

MEMORY_GB = 1


def main() -> None:
    planning.extract_fingerprints([1], num_processes=2)
    planning.plan_experiments([1], gpu_memory_target_in_gb=MEMORY_GB)
    planning.preprocess([1], configurations=["2d"], num_processes=[2])
    torch.manual_seed(1)
    trainer = get_trainer_from_args("1", "2d", "all", device=torch.device("cpu"))
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.network.train()
    steps, started = 0, time.perf_counter()
    while (passed := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - passed) ** 0.9
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        steps += 1
        if steps % 10 == 0:
            print(f"step {steps}, {passed:.0%} of the time, loss {loss:.3f}", flush=True)
    took = (time.perf_counter() - started) / 60
    trainer.on_train_end()
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
    managers = trainer.plans_manager, trainer.configuration_manager
    weights = trainer.network.state_dict()
    predictor.manual_initialization(trainer.network, *managers, [weights], trainer.dataset_json, "nnUNetTrainer", None)
    (folder / "masks").mkdir()
    predictor.predict_from_files_sequential(str(folder / "raw/Dataset001_WMH/imagesTs"), str(folder / "masks"))
    count = sum(part.numel() for part in trainer.network.parameters())
    print(json.dumps({"weights": count, "steps": steps, "batch": trainer.batch_size, "minutes": round(took, 1)}))


if __name__ == "__main__":
    main()
