import numpy as np

from wmhlib.batches import PlainBatches, ReadAhead, TrainingBatches, label_values, turned


def stack(count=10, side=16):
    random = np.random.default_rng(0)
    return random.random((count, side, side)).astype(np.float32), (random.random((count, side, side)) > 0.9).astype(
        np.uint8
    )


def test_a_batch_depends_on_seed_and_number_alone():
    images, references = stack()
    rows = np.arange(10)
    make = lambda first, seed=1: TrainingBatches(images, references, rows, "soft", 4, 30, seed, first)  # noqa: E731
    whole, resumed = make(0), make(4)
    for number in (1, 0):
        (x, y), (x_again, y_again) = whole[4 + number], resumed[number]
        assert np.array_equal(x, x_again) and np.array_equal(y, y_again)
    assert not np.array_equal(whole[0][0], make(0, seed=2)[0][0])
    assert whole[0][0].shape == (4, 16, 16, 3) and whole[0][1].shape == (4, 16, 16, 1)


def test_reading_ahead_changes_no_batch():
    images, references = stack()
    batches = TrainingBatches(images, references, np.arange(10), "soft", 4, 30, seed=1, first=3)
    ahead = ReadAhead(batches, threads=2)
    for number in (0, 1, 1, 2, 30, 29, 0):  # twice, far ahead, back
        assert all(map(np.array_equal, ahead[number], batches[number]))
    assert ahead[60] and min(ahead.coming) >= 60 - ahead.ahead, "what is far behind is forgotten"


def test_every_slice_comes_once_before_any_comes_again():
    images = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((10, 8, 8), np.float32) / 10
    references = np.zeros((10, 8, 8), np.uint8)
    stream = TrainingBatches(images, references, np.arange(10), "hard", 5, 0, seed=1)
    seen = np.concatenate([stream[number][0][:, 4, 4, 0] for number in range(4)])
    assert len(set(seen[:10].round(3))) == 10 and len(set(seen[10:].round(3))) == 10
    assert not np.array_equal(seen[:10], seen[10:])


def test_labels_are_hard_or_soft_after_turning():
    assert np.array_equal(label_values(np.array([False, True]), "soft"), np.float32([0.1, 0.9]))
    images, references = stack()
    for labels, values in (("hard", {0, 1}), ("soft", {np.float32(0.1), np.float32(0.9)})):
        _, y = TrainingBatches(images, references, np.arange(10), labels, 8, 30, seed=1)[0]
        assert set(np.unique(y)) <= values and y.dtype == np.float32


def test_image_and_mask_turn_together():
    mask = np.zeros((33, 33), np.uint8)
    mask[4:12, 14:20] = 1
    image, turned_mask = turned(mask.astype(np.float32), mask, 90)
    assert np.array_equal(turned_mask, np.rot90(mask) > 0) and np.allclose(image, np.rot90(mask), atol=1e-5)


def test_plain_batches_give_every_row_once_in_order():
    images, references = stack()
    got = list(PlainBatches(images, references, np.array([7, 2, 5]), "hard", 2))
    assert [len(x) for x, _ in got] == [2, 1]
    assert np.array_equal(np.concatenate([y for _, y in got])[..., 0], references[[7, 2, 5]])
