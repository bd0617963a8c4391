import shutil
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, as_nobody, naming, small_scan, write_subject

from wmhlib import slices
from wmhlib.cohort import account, assign_splits, load_cohort, read_challenge, read_folder
from wmhlib.inference import mask_of
from wmhlib.intake import roles
from wmhlib.intake.folders import COLUMNS, inventory
from wmhlib.intake.nifti import read_scan, save_image
from wmhlib.study import open_study


def test_reads_centres_with_and_without_a_scanner_folder(challenge):
    cohort = read_challenge(challenge)
    assert list(cohort.columns) == ["subject", "centre", "split", "flair", "reference"]
    assert cohort.groupby("centre").subject.apply(list).to_dict() == {
        "A": ["0", "1", "2", "3"],
        "B/scanner": ["10", "11", "12", "13"],
        "C": ["20", "21"],
    }
    assert set(cohort.split[cohort.centre == "C"]) == {"external"}
    assert set(cohort.split[cohort.centre != "C"]) == {""}


def test_splits_are_even_over_centres_and_depend_on_the_seed_alone(challenge):
    cohort = read_challenge(challenge)
    split = assign_splits(cohort, training=4, validation=2, holdout=2, seed=3)
    counts = split.groupby(["centre", "split"]).size().to_dict()
    assert counts == {
        (centre, name): number
        for centre in ("A", "B/scanner")
        for name, number in (("training", 2), ("validation", 1), ("holdout", 1))
    } | {("C", "external"): 2}
    assert split.equals(assign_splits(cohort.sample(frac=1, random_state=0).sort_index(), 4, 2, 2, seed=3))
    others = [assign_splits(cohort, 4, 2, 2, seed=seed).split.tolist() for seed in range(10)]
    assert len(set(map(tuple, others))) > 1
    assert cohort.split.eq("").sum() == 8, "the argument is left as it was"


def test_training_none_takes_all_that_are_left(challenge):
    split = assign_splits(read_challenge(challenge), training=None, validation=1, holdout=0, seed=1)
    assert split.split.value_counts().to_dict() == {"training": 7, "external": 2, "validation": 1}


def test_too_few_subjects_for_an_even_share(challenge):
    with pytest.raises(ValueError, match=r"\b(A|B/scanner)\b(?=.*training=6)(?=.*validation=2)(?=.*holdout=2)"):
        assign_splits(read_challenge(challenge), training=6, validation=2, holdout=2, seed=1)


