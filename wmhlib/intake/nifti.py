"""NIfTI files read, whoever made them, and written: every module opens scans through this one.

Input: a path. Output: a nibabel image of a grid that a head can have. A header of a few hundred bytes says how much there is
to read, and a gzip file of a few kB can swell to gigabytes, so every claim is first compared with the file's size. Header
extensions are ignored. What a file is follows from its content, whatever its name ends in. A sound scan whose header or end is
at fault is read, and a warning of the kind `Mended` says what was taken for what.
"""

import contextlib
import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from wmhlib.intake.folders import remedy
from wmhlib.intake.formats import refuse_other_formats
from wmhlib.intake.headers import check_grid, mend
from wmhlib.running.files import read_json, replacing

MOST_SIDE, MOST_VOXELS = 1024, 2**28
"""Voxels along a side and in all that are still read. A FLAIR of 1 mm has 12 million, a head at 0.5 mm 134 million."""

INFLATION = 1032
"""Bytes that one byte of a gzip file can become at most (zlib's technical details): beyond, a header is sure to lie."""

SLACK = 2**20
"""Bytes that may be between header and voxels, and after the voxels."""

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
)
"""What nibabel and gzip raise where a file is damaged."""


class Mended(UserWarning):
    """A scan was read although something in its file is at fault; the text names the file, the fault and what was taken."""


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Collect, once each, the texts of `Mended` that reading scans in the block gives, in place of showing them."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Mended)
        yield notes
    notes += dict.fromkeys(str(one.message) for one in caught if one.category is Mended)
    for one in caught:
        if one.category is not Mended:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def open_scan(path: str | Path) -> nibabel.Nifti1Image:
    """A scan's header and grid, checked against the file's size; its voxels are read when they are asked for.

    Raises FileNotFoundError, PermissionError: the file is not there (the message says where git-annex has not fetched it),
    or may not be read.
    Raises ValueError: it is not a file or not a single NIfTI file (the message says how to convert it), its voxels are not
    numbers, or it claims more of them than it can hold or than `MOST_VOXELS`, or sides that no head has
    (`wmhlib.intake.headers.check_grid`).
    """
    kind, header = _header(path)
    zipped = str(path).lower().endswith(".gz")  # by its name, which is all that nibabel looks at
    source = str(path) if zipped == _is_gzip(path) else _opened(path)
    return _image(kind, ArrayProxy(source, header), header, path)


def read_scan(path: str | Path) -> nibabel.Nifti1Image:
    """A scan with its voxels: as stored or, where the header has a scale, as floating point.

    Raises FileNotFoundError, PermissionError, ValueError: as `open_scan`; also where the file is cut short, has much after
    its voxels, or fails gzip's checksum.
    """
    kind, header = _header(path)
    try:
        with _opened(path) as file:
            values = np.asanyarray(ArrayProxy(file, header))
            if isinstance(file, gzip.GzipFile):
                _read_to_the_end(file, path)
    except DAMAGE as error:
        raise unreadable(path, error) from None
    return _image(kind, values, header, path)


