import errno
import gzip
import os
import warnings
from pathlib import Path

import hypothesis
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, as_nobody, full_disk, naming, small_scan, write_subject
from hypothesis import example, given
from hypothesis import strategies as st
from nibabel import orientations

from wmhlib import slices
from wmhlib.cohort import assign_splits, read_challenge
from wmhlib.generator import network_input
from wmhlib.intake.grids import canonical
from wmhlib.intake.nifti import Mended
from wmhlib.intake.scans import (
    IN_PROPORTION,
    INTENSITIES,
    TISSUE_GREY,
    BrightnessWarning,
    canonical_slice_count,
    check_proportion,
    read_flair,
    read_reference,
    tissue_level,
)


def scan(shape=(7, 8, 9), codes="RAS", dtype=np.float32) -> nibabel.Nifti1Image:
    """A scan with unequal axes, stored along `codes`; its voxel values count up in RAS order."""
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    image = nibabel.Nifti1Image(values, np.diag([1.0, 1.5, 3.0, 1.0]))
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes))
    return image.as_reoriented(turn)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_slices_go_back_to_the_scans_own_grid(codes):
    image = scan(codes=codes)
    straight = canonical(image)
    assert nibabel.aff2axcodes(straight.affine) == ("R", "A", "S") and straight.shape == (7, 8, 9)
    planes = np.moveaxis(np.asarray(straight.dataobj), 2, 0)
    assert np.allclose(slices.volume_of(planes, image), np.asarray(image.dataobj), atol=1e-3)


@pytest.mark.parametrize("view", ["head", "pad"])
def test_the_head_is_cut_out_and_put_back(view):
    volume = np.zeros((30, 40, 4), np.float32)
    volume[10:20, 5:30] = 0.6
    volume[25, 36, 1] = 0.2  # noise
    straight = nibabel.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert slices.box_of(straight, "head") == ((8, 22), (3, 32))
    assert slices.box_of(straight, "whole") == ((0, 30), (0, 40))
    nothing = nibabel.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4))
    assert slices.box_of(nothing, "head") == ((0, 4), (0, 5)), "nothing there: everything is seen"
    image = nibabel.Nifti1Image(volume, np.diag([-1.0, -2.0, 3.0, 1.0]))  # stored to the left and to the back
    straight = canonical(image)
    box = slices.box_of(straight, view)
    seen = slices.cut_out(np.asarray(straight.dataobj), box)
    if view == "pad":
        assert seen.shape[0] * 1.0 == seen.shape[1] * 2.0 == 58, "as many mm wide as high"
    back = slices.volume_of(np.moveaxis(seen, 2, 0), image, box)
    volume[25, 36, 1] = 0  # outside the box
    assert back.dtype == np.float32 and np.allclose(back, volume, atol=1e-3)


def test_flair_is_divided_by_its_maximum_and_negatives_go(tmp_path):
    values = np.array([-5, 0, 10, 40], np.int16).reshape(2, 2, 1)
    volume = read_flair(nibabel.Nifti1Image(values, np.eye(4))).get_fdata()
    assert volume.ravel().tolist() == [0, 0, 0.25, 1]


def head(fat: float = 0, shape=(40, 48, 20)) -> np.ndarray:
    """A block of noisy tissue at 400 in noisy air, with a lesion at 800, and around it a shell of `fat` times tissue."""
    random = np.random.default_rng(1)
    values = np.abs(5 * random.standard_normal(shape))
    values[6:34, 8:40, 2:18] = fat * 400
    values[8:32, 10:38, 2:18] = 400 + 20 * random.standard_normal((24, 28, 16))
    values[12:16, 20:24, 5:8] = 800
    return values


def grey(values: np.ndarray, intensity: str) -> np.ndarray:
    return read_flair(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), intensity).get_fdata()


def test_tissue_is_brought_to_its_grey_and_what_is_brighter_than_white_is_cut():
    values = np.concatenate([np.full(900, -7), np.full(5000, 200), np.full(100, 300), np.full(94, 1000)])
    assert np.unique(grey(values.reshape(2, 11, 277), "tissue")).round(4).tolist() == [0, 0.46, 0.69, 1]
    assert TISSUE_GREY == 0.46
    sparse = np.zeros((20, 20, 20))
    sparse[3, 4, 5:7] = 8, 7.99
    assert grey(sparse, "tissue").max() == pytest.approx(0.46, rel=1e-3), (
        "fewer voxels than the percentile counts are tissue"
    )


