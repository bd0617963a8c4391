"""Metrics of small volumes, worked out by hand, and values of the challenge's scorer if available."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import naming
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wmhlib.evaluation.lesions import (
    SIZE_EDGES_MM3,
    SMALL_MM3,
    THRESHOLDS,
    lesion_records,
    operating_points,
    volumes_ml,
)
from wmhlib.metrics import METRICS, MaskPair, challenge_metrics, measured, metric, positive_class_density

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
GOLDEN_TABLE = GOLDEN / "challenge_metrics.csv"
PAIRS = pd.read_csv(GOLDEN_TABLE).pair.tolist() if GOLDEN_TABLE.is_file() else []
SHAPE = (7, 8, 9)
SPACING = (1.0, 1.5, 3.0)
AFFINE = np.diag([*SPACING, 1])
FIGURES = ["dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1"]


def image(values: np.ndarray, affine: np.ndarray = AFFINE) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(values, affine)


def volume(*voxels, value: float = 1, dtype=np.float32, affine=AFFINE) -> nibabel.Nifti1Image:
    """A 7x8x9 mask with the given voxels set."""
    values = np.zeros(SHAPE, dtype)
    for voxel in voxels:
        values[voxel] = value
    return image(values, affine)


def oblique(angle_deg: float = 25) -> np.ndarray:
    """Turned about the first and the third axis, with an origin away from zero."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    first = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    third = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return nibabel.affines.from_matvec(third @ first @ np.diag(SPACING), [-90, 30, 12])


def records(reference, result) -> pd.DataFrame:
    return lesion_records(MaskPair(reference, result))


# values of the challenge's scorer


@pytest.mark.skipif(not PAIRS, reason="no golden pairs next to the project")
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("pair", PAIRS)
def test_agrees_with_the_challenges_own_scorer(pair, in_memory):
    expected = pd.read_csv(GOLDEN_TABLE).set_index("pair").loc[pair]
    masks = [GOLDEN / "pairs" / pair / f"{name}.nii.gz" for name in ("wmh", "result")]
    if in_memory:
        masks = [image(np.asanyarray(part.dataobj), part.affine) for part in map(nibabel.load, masks)]
    got = challenge_metrics(*masks)
    assert list(got) == FIGURES and all(type(figure) is float for figure in got.values())
    assert got == pytest.approx(expected.to_dict(), rel=0, abs=1e-9, nan_ok=True)


@pytest.mark.skipif(not PAIRS, reason="no golden pairs next to the project")
def test_records_tell_the_same_recall_as_the_figures():
    folder = GOLDEN / "pairs" / "ms-25-label2"
    masks = str(folder / "wmh.nii.gz"), str(folder / "result.nii.gz")
    table, got = records(*masks), challenge_metrics(*masks)
    lesions = table[table.kind == "reference"]
    assert lesions.found.mean() == pytest.approx(got["lesion_recall"])
    reference = nibabel.load(masks[0])
    voxel_mm3 = abs(np.linalg.det(reference.affine[:3, :3]))
    voxels = np.count_nonzero(np.asarray(reference.dataobj) == 1)
    assert lesions.volume_mm3.sum() == pytest.approx(voxels * voxel_mm3)
    arrays = [np.ascontiguousarray(nibabel.load(mask).dataobj) for mask in masks]
    again = records(*(image(array, reference.affine) for array in arrays))
    order = ["kind", "k", "j", "i"]
    pd.testing.assert_frame_equal(
        table.sort_values(order, ignore_index=True), again.sort_values(order, ignore_index=True)
    )


# small cases worked out by hand


def test_two_lesions_one_found():
    got = challenge_metrics(volume((1, 1, 1), (1, 1, 2), (5, 5, 5)), volume((1, 1, 1), (3, 6, 7)))
    # sizes 3 and 2, one voxel shared; one of two lesions found, one of two detections right
    assert got["dice"] == pytest.approx(2 / 5) and got["avd_pct"] == pytest.approx(100 / 3)
    assert got["lesion_recall"] == 0.5 and got["lesion_f1"] == 0.5
    # to the result: 0, 3, sqrt(2² + 1.5² + 6²); to the reference: 0, sqrt(2² + 1.5² + 6²)
    far = np.sqrt(2**2 + 1.5**2 + 6**2)
    expected = max(np.percentile([0, 3, far], 95), np.percentile([0, far], 95))
    assert got["hd95_mm"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("end", "distance"), [((4, 1, 1), 3), ((1, 3, 1), 3), ((1, 1, 8), 21)])
