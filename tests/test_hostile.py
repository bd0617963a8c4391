"""Files, names and configurations that someone made to do harm, or that a broken disk or program made.

Whatever comes in is read, or refused in one sentence that names it; never a crash of another kind, a wait without end, or
memory that the file's size does not justify. `WMH_FUZZ=20000` tries so many mutated files instead of a hundred.
"""

import contextlib
import gzip
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
import tracemalloc
from types import SimpleNamespace

import hypothesis
import nibabel
import numpy as np
import pytest
import yaml
from conftest import naming, open_browser, small_scan, write_subject
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from nbformat import v4

from wmhlib import cohort, inference, metrics, slices
from wmhlib.apply import segment
from wmhlib.apply.find import find_scans
from wmhlib.evaluation import froc, lesions, records, scoring
from wmhlib.evaluation.threshold import threshold_mask
from wmhlib.intake import scans
from wmhlib.intake.nifti import open_scan, save_image
from wmhlib.report import captions, figures, pages, pictures, viewers
from wmhlib.running import command
from wmhlib.running.files import ROOT, write_json
from wmhlib.study import Study, open_study

MORE = int(os.environ.get("WMH_FUZZ", 0))
KINDS = (np.uint8, np.int16, np.float32, np.float64, ">i2", ">f4")
REFUSALS = (ValueError, OSError, FileNotFoundError, PermissionError)


def fuzz(examples: int) -> hypothesis.settings:
    """The same examples on every machine; many more where `WMH_FUZZ` asks for them."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return hypothesis.settings(
        max_examples=MORE or examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet
    )


@contextlib.contextmanager
def bounded(most_mb: float = 64, most_s: float = 10):
    """What is done inside may take so much memory and time, and could not take the machine's."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**32, before[1]))
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert peak < most_mb * 1e6, f"{peak / 1e6:.0f} MB were taken"
    assert took < most_s, f"it took {took:.1f} s"


NETWORK = SimpleNamespace(
    inputs=[SimpleNamespace(name="pad")],
    input_shape=(None, 32, 32, 3),
    predict_on_batch=lambda batch: np.asarray(batch[..., :1] > 0, np.float32),
)
"""As much of a network as segmenting a scan asks for."""


def whole(kind, header=nibabel.Nifti1Image) -> bytes:
    """A small scan whose voxels are those of a FLAIR or, as bytes, of a mask, as the bytes of a .nii."""
    flair, reference = small_scan(np.random.default_rng(0), (17, 18, 5))
    image = header((reference if kind is np.uint8 else flair).astype(kind), np.diag([-1, -1, 3, 1.0]))
    image.header.set_data_dtype(kind)
    image.header["descrip"] = b"a scan"
    return (image if np.dtype(kind).isnative else header(image.dataobj, None, image.header.as_byteswapped())).to_bytes()


