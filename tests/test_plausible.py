"""Signs that a scan is not what its header says: each is found, and a sound head raises none."""

import nibabel
import numpy as np
import pytest
from conftest import says

from wmhlib.intake import plausible
from wmhlib.intake.scans import read_flair

SIDES = np.array([2.0, 2.0, 4.0])


@pytest.fixture
def head() -> np.ndarray:
    """An ellipsoid of noisy tissue in noisy air: 140 x 180 x 140 mm."""
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in (100, 110, 44)), indexing="ij"), axis=-1)
    inside = ((((grid - [50, 55, 22]) * SIDES) / [70, 90, 70]) ** 2).sum(axis=-1) < 1
    return np.where(inside, 300, 5) + random.normal(0, 3, inside.shape).clip(-4)


def told(values: np.ndarray, sides=SIDES) -> list[str]:
    return plausible.doubts(read_flair(nibabel.Nifti1Image(values.astype(np.float32), np.diag([*sides, 1]))))


def test_a_sound_head_raises_no_doubt(head):
    assert told(head) == []
    assert told(np.pad(head, 5)) == [], "blank planes around it"


def test_a_sound_scan_that_was_padded_or_cropped_raises_none(head):
    top = head.copy()
    top[..., :6] = 0  # the field of view ends at the skull's base
    assert told(top) == [] and told(np.pad(head[..., 8:], ((0, 0), (0, 0), (4, 1)))) == []
    assert told(np.pad(head[20:-20], ((9, 9), (0, 0), (0, 0)))) == [], "without ears"
    spiked = np.pad(head, ((0, 0), (0, 0), (5, 5)))
    spiked[0, 0, 0] = spiked[0, 0, -1] = 900
    assert told(spiked) == []


def test_heads_of_impossible_size_are_doubted(head):
    assert says(told(head, (1, 1, 1)), "67 x 85 x 33", "voxel sizes")
    assert says(told(head, (2, 2, 10)), "x 330 mm") and says(told(head * 1.0, SIDES * 1.4), "litres")
    assert says(told(head.transpose(1, 0, 2)), "170 x 134 x")


def test_blank_and_repeated_planes_are_doubted_inside_the_head_and_at_its_cut_edge(head):
    for axis, direction in enumerate(plausible.DIRECTIONS):
        half = head.shape[axis] // 2
        for blank in (slice(half - 2, half), slice(half, None)):
            values = head.copy()
            values[(slice(None),) * axis + (blank,)] = 0
            assert says(told(values), "blank", direction)
        values = head.copy()
        values[(slice(None),) * axis + (half,)] = np.take(head, half - 1, axis)
        assert says(told(values), "repeated", direction, f"plane {half}")


def test_bright_air_clipped_tissue_and_large_voxels_are_doubted(head):
    assert says(told(head + 1000), "darkest") and says(told(np.minimum(head, 303)), "clipped")
    assert says(told(head[::3], (6, 2, 4)), "6 x 2 x 4 mm") and says(told(head[..., ::3], (2, 2, 12)), "2 x 2 x 12 mm")


def test_label_maps_are_doubted_or_refused(head):
    labels = (1 + np.arange(head.shape[1]) // 4)[:, np.newaxis] * (head > 100)
    assert says(told(labels), "label map")
    with pytest.raises(ValueError, match="3 different values"):
        told((head > 100) + (head > 305.0) * 1)


def test_a_ramp_is_doubted_and_no_error():
    ramp = np.broadcast_to(np.linspace(0, 100, 60), (80, 90, 60)).copy()
    assert says(plausible.doubts(nibabel.Nifti1Image(ramp / 100, np.diag([2, 2, 2, 1]))), "single value")
