"""Read NIfTI files from any source, and write them: all modules open scans through this one.

Input: a path. Output: a nibabel image with a plausible grid of a head. A header states how much data follows, and a
gzip file of a few kB can expand to gigabytes, so the header is first compared with the file's size. Header extensions
are ignored. The type of a file is determined from its content, not its suffix. A scan with a fault in its header or at
its end is read if the correction is unambiguous, and a `Mended` warning states the correction.
"""

import contextlib
import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from wmhlib.intake.folders import remedy
from wmhlib.intake.formats import first_bytes, is_gzip, opened, refuse_other_formats
from wmhlib.intake.headers import check_grid, mend
from wmhlib.running.files import read_json, replacing, sha256

MOST_SIDE, MOST_VOXELS = 1024, 2**28
"""The most voxels along a side and in total. A FLAIR of 1 mm has 12 million, a head at 0.5 mm has 134 million."""

INFLATION = 1032
"""The most bytes that one byte of a gzip file can expand to (zlib's technical details). A header that claims more is
wrong."""

SLACK = 2**20
"""The most bytes between header and voxels, and after the voxels."""

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
)
"""Errors that nibabel and gzip raise for damaged files."""


class Mended(UserWarning):
    """A scan was read although its file has a fault; the text names the file, the fault and the correction."""


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Collect the texts of `Mended` warnings raised in the block, each once, instead of showing them."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Mended)
        yield notes
    notes += dict.fromkeys(str(warning.message) for warning in caught if warning.category is Mended)
    for warning in caught:
        if warning.category is not Mended:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def open_scan(path: str | Path) -> nibabel.Nifti1Image:
    """A scan with a checked header and grid; its voxels are read on access.

    Raises
    ------
    FileNotFoundError, PermissionError
        The file does not exist (the message says so if git-annex has not fetched it) or cannot be read.
    ValueError
        The path is not a file or not a single NIfTI file (the message says how to convert it), the voxels are not
        numbers, there are more than the file can hold or than `MOST_VOXELS`, or the grid is implausible
        (`wmhlib.intake.headers.check_grid`).
    """
    kind, header = _header(path)
    zipped = str(path).lower().endswith(".gz")  # by name, since nibabel only looks at the name
    source = str(path) if zipped == is_gzip(path) else opened(path)
    return _image(kind, ArrayProxy(source, header), header, path)


def read_scan(path: str | Path) -> nibabel.Nifti1Image:
    """A scan with its voxels: as stored, or floating point if the header has a scale factor.

    Raises FileNotFoundError, PermissionError and ValueError as `open_scan`, and ValueError if the file is truncated,
    has more than `SLACK` bytes after its voxels, or fails gzip's checksum.
    """
    kind, header = _header(path)
    try:
        with opened(path) as file:
            values = np.asanyarray(ArrayProxy(file, header))
            if isinstance(file, gzip.GzipFile):
                _read_to_the_end(file, path)
    except DAMAGE as error:
        raise unreadable(path, error) from None
    return _image(kind, values, header, path)


def _read_to_the_end(file: gzip.GzipFile, path: str | Path) -> None:
    """Read the rest of the file, so that gzip verifies its checksum. Errors: those of `gzip`, and ValueError."""
    try:
        rest = len(file.read(SLACK + 1))
    except gzip.BadGzipFile as error:
        if not str(error).startswith(
            "Not a gzipped file"
        ):  # raised when looking for a second stream: the first was complete
            raise
        _warn(path, "there are bytes after the end of its gzip stream; they were ignored")
        return
    if rest > SLACK:
        raise ValueError("it has much more data than its header states")


def unreadable(name: str | Path, error: Exception) -> ValueError:
    """An error in one sentence for a damaged file, with the text of nibabel's or gzip's error."""
    reason = " ".join(str(error).split())
    return ValueError(f"{name} cannot be read as a NIfTI file ({reason}): fetch or export the file again.")


def _warn(path: str | Path, text: str) -> None:
    warnings.warn(f"{path} was read, but {text}.", Mended, stacklevel=2)


