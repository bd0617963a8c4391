"""Recognise files that are not a single NIfTI file, and say how to convert them."""

import gzip
import re
from pathlib import Path
from typing import BinaryIO

from wmhlib.intake.folders import not_fetched

_NIBABEL = "convert it with `nib-convert {path} {stem}.nii.gz`"
_SLICER = "convert it with 3D Slicer, or with SimpleITK's ReadImage and WriteImage"
_UNPACK = "unpack it first"
_PAIR = _NIBABEL + " (for Analyze files, check left and right afterwards, since that format does not define them)"

_KINDS = (
    ("empty", rb"\Z", (), "fetch or export it again"),
    ("half of a pair of header and voxels (.hdr and .img)", rb"(?s).{344}ni1|.{4}ni2", (".hdr", ".img"), _PAIR),
    ("a FreeSurfer volume (.mgh, .mgz)", rb"\x00\x00\x00\x01", (".mgh", ".mgz"), _NIBABEL),
    ("a MINC volume or another HDF5 or netCDF file", rb"\x89HDF|CDF", (".mnc",), _NIBABEL),
    ("a DICOM file", rb"(?s).{128}DICM", (".dcm", ".ima"), "convert its series with dcm2niix"),
    ("an NRRD volume", rb"NRRD0", (".nrrd", ".nhdr"), _SLICER),
    ("a MetaImage volume", rb"(ObjectType|NDims|Comment) *=", (".mha", ".mhd"), _SLICER),
    ("compressed twice by gzip", rb"\x1f\x8b", (), "decompress it once, with gunzip"),
    ("compressed with bzip2, xz, Zstandard or zip", rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|PK\x03\x04", (), _UNPACK),
    ("a web page", rb"(?i)\s*<(!doctype|html|\?xml)", (), "download it again, after signing in if required"),
)
"""Format, pattern of its first bytes after gzip, suffixes, and advice."""


def is_gzip(path: str | Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def opened(path: str | Path) -> BinaryIO | gzip.GzipFile:
    """A file open for reading, decompressed by gzip if necessary."""
    return gzip.open(path) if is_gzip(path) else open(path, "rb")


def first_bytes(path: str | Path) -> bytes:
    """The first 540 bytes of a file after decompression, the length of a NIfTI-2 header. Errors: those of `gzip`."""
    with opened(path) as file:
        return file.read(540)


def refuse_other_formats(path: str | Path, start: bytes) -> None:
    """Refuse a file of another known format, from its name and its first bytes (540 or all) after decompression.

    Raises
    ------
    ValueError
        The file is not a single NIfTI file; the message names its format and says how to convert it.
    """
    if get := not_fetched(path):
        raise ValueError(f"The content of {path} has not been fetched: run {get}.")
    name = Path(path).name.lower().removesuffix(".gz")
    sized = {int.from_bytes(start[:4], order) for order in ("little", "big")} & {348, 540}
    single = sized and (start[344:347] == b"n+1" or start[4:7] == b"n+2")
    for what, begins, endings, advice in () if single else _KINDS:
        if re.match(begins, start) or name.endswith(endings):
            advice = advice.format(path=path, stem=Path(name).stem)
            raise ValueError(f"{path} is {what}, not a single NIfTI file (.nii, .nii.gz): {advice}.")
