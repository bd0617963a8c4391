"""Segmentation of unseen scans: results on their grids, one row per scan, and warnings about unsuitable scans."""

import gc
import gzip
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import keras
import nbformat
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, as_nobody, naming, says, small_scan
from nibabel import orientations
from PIL import Image
from test_bids import errors as bids_errors

from wmhlib import inference
from wmhlib.apply import pictures, results, segment, structures, suitability
from wmhlib.apply.find import find_scans
from wmhlib.apply.lesions import lesions_of, volumes_by_region
from wmhlib.apply.results import COLUMNS, LONGEST, RESULTS, safe_names
from wmhlib.generator import dense_unet
from wmhlib.inference import BUNDLED
from wmhlib.intake import phantom, plausible
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.intake.scans import read_flair
from wmhlib.metrics import challenge_metrics
from wmhlib.running.files import ROOT, alone, sha256, write_json

SHAPE = (17, 18, 9)
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.1, -0.2, 0.15) @ np.diag([1.1, 0.9, 3.0]), [-12.5, 7.25, 31]
)


@pytest.fixture(autouse=True)
def small_heads(monkeypatch, request):
    """The scans made here are far smaller than a head."""
    if "of_a_head" not in request.node.name:
        monkeypatch.setattr(plausible, "doubts", lambda flair: [])
        monkeypatch.setattr(segment, "structure_doubts", lambda structures: [])


@pytest.fixture(scope="module")
def untrained() -> keras.Model:
    return dense_unet(32, 4, 2, 2)


@pytest.fixture(scope="module")
def bright() -> keras.Model:
    """A network that answers with the image itself: its mask is whatever is brighter than half the maximum."""
    image = keras.Input((32, 32, 3), name="whole")
    return keras.Model(image, keras.layers.Rescaling(1 / 255, 103.939 / 255)(image[..., :1]))


def stored(codes="RAS", affine=None, seed=0, dtype=np.float32, shape=SHAPE) -> nibabel.Nifti1Image:
    """A small scan along `codes` with codes, units and a description of its own."""
    image = nibabel.Nifti1Image(
        small_scan(np.random.default_rng(seed), shape)[0].astype(dtype), np.diag([-1, -1, 3, 1.0])
    )
    if affine is not None:
        image = nibabel.Nifti1Image(image.dataobj, affine)
    turn = orientations.axcodes2ornt(codes)
    image = image.as_reoriented(orientations.ornt_transform(orientations.io_orientation(image.affine), turn))
    image.set_sform(image.affine, 2)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Jane Doe 1950-01-01"
    image.header["aux_file"] = b"Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    return image


def write(folder, *names, **keywords):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        nibabel.save(stored(seed=number, **keywords), folder / name)
    return folder


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSL"])
@pytest.mark.parametrize("affine", [None, OBLIQUE], ids=["straight", "oblique"])
def test_results_overlay_the_scan(bright, tmp_path, codes, affine):
    folder = write(tmp_path / "in", "a FLAIR.nii.gz", codes=codes, affine=affine, dtype=np.int16)
    scan = nibabel.load(folder / "a FLAIR.nii.gz")
    table = segment.segment_scans(bright, find_scans(folder), tmp_path / "out", {})
    results = {
        "mask": (tmp_path / "out" / "a_FLAIR_mask.nii.gz", np.uint8),
        "probability": (tmp_path / "out" / "a_FLAIR_probability.nii.gz", np.float32),
    }
    values = {}
    for kind, (path, dtype) in results.items():
        image = nibabel.load(path)
        assert image.shape == scan.shape and np.array_equal(image.affine, scan.affine)
        assert image.get_data_dtype() == dtype and nibabel.aff2axcodes(image.affine) == tuple(codes)
        for field in scan.header:
            if field.startswith(("qform", "sform", "quatern", "qoffset", "srow")):
                assert np.array_equal(image.header[field], scan.header[field]), field
        assert np.array_equal(image.header.get_zooms(), scan.header.get_zooms())
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert (image.header["cal_min"], image.header["cal_max"]) == (0, 1)
        raw = gzip.decompress(path.read_bytes())
        assert b"Doe" not in raw and np.frombuffer(raw[112:120], "<f4").tolist() == [1, 0], "no scale, no name"
        values[kind] = np.asarray(image.dataobj)
    there = np.asarray(scan.dataobj) > 0.5 * np.asarray(scan.dataobj).max()
    mask = values["mask"] > 0
    assert set(np.unique(values["mask"])) == {0, 1} and 0 <= values["probability"].min()
    assert values["probability"].max() <= 1 and np.array_equal(mask, values["probability"] >= 0.5)
    assert 2 * (mask & there).sum() / (mask.sum() + there.sum()) > 0.8, "drawn where the scan is bright"
    row = table.iloc[0]
    assert row.status == "done" and row.lesions == 1, "one bright block"
    assert np.isclose(row.volume_ml, mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000)
    assert row.largest_lesion_ml == row.volume_ml and row["mask"] == str(results["mask"][0])
    assert Image.open(tmp_path / "out" / "a_FLAIR.png").size[0] > 900


def test_a_grid_is_kept_whatever_its_codes(untrained, tmp_path):
    """A file with no orientation, one with a qform alone, and a NIfTI-2 whose offset float32 cannot hold."""
    bare, turned = stored(), stored()
    bare.header["qform_code"] = bare.header["sform_code"] = 0
    turned.header["sform_code"] = 0
    far = OBLIQUE.copy()
    far[0, 3] = 1 / 3 + 1e6
    images = {"bare": bare, "qform": turned}
    for name, image in images.items():
        nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / f"{name}.nii")
    nibabel.save(nibabel.Nifti2Image(np.asarray(bare.dataobj), far), tmp_path / "second.nii")
    table = segment.segment_scans(untrained, find_scans(tmp_path), tmp_path / "out", {})
    assert list(table.status) == ["done"] * 3, table.reason.tolist()
    for name in ("bare", "qform", "second"):
        scan = nibabel.load(tmp_path / f"{name}.nii")
        mask = nibabel.load(tmp_path / "out" / f"{name}_mask.nii.gz")
        assert np.array_equal(mask.affine, scan.affine), name
        assert mask.header["sform_code"] == scan.header["sform_code"], name
        assert mask.header["qform_code"] == scan.header["qform_code"], name
    assert "qform" in table.warnings[0] and not any(table.warnings[1:])


def test_lesions_are_counted_with_corners(bright, tmp_path):
    """Two voxels that share a corner are one lesion; one two slices away is another. Voxels of 2 x 3 x 4 mm."""
    values = np.full((32, 32, 9), 10, np.float32)
    values[0] = 0
    for place in ((5, 5, 2), (6, 6, 3), (20, 20, 7), (21, 20, 7), (20, 21, 7)):
        values[place] = 100
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 3, 4, 1.0])), tmp_path / "one.nii")
    row = segment.segment_scans(bright, [tmp_path / "one.nii"], tmp_path / "out", {}).iloc[0]
    assert row.lesions == 2 and np.isclose(row.volume_ml, 0.12) and np.isclose(row.largest_lesion_ml, 0.072)


def visible(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def bad_scans(folder):
    path = folder / "short_FLAIR.nii.gz"
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:5000])
    for name, values in {"time": np.ones((4, 5, 6, 2)), "nan": np.full((4, 5, 6), np.nan)}.items():
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / f"{name}_FLAIR.nii.gz")
    flat = nibabel.Nifti1Image(noise, np.eye(4))
    flat.header["sform_code"], flat.header["srow_x"] = 1, 0  # no voxel has a volume
    nibabel.save(nibabel.Nifti1Image(noise, None, flat.header), folder / "zero_FLAIR.nii.gz")