@given(factor=st.floats(1e-4, 1e6), air=st.integers(0, 12))
@hypothesis.settings(deadline=None, max_examples=25)
def test_neither_the_scanners_scale_nor_the_air_around_changes_tissue(factor, air):
    expected = grey(head(), "tissue")
    seen = grey(np.pad(head() * factor, air), "tissue")
    assert np.abs(seen[tuple(slice(air, air + side) for side in expected.shape)] - expected).max() < 1e-3


@given(places=st.sets(st.integers(0, 40 * 48 * 20 - 1), min_size=4, max_size=4), times=st.floats(1, 1000))
@example(places={100, 200, 15000, 15001}, times=10)
@hypothesis.settings(deadline=None, max_examples=25)
def test_four_hot_voxels_change_nothing_else_of_tissue(places, times):
    values, elsewhere = head(), np.ones(40 * 48 * 20, bool)
    values.ravel()[list(places)] = times * values.max()
    elsewhere[list(places)] = False
    moved = {each: np.abs(grey(values, each) - grey(head(), each)).ravel()[elsewhere].max() for each in INTENSITIES}
    assert moved["tissue"] < 1e-3 and (times < 2 or moved["maximum"] > 0.4)


@pytest.mark.parametrize("fat", [2, 4, 6])
def test_bright_fat_around_the_brain_leaves_its_tissue_where_it_was(fat):
    with_fat, without, brain = head(fat), head(), (slice(8, 32), slice(10, 38), slice(2, 18))
    assert np.abs(grey(with_fat, "tissue")[brain] - grey(without, "tissue")[brain]).max() < 0.02
    assert grey(with_fat, "maximum")[brain].mean() < grey(without, "maximum")[brain].mean() * 2.1 / fat


def test_hot_voxels_do_not_hide_the_head_from_its_box():
    values = head()
    values[20, 20, 10:14] = 40 * values.max()
    boxes = [slices.box_of(nibabel.Nifti1Image(grey(values, each), np.eye(4)), "head") for each in INTENSITIES]
    assert boxes == [((0, 40), (0, 48)), ((6, 34), (8, 40))], "by the maximum there is no tissue, so all of the slice"


