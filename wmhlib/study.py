"""A study: one configuration file, one folder of data, one folder of results.

Every notebook opens the study it is told of and asks it where things lie, so that a path or a setting has one
home. In flows a YAML file (checked against `config/schema.yaml`) and, optionally, a data folder that replaces the
one it names; out flow the paths of the study's folder:

    reports/<study>/{index.html, NN_name.html, notebooks/, models/<loss>/seed-<k>/, masks/, tables/, run.json}
"""

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder; paths inside configurations are relative to it."""

MOST_VALUES = 10_000
"""Keys and values of a configuration; one of a few lines can stand for billions, where each refers to the one before twice."""

TRAINED_BY = ("batches", "slices", "generator", "losses", "siamese", "trainers", "checkpoints", "training")
"""The modules that a trained network follows from: where one changes, networks are trained anew."""

LET_THROUGH = (ValueError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises beside its own errors where a tag, a number or the nesting is beyond it."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked configuration and the places that follow from it."""

    name: str
    config: dict
    config_path: Path
    data: Path
    external: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        return ROOT / "reports" / self.name

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    @property
    def slices(self) -> Path:
        """Preprocessed slices, a folder a view, kept beside the data: they can be made again from it at any time."""
        return ROOT / "data" / "slices" / self.name

    @property
    def discriminator(self) -> Path:
        """The truncated VGG19 that every training of the study shares."""
        return self.folder / "models" / "discriminator.keras"

    @property
    def kinds(self) -> dict[str, str]:
        """The entries below `losses` and the loss that each of them is; a variant has a name of its own."""
        return {name: entry["loss"] for name, entry in self.config["losses"].items()}

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """(entry below `losses`, seed) of every training of the study."""
        return list(itertools.product(self.config["losses"], self.config["seeds"]))

    @property
    def has_game(self) -> bool:
        """Whether a loss of the study is the min-max game."""
        return "siamese_minmax" in self.kinds.values()

    @property
    def taps(self) -> int:
        """How many max pools of the study's VGG19 the losses look at, at most; 0 where none does, or random ones alone."""
        losses = [self.recipe(name)["loss"] for name in self.config["losses"]]
        return max((loss["taps"] for loss in losses if loss.get("weights") == "imagenet"), default=0)

    @property
    def views(self) -> list[str]:
        """What of a slice the study's losses see (`wmhlib.slices.VIEWS`), the study's own view first."""
        return list(
            dict.fromkeys(
                [self.config["preprocessing"]["view"], *(self.recipe(name)["view"] for name in self.config["losses"])]
            )
        )

    def recipe(self, name: str) -> dict:
        """How an entry below `losses` is trained: the study's settings with the entry's own over them.

        Returns
        -------
        dict
            `kind` (which loss), `labels`, `view`, `without` (a centre that is left out of training, or None), `loss` (the
            loss's own settings), `generator` and `training` (all of theirs; `output_prior` is the one of these labels).

        Raises
        ------
        ValueError
            The study does not configure this loss.
        """
        if name not in self.config["losses"]:
            raise ValueError(f"{self.config_path} has no loss {name!r}; it has {', '.join(self.config['losses'])}.")
        entry = dict(self.config["losses"][name])
        recipe = {"kind": entry.pop("loss"), "labels": entry.pop("labels")}
        recipe |= {
            "view": entry.pop("view", self.config["preprocessing"]["view"]),
            "without": entry.pop("without", None),
        }
        generator = self.config["generator"] | {
            "output_prior": self.config["generator"]["output_prior"][recipe["labels"]]
        }
        recipe["generator"] = generator | entry.pop("generator", {})
        recipe["training"] = self.config["training"] | entry.pop("training", {})
        defaults = {"taps": 2, "weights": "imagenet"} if recipe["kind"].startswith("siamese") else {}
        return recipe | {"loss": defaults | entry}

    def model(self, loss: str, seed: int) -> Path:
        return self.folder / "models" / loss / f"seed-{seed}"

    def mask(self, loss: str, seed: int, subject: str) -> Path:
        return self.folder / "masks" / loss / f"seed-{seed}" / f"{subject}.nii.gz"


