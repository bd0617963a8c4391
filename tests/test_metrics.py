"""Small volumes with answers worked out by hand, and the challenge's own figures where they lie beside the project."""

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from wmhlib.metrics import challenge_metrics, lesion_records, positive_class_density

GOLDEN = SHARED / "golden"
SPACING = (1.0, 1.5, 3.0)


def volume(*voxels: tuple[int, int, int], value: float = 1, dtype=np.float32, spacing=SPACING) -> nibabel.Nifti1Image:
    """A 7x8x9 mask with the given voxels set."""
    values = np.zeros((7, 8, 9), dtype)
    for voxel in voxels:
        values[voxel] = value
    return nibabel.Nifti1Image(values, np.diag([*spacing, 1]))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden pairs beside the project")
def test_agrees_with_the_challenges_own_scorer():
    golden = pd.read_csv(GOLDEN / "challenge_metrics.csv").set_index("pair")
    for pair, expected in golden.iterrows():
        got = challenge_metrics(GOLDEN / "pairs" / pair / "wmh.nii.gz", GOLDEN / "pairs" / pair / "result.nii.gz")
        assert got == pytest.approx(expected.to_dict(), rel=1e-7, abs=1e-9, nan_ok=True), pair


def test_two_lesions_one_found():
    got = challenge_metrics(volume((1, 1, 1), (1, 1, 2), (5, 5, 5)), volume((1, 1, 1), (3, 6, 7)))
    # sizes 3 and 2, one voxel shared; one of two lesions found, one of two detections right
    assert got["dice"] == pytest.approx(2 / 5) and got["avd_pct"] == pytest.approx(100 / 3)
    assert got["lesion_recall"] == 0.5 and got["lesion_f1"] == 0.5
    # to the result: 0, 3, sqrt(2² + 1.5² + 6²); to the reference: 0, sqrt(2² + 1.5² + 6²)
    far = np.sqrt(2**2 + 1.5**2 + 6**2)
    expected = max(np.percentile([0, 3, far], 95), np.percentile([0, far], 95))
    assert got["hd95_mm"] == pytest.approx(expected)


def test_a_diagonal_touch_makes_one_lesion():
    got = challenge_metrics(volume((1, 1, 1), (2, 2, 2), (3, 3, 3)), volume((3, 3, 3)))
    assert got["lesion_recall"] == 1 and got["lesion_f1"] == 1


def test_boundaries_are_taken_in_plane():
    block = [(i, j, 4) for i in range(1, 6) for j in range(1, 7)]
    inner = [(i, j, 4) for i in range(2, 5) for j in range(2, 6)]
    rim = [voxel for voxel in block if voxel not in inner]
    assert challenge_metrics(volume(*block), volume(*rim))["hd95_mm"] < 3, "a full block has only its rim as boundary"
    assert challenge_metrics(volume(*block), volume(*block))["hd95_mm"] == 0


def test_a_result_under_other_pathology_alone_counts_for_nothing():
    reference = volume((1, 1, 1))
    values = np.asarray(reference.dataobj).copy()
    values[4:6, 4:6, 4:6] = 2
    reference = nibabel.Nifti1Image(values, reference.affine)
    got = challenge_metrics(reference, volume(*[(i, j, k) for i in (4, 5) for j in (4, 5) for k in (4, 5)]))
    assert got["dice"] == 0 and got["lesion_recall"] == 0 and got["avd_pct"] == 100 and np.isnan(got["hd95_mm"])
    both = challenge_metrics(reference, volume((1, 1, 1), (4, 4, 4)))
    assert both == {"dice": 1, "hd95_mm": 0, "avd_pct": 0, "lesion_recall": 1, "lesion_f1": 1}


def test_empty_masks():
    nothing, some = volume(), volume((1, 1, 1))
    got = challenge_metrics(some, nothing)
    assert got["dice"] == 0 and got["avd_pct"] == 100 and got["lesion_recall"] == 0 and got["lesion_f1"] == 0
    assert np.isnan(got["hd95_mm"])
    got = challenge_metrics(nothing, some)
    assert got["dice"] == 0 and got["lesion_f1"] == 0
    assert np.isnan([got[name] for name in ("hd95_mm", "avd_pct", "lesion_recall")]).all()
    assert np.isnan(list(challenge_metrics(nothing, nothing).values())).all()


