"""All notebooks run headlessly, with the command of `make report`, and their output."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import nbformat
import numpy as np
import pandas as pd
import pytest
import slurm_node
import yaml
from conftest import open_browser

from wmhlib import features
from wmhlib.running.files import ROOT

pytestmark = pytest.mark.slow

CONFIG = ROOT / "tests" / "smoke.yaml"
LIMIT_S = 800  # of a process, below pytest's limit of a test
FOLDER, DATA = ROOT / "reports" / "smoke", (ROOT / "data" / "smoke", ROOT / "data" / "slices" / "smoke")


def start(weights, *arguments: str, **more) -> subprocess.Popen:
    environment = os.environ | {"WMH_VGG19_WEIGHTS": str(weights)}
    command = [sys.executable, "-m", "wmhlib.running.command", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **(pipes | more))


def run(weights, *arguments: str) -> subprocess.CompletedProcess:
    process = start(weights, *arguments)
    said = process.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def tables_now() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (FOLDER / "tables").iterdir()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file in Keras's layout with random content, so that no test downloads VGG19."""
    path = tmp_path_factory.mktemp("weights") / "vgg19.h5"
    layers = [layer for layer in features.build(32).layers if layer.weights]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_W_1:0", f"{layer.name}_b_1:0"]
            group.attrs["weight_names"] = names
            for name, values in zip(names, layer.get_weights(), strict=True):
                group[name] = values
    return path


@pytest.fixture(scope="module")
def study(weights):
    """The miniature study, run once; its folders go when the tests are done."""
    for folder in (FOLDER, *DATA):
        shutil.rmtree(folder, ignore_errors=True)
    yield run(weights, str(CONFIG))
    for folder in (FOLDER, *DATA):
        shutil.rmtree(folder, ignore_errors=True)


def test_the_study_runs_from_nothing_to_its_front_page(study):
    assert study.returncode == 0, study.stdout + study.stderr
    steps = [line for line in study.stdout.splitlines() if "done in" in line]
    assert len(steps) == 9 and study.stdout.rstrip().endswith("Report: reports/smoke/index.html")
    wall, trained, together = re.search(
        r"run took ([\d.]+) min, its (\d) trainings ([\d.]+) min", study.stdout
    ).groups()
    assert int(trained) == 4 and 0 < float(together) < 2 * float(wall), "two trainings at a time"
    for name in ("index", "01_explore_data", "02_preprocess", "03_build_networks", "05_evaluate", "06_diagnose_minmax"):
        assert (FOLDER / f"{name}.html").is_file()
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert "Does every &lt;notebook&gt; run" in page and 'href="04_train-siamese-seed-1.html"' in page


def test_tables_have_a_row_for_every_mask(study):
    table = pd.read_csv(FOLDER / "tables" / "per_subject.csv", dtype={"subject": str})
    columns = "study loss seed split centre subject dice hd95_mm avd_pct lesion_recall lesion_f1".split()
    assert list(table.columns) == [*columns, "positive_class_density_pct", "predicted_density_pct"]
    assert table.groupby(["loss", "split"]).size().to_dict() == {
        (loss, split): number
        for loss in ("dice", "siamese", "siamese_minmax", "siamese_1_tap", "global_threshold")
        for split, number in (("holdout", 4), ("external", 3))
    }
    masks = sorted(path.name for path in (FOLDER / "masks" / "dice" / "seed-1").iterdir())
    assert masks == sorted(f"{subject}.nii.gz" for subject in table.subject.unique())
    assert (pd.read_csv(FOLDER / "tables" / "table1.csv").source == "paper").sum() == 9


def test_the_run_says_what_made_it(study):
    record = json.loads((FOLDER / "run.json").read_text(encoding="utf-8"))
    assert record["features"]["vgg19"]["weights"] == "imagenet" and len(record["features"]["vgg19"]["sha256"]) == 64
    assert record["seeds"] == [1] and record["configuration"]["study"] == "smoke"
    assert record["scans"]["subjects"] == 11 and len(record["scans"]["sha256"]) == len(record["code"]) == 64
    assert {one["loss"] for one in record["trainings"]} == {
        "dice",
        "siamese",
        "siamese_minmax",
        "siamese_1_tap",
    } and record["versions"]["keras"]