def test_missing_files_and_repeated_subjects_are_named(tmp_path):
    random = np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "nowhere")):
        read_challenge(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=naming(tmp_path)):
        read_challenge(tmp_path)
    write_subject(tmp_path / "training/A/7", *small_scan(random))
    write_subject(tmp_path / "training/B/7", *small_scan(random))
    with pytest.raises(ValueError, match=naming(tmp_path / "training/A/7", tmp_path / "training/B/7")):
        read_challenge(tmp_path)
    (tmp_path / "training/B/7/wmh.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "training/B/7/wmh.nii.gz")):
        read_challenge(tmp_path)


def test_a_subject_without_its_flair_is_named(tmp_path):
    write_subject(tmp_path / "training/A/7", *small_scan(np.random.default_rng(0)))
    (tmp_path / "training/A/7/pre/FLAIR.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "training/A/7/pre/FLAIR.nii.gz")):
        read_challenge(tmp_path)


@pytest.mark.parametrize(
    "mode", [0o000, 0o111, 0o444], ids=["closed", "entered but not listed", "listed but not entered"]
)
@pytest.mark.parametrize("place", ["", "training", "training/B", "training/B/8", "training/B/8/pre"])
def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(open_folder, place, mode):
    root = open_folder / "scans"
    for name in ("A/7", "B/8"):
        write_subject(root / "training" / name, *small_scan(np.random.default_rng(0)))
    (root / place).chmod(mode)
    try:
        with as_nobody(), pytest.raises(PermissionError, match=naming(f" {(root / place).resolve()} ")):
            read_folder(root)
    finally:
        (root / place).chmod(0o755)


@pytest.mark.parametrize("name", ["pre/FLAIR.nii.gz", "wmh.nii.gz"])
def test_a_file_that_may_not_be_read_is_named(open_folder, name):
    write_subject(open_folder / "training/A/7", *small_scan(np.random.default_rng(0)))
    (open_folder / "training/A/7" / name).chmod(0o000)
    with as_nobody(), pytest.raises(PermissionError, match=naming(open_folder / "training/A/7" / name)):
        read_folder(open_folder)


def test_a_closed_folder_beside_the_scans_is_no_obstacle(open_folder):
    write_subject(open_folder / "training/A/7", *small_scan(np.random.default_rng(0)))
    (open_folder / "lost+found").mkdir(0o000)
    with as_nobody():
        assert len(read_challenge(open_folder)) == 1


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no real scans next to the project")
def test_real_scans_read_as_three_training_subjects_and_external_ones():
    cohort = read_challenge(SHARED / "real")
    assert cohort[cohort.split == ""].subject.tolist() == ["19", "26", "7"]
    external = cohort[cohort.split != ""]
    assert {"2516038876", "2516043217"} <= set(external.subject) and set(external.split) == {"external"}
    assert all(Path(path).is_relative_to((SHARED / "real" / "test").resolve()) for path in external.flair)


def test_every_oddity_of_the_challenges_release(tmp_path):
    """Miniatures in the release's layout: aliases, a folder that ends in a dot, matrices that differ within a centre, no
    T1, label 2 as float32, defaced and interleaved subjects; observers' masks are no subjects."""
    random = np.random.default_rng(0)
    places = [
        "training/Utrecht/0",
        "test/Utrecht/1",
        "training/GE3T/100",
        "test/Amsterdam_GE3T/101",
        "training/Utrecht/2",
    ]
    places += ["test/Amsterdam/GE1T5/150", "test/Amsterdam/Philips_VU .PETMR_01./160", "training/Singapore/50"]
    for number, place in enumerate(places):
        flair, reference = small_scan(random, (17, 18 + number % 2, 9))
        flair[:, -4:, :3] = 0
        reference[2, 4, 1] = 2
        write_subject(tmp_path / place, flair, reference)
    observed = tmp_path / "additional_annotations" / "observer_o3" / places[0]
    observed.mkdir(parents=True)
    nibabel.save(nibabel.load(tmp_path / places[0] / "wmh.nii.gz"), observed / "result.nii.gz")

    cohort = read_challenge(tmp_path).set_index("subject")
    assert len(cohort) == len(places) and (cohort.loc[["1", "101", "150", "160"]].split == "external").all()
    assert cohort.centre.to_dict() == {
        "0": "Utrecht", "2": "Utrecht", "50": "Singapore", "100": "Amsterdam/GE3T", "1": "Utrecht",
        "101": "Amsterdam/GE3T", "150": "Amsterdam/GE1T5", "160": "Amsterdam/Philips",
    }  # fmt: skip
    split = assign_splits(read_challenge(tmp_path), None, 0, 0, seed=1)
    slices.write_slices(split, tmp_path / "arrays", 16)
    _, references, index = slices.open_slices(tmp_path / "arrays")
    assert index.subject.nunique() == len(places) and set(np.unique(references)) == {0, 1}


def test_the_dot_that_windows_drops_changes_no_centre(tmp_path):
    write_subject(tmp_path / "test/Amsterdam/Philips_VU .PETMR_01/160", *small_scan(np.random.default_rng(0)))
    assert read_challenge(tmp_path).centre.item() == "Amsterdam/Philips"


def test_further_folders_are_external_throughout(challenge, settings, write_config, tmp_path):
    random = np.random.default_rng(99)
    write_subject(tmp_path / "more" / "training" / "D" / "900", *small_scan(random))
    settings["data"]["external"] = [str(tmp_path / "more")]
    cohort = load_cohort(open_study(write_config(settings))).set_index("subject")
    assert cohort.loc["900"].split == "external" and cohort.loc["900"].centre == "D" and len(cohort) == 8 + 2 + 1
    write_subject(tmp_path / "more" / "training" / "D" / "0", *small_scan(random))
    with pytest.raises(ValueError, match=naming("Subject 0", challenge, tmp_path / "more")):
        load_cohort(open_study(write_config(settings)))


def test_folders_that_are_not_there_are_told_before_a_cohort_is_made(settings, write_config, tmp_path):
    settings["data"] = {"root": str(tmp_path / "made"), "phantom": {"seed": 1, "subjects": {"Alder": 1}, "scale": 0.2}}
    for key, place in (("label_maps", settings["data"]["phantom"]), ("external", settings["data"])):
        missing = str(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match=naming(missing)):
            place[key] = missing if key == "label_maps" else [missing]
            load_cohort(open_study(write_config(settings)))
        assert not (tmp_path / "made").exists()


def test_a_study_without_training_or_unseen_subjects_is_refused(challenge, settings, write_config, tmp_path):
    random = np.random.default_rng(0)
    write_subject(tmp_path / "one" / "training" / "D" / "1", *small_scan(random))
    settings["split"] = {"training": None, "validation": 0, "holdout": 0, "seed": 1}
    with pytest.raises(ValueError, match=naming("test-miniature", tmp_path / "one", "holdout")):
        load_cohort(open_study(write_config(settings), tmp_path / "one"))
    write_subject(tmp_path / "two" / "test" / "D" / "1", *small_scan(random))
    with pytest.raises(ValueError, match=naming("test-miniature", tmp_path / "two", "training")):
        load_cohort(open_study(write_config(settings), tmp_path / "two"))
    settings["split"]["training"] = 1
    with pytest.raises(ValueError, match=naming("training")):
        load_cohort(open_study(write_config(settings), tmp_path / "two"))


def test_subjects_whose_names_differ_only_in_case_are_refused(settings, write_config, tmp_path):
    """On many disks, the mask of one would take the place of the other's."""
    for number, name in enumerate(("a1", "A1", "a2")):
        write_subject(tmp_path / "scans" / "training" / str(number) / name, *small_scan(np.random.default_rng(number)))
    settings["data"]["root"] = str(tmp_path / "scans")
    with pytest.raises(ValueError, match=naming(tmp_path / "scans") + "(?i:.*a1)"):
        load_cohort(open_study(write_config(settings)))


def test_the_papers_protocol_on_the_release_and_the_external_set():
    """Counts of the challenge's release: three centres train, two scanners and the Ljubljana set are unseen."""
    places = [("Utrecht", 20, 30), ("Singapore", 20, 30), ("Amsterdam/GE3T", 20, 30)]
    places += [("Amsterdam/GE1T5", 0, 10), ("Amsterdam/Philips", 0, 10), ("Ljubljana", 0, 30)]
    rows = [
        (f"{centre}-{split}{number}", centre, split, "", "")
        for centre, training, test in places
        for split, count in (("", training), ("external", test))
        for number in range(count)
    ]
    table = assign_splits(
        pd.DataFrame(rows, columns=COLUMNS), **open_study("config/paper.yaml").config.split.model_dump()
    )
    counts = table.groupby(["split", "centre"]).size().to_dict()
    for split, each in (("training", 16), ("validation", 2), ("holdout", 2)):
        assert all(counts[split, centre] == each for centre in ("Utrecht", "Singapore", "Amsterdam/GE3T"))
    external = {centre: number for (split, centre), number in counts.items() if split == "external"}
    assert external == {"Amsterdam/GE1T5": 10, "Amsterdam/Philips": 10, "Ljubljana": 30} and len(table) == 60 + 50
    with pytest.raises(ValueError, match=naming("split.external", "Nowhere")):
        assign_splits(table.assign(split=""), 1, 0, 0, 1, external=["Nowhere"])


def test_validation_and_holdout_come_from_the_centres_named():
    """Real scans train, synthetic heads choose; a centre that has no subject left to draw is refused."""
    rows = [
        (f"{centre}{number}", centre, "")
        for centre, count in (("random", 8), ("A", 2), ("B", 2))
        for number in range(count)
    ]
    drawn = assign_splits(table(*rows), None, 4, 2, 1, external=["B"], drawn_from=["random"])
    assert drawn.groupby(["split", "centre"]).size().to_dict() == {
        ("external", "B"): 2, ("holdout", "random"): 2, ("training", "A"): 2, ("training", "random"): 2,
        ("validation", "random"): 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match=naming("split.drawn_from", "Nowhere")):
        assign_splits(table(*rows), None, 4, 0, 1, drawn_from=["Nowhere"])
    with pytest.raises(ValueError, match=naming("random has 8", "9")):
        assign_splits(table(*rows), None, 9, 0, 1, drawn_from=["random"])
    with pytest.raises(ValueError, match=naming("no subjects for the split validation")):
        assign_splits(table(*rows), None, 1, 0, 1, external=["B"], drawn_from=["B"])


ALL = {"training": None, "validation": 0, "holdout": 0, "seed": 1}


def subject(folder: Path, seed: int = 0) -> Path:
    write_subject(folder, *small_scan(np.random.default_rng(seed)))
    return folder


def told(cohort) -> dict[str, str]:
    return dict(cohort.attrs["notes"])


def test_linked_sites_subjects_and_files_are_read(tmp_path):
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for place in ("A/1", "A/2", "B/scanner/3", "C/4"):
        subject(root / "training" / place)
    subject(root / "test" / "D" / "5")
    for number, place in enumerate(
        ("training/A", "training/B/scanner/3", "training/C/4/pre", "test", "training/C/4/wmh.nii.gz")
    ):
        elsewhere.mkdir(exist_ok=True)
        (root / place).rename(elsewhere / str(number))
        (root / place).symlink_to(elsewhere / str(number))
    cohort = read_folder(root)
    assert cohort.subject.tolist() == ["1", "2", "3", "4", "5"] and not cohort.attrs["notes"]
    assert cohort.centre.tolist() == ["A", "A", "B/scanner", "C", "D"]
    (tmp_path / "link").symlink_to(root)
    assert read_folder(tmp_path / "link").flair.tolist() == cohort.flair.tolist()


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("training/B/9", "training/A/7"),
        ("test/A", "training/A"),
        ("test", "training"),
        ("training/A/again", "training/A/7"),
    ],
)
def test_a_link_that_would_read_a_subject_twice_is_refused(tmp_path, link, to):
    subject(tmp_path / "training/A/7")
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / to)
    with pytest.raises(ValueError, match=naming(tmp_path / link, tmp_path / to)):
        read_folder(tmp_path)


