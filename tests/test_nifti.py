"""Image files with faults in header or end that can be corrected, and files that are not NIfTI."""

import bz2
import gzip
import os
import warnings
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from conftest import naming, small_scan

from wmhlib import inference, metrics
from wmhlib.apply import segment
from wmhlib.evaluation.threshold import threshold_mask
from wmhlib.intake.nifti import Mended, automatic, noting, open_scan, read_scan
from wmhlib.intake.scans import canonical_slice_count, read_flair, read_reference

SHAPE, SIDES = (17, 18, 5), (1.0, 1.25, 3.0)
FLAIR, REFERENCE = small_scan(np.random.default_rng(0), SHAPE)
NETWORK = SimpleNamespace(
    inputs=[SimpleNamespace(name="whole")],
    input_shape=(None, 32, 32, 3),
    predict_on_batch=lambda batch: np.asarray(batch[..., :1] > 100, np.float32),
)
"""As much of a network as segmenting a scan asks for."""


def turned(angle_deg: float = 20) -> np.ndarray:
    """An affine to the left, turned about the first axis."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[-1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return nibabel.affines.from_matvec(turn @ np.diag(SIDES), [80, -100, -60])


AFFINE = turned()


def stored(values=FLAIR, kind=nibabel.Nifti1Image, qform=True, sform=True, **fields) -> bytearray:
    """A scan as the bytes of a .nii, some fields of its header changed afterwards."""
    image = kind(values, AFFINE)
    image.set_qform(AFFINE, code=int(qform))
    image.set_sform(AFFINE, code=int(sform))
    raw = bytearray(image.to_bytes())
    layout = kind.header_class.template_dtype.fields
    for name, value in fields.items():
        base, start = layout[name][:2]
        base, shape = base.subdtype or (base, ())
        raw[start : start + base.itemsize * int(np.prod(shape))] = np.broadcast_to(value, shape).astype(base).tobytes()
    return raw


def fields_of(raw: bytes, kind=nibabel.Nifti1Image) -> nibabel.Nifti1Header:
    return kind.header_class(bytes(raw[: kind.header_class.sizeof_hdr]))


def scaled_by(factor: float, unit: int, **forms) -> bytearray:
    """A scan whose lengths are given in another unit."""
    header = fields_of(stored(**forms))
    lengths = ["srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"]
    sides = header["pixdim"].copy()
    sides[1:4] *= factor
    return stored(xyzt_units=unit, pixdim=sides, **{name: header[name] * factor for name in lengths}, **forms)


def too_long(by: float, kind=nibabel.Nifti1Image) -> bytearray:
    """A scan whose only word on the head's place is a quaternion that is too long; that of `AFFINE` needs all of 1."""
    half = np.deg2rad(20) / 2
    return stored(kind=kind, sform=False, quatern_c=np.cos(half) * (1 + by), quatern_d=np.sin(half) * (1 + by))


SOUND = {
    "a fourth axis of one": stored(FLAIR[..., None]),
    "two more axes of one": stored(FLAIR[..., None, None], kind=nibabel.Nifti2Image),
    "no sform but its code": stored(srow_x=0, srow_y=0, srow_z=0),
    "an sform of NaN": stored(srow_x=np.nan),
    "micrometres": scaled_by(1000, 3),
    "micrometres and seconds, qform alone": scaled_by(1000, 3 | 8, sform=False),
    "metres, sform alone": scaled_by(1e-3, 1, qform=False),
    "millimetres called micrometres": scaled_by(1, 3),
    "millimetres called metres": scaled_by(1, 1),
}


def put(folder, raw: bytes, name="scan.nii.gz", behind=b"", zipped=None):
    path = folder / name
    zipped = name.endswith(".gz") if zipped is None else zipped
    path.write_bytes((gzip.compress(raw) if zipped else bytes(raw)) + behind)
    return path


def read_with_a_note(path) -> np.ndarray:
    """What every reader of a FLAIR gives, each of which says what was mended; the affine."""
    with pytest.warns(Mended, match=naming(path)):
        image = read_scan(path)
    with pytest.warns(Mended, match=naming(path)):
        assert canonical_slice_count(path) == 5
    with pytest.warns(Mended, match=naming(path)):
        opened = open_scan(path)
        assert np.array_equal(np.asarray(opened.dataobj), np.asarray(image.dataobj)), "read later as well"
    assert image.shape == opened.shape == SHAPE and np.array_equal(np.asarray(image.dataobj), FLAIR)
    assert np.array_equal(opened.affine, image.affine)
    with pytest.warns(Mended, match=naming(path)):
        assert read_flair(path).shape == SHAPE
    return image.affine


