"""BIDS in and out: the table that a data set gives, and derivatives that the official validator accepts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import as_nobody, naming, small_scan

from wmhlib.intake import bids

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def describe(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    described = {"Name": "A set", "BIDSVersion": "1.9.0"} | more
    (folder / "dataset_description.json").write_text(json.dumps(described))


@pytest.fixture
def root(tmp_path):
    """Two subjects, one of them with two sessions; masks in a derivative; a brain mask that is no lesion."""
    root, masks = tmp_path / "set", tmp_path / "set" / "derivatives" / "manual"
    describe(root)
    describe(masks, DatasetType="derivative", GeneratedBy=[{"Name": "manual"}])
    random = np.random.default_rng(0)
    for stem, folder in (("sub-01", "sub-01"), ("sub-02_ses-a", "sub-02/ses-a"), ("sub-02_ses-b", "sub-02/ses-b")):
        flair, reference = small_scan(random)
        write(root / folder / "anat" / f"{stem}_FLAIR.nii.gz", flair)
        write(masks / folder / "anat" / f"{stem}_label-WMH_mask.nii.gz", reference)
        write(masks / folder / "anat" / f"{stem}_label-brain_mask.nii.gz", reference)
    (root / "participants.tsv").write_text("participant_id\tcentre\tsplit\nsub-01\tAlder\tn/a\nsub-02\tn/a\texternal\n")
    return root


def test_a_data_set_reads_into_the_cohort_table(root):
    table = bids.read_bids(root)
    assert bids.is_bids(root) and not bids.is_bids(root / "sub-01")
    assert table.subject.tolist() == ["01", "02_ses-a", "02_ses-b"]
    assert table.centre.tolist() == ["Alder", "A set", "A set"] and table.split.tolist() == ["", "external", "external"]
    for row in table.itertuples():
        assert row.flair.endswith("_FLAIR.nii.gz") and row.reference.endswith("_label-WMH_mask.nii.gz")
        stem = "sub-" + row.subject
        assert stem in row.flair and stem in row.reference


def test_the_study_reads_it_as_any_other_folder(root, settings, write_config):
    from wmhlib.cohort import load_cohort
    from wmhlib.study import open_study

    settings["split"] = {"training": None, "validation": 0, "holdout": 0, "seed": 1}
    table = load_cohort(open_study(write_config(settings), root)).set_index("subject")
    assert table.split.to_dict() == {"01": "training", "02_ses-a": "external", "02_ses-b": "external"}


def test_what_is_missing_is_named(root, tmp_path):
    mask = root / "derivatives/manual/sub-01/anat/sub-01_label-WMH_mask.nii.gz"
    shutil.copy(mask, mask.with_name("sub-01_label-lesion_mask.nii.gz"))
    with pytest.raises(
        ValueError, match=naming("sub-01_FLAIR.nii.gz", mask, mask.with_name("sub-01_label-lesion_mask.nii.gz"))
    ):
        bids.read_bids(root)
    mask.unlink()
    mask.with_name("sub-01_label-lesion_mask.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=naming("sub-01_FLAIR.nii.gz", "sub-01_label-WMH_mask.nii.gz")):
        bids.read_bids(root)
    describe(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "empty")):
        bids.read_bids(tmp_path / "empty")
    for text in ("{", "[]", '{"BIDSVersion": "1.9.0"}'):
        (tmp_path / "empty" / "dataset_description.json").write_text(text)
        with pytest.raises(ValueError, match=naming(tmp_path / "empty" / "dataset_description.json")):
            bids.read_bids(tmp_path / "empty")


def test_a_folder_that_cannot_be_read_is_named(root, open_folder):
    shutil.copytree(root, open_folder / "set")
    closed = open_folder / "set" / "sub-02" / "ses-a"
    closed.chmod(0o000)
    try:
        with as_nobody(), pytest.raises(PermissionError, match=naming(closed.resolve())):
            bids.read_bids(open_folder / "set")
    finally:
        closed.chmod(0o755)


def test_participants_without_ids_are_refused(root):
    (root / "participants.tsv").write_text("name\nsub-01\n")
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "participant_id")):
        bids.read_bids(root)


@pytest.fixture
def derivative(tmp_path):
    """Predictions of two subjects, one of them called as no BIDS label may be."""
    _, reference = small_scan(np.random.default_rng(0))
    mask = nibabel.Nifti1Image(reference.astype(np.uint8), AFFINE)
    for subject in ("01_ses-2", "p_<7>/../x"):
        bids.write_derivative(tmp_path / "out", subject, mask, "bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz", "a network")
    return tmp_path / "out"


def test_predictions_are_named_and_described(derivative):
    files = sorted(path.relative_to(derivative).as_posix() for path in derivative.rglob("*") if path.is_file())
    assert files == [
        "dataset_description.json",
        "sub-01/ses-2/anat/sub-01_ses-2_space-orig_label-WMH_mask.json",
        "sub-01/ses-2/anat/sub-01_ses-2_space-orig_label-WMH_mask.nii.gz",
        "sub-p7x/anat/sub-p7x_space-orig_label-WMH_mask.json",
        "sub-p7x/anat/sub-p7x_space-orig_label-WMH_mask.nii.gz",
    ]
    image = nibabel.load(derivative / files[2])
    assert np.array_equal(image.affine, AFFINE) and image.get_data_dtype() == np.uint8
    assert json.loads((derivative / files[1]).read_text())["Type"] == "Lesion"
    with pytest.raises(ValueError, match=naming("///")):
        bids.write_derivative(derivative, "///", image, "scan", "a network")


def test_segmented_scans_keep_their_labels(tmp_path):
    from wmhlib.apply.segment import write_bids

    rows = []
    for number, scan in enumerate(("sub-03_ses-b_FLAIR.nii.gz", "my scan.nii.gz", "broken.nii.gz")):
        write(tmp_path / f"{number}_mask.nii.gz", np.ones((3, 4, 5), np.uint8))
        status = "failed" if "broken" in scan else "done"
        rows.append({"scan": f"/scans/{scan}", "status": status, "mask": str(tmp_path / f"{number}_mask.nii.gz")})
    write_bids(pd.DataFrame(rows), tmp_path / "out", Path("models/model.keras"))
    masks = sorted(path.name for path in (tmp_path / "out").rglob("*_mask.nii.gz"))
    assert masks == ["sub-03_ses-b_space-orig_label-WMH_mask.nii.gz", "sub-1_space-orig_label-WMH_mask.nii.gz"]
    assert errors(tmp_path / "out") == []


def errors(folder) -> list[dict]:
    """What the official validator finds wrong."""
    validator = Path(sys.executable).parent / "bids-validator-deno"
    done = subprocess.run([validator, "--json", folder], capture_output=True, text=True, timeout=120)
    return [issue for issue in json.loads(done.stdout)["issues"]["issues"] if issue["severity"] == "error"]


def test_the_official_validator_accepts_them(derivative):
    assert errors(derivative) == []
    (derivative / "sub-01" / "ses-2" / "anat" / "sub-01_mask.txt").write_text("not BIDS")
    assert errors(derivative) != []
