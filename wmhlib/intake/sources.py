"""The public data sets that `wmhlib.intake.download` can fetch: their addresses, files and licences.

Input: a table of this package (`listings/<name>.csv`) or a server's listing as JSON. Output: `File`s. This module sends
no requests.
WMH Challenge: Kuijf et al., doi:10.34894/AECRSD, listed by Dataverse's Native API; files come from its Data Access API.
Ljubljana MS (Lesjak et al., doi:10.1007/s12021-017-9348-7) and SynthSeg's label maps (Billot et al.,
doi:10.1016/j.media.2023.102789) come from git repositories on GitHub at fixed commits, which determine every file's
SHA-1.
"""

import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

SERVERS = {"dataverse": "https://dataverse.nl", "github": "https://raw.githubusercontent.com"}
LISTINGS = Path(__file__).with_name("listings")


class NoListing(ValueError):
    """A listing is invalid, and nothing of it should be downloaded; the text is the reason."""


class File(NamedTuple):
    """A file of a data set.

    `path` is relative to the data set's folder, with forward slashes; `size` is in bytes, None if not listed;
    `checksum` is as in `wmhlib.intake.web.digest`; `version` is that of the data set, or its commit.
    """

    path: str
    url: str
    size: int | None
    checksum: str
    version: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its name (also that of its folder), licence, citation, and `address` on one of `SERVERS`.

    The address is that of the server's listing or, if this package has the listing, the base of the listed paths.
    """

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    server: str
    address: str

    @property
    def table(self) -> Path | None:
        """The package's own listing; None if the server provides it."""
        table = LISTINGS / f"{self.name}.csv"
        return table if table.exists() else None


def read_table(source: Source, servers: Mapping[str, str]) -> list[File]:
    """All files of a data set whose listing is in this package; the last part of its address is the commit."""
    assert source.table is not None
    with source.table.open(newline="", encoding="utf-8") as rows:
        return [
            File(
                row["path"],
                f"{servers[source.server]}{source.address}/{quote(row['listed'])}",
                int(row["bytes"]) if row["bytes"] else None,
                f"git SHA-1:{row['git_sha1']}",
                source.address.rpartition("/")[2],
            )
            for row in csv.DictReader(rows)
        ]


def read_dataverse(answer: Any, server: str) -> list[File]:
    """All files of the latest published version, in the server's order.

    Raises
    ------
    NoListing
        A path is unsafe or listed twice, or a file has no SHA-1.
    ValueError, KeyError, TypeError, AttributeError
        The answer is not a Dataverse listing.
    """
    version = answer["data"]["latestVersion"]
    number = f"{version['versionNumber']}.{version['versionMinorNumber']}"
    files: dict[str, File] = {}
    for entry in version["files"]:
        folder, data = entry.get("directoryLabel"), entry["dataFile"]
        path = f"{folder}/{data['filename']}" if folder else str(data["filename"])
        listed = data.get("checksum") or {}
        checksum = f"{listed.get('type')}:{listed.get('value')}"
        if re.search(r"[\\:\0]", path) or {"", ".", ".."} & set(path.split("/")):
            raise NoListing(f"it lists the unsafe path {path!r}, expected one inside the folder")
        if path in files:
            raise NoListing(f"it lists {path} twice")
        if not re.fullmatch("SHA-1:[0-9a-f]{40}", checksum):
            raise NoListing(f"it lists {path} with the checksum {checksum}, expected a SHA-1")
        url = f"{server}/api/access/datafile/{int(data['id'])}"
        files[path] = File(path, url, int(data["filesize"]), checksum, number)
    return list(files.values())


def wanted_challenge(files: list[File], t1: bool = False, orig: bool = False) -> list[File]:
    """The files that a study needs: `pre/FLAIR`, `wmh` and the observers' masks.

    `t1` adds T1, `orig` adds scans before bias correction, and both together add `orig/T1`. The large 3DT1 is never
    included.

    Raises
    ------
    NoListing
        The listing has none of these files.
    """
    folders, images = "pre|orig" if orig else "pre", "FLAIR|T1" if t1 else "FLAIR"
    scan = rf"(training|test)/.+/(wmh|({folders})/({images}))\.nii\.gz"
    observer = r"additional_annotations/observer_o[34]/.+/result\.nii\.gz"
    chosen = [file for file in files if re.fullmatch(f"{scan}|{observer}", file.path)]
    if not chosen:
        raise NoListing(f"none of the {len(files)} files listed is a …/<id>/pre/FLAIR.nii.gz or a mask")
    return chosen


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="wmh-challenge",
            title="The WMH Challenge's data set",
            origin="doi:10.34894/AECRSD",
            licence="CC BY-NC 4.0",
            citation="Kuijf et al. 2019, Standardized Assessment of Automatic Segmentation of White Matter "
            "Hyperintensities and Results of the WMH Segmentation Challenge, IEEE Transactions on Medical Imaging, "
            "doi:10.1109/TMI.2019.2905770",
            server="dataverse",
            address="/api/datasets/:persistentId/?persistentId=doi:10.34894/AECRSD",
        ),
        Source(
            name="ljubljana-ms",
            title="The Ljubljana MS data set",
            origin="github.com/muschellij2/open_ms_data",
            licence="CC BY",
            citation="Lesjak et al. 2017, A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion "
            "Segmentations Based on Multi-rater Consensus, Neuroinformatics, doi:10.1007/s12021-017-9348-7",
            server="github",
            address="/muschellij2/open_ms_data/ab6737647be9665e5448d18be2d715e0a89f7170",
        ),
        Source(
            name="head-label-maps",
            title="SynthSeg's label maps of twenty heads",
            origin="github.com/BBillot/SynthSeg",
            licence="Apache-2.0",
            citation="Billot et al. 2023, SynthSeg: Segmentation of Brain MRI Scans of Any Contrast and Resolution "
            "Without Retraining, Medical Image Analysis, doi:10.1016/j.media.2023.102789",
            server="github",
            address="/BBillot/SynthSeg/66342c1f05e520f3729a6d7ca1042eb7f01b6266",
        ),
    )
}
DEFAULT = ("wmh-challenge", "ljubljana-ms")
"""The data sets that `make data` fetches by default."""
