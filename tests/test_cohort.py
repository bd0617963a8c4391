from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, as_nobody, naming, small_scan, write_subject

from wmhlib import slices
from wmhlib.cohort import assign_splits, load_cohort, read_challenge, read_folder
from wmhlib.intake.challenge import COLUMNS
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


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no real scans beside the project")
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
    random = np.random.default_rng(0)
    write_subject(tmp_path / "more" / "training" / "D" / "900", *small_scan(random))
    settings["data"]["external"] = [str(tmp_path / "more")]
    cohort = load_cohort(open_study(write_config(settings))).set_index("subject")
    assert cohort.loc["900"].split == "external" and cohort.loc["900"].centre == "D" and len(cohort) == 8 + 2 + 1
    write_subject(tmp_path / "more" / "training" / "D" / "0", *small_scan(random))
    with pytest.raises(ValueError, match=naming("Subject 0", challenge, tmp_path / "more")):
        load_cohort(open_study(write_config(settings)))


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