@pytest.mark.parametrize("raw", SOUND.values(), ids=SOUND)
def test_a_sound_scan_with_a_fault_in_its_header_is_read_with_a_note(tmp_path, raw):
    assert read_with_a_note(put(tmp_path, raw)) == pytest.approx(AFFINE, abs=1e-4)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("by", [1e-5, 4e-4])
def test_a_quaternion_that_rounding_made_too_long_is_shortened(tmp_path, kind, by):
    assert read_with_a_note(put(tmp_path, too_long(by, kind))) == pytest.approx(AFFINE, abs=1e-4)


def test_a_header_that_does_not_say_how_the_head_lies_is_refused(tmp_path):
    long = put(tmp_path, too_long(0.1), "long.nii")
    nothing = put(tmp_path, stored(qform=False, srow_x=0, srow_y=0, srow_z=0), "nothing.nii")
    with pytest.raises(ValueError, match=naming(long, "quaternion", "1.1")):
        read_scan(long)
    with pytest.raises(ValueError, match=naming(nothing, "sform")):
        read_scan(nothing)
    beside_an_sform = put(tmp_path, stored(quatern_b=1, quatern_c=1), "beside.nii")
    assert read_scan(beside_an_sform).affine == pytest.approx(AFFINE, abs=1e-4)


@pytest.mark.parametrize(("factor", "unit"), [(1e-7, 3), (1e6, 1), (1e-4, 2), (1e-6, 3)])
def test_voxels_of_no_unit_that_a_head_has_are_refused(tmp_path, factor, unit):
    with pytest.raises(ValueError, match=naming(put(tmp_path, scaled_by(factor, unit)), "mm")):
        read_scan(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("behind", [b"junk", b"\r\n", b"\0\0\0\0\1", b"x" * 3_000_000])
def test_bytes_after_the_gzip_stream_are_left_out(tmp_path, behind):
    path = put(tmp_path, stored(), behind=behind)
    with pytest.warns(Mended, match=naming(path)):
        assert np.array_equal(np.asarray(read_scan(path).dataobj), FLAIR)


def test_a_gzip_file_of_several_streams_is_one_file(tmp_path):
    raw = stored()
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(read_scan(tmp_path / "scan.nii.gz").dataobj), FLAIR)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.NII", "scan"])
@pytest.mark.parametrize("zipped", [True, False])
def test_compression_follows_from_the_content(tmp_path, name, zipped):
    path = put(tmp_path, stored(), name, zipped=zipped)
    if zipped == name.endswith(".gz"):
        assert np.array_equal(np.asarray(open_scan(path).dataobj), np.asarray(read_scan(path).dataobj))
    else:
        assert read_with_a_note(path) == pytest.approx(AFFINE, abs=1e-4)


def test_an_image_in_memory_may_have_axes_of_one(tmp_path):
    wide, plain = (nibabel.Nifti1Image(values, AFFINE) for values in (FLAIR[..., None], FLAIR))
    assert np.array_equal(read_flair(wide).dataobj, read_flair(plain).dataobj)
    assert inference.segment(NETWORK, wide).shape == SHAPE
    references = [nibabel.Nifti1Image(values, AFFINE) for values in (REFERENCE[..., None], REFERENCE)]
    assert metrics.challenge_metrics(*references)["dice"] == 1


@pytest.mark.parametrize("name", SOUND)
def test_results_of_a_mended_scan_lie_where_the_scan_lies(tmp_path, name):
    path, out = put(tmp_path, SOUND[name]), tmp_path / "out"
    out.mkdir()
    with pytest.warns(Mended):
        row, _ = segment.segment_scan(NETWORK, path, "scan", out, {})
        threshold = threshold_mask(path, 0.6)
    assert str(path) in row["warnings"], "the account of the scan says so"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = read_scan(row["mask"])
    assert mask.shape == threshold.shape == SHAPE and mask.affine == pytest.approx(AFFINE, abs=1e-4)
    assert row["volume_ml"] == pytest.approx(np.count_nonzero(mask.dataobj) * np.prod(SIDES) / 1000, rel=1e-4)


