"""Training with slices on the device gives the same as on the host; on JAX without a GPU, in seconds."""

import keras
import numpy as np
import pandas as pd
import pytest
from test_training import prepared, study  # noqa: F401 (fixtures)

from wmhlib import gpu, training
from wmhlib.augmentations import turned
from wmhlib.batches import TrainingBatches, chosen_augmentations

pytestmark = pytest.mark.jax
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="slices stay on the device with JAX alone")


@pytest.mark.parametrize("size", [32, 33])
def test_an_image_is_rotated_on_the_device_as_on_the_host(size):
    random = np.random.default_rng(0)
    images, angles = random.random((5, size, size), np.float32), np.array([0, 30, -17.3, 90, 211], np.float32)
    masks = random.random(images.shape) > 0.7
    found = np.asarray(gpu.rotated(np.stack([images, masks], axis=-1).astype(np.float32), angles))
    for image, mask, angle, pair in zip(images, masks, angles, found, strict=True):
        expected, turned_mask = turned(image, mask, float(angle))
        assert np.allclose(pair[..., 0], expected, atol=2e-4)
        assert ((pair[..., 1] > 0.5) != turned_mask).mean() < 0.01, "only ties may differ"


def test_only_rotation_stays_on_the_device(monkeypatch):
    monkeypatch.setattr(gpu.keras.distribution, "list_devices", lambda: ["gpu:0"])
    images = np.zeros((3, 8, 8), np.float32)
    for settings, alone in (({}, True), ({"rotation_deg": 9}, True), ({"rotation_deg": 9, "noise_pct": 1}, False)):
        batches = TrainingBatches(images, images, np.arange(3), "hard", 2, chosen_augmentations(settings), seed=1)
        assert gpu.suits(batches) == (alone and keras.backend.backend() == "jax")
    monkeypatch.setattr(gpu.keras.distribution, "list_devices", lambda: ["cpu:0"])
    assert not gpu.suits(batches)


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dice", "siamese_minmax"])
def test_a_training_on_the_device_is_the_hosts(study, loss, monkeypatch):  # noqa: F811
    histories, logs = [], []
    for on_device in (False, True):
        monkeypatch.setattr(gpu, "suits", lambda _, answer=on_device: answer)
        monkeypatch.setattr(gpu.OnDevice, "save_every_s", 0.0)
        histories.append(training.train(study, loss, seed=1))
        folder = study.model(loss, 1)
        if (folder / "steps.csv").is_file():
            logs.append(pd.read_csv(folder / "steps.csv"))
        folder.rename(folder.with_name(f"{loss}-{on_device}"))
    columns = ["loss", "dice", "validation_dice"]
    assert np.allclose(histories[0][columns], histories[1][columns], atol=0.02, rtol=0.02)
    assert list(histories[0].epoch) == list(histories[1].epoch)
    if logs:
        assert logs[0].notna().equals(logs[1].notna()), "the same steps look at the probe"
        first = [log.iloc[0] for log in logs]
        assert np.allclose(first[0], first[1], rtol=0.01)


@on_jax
@pytest.mark.slow
def test_a_training_on_the_device_resumes_from_what_was_saved_last(study, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gpu, "suits", lambda _: True)
    whole = training.train(study, "siamese", 1)
    folder = study.model("siamese", 1)
    folder.rename(folder.with_name("whole"))
    monkeypatch.setattr(gpu.OnDevice, "save_every_s", 0.0)

    def stop(history, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(study, "siamese", 1, watch=stop)
    resumed = training.train(study, "siamese", 1)
    columns = ["loss", "dice", "validation_dice"]
    assert np.array_equal(whole[columns], resumed[columns])
