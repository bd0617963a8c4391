"""Reading BIDS data sets as tables, and writing derivatives that the official validator accepts."""

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

from wmhlib.cohort import read_folder
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
    shutil.copy(mask, mask.with_name("sub-01_space-orig_label-WMH_mask.nii.gz"))
    with pytest.raises(
        ValueError, match=naming("sub-01_FLAIR.nii.gz", mask, mask.with_name("sub-01_space-orig_label-WMH_mask.nii.gz"))
    ):
        bids.read_bids(root)
    shutil.rmtree(root / "derivatives" / "manual" / "sub-01")
    shutil.rmtree(root / "derivatives" / "manual" / "sub-02")
    with pytest.raises(FileNotFoundError, match=naming("sub-01_FLAIR.nii.gz", "label-WMH_mask.nii.gz")):
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


def people(root, text, **options):
    """`participants.tsv` with this text; returns what is read of the splits."""
    (root / "participants.tsv").write_text(text, **options)
    return bids.read_bids(root).set_index("subject").split.to_dict()


@pytest.mark.parametrize(
    "text",
    [
        "participant_id\tsplit\n01\tn/a\n02\texternal\n",
        "participant_id\tsplit\nsub-1\tn/a\nsub-002\texternal\n",
        "participant_id\tsplit\n1\tn/a\nSUB-2\texternal\n",
        "participant_id\tsplit\nsub-01 \tn/a\n sub-02 \t external \n",
        "Participant_ID\tSplit \r\nsub-01\tN/A\r\nsub-02\tExternal\r\n\r\n",
        "\ufeffparticipant_id\tage\tSPLIT\nsub-01\t70\t\nsub-02\t71\tEXTERNAL\n",
        "split\tparticipant_id\ntraining\tsub-01\nexternal\tsub-02\n",
    ],
    ids=["no sub-", "other zeros", "numbers", "spaces", "capitals", "byte order mark", "other order"],
)
def test_ids_and_splits_are_read_as_people_write_them(root, text):
    assert people(root, text, encoding="utf-8", newline="") == {
        "01": "",
        "02_ses-a": "external",
        "02_ses-b": "external",
    }


@pytest.mark.parametrize("column", ["centre", "Center", "SITE"])
def test_centres_are_read_from_any_of_their_columns(root, column):
    people(root, f"participant_id\t{column}\nsub-01\t Alder \nsub-02\tN/A\n")
    assert bids.read_bids(root).set_index("subject").centre.to_dict() == {
        "01": "Alder", "02_ses-a": "A set", "02_ses-b": "A set",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "line", "named"),
    [
        ("sub-01\tn/a\nsub-03\texternal\n", 3, "sub-03"),
        ("sub-01\tn/a\nsub-01\texternal\n", 3, "sub-01"),
        ("sub-02\tn/a\n2\texternal\n", 3, "sub-02"),
        ("sub-01\ttest\n", 2, "test"),
        ("sub-01\tholdout\n", 2, "holdout"),
        ("sub-01\texternal\textra\n", 2, "3"),
        ("sub-01\n", 2, "1 cells"),
        ("\texternal\n", 2, "''"),
    ],
)
def test_a_row_that_cannot_be_told_is_refused_by_its_line(root, rows, line, named):
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", f"line {line}", named)):
        people(root, f"participant_id\tsplit\n{rows}")


@pytest.mark.parametrize(
    "text",
    [
        "subset\nsub-01\tExternal\n",
        "group\nsub-01\ttest\n",
        "age\texternal\nsub-01\t7\tyes\n",
        "site\nsub-01\texternal\n",
        "set\nsub-01\tHold-out\n",
        "cohort\nsub-01\texternal validation\n",
        "use\nsub-01\ttest_set\n",
        *(
            f"use\nsub-01\t{words}\n"
            for words in ("Test cases 2", "held-out", "external hospital", "validation_1", "val")
        ),
        "is_external\nsub-01\ttrue\n",
        "is_external\nsub-01\t1\n",
    ],
)
def test_a_split_in_another_column_is_refused(root, text):
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "split")):
        people(root, f"participant_id\t{text}")


def test_a_row_that_is_too_short_moves_no_value_into_another_column(root):
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "line 2", "2 cells for 3 columns")):
        people(root, "participant_id\tsite\tsplit\nsub-01\texternal\nsub-02\tAlder\tn/a\n")