WHOLE = [whole(kind) for kind in KINDS] + [whole(np.int16, nibabel.Nifti2Image)]
MASK, SOUND = WHOLE[KINDS.index(np.uint8)], WHOLE[KINDS.index(np.int16)]
FLOATS = [
    0, -0.0, -1, 0.5, 1, 3, 0.01, 0.0099, 100, 1e-45, 1e-30, 1e30, 3.4e38, np.nan, np.inf, -np.inf, 351, 352,
    2**20,
]  # fmt: skip
INTEGERS = [
    -32768, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 256, 348, 512, 540, 768, 1024, 1025, 1536, 2048, 2304,
    32767,
]  # fmt: skip
WILD = [
    "dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "magic", "sizeof_hdr",
    "dim_info",
]  # fmt: skip
WILD += ["qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "qoffset_x", "xyzt_units"]


@st.composite
def files(draw) -> tuple[str, bytes]:
    """A name's ending and the bytes of a scan of which some were changed, before it was compressed, after it, or both."""
    raw = bytearray(draw(st.sampled_from(WHOLE)))
    kind = nibabel.Nifti2Header if raw[:4] == (540).to_bytes(4, "little") else nibabel.Nifti1Header
    layout = kind.template_dtype.newbyteorder("<" if raw[0] else ">")
    for name in draw(st.lists(st.sampled_from(WILD), max_size=3)):
        kind, start = layout.fields[name][:2]
        base, shape = kind.subdtype or (kind, ())
        place = draw(st.integers(0, int(np.prod(shape)) - 1)) * base.itemsize + start
        if base.kind == "f":
            value = draw(st.sampled_from(FLOATS) | st.floats(width=32))
        elif base.kind == "S":
            value = draw(st.sampled_from([b"", b"ni1", b"n+1", b"n+2", b"\xff"]))
        else:
            bounds = np.iinfo(base)
            value = draw(st.sampled_from(INTEGERS) | st.integers(-(2**31), 2**31 - 1))
            value = min(max(value, bounds.min), bounds.max)
        raw[place : place + base.itemsize] = np.array(value, base).tobytes()
    raw = _broken(draw, raw, len(raw))
    if draw(st.booleans()):
        return ".nii", bytes(raw)
    packed = bytearray(gzip.compress(raw, draw(st.sampled_from([0, 1, 9])), mtime=0))
    return ".nii.gz", bytes(_broken(draw, packed, len(packed)) if draw(st.booleans()) else packed)


def _broken(draw, raw: bytearray, size: int) -> bytearray:
    """Bytes with some flipped, the end cut off or something added."""
    for place in draw(st.lists(st.integers(0, size - 1) | st.integers(0, min(size, 600) - 1), max_size=2)):
        raw[place] ^= draw(st.integers(1, 255))
    cut = draw(st.none() | st.none() | st.integers(0, size))
    return raw[:cut] + draw(st.sampled_from([b"", b"", b"", b"\0" * 64, b"junk", bytes(2**21)]))


def ways_in(path, sound, mask, out):
    """Every way by which a scan or mask is read, and what is done with a FLAIR that was read.

    `sound` and `mask` are a FLAIR and a mask that nothing is wrong with.
    """
    flair = None

    def read():
        nonlocal flair
        flair = scans.read_flair(path)

    def network():
        name = f"{len(os.listdir(out))}"
        segment.segment_scan(NETWORK, path, name, out, {})
        for one in out.iterdir():
            one.unlink()

    yield read
    yield lambda: scans.canonical_slice_count(path)
    yield lambda: scans.read_reference(path)
    yield lambda: scans.read_pair(sound, path)
    yield lambda: metrics.positive_class_density(path)
    yield lambda: metrics.challenge_metrics(path, path)
    yield lambda: metrics.challenge_metrics(mask, path)
    yield lambda: lesions.lesion_records(metrics.MaskPair(path, path))
    yield lambda: lesions.volumes_ml(metrics.MaskPair(path, path))
    yield lambda: threshold_mask(path, 0.5)
    if flair is not None:
        for view in slices.VIEWS:
            yield lambda view=view: slices.round_trip(flair, flair, 16, view)
        yield lambda: viewers.pack_scan(flair.get_fdata(dtype=np.float32), flair.affine, {}, "s")
        yield network


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::wmhlib.intake.nifti.Mended")
@fuzz(100)
@given(file=files())
def test_a_mutated_scan_is_read_or_refused_in_one_sentence(tmp_path_factory, file):
    ending, content = file
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    (folder / "out").mkdir(parents=True, exist_ok=True)
    sound, mask, path = folder / "sound.nii", folder / "mask.nii", folder / f"scan{ending}"
    sound.write_bytes(SOUND)
    mask.write_bytes(MASK)
    path.write_bytes(content)
    with bounded():
        for way in ways_in(path, sound, mask, folder / "out"):
            try:
                way()
            except Exception as error:
                assert type(error) in REFUSALS, repr(error)
                text = str(error)
                assert "\n" not in text and text.endswith((".", "…")) and ("scan.nii" in text or "head of" in text), (
                    text
                )


def packed(image: nibabel.Nifti1Image, path, behind: int = 0):
    """A .nii.gz, with so many zeros behind its voxels."""
    with gzip.open(path, "wb", 9) as file:
        file.write(image.to_bytes())
        for _ in range(behind // 2**24):
            file.write(bytes(2**24))
    return path


def header_of(shape, extension: bytes = b"") -> bytes:
    """The header of a uint8 NIfTI-1 that claims this shape."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["pixdim"][1:4] = header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = header["sform_code"] = 1
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + (b"\1\0\0\0" if extension else bytes(4)) + extension


@pytest.mark.slow
def test_a_file_that_swells_or_claims_too_much_costs_no_more_than_its_size(tmp_path):
    good = nibabel.Nifti1Image(small_scan(np.random.default_rng(0))[0], np.eye(4))
    endless = packed(good, tmp_path / "endless.nii.gz", behind=2**29)
    (tmp_path / "huge.nii").write_bytes(header_of((32767, 32767, 32767)) + bytes(1000))
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(header_of((32767, 32767, 32767)) + bytes(1000)))
    (tmp_path / "lies.nii.gz").write_bytes(gzip.compress(header_of((500, 500, 500)) + bytes(1000)))
    (tmp_path / "long.nii.gz").write_bytes(gzip.compress(header_of((3, 3, 3, 30_000, 30_000)) + bytes(1000)))
    short = bytearray(header_of((200, 200, 200)) + bytes(10**6))
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(short) + np.random.default_rng(0).bytes(10_000))
    shown = {
        "endless.nii.gz": "",
        "huge.nii": "32767 x 32767 x 32767",
        "huge.nii.gz": "32767 x 32767 x 32767",
        "lies.nii.gz": "125000352",
        "long.nii.gz": "30000",
        "short.nii.gz": "",
    }
    assert endless.stat().st_size < 2**20
    for name, claimed in shown.items():
        for read in (scans.read_flair, scans.read_reference, metrics.positive_class_density):
            with bounded(), pytest.raises(ValueError, match=naming(tmp_path / name, claimed)) as raised:
                read(tmp_path / name)
            assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_an_extension_is_never_followed(tmp_path):
    """One that claims 2 GB, in a stream that would deliver them."""
    scan = bytearray(header_of((3, 3, 3), extension=np.array([2**31 - 16, 6], "<i4").tobytes()))
    scan[108:112] = np.float32(368).tobytes()
    with gzip.open(tmp_path / "scan.nii.gz", "wb") as file:
        file.write(scan + bytes(8) + bytes([0, 1, 2] * 9))
        for _ in range(32):
            file.write(bytes(2**24))
    with bounded():
        assert open_scan(tmp_path / "scan.nii.gz").shape == (3, 3, 3)
        with pytest.raises(ValueError, match=naming(tmp_path / "scan.nii.gz")):
            scans.read_flair(tmp_path / "scan.nii.gz")


def test_an_empty_mask_that_packs_a_thousandfold_is_read(tmp_path):
    path = packed(nibabel.Nifti1Image(np.zeros((256, 256, 100), np.uint8), np.eye(4)), tmp_path / "wmh.nii.gz")
    assert path.stat().st_size * 900 < 256 * 256 * 100
    assert not np.asarray(scans.read_reference(path).dataobj).any() and metrics.positive_class_density(path) == 0


def test_a_stream_that_fails_its_checksum_is_refused(tmp_path):
    raw = bytearray(gzip.compress(WHOLE[2]))
    raw[-8] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(raw)
    for read in (scans.read_flair, metrics.positive_class_density):
        with pytest.raises(ValueError, match=naming(tmp_path / "scan.nii.gz", "CRC")):
            read(tmp_path / "scan.nii.gz")


def test_a_flat_scan_has_no_slices_to_count(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 6), np.float32), np.eye(4)), tmp_path / "flat.nii")
    with pytest.raises(ValueError, match=naming(tmp_path / "flat.nii", "(5, 6)")):
        scans.canonical_slice_count(tmp_path / "flat.nii")


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    (tmp_path / "zero.nii.gz").symlink_to("/dev/zero")
    (tmp_path / "empty.nii.gz").touch()
    kinds = dict.fromkeys(("pipe", "folder", "zero", "empty"), ValueError)
    for name, kind in (kinds | dict.fromkeys(("loop", "nul\0"), FileNotFoundError)).items():
        for read in (scans.read_flair, scans.canonical_slice_count, inference.probability):
            arguments = [NETWORK] if read is inference.probability else []
            with bounded(), pytest.raises(kind, match=naming(f"{name}.nii.gz")):
                read(*arguments, tmp_path / f"{name}.nii.gz")
        with pytest.raises((ValueError, FileNotFoundError)):
            metrics.positive_class_density(tmp_path / f"{name}.nii.gz")


def test_folders_hold_pipes_loops_and_devices_and_are_named(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match=naming(tmp_path / "loop")):
        cohort.read_folder(tmp_path / "loop")
    subject = tmp_path / "set" / "training" / "A" / "7"
    write_subject(subject, *small_scan(np.random.default_rng(0)))
    (subject / "around").symlink_to(tmp_path / "set" / "training")
    assert len(cohort.read_folder(tmp_path / "set")) == 1, "a link back up is not followed for ever"
    ways = {"pipe": os.mkfifo, "folder": os.mkdir, "loop": lambda path: path.symlink_to(path)}
    for name, make in (ways | {"device": lambda path: path.symlink_to("/dev/zero")}).items():
        (subject / "wmh.nii.gz").rename(tmp_path / f"before {name}")
        make(subject / "wmh.nii.gz")
        with pytest.raises(FileNotFoundError, match=naming(subject / "wmh.nii.gz")):
            cohort.read_folder(tmp_path / "set")


def test_a_square_around_a_needle_is_refused():
    needle = nibabel.Nifti1Image(np.ones((1000, 4, 10), np.float32), np.diag([100.0, 1, 1, 1]))
    with bounded(200), pytest.raises(ValueError, match=naming("1000 x 100000")):
        slices.box_of(needle, "pad")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("study: " + "[" * 1000, ""),
        ("seeds: [" + "9" * 5000 + "]\n", ""),
        ("study: 2026-99-99\n", ""),
        ("study: !!int ''\n", ""),
        ("study: !!bool x\n", ""),
        ("study: !!timestamp x\n", ""),
        ("study: !!python/object/apply:os.system ['touch ran']\n", ""),
        ("preprocessing: {size_px: .nan}\n", "preprocessing.size_px"),
        ("training: {learning_rate: .inf}\n", "training.learning_rate"),
        ('study: "demo\\n"\n', "study"),
        (f"study: {'x' * 300}\n", "study"),
        ('losses: {"dice\\n": {loss: dice}}\n', "losses"),
        ('losses: {"a; touch ran": {loss: dice}}\n', "losses"),
        ('losses: {"{x}": {loss: dice}}\n', "losses"),
        ("base: /dev/zero\n", "/dev/zero"),
        ("base: pipe\n", "pipe"),
        ("base: [1]\n", "[1]"),
    ],
)
def test_a_hostile_configuration_is_refused_in_one_sentence(tmp_path, monkeypatch, text, key):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "study.yaml").write_text(text if "base:" in text else f"base: {ROOT / 'config' / 'demo.yaml'}\n{text}")
    with bounded(), pytest.raises((ValueError, OSError), match=naming(key or "study.yaml")) as raised:
        open_study("study.yaml")
    assert "\n" not in str(raised.value) and not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_every_path_reaches_the_shell_as_one_word(settings, tmp_path, monkeypatch):
    """Snakemake takes a setting for YAML and a command for a template; each would read some of these names otherwise."""
    odd = tmp_path / "a #b: {input} $(touch ran) `touch ran` 'c' \"d\" && touch ran\n€"
    odd.mkdir()
    (odd / "scans").mkdir()
    (odd / "study.yaml").write_text(yaml.safe_dump(settings | {"study": "test-hostile"}))
    copy = ROOT / "reports" / "test-hostile" / "configuration.yaml"
    commands, run = [], subprocess.run
    ended = SimpleNamespace(wait=lambda: 0)
    start = lambda command, **_: commands.append(command) or contextlib.nullcontext(ended)  # noqa: E731
    monkeypatch.setattr(command, "subprocess", SimpleNamespace(Popen=start))
    monkeypatch.setattr(sys, "argv", ["command", str(odd / "study.yaml"), "--data", str(odd / "scans")])
    monkeypatch.chdir(tmp_path)
    try:
        command.main()
        words = [str(word) for word in commands[0] if word not in ("--quiet", "all")]
        shown = run([*words, "-n", "-p", "-F"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    finally:
        shutil.rmtree(copy.parent, ignore_errors=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    found = re.findall(r"Shell command: (.*?)\n(?=\n|Job|\[|Reasons|Would)", shown.stdout, re.DOTALL)
    lines = [shlex.split(line) for line in found if line != "None"]
    assert len(lines) >= 8, shown.stdout
    for words in lines:
        assert str(copy) in words and str(odd / "scans") in words, words
    assert not list(tmp_path.rglob("ran")) and not (ROOT / "ran").exists()


def bids_set(folder, description='{"Name": "A", "BIDSVersion": "1.9.0"}', participants=None, more=()):
    """A BIDS data set of one subject; `more` maps further files to their text."""
    masks = folder / "derivatives" / "m" / "sub-01" / "anat"
    for path in (folder / "sub-01" / "anat" / "sub-01_FLAIR.nii", masks / "sub-01_label-WMH_mask.nii"):
        path.parent.mkdir(parents=True)
        path.write_bytes(WHOLE[0])
    (masks.parents[1] / "dataset_description.json").write_text(
        '{"Name": "m", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "m"}]}'
    )
    (folder / "dataset_description.json").write_text(description)
    if participants is not None:
        (folder / "participants.tsv").write_bytes(participants)
    for name, text in dict(more).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("made", "file"),
    [
        ({"description": '{"Name": ["A"]}'}, "dataset_description.json"),
        ({"description": "[" * 100_000}, "dataset_description.json"),
        ({"participants": b"participant_id\tcentre\nsub-01\t\xff\n"}, "participants.tsv"),
        ({"participants": b""}, "participants.tsv"),
        ({"participants": b"participant_id\nsub-01\tA\tB\n\tC\tD\tE\tF\n"}, "participants.tsv"),
        ({"participants": b"participant_id\tcentre\nsub-01\t" + b"x" * 300}, "xxx"),
        ({"participants": b'participant_id\tcentre\nsub-01\t"a\nb"\n'}, r"a\nb"),
        ({"participants": b"participant_id\tsplit\nsub-01\t" + b"x" * 200_000}, "participants.tsv"),
        ({"more": {"derivatives/m/dataset_description.json": "{"}}, "derivatives/m/dataset_description.json"),
        ({"more": {"derivatives/m/dataset_description.json": "[" * 100_000}}, "derivatives/m/dataset_description.json"),
    ],
)
def test_a_hostile_bids_folder_is_refused_in_one_sentence(tmp_path, made, file):
    root = bids_set(tmp_path / "set", **made)
    with bounded(), pytest.raises((ValueError, FileNotFoundError), match=naming(root, file)) as raised:
        cohort.read_folder(root)
    assert "\n" not in str(raised.value)


def test_broken_sidecars_of_a_bids_folder_do_not_matter(tmp_path):
    broken = {"sub-01/anat/sub-01_FLAIR.json": "{", "task-x_bold.json": "[" * 100_000, "layout_config.json": "{"}
    root = bids_set(tmp_path / "set", more=broken)
    assert cohort.read_folder(root).subject.tolist() == ["01"]


@pytest.mark.parametrize("layout", ["challenge", "bids"])
def test_links_in_circles_end(tmp_path, layout):
    """Folders that lead into each other by twelve links each: every folder is read once."""
    if layout == "bids":
        root = bids_set(tmp_path / "set")
        inside = root / "sub-01"
    else:
        root = tmp_path / "set"
        write_subject(root / "training" / "A" / "01", *small_scan(np.random.default_rng(0)))
        inside = root / "training" / "A" / "01"
    rooms = [inside / f"room{number}" for number in range(12)]
    for room in rooms:
        room.mkdir()
    for room in rooms:
        for number, other in enumerate(rooms):
            (room / f"door{number}").symlink_to(other)
    (inside / "up").symlink_to(root)
    (inside / "out").symlink_to("/")
    with bounded():
        assert cohort.read_folder(root).subject.tolist() == ["01"]
        assert [path.name for path in find_scans(root) if "derivatives" not in path.parts] == [
            "sub-01_FLAIR.nii" if layout == "bids" else "FLAIR.nii.gz"
        ]


def test_a_search_for_scans_passes_over_masks_and_keeps_what_was_not_fetched(tmp_path):
    for name in (
        "a_FLAIR.nii",
        "sub-1_space-FLAIR_label-WMH_mask.nii",
        "FLAIR_probability.nii.gz",
        "x_FLAIR_dseg.nii.gz",
    ):
        (tmp_path / name).write_bytes(WHOLE[0])
    (tmp_path / "b_FLAIR.nii.gz").symlink_to("../.git/annex/objects/aB/cD/key/key")
    assert [path.name for path in find_scans(tmp_path)] == ["a_FLAIR.nii", "b_FLAIR.nii.gz"]
    (tmp_path / "a_FLAIR.nii").unlink()
    with pytest.raises(FileNotFoundError, match=naming(f"datalad get {tmp_path / 'b_FLAIR.nii.gz'}")):
        find_scans(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", os.fsdecode(b"\xff"), "x" * 201])
def test_names_that_no_table_or_file_can_bear_are_refused(tmp_path, name):
    write_subject(tmp_path / "training" / "A" / name, *small_scan(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=naming(tmp_path, ascii(name))) as raised:
        cohort.read_folder(tmp_path)
    assert str(raised.value).isprintable()


NAMES = ["$(touch ran)", "<img src=x onerror=alert(1)>", "NA", "..a..", "'\"`&amp;", "{{ 7*7 }} ${alert(1)} %s"]


@pytest.fixture
def made(tmp_path, settings, write_config, monkeypatch) -> list:
    """The pages of a study over subjects and centres of these names, made from its folder by way of slices, masks, tables."""
    random = np.random.default_rng(0)
    for name in NAMES:
        write_subject(tmp_path / "in" / "training" / name / f"{name} too", *small_scan(random))
        write_subject(tmp_path / "in" / "test" / name / name, *small_scan(random))
    monkeypatch.setattr(Study, "folder", tmp_path / "reports")
    settings["data"]["root"], settings["question"] = str(tmp_path / "in"), " ".join(NAMES)
    settings["split"] = {"training": None, "validation": 0, "holdout": 0, "seed": 1}
    del settings["losses"]["siamese_minmax"]
    opened = open_study(write_config(settings))
    subjects = cohort.load_cohort(opened)
    slices.write_slices(subjects, tmp_path / "arrays", 16)
    assert set(slices.open_slices(tmp_path / "arrays")[2].subject) == set(subjects.subject)
    unseen = subjects[subjects.split == "external"]
    for loss in opened.recipes:
        points = []
        for row in unseen.itertuples():
            mask = opened.mask(loss, 1, row.subject)
            assert mask.resolve().is_relative_to(opened.folder / "masks")
            marked = threshold_mask(row.flair, 0.8 if loss == "dice" else 0.3)
            save_image(marked, mask)
            points.append(lesions.operating_points(row.reference, marked))
        froc.write_points(opened, loss, 1, unseen, points)
    scoring.write_threshold_masks(opened, subjects)
    scoring.save_tables(opened, scoring.summarise(scoring.score(opened, unseen), opened.kinds))
    write_json(opened.features / "origins.json", {"vgg19": {"weights": "random", "source": NAMES[1]}})
    slices.ceilings(unseen, 16, slices.PAPER).to_csv(opened.tables / "ceilings.csv", index=False)
    assert set(records.ceilings(opened).subject) == set(NAMES)
    tables = scoring.load_tables(opened)
    for name in ("per_subject", "volumes", "per_lesion", "operating_points"):
        assert set(tables[name].subject) == set(tables[name].centre) == set(NAMES), name

    scored, losses = tables["per_subject"], list(opened.recipes)
    samples = [pictures.sample(opened, subjects, name, losses, 1) | {"title": name} for name in NAMES]
    drawn = [
        figures.metric_panels(scored, "external"),
        figures.paired_slopes(scored, "external"),
        figures.froc(tables["froc"], "external"),
        figures.by_centre(tables["centres"]),
        figures.lesion_map(tables["per_lesion"], "external", 1),
        pictures.prediction_samples(samples),
    ]
    scans = {
        f"{row.subject}, {row.centre}": viewers.pack_subject(
            row, {loss: opened.mask(loss, 1, row.subject) for loss in losses}
        )
        for row in unseen.itertuples()
    }
    lesions_shown = viewers.pack_lesions(
        tables["per_lesion"], unseen, lambda loss, name: opened.mask(loss, 1, name), losses, seed=1
    )
    shown = [{"text/html": subjects.to_html()}, {"text/markdown": "\n".join(f"- {name}" for name in NAMES)}]
    shown += [{pages.PLOTLY: figure.to_plotly_json()} for figure in drawn]
    shown += [{viewers.MIME: {"kind": "slices", "scans": [scan | {"title": name} for name, scan in scans.items()]}}]
    shown += [{viewers.MIME: {"kind": "lesions", "lesions": lesions_shown}}]
    outputs = [v4.new_output("display_data", data) for data in shown]
    outputs.append(v4.new_output("stream", name="stdout", text="\n".join(NAMES)))
    text = json.loads(json.dumps(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=outputs)]), default=list))
    (tmp_path / "page.ipynb").write_text(json.dumps(text))
    titles = [("page.html", NAMES[1]), ("index.html", NAMES[5])]
    pages.export_page(tmp_path / "page.ipynb", tmp_path / "page.html", NAMES[1], titles, banner=NAMES[4])
    table = tables["centres"].to_html(escape=True)
    provenance = {"configuration": opened.raw, NAMES[1]: NAMES}
    words = [captions.table1_caption(opened, tables), *NAMES]
    pages.write_index(
        tmp_path / "index.html", NAMES[1], opened.config.question, words, {NAMES[1]: table}, drawn[:1],
        [(name, [("page.html", name)] * (number % 2 + 1), name) for number, name in enumerate(NAMES)],
        provenance, NAMES[1], " ".join(words),
    )  # fmt: skip
    return [tmp_path / "page.html", tmp_path / "index.html"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_names_of_data_are_text_from_the_folder_to_the_page(made, tmp_path):
    with open_browser(offline=True) as (page, troubles):
        page.on("dialog", lambda dialog: (troubles.append(f"it ran: {dialog.message}"), dialog.dismiss()))
        for path in made:
            page.goto(path.as_uri())
            page.wait_for_selector("figure.plot.drawn")
            if path.name == "page.html":
                for place, ready in ((0, ".viewer[data-ready]"), (1, ".explorer[data-shown]")):
                    page.locator(".viewer-place").nth(place).scroll_into_view_if_needed()
                    page.wait_for_selector(ready)
                for name in NAMES:
                    page.select_option('.viewer select[title="subject"]', f"{name}, {name}")
                    page.wait_for_selector(f".viewer[data-ready={json.dumps(f'{name}, {name}')}]")
                rows = page.locator(".explorer-table tbody tr")
                for number in range(rows.count()):
                    rows.nth(number).click()
            for plot in page.locator("figure.plot").all():
                plot.scroll_into_view_if_needed()
                plot.hover()
            said = page.inner_text("body")
            assert all(name in said for name in NAMES), [name for name in NAMES if name not in said]
            assert page.locator("[onerror], img[src=x]").count() == 0
        assert not troubles, troubles
    assert not list(tmp_path.rglob("ran")) and not (ROOT / "ran").exists()