def test_one_scan_under_two_names_is_refused_and_a_copy_within_a_split_is_told(tmp_path, settings, write_config):
    root = tmp_path / "set"
    subject(root / "training/A/7"), subject(root / "training/A/8", 1), subject(root / "test/B/9", 2)
    settings["split"] = ALL
    study = open_study(write_config(settings), root)
    flair, eighth = root / "test/B/9/pre/FLAIR.nii.gz", root / "training/A/8/pre/FLAIR.nii.gz"
    eighth.write_bytes((root / "training/A/7/pre/FLAIR.nii.gz").read_bytes())
    assert "7 (training)" in (said := account(load_cohort(study))) and "8 (training)" in said
    assert "perhaps of one person" not in said
    subject(root / "test/B/07", 3)
    assert "perhaps of one person" in account(load_cohort(study))
    shutil.rmtree(root / "test/B/07")
    subject(root / "training/A/10", 1)
    shutil.rmtree(root / "training/A/8")
    (root / "training/A/7/pre/FLAIR.nii.gz").write_bytes(flair.read_bytes())
    with pytest.raises(ValueError, match=naming("7 (training", "9 (external")):
        load_cohort(study)
    nibabel.save(nibabel.load(flair), flair.with_suffix(""))
    flair.unlink()
    with pytest.raises(ValueError, match=naming("7 (training", "9 (external")):
        load_cohort(study)  # compressed or not
    flair.with_suffix("").unlink()
    flair.symlink_to(root / "training/A/7/pre/FLAIR.nii.gz")
    with pytest.raises(ValueError, match=naming("7", "9", root / "training/A/7/pre/FLAIR.nii.gz")):
        load_cohort(study)


