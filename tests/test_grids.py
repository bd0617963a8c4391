"""Volumes that store the same voxels with different axes give the same slices, numbers and pictures."""

import itertools

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, naming, small_scan, write_subject
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from wmhlib import slices
from wmhlib.cohort import read_folder
from wmhlib.evaluation import scoring
from wmhlib.evaluation.lesions import lesion_records, operating_points
from wmhlib.evaluation.threshold import tune_threshold
from wmhlib.intake.grids import canonical, laid_over
from wmhlib.intake.scans import read_pair
from wmhlib.metrics import MaskPair, challenge_metrics, measured
from wmhlib.report import pictures, viewers
from wmhlib.study import open_study

CODES = ["LPS", "PSR", "IPL", "ASR"]


def stored_along(image, codes: str) -> nibabel.Nifti1Image:
    """The same volume in the same place, its axes stored along `codes`."""
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    values = np.asanyarray(image.dataobj)
    return nibabel.Nifti1Image(apply_orientation(values, turn), image.affine @ inv_ornt_aff(turn, values.shape))


def store_along(path, codes: str, to=None) -> None:
    nibabel.save(stored_along(nibabel.load(path), codes), to or path)


def same_scores(got: dict, expected: dict) -> None:
    assert got == pytest.approx(expected, rel=1e-6, nan_ok=True)


def boxes(shape=(20, 22, 12)) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A reference of two lesions, and a result whose first one is cut short in the upper slices."""
    masks = np.zeros((2, *shape), np.uint8)
    masks[:, 3:12, 4:15, 2:9] = masks[0, 16, 18, 10] = 1
    masks[1, 3:12, 4:15, 6:9] = 0
    return tuple(nibabel.Nifti1Image(mask, np.diag([1, 1.25, 3, 1])) for mask in masks)


@pytest.mark.parametrize("codes", [*map("".join, itertools.product("RL", "AP", "SI"))])
def test_metrics_do_not_depend_on_how_a_file_stores_its_axes(codes):
    reference, result = boxes()
    expected, records = challenge_metrics(reference, result), lesion_records(MaskPair(reference, result))
    assert expected["hd95_mm"] == 9, "three slices lie between the upper end of the reference and that of the result"
    for order in itertools.permutations(codes):
        masks = [stored_along(mask, "".join(order)) for mask in (reference, result)]
        same_scores(challenge_metrics(*masks), expected)
        same_scores(challenge_metrics(reference, masks[1]), expected)
        got = lesion_records(MaskPair(*masks))
        pd.testing.assert_frame_equal(got, records)
        assert sorted(got.slice) == [2, 10], "counted from the feet, whichever axis and way that is in the file"


def rotated(degrees: float, axis: int) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn, (first, second) = np.eye(3), [other for other in range(3) if other != axis]
    turn[first, first] = turn[second, second] = cos
    turn[first, second], turn[second, first] = -sin, sin
    return nibabel.affines.from_matvec(turn @ np.diag([1, 1.25, 3]), [-10, -20, -30])


@pytest.mark.parametrize("degrees", [-46, -45, -44, 14, 45, 45.0001, 90, 135])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_oblique_masks_are_turned_alike(degrees, axis):
    """At 45 degrees rounding decides which axis is nearest; the reference's choice holds for both."""
    reference, result = (np.asarray(mask.dataobj) for mask in boxes())
    affine = rotated(degrees, axis)
    rounded = affine.astype(np.float32).astype(float)
    rounded[:3, :3] *= 1 + 1e-6 * np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    one, two = nibabel.Nifti1Image(reference, affine), nibabel.Nifti1Image(result, rounded)
    expected = challenge_metrics(one, nibabel.Nifti1Image(result, affine))
    assert expected["dice"] == pytest.approx(2 * 396 / (396 + 694)), "396 of 694 voxels"
    for codes in ("RAS", "PSR", "LIP"):
        same_scores(challenge_metrics(one, stored_along(two, codes)), expected)


def moved(shift=(0, 0, 0), degrees=0.0, scale=1.0) -> nibabel.Nifti1Image:
    """A mask of 200 x 200 x 50 voxels of 1 x 1.25 x 3 mm, moved by fractions of a voxel, turned or stretched a little."""
    affine = rotated(degrees, 2) @ np.diag([scale, scale, 1, 1])
    affine[:3, 3] += affine[:3, :3] @ shift
    values = np.zeros((200, 200, 50), np.uint8)
    values[100, 100, 25] = 1
    return nibabel.Nifti1Image(values, affine)