@pytest.mark.parametrize(("times", "outside"), [(1, False), (1.2, False), (1.3, True), (10, True)])
def test_a_maximum_out_of_proportion_is_warned_of_by_file(times, outside):
    values = head()
    values[20, 20, 10] = times * values.max()
    image = read_flair(nibabel.Nifti1Image(values, np.eye(4)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_proportion("x/FLAIR.nii.gz", image)
    assert [one.category for one in caught] == [BrightnessWarning] * outside
    assert all("x/FLAIR.nii.gz" in str(one.message) for one in caught)


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no real scans next to the project")
def test_real_scans_are_in_proportion_but_for_those_with_skull():
    levels = {}
    for path in sorted((SHARED / "real").glob("t*/*/*/pre/FLAIR.nii.gz")):
        levels.setdefault(path.parents[2].name, []).append(tissue_level(read_flair(path).get_fdata()))
    low, high = IN_PROPORTION
    assert max(levels.pop("ISBI")) < low
    assert all(low < level < high for level in sum(levels.values(), []))


def test_slices_are_of_the_brightness_they_are_prepared_for(challenge, tmp_path):
    cohort = training(challenge)
    pairs = {}
    for each in (slices.PAPER, slices.Preparation("whole", "tissue")):
        slices.write_slices(cohort, tmp_path / each.name, 16, each)
        pairs[each.name] = slices.open_slices(tmp_path / each.name)
    assert list(pairs) == ["whole", "whole_tissue"]
    levels = [np.median(images[images > 0.2]) for images, *_ in pairs.values()]
    assert levels[1] == pytest.approx(TISSUE_GREY, abs=0.01) and levels[0] < 0.45
    assert np.array_equal(pairs["whole"][1], pairs["whole_tissue"][1])


def test_a_preparation_is_known_by_its_name():
    for view in slices.VIEWS:
        assert slices.Preparation.named(view) == (view, "maximum"), "as networks were saved before there was a choice"
        assert slices.Preparation.named(slices.Preparation(view, "tissue").name) == (view, "tissue")
    for name in ("head_maximum", "tissue", "head_", "input_layer", ""):
        with pytest.raises(ValueError, match=naming(repr(name), "head_tissue")):
            slices.Preparation.named(name)


def test_reference_keeps_label_one_only():
    values = np.array([0, 1, 2, 1], np.float32).reshape(2, 2, 1)
    image = read_reference(nibabel.Nifti1Image(values, np.eye(4)))
    assert np.asarray(image.dataobj).ravel().tolist() == [0, 1, 0, 1]


def test_resampling_is_scikit_images_default():
    from skimage.transform import resize

    volume = np.random.default_rng(0).random((20, 14, 2)).astype(np.float32)
    assert np.array_equal(slices.axial_slices(volume, 10)[1], resize(volume[..., 1], (10, 10)))
    mask = slices.axial_slices(volume > 0.5, 10)
    assert mask.dtype == bool and mask.shape == (2, 10, 10)


def test_network_input_is_keras_vgg19_preprocessing():
    from keras.applications.vgg19 import preprocess_input

    grey = np.random.default_rng(0).random((2, 4, 5)).astype(np.float32)
    colour = np.repeat(grey[..., np.newaxis] * 255, 3, axis=-1)
    assert np.allclose(network_input(grey), preprocess_input(colour.copy()), atol=1e-4)


def test_slices_on_disk_are_whole_or_absent(challenge, tmp_path):
    cohort = assign_splits(read_challenge(challenge), 4, 2, 2, seed=1)
    cohort = cohort[cohort.split.isin(["training", "validation"])]
    slices.write_slices(cohort, tmp_path / "arrays", 16)
    images, references, index = slices.open_slices(tmp_path / "arrays")
    assert isinstance(images, np.memmap) and images.shape == references.shape == (6 * 9, 16, 16)
    assert index.subject.nunique() == 6 and list(index.slice[:9]) == list(range(9))
    assert 0 <= images.min() and images.max() <= 1 and set(np.unique(references)) == {0, 1}
    assert np.allclose(index.lesion_density_pct, references.mean(axis=(1, 2)) * 100)

    broken = cohort.copy()
    broken.iloc[-1, broken.columns.get_loc("reference")] = str(tmp_path / "nowhere.nii.gz")
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "nowhere.nii.gz")):
        slices.write_slices(broken, tmp_path / "arrays", 16)
    assert np.array_equal(images, slices.open_slices(tmp_path / "arrays")[0]), "the old arrays are still there"
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "elsewhere")):
        slices.open_slices(tmp_path / "elsewhere")


def training(challenge):
    return assign_splits(read_challenge(challenge), 4, 0, 0, seed=1).query("split == 'training'")


def test_a_full_disk_is_noticed_before_any_work_and_the_old_slices_stay(challenge, tmp_path, monkeypatch):
    cohort, folder = training(challenge), tmp_path / "arrays"
    slices.write_slices(cohort, folder, 16)
    before = slices.open_slices(folder)[0].copy()
    monkeypatch.setattr(slices, "read_pair", lambda *paths: pytest.fail("work was begun"))
    with pytest.raises(OSError, match=naming(folder, os.strerror(errno.EFBIG))), full_disk(20_000):
        slices.write_slices(cohort, folder, 32)
    assert np.array_equal(before, slices.open_slices(folder)[0]) and list(tmp_path.iterdir()) == [folder]


def test_space_is_taken_and_not_only_promised(tmp_path):
    array = slices._reserved(tmp_path / "array.npy", np.float32, (100, 64, 64))
    assert (tmp_path / "array.npy").stat().st_blocks * 512 >= array.nbytes


def test_slices_that_cannot_take_their_place_leave_the_old_ones(challenge, tmp_path, monkeypatch):
    cohort, folder = training(challenge), tmp_path / "arrays"
    slices.write_slices(cohort, folder, 16)
    whole = Path.rename

    def refuse(path, target):
        if path.name.startswith(".unfinished"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match=naming(folder)):
        slices.write_slices(cohort, folder, 32)
    assert slices.open_slices(folder)[0].shape[1] == 16 and list(tmp_path.iterdir()) == [folder]
    monkeypatch.undo()
    slices.write_slices(cohort, folder, 32)
    assert slices.open_slices(folder)[0].shape[1] == 32 and list(tmp_path.iterdir()) == [folder]


