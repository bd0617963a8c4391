"""Public data sets, fetched file by file into the layout `wmhlib.cohort` reads.

The WMH Challenge's one archive of everything (8.8 GB) times out, and a study needs a fraction of it. Input: a server's
listing, read by `wmhlib.intake.sources`, and the files themselves. Output: the wanted ones, each with its listed SHA-1, and
`manifest.json`, which says what came from where. An unfinished file is kept as `<file>.part` and resumes from there; a
finished one is never fetched again.

Resuming in the middle of a file: RFC 9110, section 14. The SHA-1 of git's blob: Pro Git, 10.2.
"""

import argparse
import datetime
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from wmhlib.intake.sources import SERVERS, SOURCES, File, Source, check
from wmhlib.running.files import ROOT, write_json
from wmhlib.study import Study

ATTEMPTS = 5  # at a request, and at a file whose connection breaks
BACKOFF_S = 1.0  # the first wait between two attempts; each further one is twice as long
LONGEST_WAIT_S = 60  # however long the server asks to wait
TIMEOUT_S = 60  # without a byte, after which a connection counts as broken
GIVE_UP_AFTER = 20  # files failing in a row, after which the rest is not tried
CHUNK = 2**16  # bytes


def listing(source: Source, servers: Mapping[str, str] = SERVERS) -> list[File]:
    """Every file of a data set, in the server's order.

    Raises
    ------
    OSError
        The server cannot be reached, or answers with an error.
    ValueError
        The answer is not the listing expected, or one of which nothing should be fetched (`wmhlib.intake.sources.check`).
    """
    url = source.listing.format(**servers)
    try:
        with _session(1).get(url, timeout=TIMEOUT_S) as answer:
            answer.raise_for_status()
            files = source.read(answer.json(), servers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # first: not being JSON is an OSError as well
        raise ValueError(
            f"{url} gave no listing of {source.name} ({type(error).__name__}: {error}): check the server's address."
        ) from None
    except OSError as error:
        raise OSError(f"No listing from {url}: {_reason(error)}; check the network and try again later.") from None
    check(files, url)
    return files


def fetch(source: Source, files: list[File], root: str | Path, workers: int = 4) -> list[str]:
    """Fetch what is not below `root` yet, several files at a time, and write `root/manifest.json`.

    Shows licence and citation, then progress in bytes. A file is finished when size and SHA-1 are those listed; the
    SHA-1 is read in the manifest, or taken of the file where the manifest does not hold it. The manifest's `complete`
    says whether all of `files` are here.

    Returns
    -------
    list of str
        One sentence for every file that could not be fetched; empty when all are here.

    Raises
    ------
    OSError
        The disk has no room for what is still to be fetched.
    """
    terms = f"{source.licence}: no commercial use" if "-NC" in source.licence else source.licence
    print(f"{source.title} ({source.origin}) is licensed {terms}; cite\n{source.citation}.", flush=True)
    root = Path(root).expanduser().resolve()
    rows, _ = _manifest(root)
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
        tries = {pool.submit(_fetch_one, file, root, session, bar): file for file in missing}
        try:
            for attempt in as_completed(tries):
                failed_in_a_row = failed_in_a_row + 1 if attempt.result() else 0
                if failed_in_a_row == GIVE_UP_AFTER:
                    break
        finally:  # when interrupted, too: files under way are ended, and what is complete is written down
            pool.shutdown(cancel_futures=True)
            ended = {file: attempt.result() for attempt, file in tries.items() if not attempt.cancelled()}
            rows |= {file.path: _row(file) for file, problem in ended.items() if not problem}
            manifest = {name: getattr(source, name) for name in ("name", "origin", "licence", "citation")}
            manifest |= {"complete": all(file.path in rows for file in files)}
            write_json(root / "manifest.json", manifest | {"files": [rows[path] for path in sorted(rows)]})
    problems = [problem for problem in ended.values() if problem]
    if untried := len(missing) - len(ended):
        problems.append(f"{untried} more: not tried, since {GIVE_UP_AFTER} files failed in a row; run it again later.")
    return problems


def fetch_for(study: Study) -> None:
    """Fetch the data sets that a study's `data.download` names, each into its folder below `ROOT/data`.

    Nothing is done, and no server asked, where the key is absent or a data set's manifest says that it is complete and
    its files are still here.

    Raises
    ------
    OSError
        A server cannot be reached, a file could not be fetched, or the disk has no room.
    ValueError
        A listing is not the one expected.
    """
    for name in study.config.data.download:
        source, root = SOURCES[name], ROOT / "data" / name
        if _manifest(root)[1]:
            continue
        if problems := fetch(source, source.wanted(listing(source)), root):
            raise OSError(f"{root} is not complete, {len(problems)} file(s) failed, such as {problems[0]}")


def _fetch_one(file: File, root: Path, session: requests.Session, bar: tqdm) -> str:
    """Fetch one file, twice where its checksum is wrong; why that failed, empty where it did not."""
    target, part = root / file.path, _part(root / file.path)

    def advance(count: int) -> None:
        with bar.get_lock():
            bar.update(count)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            _receive(session, file.url, part, file.size, advance)
            found = _checksum(part, file)
            if found == file.checksum:
                part.replace(target)
                return ""
            advance(-_size(part))
            part.unlink()
    except OSError as error:
        return f"{file.path}: {_reason(error)}, expected {file.size} bytes; run it again to go on from what is here."
    return f"{file.path}: {found} came twice, expected {file.checksum}; it was removed, tell the dataset's keepers."


def _checksum(path: Path, file: File) -> str:
    """The checksum of what lies at `path`, of the kind that is listed for the file."""
    kind = file.checksum.partition(":")[0]
    start = f"blob {_size(path)}\0".encode() if kind == "git SHA-1" else b""
    with path.open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, lambda: hashlib.sha1(start)).hexdigest()}"


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


