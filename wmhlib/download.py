"""The WMH Challenge's scans, fetched file by file from Dataverse into the layout `wmhlib.cohort` reads.

The one archive of everything (8.8 GB) times out, and a study needs a fraction of it: FLAIR, reference masks and the two
observers' masks. In flows Dataverse's listing; out flow the wanted files under their listed paths, each with its listed
SHA-1, and `manifest.json`, which says what came from where. An unfinished file lies in `<file>.part` and goes on from
there; a finished one is never fetched again.

Data: Kuijf et al., doi:10.34894/AECRSD. Listing and access: Dataverse's Native API and Data Access API. Going on in the
middle of a file: RFC 9110, section 14.
"""

import argparse
import datetime
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pooch
import requests
import urllib3
from tqdm import tqdm

from wmhlib.study import ROOT, write_json

SERVER = "https://dataverse.nl"
DOI = "doi:10.34894/AECRSD"
LICENCE = "CC BY-NC 4.0"
CITATION = (
    "Kuijf et al. 2019, Standardized Assessment of Automatic Segmentation of White Matter Hyperintensities and Results "
    "of the WMH Segmentation Challenge, IEEE Transactions on Medical Imaging, doi:10.1109/TMI.2019.2905770"
)

ATTEMPTS = 5  # at a request, and at a file whose connection breaks
BACKOFF_S = 1.0  # the first wait between two attempts; each further one is twice as long
LONGEST_WAIT_S = 60  # however long the server asks to wait
TIMEOUT_S = 60  # without a byte, after which a connection counts as broken
GIVE_UP_AFTER = 20  # files failing in a row, after which the rest is not tried
CHUNK = 2**16  # bytes
SCRATCH = ".unfinished"  # the folder below the root where a checksum is verified


class File(NamedTuple):
    """A file as Dataverse lists it: its path within the dataset, with forward slashes, and its size in bytes."""

    path: str
    id: int
    size: int
    sha1: str
    doi: str
    version: str


