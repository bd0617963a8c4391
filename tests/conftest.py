"""Fixtures shared by several tests: a miniature cohort on disk, and a study of it."""

import contextlib
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real files that may be next to the project; tests that need them are skipped if they are absent."""


LONGEST = ("test_notebooks.py", "test_training.py")
"""Test files that take minutes. They run first, so that two workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order of everything else stays."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def naming(*words) -> str:
    """A pattern for error messages that contain all of these words, such as a file, a key or a name, in any order."""
    return "(?s)" + "".join(f"(?=.*{re.escape(str(word))})" for word in words)


def says(sentences: str | list[str], *parts: str) -> bool:
    """Whether one sentence has all of these words and numbers, each whole, in this order."""
    pattern = ".*".join(rf"(?<![\w.]){re.escape(part)}(?!\w|\.\d)" for part in parts)
    return any(re.search(pattern, one) for one in ([sentences] if isinstance(sentences, str) else sentences))


def gradient(function, at: np.ndarray) -> np.ndarray:
    """Gradient of a scalar function by the backend's own differentiation."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(at))
    import tensorflow as tf

    point = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = function(point)
    found = tape.gradient(value, point)
    return np.zeros_like(at) if found is None else found.numpy()


def write_subject(folder: Path, flair: np.ndarray, reference: np.ndarray, affine: np.ndarray | None = None) -> None:
    """One subject in the challenge's layout."""
    affine = np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine
    (folder / "pre").mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(flair, affine), folder / "pre" / "FLAIR.nii.gz")
    nibabel.save(nibabel.Nifti1Image(reference, affine), folder / "wmh.nii.gz")


def small_scan(random: np.random.Generator, shape=(17, 18, 9)) -> tuple[np.ndarray, np.ndarray]:
    """A block of grey tissue in air with a bright lesion in it."""
    flair = np.zeros(shape, np.float32)
    flair[2:-2, 3:-3, 1:-1] = 400 + 20 * random.standard_normal(flair[2:-2, 3:-3, 1:-1].shape)
    reference = np.zeros(shape, np.float32)
    i, j = random.integers(5, 10, 2)
    reference[i : i + 3, j : j + 3, 3:6] = 1
    flair[reference == 1] += 500
    return flair, reference


def scores(**dice: list[float]) -> pd.DataFrame:
    """A per-subject table with the Dice of external subjects 0, 1, 2 … by loss; other metrics are constant."""
    rows = [
        {
            "study": "s",
            "loss": loss,
            "seed": 1,
            "split": "external",
            "centre": "C",
            "subject": str(number),
            "dice": value,
        }
        for loss, values in dice.items()
        for number, value in enumerate(values)
    ]
    other = {"hd95_mm": 5.0, "avd_pct": 10.0, "lesion_recall": 0.5, "lesion_f1": 0.5}
    return pd.DataFrame(rows).assign(**other, positive_class_density_pct=0.1, predicted_density_pct=0.1)


@contextlib.contextmanager
def full_disk(room: int = 100_000) -> Iterator[None]:
    """Limit files to `room` bytes, which simulates a full disk except for the error number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Become an unprivileged user in the block, because root can read and write everything."""
    if os.geteuid():
        yield
        return
    if not hasattr(os, "setresuid"):
        pytest.skip("root cannot become another user for a while on this system")
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def registries() -> Iterator[None]:
    """Losses, metrics, augmentations and feature networks that a test defines are forgotten after it."""
    from wmhlib.augmentations import AUGMENTATIONS
    from wmhlib.features import FEATURES
    from wmhlib.losses import LOSSES
    from wmhlib.metrics import METRICS

    kept = [(registry, dict(registry)) for registry in (AUGMENTATIONS, FEATURES, METRICS, LOSSES)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@contextlib.contextmanager
def open_browser(offline: bool) -> Iterator[tuple]:
    """A page of headless Chromium, and a list to which every error and every request beyond the page is added."""
    from playwright.sync_api import sync_playwright

    troubles = []
    flags = ["--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        context = browser.new_context(viewport={"width": 1300, "height": 1400}, offline=offline)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        if offline:
            page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
            page.on(
                "request", lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or troubles.append(asked.url)
            )
        yield page, troubles
        browser.close()


@pytest.fixture(scope="session")
def challenge(tmp_path_factory) -> Path:
    """Two training centres of four subjects, one external centre of two, in the challenge's layout."""
    root = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    places = [("training/A", range(4)), ("training/B/scanner", range(10, 14)), ("test/C", range(20, 22))]
    for place, ids in places:
        for number in ids:
            write_subject(root / place / str(number), *small_scan(random))
    return root


def miniature(root: Path) -> dict:
    """A complete configuration of a study of these scans that takes seconds."""
    return {
        "study": "test-miniature",
        "question": "Does everything run?",
        "data": {"root": str(root)},
        "split": {"training": 4, "validation": 2, "holdout": 2, "seed": 1},
        "preprocessing": {"size_px": 32, "view": "whole"},
        "augmentation": {"rotation_deg": 30},
        "generator": {"filters": 4, "depth": 1, "convolutions": 1, "output_prior": {"hard": 0.01, "soft": 0.1}},
        "training": {
            "epochs": 2,
            "steps_per_epoch": 3,
            "batch_size": 4,
            "batch_norm_batches": 2,
            "learning_rate": 0.001,
            "beta_1": 0.9,
            "beta_2": 0.999,
        },
        "losses": {
            "dice": {"labels": "hard", "epsilon": 1},
            "siamese": {"labels": "soft"},
            "siamese_minmax": {"labels": "soft", "discriminator_rate": 0.001},
        },
        "seeds": [1],
    }


@pytest.fixture
def settings(challenge) -> dict:
    """A configuration that a test may change."""
    return miniature(challenge)


@pytest.fixture
def write_config(tmp_path):
    """Write settings to a YAML file and return its path."""

    def write(settings: dict) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    return write
