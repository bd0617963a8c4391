"""Read the records that the steps of a study save: trainings, step logs, origins of weights, ceilings."""

import json

import pandas as pd

from wmhlib.running.files import read_json, read_table
from wmhlib.study import Study


def trainings(study: Study) -> list[dict]:
    """`training.json` of every loss and seed, as `wmhlib.training.train` wrote it."""
    paths = [study.model(loss, seed) / "training.json" for loss, seed in study.trainings]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def subjects_seen(study: Study, loss: str, seed: int) -> list[str]:
    """The training and validation subjects of a finished training; empty for old trainings that did not record them."""
    return read_json(study.model(loss, seed) / "training.json").get("subjects_seen", [])


def seen_by_start(study: Study, loss: str, seed: int) -> tuple[list[str], str]:
    """The subjects that the network of `training.start` had seen, and its file; empty without one."""
    record = read_json(study.model(loss, seed) / "training.json")
    return record.get("seen_by_start", []), record.get("start", "")


def by_depth(study: Study) -> pd.DataFrame:
    """The grid search over dense blocks (paper 2.1), from a study with variants of `generator: depth`.

    Returns
    -------
    DataFrame
        Indexed by `dense blocks` of the encoder: the number of `trainings`, their mean `validation Dice`, the `lowest`
        and the `highest`. No rows if a training of the study is not finished.
    """
    if not all((study.model(loss, seed) / "training.json").is_file() for loss, seed in study.trainings):
        return pd.DataFrame()
    table = pd.DataFrame(trainings(study))
    blocks = table.recipe.map(lambda recipe: recipe["generator"]["depth"]).rename("dense blocks")
    columns = {"trainings": "size", "validation Dice": "mean", "lowest": "min", "highest": "max"}
    return table.groupby(blocks).validation_dice.agg(**columns)


def steps(study: Study, loss: str, seed: int) -> pd.DataFrame:
    """The step log of a training with a content loss (`wmhlib.minmax.StepLog`); FileNotFoundError if there is none."""
    path = study.model(loss, seed) / "steps.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"No step log found at {path}: run notebook 04_train with loss={loss} and seed={seed} first."
        )
    return pd.read_csv(path)


def origins(study: Study) -> dict[str, dict]:
    """The origin of the weights of each feature network, as written by notebook 3; FileNotFoundError if it was not run."""
    path = study.features / "origins.json"
    if not path.is_file():
        raise FileNotFoundError(f"No feature networks found at {path}: run notebook 03_build_networks first.")
    return json.loads(path.read_text(encoding="utf-8"))


def features_of(study: Study, loss: str) -> dict:
    """The feature network, taps and weights of a content loss (`random` if none were available); empty for other
    losses."""
    settings = dict(study.recipe(loss).features or {})
    if settings.get("weights") == "imagenet":
        settings["weights"] = origins(study)[settings["network"]]["weights"]
    return settings


def ceilings(study: Study) -> pd.DataFrame:
    """The Dice of each reference after resampling to the study's slices and back, as written by notebook 2."""
    return read_table(study.tables / "ceilings.csv")