def test_each_axis_has_its_own_voxel_size(end, distance):
    for affine in (AFFINE, oblique(), oblique(-70)):
        got = challenge_metrics(volume((1, 1, 1), affine=affine), volume(end, affine=affine))
        assert got["hd95_mm"] == pytest.approx(distance, abs=1e-5)


def test_a_sheared_grid_is_measured_through_its_affine():
    affine = AFFINE.copy()
    affine[0, 2] = 4  # a step along the third axis goes 3 mm up and 4 mm aside
    for end, distance in (((1, 1, 2), 5), ((2, 1, 2), np.hypot(1 + 4, 3)), ((2, 2, 1), np.hypot(1, 1.5))):
        got = challenge_metrics(volume((1, 1, 1), affine=affine), volume(end, affine=affine))
        assert got["hd95_mm"] == pytest.approx(distance)


def test_a_diagonal_touch_makes_one_lesion():
    got = challenge_metrics(volume((1, 1, 1), (2, 2, 2), (3, 3, 3)), volume((3, 3, 3)))
    assert got["lesion_recall"] == 1 and got["lesion_f1"] == 1


def test_boundaries_are_taken_in_plane():
    block = [(i, j, k) for i in range(1, 6) for j in range(1, 7) for k in (3, 4, 5)]
    rim = [(i, j, k) for i, j, k in block if i in (1, 5) or j in (1, 6)]
    assert challenge_metrics(volume(*block), volume(*rim))["hd95_mm"] == 0, "the same boundary in each slice"
    lower = [voxel for voxel in block if voxel[2] < 5]
    got = challenge_metrics(volume(*block), volume(*lower))
    assert got["hd95_mm"] == 3, "a third of the boundary lies one slice above"


@pytest.mark.parametrize("notch", [(2, 2, 4), (2, 4, 4), (4, 2, 4), (4, 4, 4)])
def test_the_corner_neighbours_count_in_the_erosion(notch):
    block = [(i, j, 4) for i in range(1, 6) for j in range(1, 6)]
    notched = [voxel for voxel in block if voxel != notch]
    # a notch at (2, 2) lays bare (2, 3), (3, 2) and at its corner (3, 3), which lie 1, 1.5 and 2 mm from the
    # block's rim of 16; a cross would spare (3, 3)
    got = challenge_metrics(volume(*notched), volume(*block))
    assert got["hd95_mm"] == pytest.approx(np.percentile([0] * 16 + [1, 1.5, 2], 95))


def test_outside_the_volume_counts_as_foreground():
    half = [(i, j, 4) for i in range(4) for j in range(8)]
    line = [(3, j, 4) for j in range(8)]
    assert challenge_metrics(volume(*half), volume(*line))["hd95_mm"] == 0, "only the row inside is boundary"
    whole = [(i, j, 4) for i in range(7) for j in range(8)]
    got = challenge_metrics(volume(*whole), volume(*line))
    assert np.isnan(got["hd95_mm"]), "a full slice has no boundary"
    assert got["dice"] == pytest.approx(2 * 8 / (56 + 8))


def test_a_result_under_other_pathology_alone_counts_for_nothing():
    under = [(i, j, k) for i in (4, 5) for j in (4, 5) for k in (4, 5)]
    values = np.asarray(volume((1, 1, 1)).dataobj).copy()
    values[4:6, 4:6, 4:6] = 2
    got = challenge_metrics(image(values), volume(*under))
    assert got == pytest.approx(
        {"dice": 0, "hd95_mm": np.nan, "avd_pct": 100, "lesion_recall": 0, "lesion_f1": 0}, nan_ok=True
    )
    both = challenge_metrics(image(values), volume((1, 1, 1), (4, 4, 4)))
    assert both == {"dice": 1, "hd95_mm": 0, "avd_pct": 0, "lesion_recall": 1, "lesion_f1": 1}
    assert records(image(values), volume(*under)).kind.tolist() == ["reference"]