def test_a_mask_need_not_name_the_only_session(root):
    anat, other = root / "sub-01" / "anat", root / "sub-01" / "ses-1" / "anat"
    other.parent.mkdir()
    anat.rename(other)
    (other / "sub-01_FLAIR.nii.gz").rename(other / "sub-01_ses-1_FLAIR.nii.gz")
    assert "01_ses-1" in set(bids.read_bids(root).subject)
    shutil.copytree(other, root / "sub-01" / "ses-2" / "anat")
    (root / "sub-01/ses-2/anat/sub-01_ses-1_FLAIR.nii.gz").rename(root / "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz")
    assert not bids.read_bids(root).subject.str.startswith("01").any(), "whose it is cannot be told"


def test_zeros_in_front_decide_only_where_they_are_not_needed(root):
    shutil.copytree(root / "sub-01", root / "sub-1")
    (root / "sub-1/anat/sub-01_FLAIR.nii.gz").rename(root / "sub-1/anat/sub-1_FLAIR.nii.gz")
    assert people(root, "participant_id\tsplit\nsub-01\texternal\nsub-1\tn/a\nsub-02\t\n")["01"] == "external"
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "line 2", "sub-1", "sub-01")):
        people(root, "participant_id\tsplit\nsub-001\texternal\n")


@pytest.mark.parametrize("name", ["Participants.tsv", "participants.csv", "participants.xlsx", "participants.tsv.gz"])
def test_a_table_under_another_name_is_not_passed_over(root, name):
    (root / "participants.tsv").rename(root / name)
    with pytest.raises(ValueError, match=naming(root / name, root / "participants.tsv")):
        bids.read_bids(root)


@pytest.mark.parametrize(
    "header", ["participant_id\tsplit\tSplit", "participant_id,split", "participant_id\tparticipant_id"]
)
def test_columns_that_cannot_be_told_are_refused(root, header):
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "participant_id")):
        people(root, f"{header}\n")


def annex(path):
    """What git-annex leaves of a file whose content it has not fetched."""
    path.unlink()
    path.symlink_to("../../.git/annex/objects/aB/cD/MD5E-s9--0.nii.gz/MD5E-s9--0.nii.gz")


def notes(table) -> str:
    return "\n".join(f"{what}: {why}" for what, why in table.attrs["notes"])


def test_whoever_has_no_row_or_no_mask_is_told(root):
    people(root, "participant_id\nsub-02\n")
    (root / "sub-04" / "anat").mkdir(parents=True)
    shutil.rmtree(root / "derivatives" / "manual" / "sub-02" / "ses-a")
    table = bids.read_bids(root)
    assert table.subject.tolist() == ["01", "02_ses-b"]
    told = dict(table.attrs["notes"])
    assert {"set/sub-01", "set/sub-04", "set/sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"} <= set(told)


