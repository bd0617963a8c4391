"""From masks on disk to tables: scored subjects, rows, and reading tables back."""

import re

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, naming

from wmhlib.cohort import load_cohort
from wmhlib.evaluation import froc, records, scoring
from wmhlib.evaluation.lesions import lesion_records, operating_points, volumes_ml
from wmhlib.intake.nifti import save_image
from wmhlib.metrics import MaskPair, challenge_metrics
from wmhlib.running.files import write_json
from wmhlib.study import open_study


@pytest.fixture
def study(settings, write_config, challenge, tmp_path, monkeypatch):
    """A study of two losses whose masks are written: Dice's perfect, Siamese's empty; one observer, of one subject."""
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    del settings["losses"]["siamese_minmax"]
    study = open_study(write_config(settings))
    points = {"dice": [], "siamese": []}
    for row in unseen(study).itertuples():
        reference = nibabel.load(row.reference)
        perfect = np.asarray(reference.dataobj).astype(np.uint8)
        masks = {("dice", 1): perfect, ("siamese", 1): 0 * perfect, ("global_threshold", 0): 0 * perfect + 1}
        for (loss, seed), mask in masks.items():
            image = nibabel.Nifti1Image(mask, reference.affine)
            save_image(image, study.mask(loss, seed, row.subject))
            if loss in points:
                points[loss].append(operating_points(reference, image))
    for loss, tables in points.items():
        froc.write_points(study, loss, 1, unseen(study), tables)
    return study


def unseen(study) -> pd.DataFrame:
    subjects = load_cohort(study)
    return subjects[subjects.split.isin(["holdout", "external"])]


def test_every_mask_gets_its_rows(study):
    scored = scoring.score(study, unseen(study))
    table = scored["per_subject"].set_index(["loss", "subject"])
    assert len(table) == 3 * 4 and (table.loc["dice"].dice == 1).all() and (table.loc["siamese"].dice == 0).all()
    assert table.loc["siamese"].hd95_mm.isna().all() and (table.loc["siamese"].predicted_density_pct == 0).all()
    lesions = scored["per_lesion"]
    assert lesions[lesions.loss == "dice"].found.all() and not lesions[lesions.loss == "siamese"].found.any()
    assert set(lesions.columns[:6]) == {"study", "loss", "seed", "split", "centre", "subject"}
    volumes = scored["volumes"].set_index(["loss", "subject"])
    assert (volumes.loc["dice"].reference_ml == volumes.loc["dice"].predicted_ml).all()
    assert volumes.reference_ml.iloc[0] == pytest.approx(27 * 3 / 1000), "27 voxels of 1 x 1 x 3 mm"


def test_tables_come_back_as_they_were_saved(study):
    tables = scoring.summarise(scoring.score(study, unseen(study)), study.kinds)
    scores = tables["froc_scores"].query("lesions == 'all'").set_index("loss").score
    assert (scores["dice"] == 1).all() and (scores["siamese"] == 0).all(), "all found and nothing false; nothing found"
    sizes = tables["froc_by_size"].set_index(["split", "loss", "size"])
    assert (sizes.loc["external", "dice"].detected == 1).all() and (
        sizes.loc["external", "siamese"].detected == 0
    ).all()
    at_half = tables["detection_by_size"].query("loss == 'dice'").set_index(["split", "loss", "size"])
    assert sizes.lesions[at_half.index].equals(at_half.lesions), "the same classes, with the same lesions"
    scoring.save_tables(study, tables)
    loaded = scoring.load_tables(study)
    assert set(loaded) == set(tables)
    for name in ("per_subject", "comparisons", "detection_by_size"):
        pd.testing.assert_frame_equal(loaded[name], tables[name].reset_index(drop=True), check_dtype=False)


def test_a_part_of_a_study_has_the_same_rows_as_the_whole(study):
    everyone, whole = unseen(study), scoring.score(study, unseen(study))
    same, rows, part = scoring.choose(study, everyone)
    assert same is study and len(rows) == len(everyone) and not part
    assert not scoring.choose(study, everyone, set(everyone.centre), ["siamese", "dice"], ["1"])[2], "all, by name"
    half, rows, part = scoring.choose(study, everyone, ["C"], ["dice"])
    assert list(half.recipes) == ["dice"] and set(rows.centre) == {"C"} and half.folder == study.folder
    assert "C" in part and "dice" in part and "seeds" not in part
    scored = scoring.of_scans(scoring.score(half, everyone), rows)
    expected = whole["per_subject"].query("loss != 'siamese' and centre == 'C'").reset_index(drop=True)
    pd.testing.assert_frame_equal(scored["per_subject"], expected)
    assert set(scored["operating_points"].centre) == {"C"} and set(scored["operating_points"].loss) == {"dice"}
    assert set(scoring.summarise(scored, half.kinds)["summary"].split) == {"external"}