def test_a_detection_that_reaches_into_other_pathology_keeps_its_rest():
    values = np.asarray(volume((1, 1, 1), (2, 1, 1)).dataobj).copy()
    values[3, 1, 1] = values[5, 1, 1] = 2
    result = volume(*[(i, 1, 1) for i in range(1, 7)])  # leaves (1, 1, 1), (2, 1, 1); (4, 1, 1); (6, 1, 1)
    got = challenge_metrics(image(values), result)
    assert got["dice"] == pytest.approx(2 * 2 / (2 + 4)) and got["avd_pct"] == 100
    assert got["lesion_recall"] == 1 and got["lesion_f1"] == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))
    assert got["hd95_mm"] == pytest.approx(np.percentile([0, 0, 2, 4], 95))


def test_empty_masks():
    nothing, some, nan = volume(), volume((1, 1, 1)), np.nan
    for reference, result, expected in [
        (some, nothing, (0, nan, 100, 0, 0)),
        (nothing, some, (0, nan, nan, nan, 0)),
        (nothing, nothing, (nan,) * 5),
        (volume((1, 1, 1), value=2), some, (nan,) * 5),
    ]:
        got = challenge_metrics(reference, result)
        assert got == pytest.approx(dict(zip(FIGURES, expected, strict=True)), nan_ok=True)
    assert positive_class_density(nothing) == 0
    empty, full = records(nothing, nothing), records(some, some)
    assert len(empty) == 0 and empty.columns.equals(full.columns) and empty.dtypes.equals(full.dtypes)
    assert records(nothing, some).kind.tolist() == ["false detection"]
    assert records(some, nothing).found.tolist() == [False]


def test_results_are_cut_by_how_they_are_stored(tmp_path):
    voxels = (1, 1, 1), (2, 1, 1)
    reference = volume(*voxels)

    def dice(result):
        return challenge_metrics(reference, result)["dice"]

    assert dice(volume(*voxels, value=0.5)) == 1 and dice(volume(*voxels, value=0.49)) == 0
    assert dice(volume(*voxels, value=7, dtype=np.uint8)) == 1
    assert dice(volume(*voxels, value=-1, dtype=np.int16)) == 0
    # probabilities of 0.6 and 0.4 stored as uint8 with a scale of 1/255: scaled integers are floating point
    for value, expected in ((0.6, 1), (0.4, 0)):
        scaled = volume(*voxels, value=round(value * 255), dtype=np.uint8)
        scaled.header.set_slope_inter(1, 0)
        nibabel.save(scaled, tmp_path / "scaled.nii")
        raw = bytearray((tmp_path / "scaled.nii").read_bytes())
        raw[112:116] = np.float32(1 / 255).tobytes()  # scl_slope
        (tmp_path / "scaled.nii").write_bytes(raw)
        assert nibabel.load(tmp_path / "scaled.nii").get_data_dtype() == np.uint8
        assert dice(tmp_path / "scaled.nii") == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_the_references_storage_does_not_matter(dtype, tmp_path):
    values = np.zeros(SHAPE)
    values[1:4, 1:4, 2:4] = values[5, 5, 5] = 1
    values[2, 5:7, 2] = 2
    result = volume((1, 1, 2), (2, 5, 2), (6, 6, 6))
    expected = challenge_metrics(image(values), result)
    for order in "CF":
        assert challenge_metrics(image(np.array(values, dtype, order=order)), result) == expected
    nibabel.save(image(values.astype(dtype)), tmp_path / "reference.nii.gz")
    assert challenge_metrics(str(tmp_path / "reference.nii.gz"), result) == expected
    assert positive_class_density(tmp_path / "reference.nii.gz") == pytest.approx(19 / 504 * 100)


def test_density_is_of_the_whole_volume():
    assert positive_class_density(volume((1, 1, 1), (2, 2, 2))) == pytest.approx(2 / (7 * 8 * 9) * 100)
    assert positive_class_density(volume((1, 1, 1), value=2)) == 0


