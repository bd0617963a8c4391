"""A configuration file as plain settings, before anything is checked, and which configuration a study's folder belongs to.

Quick to import: notebooks look at their parameters with it before they load anything else.
"""

from pathlib import Path
from typing import Any

import yaml

from wmhlib.running.files import ROOT, PathLike, find, read_json, replacing, write_json


def read_settings(config: PathLike, above: tuple[Path, ...] = ()) -> tuple[Path, dict]:
    """Where a configuration is, and its settings; where it has a key `base`, merged over those of that file (next to it),
    which may have a base itself. `above` are the files that build on this one.

    Raises FileNotFoundError, OSError, ValueError: the file, or the one it builds on, is not there, cannot be read, holds no
    settings, or builds on itself.
    """
    path = find(config, "configuration to build on" if above else "configuration")
    if path in above:
        raise ValueError(f"{path} builds on itself by its key base: name another file there, or remove the key.")
    settings = read_yaml(path)
    path = Path(settings.pop("copy_of", path))
    if "base" in settings:
        _, below = read_settings(path.parent / str(settings.pop("base")), (*above, path))
        settings = merged(below, settings)
    return path, settings


def write_copy(config: PathLike, target: PathLike) -> None:
    """Write a configuration with what it builds on into one file, which reads as the original: a run keeps to its copy while
    the original is edited. Errors as in `read_settings`."""
    path, settings = read_settings(config)
    with replacing(target) as temporary:
        temporary.write_text(yaml.safe_dump({"copy_of": str(path)} | settings, sort_keys=False), encoding="utf-8")


def read_yaml(path: PathLike) -> dict:
    """The keys and values of a YAML file. Errors as in `read_settings`."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} cannot be read (it is a pipe or a device): name a YAML file that you may read.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror}): name a YAML file that you may read.") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # PyYAML raises them all
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())}): correct that line.") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}, not keys with values: see config/demo.yaml.")
    return settings


def merged(below: Any, above: Any) -> Any:
    """Settings over those below them: a dict key by key, anything else as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def claim(folder: PathLike, configuration: PathLike, data: PathLike) -> None:
    """Record in a study's folder (`made_from.json`) the configuration and the data folder that its results are made from.

    Raises ValueError: the folder holds trainings of another configuration or data folder that is still there: they would be
    replaced.
    """
    record = Path(folder) / "made_from.json"
    places = {"configuration": (ROOT / configuration).resolve(), "data": (ROOT / data).resolve()}
    now = {key: str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for key, path in places.items()}
    before = {key: str(value) for key, value in read_json(record).items()}
    if any(Path(folder).glob("models/*/seed-*/model.keras")):
        for key in now.keys() & before.keys():
            if before[key] != now[key] and (ROOT / before[key]).exists():
                remedy = f"give the study in {configuration} another name (its key `study`), or remove the folder"
                raise ValueError(f"{folder} holds trainings of {before[key]}, not of {now[key]}: {remedy}.")
    if before != now:
        write_json(record, now)