def test_a_failing_scan_does_not_stop_the_rest(untrained, tmp_path):
    folder, out = write(tmp_path / "in", "a_FLAIR.nii.gz", "z_FLAIR.nii.gz"), tmp_path / "out"
    bad_scans(folder)
    out.mkdir()
    (out / "nan_FLAIR_mask.nii.gz").write_bytes(b"of someone else")
    found = find_scans(f"{folder}{os.pathsep}{tmp_path / 'nowhere.nii'}")
    table = segment.segment_scans(untrained, found, out, {})
    read = pd.read_csv(out / "volumes.csv")
    assert list(read.columns) == ["scan", "status", "reason", *COLUMNS[3:]]
    assert list(read.scan) == list(table.scan) == list(map(str, found))
    reasons = {row.scan.split("/")[-1]: row.reason for row in read.itertuples() if row.status == "failed"}
    assert set(reasons) == {
        "short_FLAIR.nii.gz",
        "time_FLAIR.nii.gz",
        "nan_FLAIR.nii.gz",
        "zero_FLAIR.nii.gz",
        "nowhere.nii",
    }
    for name, words in {"short": "", "time": "4", "nan": "NaN", "zero": ""}.items():
        assert f"{name}_FLAIR.nii.gz" in reasons[f"{name}_FLAIR.nii.gz"] and words in reasons[f"{name}_FLAIR.nii.gz"]
    assert "nowhere.nii" in reasons["nowhere.nii"] and all("\n" not in text for text in reasons.values())
    assert list(read[read.status == "done"].scan) == [str(folder / f"{name}_FLAIR.nii.gz") for name in "az"]
    failed = read[read.status == "failed"]
    assert failed[["lesions", "volume_ml", "mask"]].isna().all(axis=None)
    assert (out / "nan_FLAIR_mask.nii.gz").read_bytes() == b"of someone else"
    assert visible(out) == sorted(
        [
            "volumes.csv",
            "lesions.csv",
            "nan_FLAIR_mask.nii.gz",
            *(f"{name}_FLAIR{end}" for name in "az" for end in RESULTS.values()),
        ]
    ), "no half a result, and nothing of another is touched"
    assert [name for name, _ in pictures.doubtful_first(table, most=9)] == ["a_FLAIR", "z_FLAIR"]
    assert len(list(pictures.doubtful_first(table, most=1))) == 1