def test_results_are_cut_by_how_they_are_stored():
    reference = volume((1, 1, 1), (2, 1, 1))
    assert challenge_metrics(reference, volume((1, 1, 1), (2, 1, 1), value=0.5))["dice"] == 1
    assert challenge_metrics(reference, volume((1, 1, 1), (2, 1, 1), value=0.49))["dice"] == 0
    assert challenge_metrics(reference, volume((1, 1, 1), (2, 1, 1), value=7, dtype=np.uint8))["dice"] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_the_references_storage_does_not_matter(dtype):
    reference = volume((1, 1, 1), (5, 5, 5), dtype=dtype)
    assert challenge_metrics(reference, volume((1, 1, 1)))["dice"] == pytest.approx(2 / 3)


def test_density_is_of_the_whole_volume():
    assert positive_class_density(volume((1, 1, 1), (2, 2, 2))) == pytest.approx(2 / (7 * 8 * 9) * 100)
    assert positive_class_density(volume((1, 1, 1), value=2)) == 0


def test_lesion_records_by_hand():
    table = lesion_records(volume((1, 1, 1), (1, 1, 2), (5, 5, 5)), volume((1, 1, 1), (3, 6, 7)))
    assert list(table.kind) == ["reference", "reference", "false detection"]
    first, second, false = (row for _, row in table.iterrows())
    assert (first.i, first.j, first.k) == (1, 1, 1.5) and (first.x_mm, first.y_mm, first.z_mm) == (1, 1.5, 4.5)
    assert first.volume_mm3 == pytest.approx(9) and first.found and first.fraction_covered == 0.5
    assert not second.found and second.fraction_covered == 0 and second.slice == 5
    assert pd.isna(false.found) and false.slice == 7


bits = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, 8)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(bits, bits, st.sampled_from(["LAS", "RPS", "RAI", "ARS", "LPI"]))
def test_symmetry_bounds_and_indifference_to_orientation(first, second, codes):
    reference, result = volume(*first), volume(*second)
    got = challenge_metrics(reference, result)
    assert got["dice"] == challenge_metrics(result, reference)["dice"]
    assert all(0 <= got[name] <= 1 for name in ("dice", "lesion_recall", "lesion_f1"))
    turn = nibabel.orientations.axcodes2ornt(codes)  # the third axis stays axial: boundaries are taken in plane
    turned = challenge_metrics(reference.as_reoriented(turn), result.as_reoriented(turn))
    assert turned == pytest.approx(got, nan_ok=True)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (nibabel.Nifti1Image(np.zeros((7, 8, 8), np.uint8), np.diag([*SPACING, 1])), "Shapes"),
        (volume(spacing=(1, 1, 3)), "Affines differ"),
        (nibabel.Nifti1Image(np.zeros((7, 8, 9, 2), np.uint8), np.diag([*SPACING, 1])), "4 dimensions"),
        (volume((1, 1, 1), value=np.nan), "NaN"),
    ],
)
def test_masks_that_do_not_fit_are_refused_naming_both(tmp_path, result, message):
    nibabel.save(volume((1, 1, 1)), tmp_path / "reference.nii.gz")
    nibabel.save(result, tmp_path / "result.nii.gz")
    with pytest.raises(ValueError, match=message) as raised:
        challenge_metrics(tmp_path / "reference.nii.gz", tmp_path / "result.nii.gz")
    assert "reference.nii.gz" in str(raised.value) and "result.nii.gz" in str(raised.value)


def test_unknown_labels_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"labels \[3\.0\] beside 0, 1 and 2"):
        challenge_metrics(volume((1, 1, 1), value=3), volume())
    (tmp_path / "broken.nii.gz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken\.nii\.gz cannot be read"):
        challenge_metrics(tmp_path / "broken.nii.gz", volume())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        challenge_metrics(tmp_path / "nowhere.nii.gz", volume())
