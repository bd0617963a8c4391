"""What a file is that is not a single NIfTI file, or is not there, and what its owner can do about it."""

import re
from pathlib import Path

from wmhlib.intake.folders import not_fetched

_NIBABEL = "convert it with `nib-convert {path} {stem}.nii.gz`"
_SLICER = "convert it with 3D Slicer, or with SimpleITK's ReadImage and WriteImage"
_UNPACK = "unpack it first"
_PAIR = _NIBABEL + " (where it is Analyze, compare left and right afterwards: that format does not say which is which)"

_KINDS = (
    ("empty", rb"\Z", (), "fetch or export it again"),
    ("half of a pair of header and voxels (.hdr and .img)", rb"(?s).{344}ni1|.{4}ni2", (".hdr", ".img"), _PAIR),
    ("a FreeSurfer volume (.mgh, .mgz)", rb"\x00\x00\x00\x01", (".mgh", ".mgz"), _NIBABEL),
    ("a MINC volume or another HDF5 or netCDF file", rb"\x89HDF|CDF", (".mnc",), _NIBABEL),
    ("a DICOM file", rb"(?s).{128}DICM", (".dcm", ".ima"), "convert its series with dcm2niix"),
    ("an NRRD volume", rb"NRRD0", (".nrrd", ".nhdr"), _SLICER),
    ("a MetaImage volume", rb"(ObjectType|NDims|Comment) *=", (".mha", ".mhd"), _SLICER),
    ("compressed with bzip2, xz, Zstandard or zip", rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|PK\x03\x04", (), _UNPACK),
    ("a web page", rb"(?i)\s*<(!doctype|html|\?xml)", (), "download it again, signed in where the site asks for it"),
)
"""What it is, how it begins once gzip is undone, how its name ends, and what to do."""


def refuse_other_formats(path: str | Path, start: bytes) -> None:
    """Refuse a file that is known not to be a single NIfTI file, by its name and first bytes (540 or all), gzip undone.

    Raises ValueError, which says what it is and how to convert it.
    """
    if get := not_fetched(path):
        raise ValueError(f"The content of {path} was not fetched: run {get}.")
    name = Path(path).name.lower().removesuffix(".gz")
    sized = {int.from_bytes(start[:4], order) for order in ("little", "big")} & {348, 540}
    single = sized and (start[344:347] == b"n+1" or start[4:7] == b"n+2")
    for what, begins, endings, advice in () if single else _KINDS:
        if re.match(begins, start) or name.endswith(endings):
            advice = advice.format(path=path, stem=Path(name).stem)
            raise ValueError(f"{path} is {what}, not a single NIfTI file (.nii, .nii.gz): {advice}.")