def test_a_scan_that_may_not_be_read_is_named(open_folder):
    path = open_folder / "FLAIR.nii.gz"
    nibabel.save(scan(), path)
    path.chmod(0o000)
    for read in (read_flair, canonical_slice_count):
        with as_nobody(), pytest.raises(PermissionError, match=naming(path)):
            read(path)


def test_reference_on_another_grid_names_both_files(challenge, tmp_path):
    cohort = assign_splits(read_challenge(challenge), 1, 0, 0, seed=1)
    other = tmp_path / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 9), np.float32), np.eye(4)), other)
    cohort = cohort[cohort.split == "training"].assign(reference=str(other))
    with pytest.raises(ValueError, match=naming(cohort.flair.iloc[0], other)):
        slices.write_slices(cohort, tmp_path / "arrays", 16)


def test_a_reference_that_is_shifted_names_both_files(challenge, tmp_path):
    cohort = assign_splits(read_challenge(challenge), 1, 0, 0, seed=1).query("split == 'training'")
    whole = nibabel.load(cohort.reference.iloc[0])
    shifted = nibabel.affines.from_matvec(whole.affine[:3, :3], whole.affine[:3, 3] + [0, 0, 3])
    nibabel.save(nibabel.Nifti1Image(whole.dataobj, shifted), tmp_path / "other.nii.gz")
    cohort = cohort.assign(reference=str(tmp_path / "other.nii.gz"))
    with pytest.raises(ValueError, match=naming(cohort.flair.iloc[0], tmp_path / "other.nii.gz", "1 voxels")):
        slices.write_slices(cohort, tmp_path / "arrays", 16)
    assert not (tmp_path / "arrays").exists()


@pytest.mark.parametrize(("value", "shown"), [(3, "3.0"), (0.5, "0.5"), (np.nan, "nan"), (-1, "-1.0")])
def test_unknown_labels_are_refused_by_name(tmp_path, value, shown):
    mask = np.zeros((4, 5, 6), np.float32)
    mask[1, 1, 1], mask[2, 2, 2] = 1, value
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "wmh.nii.gz")
    with pytest.raises(ValueError, match=naming(tmp_path / "wmh.nii.gz", f"[{shown}]")):
        read_reference(tmp_path / "wmh.nii.gz")


@pytest.mark.parametrize(("side", "shown"), [(0, "0"), (np.nan, "nan"), (np.inf, "inf")])
def test_voxels_without_a_size_are_refused(tmp_path, side, shown):
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4))
    image.header["pixdim"][2] = side
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "scan.nii.gz")
    raw = bytearray(gzip.decompress((tmp_path / "scan.nii.gz").read_bytes()))
    raw[84:88] = np.float32(side).tobytes()  # pixdim[2], whatever saving made of it
    for code in (252, 254):
        raw[code : code + 2] = b"\0\0"
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(ValueError, match=naming(tmp_path / "scan.nii.gz", f"1 x {shown} x 1 mm")):
        canonical(tmp_path / "scan.nii.gz")


def bad_files(folder):
    whole = folder / "whole.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((20, 20, 20)).astype(np.float32), np.eye(4)), whole
    )
    (folder / "short.nii.gz").write_bytes(whole.read_bytes()[:5000])
    (folder / "text.nii.gz").write_bytes(gzip.compress(b"not a scan"))
    for name, values in {
        "flat": np.ones((4, 4)),
        "time": np.ones((3, 3, 3, 2)),
        "nan": np.full((3, 3, 3), np.nan),
        "inf": np.full((3, 3, 3), np.inf),
        "blank": np.zeros((3, 3, 3)),
        "even": np.full((3, 3, 3), 7),
    }.items():
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("short", ""),
        ("text", ""),
        ("flat", "(4, 4)"),
        ("time", "(3, 3, 3, 2)"),
        ("nan", "27"),
        ("inf", "27"),
        ("blank", ""),
        ("even", "7"),
    ],
)
def test_bad_scans_are_refused_by_name(tmp_path, name, shown):
    bad_files(tmp_path)
    with pytest.raises(ValueError, match=naming(tmp_path / f"{name}.nii.gz", shown)):
        read_flair(tmp_path / f"{name}.nii.gz")


