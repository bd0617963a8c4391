"""Read a configuration file as plain, unchecked settings, and record which configuration a study's folder belongs to.

It is quick to import, so notebooks use it to check their parameters before they load anything else.
"""

from pathlib import Path
from typing import Any

import yaml

from wmhlib.running.files import ROOT, PathLike, find, read_json, replacing, write_json


def read_settings(config: PathLike) -> tuple[Path, dict]:
    """The path of a configuration and its settings. With a key `base`, they are merged over those of that file next to
    it, which may have a base itself.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        The file or its base does not exist, cannot be read, has no settings, or builds on itself.
    """
    return _read_over(find(config, "configuration"), ())


def _read_over(path: Path, above: tuple[Path, ...]) -> tuple[Path, dict]:
    """As `read_settings`, for a file that the files `above` build on."""
    if path in above:
        raise ValueError(f"{path} builds on itself by its key base: name another file there, or remove the key.")
    settings = read_yaml(path)
    path = Path(settings.pop("copy_of", path))
    if "base" in settings:
        base = find(path.parent / str(settings.pop("base")), "base configuration")
        settings = merged(_read_over(base, (*above, path))[1], settings)
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
        raise OSError(f"{path} cannot be read (it is not a regular file): give a readable YAML file.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror}): give a readable YAML file.") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # all raised by PyYAML
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())}): correct this line.") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} contains {type(settings).__name__}, expected keys with values: see config/demo.yaml.")
    return settings


def merged(below: Any, above: Any) -> Any:
    """`above` merged over `below`: dicts key by key, anything else as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def claim(folder: PathLike, configuration: PathLike, data: PathLike) -> None:
    """Record the configuration and data folder of a study's results in its folder (`made_from.json`).

    Raises
    ------
    ValueError
        The folder has trainings of another configuration or data folder, which still exists, and they would be
        replaced.
    """
    record = Path(folder) / "made_from.json"
    places = {"configuration": (ROOT / configuration).resolve(), "data": (ROOT / data).resolve()}
    now = {key: str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for key, path in places.items()}
    before = {key: str(value) for key, value in read_json(record).items()}
    if any(Path(folder).glob("models/*/seed-*/model.keras")):
        for key in now.keys() & before.keys():
            if before[key] != now[key] and (ROOT / before[key]).exists():
                remedy = f"change the name of the study (key `study`) in {configuration}, or delete the folder"
                raise ValueError(f"{folder} has trainings of {before[key]}, not of {now[key]}: {remedy}.")
    if before != now:
        write_json(record, now)