def open_study(config: str | Path, data: str | Path = "") -> Study:
    """Read and check a configuration; where it has a key `base`, its settings lie over that file's (beside it).

    Parameters
    ----------
    config
        A YAML file, relative to the working directory or to the project's folder.
    data
        A folder, in the WMH Challenge's layout or BIDS, that replaces everything under `data` (empty: keep it). The
        synthetic cohort is then not made.

    Raises
    ------
    FileNotFoundError
        The configuration or the data folder is not there.
    OSError
        The configuration cannot be read.
    ValueError
        A key is unknown or missing, or a value is of the wrong type or impossible; the message names the key.
    """
    path = _find(config, "configuration")
    settings = _read_yaml(path)
    if isinstance(settings, dict) and "base" in settings:
        settings = _laid_over(
            _read_yaml(_find(path.parent / str(settings.pop("base")), "configuration to build on")), settings
        )
    if isinstance(settings, dict) and isinstance(settings.get("losses"), dict):
        settings["losses"] = {
            name: {"loss": name} | entry if isinstance(entry, dict) else entry
            for name, entry in settings["losses"].items()
            if entry is not None
        }
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(settings))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the top level"
        raise ValueError(
            f"{path}, at {where}: {' '.join(error.message.split())}; config/schema.yaml says what may stand there."
        )
    if str(data):
        settings["data"] = {"root": str(_find(data, "data folder"))}
    folders = [Path(name) for name in (settings["data"]["root"], *settings["data"].get("external", ()))]
    root, *external = (folder if folder.is_absolute() else ROOT / folder for folder in folders)
    study = Study(settings["study"], settings, path, root, tuple(external))
    kinds = schema["$defs"]["recipe"]["properties"]["loss"]["enum"]
    for name, kind in study.kinds.items():
        if (name in kinds and name != kind) or name.startswith(("global_threshold", "observer_", "reference")):
            raise ValueError(
                f"{path}, at losses.{name}: an entry of this name would be taken for something else; give the variant of "
                f"{kind} a name of its own, such as {kind}_2."
            )
    size = settings["preprocessing"]["size_px"]
    depth = max(study.recipe(name)["generator"]["depth"] for name in settings["losses"])
    if size % 2**depth:
        raise ValueError(
            f"{path}: preprocessing.size_px is {size}, which {depth} max pools do not divide evenly; "
            f"choose a multiple of {2**depth}, such as {max(1, round(size / 2**depth)) * 2**depth}."
        )
    return study


def _read_yaml(path: Path):
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} cannot be read (it is a pipe or a device): name a YAML file that you may read.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror}): name a YAML file that you may read.") from None
    except (yaml.YAMLError, *LET_THROUGH) as error:
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend that line.") from None
    _refuse_endless(path, settings)
    return settings


def _refuse_endless(path: Path, settings) -> None:
    """Refuse settings that no file of a few lines should stand for: more than `MOST_VALUES`, or numbers without end."""
    waiting, values = [settings], 0
    while waiting and values <= MOST_VALUES:
        value, values = waiting.pop(), values + 1
        waiting += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path} holds the value {value}: give a finite number.")
    if values > MOST_VALUES:
        raise ValueError(
            f"{path} stands for more than {MOST_VALUES} values once its aliases are followed: write it without."
        )


