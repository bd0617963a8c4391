import numpy as np

from wmhlib.batches import PlainBatches, ReadAhead, TrainingBatches, chosen_augmentations, label_values

TURNED = chosen_augmentations({"rotation_deg": 30})
EVERYTHING = {"rotation_deg": 30, "flip_probability": 0.5, "noise_pct": 5, "gamma_pct": 20}


def stack(count=10, side=16):
    random = np.random.default_rng(0)
    return random.random((count, side, side)).astype(np.float32), (random.random((count, side, side)) > 0.9).astype(
        np.uint8
    )


def test_a_batch_depends_on_seed_and_number_alone():
    images, references = stack()

    def made(seed=1):
        return TrainingBatches(images, references, np.arange(10), "soft", 4, chosen_augmentations(EVERYTHING), seed)

    whole, resumed = made(), made()
    for number in (5, 4):  # a resumed training begins anywhere
        assert all(map(np.array_equal, whole[number], resumed[number]))
    assert not np.array_equal(whole[0][0], made(seed=2)[0][0])
    assert not np.array_equal(whole[0][0], whole[1][0])
    assert whole[0][0].shape == (4, 16, 16, 3) and whole[0][1].shape == (4, 16, 16, 1)


def test_an_augmentation_added_at_the_end_leaves_the_others_as_they_were():
    images, references = stack()
    seen = []

    def look(image, reference, random):
        seen.append(image)
        return image, reference

    some, more = TURNED, [*TURNED, *chosen_augmentations({"flip_probability": 1, "noise_pct": 5})]
    for augmentations in ([*some, look], [*some, look, *more[1:]]):
        TrainingBatches(images, references, np.arange(10), "hard", 4, augmentations, seed=1)[3]
    assert len(seen) == 8 and all(map(np.array_equal, seen[:4], seen[4:]))


def test_augmentations_of_nothing_are_left_out_and_the_others_keep_their_order():
    chosen = chosen_augmentations({"flip_probability": 0.5, "zoom_pct": 0, "rotation_deg": 30})
    assert [(one.func.__name__, one.keywords) for one in chosen] == [
        ("flip_probability", {"most": 0.5}),
        ("rotation_deg", {"most": 30}),
    ]


def test_reading_ahead_changes_no_batch():
    images, references = stack()
    batches = TrainingBatches(images, references, np.arange(10), "soft", 4, TURNED, seed=1)
    with ReadAhead(batches, threads=2) as ahead:
        for number in (0, 1, 1, 2, 30, 29, 0):  # twice, far ahead, back
            assert all(map(np.array_equal, ahead[number], batches[number]))
        assert ahead[60] and min(ahead.coming) >= 60 - ahead.ahead, "what is far behind is forgotten"


def test_every_slice_comes_once_before_any_comes_again():
    images = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((10, 8, 8), np.float32) / 10
    references = np.zeros((10, 8, 8), np.uint8)
    stream = TrainingBatches(images, references, np.arange(10), "hard", 5, [], seed=1)
    seen = np.concatenate([stream[number][0][:, 4, 4, 0] for number in range(4)])
    assert len(set(seen[:10].round(3))) == 10 and len(set(seen[10:].round(3))) == 10
    assert not np.array_equal(seen[:10], seen[10:])


def test_labels_are_hard_or_soft_after_turning():
    assert np.array_equal(label_values(np.array([False, True]), "soft"), np.float32([0.1, 0.9]))
    images, references = stack()
    for labels, values in (("hard", {0, 1}), ("soft", {np.float32(0.1), np.float32(0.9)})):
        _, y = TrainingBatches(images, references, np.arange(10), labels, 8, TURNED, seed=1)[0]
        assert set(np.unique(y)) <= values and y.dtype == np.float32


def test_plain_batches_give_every_row_once_in_order():
    images, references = stack()
    got = list(PlainBatches(images, references, np.array([7, 2, 5]), "hard", 2))
    assert [len(x) for x, _ in got] == [2, 1]
    assert np.array_equal(np.concatenate([y for _, y in got])[..., 0], references[[7, 2, 5]])
