"""What the steps of a study left beside the models, read back: trainings, step logs, origins of weights, ceilings."""

import json

import pandas as pd

from wmhlib.running.files import read_table
from wmhlib.study import Study


def trainings(study: Study) -> list[dict]:
    """`training.json` of every loss and seed, as `wmhlib.training.train` wrote it."""
    paths = [study.model(loss, seed) / "training.json" for loss, seed in study.trainings]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def subjects_seen(study: Study, loss: str, seed: int) -> list[str]:
    """The training and validation subjects of a finished training; none where it was made before these were kept."""
    path = study.model(loss, seed) / "training.json"
    return json.loads(path.read_text(encoding="utf-8")).get("subjects_seen", []) if path.is_file() else []


def by_depth(study: Study) -> pd.DataFrame:
    """The grid search over dense blocks (paper 2.1), from a study with variants of `generator: depth`.

    Returns
    -------
    DataFrame
        By `dense blocks`, on the way down: `trainings`, their mean `validation Dice`, the `lowest` and the `highest`. No rows
        where a training of the study is not done.
    """
    if not all((study.model(loss, seed) / "training.json").is_file() for loss, seed in study.trainings):
        return pd.DataFrame()
    table = pd.DataFrame(trainings(study))
    blocks = table.recipe.map(lambda recipe: recipe["generator"]["depth"]).rename("dense blocks")
    columns = {"trainings": "size", "validation Dice": "mean", "lowest": "min", "highest": "max"}
    return table.groupby(blocks).validation_dice.agg(**columns)


def steps(study: Study, loss: str, seed: int) -> pd.DataFrame:
    """What happened step by step in a training whose loss looks at features (`wmhlib.minmax.StepLog`)."""
    path = study.model(loss, seed) / "steps.csv"
    if not path.is_file():
        raise FileNotFoundError(f"No step log at {path}: run notebook 04_train with loss={loss} and seed={seed} first.")
    return pd.read_csv(path)


def origins(study: Study) -> dict[str, dict]:
    """Where the weights of the study's feature networks came from, by network, as notebook 3 wrote it."""
    return json.loads((study.features / "origins.json").read_text(encoding="utf-8"))


def features_of(study: Study, loss: str) -> dict:
    """What feature network a loss looks at, its taps and its weights, which are random where none could be had; else empty."""
    settings = dict(study.recipe(loss).features or {})
    if settings.get("weights") == "imagenet":
        settings["weights"] = origins(study)[settings["network"]]["weights"]
    return settings


def ceilings(study: Study) -> pd.DataFrame:
    """The highest Dice that slices of the study's size allow, per subject, as notebook 2 wrote it."""
    return read_table(study.tables / "ceilings.csv")
