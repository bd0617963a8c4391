"""Download public data sets file by file, each into its folder below `data`.

The WMH Challenge's single archive (8.8 GB) times out, and a study needs only a fraction of it. Input: a listing
(`wmhlib.intake.sources`) and the files (`wmhlib.intake.web`). Output: the needed files, verified against their listed
SHA-1, and `manifest.json`, which records their origin. A complete file is never downloaded again.
"""

import argparse
import contextlib
import datetime
import functools
import json
import multiprocessing
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from wmhlib.intake import sources, web
from wmhlib.intake.sources import DEFAULT, SERVERS, SOURCES, File, Source
from wmhlib.running.files import ROOT, PathLike, alone, read_json, write_json, writing

if TYPE_CHECKING:  # imports Keras, which takes seconds
    from wmhlib.study import Study

GIVE_UP_AFTER = 5  # consecutive failures, after which the remaining files are not tried
LISTING_S = 60  # a Dataverse can be slow to list a large data set


def listing(source: Source, servers: Mapping[str, str] = SERVERS, t1: bool = False, orig: bool = False) -> list[File]:
    """The files of a data set that a study needs; for the challenge, optionally T1 and scans before bias correction
    (`orig`).

    Raises
    ------
    OSError
        The server cannot be reached, or answers with an error.
    ValueError
        The answer is not a valid listing, or has none of the needed files.
    """
    if source.table:
        return sources.read_table(source, servers)
    url = servers[source.server] + source.address
    print(f"Reading the listing at {url} …", flush=True)
    web.reach(url)
    with web.open_session() as session:

        def read() -> bytes:
            with web.ask(session, "GET", url, LISTING_S) as answer:
                return answer.content

        content = web.persist(read, url, attempts=3)
    try:
        files = sources.read_dataverse(json.loads(content), servers[source.server])
        return sources.wanted_challenge(files, t1, orig)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, sources.NoListing) else "it is not a Dataverse listing"
        raise ValueError(
            f"{url} has no valid listing of {source.name} ({reason}): check the server's address."
        ) from None


def fetch(source: Source, files: list[File], root: str | Path, workers: int = 4) -> list[str]:
    """Download the files missing in `root`, several at a time, and write `root/manifest.json`.

    Shows licence and citation, the amount to download, progress in bytes, and each failure when it happens. A file is
    complete if its checksum is the listed one; it is read from the manifest or, if missing there, computed. The
    manifest's `complete` tells whether all of `files` are present.

    Returns
    -------
    list of str
        One sentence per file that could not be downloaded; empty if all are present.

    Raises
    ------
    OSError
        The server does not answer, the disk is full, the folder cannot be written, or another process downloads into
        it.
    """
    terms = f"{source.licence}: no commercial use" if "-NC" in source.licence else source.licence
    print(f"{source.title} ({source.origin}) is licensed {terms}; cite\n{source.citation}.", flush=True)
    root = Path(root).expanduser().resolve()
    ended: dict[str, str] = {}  # path to problem, empty if there was none
    with writing(root), alone(root):
        rows, _ = _manifest(root)
        verified = {file.path: _verified(file, root, rows.pop(file.path, {})) for file in files}
        rows |= {path: row for path, row in verified.items() if row}
        missing = [file for file in files if not verified[file.path]]
        try:
            if missing:
                sizes = _announced(source.name, missing, root, workers)
                _fetch_missing(missing, sizes, root, workers, ended)
        finally:  # also after an interruption: record the complete files
            rows |= {file.path: _row(file, root) for file in missing if ended.get(file.path) == ""}
            manifest = {name: getattr(source, name) for name in ("name", "origin", "licence", "citation")}
            manifest |= {"complete": all(file.path in rows for file in files)}
            if rows:
                write_json(root / "manifest.json", manifest | {"files": [rows[path] for path in sorted(rows)]})
    problems = [problem for problem in ended.values() if problem]
    if untried := len(missing) - len(ended):
        problems.append(f"{untried} more files were not downloaded, because {GIVE_UP_AFTER} failed in a row.")
        print(problems[-1], file=sys.stderr, flush=True)
    return problems


def fetch_sets(
    names: Iterable[str], root: PathLike, servers: Mapping[str, str] = SERVERS, workers: int = 4, **options: bool
) -> dict[str, list[str]]:
    """Download data sets, each into its folder below `root`. Returns the problems of each incomplete data set, by name.

    A failure is printed at once, and the next data set is still downloaded. `options` are those of `listing`.
    """
    root = Path(root)
    failed = {}
    for source in (SOURCES[name] for name in names):
        try:
            files = listing(source, servers, **options)
            problems = fetch(source, files, root / source.name, workers)
        except (OSError, ValueError) as error:
            problems = [f"{source.name}: {error}"]
            print(problems[0], file=sys.stderr, flush=True)
        if problems:
            failed[source.name] = problems
        else:
            print(f"{source.name}: all {len(files)} files are in {root / source.name}.", flush=True)
    return failed


