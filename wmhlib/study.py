"""A study: one configuration file, one folder of data, one folder of results.

Every notebook opens the study it is told of and asks it where things lie, so that a path or a setting has one
home. In flows a YAML file (checked against `config/schema.yaml`) and, optionally, a data folder that replaces the
one it names; out flow the paths of the study's folder:

    reports/<study>/{index.html, NN_name.html, notebooks/, models/<loss>/seed-<k>/, masks/, tables/, run.json}
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder; paths inside configurations are relative to it."""


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
        """Preprocessed slices, kept beside the data: they can be made again from it at any time."""
        return ROOT / "data" / "slices" / self.name

    @property
    def discriminator(self) -> Path:
        """The truncated VGG19 every training of the study shares."""
        return self.folder / "models" / "discriminator.keras"

    def model(self, loss: str, seed: int) -> Path:
        return self.folder / "models" / loss / f"seed-{seed}"

    def mask(self, loss: str, seed: int, subject: str) -> Path:
        return self.folder / "masks" / loss / f"seed-{seed}" / f"{subject}.nii.gz"


def open_study(config: str | Path, data: str | Path = "") -> Study:
    """Read and check a configuration.

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
    ValueError
        A key is unknown or missing, or a value is of the wrong type or impossible; the message names the key.
    """
    path = _find(config, "configuration")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend that line.") from None
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(settings))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the top level"
        raise ValueError(f"{path}, at {where}: {error.message}; config/schema.yaml says what may stand there.")
    if str(data):
        settings["data"] = {"root": str(_find(data, "data folder"))}
    folders = [Path(name) for name in (settings["data"]["root"], *settings["data"].get("external", ()))]
    root, *external = (folder if folder.is_absolute() else ROOT / folder for folder in folders)
    size, depth = settings["preprocessing"]["size_px"], settings["generator"]["depth"]
    if size % 2**depth:
        raise ValueError(
            f"{path}: preprocessing.size_px is {size}, which {depth} max pools do not divide evenly; "
            f"choose a multiple of {2**depth}, such as {max(1, round(size / 2**depth)) * 2**depth}."
        )
    return Study(settings["study"], settings, path, root, tuple(external))


def _find(name: str | Path, what: str) -> Path:
    """A path as the caller sees it, else as the project sees it."""
    for path in (Path(name).expanduser(), ROOT / name):
        if path.exists():
            return path.resolve()
    raise FileNotFoundError(f"No {what} at {name} (looked in {Path.cwd()} and {ROOT}): check the path.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write a dict as indented JSON, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def provenance() -> dict:
    """What a reader needs to make a result again: commit, versions, device; nothing that names a person or host."""
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    packages = ("keras", "tensorflow", "numpy", "scipy", "scikit-image", "nibabel", "pandas")
    return {
        "commit": commit.stdout.strip() or "not a git checkout",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def main() -> None:
    """Run a whole study: what `make report` calls. Snakemake decides what is missing and runs only that."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.study", description=main.__doc__)
    parser.add_argument("config", help="the study's YAML file, such as config/demo.yaml")
    parser.add_argument("--data", default="", help="a folder in the challenge's layout, instead of the configured one")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    try:
        study = open_study(arguments.config, arguments.data)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"Cannot start the study. {error}")
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile"]
    command += ["--directory", ROOT, "--cores", str(arguments.cores), "--rerun-incomplete", "--quiet", "all"]
    command += ["--config", f"study_config={study.config_path}"]
    command += [f"data={study.data}"] if arguments.data else []
    print(
        f"Study {study.name}: {len(study.config['losses'])} losses x {len(study.config['seeds'])} seed(s)", flush=True
    )
    if code := subprocess.run(command).returncode:
        sys.exit(code)
    print(f"Report: {study.folder.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
