"""`make report`: run a whole study. Snakemake decides what is missing and runs only that."""

from wmhlib.running import light  # noqa: F401, I001  Keras without TensorFlow

# isort: split
import argparse
import fcntl
import hashlib
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from wmhlib.evaluation import records
from wmhlib.running.configuration import claim, write_copy
from wmhlib.running.files import ROOT, PathLike, find, writing
from wmhlib.study import Study, open_study


def date_back(*folders: PathLike) -> None:
    """Date back files from the future, in their order: Snakemake takes everything that follows from one for outdated.

    A clock that was ahead when they were written leaves such files, or one that was set back since.
    """
    now = time.time() - 1
    files = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    dates = {path: date for path in files if (date := path.stat().st_mtime) > now + 1}
    for place, path in enumerate(sorted(dates, key=lambda path: dates[path], reverse=True)):
        os.utime(path, (now - place / 1000,) * 2)


def forget_other_weights(study: Study) -> None:
    """Have VGG19 built again where `WMH_VGG19_WEIGHTS` names other weights than the study has, such as none at first."""
    named, record = os.environ.get("WMH_VGG19_WEIGHTS"), study.features / "origins.json"
    weights = Path(named or "").expanduser()
    if named and "vgg19" in study.pretrained_taps and record.is_file() and weights.is_file():
        wanted = hashlib.sha256(weights.read_bytes()).hexdigest()
        if records.origins(study).get("vgg19", {}).get("sha256") != wanted:
            record.unlink()


def quoted(path: PathLike) -> str:
    """A path as Snakemake reads it back: it takes a setting for YAML, to which ` #` begins a comment and `: ` a mapping."""
    text = yaml.safe_dump(str(path), default_style='"', allow_unicode=True, width=math.inf).rstrip("\n")
    return f" {text} "  # Snakemake takes off quotes at the ends


def main() -> None:
    """Run a whole study from its configuration to its report; the same command resumes it."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.running.command", description=main.__doc__)
    parser.add_argument("config", help="the study's YAML file, such as config/demo.yaml")
    parser.add_argument("--data", default="", help="a folder in the challenge's layout, instead of the configured one")
    parser.add_argument(
        "--profile", default="local", help="where it runs: a folder of workflow/profiles, or one like them"
    )
    parser.add_argument("--cores", type=int, help="instead of the profile's")
    parser.add_argument("--loud", action="store_true", help="show what Snakemake says, and why it cannot start")
    arguments = parser.parse_args()
    try:
        study = open_study(arguments.config, arguments.data)
        known = ROOT / "workflow" / "profiles" / arguments.profile
        profile = known if known.is_dir() else find(arguments.profile, "profile")
        with writing(study.folder / "index.html"):
            study.folder.mkdir(parents=True, exist_ok=True)
            lock = (study.folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the processes, however they end
        claim(study.folder, study.path, study.data)
        write_copy(study.path, study.folder / "configuration.yaml")
    except BlockingIOError:
        sys.exit(
            f"Cannot start the study. {study.folder} is being written by another run of it: wait until that one ends."
        )
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot start the study. {error}")
    date_back(study.folder, study.slices)
    forget_other_weights(study)
    print(f"Study {study.name}: {len(study.recipes)} losses x {len(study.config.seeds)} seed(s)", flush=True)
    if run_snakemake(study, profile, arguments, lock):
        hint = "" if arguments.loud else " Where nothing above says why, OPTIONS=--loud says more."
        sys.exit(f"The study did not finish: the same command resumes it.{hint}")
    print(f"Report: {study.folder.relative_to(ROOT)}/index.html")


def run_snakemake(study: Study, profile: PathLike, arguments: argparse.Namespace, lock) -> int:
    """Run the workflow and return its exit status. Every step inherits the lock as its standard input, so one that outlives
    this process still holds it."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile"]
    command += ["--directory", ROOT, "--workflow-profile", profile, "--rerun-incomplete", "--nolock"]
    command += ["--cores", str(arguments.cores)] if arguments.cores else []
    command += ["--quiet", "host"] if arguments.loud else []
    paths = {"study_config": study.folder / "configuration.yaml"} | ({"data": study.data} if arguments.data else {})
    command += ["--config", *(f"{key}={quoted(path)}" for key, path in paths.items())]
    # The user's home may be read-only, and nothing in it, such as a start-up file of IPython, should change a result.
    home = {"XDG_CACHE_HOME": str(ROOT / ".snakemake" / "cache"), "IPYTHONDIR": str(ROOT / ".snakemake" / "ipython")}
    with subprocess.Popen(command, stdin=lock, env=os.environ | home) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl-C reaches Snakemake and its steps as well, which end themselves
            process.wait()
            sys.exit(
                f"Interrupted. What was done is kept in {study.folder.relative_to(ROOT)}, and trainings up to their last whole "
                "epoch: the same command resumes them."
            )


if __name__ == "__main__":
    main()