def test_nii_is_read_beside_nii_gz_and_both_of_one_image_are_refused(tmp_path):
    for number in range(2):
        subject(tmp_path / f"training/A/{number}")
    for name in ("pre/FLAIR.nii.gz", "wmh.nii.gz"):
        path = tmp_path / "training/A/1" / name
        nibabel.save(nibabel.load(path), path.with_suffix(""))
        path.unlink()
    assert read_challenge(tmp_path).subject.tolist() == ["0", "1"]
    for name in ("pre/FLAIR.nii", "wmh.nii"):
        path = tmp_path / "training/A/1" / f"{name}.gz"
        nibabel.save(nibabel.load(path.with_suffix("")), path)
        with pytest.raises(ValueError, match=naming(path, path.with_suffix(""))):
            read_challenge(tmp_path)
        path.unlink()


@pytest.mark.parametrize("kind", ["link", "pointer"])
@pytest.mark.parametrize("names", [["wmh.nii.gz"], ["pre/FLAIR.nii.gz"], ["pre/FLAIR.nii.gz", "wmh.nii.gz"]])
def test_subjects_that_were_not_fetched_are_left_out_and_told(tmp_path, names, kind):
    root = tmp_path / "set"
    subject(root / "training/A/7"), subject(root / "training/A/8")
    for name in names:
        path = root / "training/A/8" / name
        path.unlink()
        if kind == "link":
            path.symlink_to("../../../.git/annex/objects/aB/cD/MD5E-s9--0.nii.gz/MD5E-s9--0.nii.gz")
        else:
            path.write_text("/annex/objects/MD5E-s9--0.nii.gz\n")
    cohort = read_folder(root)
    assert cohort.subject.tolist() == ["7"] and list(told(cohort)) == ["set/training/A/8"]
    assert all(f"datalad get {root / 'training/A/8' / name}" in told(cohort)["set/training/A/8"] for name in names)
    assert "set/training/A/8" in account(cohort.assign(split="training", reason="drawn"))
    (root / "training/A/7/wmh.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileNotFoundError, match=naming(root, "git lfs pull")):
        read_folder(root)


@pytest.mark.parametrize("name", ["pre/FLAIR.nii.gz", "wmh.nii.gz"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, name):
    path = subject(tmp_path / "training/A/7") / name
    path.unlink()
    path.symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(FileNotFoundError, match=naming(path, "link")):
        read_folder(tmp_path)


def test_whatever_is_left_out_of_a_folder_is_told(tmp_path):
    root = tmp_path / "set"
    subject(root / "training/A/7")
    empty = ["training/A/8", "training/A/9", "training/B"]
    for name in (*empty, "training/A/9/pre"):
        (root / name).mkdir()
    (root / "training/A/9/pre/T1.nii.gz").touch()
    (root / "training/A/10").symlink_to(tmp_path / "gone")
    strays = [
        "training/A/11/FLAIR.nii.gz",
        "training/A/7/pre/flair_copy.nii",
        "training/FLAIR.nii.gz",
        "A/12/pre/FLAIR.nii.gz",
    ]
    strays += ["FLAIR.nii", "Test/A/13/pre/FLAIR.nii.gz"]
    for stray in (*strays, "training/A/7/orig/FLAIR.nii.gz", "training/A/7/FLAIR_mask.nii.gz"):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).touch()
    cohort = read_folder(root)
    assert cohort.subject.tolist() == ["7"]
    assert set(told(cohort)) == {f"set/{name}" for name in (*empty, *strays, "training/A/10", "training/A/11")}


@pytest.mark.parametrize("place", ["training/7", "training/A/scanner/7/first", "training"])
def test_a_subject_too_high_or_too_deep_is_refused(tmp_path, place):
    subject(tmp_path / place)
    with pytest.raises(ValueError, match=naming(tmp_path / place, "training/<site>/<id>")):
        read_challenge(tmp_path)


@pytest.mark.parametrize(
    "write", [lambda image, path: nibabel.save(mask_of(image), path), save_image], ids=["mask_of", "save_image"]
)
def test_own_masks_are_refused_as_references_wherever_they_are_copied_to(tmp_path, write):
    mask = subject(tmp_path / "training/A/7") / "wmh.nii.gz"
    write(nibabel.load(mask), tmp_path / "ours.nii.gz")
    mask.write_bytes((tmp_path / "ours.nii.gz").read_bytes())
    with pytest.raises(ValueError, match=naming(mask, "descrip")):
        read_folder(tmp_path)
    corrected = read_scan(mask)
    corrected.header["descrip"] = ""
    nibabel.save(corrected, mask)
    assert len(read_folder(tmp_path)) == 1


def table(*rows) -> pd.DataFrame:
    return pd.DataFrame([(*row, f"{row[0]}.nii", "") for row in rows], columns=COLUMNS)


@pytest.mark.parametrize("seed", range(5))
def test_all_scans_of_a_person_are_in_one_split(seed):
    """Four people of two to four scans each: counts are of people."""
    ends = ("", "_ses-1", "_ses-2_run-1", "_acq-2D")
    rows = [(f"P{person}{end}", "A", "") for person in range(4) for end in ends[: 2 + person % 3]]
    split = assign_splits(table(*rows, ("x", "B", "external")), 2, 1, 1, seed)
    assert len(split) == len(rows) + 1
    own = split[split.split != "external"]
    roles = own.groupby(own.subject.str.split("_").str[0]).split.agg(["nunique", "first"])
    assert (roles["nunique"] == 1).all() and sorted(roles["first"]) == ["holdout", "training", "training", "validation"]


@pytest.mark.parametrize(
    ("rows", "external", "named"),
    [
        ([("7_ses-1", "A", ""), ("7_ses-2", "A", "external")], None, "7_ses-2"),
        ([("7_ses-1", "A", ""), ("7_ses-2", "B", "")], ["B"], "7_ses-2"),
        ([("p7_ses-1", "A", ""), ("P7_ses-2", "A", "external")], None, "P7_ses-2"),
        ([("7", "Oslo", ""), ("8", "oslo", "")], ["oslo"], "oslo"),
        ([("7", "Oslo", ""), ("8", "Oslo ", "external")], None, "Oslo "),
        ([("7", "Zu\u0308rich", ""), ("8", "Z\u00fcrich", "")], ["Z\u00fcrich"], "Z\u00fcrich"),
        ([("7_FLAIR_space-T1w", "A", ""), ("7_FLAIR", "A", "external")], None, "7_FLAIR_space-T1w"),
        ([("p7_study1", "A", ""), ("p7_study2", "A", "external")], None, "p7_study2"),
        ([("P7_T1", "A", ""), ("P7_T2", "B", "external")], None, "P7_T2"),
        *(
            ([(f"P7{one}", "A", ""), (f"P7{two}", "A", "external")], None, f"P7{two}")
            for one, two in (("_baseline", "_followup"), ("_M00", "_M12"), ("_TP1", "_TP2"), (" T1", " T3"))
        ),
        ([("P7", "A", ""), ("P7_ses01", "A", "external")], None, "P7_ses01"),
        ([("P7-BL", "A", ""), ("P7-FU2", "A", "external")], None, "P7-FU2"),
        *(
            ([(f"P7{one}", "A", ""), (f"P7{two}", "A", "external")], None, f"P7{two}")
            for one, two in (
                ("_T1", "_T1_rescan"),
                ("_20190301", "_20200402"),
                ("_MR_d0129", "_MR_d0757"),
                ("", "_24months"),
                ("_pre", "_post"),
                ("_scan", "_12m"),
                ("_visitA", "_visitB"),
            )
        ),
        ([("7", "Site 1", ""), ("8", "Site-01", "external")], None, "Site-01"),
        ([("7", "1", ""), ("8", "01", "")], ["1"], "01"),
        ([("7", "1.0", ""), ("8", "1", "external")], None, "1.0"),
        ([("7", "Amsterdam/GE1T5", ""), ("8", "A", "")], ["Amsterdam/ge1t5"], "split.external"),
    ],
)
def test_no_person_or_centre_is_in_two_roles_by_another_spelling(rows, external, named):
    with pytest.raises(ValueError, match=naming(named)):
        assign_splits(table(*rows), None, 0, 0, 1, external)


@pytest.mark.parametrize("name", ["0_ses-2", "P0"])
def test_a_person_in_two_folders_is_refused(tmp_path, settings, write_config, name):
    subject(tmp_path / "set/training/A" / name.replace("_ses-2", "_ses-1").lower())
    subject(tmp_path / "more/training/B" / name)
    settings["data"] = {"root": str(tmp_path / "set"), "external": [str(tmp_path / "more")]}
    settings["split"] = ALL
    with pytest.raises(ValueError, match=naming(name, tmp_path / "set", tmp_path / "more")):
        load_cohort(open_study(write_config(settings)))


def test_further_folders_train_but_for_the_centres_that_are_external(challenge, settings, write_config, tmp_path):
    for seed, place in enumerate(("training/D/900", "training/D/901", "test/E/902", "test/E/903"), 90):
        subject(tmp_path / "real" / place, seed)
    settings["data"]["also"], settings["split"] = [str(tmp_path / "real")], ALL | {"external": ["E"]}
    cohort = load_cohort(open_study(write_config(settings))).set_index("subject")
    assert set(cohort.split[["902", "903"]]) == {"external"} and set(cohort.split[["900", "901"]]) == {"training"}
    assert "20" not in cohort.index, "below test/ of the study's own folder, and not under split.external"
    settings["split"] = ALL
    cohort = load_cohort(open_study(write_config(settings))).set_index("subject")
    assert (cohort.split[["900", "902"]] == "training").all() and cohort.split["20"] == "external"


def test_the_account_says_who_is_where_and_why(challenge, settings, write_config, tmp_path):
    subject(tmp_path / "more/training/D/900")
    settings["data"]["external"] = [str(tmp_path / "more")]
    settings["split"] |= {"training": 2}
    cohort = load_cohort(open_study(write_config(settings)))
    assert set(cohort.reason[cohort.centre.isin(["A", "B/scanner"])]) == {"drawn with seed 1"}
    reasons = cohort.set_index("subject").reason
    assert "test/" in reasons["20"] and "data.external" in reasons["900"]
    left = sorted(set("0 1 2 3 10 11 12 13".split()) - set(cohort.subject))
    assert len(left) == 2 and sorted(told(cohort)) == left
    settings["split"]["external"] = ["C"]
    cohort = load_cohort(open_study(write_config(settings)))
    assert "split.external" in cohort.set_index("subject").reason["20"] and "split.external" in told(cohort)["900"]
    assert all(word in account(cohort) for word in (*cohort.subject, *cohort.centre, *cohort.split, "900"))


def test_a_changed_table_of_participants_changes_the_inventory(tmp_path):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sub-01")
    (tmp_path / "sub-01/sub-01_FLAIR.nii").write_text("1")
    states = [inventory(tmp_path)]
    for text in ("participant_id\tsplit\nsub-01\tn/a\n", "participant_id\tsplit\nsub-01\texternal\n"):
        (tmp_path / "participants.tsv").write_text(text)
        states.append(inventory(tmp_path))
    (tmp_path / "sub-01/sub-01_FLAIR.nii").write_text("12")
    states.append(inventory(tmp_path))
    assert len(set(map(str, states))) == 4


def test_names_of_files_are_read_in_any_case(tmp_path):
    folder = subject(tmp_path / "training/A/7")
    (folder / "pre/FLAIR.nii.gz").rename(folder / "pre/flair.nii.gz")
    (folder / "wmh.nii.gz").rename(folder / "WMH.nii.gz")
    [row] = read_challenge(tmp_path).itertuples()
    assert row.flair.endswith("flair.nii.gz") and row.reference.endswith("WMH.nii.gz")


def test_people_of_a_group_are_not_taken_for_visits_of_one(tmp_path):
    names = ["AD_T1", "AD_T2", "UKB_M01", "HOSP1_MR0001", "HOSP1_MR0002", "MS_scan_01", "7T_MRI_012", "7T_MRI_013"]
    split = assign_splits(table(*((name, "A", "") for name in names)), 4, 2, 2, 1)
    assert split.split.value_counts().to_dict() == {"training": 4, "validation": 2, "holdout": 2}


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("training/A/7/old", "inside another"),
        ("training/test/9", "test"),
        ("training/A/external validation/9", "external validation"),
        ("training/training/9", "training"),
        ("training/A/P9/20190103", "visit"),
        ("test/A/P9/ses-1", "visit"),
    ],
)
def test_a_folder_that_names_another_role_or_a_visit_is_refused(tmp_path, place, named):
    subject(tmp_path / "training/A/7"), subject(tmp_path / place, 1)
    with pytest.raises(ValueError, match=naming(tmp_path / place, named)):
        read_challenge(tmp_path)