def test_air_does_not_enter_the_level_of_tissue_however_noisy():
    values, random = head(), np.random.default_rng(0)
    level = tissue_level(values)
    noisy = np.hypot(*(clean + 0.1 * level * random.standard_normal(values.shape) for clean in (values, 0)))
    assert tissue_level(noisy) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("change", ["standardised", "wrapped"])
def test_values_far_below_zero_are_refused_and_a_constant_background_is_not(change):
    values = head()
    values[0] = -1024  # what some scanners write outside the field of view
    read_flair(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)))
    values = head()
    if change == "standardised":
        values = np.where(values > 0, (values - values.mean()) / values.std(), 0)
    else:
        values = np.where(values > np.percentile(values, 98), values - 2 * values.max(), values)
    with pytest.raises(ValueError, match=naming("(image in memory)", "%")):
        read_flair(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)))


def test_a_background_of_nan_is_zero_and_said(tmp_path):
    values = head().astype(np.float32)
    values[values <= 0] = np.nan
    values[:3] = np.nan
    with pytest.warns(Mended, match=naming("NaN")):
        image = read_flair(nibabel.Nifti1Image(values, np.eye(4)))
    assert np.isfinite(image.get_fdata()).all() and not image.get_fdata()[:3].any()


def test_a_mask_is_no_flair_and_an_inverted_one_no_reference(tmp_path):
    mask = (head() > head().mean()).astype(np.uint8)
    with pytest.raises(ValueError, match=naming("(image in memory)", "2 different values from 0 to 1")):
        read_flair(nibabel.Nifti1Image(mask, np.eye(4)))
    inverted = np.ones((9, 9, 9), np.uint8)
    inverted[4, 4, 4] = 0
    nibabel.save(nibabel.Nifti1Image(inverted, np.eye(4)), tmp_path / "wmh.nii.gz")
    with pytest.raises(ValueError, match=naming(tmp_path / "wmh.nii.gz")):
        read_reference(tmp_path / "wmh.nii.gz")
    nibabel.save(nibabel.Nifti1Image(2 * (inverted == 0).astype(np.uint8), np.eye(4)), tmp_path / "two.nii.gz")
    with pytest.warns(UserWarning, match=naming("two.nii.gz")):
        assert not read_reference(tmp_path / "two.nii.gz").get_fdata().any()


def test_one_scan_saved_twice_is_refused_in_two_splits_and_told_in_one(tmp_path):
    """The same voxels with another header and compression; and the mask of one subject with another's scan."""
    random, rows = np.random.default_rng(0), []
    for number in range(3):
        write_subject(tmp_path / str(number), *small_scan(random))
        paths = [str(tmp_path / str(number) / name) for name in ("pre/FLAIR.nii.gz", "wmh.nii.gz")]
        rows.append((str(number), "A", "training" if number < 2 else "external", *paths))
    cohort = pd.DataFrame(rows, columns=["subject", "centre", "split", "flair", "reference"])
    image = nibabel.load(cohort.flair[0])
    for number, error in ((1, False), (2, True)):
        again = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
        again.header["descrip"] = b"saved again"
        nibabel.save(again, cohort.flair[number])
        if error:
            with pytest.raises(ValueError, match=naming("0 (training)", "2 (external)", "same FLAIR")):
                slices.write_slices(cohort, tmp_path / "arrays", 16)
        else:
            with pytest.warns(UserWarning, match=naming("0 (training)", "1 (training)", "same FLAIR")):
                slices.write_slices(cohort, tmp_path / "arrays", 16)
    write_subject(tmp_path / "3", *small_scan(random))
    cohort.loc[[1, 2], "flair"] = [str(tmp_path / "3/pre/FLAIR.nii.gz")] * 2
    cohort = cohort[:2].assign(reference=cohort.reference[0])
    with pytest.warns(UserWarning, match=naming("0 (training)", "1 (training)", "same reference")):
        slices.write_slices(cohort, tmp_path / "arrays", 16)