@pytest.mark.parametrize(
    ("other", "apart"),
    [
        (moved((0.09, -0.09, 0.09)), None),
        (moved((0, 0, 0.11)), "0.11"),
        (moved((0.5, 0.5, 0.5)), "0.5"),
        (moved(scale=1.0004), None),  # 199 steps of 0.0004
        (moved(scale=1.0006), "0.119"),  # no entry of the affine differs by 0.001
        (moved(degrees=0.02), None),  # 199 * 1.25 mm * 0.00035 = 0.087 mm
        (moved(degrees=0.03), "0.13"),
    ],
)
def test_grids_are_one_where_their_corners_lie_within_a_tenth_of_a_voxel(tmp_path, other, apart):
    grid = canonical(moved())
    for codes in ("RAS", "SPL"):
        nibabel.save(stored_along(other, codes), tmp_path / "other.nii")
        if apart is None:
            over = laid_over(tmp_path / "other.nii", grid, "both")
            assert np.array_equal(over.affine, grid.affine) and np.asarray(over.dataobj)[100, 100, 25] == 1
            assert challenge_metrics(moved(), tmp_path / "other.nii")["dice"] == 1
        else:
            with pytest.raises(ValueError, match=naming("both", apart)):
                laid_over(tmp_path / "other.nii", grid, "both")
            with pytest.raises(ValueError, match=naming(tmp_path / "other.nii", apart)):
                challenge_metrics(moved(), tmp_path / "other.nii")


def test_a_shape_that_no_turn_makes_fit_is_refused():
    with pytest.raises(ValueError, match=naming("both", "(2, 3, 4)", "(4, 3, 2)")):
        laid_over(
            nibabel.Nifti1Image(np.zeros((4, 3, 2)), np.eye(4)),
            canonical(nibabel.Nifti1Image(np.zeros((2, 3, 4)), np.eye(4))),
            "both",
        )


# a whole study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same five subjects twice: references stored as their FLAIRs are, and along axes of their own."""
    found = []
    for name in ("alike", "otherwise"):
        root, random = tmp_path_factory.mktemp(name), np.random.default_rng(0)
        for number, place in enumerate(["training/A"] * 4 + ["test/B"]):
            write_subject(root / place / str(number), *small_scan(random))
        found.append(root)
    references = sorted(found[1].rglob("wmh.nii.gz"))
    for path, codes in zip(references, [*CODES, "AIL"], strict=True):
        store_along(path, codes)
    return found


def test_slices_and_ceilings_are_the_same(folders, tmp_path):
    arrays = []
    for root in folders:
        slices.write_slices(read_folder(root), tmp_path / root.name, 32, slices.Preparation("head"))
        arrays.append(slices.open_slices(tmp_path / root.name))
    for one, other in zip(arrays[0][:2], arrays[1][:2], strict=True):
        assert np.array_equal(one, other) and one.any()
    pd.testing.assert_frame_equal(arrays[0][2], arrays[1][2])
    ceilings = [slices.ceilings(read_folder(root), 32, slices.PAPER) for root in folders]
    pd.testing.assert_frame_equal(*ceilings)


def test_the_threshold_is_tuned_on_the_same_voxels(folders):
    alike, otherwise = (tune_threshold(read_folder(root)) for root in folders)
    assert alike == otherwise and alike[1] > 0.9, "the lesion is far brighter than tissue"


@pytest.fixture
def studies(folders, settings, write_config, tmp_path, monkeypatch):
    """Both folders as a study, with masks of one loss, a little shifted; those of the second study are stored along PSR."""
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    settings["losses"] = {"dice": {"labels": "hard", "epsilon": 1}}
    made = []
    for root in folders:
        settings |= {"study": root.name, "data": {"root": str(root)}}
        study, unseen = open_study(write_config(settings)), read_folder(root)
        for row in unseen.itertuples():
            flair, reference = read_pair(row.flair, row.reference)
            mask = nibabel.Nifti1Image(np.roll(np.asarray(reference.dataobj), -1, axis=2), flair.affine)
            path = study.mask("dice", 1, row.subject)
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(stored_along(mask, "LPS" if root is folders[0] else "PSR"), path)
        made.append((study, unseen.assign(split=unseen.split.where(unseen.split != "", "holdout"))))
    return made