def test_notes_are_collected_once_and_other_warnings_go_on(tmp_path):
    path = put(tmp_path, SOUND["micrometres"])
    with pytest.warns(RuntimeWarning, match="another") as heard:
        with noting() as notes:
            read_scan(path), read_scan(path)
            warnings.warn("another", RuntimeWarning, stacklevel=1)
    assert len(notes) == len(heard) == 1 and str(path) in notes[0]


@pytest.mark.parametrize("as_bytes", [{1: 254, 2: 510}, {1: 255, 2: 509}, {1: 256, 2: 510}])
def test_labels_stored_as_scaled_integers_are_whole_numbers(tmp_path, as_bytes):
    values = REFERENCE.copy()
    values[2, 4, 1] = 2
    raw = np.vectorize({0: 0, **as_bytes}.get)(values).astype(np.int16)
    path = put(tmp_path, stored(raw, scl_slope=1 / 255))
    with pytest.warns(Mended, match=naming(path)):
        reference = read_reference(path)
    assert np.array_equal(
        nibabel.as_closest_canonical(nibabel.Nifti1Image(values, AFFINE)).dataobj == 1, reference.dataobj
    )
    expected = nibabel.Nifti1Image(values, AFFINE), nibabel.Nifti1Image((values == 1).astype(np.uint8), AFFINE)
    with pytest.warns(Mended, match=naming(path)):
        assert metrics.challenge_metrics(path, expected[1]) == metrics.challenge_metrics(*expected)
    with pytest.warns(Mended, match=naming(path)):
        assert metrics.challenge_metrics(path, path)["dice"] == 1
    assert metrics.positive_class_density(path) == metrics.positive_class_density(expected[0])


@pytest.mark.parametrize(("one", "shown"), [(250, "0.98"), (1, "0.0039")])
def test_labels_that_are_none_of_these_are_refused(tmp_path, one, shown):
    """A 1 that a scale makes 1/255 must not become background."""
    path = put(tmp_path, stored((REFERENCE * one).astype(np.uint8), scl_slope=1 / 255))
    for read in (read_reference, lambda path: metrics.challenge_metrics(path, path)):
        with pytest.raises(ValueError, match=naming(path, shown)):
            read(path)


# what is not a NIfTI file

DICOM = bytes(128) + b"DICM" + bytes(1000)
OTHERS = {
    "scan.dcm": (DICOM, "dcm2niix"),
    "dicom.nii": (DICOM, "dcm2niix"),
    "scan.nrrd": (b"NRRD0004\n# Complete\n", "SimpleITK"),
    "scan.mha": (b"ObjectType = Image\nNDims = 3\n", "SimpleITK"),
    "scan.mhd": (b"NDims = 3\nDimSize = 3 3 3\n", "SimpleITK"),
    "scan.mnc": (b"\x89HDF\r\n\x1a\n" + bytes(600), "nib-convert"),
    "scan.nii.bz2": (bz2.compress(stored()), "unpack"),
    "bzip2.nii.gz": (bz2.compress(stored()), "unpack"),
    "annexed.nii.gz": (b"/annex/objects/MD5E-s12--0123.nii.gz\n", "datalad get"),
    "lfs.nii.gz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "page.nii.gz": (b"<!DOCTYPE html><title>Sign in</title>", "web page"),
    "empty.nii.gz": (b"", "empty"),
}


def refused(path, *shown) -> None:
    for read in (open_scan, read_flair, read_reference, metrics.positive_class_density):
        with pytest.raises(ValueError, match=naming(path, *shown)) as raised:
            read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_with_what_to_do(tmp_path, name):
    content, shown = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, shown)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (nibabel.MGHImage, ["scan.mgz"]),
        (nibabel.MGHImage, ["scan.mgh"]),
        (nibabel.AnalyzeImage, ["scan.img", "scan.hdr"]),
        (nibabel.Nifti1Pair, ["scan.img", "scan.hdr"]),
        (nibabel.Nifti2Pair, ["scan.img", "scan.hdr"]),
    ],
)
def test_what_nibabel_converts_is_refused_with_the_command_that_does(tmp_path, kind, names):
    nibabel.save(kind(FLAIR, np.diag([-1, 1, 3, 1])), tmp_path / names[0])
    for name in names:
        refused(tmp_path / name, f"nib-convert {tmp_path / name} scan.nii.gz")
    disguised = tmp_path / "other.nii.gz"
    os.replace(tmp_path / names[-1], disguised)
    refused(disguised, "" if kind is nibabel.AnalyzeImage else "nib-convert")


