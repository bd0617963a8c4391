"""What the viewers pack for the browser: which voxel lands where, what stays of a scan, what a page carries."""

import base64
import io

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import scores, small_scan, write_subject
from PIL import Image

from wmhlib.evaluation.lesions import lesion_records
from wmhlib.intake.challenge import read_challenge
from wmhlib.metrics import METRICS, MaskPair
from wmhlib.report import viewers

AFFINE = np.array([[1.0, 0, 0, -10], [0, 1.5, 0, -20], [0, 0, 3, -30], [0, 0, 0, 1]])


def unpacked(scan: dict, which: str) -> np.ndarray:
    """(i, j, k) of a packed volume, as the browser reads it."""
    kind, _, encoded = scan[which].partition(",")
    assert kind == "data:image/png;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    nx, ny, nz = scan["shape"]
    columns = scan["columns"]
    parts = [picture[k // columns * ny :, k % columns * nx :][:ny, :nx].T for k in range(nz)]
    return np.stack(parts, axis=2)


@pytest.fixture
def flair() -> np.ndarray:
    """A grey block in air, 12 x 14 x 9, with four bright voxels."""
    volume = np.zeros((20, 22, 11), np.float32)
    volume[4:16, 4:18, 1:10] = 100
    volume[13:15, 15:17, 3] = 200
    return volume


def test_voxels_land_in_their_place_with_their_millimetres(flair):
    mask = flair > 150
    scan = viewers.pack_scan(flair, AFFINE, {"reference": mask, "dice": 0 * mask, "siamese": mask}, "s")
    grey, codes = unpacked(scan, "grey"), unpacked(scan, "codes")
    assert scan["shape"] == list(grey.shape) == [14, 16, 11], "one voxel of margin; no margin beyond the scan"
    assert np.array_equal(codes, np.where(grey > 200, 0b101, 0)), "one bit a mask, the reference first"
    assert codes[tuple(scan["opening"])] and np.count_nonzero(codes) == 4
    there = nibabel.affines.apply_affine(np.array(scan["affine"]), np.argwhere(codes).mean(axis=0))
    assert np.allclose(there, nibabel.affines.apply_affine(AFFINE, [13.5, 15.5, 3]))


def test_large_scans_are_shrunk_in_plane_and_stay_in_their_place():
    flair = np.zeros((80, 100, 4), np.float32)
    flair[2:78, 2:98] = 50
    mask = np.zeros(flair.shape, bool)
    mask[60:70, 20:30, 2] = True
    scan = viewers.pack_scan(flair, np.diag([0.5, 0.5, 8, 1]), {"reference": mask}, "s", max_pixels=49)
    assert max(scan["shape"][:2]) == 49 and scan["shape"][2] == 4
    centre = np.argwhere(unpacked(scan, "codes")).mean(axis=0)
    there = nibabel.affines.apply_affine(np.array(scan["affine"]), centre)
    assert np.allclose(there, [0.5 * 64.5, 0.5 * 24.5, 16], atol=0.3)
    assert scan["spacing"][2] == 8 and scan["spacing"][0] == pytest.approx(1.0, rel=0.05)


def test_figures_stand_beside_the_scan_and_undefined_ones_say_so(flair):
    table = scores(dice=[0.5]).set_index("loss")
    table["hd95_mm"] = np.nan
    scan = viewers.pack_scan(flair, AFFINE, {"reference": flair > 150, "dice": flair > 150}, "<s>", table)
    assert scan["figures"]["columns"] == [metric.title for metric in METRICS.values()] and scan["title"] == "<s>"
    assert scan["figures"]["rows"] == [{"name": "dice", "cells": ["Dice", "0.50", "undefined", "10.0", "0.50", "0.50"]}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": {"reference": np.zeros((2, 2, 2))}}, "reference.*a scan.*2, 2, 2.*20, 22, 11"),
        ({"flair": np.zeros((20, 22, 11))}, "a scan"),
        ({"masks": {str(number): np.zeros((20, 22, 11)) for number in range(9)}}, "9.*a scan.*8"),
    ],
)
def test_what_cannot_be_shown_is_refused(flair, change, message):
    with pytest.raises(ValueError, match=message):
        viewers.pack_scan(**{"flair": flair, "affine": AFFINE, "masks": {}, "called": "a scan"} | change)


def test_a_scan_without_any_mask_can_be_looked_at(flair):
    scan = viewers.pack_scan(flair, AFFINE, {}, "s")
    assert scan["masks"] == [] and not unpacked(scan, "codes").any()


def test_subjects_are_packed_when_they_are_chosen(flair):
    asked = []

    def packer(name):
        return lambda: asked.append(name) or viewers.pack_scan(flair, AFFINE, {}, name)

    viewer = viewers.SliceViewer({name: packer(name) for name in "abc"}, exported=2)
    assert asked == ["a"] and viewer.scan["title"] == "a"
    viewer.wanted = "c"
    assert asked == ["a", "c"] and viewer.scan["title"] == "c"
    viewer.wanted = "nobody"
    assert viewer.scan["title"] == "c"
    data, _ = viewer._repr_mimebundle_()
    assert [scan["title"] for scan in data[viewers.MIME]["scans"]] == ["a", "b"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_scan_that_cannot_be_read_says_so_and_the_next_is_shown(flair):
    gone = {"gone": lambda: nibabel.load("gone.nii.gz")}
    viewer = viewers.SliceViewer({name: lambda: viewers.pack_scan(flair, AFFINE, {}, "s") for name in "ab"} | gone)
    viewer.wanted = "gone"
    assert viewer.scan["title"] == "gone" and "gone.nii.gz" in viewer.scan["problem"]
    viewer.wanted = "b"
    assert viewer.scan["title"] == "b" and "problem" not in viewer.scan


def test_memory_stays_flat_over_many_choices(flair):
    viewer = viewers.SliceViewer({name: lambda: viewers.pack_scan(flair, AFFINE, {}, "s") for name in "ab"})
    for number in range(20):
        viewer.wanted = "ab"[number % 2]
    assert set(viewer.trait_values()) >= {"scan", "names", "wanted"} and len(str(viewer.scan)) < 20_000


@pytest.fixture
def lesions(tmp_path) -> dict:
    """The explorer's data of one subject: found by Siamese in one of two seeds, missed by Dice."""
    flair, reference = small_scan(np.random.default_rng(0))
    write_subject(tmp_path / "test" / "C" / "7", flair, reference)
    empty = tmp_path / "empty.nii.gz"
    nibabel.save(nibabel.Nifti1Image(0 * reference, np.diag([-1.0, -1.0, 3.0, 1.0])), empty)
    subjects = read_challenge(tmp_path)
    whole = subjects.reference.iloc[0]
    masks = {("dice", 1): empty, ("dice", 2): empty, ("siamese", 1): whole, ("siamese", 2): empty}
    keys = {"split": "external", "centre": "C", "subject": "7"}
    tables = [
        lesion_records(MaskPair(whole, mask)).assign(loss=loss, seed=seed, **keys)
        for (loss, seed), mask in masks.items()
    ]
    return viewers.pack_lesions(
        pd.concat(tables), subjects, lambda loss, name: masks[loss, 1], ["dice", "siamese"], seed=1
    )


def test_a_lesion_is_one_row_with_the_share_of_seeds_that_found_it(lesions):
    assert len(lesions["rows"]) == 1 and lesions["rows"][0]["found"] == [0, 0.5]
    assert lesions["rows"][0]["volume"] == pytest.approx(27 * 3)


def test_of_many_lesions_those_are_listed_on_which_losses_disagree(lesions, monkeypatch):
    assert lesions["all"] == 1
    rows = [
        ("large, found by both", 900.0, 1.0, 1.0),
        ("medium, missed by one", 60.0, 0.0, 1.0),
        ("small, missed by one", 30.0, 1.0, 0.0),
        ("middling, missed by both", 90.0, 0, 0),
    ]
    table = pd.DataFrame(rows, columns=["name", "volume_mm3", "dice", "siamese"]).assign(split="holdout")
    monkeypatch.setattr(viewers, "LISTED_LESIONS", 3)
    assert viewers.most_telling(table, ["dice", "siamese"]).name.tolist() == [rows[n][0] for n in (2, 1, 0)]
    table.loc[1, "split"] = "external"
    assert viewers.most_telling(table, ["dice", "siamese"]).name.tolist() == [rows[n][0] for n in (1, 2, 0)]
    monkeypatch.setattr(viewers, "LISTED_LESIONS", 1)
    assert viewers.most_telling(table, ["dice", "siamese"]).name.tolist() == [rows[1][0]]


def test_the_lesion_is_in_the_middle_of_its_picture(lesions):
    picture = lesions["rows"][0] | {"shape": [viewers.SIDE_PX, viewers.SIDE_PX, 1], "columns": 1}
    codes = unpacked(picture, "codes")[..., 0]
    assert codes.max() == 0b101, "reference and siamese; dice is empty"
    middle = (viewers.SIDE_PX - 1) / 2
    assert np.allclose(np.argwhere(codes).mean(axis=0), middle, atol=1)
    assert unpacked(picture, "grey")[..., 0][tuple(np.argwhere(codes)[0])] > 150