def test_content_that_was_not_fetched_is_told_from_what_is_closed(root):
    flair, mask = (
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "derivatives/manual/sub-02/ses-a/anat/sub-02_ses-a_label-WMH_mask.nii.gz",
    )
    annex(root / flair)
    (root / mask).write_text("/annex/objects/MD5E-s9--0.nii.gz\n")
    table = bids.read_bids(root)
    assert table.subject.tolist() == ["02_ses-b"]
    assert f"datalad get {root / flair}" in notes(table) and f"datalad get {root / mask}" in notes(table)
    (root / "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileNotFoundError, match=naming(root, f"datalad get {root / flair}")):
        bids.read_bids(root)
    annex(root / "participants.tsv")
    with pytest.raises(FileNotFoundError, match=naming(f"datalad get {root / 'participants.tsv'}")):
        bids.read_bids(root)


def test_a_missing_description_is_what_is_asked_for(root):
    (root / "derivatives/manual/dataset_description.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=naming(root / "derivatives/manual/dataset_description.json", "GeneratedBy")
    ):
        bids.read_bids(root)
    (root / "dataset_description.json").unlink()
    with pytest.raises(FileNotFoundError, match=naming(root / "dataset_description.json", "BIDSVersion")):
        read_folder(root)
    describe(root)
    (root / "training").mkdir()
    with pytest.raises(ValueError, match=naming(root, "training/", "dataset_description.json")):
        read_folder(root)


def test_own_masks_are_never_references(root):
    """After notebook 07 wrote masks of all subjects into the data set, the one that nobody outlined stays unscored."""
    shutil.rmtree(root / "derivatives" / "manual" / "sub-01")
    _, reference = small_scan(np.random.default_rng(0))
    mask = nibabel.Nifti1Image(reference.astype(np.uint8), AFFINE)
    for subject in ("01", "02_ses-a", "02_ses-b"):
        bids.write_derivative(root / "derivatives" / "ours", subject, mask, "a scan", "a network")
    table = bids.read_bids(root)
    assert table.subject.tolist() == ["02_ses-a", "02_ses-b"] and not table.reference.str.contains("ours").any()
    assert "set/derivatives/ours" in dict(table.attrs["notes"])
    shutil.rmtree(root / "derivatives" / "ours" / "sub-02")
    describe(root / "derivatives" / "ours", GeneratedBy=[{"Name": "wmhlib"}, {"Name": "Manual"}])
    table = bids.read_bids(root).set_index("subject")
    assert "ours" in table.loc["01"].reference, "once people have corrected them, as BIDS lets them say"


def test_masks_of_people_go_before_those_of_programs_which_are_told(root):
    describe(root / "derivatives" / "manual", GeneratedBy=[{"Name": "Manual", "Description": "Outlined"}])
    shutil.copytree(root / "derivatives" / "manual", root / "derivatives" / "tool")
    describe(root / "derivatives" / "tool", GeneratedBy={"Name": "Some Tool"})
    table = bids.read_bids(root)
    assert table.reference.str.contains("manual").all() and "set/derivatives/tool" in dict(table.attrs["notes"])


def test_masks_of_people_go_before_those_of_programs_on_a_better_grid(root):
    describe(root / "derivatives" / "manual", GeneratedBy=[{"Name": "Manual"}])
    shutil.copytree(root / "derivatives" / "manual", root / "derivatives" / "tool")
    describe(root / "derivatives" / "tool", GeneratedBy=[{"Name": "Some Tool"}])
    mask = root / "derivatives/manual/sub-01/anat/sub-01_label-WMH_mask.nii.gz"
    image = nibabel.load(mask)
    shifted = image.affine.copy()
    shifted[0, 3] += 0.3
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), shifted), mask)
    assert bids.read_bids(root).reference.str.contains("manual").all()


def test_a_mask_whose_sidecar_names_a_network_is_no_reference(root):
    mask = root / "derivatives/manual/sub-01/anat/sub-01_label-WMH_mask.json"
    mask.write_text(json.dumps({"network_sha256": "0"}))
    with pytest.raises(ValueError, match=naming("sub-01_label-WMH_mask.nii.gz")):
        read_folder(root)


@pytest.mark.parametrize("place", ["derivatives/manual", ".", "new"])
def test_predictions_are_not_written_among_the_files_of_others(root, place):
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), AFFINE)
    if place == "new":
        write(root / "new" / "training" / "A" / "1" / "wmh.nii.gz", np.ones((3, 4, 5), np.uint8))
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match=naming(root / place)):
        bids.write_derivative(root / place, "01", image, "a scan", "a network")
    assert sorted(root.rglob("*")) == before


def test_several_scans_of_a_session_give_one_row_per_mask(root):
    """The mask goes with the scan whose grid it is on, else with that of the fewest entities; scans with masks of their
    own are rows of their own, and no two have one name."""
    anat, masks = root / "sub-01/anat", root / "derivatives/manual/sub-01/anat"
    flair, reference = small_scan(np.random.default_rng(1), (12, 13, 8))
    (anat / "sub-01_FLAIR.nii.gz").rename(anat / "sub-01_acq-2D_FLAIR.nii.gz")
    write(anat / "sub-01_acq-3D_FLAIR.nii.gz", flair)
    shutil.copy(anat / "sub-01_acq-2D_FLAIR.nii.gz", anat / "sub-01_acq-2D_rec-norm_FLAIR.nii.gz")
    shutil.copy(anat / "sub-01_acq-2D_FLAIR.nii.gz", anat / "sub-01_acq-2D_ce-gad_FLAIR.nii.gz")
    table = bids.read_bids(root).set_index("subject")
    assert list(table.index) == ["01", "02_ses-a", "02_ses-b"]
    assert table.loc["01"].flair == str(anat / "sub-01_acq-2D_FLAIR.nii.gz")
    assert {what for what, _ in table.attrs["notes"] if "sub-01" in what} == {
        f"set/sub-01/anat/sub-01_{name}_FLAIR.nii.gz" for name in ("acq-3D", "acq-2D_rec-norm", "acq-2D_ce-gad")
    }
    write(masks / "sub-01_acq-3D_label-WMH_mask.nii.gz", reference)
    table = bids.read_bids(root).set_index("subject")
    assert list(table.index) == ["01_acq-2D", "01_acq-3D", "02_ses-a", "02_ses-b"]
    assert "acq-3D" in table.loc["01_acq-3D"].reference and "acq-3D" not in table.loc["01_acq-2D"].reference


