"""The public data sets that `wmhlib.intake.download` can fetch: where each is listed, which files are wanted, on what terms.

In flows a server's listing, read as JSON; out flow `File`s, each with the path it gets in the WMH Challenge's layout,
its address, size and checksum. Nothing here asks a server.

WMH Challenge: Kuijf et al., doi:10.34894/AECRSD, listed by Dataverse's Native API, files by its Data Access API.
Ljubljana MS: Lesjak et al., doi:10.1007/s12021-017-9348-7, as mirrored in a git repository on GitHub, listed by the
REST API's git trees. The commit's id pins the content: every file's SHA-1 follows from it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SERVERS = {
    "dataverse": "https://dataverse.nl",
    "github_api": "https://api.github.com",
    "github_raw": "https://raw.githubusercontent.com",
}
REPOSITORY = "muschellij2/open_ms_data"
COMMIT = "ab6737647be9665e5448d18be2d715e0a89f7170"
PATIENTS = 30  # of the Ljubljana MS set


class File(NamedTuple):
    """A file of a data set.

    `path` lies below the data set's folder, with forward slashes; `size` is in bytes; `checksum` is `SHA-1:` and the
    content's, or `git SHA-1:` and that of git's blob, in hexadecimal; `version` is the data set's, or its commit.
    """

    path: str
    url: str
    size: int
    checksum: str
    version: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set; its name is that of its folder, and `listing` an address with the `SERVERS`' names in braces.

    `read` takes the listing's JSON and the servers to every file listed, `wanted` takes these to those a study needs.
    """

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    listing: str
    read: Callable[[Any, Mapping[str, str]], list[File]]
    wanted: Callable[..., list[File]]


def read_dataverse(answer: Any, servers: Mapping[str, str]) -> list[File]:
    """Every file of the newest published version, in the server's order; KeyError and the like for another answer."""
    version, files = answer["data"]["latestVersion"], []
    number = f"{version['versionNumber']}.{version['versionMinorNumber']}"
    for entry in version["files"]:
        folder, data = entry.get("directoryLabel"), entry["dataFile"]
        path = f"{folder}/{data['filename']}" if folder else str(data["filename"])
        url = f"{servers['dataverse']}/api/access/datafile/{int(data['id'])}"
        checksum = data.get("checksum") or {}
        files.append(File(path, url, int(data["filesize"]), f"{checksum.get('type')}:{checksum.get('value')}", number))
    return files


def read_git_tree(answer: Any, servers: Mapping[str, str]) -> list[File]:
    """Every file of the commit, by its path in the repository; KeyError and the like for another answer.

    Raises
    ------
    ValueError
        The server left files out.
    """
    if answer["truncated"] is not False:
        raise ValueError("it is truncated, expected the whole tree")
    address = f"{servers['github_raw']}/{REPOSITORY}/{COMMIT}"
    return [
        File(str(entry["path"]), f"{address}/{entry['path']}", int(entry["size"]), f"git SHA-1:{entry['sha']}", COMMIT)
        for entry in answer["tree"]
        if entry["type"] == "blob"
    ]


def check(files: list[File], url: str) -> None:
    """Refuse a listing, read at `url`, of which nothing should be fetched.

    Raises
    ------
    ValueError
        A path could lead outside the folder or stands twice, or a file has no SHA-1.
    """
    seen = set()
    for file in files:
        if re.search(r"[\\:\0]", file.path) or {"", ".", ".."} & set(file.path.split("/")):
            raise ValueError(
                f"{url} lists the path {file.path!r}, expected one inside the folder: do not use this server."
            )
        if file.path in seen:
            raise ValueError(f"{url} lists {file.path} twice, expected once: tell the dataset's keepers.")
        if not re.fullmatch("(git )?SHA-1:[0-9a-f]{40}", file.checksum):
            raise ValueError(
                f"{file.path}: the checksum listed is {file.checksum}, expected one of type SHA-1, without which the "
                "file cannot be verified: tell the dataset's keepers."
            )
        seen.add(file.path)


def wanted_challenge(files: list[File], t1: bool = False, orig: bool = False) -> list[File]:
    """What a study needs: `pre/FLAIR`, `wmh` and the observers' masks; also T1 and, before bias correction, `orig`.

    Both options together give `orig/T1`, too. The large 3DT1 is never taken.

    Raises
    ------
    ValueError
        None of the files is one of these.
    """
    folders, images = "pre|orig" if orig else "pre", "FLAIR|T1" if t1 else "FLAIR"
    scan = rf"(training|test)/.+/(wmh|({folders})/({images}))\.nii\.gz"
    observer = r"additional_annotations/observer_o[34]/.+/result\.nii\.gz"
    chosen = [file for file in files if re.fullmatch(f"{scan}|{observer}", file.path)]
    if not chosen:
        raise ValueError(
            f"None of {len(files)} files listed is a …/<id>/pre/FLAIR.nii.gz or a mask: check the server's address."
        )
    return chosen


def wanted_ljubljana(files: list[File], t1: bool = False, orig: bool = False) -> list[File]:
    """FLAIR (coregistered, bias-corrected) and consensus mask of every patient, as external subjects `patientNN`.

    The challenge's subjects are plain numbers, so that the names do not meet. There is nothing more for the options.

    Raises
    ------
    ValueError
        A patient's FLAIR or mask is not listed, or stands under both of its names.
    """
    chosen = []
    for patient in (f"patient{number:02}" for number in range(1, PATIENTS + 1)):
        for listed, name in (("FLAIR", "pre/FLAIR"), ("consensus_gt", "wmh")):
            pattern = rf"cross_sectional/coregistered/{patient}/({patient}_)?{listed}\.nii\.gz"
            found = [file for file in files if re.fullmatch(pattern, file.path)]
            if len(found) != 1:
                raise ValueError(
                    f"The listing of {REPOSITORY} has {len(found)} files cross_sectional/coregistered/{patient}/"
                    f"[{patient}_]{listed}.nii.gz, expected one: check the server's address."
                )
            chosen.append(found[0]._replace(path=f"test/Ljubljana/{patient}/{name}.nii.gz"))
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
            listing="{dataverse}/api/datasets/:persistentId/?persistentId=doi:10.34894/AECRSD",
            read=read_dataverse,
            wanted=wanted_challenge,
        ),
        Source(
            name="ljubljana-ms",
            title="The Ljubljana MS data set",
            origin=f"github.com/{REPOSITORY}",
            licence="CC BY",
            citation="Lesjak et al. 2017, A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion "
            "Segmentations Based on Multi-rater Consensus, Neuroinformatics, doi:10.1007/s12021-017-9348-7",
            listing=f"{{github_api}}/repos/{REPOSITORY}/git/trees/{COMMIT}?recursive=1",
            read=read_git_tree,
            wanted=wanted_ljubljana,
        ),
    )
}
