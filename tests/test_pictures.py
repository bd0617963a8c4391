"""Raster pictures: orientation of slices, outlines, samples."""

import base64
import io

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import scores, small_scan, write_subject
from PIL import Image

from wmhlib.cohort import load_cohort
from wmhlib.evaluation.names import colour
from wmhlib.evaluation.scoring import NO_SEED
from wmhlib.intake.nifti import save_image
from wmhlib.report import viewers
from wmhlib.report.pictures import (
    augmented_row,
    disputed,
    looks,
    middle_and_worst,
    montage,
    outlined,
    png_uri,
    round_trip_row,
    sample,
)
from wmhlib.slices import PAPER
from wmhlib.study import open_study


def rgb(name: str) -> tuple[int, ...]:
    """The colour of a loss in a picture."""
    return tuple(bytes.fromhex(colour(name).removeprefix("#")))


def test_slices_are_seen_from_the_feet_with_anterior_up():
    grey = np.zeros((8, 12))
    grey[7, 11] = 1  # the patient's right, anterior
    picture = outlined(grey, {}, side=12)
    assert picture.shape == (12, 8, 3)
    assert np.unravel_index(picture[..., 0].argmax(), (12, 8)) == (0, 0), "right of the patient is left in the picture"


def test_an_outline_has_the_losss_colour_and_an_open_inside():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    picture = outlined(np.zeros((20, 20)), {"siamese": mask}, side=40)
    assert tuple(picture[10, 20]) == rgb("siamese") and tuple(picture[20, 20]) == (0, 0, 0)


def test_a_picture_survives_its_address():
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    kind, _, encoded = png_uri(picture).partition(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), picture)


def test_a_montage_has_a_row_a_scan_and_a_column_a_mask():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    none = {"siamese": 0 * mask}
    row = {"grey": np.zeros((20, 20)), "masks": {"reference": mask} | none, "missed": none, "false": none}
    drawn = np.asarray(montage([row, row], side=200))
    assert drawn.shape[1] == 400 and drawn.shape[0] > 400
    tiles = drawn[-400:].reshape(2, 200, 2, 200, 3).transpose(0, 2, 1, 3, 4)  # (scan, mask, rows, columns, 3)
    coloured = (np.ptp(tiles.astype(int), axis=-1) > 50).any(axis=(2, 3))
    assert coloured.tolist() == [[True, False], [True, False]]


@pytest.fixture
def study(settings, write_config, tmp_path, monkeypatch):
    """A study of one loss over two subjects, of whom the external one, `e`, is segmented: its reference, moved by a voxel."""
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    for seed, place in enumerate(("test/C/e", "training/A/t")):
        write_subject(tmp_path / "scans" / place, *small_scan(np.random.default_rng(seed), (17, 18, 9)))
    settings["data"]["root"] = str(tmp_path / "scans")
    settings |= {"losses": {"dice": {}}, "split": {"training": 1, "validation": 0, "holdout": 0, "seed": 1}}
    study = open_study(write_config(settings))
    reference = nibabel.load(tmp_path / "scans" / "test" / "C" / "e" / "wmh.nii.gz")
    moved = np.roll(np.asarray(reference.dataobj), 1, axis=0).astype(np.uint8)
    save_image(nibabel.Nifti1Image(moved, reference.affine), study.mask("dice", 1, "e"))
    return study


def test_a_disputed_slice_shows_what_a_loss_misses_and_marks_wrongly(study):
    """A second lesion in the topmost slices is detected by one loss alone, whose other mark is false."""
    subjects = load_cohort(study)
    row = subjects.set_index("subject").loc["e"]
    image = nibabel.load(row.reference)
    reference = np.asarray(image.dataobj).copy()
    reference[12:14, 13:15, 7] = 1
    nibabel.save(nibabel.Nifti1Image(reference, image.affine), row.reference)
    marked = reference.copy()
    marked[4, 13, 7] = 1
    save_image(nibabel.Nifti1Image(marked.astype(np.uint8), image.affine), study.mask("siamese", 1, "e"))
    row = disputed(study, subjects, "e", ["dice", "siamese"], 1)
    assert row["masks"]["reference"].sum() == row["missed"]["dice"].sum() == 4 and not row["missed"]["siamese"].any()
    assert row["false"]["siamese"].sum() == 1 and not row["masks"]["dice"].any(), "the slice of the second lesion"
    names = [name for name, _ in looks(row)]
    assert names == ["FLAIR", "Reference", "Dice", "Siamese"]
    agreed = disputed(study, subjects, "e", ["dice"], 1)["masks"]
    assert agreed["reference"].sum() == 9, "the slice with most lesion, where losses do not differ"