def test_the_mask_on_the_scans_grid_is_its_reference_however_it_is_stored(root):
    mask = root / "derivatives/manual/sub-01/anat/sub-01_label-WMH_mask.nii.gz"
    image = nibabel.load(mask)
    turned = image.as_reoriented(
        nibabel.orientations.axcodes2ornt(("P", "S", "R"), (("R", "L"), ("A", "P"), ("I", "S")))
    )
    nibabel.save(turned, mask.with_name("sub-01_space-orig_label-WMH_mask.nii.gz"))
    mask.unlink()
    write(mask.with_name("sub-01_space-MNI152NLin2009cAsym_label-WMH_mask.nii.gz"), np.ones((9, 11, 10), np.uint8))
    table = bids.read_bids(root)
    assert "space-orig" in table.reference.iloc[0]
    assert "MNI152" in notes(table)


def test_scans_and_masks_in_other_places_are_told(root):
    strays = ["sub-01/sub-01_FLAIR.nii.gz", "sub-01/anat/old/sub-01_FLAIR.nii.gz", "sub-01/anat/flair.nii.gz"]
    strays += ["sub-01_FLAIR.nii.gz", "01/anat/01_FLAIR.nii", "sub-01/anat/sub-01_label-WMH_mask.nii.gz"]
    strays += ["derivatives/manual/sub-01/anat/sub-01_desc-lesion_mask.nii.gz"]
    strays += ["derivatives/manual/sub-07/anat/sub-07_label-WMH_mask.nii.gz"]
    for stray in strays:
        write(root / stray, np.ones((3, 4, 5), np.uint8))
    (root / "sub-05").symlink_to(root / "nowhere")
    (root / "derivatives" / "empty").mkdir()
    table = bids.read_bids(root)
    assert table.subject.tolist() == ["01", "02_ses-a", "02_ses-b"]
    assert {f"set/{stray}" for stray in (*strays, "sub-05", "derivatives/empty")} <= set(dict(table.attrs["notes"]))


def test_linked_subjects_and_derivatives_are_read_and_a_second_link_is_refused(root, tmp_path):
    for place in ("sub-01", "derivatives/manual", "sub-02/ses-b"):
        (root / place).rename(tmp_path / place.replace("/", "-"))
        (root / place).symlink_to(tmp_path / place.replace("/", "-"))
    assert bids.read_bids(root).subject.tolist() == ["01", "02_ses-a", "02_ses-b"]
    (root / "sub-03").symlink_to(root / "sub-02")
    with pytest.raises(ValueError, match=naming(root / "sub-02", root / "sub-03")):
        bids.read_bids(root)


def test_nii_and_nii_gz_are_read_alike(root):
    for path in (
        root / "sub-01/anat/sub-01_FLAIR.nii.gz",
        root / "derivatives/manual/sub-01/anat/sub-01_label-WMH_mask.nii.gz",
    ):
        nibabel.save(nibabel.load(path), path.with_suffix(""))
        path.unlink()
    assert bids.read_bids(root).subject.tolist() == ["01", "02_ses-a", "02_ses-b"]
    path = root / "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"
    nibabel.save(nibabel.load(path), path.with_suffix(""))
    table = bids.read_bids(root)
    assert table.subject.tolist() == ["01", "02_ses-a", "02_ses-b"] and path.name in notes(table)


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