def _laid_over(below, above):
    """Settings over those of a base: a dict key by key, anything else as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}


def _find(name: str | Path, what: str) -> Path:
    """A path as the caller sees it, else as the project sees it."""
    for path in (Path(name).expanduser(), ROOT / name):
        if path.exists():
            return path.resolve()
    raise FileNotFoundError(f"No {what} at {name} (looked in {Path.cwd()} and {ROOT}): check the path.")


def refuse_unreadable(root: Path, parts: tuple[str, ...] = ("",)) -> None:
    """Make sure that a search below these parts of a folder passes nothing over: it skips what it may not read in silence.

    Raises
    ------
    PermissionError
        A folder may not be read; the message names it.
    """
    tops = [root, *(root / part for part in parts)]
    below = (Path(here) / name for top in tops[1:] for here, names, _ in os.walk(top) for name in names)
    for folder in itertools.chain(tops, below):
        if os.path.exists(folder) and not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(f"The folder {folder} cannot be read: make it readable, or move it out of {root}.")


REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or use another disk",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "move away what stands in its place"),
}
"""What helps where a file cannot be written."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence why a file or folder cannot be written; any other error passes as it is.

    Raises
    ------
    OSError
        Of the same class as the one that was raised; the message names `path`, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        target, place = path.absolute(), Path(str(error.filename or path)).absolute()  # writes as such name no file
        if error.errno not in REMEDIES or not (target.parent in place.parents or place in target.parents):
            raise
        raise type(error)(f"{path} cannot be written ({error.strerror}): {REMEDIES[error.errno]}.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place only when the block ends without an error.

    Raises
    ------
    OSError
        The disk is full, or the folder is not writable; as `writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".h5") else path.suffix
        handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder while the block lasts, or until the process is gone. (On a cluster the study's own lock does not reach the
    jobs, and a job that Slurm thinks lost may be there twice.)

    Raises
    ------
    BlockingIOError
        Another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder} is being written by another process: wait for that one to end.") from None
        except OSError:
            pass  # a disk without locks
        yield


def write_json(path: Path, content: dict) -> None:
    """Write a dict as indented JSON, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def provenance() -> dict:
    """What a reader needs to make a result again: code, versions, device; nothing that names a person or host.

    `code` is a digest of wmhlib and notebooks, which holds where a commit does not: uncommitted changes, no git.
    """
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    sources = [*ROOT.glob("wmhlib/*.py"), *ROOT.glob("wmhlib/context/*"), *ROOT.glob("notebooks/*.py")]
    packages = {"keras", "tensorflow", "jax", "numpy", "scipy", "scikit-image", "nibabel", "pandas", "statsmodels"}
    packages |= {"connected-components-3d"}
    installed = {found.name.lower(): found.version for found in importlib.metadata.distributions() if found.name}
    return {
        "commit": commit.stdout.strip() or "not a git checkout",
        "code": hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in sorted(packages) if name in installed},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _bring_to_the_present(*folders: Path) -> None:
    """Date back files from the future, in their order: Snakemake takes all that follows from one for outdated.

    A clock that was ahead when they were written leaves such files, or one that was set back since.
    """
    now = time.time() - 1
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    dates = {path: date for path in found if (date := path.stat().st_mtime) > now + 1}
    for place, path in enumerate(sorted(dates, key=dates.get, reverse=True)):
        os.utime(path, (now - place / 1000,) * 2)


def _forget_other_weights(study: Study) -> None:
    """Let VGG19 be built anew where `WMH_VGG19_WEIGHTS` names other weights than the study has, such as none at first."""
    named, record = os.environ.get("WMH_VGG19_WEIGHTS"), study.discriminator.with_suffix(".json")
    weights = Path(named or "").expanduser()
    if named and study.taps and record.is_file() and weights.is_file():
        wanted = hashlib.sha256(weights.read_bytes()).hexdigest()
        if json.loads(record.read_text(encoding="utf-8")).get("sha256") != wanted:
            record.unlink()


def _quoted(path: Path) -> str:
    """A path as Snakemake reads it back: it takes a setting for YAML, to which ` #` begins a comment and `: ` a mapping."""
    text = yaml.safe_dump(str(path), default_style='"', allow_unicode=True, width=math.inf).rstrip("\n")
    return f" {text} "  # Snakemake takes off quotes at the ends


def main() -> None:
    """Run a whole study: what `make report` calls. Snakemake decides what is missing and runs only that."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.study", description=main.__doc__)
    parser.add_argument("config", help="the study's YAML file, such as config/demo.yaml")
    parser.add_argument("--data", default="", help="a folder in the challenge's layout, instead of the configured one")
    parser.add_argument(
        "--profile", default="local", help="of workflow/profiles, or a folder like those: where it runs"
    )
    parser.add_argument("--cores", type=int, help="instead of the profile's")
    parser.add_argument("--loud", action="store_true", help="let Snakemake say what it does, and why it cannot")
    arguments = parser.parse_args()
    try:
        study = open_study(arguments.config, arguments.data)
        known = ROOT / "workflow" / "profiles" / arguments.profile
        profile = known if known.is_dir() else _find(arguments.profile, "profile")
        with writing(study.folder / "index.html"):
            study.folder.mkdir(parents=True, exist_ok=True)
            lock = (study.folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the processes, however they end; Snakemake's stays
    except BlockingIOError:
        sys.exit(
            f"Cannot start the study. {study.folder} is being written by another run of it: wait for that one to end."
        )
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot start the study. {error}")
    _bring_to_the_present(study.folder, study.slices)
    _forget_other_weights(study)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile"]
    command += ["--directory", ROOT, "--workflow-profile", profile, "--rerun-incomplete", "--nolock"]
    command += ["--cores", str(arguments.cores)] if arguments.cores else []
    command += ["--quiet", "host"] if arguments.loud else []
    paths = {"study_config": study.config_path} | ({"data": study.data} if arguments.data else {})
    command += ["--config", *(f"{key}={_quoted(path)}" for key, path in paths.items())]
    print(
        f"Study {study.name}: {len(study.config['losses'])} losses x {len(study.config['seeds'])} seed(s)", flush=True
    )
    # The user's home may be read-only, and nothing in it, such as a start-up file of IPython, should change a result.
    home = {"XDG_CACHE_HOME": str(ROOT / ".snakemake" / "cache"), "IPYTHONDIR": str(ROOT / ".snakemake" / "ipython")}
    # Every step inherits the lock as its standard input, so one that outlives this process still holds it.
    if subprocess.run(command, stdin=lock, env=os.environ | home).returncode:
        hint = "" if arguments.loud else " Where nothing above says why, OPTIONS=--loud says more."
        sys.exit(f"The study did not finish: run it again to go on.{hint}")
    print(f"Report: {study.folder.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