def test_lesion_records_by_hand():
    affine = AFFINE.copy()
    affine[:3, 3] = -10, 20, 30
    reference = volume((2, 1, 1), (2, 1, 2), (3, 1, 2), (5, 5, 5), affine=affine)
    table = records(reference, volume((2, 1, 1), (3, 6, 7), affine=affine))
    columns = "kind lesion i j k x_mm y_mm z_mm slice volume_mm3 found fraction_covered"
    assert list(table.columns) == columns.split() and table.kind.tolist() == [
        "reference",
        "reference",
        "false detection",
    ]
    first = table[table.k < 4].iloc[0]
    assert (first.i, first.j, first.k) == pytest.approx((7 / 3, 1, 5 / 3))
    assert (first.x_mm, first.y_mm, first.z_mm) == pytest.approx((7 / 3 - 10, 21.5, 35))
    assert first.volume_mm3 == pytest.approx(3 * 4.5) and first.slice == 2
    assert first.found and first.fraction_covered == pytest.approx(1 / 3)
    second, false = table[table.k == 5].iloc[0], table[table.k == 7].iloc[0]
    assert not second.found and second.fraction_covered == 0 and second.slice == 5
    alone = records(volume((3, 4, 6)), volume((3, 4, 6))).iloc[0]
    assert (alone.i, alone.j, alone.k, alone.slice) == (3, 4, 6, 6), "indices are the volume's, not the box's"
    assert pd.isna(false.found) and pd.isna(false.fraction_covered) and (false.i, false.slice) == (3, 7)


# properties

voxels = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, 8)), min_size=1, max_size=40)
affines = st.sampled_from([AFFINE, oblique(), oblique(110)])


@settings(max_examples=100, deadline=None)
@given(voxels, voxels, voxels)
def test_figures_keep_their_bounds(first, second, other):
    values = np.asarray(volume(*other, value=2).dataobj).copy()
    values[tuple(np.array(first).T)] = 1
    got = challenge_metrics(image(values), volume(*second))
    assert all(0 <= got[name] <= 1 for name in ("dice", "lesion_recall", "lesion_f1")) and got["avd_pct"] >= 0
    diagonal = np.linalg.norm((np.array(SHAPE) - 1) * SPACING)
    assert np.isnan(got["hd95_mm"]) or 0 <= got["hd95_mm"] <= diagonal + 1e-9


@settings(max_examples=100, deadline=None)
@given(voxels, voxels, affines)
def test_without_other_pathology_the_two_masks_may_swap(first, second, affine):
    one, two = volume(*first, affine=affine), volume(*second, affine=affine)
    there, back = challenge_metrics(one, two), challenge_metrics(two, one)
    assert all(there[name] == pytest.approx(back[name]) for name in ("dice", "hd95_mm", "lesion_f1"))
    same = challenge_metrics(one, one)
    assert same == {"dice": 1, "hd95_mm": 0, "avd_pct": 0, "lesion_recall": 1, "lesion_f1": 1}


turns = st.tuples(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3)).map(np.transpose)


@settings(max_examples=150, deadline=None)
@given(voxels, voxels, affines, turns, turns)
def test_how_files_store_their_axes_does_not_matter(first, second, affine, turn, other):
    """Any axis may come first and run either way, in both masks alike or not: boundaries are those of axial slices."""
    reference, result = volume(*first, affine=affine), volume(*second, affine=affine)
    masks = reference.as_reoriented(turn), result.as_reoriented(other)
    got, turned = challenge_metrics(reference, result), challenge_metrics(*masks)
    assert turned == pytest.approx(got, rel=1e-6, nan_ok=True)  # 1e-6: an oblique grid is rounded to float32
    pd.testing.assert_frame_equal(records(*masks), records(reference, result))
    pd.testing.assert_frame_equal(operating_points(*masks), operating_points(reference, result))