def test_a_mask_beside_the_flair_is_no_subject(tmp_path):
    folder = subject(tmp_path / "training/A/7")
    shutil.copy(folder / "wmh.nii.gz", folder / "pre" / "wmh.nii.gz")
    assert read_challenge(tmp_path).subject.tolist() == ["7"]


def test_one_mask_of_two_subjects_is_refused(tmp_path, settings, write_config):
    for number in range(2):
        subject(tmp_path / f"set/training/A/{number}", number)
    mask = tmp_path / "set/training/A/1/wmh.nii.gz"
    mask.unlink()
    mask.symlink_to(tmp_path / "set/training/A/0/wmh.nii.gz")
    settings["split"] = ALL
    with pytest.raises(ValueError, match=naming("0 and 1", "same mask", tmp_path / "set/training/A/0/wmh.nii.gz")):
        load_cohort(open_study(write_config(settings), tmp_path / "set"))


def test_a_folder_that_is_named_twice_is_refused(challenge, settings, write_config):
    settings["data"]["also"] = [str(challenge)]
    with pytest.raises(ValueError, match=naming(challenge, "twice")):
        load_cohort(open_study(write_config(settings)))


def test_a_long_name_of_words_of_a_role_is_judged_at_once():
    started = time.process_time()
    for text in ("testset" * 500 + "x", "1" * 5000 + "x", "external " * 500 + "x"):
        assert not roles.names_role(text)
    assert roles.names_role("testset" * 500) and time.process_time() - started < 1


@pytest.mark.parametrize("place", ["test/UMC/test_01", "training/A/20012345", "test/external/9", "training/A/scan01"])
def test_names_that_contradict_no_role_are_read(tmp_path, place):
    subject(tmp_path / place)
    assert len(read_challenge(tmp_path)) == 1
