"""Each augmentation keeps shapes and ranges, and depends only on its random numbers."""

import numpy as np
import pytest

from wmhlib.augmentations import AUGMENTATIONS, augmentation, turned
from wmhlib.batches import TrainingBatches, chosen_augmentations

MOST = {
    "rotation_deg": 45,
    "flip_probability": 1,
    "zoom_pct": 30,
    "gamma_pct": 50,
    "blur_px": 2,
    "noise_pct": 10,
    "bias_field_pct": 40,
}
BOTH = ("rotation_deg", "flip_probability", "zoom_pct")
"""Augmentations that move voxels; the others do not change the mask."""


def one_slice(side=24):
    random = np.random.default_rng(0)
    image = random.random((side, side)).astype(np.float32)
    image[:4], image[4:8] = 0, 1  # the ends of the range
    return image, (random.random((side, side)) > 0.8).astype(np.uint8)


def test_every_augmentation_is_tried_here():
    assert set(AUGMENTATIONS) == set(MOST)


@pytest.mark.parametrize("name", MOST)
def test_shapes_and_ranges_stay_and_nothing_is_changed_in_place(name):
    image, reference = one_slice()
    before = image.copy(), reference.copy()
    for seed in range(10):
        new, mask = AUGMENTATIONS[name](image, reference, np.random.default_rng(seed), MOST[name])
        assert new.shape == image.shape and mask.shape == reference.shape
        assert new.dtype == np.float32 and set(np.unique(mask)) <= {0, 1}
        assert np.isfinite(new).all() and new.min() >= 0 and new.max() <= 1 + 1e-6
        assert name in BOTH or np.array_equal(mask, reference)
    assert np.array_equal(image, before[0]) and np.array_equal(reference, before[1])


@pytest.mark.parametrize("name", MOST)
def test_the_same_random_numbers_give_the_same_and_others_something_else(name):
    image, reference = one_slice()

    def made(seed):
        return AUGMENTATIONS[name](image, reference, np.random.default_rng(seed), MOST[name])

    assert all(map(np.array_equal, made(1), made(1)))
    assert not np.array_equal(made(1)[0], image)
    assert name == "flip_probability" or not np.array_equal(made(1)[0], made(2)[0])


def test_a_flip_turns_image_and_mask_alike():
    image, reference = one_slice()
    random = np.random.default_rng(0)
    new, mask = AUGMENTATIONS["flip_probability"](image, reference, random, 1)
    assert np.array_equal(new, image[::-1]) and np.array_equal(mask, reference[::-1]), "left and right: the first axis"
    new, mask = AUGMENTATIONS["flip_probability"](image, reference, random, 0)
    assert new is image and mask is reference
    flips = [AUGMENTATIONS["flip_probability"](image, reference, random, 0.3)[0] is not image for _ in range(500)]
    assert 0.2 < np.mean(flips) < 0.4


def test_image_and_mask_turn_together():
    mask = np.zeros((33, 33), np.uint8)
    mask[4:12, 14:20] = 1
    image, turned_mask = turned(mask.astype(np.float32), mask, 90)
    assert np.array_equal(turned_mask, np.rot90(mask) > 0) and np.allclose(image, np.rot90(mask), atol=1e-5)


def test_a_zoom_keeps_the_centre_and_changes_the_size_of_both():
    mask = np.zeros((33, 33), np.uint8)
    mask[12:21, 12:21] = 1
    sizes = []
    for seed in range(20):
        image, zoomed = AUGMENTATIONS["zoom_pct"](mask.astype(np.float32), mask, np.random.default_rng(seed), 40)
        assert np.array_equal(image > 0.5, zoomed) and zoomed[16, 16]
        assert np.array_equal(zoomed, zoomed[::-1]) and np.array_equal(zoomed, zoomed[:, ::-1])
        sizes.append(int(zoomed.sum()))
    assert min(sizes) < mask.sum() < max(sizes)


def test_a_bias_field_is_smooth():
    flat = np.full((40, 40), 0.5, np.float32)
    field = AUGMENTATIONS["bias_field_pct"](flat, flat > 1, np.random.default_rng(3), 20)[0] / 0.5
    assert np.abs(field - 1).max() <= 0.2 + 1e-6
    assert 0 < np.abs(np.diff(field, axis=0)).max() < 0.05


def test_one_of_your_own_is_used_by_its_name(registries):
    @augmentation
    def gap_px(image, reference, random, most: int):
        start = random.integers(0, len(image) - most)
        image = image.copy()
        image[start : start + most] = 0
        return image, reference

    images, references = np.ones((3, 16, 16), np.float32), np.zeros((3, 16, 16), np.uint8)
    chosen = chosen_augmentations({"gap_px": 5})
    x, _ = TrainingBatches(images, references, np.arange(3), "hard", 3, chosen, seed=1)[0]
    assert ((x[..., 0] < 0).sum(axis=(1, 2)) == 5 * 16).all()