def test_missing_masks_and_tables_say_what_to_run(study):
    with pytest.raises(FileNotFoundError, match="per_subject.csv.*05_evaluate"):
        scoring.load_tables(study)
    mask = study.mask("dice", 1, unseen(study).subject.iloc[0])
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(mask))}.*04_train.*loss=dice.*seed=1"):
        scoring.score(study, unseen(study))


def test_missing_operating_points_say_what_to_run(study):
    path = study.model("siamese", 1) / "operating_points.csv"
    table = pd.read_csv(path, dtype=str)
    table.replace({"subject": {table.subject[0]: "another"}}).to_csv(path, index=False)
    names_file_and_training = f"{re.escape(str(path))}.*04_train.*loss=siamese.*seed=1"
    with pytest.raises(FileNotFoundError, match=f"other scans.*{names_file_and_training}"):
        scoring.score(study, unseen(study))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=names_file_and_training):
        scoring.score(study, unseen(study))


def test_observers_are_scored_where_the_data_has_them(study, challenge):
    row = unseen(study).query("split == 'holdout'").iloc[0]
    place = row.reference.removeprefix(str(challenge)).strip("/").removesuffix("wmh.nii.gz")
    target = challenge / "additional_annotations" / "observer_o3" / place / "result.nii.gz"
    target.parent.mkdir(parents=True)
    nibabel.save(nibabel.load(row.reference), target)
    try:
        table = scoring.score(study, unseen(study))["per_subject"]
    finally:
        target.unlink()
    observed = table[table.loss == "observer_o3"]
    assert list(observed.subject) == [row.subject] and observed.dice.iloc[0] == 1 and observed.seed.iloc[0] == 0


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="no golden pairs next to the project")
def test_every_figure_of_a_real_pair_has_a_lesion_to_show_for_it():
    for pair in sorted((SHARED / "golden" / "pairs").iterdir()):
        reference, result = pair / "wmh.nii.gz", pair / "result.nii.gz"
        both = MaskPair(reference, result)
        lesions, volumes = lesion_records(both), volumes_ml(both)
        own = lesions[lesions.kind == "reference"]
        assert own.volume_mm3.sum() / 1000 == pytest.approx(volumes["reference_ml"]), pair.name
        found = challenge_metrics(reference, result)
        expected = abs(volumes["predicted_ml"] - volumes["reference_ml"]) / volumes["reference_ml"] * 100
        assert found["avd_pct"] == pytest.approx(expected, rel=1e-6)


def test_a_subject_that_the_network_has_seen_is_not_scored_as_unseen(study):
    subjects = unseen(study)
    for seen in (subjects.subject.iloc[0], f"{subjects.subject.iloc[0]}_ses-2"):
        write_json(study.model("siamese", 1) / "training.json", {"subjects_seen": ["another", seen]})
        with pytest.raises(ValueError, match=naming("siamese, seed 1", subjects.subject.iloc[0])):
            scoring.segment_unseen(study, "siamese", 1, subjects)


def test_a_grid_search_is_read_by_its_dense_blocks(study):
    assert records.by_depth(study).empty, "nothing is trained yet"
    study = study.changed(losses={"dice": None, "deep": {"loss": "siamese", "generator": {"depth": 3}}}, seeds=[1, 2])
    for loss, seed, dice in (("siamese", 1, 0.6), ("siamese", 2, 0.7), ("deep", 1, 0.2), ("deep", 2, 0.4)):
        record = {"loss": loss, "recipe": study.recipe(loss).model_dump(), "validation_dice": dice}
        write_json(study.model(loss, seed) / "training.json", record)
    found = records.by_depth(study)
    depth = study.config.generator.depth
    assert list(found.index) == [depth, 3] and (found.trainings == 2).all()
    assert found.loc[3, ["validation Dice", "lowest", "highest"]].tolist() == pytest.approx([0.3, 0.2, 0.4])
    assert found["validation Dice"][depth] == pytest.approx(0.65)