def test_scores_are_the_same(studies):
    """Of a loss's masks and of a second observer's, each stored in its own way."""
    for (study, _), codes in zip(studies, ("LPS", "SRA"), strict=True):
        place = study.data / "additional_annotations" / "observer_o3" / "test" / "B" / "4"
        place.mkdir(parents=True)
        store_along(study.data / "test" / "B" / "4" / "wmh.nii.gz", codes, place / "result.nii.gz")
    alike, otherwise = (scoring.score_masks(study, unseen, [("dice", 1)]) for study, unseen in studies)
    for name, table in alike.items():
        pd.testing.assert_frame_equal(table.drop(columns="study"), otherwise[name].drop(columns="study"))
    table = alike["per_subject"].set_index(["loss", "subject"])
    assert table.dice["observer_o3", "4"] == 1 and table.dice["dice", "4"] == pytest.approx(2 / 3)
    assert table.hd95_mm["dice", "4"] == 3, "shifted by a slice"


def test_operating_points_are_the_same(folders):
    for alike, otherwise in zip(*(read_folder(root).itertuples() for root in folders), strict=True):
        flair = nibabel.load(alike.flair)
        likely = nibabel.Nifti1Image(flair.get_fdata() / 1000, flair.affine)
        expected = operating_points(alike.reference, likely)
        assert expected.found.max() == 1 and expected.false_detections.max() > 0
        for codes in ("LPS", "ASL"):
            pd.testing.assert_frame_equal(operating_points(otherwise.reference, stored_along(likely, codes)), expected)


def test_viewers_and_pictures_are_the_same(studies):
    drawn = []
    for study, unseen in studies:
        row = unseen.set_index("subject", drop=False).loc["4"]
        mask = study.mask("dice", 1, "4")
        lesions = lesion_records(MaskPair(row.reference, mask)).assign(
            loss="dice", seed=1, subject="4", centre="B", split="external"
        )
        drawn.append(
            (
                viewers.pack_subject(row, {"dice": mask}),
                viewers.pack_lesions(lesions, unseen, lambda *names, mask=mask: mask, ["dice"], 1),
                pictures.sample(study, unseen, "4", ["dice"], 1),
            )
        )
    (scan, explorer, sample), other = drawn
    assert scan == other[0] and explorer == other[1]
    assert np.array_equal(sample["grey"], other[2]["grey"])
    for name, mask in sample["masks"].items():
        assert np.array_equal(mask, other[2]["masks"][name]) and mask.any()


def test_a_mask_of_another_place_is_not_drawn_over_a_scan(studies):
    (study, unseen), _ = studies
    row = unseen.set_index("subject", drop=False).loc["4"]
    mask = study.mask("dice", 1, "4")
    whole = nibabel.load(mask)
    shifted = nibabel.affines.from_matvec(whole.affine[:3, :3], whole.affine[:3, 3] + [0, 0, 3])
    nibabel.save(nibabel.Nifti1Image(np.asarray(whole.dataobj), shifted), mask)
    with pytest.raises(ValueError, match=naming(row.flair, mask)):
        viewers.pack_subject(row, {"dice": mask})
    with pytest.raises(ValueError, match=naming(row.flair, mask)):
        pictures.sample(study, unseen, "4", ["dice"], 1)


# real scans

REAL = SHARED / "real" / "test"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="no real scans next to the project")
@pytest.mark.parametrize("place", ["MSLesSeg/P14", "ISBI/01"])
def test_a_real_mask_stored_otherwise_is_prepared_and_scored_alike(tmp_path, place):
    flair, reference = REAL / place / "pre" / "FLAIR.nii.gz", REAL / place / "wmh.nii.gz"
    straight, mask = read_pair(flair, reference)
    prepared = [np.asarray(image.dataobj) for image in (straight, mask)]
    result = nibabel.Nifti1Image(np.roll(prepared[1], (2, 0, 1), axis=(0, 1, 2)), straight.affine)
    expected = measured(MaskPair(reference, result)), lesion_records(MaskPair(reference, result))
    assert 0 < expected[0]["dice"] < 1
    image = nibabel.load(reference)
    versions = {codes: stored_along(image, codes) for codes in ("PSR", "LAS")}
    versions["one more axis"] = nibabel.Nifti1Image(np.asanyarray(image.dataobj)[..., None], image.affine)
    for name, version in versions.items():
        path = tmp_path / f"{name}.nii.gz"
        nibabel.save(version, path)
        for before, after in zip(prepared, read_pair(flair, path), strict=True):
            assert np.array_equal(before, after.dataobj), name
        same_scores(measured(MaskPair(path, result)), expected[0])
        pd.testing.assert_frame_equal(lesion_records(MaskPair(path, result)), expected[1], rtol=1e-4, atol=1e-4)