def _header(path: str | Path) -> tuple[type[nibabel.Nifti1Image], nibabel.Nifti1Header]:
    """The NIfTI version of a file and its checked header. Errors as in `open_scan`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"No scan found at {path}: {remedy(path)}.")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a regular file: give a NIfTI file.")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} cannot be read: change its permissions.")
    try:
        start = first_bytes(path)
    except DAMAGE as error:
        raise unreadable(path, error) from None
    refuse_other_formats(path, start)
    try:
        sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        kind = nibabel.Nifti2Image if nibabel.Nifti2Header.sizeof_hdr in sizes else nibabel.Nifti1Image
        stored = start[: kind.header_class.sizeof_hdr]  # ends before any extension
        raw = kind.header_class(stored, check=False)  # unchecked: nibabel's check would replace sides of 0 by 1
        zipped = is_gzip(path)
        _check_claims(raw, os.path.getsize(path), zipped)
        faults = mend(raw)
        header = kind.header_class(raw.binaryblock, raw.endianness)
        header.get_slope_inter()  # raises an error if they are not numbers
        check_grid(raw["pixdim"][1 : 1 + min(int(raw["dim"][0]), 3)], header.get_best_affine())
    except DAMAGE as error:
        raise unreadable(path, error) from None
    for text in faults:
        _warn(path, text)
    if zipped != str(path).lower().endswith(".gz"):
        _warn(path, f"it is {'' if zipped else 'not '}compressed by gzip, contrary to its name; rename it")
    return kind, header


def _check_claims(header: nibabel.Nifti1Header, size: int, inflates: bool) -> None:
    """Refuse a stored header that claims more data than a file of this size can hold."""
    if header["magic"] != header.single_magic:
        raise ValueError(
            f"its header has the magic string {header['magic'].item()!r}, expected {header.single_magic!r}"
        )
    sides = [int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1]]
    voxels = int(np.prod(sides, dtype=object))
    if not 1 <= int(header["dim"][0]) <= 7 or min(sides) < 1 or max(sides[:3]) > MOST_SIDE or voxels > MOST_VOXELS:
        claim = " x ".join(map(str, sides)) or "no"
        raise ValueError(
            f"its header claims {claim} voxels; the limit is {MOST_SIDE} per side and {MOST_VOXELS} in total"
        )
    try:
        kind, offset = header.get_data_dtype(), float(header["vox_offset"])
    except KeyError:
        raise ValueError(f"NIfTI has no data type {int(header['datatype'])}") from None
    if kind.kind not in "iuf":
        what = "complex" if kind.kind == "c" else "colours"
        raise ValueError(f"its voxels are {what}, expected one real number each")
    if not header.single_vox_offset <= offset <= header.single_vox_offset + SLACK:
        raise ValueError(f"its header has the implausible voxel offset {offset:g}")
    claimed = int(offset) + voxels * kind.itemsize
    if claimed > size * (INFLATION if inflates else 1):
        raise ValueError(f"its header claims {claimed} bytes, more than the file's {size} can hold")


def _image(kind: type, values, header: nibabel.Nifti1Header, path: str | Path) -> nibabel.Nifti1Image:
    image = kind(values, header.get_best_affine(), header)
    image.file_map["image"].filename = str(path)  # with any suffix
    return image


AUTOMATIC = b"automatic, by wmhlib"
"""The header's description of every mask made by this project; it is kept when the file is copied."""


def automatic(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The image, marked as made by this project and not by people; `wmhlib.cohort` refuses it as a reference."""
    image.header["descrip"] = AUTOMATIC
    return image


def changed_since(path: str | Path, record: dict) -> bool:
    """Whether people changed a mask after this project wrote it with this record.

    The file's checksum then differs from `mask_sha256`; a record without this key leaves only the mark of `automatic`.
    """
    if not Path(path).exists():
        return False
    return sha256(path) != record["mask_sha256"] if "mask_sha256" in record else not is_automatic(path)


STATISTICS, LABELS = range(2, 25), (1002, 1003)
"""NIfTI's intent codes of statistical maps (such as z-scores), and of label maps."""


def refuse_derived(name: str | Path, header: nibabel.Nifti1Header) -> None:
    """ValueError if a header says that the image was made by this project or is a statistical or label map."""
    if AUTOMATIC in header["descrip"].item():
        raise ValueError(f"{name} is a mask or probability map of this project: give the FLAIR.")
    code = int(header["intent_code"])
    if code in STATISTICS or code in LABELS:
        raise ValueError(f"{name} has the intent {header.get_intent()[0]!r} in its header: give the FLAIR, not a map.")


def is_automatic(path: str | Path) -> bool:
    """Whether a file has the mark of `automatic`, or its sidecar names a network; False if it cannot be read."""
    if "network_sha256" in read_json(re.sub(r"\.nii(\.gz)?$", ".json", str(path), flags=re.IGNORECASE)):
        return True
    try:
        return AUTOMATIC in open_scan(path).header["descrip"].item()
    except (OSError, ValueError):
        return False


def save_image(image: nibabel.Nifti1Image, path: str | Path) -> None:
    """Write a prediction as a NIfTI file with the mark of `automatic`; an interruption leaves no partial file."""
    with replacing(path) as temporary:
        nibabel.save(automatic(image), temporary)
