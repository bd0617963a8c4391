"""A study: one configuration, one folder of data, one folder of results.

Input: a YAML file and, optionally, a data folder that replaces the one in the file. Output: checked settings
(`wmhlib.settings`), the recipe of every entry below `losses`, and the paths of the study's folder:

    reports/<study>/{index.html, NN_name.html, notebooks/, models/<loss>/seed-<k>/, masks/, tables/, run.json}
"""

import dataclasses
import itertools
from functools import cached_property
from pathlib import Path

from wmhlib.running.configuration import merged, read_settings
from wmhlib.running.files import ROOT, PathLike, find
from wmhlib.settings import Configuration, Recipe, checked
from wmhlib.slices import Preparation


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration and the paths derived from it."""

    name: str
    raw: dict
    config: Configuration
    recipes: dict[str, Recipe]
    path: Path
    data: Path
    also: tuple[Path, ...] = ()
    external: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        return ROOT / "reports" / self.name

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    @property
    def slices(self) -> Path:
        """The folder of preprocessed slices, one folder per preparation. It can be deleted and made again from the
        data."""
        return ROOT / "data" / "slices" / self.name

    @property
    def features(self) -> Path:
        """The folder of the feature networks shared by the trainings (`<network>.npz`) and their origins
        (`origins.json`)."""
        return self.folder / "models" / "features"

    def is_synthetic(self, flair: PathLike) -> bool:
        """Whether a scan of the cohort is synthetic."""
        return self.config.data.phantom is not None and Path(flair).resolve().is_relative_to(self.data.resolve())

    @property
    def kinds(self) -> dict[str, str]:
        """The loss of each entry below `losses`; variants have names of their own."""
        return {name: recipe.loss for name, recipe in self.recipes.items()}

    @property
    def losses(self) -> list[str]:
        """The entries that are a loss with settings of its own, without variants; all entries if there are only variants."""
        return [name for name, kind in self.kinds.items() if name == kind] or list(self.kinds)

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """(entry below `losses`, seed) of every training of the study."""
        return list(itertools.product(self.recipes, self.config.seeds))

    @property
    def has_game(self) -> bool:
        """Whether a loss of the study is the min-max game."""
        return "siamese_minmax" in self.kinds.values()

    @cached_property
    def pretrained_taps(self) -> dict[str, list[str]]:
        """All taps of each feature network that the study uses with pretrained weights."""
        taps: dict[str, list[str]] = {}
        for looks_at in (recipe.features for recipe in self.recipes.values()):
            if looks_at and looks_at["weights"] == "imagenet":
                known = taps.setdefault(looks_at["network"], [])
                known += [tap for tap in looks_at["taps"] if tap not in known]
        return taps

    @property
    def preparations(self) -> list[Preparation]:
        """The preparations of scans for the study's losses; the study's default comes first."""
        own = Preparation(self.config.preprocessing.view, self.config.preprocessing.intensity)
        return list(dict.fromkeys([own, *(recipe.preparation for recipe in self.recipes.values())]))

    def recipe(self, name: str) -> Recipe:
        """The recipe of an entry below `losses`; ValueError if there is no such entry."""
        if name not in self.recipes:
            raise ValueError(f"{self.path} has no loss {name!r}: choose from {', '.join(self.recipes)}.")
        return self.recipes[name]

    def model(self, loss: str, seed: int) -> Path:
        return self.folder / "models" / loss / f"seed-{seed}"

    def mask(self, loss: str, seed: int, subject: str) -> Path:
        return self.folder / "masks" / loss / f"seed-{seed}" / f"{subject}.nii.gz"

    def changed(self, **settings) -> "Study":
        """The study with changed settings, such as a loss of your own. Dicts are merged key by key.

            study.changed(losses={"focal": {"gamma": 3.0}}, augmentation={"flip_probability": 0.5})

        An entry below `losses` that is None is removed. Errors as in `open_study`.
        """
        return _study(merged(self.raw, settings), self.path)


def open_study(config: PathLike, data: PathLike = "") -> Study:
    """Read and check a configuration. With a key `base`, it is merged over that file in the same folder.

    Parameters
    ----------
    config
        A YAML file, relative to the working directory or to the project's folder.
    data
        A folder in the WMH Challenge's layout or BIDS that replaces everything under `data`; empty: use the
        configuration's. With a folder, no synthetic cohort is made.

    Raises
    ------
    FileNotFoundError
        The configuration or the data folder does not exist.
    OSError
        The configuration cannot be read.
    ValueError
        A key is unknown or missing, or a value has the wrong type or is invalid; the message names the key.
    """
    path, settings = read_settings(config)
    if str(data):
        settings["data"] = {"root": str(find(data, "data folder"))}
    return _study(settings, path)


def _study(settings: dict, path: Path) -> Study:
    """A study from settings, without entries below `losses` that are None."""
    if isinstance(settings.get("losses"), dict):
        settings = settings | {"losses": {name: own for name, own in settings["losses"].items() if own is not None}}
    config, recipes = checked(settings, path)
    [root], also, external = (
        tuple(ROOT / Path(folder).expanduser() for folder in folders)
        for folders in ([config.data.root], config.data.also, config.data.external)
    )
    return Study(config.study, settings, config, recipes, path, root, also, external)