def test_a_sample_is_the_slice_with_most_lesion_cut_to_the_masks(study):
    shown = sample(study, load_cohort(study), "e", ["dice"], 1)
    assert list(shown["masks"]) == ["reference", "dice"]
    assert shown["masks"]["reference"].sum() == 9, "a block of three by three voxels"
    assert {mask.shape for mask in shown["masks"].values()} == {shown["grey"].shape}
    assert shown["grey"].shape < (17, 18) and 0 <= shown["grey"].min() and shown["grey"].max() <= 1
    apart = np.argwhere(shown["masks"]["dice"]).mean(axis=0) - np.argwhere(shown["masks"]["reference"]).mean(axis=0)
    assert np.abs(apart).tolist() == [1, 0]


def test_a_scan_without_lesions_can_be_a_sample(study):
    subjects = load_cohort(study)
    path = subjects.set_index("subject").reference["e"]
    reference = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(0 * np.asarray(reference.dataobj), reference.affine), path)
    shown = sample(study, subjects, "e", ["dice"], 1)
    assert not shown["masks"]["reference"].any() and shown["grey"].max() > 0.5


def uris(figure) -> list[str]:
    return [trace.source for trace in figure.data]


def test_changes_are_drawn_with_image_and_mask_together():
    image, mask = np.random.default_rng(0).random((16, 16)), np.zeros((16, 16), bool)
    mask[2:5, 2:5] = True

    def flipped(image, mask, random):
        return image[::-1], mask[::-1]

    plain, *draws = uris(augmented_row(image, mask, [flipped], draws=2))
    assert draws == [png_uri(outlined(image[::-1], {"reference": mask[::-1]}))] * 2 and plain not in draws
    assert (
        set(uris(augmented_row(image, mask, [flipped, flipped])))
        == set(uris(augmented_row(image, mask, [])))
        == {plain}
    )


def test_a_round_trip_is_shown_in_four_pictures(study):
    row = next(load_cohort(study).itertuples())
    pictures = uris(round_trip_row(row, 32, PAPER))
    assert len(set(pictures)) == 4
    assert round_trip_row(row, 32, PAPER).layout.annotations[0].text.startswith(f"{row.centre}, {row.subject}")


def test_the_middle_and_the_worst_scan_of_each_split_are_the_examples():
    table = scores(dice=[0.1, 0.9, 0.5], siamese=[0.3, 0.8, 0.5])
    assert middle_and_worst(table) == [("external", "middle", "2"), ("external", "worst", "0")]
    alone = table[table.subject == "1"].assign(split="holdout")
    assert middle_and_worst(alone) == [("holdout", "worst", "1")]
    assert [split for split, *_ in middle_and_worst(pd.concat([table, alone]))] == ["external", "external", "holdout"]


def test_results_are_looked_at_with_the_masks_and_metrics_of_the_seed(study):
    subjects = load_cohort(study).query("subject == 'e'")
    table = scores(dice=[0.25], global_threshold=[0.1]).assign(subject="e")
    table.loc[1, "seed"] = NO_SEED
    viewer = viewers.results_viewer(study, subjects, table, ["e"], ["dice"])
    assert list(viewer.subjects) == ["external e, seed 1"] and viewer.exported == ["external e, seed 1"]
    assert [mask["name"] for mask in viewer.scan["masks"]] == ["reference", "dice"]
    assert viewer.scan["figures"]["rows"][0]["cells"][1] == "0.25"