def listing(server: str = SERVER, doi: str = DOI) -> list[File]:
    """Every file of the newest published version of a dataset, in the server's order.

    Raises
    ------
    OSError
        The server cannot be reached, or answers with an error.
    ValueError
        The answer is no Dataverse listing, or one of which nothing should be fetched: a path could lead outside the
        folder or stands twice, or a file has no SHA-1.
    """
    url = f"{server}/api/datasets/:persistentId/?persistentId={doi}"
    try:
        with _session(1).get(url, timeout=TIMEOUT_S) as answer:
            answer.raise_for_status()
            version = answer.json()["data"]["latestVersion"]
        number = f"{version['versionNumber']}.{version['versionMinorNumber']}"
        listed = []
        for entry in version["files"]:
            folder, data = entry.get("directoryLabel"), entry["dataFile"]
            path = f"{folder}/{data['filename']}" if folder else str(data["filename"])
            listed.append((path, int(data["id"]), int(data["filesize"]), data.get("checksum") or {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # first: not being JSON is an OSError as well
        raise ValueError(
            f"{url} gave no Dataverse listing ({type(error).__name__}: {error}): check --server."
        ) from None
    except OSError as error:
        raise OSError(f"No listing from {url}: {_reason(error)}; check the network and try again later.") from None
    files = {}
    for path, identifier, size, checksum in listed:
        if re.search(r"[\\:\0]", path) or {"", ".", ".."} & set(path.split("/")):
            raise ValueError(f"{url} lists the path {path!r}, expected one inside the folder: do not use this server.")
        if path in files:
            raise ValueError(f"{url} lists {path} twice, expected once: tell the dataset's keepers.")
        if checksum.get("type") != "SHA-1" or not re.fullmatch("[0-9a-f]{40}", str(checksum.get("value"))):
            raise ValueError(
                f"{path}: the checksum listed is {checksum}, expected one of type SHA-1, without which the file cannot "
                "be verified: tell the dataset's keepers."
            )
        files[path] = File(path, identifier, size, checksum["value"], doi, number)
    return list(files.values())


def wanted(files: list[File], t1: bool = False, orig: bool = False) -> list[File]:
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
        raise ValueError(f"None of {len(files)} files listed is a …/<id>/pre/FLAIR.nii.gz or a mask: check --server.")
    return chosen


def fetch(files: list[File], root: str | Path, server: str = SERVER, workers: int = 4) -> list[str]:
    """Fetch what is not below `root` yet, several files at a time, and write `root/manifest.json`.

    Shows licence and citation, then progress in bytes. A file is finished when size and SHA-1 are those listed; the
    SHA-1 is read in the manifest, or taken of the file where the manifest does not hold it.

    Returns
    -------
    list of str
        One sentence for every file that could not be fetched; empty when all are here.

    Raises
    ------
    OSError
        The disk has no room for what is still to be fetched.
    """
    print(f"The WMH Challenge's scans ({DOI}) are licensed {LICENCE}: no commercial use; cite\n{CITATION}.", flush=True)
    pooch.get_logger().setLevel("WARNING")
    root = Path(root).expanduser().resolve()
    rows = _manifest(root)
    here = {file.path: _verified(file, root, rows.pop(file.path, {})) for file in files}
    rows |= {path: row for path, row in here.items() if row}
    missing = [file for file in files if not here[file.path]]
    total = sum(file.size for file in missing)
    received = sum(min(file.size, _size(_part(root / file.path))) for file in missing)
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    if total - received > free:
        raise OSError(
            f"{root} has room for {free / 1e6:.1f} MB, but {(total - received) / 1e6:.1f} MB are still to be fetched: "
            "free some space, or name another folder with --root."
        )
    session, failed_in_a_row = _session(workers), 0
    bar = tqdm(total=total, initial=received, unit="B", unit_scale=True, desc=f"{len(missing)} files")
    with bar, ThreadPoolExecutor(workers) as pool:
        tries = {pool.submit(_fetch_one, file, root, server, session, bar): file for file in missing}
        try:
            for attempt in as_completed(tries):
                failed_in_a_row = failed_in_a_row + 1 if attempt.result() else 0
                if failed_in_a_row == GIVE_UP_AFTER:
                    break
        finally:  # when interrupted, too: files under way are ended, and what is complete is written down
            pool.shutdown(cancel_futures=True)
            shutil.rmtree(root / SCRATCH, ignore_errors=True)
            ended = {file: attempt.result() for attempt, file in tries.items() if not attempt.cancelled()}
            rows |= {file.path: _row(file) for file, problem in ended.items() if not problem}
            source = {"server": server, "licence": LICENCE, "citation": CITATION}
            write_json(root / "manifest.json", source | {"files": [rows[path] for path in sorted(rows)]})
    problems = [problem for problem in ended.values() if problem]
    if untried := len(missing) - len(ended):
        problems.append(f"{untried} more: not tried, since {GIVE_UP_AFTER} files failed in a row; run it again later.")
    return problems


def _fetch_one(file: File, root: Path, server: str, session: requests.Session, bar: tqdm) -> str:
    """Fetch one file, twice where its checksum is wrong; why that failed, empty where it did not."""
    target = root / file.path

    def advance(count: int) -> None:
        with bar.get_lock():
            bar.update(count)

    def receive(url: str, output: str, _pooch) -> None:
        _receive(session, url, _part(target), file.size, advance)
        _part(target).replace(output)

    url = f"{server}/api/access/datafile/{file.id}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                verified = pooch.retrieve(url, f"sha1:{file.sha1}", str(file.id), root / SCRATCH, downloader=receive)
                Path(verified).replace(target)
                return ""
            except ValueError as error:  # the checksum is wrong, and pooch has removed the file
                found = str(error).partition("but got ")[2].partition(".")[0]
                advance(-file.size)
    except OSError as error:
        return f"{file.path}: {_reason(error)}, expected {file.size} bytes; run it again to go on from what is here."
    return f"{file.path}: SHA-1 {found} came twice, expected {file.sha1}; it was removed, tell the dataset's keepers."


def _receive(session: requests.Session, url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Bring `part` to its full size (bytes), over as many as `ATTEMPTS` connections."""
    for attempt in range(ATTEMPTS):
        time.sleep(BACKOFF_S * (2**attempt - 1))
        try:
            _append(session, url, part, size, advance)
            broken = "the file ended there"
        except urllib3.exceptions.HTTPError as error:
            broken = str(error)
        if _size(part) >= size:
            return
    raise OSError(f"{_size(part)} bytes came in {ATTEMPTS} attempts ({broken})")


def _append(session: requests.Session, url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Ask once for what `part` lacks and append it; start over where the server does not go on in the middle."""
    part.touch()
    here = _size(part)
    if here >= size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={here}-"} if here else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {here}-")
        if answer.status_code != 416:  # there is nothing beyond what is here, so that it is no beginning of the file
            answer.raise_for_status()
        if not goes_on:
            advance(-here)
            part.write_bytes(b"")
            if answer.status_code in (206, 416):
                return
        with part.open("ab") as out:
            for chunk in answer.raw.stream(CHUNK, decode_content=False):
                out.write(chunk)
                advance(len(chunk))
                if out.tell() > size:
                    return  # more than listed: the checksum will tell


def _session(workers: int) -> requests.Session:
    """Connections that ask again where a server is busy, failing or silent, after a wait it may name itself."""
    retry = urllib3.Retry(
        ATTEMPTS,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=BACKOFF_S,
        retry_after_max=LONGEST_WAIT_S,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=workers, max_retries=retry))
    return session


def _manifest(root: Path) -> dict[str, dict]:
    """Path to row of an earlier run, for files still here; empty where none can be read: files are verified without."""
    try:
        rows = json.loads((root / "manifest.json").read_text(encoding="utf-8"))["files"]
        return {row["path"]: row for row in rows if _size(root / row["path"]) == row["size"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _verified(file: File, root: Path, row: dict) -> dict | None:
    """The manifest's row of a finished file, a new one where the file itself has the SHA-1, or None."""
    if row.get("sha1") == file.sha1:  # _manifest has compared the size
        return row
    target = root / file.path
    same = target.is_file() and _size(target) == file.size and pooch.file_hash(target, alg="sha1") == file.sha1
    return _row(file) if same else None


def _row(file: File) -> dict:
    return file._asdict() | {"date": datetime.date.today().isoformat()}


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: OSError) -> str:
    """What went wrong: the server's answer where it gave one, else the cause that requests wraps."""
    if getattr(error, "response", None) is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", error))


def main(arguments: list[str] | None = None) -> None:
    """Fetch what a study needs of the WMH Challenge's scans; the same command goes on after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.download", description=main.__doc__)
    parser.add_argument("--root", default=ROOT / "data" / "wmh-challenge", help="the folder to fill")
    parser.add_argument("--t1", action="store_true", help="T1 as well")
    parser.add_argument("--orig", action="store_true", help="the scans before bias correction as well")
    parser.add_argument("--server", default=SERVER, type=lambda url: url.rstrip("/"), help="a Dataverse server")
    parser.add_argument("--workers", type=int, default=4, help="files fetched at a time")
    chosen = parser.parse_args(arguments)
    print(f"Reading what {chosen.server} lists …", flush=True)
    try:
        files = wanted(listing(chosen.server), chosen.t1, chosen.orig)
        problems = fetch(files, chosen.root, chosen.server, chosen.workers)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing was fetched. {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on from here.")
    if problems:
        sys.exit("\n".join([f"Of {len(files)} files not all could be fetched:", *problems]))
    print(f"{len(files)} files, {sum(file.size for file in files) / 1e6:.1f} MB, are complete in {chosen.root}.")


if __name__ == "__main__":
    main()