def test_the_table_is_on_disk_after_every_scan(untrained, tmp_path, monkeypatch):
    folder = write(tmp_path / "in", "a.nii", "b.nii")
    whole = segment.segment_scan

    def stop_at_b(network, path, *others):
        if path.name == "b.nii":
            raise KeyboardInterrupt
        return whole(network, path, *others)

    monkeypatch.setattr(segment, "segment_scan", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        segment.segment_scans(untrained, find_scans(folder), tmp_path / "out", {})
    assert len(pd.read_csv(tmp_path / "out" / "volumes.csv")) == 1


@pytest.fixture
def many(tmp_path) -> Path:
    """A folder with so many scans that several processes segment them: one is no image, two have the same content."""
    folder = write(tmp_path / "in", *(f"s{number} FLAIR.nii.gz" for number in range(segment.MANY)))
    (folder / "s3 FLAIR.nii.gz").write_bytes(b"no image")
    (folder / "s5 FLAIR.nii.gz").write_bytes((folder / "s1 FLAIR.nii.gz").read_bytes())
    return folder


@pytest.mark.slow
def test_several_processes_give_the_results_of_one(untrained, many, tmp_path, monkeypatch):
    monkeypatch.undo()  # other processes have the true `doubts`
    untrained.save(model := tmp_path / "model.keras")
    outputs = {1: tmp_path / "one", 2: tmp_path / "two"}
    tables = {}
    for count, out in outputs.items():
        monkeypatch.setattr(segment, "cores", lambda count=count: count)
        segment.segment_scans(untrained, [many / "s2 FLAIR.nii.gz"], out, {}, model)
        corrected = nibabel.load(out / "s2_FLAIR_mask.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image(1 - np.asarray(corrected.dataobj), corrected.affine), out / "s2_FLAIR_mask.nii.gz"
        )
        tables[count] = segment.segment_scans(untrained, [*find_scans(many), many / "s0 FLAIR.nii.gz"], out, {}, model)
        tables[count]["mask"] = [Path(path).name if isinstance(path, str) else "" for path in tables[count]["mask"]]
    assert list(tables[2].status) == ["done"] * 3 + ["failed"] + ["done"] * 3
    assert "s3 FLAIR.nii.gz" in tables[2].reason[3] and "same content" in tables[2].warnings[5]
    assert tables[2]["mask"][2] == "s2_FLAIR-2_mask.nii.gz", "the corrected mask is kept"
    pd.testing.assert_frame_equal(tables[1], tables[2])
    names = [{path.name for path in out.iterdir()} for out in outputs.values()]
    assert names[0] == names[1] and len(names[0]) > 20
    for path in outputs[1].glob("*.nii.gz"):
        assert np.array_equal(nibabel.load(path).dataobj, nibabel.load(outputs[2] / path.name).dataobj), path
    assert (outputs[1] / "lesions.csv").read_text() == (outputs[2] / "lesions.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGINT])
def test_what_several_processes_have_finished_stays_when_they_are_ended(untrained, many, tmp_path, ends):
    """A network is killed in its process, or Ctrl-C is pressed, after the second scan is finished."""
    untrained.save(model := tmp_path / "model.keras")
    script = f"""if True:
        import os, signal
        from pathlib import Path
        from wmhlib.apply import segment
        def moved(folder, out, name, record, move_in=segment.results.move_in):
            record = move_in(folder, out, name, record)
            moves.append(name)
            if len(moves) < 2:
                pass
            elif {int(ends)} == signal.SIGINT:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                import psutil
                max(psutil.Process().children(recursive=True), key=lambda child: child.memory_info().rss).kill()
            return record
        moves, segment.results.move_in = [], moved
        segment.cores = lambda: 2
        path, network, trained_on = segment.open_network({str(model)!r})
        scans = sorted(Path({str(many)!r}).iterdir()) * 4
        segment.segment_scans(network, scans, {str(tmp_path / "out")!r}, trained_on, path)
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert run.returncode, run.stdout
    said = "KeyboardInterrupt" if ends == signal.SIGINT else "probably for lack of memory"
    assert said in run.stderr.splitlines()[-1], run.stderr
    volumes = pd.read_csv(tmp_path / "out" / "volumes.csv")
    assert 1 <= (volumes.status == "done").sum() < 20
    assert not list((tmp_path / "out").glob(".unfinished*"))


def test_what_is_taken_for_a_scan(tmp_path, monkeypatch):
    folder = write(
        tmp_path / "in", "b_flair.nii", "a_FLAIR.nii.gz", "T1.nii.gz", "a_FLAIR_mask.nii.gz", "._x_FLAIR.nii"
    )
    deep = write(folder / "deep [1]", "c-FLAIR.nii.gz", "T1.nii.gz")
    (folder / "FLAIR.txt").write_text("no scan")

    def names(scans):
        return [path.name for path in find_scans(scans)]

    assert names(folder) == ["a_FLAIR.nii.gz", "b_flair.nii", "c-FLAIR.nii.gz"]
    assert names(deep) == ["c-FLAIR.nii.gz"], "brackets of a folder are no pattern"
    assert names(f"{folder}/T*.nii.gz") == ["T1.nii.gz"]
    assert names(write(tmp_path / "group", "PD_003.nii.gz")) == ["PD_003.nii.gz"], "Parkinson's disease"
    assert names(write(tmp_path / "controls", "C12_FLAIR.nii.gz")) == ["C12_FLAIR.nii.gz"]
    assert names(f"{folder}/**/T*.nii.gz") == ["T1.nii.gz", "T1.nii.gz"]
    both = os.pathsep.join([str(deep / "T1.nii.gz"), str(folder / "b_flair.nii"), f"{folder}/*.nii"])
    assert names(both) == ["T1.nii.gz", "b_flair.nii"], "each once, in the order given"
    (deep / "c-FLAIR.nii.gz").rename(deep / "c.nii.gz")
    assert names(deep) == ["c.nii.gz"], "every NIfTI but other contrasts, where none is called FLAIR"
    (deep / "T1.nii.gz").rename(deep / "t2_tirm_tra_dark-fluid.nii.gz")
    assert names(deep) == ["t2_tirm_tra_dark-fluid.nii.gz"]
    write(folder / "p1" / "FLAIR", "scan.nii.gz"), write(folder / "p1" / "T1", "scan.nii.gz")
    assert [path.parent.name for path in find_scans(folder / "p1")] == ["FLAIR"]
    (folder / "p2_FLAIR.nii").write_bytes((folder / "b_flair.nii").read_bytes())
    assert len(find_scans(f"{folder}/p*")) == 2, "a file and a folder"
    for pattern in ("p[0-9]", "**/p[0-9]"):
        assert [path.parent.name for path in find_scans(f"{folder}/{pattern}")] == ["FLAIR"], "a pattern of folders"
    odd = write(tmp_path / f"with{os.pathsep}it", "d.nii")
    assert names(odd / "d.nii") == ["d.nii"]
    monkeypatch.chdir(folder)
    assert names("T1.nii.gz") == ["T1.nii.gz"]


def test_images_that_are_left_out_are_told_with_the_reason(tmp_path):
    folder = write(tmp_path / "in", "a_FLAIR.nii.gz", "T1.nii.gz", "a_WMH.nii.gz")
    (folder / "b_FLAIR.nrrd").write_bytes(b"NRRD0004\n")
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    (folder / "notes.txt").write_text("no image")
    (folder / "c_FLAIR.nii.gz.part").write_bytes((folder / "T1.nii.gz").read_bytes())
    (folder / "d_FLAIR.nii").symlink_to("nowhere")
    notes: list = []
    find_scans(folder, notes)
    told = {Path(path).name: reason for path, reason in notes}
    assert told.keys() == {"T1.nii.gz", "a_WMH.nii.gz", "b_FLAIR.nrrd", "IM0001", "c_FLAIR.nii.gz.part", "d_FLAIR.nii"}
    assert says(told["c_FLAIR.nii.gz.part"], "name") and says(told["d_FLAIR.nii"], "broken link")
    assert says(told["T1.nii.gz"], "FLAIR") and says(told["a_WMH.nii.gz"], "mask")
    assert says(told["b_FLAIR.nrrd"], "NRRD", "Slicer") and says(told["IM0001"], "DICOM", "dcm2niix")
    (folder / "a_FLAIR.nii.gz").unlink(), (folder / "T1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=naming("Left out", "DICOM", "IM0001")):
        find_scans(folder)


def test_what_programs_make_of_a_scan_is_no_scan(tmp_path):
    made = (
        "sub-1_space-FLAIR_T1w",
        "FLAIR_seg",
        "FLAIR_WMH",
        "FLAIR-mask",
        "FLAIR_brainmask",
        "lesionmask_FLAIR",
        "FLAIR_pve_0",
        "FLAIR_mask_corrected",
        "FLAIR_seg_v2",
        "FLAIR_lesion_probs",
        "c1FLAIR",
        "FLAIR_bias",
    )
    folder = write(
        tmp_path / "in",
        "sub-1_FLAIR.nii.gz",
        "FLAIR_T2.nii.gz",
        "lesion_free_FLAIR.nii",
        *(f"{name}.nii.gz" for name in made),
    )
    assert [path.name for path in find_scans(folder)] == [
        "FLAIR_T2.nii.gz",
        "lesion_free_FLAIR.nii",
        "sub-1_FLAIR.nii.gz",
    ]


@pytest.mark.parametrize("scans", ["", "nowhere", "*.nothing", "empty", "a.nii:b.nii"])
def test_no_scan_is_one_sentence(tmp_path, monkeypatch, scans):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        find_scans(scans)
    assert repr(scans) in str(caught.value) and "\n" not in str(caught.value)


HOSTILE = [
    "<img src=x onerror=alert(1)>.nii",
    "..nii",
    "....FLAIR....nii",
    "a b,c\n=1+1.nii",
    "Åse's (2) FLAIR.nii",
    "A_B.nii",
    "a b.nii",
    "x" * 240 + ".nii",
    os.fsdecode(b"\xff\xfe.nii"),
]


def test_names_of_results_are_safe(untrained, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate(HOSTILE):
        (folder / name).write_bytes(stored(seed=seed).to_bytes())
    scans, out = [folder / name for name in HOSTILE], tmp_path / "out"
    table = segment.segment_scans(untrained, scans, out, {})
    assert list(table.status) == ["done"] * len(HOSTILE), table.reason.tolist()
    names = [name for name, _ in pictures.doubtful_first(table, most=99)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert not set("<>/\\&\"' \n,:=") & set(name) and ".." not in name and not name.startswith((".", "-"))
        assert len(name) <= LONGEST + 3 and (out / f"{name}_mask.nii.gz").is_file() and (out / f"{name}.png").is_file()
    assert names[5:7] == ["A_B", "a_b-2"], "collisions are numbered, in whichever case"
    assert len(visible(out)) == len(RESULTS) * len(HOSTILE) + 2 and sorted(tmp_path.iterdir()) == [folder, out]
    assert len(pd.read_csv(out / "volumes.csv")) == len(HOSTILE)
    json.dumps(table.to_dict(), default=str).encode("utf-8")


def test_scans_of_one_name_are_told_apart_by_their_folders(tmp_path):
    scans = [tmp_path / "A" / "1" / "FLAIR.nii.gz", tmp_path / "A" / "2" / "FLAIR.nii.gz", tmp_path / "other.nii"]
    assert safe_names(scans) == ["A_1_FLAIR", "A_2_FLAIR", "other"]


def test_names_keep_every_entity_and_differ_by_more_than_case(tmp_path):
    long = "sub-0001_ses-baseline_acq-highres_ce-none_rec-moco_run-01_echo-1_part-mag_FLAIR"
    assert safe_names([f"{long}.nii.gz", f"{long.replace('run-01', 'run-02')}.nii.gz"]) == [
        long,
        long.replace("run-01", "run-02"),
    ]
    composed, taken_apart = "caf\u00e9.nii", "CAFE\u0301.nii"  # one name on a Mac
    for pair in (["FLAIR.nii", "flair.NII"], ["a.nii", "a.nii.gz"], [composed, taken_apart]):
        names = safe_names([tmp_path / name for name in pair])
        assert names[1].casefold() == f"{names[0]}-2".casefold()


def segment_all(network, out, *scans, model="model.keras") -> pd.DataFrame:
    """Each scan in a call of its own."""
    tables = [segment.segment_scans(network, [scan], out, {}, model) for scan in scans]
    return pd.concat(tables, ignore_index=True)


def check_results(out, table) -> None:
    """Every row's mask is there with its own record, and `volumes.csv` has them all."""
    assert table.status.eq("done").all(), table.reason.tolist()
    assert table["mask"].nunique() == len(table) and set(pd.read_csv(out / "volumes.csv")["mask"]) == set(table["mask"])
    assert len(visible(out)) == len(RESULTS) * len(table) + 2
    for row in table.itertuples():
        record = json.loads(Path(row.mask.replace(RESULTS["mask"], RESULTS["record"])).read_text())
        assert record["scan"] == row.scan and record["network"] == row.network
        assert record["scan_sha256"] == hashlib.sha256(Path(row.scan).read_bytes()).hexdigest()
        assert np.array_equal(nibabel.load(row.mask).affine, nibabel.load(row.scan).affine)


@pytest.mark.parametrize(
    "names",
    [
        ("a/FLAIR.nii.gz", "b/FLAIR.nii.gz", "c/b_FLAIR.nii.gz"),
        ("0/pre/FLAIR.nii.gz", "1/pre/FLAIR.nii.gz", "2/pre/FLAIR.nii.gz"),
        ("sub-1_ses-1_FLAIR.nii.gz", "sub-1_ses-2_FLAIR.nii.gz", "sub-1_ses-2_acq-b_FLAIR.nii.gz"),
        ("sub-1_run-1_FLAIR.nii.gz", "sub-1_run-2_FLAIR.nii.gz", "other/sub-1_run-1_FLAIR.nii.gz"),
        ("x.nii", "x.nii.gz", "X.nii"),
        ("a b.nii", "a_b.nii", "a?b.nii"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_no_scan_takes_the_place_of_another(untrained, tmp_path, names, together):
    scans, out = [tmp_path / "in" / name for name in names], tmp_path / "out"
    for number, scan in enumerate(scans):
        scan.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(stored(seed=number, affine=np.diag([1, 1, 3 + number / 10, 1])), scan)
    run = segment.segment_scans if together else None
    table = run(untrained, scans, out, {}, "model.keras") if run else segment_all(untrained, out, *scans)
    check_results(out, table)
    before = {name: (out / name).stat().st_mtime_ns for name in visible(out)}
    again = segment_all(untrained, out, *reversed(scans))
    assert sorted(again["mask"]) == sorted(table["mask"]), "the same names, in whichever order"
    check_results(out, again)
    assert visible(out) == list(before) and all((out / name).stat().st_mtime_ns > before[name] for name in before)


def test_scans_of_one_name_are_told_apart_by_their_folders_in_later_calls(untrained, tmp_path):
    for number in "012":
        (tmp_path / number).mkdir()
        write(tmp_path / number / "pre", "FLAIR.nii.gz", affine=np.diag([1, 1, 3 + int(number) / 10, 1]))
    scans = [tmp_path / number / "pre" / "FLAIR.nii.gz" for number in "012"]
    names = [Path(mask).name for mask in segment_all(untrained, tmp_path / "out", *scans)["mask"]]
    assert names == ["FLAIR_mask.nii.gz", "1_pre_FLAIR_mask.nii.gz", "2_pre_FLAIR_mask.nii.gz"]


def test_another_network_or_content_takes_the_place_of_nothing(untrained, bright, tmp_path):
    scan, out = write(tmp_path / "in", "x.nii") / "x.nii", tmp_path / "out"
    first = segment_all(untrained, out, scan, model="a.keras")
    second = segment_all(bright, out, scan, model="b.keras")
    check_results(out, pd.concat([first, second], ignore_index=True))
    mask = Path(first["mask"][0])
    before = mask.read_bytes()
    nibabel.save(stored(seed=7), scan)  # another patient's, of the same name in the same place
    third = segment_all(untrained, out, scan, model="a.keras")
    assert third["mask"].nunique() == 1 and third["mask"][0] not in {*first["mask"], *second["mask"]}
    assert mask.read_bytes() == before and len(pd.read_csv(out / "volumes.csv")) == 3


def test_rows_of_earlier_scans_stay_as_they_were_written(untrained, tmp_path):
    folder, out = write(tmp_path / "in", "NA.nii", "b.nii", "c.nii"), tmp_path / "out"
    (folder / "bad.nii").write_bytes(b"no scan")
    segment_all(untrained, out, folder / "NA.nii", folder / "bad.nii", folder / "b.nii")
    lines = (out / "volumes.csv").read_text().splitlines()
    segment_all(untrained, out, folder / "c.nii")
    assert (out / "volumes.csv").read_text().splitlines()[:-1] == lines and len(lines) == 4
    segment_all(untrained, out, folder / "bad.nii", folder / "NA.nii")
    assert len(pd.read_csv(out / "volumes.csv")) == 4, "one row per scan, that of a failed one as well"
    table = (out / "volumes.csv").read_text()
    (out / "volumes.csv").write_text(table + "," * 17 + "\n")  # as spreadsheet programs leave it
    segment_all(untrained, out, folder / "c.nii")
    assert len(pd.read_csv(out / "volumes.csv")) == 4, "blank rows are dropped"
    (out / "volumes.csv").write_text("a;b\n1;2\n")
    with pytest.raises(ValueError, match=naming(out / "volumes.csv")):
        segment_all(untrained, out, folder / "c.nii")
    assert (out / "volumes.csv").read_text() == "a;b\n1;2\n"


def test_a_scan_that_fails_the_second_time_leaves_the_first_results_whole(untrained, tmp_path, monkeypatch):
    folder, out = write(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    segment_all(untrained, out, folder / "a.nii")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name.startswith("a")}
    monkeypatch.setattr(segment, "quality_picture", lambda *_: 1 / 0)
    assert segment_all(untrained, out, folder / "a.nii", folder / "b.nii").status.eq("failed").all()
    assert visible(out) == sorted([*before, "lesions.csv", "volumes.csv"]), "and nothing of b"
    assert {name: (out / name).read_bytes() for name in before} == before
    assert list(pd.read_csv(out / "volumes.csv").status) == ["done", "failed", "failed"]


def corrected(path) -> bytes:
    """A mask as a person saves it: one more voxel, and with an editor's own description in the header."""
    mask = nibabel.load(path)
    values = np.asarray(mask.dataobj).copy()
    values[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(values, mask.affine), path)
    return path.read_bytes()


def test_a_mask_that_a_person_changed_is_kept(untrained, tmp_path):
    folder, out, root = write(tmp_path / "in", "sub-1_FLAIR.nii"), tmp_path / "out", tmp_path / "bids"
    scan = folder / "sub-1_FLAIR.nii"
    segment.write_bids(segment_all(untrained, out, scan), root, "model.keras")
    mask, [derived] = out / "sub-1_FLAIR_mask.nii.gz", root.rglob("*_mask.nii.gz")
    before, derived_before = corrected(mask), corrected(derived)
    for _ in range(2):
        again = segment_all(untrained, out, scan)
        assert Path(again["mask"][0]).name == "sub-1_FLAIR-2_mask.nii.gz"
        assert mask.name in again.warnings[0] and "kept" in again.warnings[0]
        [problem] = segment.write_bids(again, root, "model.keras")
        assert str(derived) in problem and "kept" in problem
    assert mask.read_bytes() == before and derived.read_bytes() == derived_before
    rows = pd.read_csv(out / "volumes.csv")
    assert "by hand" in rows.warnings[0] and "by hand" in rows.verdict[0] and len(rows) == 2
    assert "no check raised" not in rows.verdict[1], "the note on the kept mask counts"
    assert len(pd.read_csv(out / "lesions.csv")) == again.lesions[0], "those of the automatic mask are left out"
    record = out / "sub-1_FLAIR-2.json"
    write_json(record, {key: value for key, value in json.loads(record.read_text()).items() if key != "mask_sha256"})
    assert Path(segment_all(untrained, out, scan)["mask"][0]).name == "sub-1_FLAIR-2_mask.nii.gz", "an older record"


def test_other_results_of_a_scan_are_told(untrained, tmp_path):
    folder, out = write(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    segment_all(untrained, out, folder / "a.nii")
    nibabel.save(stored(seed=7), folder / "a.nii")
    assert "content has changed; a is" in segment_all(untrained, out, folder / "a.nii").warnings[0]
    (out / "a.json").rename(out / "a (copy).json")
    again = segment_all(untrained, out, folder / "a.nii")
    assert Path(again["mask"][0]).name == "a-2_mask.nii.gz", "the record of another name counts for nothing"
    (out / "a-2.json").unlink()
    assert "without its record" in segment_all(untrained, out, folder / "a.nii").warnings[0]
    (folder / "b.nii").write_bytes(b"no scan")
    segment_all(untrained, out, os.path.relpath(folder / "b.nii"))
    nibabel.save(stored(seed=8), folder / "b.nii")
    segment_all(untrained, out, folder / "b.nii")
    assert "failed" not in set(pd.read_csv(out / "volumes.csv").status)
    nibabel.save(stored(seed=8), folder / "b.nii.gz")
    twins = segment.segment_scans(untrained, [folder / "b.nii", folder / "b.nii.gz"], out, {}, "model.keras")
    assert "same content" in twins.warnings[1], "compressed or not"


def test_tables_of_others_are_neither_replaced_nor_joined(untrained, tmp_path):
    scan, out = write(tmp_path / "in", "a.nii") / "a.nii", tmp_path / "out"
    segment_all(untrained, out, scan)
    (out / "my_lesions.csv").write_text("subject,rater\n1,2\n")
    segment_all(untrained, out, scan)
    assert "rater" not in (out / "lesions.csv").read_text()
    own_column = (out / "lesions.csv").read_text().replace("\n", ",true\n").replace(",true", ",mine", 1)
    semicolons = (out / "a_lesions.csv").read_text().replace(",", ";")
    tables = [("lesions.csv", "subject,rater\n1,2\n", "commas"), ("lesions.csv", own_column, "mine")]
    tables += [("volumes.csv", "scan;status;mask\na;b;c\n", "commas"), ("a_lesions.csv", semicolons, "commas")]
    for name, text, said in tables:
        kept = (out / name).read_text()
        (out / name).write_text(text)
        with pytest.raises(ValueError, match=naming(out / name, said)):
            segment_all(untrained, out, scan)
        assert (out / name).read_text() == text
        (out / name).write_text(kept)


def test_a_folder_that_may_not_be_written_is_one_sentence(untrained, open_folder):
    scan = write(open_folder / "in", "a.nii") / "a.nii"
    (open_folder / "out").mkdir(mode=0o555)
    with as_nobody(), pytest.raises(OSError, match=naming(open_folder / "out", "make the folder writable")):
        segment_all(untrained, open_folder / "out", scan)


def test_a_note_on_the_file_and_a_second_copy_are_in_the_verdict_and_the_warnings(untrained, tmp_path):
    image = stored()
    values = np.asarray(image.dataobj).copy()
    values[:2] = np.nan
    for name in ("a.nii", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(values, image.affine), tmp_path / name)
    table = segment.segment_scans(untrained, [tmp_path / "a.nii", tmp_path / "b.nii"], tmp_path / "out", {})
    doubts = table.mirror_dice < suitability.AGREEMENT
    assert ("NaN" in table.warnings[0]) and str(tmp_path / "a.nii") in table.warnings[1].split("; ")[-1]
    assert table.verdict[0] == suitability.verdict(table.lesions[0] == 0, ["a doubt"] * bool(doubts[0]), ["a note"])


def test_two_processes_do_not_write_into_one_folder(untrained, tmp_path):
    folder, out = write(tmp_path / "in", "a.nii"), tmp_path / "out"
    with alone(out / "volumes.csv"), pytest.raises(BlockingIOError, match=naming(out)):
        segment_all(untrained, out, folder / "a.nii")


def test_a_bids_derivative_has_a_mask_for_every_scan(untrained, bright, tmp_path):
    names = ["sub-1_FLAIR", "sub-1_run-1_FLAIR", "sub-1_run-2_FLAIR", "sub-1_ses-2_acq-a_rec-b_run-1_FLAIR"]
    folder = write(tmp_path / "in", *(f"{name}.nii" for name in [*names, "my scan", "sub-2_space-T1w_FLAIR"]))
    out, root = tmp_path / "out", tmp_path / "bids"
    table = segment.segment_scans(untrained, find_scans(f"{folder}/*"), out, {})
    for _ in range(2):
        assert segment.write_bids(table, root, "model.keras") == []
        assert sorted(path.name for path in root.rglob("*_mask.nii.gz")) == [
            "sub-1_run-1_space-orig_label-WMH_mask.nii.gz",
            "sub-1_run-2_space-orig_label-WMH_mask.nii.gz",
            "sub-1_ses-2_acq-a_rec-b_run-1_space-orig_label-WMH_mask.nii.gz",
            "sub-1_space-orig_label-WMH_mask.nii.gz",
            "sub-2_space-T1w_label-WMH_mask.nii.gz",
            "sub-myscan_space-orig_label-WMH_mask.nii.gz",
        ]
    assert bids_errors(root) == []
    masks = {path: path.read_bytes() for path in root.rglob("*_mask.nii.gz")}
    for network, scans in ((bright, folder), (untrained, write(tmp_path / "others", "sub-1_FLAIR.nii", codes="LPS"))):
        other = segment.segment_scans(network, find_scans(f"{scans}/sub-1_FLAIR.nii"), out, {})
        [problem] = segment.write_bids(other, root, "model.keras")
        assert str(root / "sub-1" / "anat" / "sub-1_space-orig_label-WMH_mask.nii.gz") in problem
    assert {path: path.read_bytes() for path in root.rglob("*_mask.nii.gz")} == masks


def test_results_never_land_among_the_scans(untrained, tmp_path):
    folder = write(tmp_path / "in", "a.nii", "a_mask.nii.gz")
    before = (folder / "a_mask.nii.gz").read_bytes()
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        segment.segment_scans(untrained, find_scans(folder), folder, {})
    assert (folder / "a_mask.nii.gz").read_bytes() == before
    with pytest.raises(OSError, match=re.escape(str(folder / "a.nii"))):
        segment.segment_scans(untrained, find_scans(folder), folder / "a.nii", {})


def test_a_model_that_is_none_is_one_sentence(untrained, tmp_path):
    (tmp_path / "text.keras").write_text("not a network")
    untrained.save(tmp_path / "short.keras")
    (tmp_path / "short.keras").write_bytes((tmp_path / "short.keras").read_bytes()[:-1000])
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    image = keras.Input((32, 32, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: x[..., :1])(image)).save(tmp_path / "code.keras")
    keras.Model(image, keras.layers.Conv2D(8, 1)(image)).save(tmp_path / "features.keras")
    flat = keras.Input((32, 32, 1))
    keras.Model(flat, keras.layers.Conv2D(1, 1)(flat)).save(tmp_path / "grey.keras")
    pair = [keras.Input((32, 32, 3)), keras.Input((32, 32, 3))]
    keras.Model(pair, keras.layers.Conv2D(1, 1)(keras.layers.Add()(pair))).save(tmp_path / "pair.keras")
    for name, words in {
        "text.keras": "",
        "short.keras": "",
        "code.keras": "safe mode",
        "model.h5": "model.keras",
        "features.keras": "8",
        "grey.keras": "(None, 32, 32, 1)",
        "pair.keras": "(None, 32, 32, 3)",
    }.items():
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as caught:
            segment.open_network(tmp_path / name)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere.keras"):
        segment.open_network(tmp_path / "nowhere.keras")
    where = tmp_path / "sound" / "model.keras"
    where.parent.mkdir()
    untrained.save(where)
    path, network, trained_on = segment.open_network(where)
    assert path == where and network.input_shape == (None, 32, 32, 3) and trained_on == {}
    assert "0.4 to 0.6" in suitability.about_range(trained_on)
    (where.parent / "training_range.json").write_text('{"scans": 3, "matrix": [1]}')
    with pytest.raises(ValueError, match=re.escape(str(where.with_name("training_range.json")))):
        segment.open_network(path)


def test_a_model_whose_input_has_no_known_name_is_one_sentence(tmp_path):
    image = keras.Input((32, 32, 3), name="input_layer")
    keras.Model(image, keras.layers.Conv2D(1, 1)(image)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=naming(tmp_path / "model.keras", "input_layer", "head_tissue")):
        segment.open_network(tmp_path / "model.keras")


def test_the_training_range_is_what_the_scans_are(tmp_path):
    """Two scans worked out by hand; the tissue of the second is half as bright, and its bright voxels are more than 1 in 1000."""
    first = np.zeros((10, 20, 8), np.float32)
    first[:5, :10] = 50
    first[0, 0, :4] = 100
    second = np.zeros((10, 20, 8), np.float32)
    second[:5, :10, 2:6] = 25
    second[0, 0, 2:6] = 100
    for name, values, spacing in (("a", first, [1, 1.5, 3, 1]), ("b", second, [2, 2, 3, 1])):
        nibabel.save(nibabel.Nifti1Image(values, np.diag(spacing)), tmp_path / f"{name}.nii")
    cohort = pd.DataFrame({"flair": [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]})
    found = suitability.training_range(cohort)
    assert found == {
        "scans": 2,
        "median_tissue_intensity": [0.25, 0.5],
        "median_tissue_of_percentile": [0.25, 0.5],
    }
    earlier = found | {"matrix": [10, 20], "slice_spacing_mm": [3, 3]}  # ranges held more before
    write_json(tmp_path / "training_range.json", earlier)
    assert suitability.read_range(tmp_path / "training_range.json") == found
    assert re.search("2 scan.*0.25 to 0.50", suitability.about_range(found))
    assert suitability.read_range(tmp_path / "nowhere.json") == {}
    with pytest.raises(ValueError):
        suitability.training_range(cohort[:0])


def spiked(times: float) -> nibabel.Nifti1Image:
    """Tissue at 400 with a lesion at 850, in air, with four voxels at `times` that."""
    values = np.zeros((40, 36, 20), np.float32)
    values[5:35, 5:31, 2:18] = 400 + 20 * np.random.default_rng(1).standard_normal((30, 26, 16))
    values[8:13, 20:26, 5:15] = 850
    values[20, 20, 4:8] = 850 * times
    return nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0]))


def test_tissue_out_of_proportion_raises_a_doubt():
    """Tissue is at 0.47 of the maximum, divided by the times."""
    key = suitability.RANGES["maximum"][0]
    levels = {"scans": 3, key: [0.45, 0.5]}
    for trained_on in ({}, levels):
        assert suitability.brightness_doubt(read_flair(spiked(1)), trained_on) == ""
        assert "0.36" in suitability.brightness_doubt(read_flair(spiked(1.3)), trained_on)
    with_skull = {"scans": 3, key: [0.2, 0.22]}
    assert suitability.brightness_doubt(read_flair(spiked(2.1)), with_skull) == ""
    assert "0.47" in suitability.brightness_doubt(read_flair(spiked(1)), with_skull)


def test_fat_raises_a_doubt_of_a_network_by_tissue_and_hot_voxels_do_not():
    values, key = spiked(1).get_fdata(), suitability.RANGES["tissue"][0]
    values[5:7, 5:31, 2:18] = 1500
    fat = read_flair(nibabel.Nifti1Image(values, np.eye(4)))
    for times in (1, 1.3, 20):
        assert suitability.brightness_doubt(read_flair(spiked(times)), {}, "tissue") == ""
    assert "0.27" in suitability.brightness_doubt(fat, {}, "tissue")
    assert suitability.brightness_doubt(fat, {"scans": 1, key: [0.25, 0.3]}, "tissue") == ""


def test_agreement_is_the_dice_of_both_masks():
    mask, other = np.zeros((2, 4, 5, 6), bool)
    assert np.isnan(suitability.agreement(mask, other)) and not suitability.agreement_doubt(float("nan"))
    mask[1, 1:4, 2] = True
    assert suitability.agreement(mask, other) == 0 and suitability.agreement_doubt(0.0)
    other[1, 1:3, 2:4] = True
    assert suitability.agreement(mask, other) == pytest.approx(4 / 7)
    assert suitability.agreement(mask, mask) == 1 and not suitability.agreement_doubt(1.0)


def one_sided() -> keras.Model:
    """A network that answers with the image, but only in the half of it that comes first."""
    image = keras.Input((32, 32, 3), name="whole_tissue")
    grey = keras.layers.Rescaling(1 / 255, 103.939 / 255)(image[..., :1])
    return keras.Model(image, keras.layers.ZeroPadding2D(((0, 16), (0, 0)))(grey[:, :16]))


def blind(name: str) -> keras.Model:
    """A network that finds nothing anywhere."""
    image = keras.Input((32, 32, 3), name=name)
    return keras.Model(image, keras.layers.Rescaling(0.0)(image[..., :1]), name="blind")


@pytest.mark.parametrize(
    ("network", "times", "empty", "doubtful"),
    [
        (blind("whole"), 1, True, False),
        (blind("whole"), 4, True, True),
        (blind("whole_tissue"), 4, True, False),
        (one_sided(), 1, True, True),  # each look finds another half: their mean is sure of neither
        (None, 1, False, False),
    ],
    ids=["nothing", "dark", "dark by tissue", "one side", "sound"],
)
def test_an_empty_mask_of_a_scan_that_cannot_be_read_is_no_healthy_brain(
    bright, tmp_path, network, times, empty, doubtful
):
    nibabel.save(spiked(times), tmp_path / "a.nii")
    row = segment.segment_scans(network or bright, [tmp_path / "a.nii"], tmp_path / "out", {}).iloc[0]
    assert row.status == "done", row.reason
    assert row.verdict == suitability.verdict(empty, ["a doubt"] * doubtful, [])
    assert (row.warnings != "") == doubtful and (row.lesions == 0) == empty
    looks_differ = network is not None and network.name != "blind"
    assert row.mirror_dice < 0.1 if looks_differ else np.isnan(row.mirror_dice) if empty else row.mirror_dice > 0.99
    assert pd.read_csv(tmp_path / "out" / "volumes.csv").verdict[0] == row.verdict
    assert len(set(suitability.VERDICTS.values())) == len(suitability.VERDICTS) == 6


def test_the_picture_shows_the_slices_with_most_lesion_and_loses_no_voxel():
    values = np.full((40, 60, 9), 0.4, np.float32)
    values[0, 0, 0] = 1
    flair = nibabel.Nifti1Image(values, np.diag([2.0, 1.0, 3.0, 1.0]))
    mask = np.zeros(values.shape, bool)
    mask[10, 50, 7] = True
    mask[20:24, 20:24, 2] = mask[20:23, 20:23, 5] = True
    likely = np.where(mask, 0.9, 0.0)
    drawn = np.asarray(pictures.quality_picture(flair, mask, likely, "<b>"))
    tiles = np.split(drawn[44 : 44 + 288].astype(int), 3, axis=1)
    below = np.split(drawn[44 + 288 :].astype(int), 3, axis=1)
    assert all((tile[..., 0] - tile[..., 2] > 60).any() for tile in below), "and the probability, in colour"
    assert tiles[0].shape == (288, 384, 3), "80 x 60 mm in square pixels"
    orange = [np.argwhere(tile[..., 0] - tile[..., 2] > 100) for tile in tiles]  # slices 2, 5, 7
    assert all(len(places) for places in orange)
    rows, columns = orange[2].mean(axis=0)
    assert abs(rows - (60 - 50.5) * 4.8) < 3 and abs(columns - (40 - 10.5) * 9.6) < 5, "anterior up, right is left"
    blank = np.asarray(pictures.quality_picture(flair, np.zeros(values.shape, bool), likely * 0, "none"))
    assert not (blank[44:, ..., 0].astype(int) - blank[44:, ..., 2] > 100).any()
    assert pictures.quality_picture(flair.slicer[..., :1], mask[..., :1], likely[..., :1], "one slice").size[0] == 384


@pytest.mark.slow
def test_memory_stays_flat_over_many_scans(tmp_path):
    """What is held after forty scans is what is held after ten, but for their rows."""
    smallest = dense_unet(32, 4, 1, 1)
    folder = write(tmp_path / "in", *(f"{number:03d}.nii" for number in range(40)), shape=(34, 36, 9))
    scans = find_scans(folder)
    segment.segment_scans(smallest, scans[:3], tmp_path / "warm", {})
    held, peaks, resident = [], [], []
    tracemalloc.start()
    for some in (scans[:10], scans):
        gc.collect()
        tracemalloc.reset_peak()
        table = segment.segment_scans(smallest, some, tmp_path / str(len(some)), {})
        used, peak = tracemalloc.get_traced_memory()
        held, peaks = [*held, used], [*peaks, peak]
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    tracemalloc.stop()
    assert len(table) == 40 and table.status.eq("done").all()
    assert peaks[1] - peaks[0] < 2e6 and held[1] - held[0] < 1e6, "a scan is 88 kB as float64; 30 of them 2.6 MB"
    assert resident[1] - resident[0] < 60e6, "2 MB as measured; other tests of the process may leave work behind"


@pytest.fixture(scope="module")
def model(tmp_path_factory, bright):
    folder = tmp_path_factory.mktemp("model")
    bright.save(folder / "model.keras")
    return folder / "model.keras"


@pytest.mark.slow
def test_the_notebook_segments_what_it_is_given(model, tmp_path):
    folder = write(tmp_path / "in <b>", "a_FLAIR.nii.gz", "b_FLAIR.nii.gz")
    (folder / "c_FLAIR.nii.gz").write_bytes(b"no scan")
    cohort = pd.DataFrame({"flair": [str(folder / "a_FLAIR.nii.gz")]})
    write_json(model.with_name("training_range.json"), suitability.training_range(cohort))
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "07_segment_scan.ipynb")]
    command += [str(tmp_path / "out.ipynb"), "-p", "scans", str(folder), "-p", "model", str(model)]
    command += ["-p", "out", str(tmp_path / "results")]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    table = pd.read_csv(tmp_path / "results" / "volumes.csv")
    assert list(table.status) == ["done", "done", "failed"] and table.lesions[:2].tolist() == [1, 1]
    outputs = [output for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for output in cell.get("outputs", [])]
    shown = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(shown) == 2 and shown[0].metadata["image/jpeg"]["alt"].startswith("a_FLAIR: ")
    text = "".join(output.get("text", "") for output in outputs)
    assert "1 scan" in text and "c_FLAIR.nii.gz" in text and "2 of 3 scans" in text
    page = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert "in &lt;b&gt;" in page and "<b>" not in page


def test_lesions_have_their_volume_place_and_probability():
    """Three pieces on a sheared grid with voxels of 2 x 1 x 3 mm: 4 voxels, 2 that touch by a corner, and 1."""
    likely = np.zeros((9, 8, 7), np.float32)
    likely[1:3, 1:3, 1] = 0.6
    likely[1, 1, 1] = 0.9
    likely[6, 6, 4], likely[7, 7, 5] = 0.5, 0.7
    likely[5, 1, 5] = 0.8
    affine = np.array([[-2, 0, 0.3, 10], [0, 1, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(likely, affine)
    mask, table = lesions_of(image, 0.5)
    assert np.array_equal(mask, likely >= 0.5)
    assert list(table.lesion) == [1, 2, 3] and np.allclose(table.volume_ml, [0.024, 0.012, 0.006])
    middle = nibabel.affines.apply_affine(affine, [[1.5, 1.5, 1], [6.5, 6.5, 4.5], [5, 1, 5]])
    assert np.allclose(table[["x_mm", "y_mm", "z_mm"]], middle)
    assert np.allclose(table.mean_probability, [0.675, 0.6, 0.8]) and np.allclose(
        table.highest_probability, [0.9, 0.7, 0.8]
    )
    assert table.ventricle_mm.isna().all() and set(table.region) == {""}, "without ventricles"
    ventricles = np.zeros(likely.shape, bool)
    ventricles[1:3, 5, 1] = True
    near = lesions_of(image, 0.5, ventricles=ventricles)[1]
    step = affine[:3, :3] @ [[0], [3], [0]]
    assert near.ventricle_mm[0] == pytest.approx(np.linalg.norm(step))
    points = [nibabel.affines.apply_affine(affine, places) for places in ([[6, 6, 4]], np.argwhere(ventricles))]
    assert near.ventricle_mm[1] == pytest.approx(np.linalg.norm(points[0] - points[1], axis=1).min())
    assert near.region.tolist() == ["periventricular", "deep", "deep"]
    mask, table = lesions_of(image, 0.5, smallest_mm3=10)
    assert mask.sum() == 6 and len(table) == 2, "one voxel of 6 mm³ is left out"
    mask, table = lesions_of(image, 0.95)
    assert not mask.any() and table.empty


def test_a_threshold_of_the_network_or_of_the_caller_cuts_the_probability(bright, tmp_path):
    nibabel.save(spiked(1), tmp_path / "a.nii")
    volumes = {}
    for name, trained_on, keywords in (
        ("half", {}, {}),
        ("network", {"threshold": 0.4}, {}),
        ("caller", {"threshold": 0.4}, {"threshold": 0.9}),
        ("large", {}, {"smallest_mm3": 1e5}),
    ):
        row = segment.segment_scans(bright, [tmp_path / "a.nii"], tmp_path / name, trained_on, **keywords).iloc[0]
        assert row.status == "done", row.reason
        volumes[name] = row.volume_ml
        likely, mask = (
            np.asarray(nibabel.load(tmp_path / name / f"a_{what}.nii.gz").dataobj) for what in ("probability", "mask")
        )
        assert name == "large" or np.array_equal(mask > 0, likely >= row.threshold)
        lesions = pd.read_csv(tmp_path / name / "lesions.csv") if row.lesions else pd.DataFrame({"volume_ml": []})
        assert np.isclose(lesions.volume_ml.sum(), row.volume_ml) and len(lesions) == row.lesions
        assert not row.lesions or set(lesions.network_sha256) == {row.network_sha256}
    assert volumes["network"] > volumes["half"] > volumes["caller"] and volumes["large"] == 0


@pytest.mark.skipif(not (SHARED / "real" / "unlabelled").is_dir(), reason="no real scans next to the project")
def test_a_real_scan_comes_back_on_its_own_grid(untrained, tmp_path):
    path = sorted((SHARED / "real" / "unlabelled").glob("*.nii.gz"))[0]
    table = segment.segment_scans(untrained, [path], tmp_path, {})
    assert table.status[0] == "done", table.reason[0]
    scan = nibabel.load(path)
    for result in map(nibabel.load, tmp_path.glob("*.nii.gz")):
        assert result.shape == scan.shape and np.array_equal(result.affine, scan.affine)
        assert all(result.header[field] == scan.header[field] for field in ("sform_code", "qform_code"))
        assert np.array_equal(result.header.get_zooms(), scan.header.get_zooms())
    assert len(visible(tmp_path)) == len(RESULTS) + 2


@pytest.mark.parametrize(("voxel_mm", "doubted"), [(1, False), (3, True), (0.1, True)])
def test_a_scan_that_is_not_the_size_of_a_head_is_doubted(voxel_mm, doubted):
    values = np.zeros((150, 150, 150), np.float32)
    values[20:130, 20:130, 20:130] = 0.5 + 0.1 * np.random.default_rng(0).random((110, 110, 110))  # 1.3 litres
    flair = nibabel.Nifti1Image(values, np.diag([voxel_mm] * 3 + [1]))
    assert any("measures" in text for text in plausible.doubts(flair)) == doubted


@pytest.mark.slow
def test_the_network_that_comes_with_the_project_makes_a_mask_worth_looking_at(tmp_path):
    """What `make segment` runs, on a synthetic scan of a centre that the network never saw."""
    flair, wmh = phantom.subject(5, "Birch", 1)
    for name, image in (("a <b> FLAIR", flair), ("wmh", wmh)):
        (tmp_path / name).mkdir()
        nibabel.save(image, tmp_path / name / f"{name}.nii.gz")
    out = tmp_path / "out"
    command = [sys.executable, "workflow/notebook.py", "07_segment_scan", out / "07_segment_scan.ipynb"]
    command += ["-p", "scans", tmp_path / "a <b> FLAIR", "-p", "out", out, "--page", out / "index.html"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and ran.stdout.endswith(f"Open {out / 'index.html'}.\n"), ran.stdout + ran.stderr
    row, lesions = pd.read_csv(out / "volumes.csv").iloc[0], pd.read_csv(out / "lesions.csv")
    assert row.network == str(BUNDLED) and row.network_sha256 == sha256(BUNDLED) and len(lesions) == row.lesions > 5
    assert challenge_metrics(tmp_path / "wmh" / "wmh.nii.gz", row["mask"])["dice"] > 0.5
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page and "The network that comes with the project" in page and "<b> FLAIR" not in page


def test_the_network_that_comes_with_the_project_is_small_and_says_what_it_is():
    path, network, trained_on = segment.open_network()
    names = {path.name for path in BUNDLED.parent.glob("*.keras")}
    assert names == {"model.keras", *(f"{structure}.keras" for structure in STRUCTURES)}
    assert path == BUNDLED and path.stat().st_size < 5e6 and 0 < trained_on["threshold"] < 1
    card = path.with_name("README.md").read_text(encoding="utf-8")
    assert all(sha256(path.with_name(name)) in card for name in names), "the card is of these networks"
    assert f"{network.count_params():,} weights" in card
    assert inference.load_generator().name == network.name, "the same without a path"


def test_nothing_is_marked_outside_a_mask():
    image = keras.Input((16, 16, 3), name="head_tissue")
    marks_everything = keras.layers.Conv2D(
        1, 1, activation="sigmoid", kernel_initializer="zeros", bias_initializer="ones"
    )
    network = keras.Model(image, marks_everything(image))
    head = np.random.default_rng(1).uniform(0.4, 0.5, (16, 18, 40)).astype(np.float32)
    scan = nibabel.Nifti1Image(head[:, :, ::-1], np.diag([1.0, 1.0, -2.0, 1.0]))  # stored from the top down
    inside = np.zeros(head.shape, bool)
    inside[3:12, 2:9, 5:9] = True
    mean, looks = inference.two_looks(network, scan, inside)
    assert all(np.array_equal(values > 0.5, inside) for values in (np.asarray(mean.dataobj), *looks))
    asked = inference.predicted(network, inference.prepared(network, scan), rows=np.arange(40) > 30)
    assert asked[31:].all() and not asked[:31].any()


@pytest.mark.parametrize("centre", ["Alder", "Birch"])  # with skull, and stripped
def test_the_inside_of_the_skull_and_the_ventricles_are_found(centre):
    images = phantom.simulated(3, centre, 0, 0.5, None, structures=True)
    found = structures.structures_of(images["FLAIR"])
    for structure, least in (("intracranial", 0.93), ("ventricles", 0.7)):
        true, mine = np.asarray(images[structure].dataobj) > 0, getattr(found, structure)
        assert 2 * (mine & true).sum() / (mine.sum() + true.sum()) > least
    assert structures.structure_doubts(found) == [] and not (found.ventricles & ~found.intracranial).any()
    other = inference.prepared(dense_unet(32, 4, 1, 1, preparation="whole"), images["FLAIR"])
    again = structures.structures_of(other)
    assert np.array_equal(again.ventricles, found.ventricles), "whatever network the scan was prepared for"


def test_a_scan_without_a_skull_is_doubted_and_nothing_is_left_out():
    found = structures.structures_of(stored())
    assert found.intracranial.all() and not found.ventricles.any()
    assert found.intracranial_ml < structures.EXPECTED_ML[0]
    doubts = structures.structure_doubts(found)
    assert says(doubts, "expected 500 to 2200", "outside it") and says(doubts, "ventricles were not found")
    vast = found._replace(intracranial_ml=3000.0, ventricles=found.intracranial)
    assert structures.structure_doubts(vast) == ["3000 ml were found inside the skull, expected 500 to 2200"]
    blobs = np.zeros((7, 9, 9), bool)
    blobs[:, 2:7, 2:7], blobs[:, 4, 4], blobs[0, 0, 0], blobs[4] = True, False, True, False
    parts = structures.large_parts(blobs)
    assert not parts[0, 0, 0] and not parts[4].any(), "a speck is left out"
    assert parts.sum() == 6 * 25, "holes are filled, and both sides of a blank slice are kept"


def test_structures_reach_the_mask_the_row_and_the_warnings_of_a_head(bright, tmp_path, monkeypatch):
    nibabel.save(spiked(1), tmp_path / "a.nii")
    shape = nibabel.load(tmp_path / "a.nii").shape
    inside, ventricles = np.zeros(shape, bool), np.zeros(shape, bool)
    inside[: shape[0] // 2], ventricles[:2] = True, True
    for name, where, known in (("with", ventricles, True), ("without", ventricles & False, False)):
        found = structures.Structures(inside, where, 1234.5, 30.0)
        monkeypatch.setattr(segment, "structures_of", lambda seen, found=found: found)
        row = segment.segment_scans(bright, [tmp_path / "a.nii"], tmp_path / name, {}).iloc[0]
        mask = np.asarray(nibabel.load(row["mask"]).dataobj) > 0
        assert mask.any() and not (mask & ~inside).any()
        assert (row.intracranial_ml, row.ventricles_ml) == (1234.5, 30)
        lesions = pd.read_csv(tmp_path / name / "lesions.csv")
        assert lesions.ventricle_mm.notna().all() == lesions.region.notna().all() == known
        if known:
            assert row.periventricular_ml + row.deep_ml == pytest.approx(row.volume_ml)
        else:
            assert np.isnan(row.periventricular_ml) and np.isnan(row.deep_ml)
        assert row.structures_sha256 == structures.structures_sha256()


def test_tables_of_the_first_version_stay_and_get_empty_columns(bright, tmp_path):
    for name in ("a", "b"):
        nibabel.save(spiked(1), tmp_path / f"{name}.nii")
    segment.segment_scans(bright, [tmp_path / "a.nii"], tmp_path / "out", {})
    for table in (tmp_path / "out").glob("*.csv"):
        old = pd.read_csv(table)
        old.drop(columns=[column for column in results.LATER if column in old]).to_csv(table, index=False)
    segment.segment_scans(bright, [tmp_path / "b.nii"], tmp_path / "out", {})
    rows = pd.read_csv(tmp_path / "out" / "volumes.csv").set_index("scan")
    assert np.isnan(rows.intracranial_ml[str(tmp_path / "a.nii")]) and rows.intracranial_ml[str(tmp_path / "b.nii")] > 0
    assert pd.read_csv(tmp_path / "out" / "lesions.csv").scan.nunique() == 2


def test_doubts_about_structures_of_a_head_are_among_the_warnings(bright, tmp_path):
    nibabel.save(spiked(1), tmp_path / "a.nii")
    row = segment.segment_scans(bright, [tmp_path / "a.nii"], tmp_path / "out", {}).iloc[0]
    assert (
        "inside the skull" in row.warnings and "ventricles were not found" in row.warnings and "doubtful" in row.verdict
    )


def test_a_lesion_is_periventricular_if_half_of_it_is_near():
    likely, ventricles = np.zeros((2, 40, 3, 3), np.float32)
    ventricles[0, 1, 1] = 1
    likely[9:13, 1, 1] = 1  # 9 to 12 mm: two of four within 10 mm
    likely[10:13, 1, 1] = 1
    image = nibabel.Nifti1Image(likely, np.eye(4))
    assert lesions_of(image, 0.5, ventricles=ventricles > 0)[1].region.tolist() == ["periventricular"]
    likely[13, 1, 1] = 1  # two of five
    image = nibabel.Nifti1Image(likely, np.eye(4))
    table = lesions_of(image, 0.5, ventricles=ventricles > 0)[1]
    assert table.region.tolist() == ["deep"] and table.ventricle_mm.tolist() == [9]
    assert volumes_by_region(table) == pytest.approx({"periventricular_ml": 0, "deep_ml": 0.005})


def test_slices_without_brightness_are_not_marked():
    image = keras.Input((32, 32, 3), name="whole")
    everything = keras.Model(image, keras.layers.Rescaling(0.0, 1.0)(image[..., :1]))
    values = small_scan(np.random.default_rng(0), (34, 36, 9))[0].astype(np.float32)
    values[..., [0, 1, 8]] = 0
    scan = nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0]))
    marked = np.asarray(inference.segment(everything, scan).dataobj).any(axis=(0, 1))
    assert marked.tolist() == [False, False, *[True] * 6, False]