def test_half_masks_and_masks_in_the_folder_of_another_are_no_references(root):
    masks = root / "derivatives" / "manual"
    whole = masks / "sub-01" / "anat" / "sub-01_label-WMH_mask.nii.gz"
    for name in ("sub-01/anat/sub-01_hemi-L_label-WMH_mask.nii.gz", "sub-02/ses-a/anat/sub-01_label-WMH_mask.nii.gz"):
        whole.rename(masks / name)
        table = bids.read_bids(root)
        assert "01" not in set(table.subject) and Path(name).name in notes(table)
        (masks / name).rename(whole)
    with pytest.raises(ValueError, match=naming(whole, "join them into one.")) as caught:
        shutil.copy(whole, whole.with_name("sub-01_space-orig_label-WMH_mask.nii.gz"))
        bids.read_bids(root)
    assert "Manual" not in str(caught.value), "both are of people already"


def test_only_magnitude_images_are_scans(root):
    anat = root / "sub-01" / "anat"
    shutil.copy(anat / "sub-01_FLAIR.nii.gz", anat / "sub-01_part-phase_FLAIR.nii.gz")
    (anat / "sub-01_FLAIR.nii.gz").rename(anat / "sub-01_part-mag_FLAIR.nii.gz")
    table = bids.read_bids(root)
    assert table.flair[table.subject == "01"].item().endswith("part-mag_FLAIR.nii.gz")
    assert "magnitude" in notes(table)


def test_the_folder_of_derivatives_may_be_written_in_capitals(root):
    (root / "derivatives").rename(root / "Derivatives")
    assert len(bids.read_bids(root)) == 3


@pytest.mark.parametrize("centre", ["NA", "nan"])
def test_a_missing_centre_is_the_data_set(root, centre):
    people(root, f"participant_id\tcentre\nsub-01\t{centre}\nsub-02\tAlder\n")
    assert bids.read_bids(root).centre.tolist() == ["A set", "Alder", "Alder"]


def test_words_of_a_role_are_harmless_where_the_split_is_filled_or_they_mean_something_else(root):
    text = (
        "participant_id\tsplit\tgroup\ttest\tsite\nsub-01\ttraining\ttest\t1\tTest\nsub-02\texternal\texternal\t0\tB\n"
    )
    assert people(root, text)["01"] == ""
    assert people(root, "participant_id\tqc\tadl\nsub-01\tvalid\tindependent\nsub-02\tvalid\tn/a\n")["01"] == ""
    assert "participants.tsv" not in notes(bids.read_bids(root)), "it was read"
    assert people(root, "participant_id\tgroup\ttest\nsub-01\ttest-retest\t27\nsub-02\tcontrol\t1\n")["01"] == ""


def test_a_table_of_participants_lists_no_more_and_no_fewer_than_the_subjects_where_it_matters(root):
    table = "participant_id\tsplit\nsub-01\tn/a\nsub-02\tn/a\n"
    assert people(root, f"{table}sub-09\tn/a\n")["01"] == "" and "sub-09" in notes(bids.read_bids(root))
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "sub-01")):
        people(root, "participant_id\tsplit\nsub-02\texternal\n")


def test_a_quote_that_is_not_closed_swallows_no_row(root):
    text = 'participant_id\tsplit\tnote\nsub-01\tn/a\t"start\nsub-02\texternal\tend"\n'
    with pytest.raises(ValueError, match=naming(root / "participants.tsv", "spans lines")):
        people(root, text)


@pytest.mark.parametrize("name", ["participant.tsv", "participants.tab", "participants.tsv~", "participants"])
def test_tables_of_participants_with_other_names_are_refused(root, name):
    (root / "participants.tsv").rename(root / name)
    with pytest.raises(ValueError, match=naming(root / name, root / "participants.tsv")):
        bids.read_bids(root)


def test_tables_that_are_not_read_are_told(root):
    for name in ("subjects.tsv", "demographics.csv"):
        (root / name).write_text("id\tsplit\n")
    assert all(name in notes(bids.read_bids(root)) for name in ("subjects.tsv", "demographics.csv"))