@settings(max_examples=60, deadline=None)
@given(voxels, voxels, st.tuples(*[st.integers(1, 4)] * 3))
def test_margins_change_nothing_where_masks_keep_off_the_edge(first, second, margin):
    """Cutting to the box that holds both masks must not make edges."""
    padded = []
    for part in (first, second):
        values = np.pad(np.asarray(volume(*part).dataobj), 1)
        padded.append((image(values), image(np.pad(values, [(size, 0) for size in margin]))))
    (reference, wide_reference), (result, wide_result) = padded
    assert challenge_metrics(wide_reference, wide_result) == challenge_metrics(reference, result)


# errors


def save_both(folder: Path, reference: nibabel.Nifti1Image, result: nibabel.Nifti1Image) -> tuple[Path, Path]:
    paths = folder / "patient-3.nii.gz", folder / "answer-3.nii.gz"
    for part, path in zip((reference, result), paths, strict=True):
        nibabel.save(image(part.dataobj, part.affine), path)  # a copy, since saving gives an image its name
    return paths


FITS = volume((1, 1, 1))
FOUR = image(np.zeros((*SHAPE, 2), np.uint8))
UNFIT = {
    "shapes": (FITS, image(np.zeros((7, 8, 8), np.uint8)), ["(7, 8, 9)", "(7, 8, 8)"]),
    "affines": (FITS, volume(affine=np.diag([1, 1.53, 3, 1])), ["0.14"]),  # 7 voxels of 0.03 / 1.5
    "4D reference": (FOUR, FITS, ["reference", "4"]),
    "4D result": (FITS, FOUR, ["result", "4"]),
    "NaN reference": (volume((1, 1, 1), value=np.nan), FITS, ["reference", "NaN"]),
    "NaN result": (FITS, volume((1, 1, 1), value=np.nan), ["result", "NaN"]),
    "label 3": (volume((1, 1, 1), value=3, dtype=np.uint8), FITS, ["[3.0]"]),
    "label -1": (volume((1, 1, 1), value=-1, dtype=np.int16), FITS, ["[-1.0]"]),
    "a probability": (volume((1, 1, 1), value=0.75), FITS, ["[0.75]"]),
    "infinity": (volume((1, 1, 1), value=np.inf), FITS, ["[inf]"]),
}