def _manifest(root: Path) -> tuple[dict[str, dict], bool]:
    """Path to row of an earlier run, for files still here, and whether these are complete.

    Empty and False where no manifest can be read: files are verified without.
    """
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        rows = {row["path"]: row for row in manifest["files"] if _size(root / row["path"]) == row["size"]}
        return rows, manifest.get("complete") is True and len(rows) == len(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, False


def _verified(file: File, root: Path, row: dict) -> dict | None:
    """The manifest's row of a finished file, a new one where the file itself has the checksum, or None."""
    if row.get("checksum") == file.checksum:  # _manifest has compared the size
        return row
    target = root / file.path
    same = target.is_file() and _size(target) == file.size and _checksum(target, file) == file.checksum
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
    """Fetch what a study needs of public data sets; the same command goes on after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.intake.download", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(SOURCES)}; default: all")
    parser.add_argument("--root", default=ROOT / "data", help="the folder that holds the data sets, each in its own")
    parser.add_argument("--t1", action="store_true", help="the challenge's T1 as well")
    parser.add_argument("--orig", action="store_true", help="the challenge's scans before bias correction as well")
    parser.add_argument("--workers", type=int, default=4, help="files fetched at a time")
    for server, url in SERVERS.items():
        option = f"--{server.replace('_', '-')}"
        parser.add_argument(option, default=url, type=lambda url: url.rstrip("/"), help="a server's address")
    chosen = parser.parse_args(arguments)
    if unknown := sorted({*chosen.names} - {*SOURCES}):
        parser.error(f"no data set {unknown[0]!r}; there are {', '.join(SOURCES)}")
    servers = {server: getattr(chosen, server) for server in SERVERS}
    failed = []
    for source in (SOURCES[name] for name in chosen.names or SOURCES):
        root = Path(chosen.root) / source.name
        print(f"Reading what {source.listing.format(**servers)} lists …", flush=True)
        try:
            files = source.wanted(listing(source, servers), chosen.t1, chosen.orig)
            problems = fetch(source, files, root, chosen.workers)
        except (OSError, ValueError) as error:
            failed.append(f"Nothing of {source.name} was fetched. {error}")
            continue
        except KeyboardInterrupt:
            sys.exit("Interrupted: the same command goes on from here.")
        if problems:
            failed += [f"Of {len(files)} files of {source.name} not all could be fetched:", *problems]
        else:
            print(f"{len(files)} files, {sum(file.size for file in files) / 1e6:.1f} MB, are complete in {root}.")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