def fetch_for(study: "Study") -> None:
    """Download the data sets named in a study's `data.download`, each into its folder below `ROOT/data`.

    Data sets that are complete according to their manifest and whose files still exist are skipped without contacting a
    server.

    Raises
    ------
    OSError
        A data set is incomplete; the message names it and the first reason.
    """
    root = ROOT / "data"
    failed = fetch_sets((name for name in study.config.data.download if not _manifest(root / name)[1]), root)
    if failed:
        raise OSError("; ".join(f"{root / name} is not complete: {problems[0]}" for name, problems in failed.items()))


def _announced(name: str, missing: list[File], root: Path, workers: int) -> dict[str, int]:
    """Print the amount to download and check the free space on the disk. Returns bytes by path, 0 if unknown."""
    web.reach(missing[0].url)
    sizes = {file.path: file.size or 0 for file in missing}
    unlisted = [file for file in missing if file.size is None]
    if unlisted:
        with web.open_session() as session, ThreadPool(workers) as pool:
            lengths = pool.map_async(functools.partial(web.length, session), [file.url for file in unlisted])
            with contextlib.suppress(multiprocessing.TimeoutError):
                sizes |= zip((file.path for file in unlisted), lengths.get(web.REACH_S), strict=True)
    needed = sum(max(size - web.bytes_in(web.part_of(root / path)), 0) for path, size in sizes.items())
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    unknown = sum(not size for size in sizes.values())
    more = f" and {unknown} files whose size is unknown" if unknown else ""
    print(f"{name}: {len(missing)} files to download into {root}, {needed / 1e6:.1f} MB{more}.", flush=True)
    if needed > free:
        raise OSError(
            f"{root} has only {free / 1e6:.1f} MB of free space: free some space, or give another folder with --root."
        )
    return sizes


def _fetch_missing(
    missing: list[File], sizes: Mapping[str, int], root: Path, workers: int, ended: dict[str, str]
) -> None:
    """Download files, and add path and problem of each to `ended` when it ends. An interruption ends all downloads at
    once."""
    stop, session, failed_in_a_row = threading.Event(), web.open_session(), 0
    received = sum(web.bytes_in(web.part_of(root / file.path)) for file in missing)
    bar = tqdm(total=sum(sizes.values()), initial=received, unit="B", unit_scale=True, desc=f"{len(missing)} files")

    def advance(count: int) -> None:
        with bar.get_lock():
            bar.update(count)

    def fetch_one(file: File) -> tuple[File, str]:
        try:
            web.receive(session, file.url, root / file.path, file.checksum, file.size, advance, stop)
            return file, ""
        except OSError as error:
            return file, f"{file.path}: {error}"

    with bar, ThreadPool(workers) as pool:  # its threads are daemons, so a hanging one does not block the exit
        try:
            for file, problem in pool.imap_unordered(fetch_one, missing):
                ended[file.path] = problem
                if problem:
                    tqdm.write(problem, file=sys.stderr)
                failed_in_a_row = failed_in_a_row + 1 if problem else 0
                if failed_in_a_row == GIVE_UP_AFTER:
                    break
        finally:
            stop.set()


def _manifest(root: Path) -> tuple[dict[str, dict], bool]:
    """The manifest's rows by path for files that still exist, and whether the data set is complete.

    Empty and False if the manifest cannot be read; files are then verified by their checksums.
    """
    manifest = read_json(root / "manifest.json")
    try:
        rows = {row["path"]: row for row in manifest["files"] if web.bytes_in(root / row["path"]) == row["size"]}
        return rows, manifest.get("complete") is True and len(rows) == len(manifest["files"])
    except (KeyError, TypeError):
        return {}, False


def _verified(file: File, root: Path, row: dict) -> dict | None:
    """The manifest's row of a complete file, a new row if the file has the listed checksum, or None."""
    if row.get("checksum") == file.checksum:  # _manifest already compared the size
        return row
    target = root / file.path
    same = target.is_file() and file.size in (None, web.bytes_in(target))
    return _row(file, root) if same and web.digest(target, file.checksum) == file.checksum else None


def _row(file: File, root: Path) -> dict:
    return file._asdict() | {"size": web.bytes_in(root / file.path), "date": datetime.date.today().isoformat()}


def main(arguments: list[str] | None = None) -> None:
    """Download the files of public data sets that a study needs; the same command resumes after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m wmhlib.intake.download", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(SOURCES)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--root", default=ROOT / "data", help="the folder of the data sets, each in its own subfolder")
    parser.add_argument("--t1", action="store_true", help="also download the challenge's T1")
    parser.add_argument(
        "--orig", action="store_true", help="also download the challenge's scans before bias correction"
    )
    parser.add_argument("--workers", type=int, default=4, help="number of parallel downloads")
    for server, url in SERVERS.items():
        parser.add_argument(f"--{server}", default=url, type=lambda url: url.rstrip("/"), help="a server's address")
    chosen = parser.parse_args(arguments)
    if unknown := sorted({*chosen.names} - {*SOURCES}):
        parser.error(f"there is no data set {unknown[0]!r}: choose from {', '.join(SOURCES)}")
    servers = {server: getattr(chosen, server) for server in SERVERS}
    try:
        names = chosen.names or DEFAULT
        failed = fetch_sets(names, Path(chosen.root), servers, chosen.workers, t1=chosen.t1, orig=chosen.orig)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command resumes from here.")
    if failed:
        sys.exit(f"Incomplete: {', '.join(failed)}, for the reasons above.")


if __name__ == "__main__":
    main()