def test_that_command_makes_a_scan_that_is_read(tmp_path, monkeypatch):
    from nibabel.cmdline.convert import main

    nibabel.save(nibabel.MGHImage(FLAIR, AFFINE), tmp_path / "scan.mgz")
    main([str(tmp_path / "scan.mgz"), str(tmp_path / "scan.nii.gz")])
    assert np.array_equal(np.asarray(read_scan(tmp_path / "scan.nii.gz").dataobj), FLAIR)


def test_links_that_lead_nowhere_say_where_and_how_to_fetch(tmp_path):
    annexed, broken = tmp_path / "FLAIR.nii.gz", tmp_path / "other.nii.gz"
    annexed.symlink_to(".git/annex/objects/Xx/9z/MD5E-s99--0123.nii.gz/MD5E-s99--0123.nii.gz")
    broken.symlink_to("elsewhere.nii.gz")
    (tmp_path / "linked.nii.gz").symlink_to(annexed)
    for read in (open_scan, read_flair, metrics.positive_class_density):
        for path in (annexed, tmp_path / "linked.nii.gz"):
            with pytest.raises(FileNotFoundError, match=naming(path, "datalad get")):
                read(path)
        with pytest.raises(FileNotFoundError, match=naming(broken, "elsewhere.nii.gz")):
            read(broken)
    content = annexed.parent / os.readlink(annexed)
    content.parent.mkdir(parents=True)
    put(content.parent, stored(), content.name)
    assert read_scan(tmp_path / "linked.nii.gz").shape == SHAPE, "fetched"


def test_two_voxel_sizes_or_directions_of_one_header_are_told(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), np.diag([1, 1, 3, 1.0]))
    image.header["pixdim"][3] = 5
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.warns(Mended, match=naming("1 x 1 x 3 mm", "1 x 1 x 5 mm")):
        assert read_scan(tmp_path / "a.nii").affine[2, 2] == 3
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), np.diag([1, 1, 3, 1.0]))
    image.set_qform(np.diag([-1, -1, 3, 1.0]), 1)
    (tmp_path / "b.nii").write_bytes(image.to_bytes())
    with pytest.warns(Mended, match=naming("RAS", "LPS")):
        read_scan(tmp_path / "b.nii")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (lambda values: automatic(nibabel.Nifti1Image(values, np.eye(4))), "this project"),
        (lambda values: intended(values, "label"), "label"),
        (lambda values: intended(values, "z score"), "z score"),
    ],
)
def test_maps_are_no_flair(tmp_path, image, said):
    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    nibabel.save(image(values), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=naming(tmp_path / "a.nii", said)):
        read_flair(tmp_path / "a.nii")


def intended(values: np.ndarray, intent: str) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_intent(intent)
    return image


def test_overflows_colours_and_double_compression_are_told(tmp_path):
    random = np.random.default_rng(0)
    values = random.integers(-2, 3, (30, 30, 30))
    values[5:-5, 5:-5, 5:-5] = 400 + random.integers(-20, 20, (20, 20, 20))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint16), np.eye(4)), tmp_path / "wrapped.nii")
    with pytest.raises(ValueError, match=naming("wrapped.nii", "overflowed")):
        read_flair(tmp_path / "wrapped.nii")
    huge = nibabel.Nifti1Image(np.where(values < 0, 1e300, values.clip(0)).astype(float), np.eye(4))
    with pytest.raises(ValueError, match="larger than 3e38"), warnings.catch_warnings(action="error"):
        read_flair(huge)
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    with pytest.raises(ValueError, match=naming("colours.nii", "colours", "one real number")):
        read_scan(tmp_path / "colours.nii")
    twice = tmp_path / "twice.nii.gz"
    twice.write_bytes(gzip.compress(gzip.compress((tmp_path / "wrapped.nii").read_bytes())))
    with pytest.raises(ValueError, match=naming(twice, "compressed twice", "gunzip")):
        read_scan(twice)


def test_an_sform_with_parallel_axes_is_refused_in_one_sentence(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), np.diag([1, 1, 3, 1.0]))
    image.set_qform(image.affine, 1)
    image.header["srow_x"], image.header["srow_y"] = [1, 1, 0, 0], [0, 0, 0, 0]
    image.header["sform_code"] = 1
    raw = bytearray(nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), np.diag([1, 1, 3, 1.0])).to_bytes())
    raw[:348] = image.header.binaryblock
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(ValueError, match=naming(tmp_path / "a.nii")):
        read_scan(tmp_path / "a.nii")