@pytest.mark.parametrize(("reference", "result", "shown"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("measure", [challenge_metrics, records])
def test_masks_that_do_not_fit_are_refused_naming_both(tmp_path, measure, reference, result, shown):
    paths = save_both(tmp_path, reference, result)
    with pytest.raises(ValueError, match=naming(*paths, *shown)) as raised:
        measure(*paths)
    assert str(raised.value).count("\n") == 0 and str(raised.value).endswith(".")
    with pytest.raises(ValueError, match=naming(*shown)) as raised:
        measure(reference, result)
    assert str(raised.value).count("(image in memory)") >= 2


def test_affines_within_the_tolerance_pass():
    close = AFFINE.copy()
    close[:3, 3] += 0.09, 0.1, 0.2
    assert challenge_metrics(FITS, volume((1, 1, 1), affine=close))["dice"] == 1


def test_files_that_are_missing_or_broken_are_refused_naming_both(tmp_path):
    reference, result = save_both(tmp_path, FITS, FITS)
    for missing, kind in ((tmp_path / "nowhere.nii.gz", FileNotFoundError), (tmp_path, ValueError)):
        with pytest.raises(kind, match=naming(missing, reference)):
            challenge_metrics(reference, str(missing))
    whole = result.read_bytes()
    for broken in (b"no", whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:]):
        result.write_bytes(broken)
        with pytest.raises(ValueError, match=naming(reference, result)):
            challenge_metrics(reference, result)
    with pytest.raises(ValueError, match=naming(result)):
        positive_class_density(result)


# metrics and volumes of a pair


def test_a_metric_of_your_own_is_measured_with_the_others(registries):
    @metric("Oversegmentation (voxels)", higher_is_better=False, digits=0)
    def too_many(pair: MaskPair) -> float:
        return float(np.count_nonzero(pair.found & ~pair.lesion))

    masks = volume((1, 1, 1), (5, 5, 5)), volume((1, 1, 1), (3, 6, 7), (4, 6, 7))
    got = measured(MaskPair(*masks))
    assert list(got)[:5] == FIGURES and list(got)[-1] == "too_many" and got["too_many"] == 2
    assert list(challenge_metrics(*masks)) == FIGURES, "the challenge's five stay five"
    entry = METRICS["too_many"]
    assert (entry.title, entry.higher_is_better, entry.digits) == ("Oversegmentation (voxels)", False, 0)


def test_volumes_are_those_without_other_pathology():
    values = np.asarray(volume((1, 1, 1), (2, 1, 1)).dataobj).copy()
    values[5, 5, 5] = 2
    pair = MaskPair(image(values), volume((1, 1, 1), (5, 5, 5), (6, 6, 6), (6, 6, 7)))
    assert volumes_ml(pair) == pytest.approx({"reference_ml": 2 * 4.5 / 1000, "predicted_ml": 3 * 4.5 / 1000})


# thresholds other than 0.5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_every_cut_finds_what_its_components_hold(seed):
    """Component by component, with scipy's labels; no component of so small a volume is less than a tenth lesion but a flood."""
    random = np.random.default_rng(seed)
    labels = random.choice(np.array([0, 1, 2], np.uint8), SHAPE, p=(0.9, 0.08, 0.02))
    likely = random.random(SHAPE, np.float32) ** 3
    table = operating_points(image(labels), image(likely))
    assert tuple(table.threshold) == THRESHOLDS and 0.5 in THRESHOLDS
    lesions, count = ndimage.label(labels == 1, np.ones((3, 3, 3)))
    small = {number for number in range(1, count + 1) if (lesions == number).sum() * 4.5 < SMALL_MM3}
    for row in table.itertuples():
        mask = (likely >= row.threshold) & (labels != 2)
        parts, number = ndimage.label(mask, np.ones((3, 3, 3)))
        found, false = set(), 0
        for part in range(1, number + 1):
            held = lesions[parts == part]
            if np.count_nonzero(held) >= 0.1 * len(held):
                found |= set(held) - {0}
            else:
                false += 1
        assert (row.lesions, row.found, row.false_detections) == (count, len(found), false)
        assert (row.small_lesions, row.small_found) == (len(small), len(small & found))
        volumes = {number: (lesions == number).sum() * 4.5 for number in range(1, count + 1)}
        for low, high in itertools.pairwise(SIZE_EDGES_MM3):
            own = {number for number, mm3 in volumes.items() if low <= mm3 < high}
            by_size = getattr(row, f"lesions_{low:g}"), getattr(row, f"found_{low:g}")
            assert by_size == (len(own), len(own & found))
        voxels = (row.reference_voxels, row.marked_voxels, row.overlap_voxels)
        assert voxels == tuple(map(np.count_nonzero, (labels == 1, mask, mask & (labels == 1))))


def test_a_cut_that_floods_the_scan_finds_nothing():
    """Soft labels put the background at 0.1: every looser cut marks all there is, in one piece that touches every lesion."""
    lesion = volume((3, 4, 5))
    found = operating_points(lesion, image(np.where(lesion.get_fdata() == 1, 0.9, 0.1)))
    strict, loose = found[found.threshold > 0.1], found[found.threshold < 0.1]
    strict = strict[strict.threshold < 0.9]
    assert (strict.found == 1).all() and (strict.false_detections == 0).all()
    assert (loose.found == 0).all() and (loose.false_detections == 1).all()


def test_saturated_probabilities_find_the_same_at_every_cut():
    found = operating_points(volume((3, 4, 5), (3, 4, 8)), volume((3, 4, 5), (0, 0, 0)))
    assert (found.found == 1).all() and (found.false_detections == 1).all()


def test_cuts_of_a_scan_with_nothing_in_it():
    table = operating_points(volume(), volume())
    assert len(table) == len(THRESHOLDS) and not table.drop(columns="threshold").any(axis=None)
    with pytest.raises(ValueError, match=naming("(7, 8, 9)", "(3, 3, 3)")):
        operating_points(volume(), image(np.zeros((3, 3, 3), np.float32)))
