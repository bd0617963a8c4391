"""`make report`: run a whole study. Snakemake runs only the missing or outdated steps."""

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
from wmhlib.evaluation.names import in_words
from wmhlib.intake.sources import SERVERS, SOURCES, read_table
from wmhlib.running.configuration import claim, write_copy
from wmhlib.running.files import ROOT, PathLike, find, read_json, writing
from wmhlib.study import Study, open_study


def date_back(*folders: PathLike) -> None:
    """Set files dated in the future to the present, in their order; Snakemake would take all later results as outdated.

    Such files result from a clock that was ahead or has been set back.
    """
    now = time.time() - 1
    files = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    dates = {path: date for path in files if (date := path.stat().st_mtime) > now + 1}
    for place, path in enumerate(sorted(dates, key=lambda path: dates[path], reverse=True)):
        os.utime(path, (now - place / 1000,) * 2)


def forget_other_weights(study: Study) -> None:
    """Rebuild VGG19 if `WMH_VGG19_WEIGHTS` names weights other than those of the study."""
    named, record = os.environ.get("WMH_VGG19_WEIGHTS"), study.features / "origins.json"
    weights = Path(named or "").expanduser()
    if named and "vgg19" in study.pretrained_taps and record.is_file() and weights.is_file():
        wanted = hashlib.sha256(weights.read_bytes()).hexdigest()
        if records.origins(study).get("vgg19", {}).get("sha256") != wanted:
            record.unlink()


def quoted(path: PathLike) -> str:
    """A path quoted for Snakemake, which reads settings as YAML, where ` #` begins a comment and `: ` a mapping."""
    text = yaml.safe_dump(str(path), default_style='"', allow_unicode=True, width=math.inf).rstrip("\n")
    return f" {text} "  # spaces, because Snakemake removes outer quotes


def work(study: Study) -> str:
    """What a whole run downloads, simulates and trains, in words."""
    data, parts = study.config.data, []
    for name in data.download:
        table = SOURCES[name].table
        files = read_table(SOURCES[name], SERVERS) if table else []
        sizes = [file.size for file in files if file.size]
        size = f" ({sum(sizes) / 1e6:,.0f} MB)" if sizes and len(sizes) == len(files) else ""
        parts.append(f"downloads the data set {name}{size}")
    if "vgg19" in study.pretrained_taps and not os.environ.get("WMH_VGG19_WEIGHTS"):
        parts.append("downloads VGG19's weights (80 MB) if Keras has not done so before")
    if data.phantom:
        parts.append(f"simulates {sum(data.phantom.subjects.values())} scans (2 to 3 s per scan and core)")
    networks = f"{len(study.trainings)} network{'s' * (len(study.trainings) > 1)}"
    size = study.config.preprocessing.size_px
    steps = {recipe.training.epochs * recipe.training.steps_per_epoch for recipe in study.recipes.values()}
    batches = {recipe.training.batch_size for recipe in study.recipes.values()}
    of_steps, of_slices = (" or ".join(f"{count:,}" for count in sorted(counts)) for counts in (steps, batches))
    parts.append(f"trains {networks} for {of_steps} steps of {of_slices} slices of {size} x {size} pixels")
    return in_words(parts)


def main() -> None:
    """Run a whole study from its configuration to its report; the same command resumes it."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.running.command", description=main.__doc__)
    parser.add_argument("config", help="the study's YAML file, such as config/demo.yaml")
    parser.add_argument("--data", default="", help="a folder in the challenge's layout, instead of the configured one")
    parser.add_argument(
        "--profile",
        default="local",
        help="where to run: the name of a folder in workflow/profiles, or the path of a similar folder",
    )
    parser.add_argument("--cores", type=int, help="number of cores, instead of the profile's")
    parser.add_argument("--loud", action="store_true", help="show the output of Snakemake")
    arguments = parser.parse_args()
    try:
        study = open_study(arguments.config, arguments.data)
        known = ROOT / "workflow" / "profiles" / arguments.profile
        profile = known if known.is_dir() else find(arguments.profile, "profile")
        with writing(study.folder / "index.html"):
            study.folder.mkdir(parents=True, exist_ok=True)
            lock = (study.folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the processes end
        claim(study.folder, study.path, study.data)
        write_copy(study.path, study.folder / "configuration.yaml")
    except BlockingIOError:
        sys.exit(f"Cannot start the study. {study.folder} is being written by another run: wait until it ends.")
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot start the study. {error}")
    started = time.time()
    date_back(study.folder, study.slices)
    forget_other_weights(study)
    print(f"Study {study.name}: {work(study)}. What is done already is kept.", flush=True)
    if run_snakemake(study, profile, arguments, lock):
        hint = "" if arguments.loud else " If the reason is not shown above, use OPTIONS=--loud."
        sys.exit(f"The study did not finish: run the same command again to resume it.{hint}")
    print(f"{time_taken(study, started)}Report: {study.folder.relative_to(ROOT)}/index.html")


def time_taken(study: Study, started: float) -> str:
    """The duration of a run since `started` (seconds since 1970) beside that of its trainings, as a sentence."""
    models = [study.model(*training) / "model.keras" for training in study.trainings]
    trained = [model for model in models if model.is_file() and model.stat().st_mtime >= started]
    seconds = [read_json(model.with_name("training.json"))["seconds"] for model in trained]
    together = f", its {len(trained)} trainings {sum(seconds) / 60:.1f} min together" if trained else ""
    return f"The run took {(time.time() - started) / 60:.1f} min{together}.\n"


def run_snakemake(study: Study, profile: PathLike, arguments: argparse.Namespace, lock) -> int:
    """Run the workflow and return its exit status.

    Every step inherits the lock as its standard input, so a step that outlives this process keeps the lock.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile"]
    command += ["--directory", ROOT, "--workflow-profile", profile, "--rerun-incomplete", "--nolock"]
    command += ["--cores", str(arguments.cores)] if arguments.cores else []
    command += ["--quiet", "host"] if arguments.loud else []
    paths = {"study_config": study.folder / "configuration.yaml"} | ({"data": study.data} if arguments.data else {})
    command += ["--config", *(f"{key}={quoted(path)}" for key, path in paths.items())]
    # The home folder may be read-only, and its files, such as IPython's start-up files, must not change results.
    home = {"XDG_CACHE_HOME": str(ROOT / ".snakemake" / "cache"), "IPYTHONDIR": str(ROOT / ".snakemake" / "ipython")}
    with subprocess.Popen(command, stdin=lock, env=os.environ | home) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Snakemake and its steps also receive Ctrl-C and end themselves
            process.wait()
            sys.exit(
                f"Interrupted. Finished steps and trainings up to their last whole epoch are kept in "
                f"{study.folder.relative_to(ROOT)}: the same command resumes them."
            )


if __name__ == "__main__":
    main()