def test_run_0_is_a_run_of_its_own(root):
    anat, masks = root / "sub-01" / "anat", root / "derivatives" / "manual" / "sub-01" / "anat"
    shutil.copy(anat / "sub-01_FLAIR.nii.gz", anat / "sub-01_run-0_FLAIR.nii.gz")
    (masks / "sub-01_label-WMH_mask.nii.gz").rename(masks / "sub-01_run-0_label-WMH_mask.nii.gz")
    table = bids.read_bids(root)
    assert table.flair[table.subject.str.startswith("01")].item().endswith("sub-01_run-0_FLAIR.nii.gz")


def test_a_plain_wmh_mask_goes_before_others_and_an_unusual_one_is_told(root):
    masks = root / "derivatives" / "manual" / "sub-01" / "anat"
    plain = masks / "sub-01_label-WMH_mask.nii.gz"
    shutil.copy(plain, masks / "sub-01_label-lesion_mask.nii.gz")
    shutil.copy(plain, masks / "sub-01_desc-stroke_label-WMH_mask.nii.gz")
    assert str(plain) in set(bids.read_bids(root).reference)
    plain.unlink(), (masks / "sub-01_label-lesion_mask.nii.gz").unlink()
    table = bids.read_bids(root)
    assert "01" in set(table.subject) and "desc-" in notes(table)


def test_a_mask_on_the_grid_is_used_where_peoples_mask_is_in_another_space(root):
    masks = root / "derivatives" / "manual" / "sub-01" / "anat"
    tool = root / "derivatives" / "tool" / "sub-01" / "anat"
    shutil.copytree(masks, tool)
    describe(root / "derivatives" / "tool", GeneratedBy=[{"Name": "Some Tool"}])
    write(masks / "sub-01_space-MNI152_label-WMH_mask.nii.gz", np.ones((9, 9, 9), np.uint8))
    (masks / "sub-01_label-WMH_mask.nii.gz").unlink()
    table = bids.read_bids(root)
    assert str(tool / "sub-01_label-WMH_mask.nii.gz") in set(table.reference) and "another grid" in notes(table)


def test_a_folder_per_subject_and_session_is_no_contradiction(root):
    masks = root / "derivatives" / "manual"
    (masks / "sub-02_ses-a").mkdir()
    shutil.move(masks / "sub-02/ses-a/anat/sub-02_ses-a_label-WMH_mask.nii.gz", masks / "sub-02_ses-a")
    assert "02_ses-a" in set(bids.read_bids(root).subject)


def test_a_mask_in_another_space_is_left_out_and_told(root):
    masks = root / "derivatives" / "manual" / "sub-01" / "anat"
    write(masks / "sub-01_space-MNI152_label-WMH_mask.nii.gz", np.ones((9, 9, 9), np.uint8))
    (masks / "sub-01_label-WMH_mask.nii.gz").unlink()
    table = bids.read_bids(root)
    assert "01" not in set(table.subject) and "another grid" in notes(table)


def test_makers_are_recognised_by_the_start_of_their_names(root):
    folder = root / "derivatives" / "manual"
    describe(folder, GeneratedBy=[{"Name": "wmhlib-1.0"}])
    with pytest.raises(FileNotFoundError):
        bids.read_bids(root)
    describe(folder, GeneratedBy=[{"Name": "Manual segmentation in ITK-SNAP"}])
    assert "make sure" not in notes(bids.read_bids(root))


@pytest.mark.parametrize("name", ["participants.tsv", "dataset_description.json"])
def test_tables_and_descriptions_that_were_not_fetched_are_told(root, name):
    (root / name).write_text("/annex/objects/MD5E-s40--0.tsv\n")
    with pytest.raises(FileNotFoundError, match=naming(root / name, "datalad get")):
        bids.read_bids(root)


@pytest.mark.parametrize("name", ["sub-01/sub-01_sessions.tsv", "sub-02/ses-a/sub-02_ses-a_scans.tsv"])
def test_a_split_of_sessions_or_scans_is_refused(root, name):
    (root / name).write_text("filename\tage\n")
    assert len(bids.read_bids(root)) == 3
    (root / name).write_text("filename\tsplit\n")
    with pytest.raises(ValueError, match=naming(root / name, "participants.tsv")):
        bids.read_bids(root)


def test_a_description_of_participants_is_no_table(root):
    (root / "participants.tsv").rename(root / "participants.json")
    assert len(bids.read_bids(root)) == 3