def test_executed_copies_are_plain_notebooks(study):
    for path in (FOLDER / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert "jupytext" not in notebook.metadata
        assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)


def test_a_repeated_training_gives_the_same_tables(study, weights):
    table = FOLDER / "tables" / "per_subject.csv"
    before = table.read_bytes()
    shutil.rmtree(FOLDER / "models" / "siamese")
    resumed = run(weights, str(CONFIG))
    done = [line.split("  ")[2].split(":")[0] for line in resumed.stdout.splitlines() if "done in" in line]
    assert done == ["04_train loss=siamese seed=1", "05_evaluate", "06_diagnose_minmax"]
    assert table.read_bytes() == before


def test_a_loss_and_an_augmentation_from_a_cell_stand_beside_the_study(study, weights, tmp_path):
    before = tables_now()
    out = tmp_path / "04.ipynb"
    command = [sys.executable, "workflow/notebook.py", "--config", str(CONFIG), "04_train", str(out)]
    command += ["-p", "loss", "dice", "-p", "seed", "1", "-p", "your_own", "True"]
    environment = os.environ | {"WMH_VGG19_WEIGHTS": str(weights)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("my_focal", "more_brightness"):
        record = json.loads((FOLDER / "models" / name / "seed-1" / "training.json").read_text(encoding="utf-8"))
        assert record["recipe"]["augmentation"].get("brightness_pct") == {"my_focal": None, "more_brightness": 10}[name]
        assert len(list((FOLDER / "masks" / name / "seed-1").iterdir())) == 7
    shown = out.read_text(encoding="utf-8")
    assert "Focal (your own)" in shown and "More brightness" in shown
    assert tables_now() == before, "the study's own tables stay as they are"


ALL_RUN = """() => {
  const prompts = [...document.querySelectorAll('.jp-InputPrompt')].map((prompt) => prompt.textContent);
  return prompts.some((text) => /\\d/.test(text)) && !prompts.some((text) => text.includes('*'))
    && document.querySelector('.viewer[data-ready]') && document.querySelector('.explorer[data-shown]');
}"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_notebook_5_runs_by_hand_in_jupyterlab(study, weights, tmp_path):
    """The executed copy, emptied, opened in JupyterLab, run from top to bottom, and its slice slider dragged.

    Emptied, since the viewer stored in a copy looks ready before any cell has run.
    """
    notebook = nbformat.read(FOLDER / "notebooks" / "05_evaluate.ipynb", as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, tmp_path / "05.ipynb")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += ["--IdentityProvider.token=t", f"--ServerApp.root_dir={tmp_path}"]
    for plugin, settings in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is drawn, in sight or not
        "apputils-extension/notification": {"fetchNews": "false"},
    }.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    environment = os.environ | {"WMH_VGG19_WEIGHTS": str(weights), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    lab = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            found = list((tmp_path / "runtime").glob("jpserver-*.json"))
            if found:
                break
            time.sleep(0.5)
        url = json.loads(found[0].read_text())["url"]
        with open_browser(offline=False) as (page, _):
            page.goto(f"{url}lab/tree/05.ipynb?token=t")
            page.wait_for_selector(".jp-Notebook", timeout=60_000)
            idle = "() => /Idle/.test(document.querySelector('#jp-main-statusbar').textContent)"
            page.wait_for_function(idle, timeout=90_000)
            page.get_by_role("menuitem", name="Run").first.click()
            page.get_by_text("Run All Cells", exact=True).click()
            page.wait_for_function(ALL_RUN, timeout=300_000)
            canvas = page.locator(".viewer-plane.axial canvas").first
            canvas.scroll_into_view_if_needed()
            before = canvas.screenshot()
            slider = page.locator('.viewer input[title="axial slice"]').first
            box = slider.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
            page.mouse.up()
            assert canvas.screenshot() != before
            subject = page.locator('.viewer select[title="subject"]').first
            last = subject.locator("option").last.inner_text()
            subject.select_option(last)
            page.wait_for_selector(f'.viewer[data-ready="{last}"]', timeout=90_000)
            assert not page.locator(".jp-OutputArea-output[data-mime-type*=error]").count()
    finally:
        lab.terminate()
        lab.wait(20)


def test_what_cannot_start_says_so_in_one_sentence(weights, tmp_path):
    for arguments in (["nowhere.yaml"], [str(CONFIG), "--data", str(tmp_path / "nowhere")]):
        failed = run(weights, *arguments)
        assert failed.returncode == 1 and arguments[-1] in failed.stderr
        assert failed.stderr.count("\n") == 1


def test_a_step_that_fails_is_named_with_its_reason(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    config = tmp_path / "failing.yaml"
    config.write_text(CONFIG.read_text().replace("study: smoke", "study: smoke-failing"))
    failed = run(weights, str(config), "--data", str(tmp_path / "empty"))
    shutil.rmtree(ROOT / "reports" / "smoke-failing", ignore_errors=True)
    assert (
        failed.returncode == 1
        and "01_explore_data failed: " in failed.stdout
        and str(tmp_path / "empty") in failed.stdout
    )


def test_ctrl_c_says_in_one_line_that_the_same_command_resumes(study, weights, tmp_path):
    config = tmp_path / "interrupted.yaml"
    config.write_text(CONFIG.read_text().replace("study: smoke", "study: smoke-interrupted"))
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # also where this test hears none
    process = start(weights, str(config), start_new_session=True, **heard)
    next(line for line in process.stdout if "01_explore_data" in line)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=LIMIT_S)[1]
    shutil.rmtree(ROOT / "reports" / "smoke-interrupted", ignore_errors=True)
    assert process.returncode == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("Interrupted. ") and "resumes" in said


@pytest.mark.skipif("WMH_KILLS" not in os.environ, reason="takes minutes: WMH_KILLS=20 kills the study twenty times")
def test_a_study_killed_at_random_moments_gives_the_same_tables(study, weights, tmp_path):
    """Every process with SIGKILL, as a power cut would; kernels live on for a second, since they have a session of
    their own.

    At first the command alone dies: what it started runs on, and the study is not to be begun beside it.
    """
    tables = tables_now()
    for folder in (FOLDER, *DATA):
        shutil.rmtree(folder)
    random, kills, killed = np.random.default_rng(1), int(os.environ["WMH_KILLS"]), 0
    log = tmp_path / "said"
    for number, steps in enumerate(sorted(random.integers(0, 10, kills))):
        with log.open("a") as said:
            process = start(weights, str(CONFIG), start_new_session=True, stdout=said)
        while process.poll() is None and log.read_text().count("done in") < steps:
            time.sleep(0.1)
        time.sleep(moment := random.uniform(0, 8))
        killed += process.poll() is None
        print(f"kill {number + 1}: {moment:.1f} s after {steps} steps; {log.read_text().splitlines()[-1:]}")
        if not number:
            process.kill()
            process.wait()
            beside = run(weights, str(CONFIG))
            assert beside.returncode == 1 and "another run" in beside.stderr
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = run(weights, str(CONFIG))
    print(f"{killed} of {kills} kills met a run that was not done")
    assert done.returncode == 0 and killed, done.stdout + done.stderr
    assert tables_now() == tables


def test_a_second_run_does_nothing_and_files_from_the_future_do_not_matter(study, weights):
    """A clock that was ahead, or set back since: Snakemake refuses what it makes from them, or makes it again for
    ever."""
    table = FOLDER / "tables" / "per_subject.csv"
    stamp = table.stat().st_mtime_ns
    for path in (FOLDER / "tables" / "cohort.csv", FOLDER / "tables" / "table1.csv"):
        os.utime(path, (time.time() + 86400,) * 2)
    (FOLDER / "index.html").unlink()
    for _ in range(2):
        done = run(weights, str(CONFIG))
        assert done.returncode == 0 and "done in" not in done.stdout, done.stdout + done.stderr
        assert table.stat().st_mtime_ns == stamp
    assert max(path.stat().st_mtime for path in FOLDER.rglob("*")) <= time.time()


ODD = "ünïcode 'single' \"double\" {braces} $(touch ran) #hash & 脳 "


def test_a_study_made_again_from_its_run_json_at_an_odd_place_has_the_same_tables(study, weights, tmp_path):
    """Names of 200 characters, scans that may only be read, a home directory that does not exist: together, since each
    costs a whole run."""
    project, data = tmp_path / ODD.ljust(200, "x"), tmp_path / f"data: {ODD}".ljust(200, "x")
    for part in ("wmhlib", "workflow", "notebooks", "config"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(DATA[0], data)
    for path in [data, *data.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}
    environment = os.environ | {"WMH_VGG19_WEIGHTS": str(weights), "PYTHONPATH": str(project)}
    environment |= {"HOME": "/dev/null/home"}  # where not even root can write
    command = [sys.executable, "-m", "wmhlib.running.rerun", FOLDER / "run.json", "--data", data]
    try:
        again = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
        after = {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}
    finally:
        for path in [data, *data.rglob("*")]:
            path.chmod(0o755)  # so that pytest can remove it
    assert again.returncode == 0, again.stdout + again.stderr
    names = sorted(path.name for path in (FOLDER / "tables").iterdir())
    assert [line.strip() for line in again.stdout.splitlines() if "identical" in line] == [
        *(f"{name}: identical" for name in names),
        f"{len(names)} of {len(names)} tables are identical; the new ones are in {project}/reports/smoke-again/tables",
    ]
    warnings = [line.split(":")[0] for line in again.stdout.splitlines() if line.startswith("Warning")]
    assert warnings in ([], ["Warning"]), again.stdout
    assert after == before and not list(project.rglob("ran"))


def test_a_cluster_that_loses_a_job_and_a_node_gives_the_same_tables(study, weights, tmp_path):
    """The profile for Slurm, but for threads, of which sums depend: a training is cancelled, the node drained for a
    while. Two trainings are made again, each as a job, and what comes after them, as a group of steps in one job."""
    if why := slurm_node.missing():
        pytest.skip(why)
    tables = tables_now()
    for loss in ("dice", "siamese"):
        shutil.rmtree(FOLDER / "models" / loss)
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    del profile["set-threads"]
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 5, "latency-wait": 10}
    profile |= {"slurm-logdir": str(tmp_path / "logs"), "seconds-between-status-checks": 5}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")

    def node(state: str) -> None:
        settings = [f"nodename={slurm_node.HOST}", f"state={state}", "reason=test"]
        subprocess.run(["scontrol", "update", *settings], check=True)

    with slurm_node.one_node(tmp_path / "slurm"), ThreadPoolExecutor() as pool:
        whole = pool.submit(run, weights, str(CONFIG), "--profile", str(tmp_path / "profile"))
        cancelled = ""
        while not cancelled and not whole.done():
            time.sleep(1)
            queue = ["squeue", "-h", "-t", "R", "-O", "JobID:20,MinMemory:20,tres-per-job:20,Comment:80"]
            jobs = subprocess.run(queue, capture_output=True, text=True).stdout.splitlines()
            cancelled, *asked = next((job.split() for job in jobs if "rule_train" in job), [""])
        assert cancelled, whole.result().stdout + whole.result().stderr
        assert asked[:2] == ["16000M", "gres:gpu:1"]
        subprocess.run(["scancel", cancelled], check=True)
        node("drain")
        time.sleep(5)
        node("resume")
        done = whole.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables_now() == tables