def _is_gzip(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _opened(path: str | Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if _is_gzip(path) else open(path, "rb")


def _read_to_the_end(file: gzip.GzipFile, path: str | Path) -> None:
    """Read what comes after the voxels, for gzip's checksum, which comes last. Errors: those of `gzip`, and ValueError."""
    try:
        rest = len(file.read(SLACK + 1))
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # a second stream was looked for: the first was whole
            raise
        _warn(path, "there are bytes after the end of its gzip stream; they were left out")
        return
    if rest > SLACK:
        raise ValueError("it continues long after the voxels of its header")


def unreadable(name: str | Path, error: Exception) -> ValueError:
    """One sentence on a damaged file, whatever nibabel or gzip said of it."""
    said = " ".join(str(error).split())
    return ValueError(f"{name} cannot be read as a NIfTI ({said}): fetch or export the file again.")


def _warn(path: str | Path, text: str) -> None:
    warnings.warn(f"{path} was read, but {text}.", Mended, stacklevel=2)


def _header(path: str | Path) -> tuple[type[nibabel.Nifti1Image], nibabel.Nifti1Header]:
    """Which NIfTI a file is, and its checked header. Errors as in `open_scan`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"No scan at {path}: {remedy(path)}.")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is a folder, a pipe or a device: name a NIfTI file.")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} may not be read: make the file readable.")
    try:
        with _opened(path) as file:
            start = file.read(nibabel.Nifti2Header.sizeof_hdr)
    except DAMAGE as error:
        raise unreadable(path, error) from None
    refuse_other_formats(path, start)
    try:
        sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        kind = nibabel.Nifti2Image if nibabel.Nifti2Header.sizeof_hdr in sizes else nibabel.Nifti1Image
        stored = start[: kind.header_class.sizeof_hdr]  # ends before any extension
        raw = kind.header_class(stored, check=False)  # as stored: a check turns sides of zero into ones
        zipped = isinstance(file, gzip.GzipFile)
        _check_claims(raw, os.path.getsize(path), zipped)
        faults = mend(raw)
        header = kind.header_class(raw.binaryblock, raw.endianness)
        header.get_slope_inter()  # an error, where they are no numbers
        check_grid(raw["pixdim"][1 : 1 + min(int(raw["dim"][0]), 3)], header.get_best_affine())
    except DAMAGE as error:
        raise unreadable(path, error) from None
    for text in faults:
        _warn(path, text)
    if zipped != str(path).lower().endswith(".gz"):
        _warn(path, f"it is {'' if zipped else 'not '}compressed by gzip, against its name; rename it")
    return kind, header


def _check_claims(header: nibabel.Nifti1Header, size: int, inflates: bool) -> None:
    """Refuse a header, as it is stored, that claims what a file of this size cannot hold."""
    if header["magic"] != header.single_magic:
        raise ValueError(f"its header has the mark {header['magic'].item()!r}, not {header.single_magic!r}")
    sides = [int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1]]
    voxels = int(np.prod(sides, dtype=object))
    if not 1 <= int(header["dim"][0]) <= 7 or min(sides) < 1 or max(sides[:3]) > MOST_SIDE or voxels > MOST_VOXELS:
        claim = " x ".join(map(str, sides)) or "no"
        raise ValueError(f"its header claims {claim} voxels; up to {MOST_SIDE} a side, {MOST_VOXELS} in all are read")
    try:
        kind, offset = header.get_data_dtype(), float(header["vox_offset"])
    except KeyError:
        raise ValueError(f"NIfTI has no data type {int(header['datatype'])}") from None
    if kind.kind not in "iuf":
        raise ValueError(f"its voxels are {kind}, not numbers")
    if not header.single_vox_offset <= offset <= header.single_vox_offset + SLACK:
        raise ValueError(f"its header says that voxels begin at byte {offset:g}")
    claimed = int(offset) + voxels * kind.itemsize
    if claimed > size * (INFLATION if inflates else 1):
        raise ValueError(f"its header claims {claimed} bytes, more than the file's {size} can hold")


def _image(kind: type, values, header: nibabel.Nifti1Header, path: str | Path) -> nibabel.Nifti1Image:
    image = kind(values, header.get_best_affine(), header)
    image.file_map["image"].filename = str(path)  # whatever it ends in
    return image


AUTOMATIC = b"automatic, by wmhlib"
"""What the header's description says of every mask that this project made, wherever it is copied to."""


def automatic(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The same image, marked as made by this project, not by people: `wmhlib.cohort` refuses it as a reference."""
    image.header["descrip"] = AUTOMATIC
    return image


def is_automatic(path: str | Path) -> bool:
    """Whether a file has the mark of `automatic`, or a sidecar names a network; False where it cannot be read."""
    if "network_sha256" in read_json(re.sub(r"\.nii(\.gz)?$", ".json", str(path), flags=re.IGNORECASE)):
        return True
    try:
        return open_scan(path).header["descrip"].item() == AUTOMATIC
    except (OSError, ValueError):
        return False


def save_image(image: nibabel.Nifti1Image, path: str | Path) -> None:
    """Write a prediction as a NIfTI file with the mark of `automatic`, all or nothing."""
    with replacing(path) as temporary:
        nibabel.save(automatic(image), temporary)
