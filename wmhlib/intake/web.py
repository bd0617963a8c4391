"""Requests to a server and downloads over a network that may be slow, silent or absent.

A server that does not answer is reported within `REACH_S`. Temporary failures (`wmhlib.intake.refusals`) are retried up
to `ATTEMPTS` times, after waits that double or that the server requests: about two minutes for a silent server.
Permanent failures are raised at once. A download resumes where it stopped (RFC 9110, section 14) and gets its final
name after its checksum was verified.
"""

import hashlib
import importlib.metadata
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from wmhlib.intake.refusals import LATER, NETWORK, Failure, explained, is_page, refusal
from wmhlib.running.files import PathLike, writing

REACH_S = 5  # until any answer, including name lookup and certificate check
CONNECT_S = 4  # per address of a server
SILENCE_S = 20  # without a byte until a connection counts as broken
ATTEMPTS = 5
BACKOFF_S = 1.0  # first wait between two attempts; doubled each time
LARGEST = 10**9  # bytes, limit for a file whose size is not listed
CHUNK = 2**16  # bytes
NEVER = threading.Event()


def open_session() -> requests.Session:
    """A session that identifies this project and requests files without transport compression."""
    session = requests.Session()
    session.headers["User-Agent"] = f"wmhlib/{importlib.metadata.version('wmhlib')}"
    session.headers["Accept-Encoding"] = "identity"
    return session


def reach(url: str) -> None:
    """Check that the server of an address answers at all; raise `Failure` if it does not within `REACH_S`."""

    def ask_anything() -> None:
        answer = open_session().head(urljoin(url, "/robots.txt"), timeout=REACH_S, allow_redirects=False)
        if answer.status_code == 407:
            raise refusal(answer)

    def probe() -> None:
        try:
            outcome.append(persist(ask_anything, url, attempts=2, stop=late))
        except Exception as error:
            outcome.append(error)

    outcome: list[Exception | None] = []
    late = threading.Event()  # a later answer is ignored
    thread = threading.Thread(target=probe, daemon=True)  # name lookup has no timeout of its own
    thread.start()
    thread.join(REACH_S)
    if not outcome:
        late.set()
        raise Failure(f"{urlsplit(url).netloc} has not answered within {REACH_S} s", NETWORK)
    if outcome[0]:
        raise outcome[0]


def ask(session: requests.Session, method: str, url: str, silence_s: float = 0, **options) -> requests.Response:
    """A response with data (or status 416) whose body is not read yet; raises `Failure` for any other response."""
    answer = session.request(method, url, stream=True, timeout=(CONNECT_S, silence_s or SILENCE_S), **options)
    if answer.status_code != 416 and (is_page(answer) or answer.status_code not in (200, 206)):
        with answer:
            raise refusal(answer)
    return answer


def length(session: requests.Session, url: str) -> int:
    """Size of a file in bytes, as given by its server; 0 if not given."""
    try:
        with ask(session, "HEAD", url) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, ValueError, KeyError):
        return 0


def persist(action: Callable[[], Any], url: str, attempts: int = 0, stop: threading.Event = NEVER) -> Any:
    """The result of `action`, which is retried after temporary failures with a message; raises the last `Failure`."""
    attempts = attempts or ATTEMPTS
    for attempt in range(attempts):
        try:
            return action()
        except Failure as error:
            failure = error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failure = explained(error, url)
        if failure.lasts or stop.is_set() or attempt == attempts - 1:
            break
        wait_s = max(failure.wait_s, BACKOFF_S * 2**attempt)
        tqdm.write(f"{failure.what}; trying again in {wait_s:.0f} s.", file=sys.stderr)
        stop.wait(wait_s)
    raise failure


def receive(
    session: requests.Session,
    url: str,
    target: PathLike,
    checksum: str,
    size: int | None = None,
    advance: Callable[[int], Any] = lambda count: None,
    stop: threading.Event = NEVER,
) -> None:
    """Download a file (`size` bytes) to `target`, through `part_of(target)`, from which a later call resumes.

    `checksum` is as in `digest`. `advance` is called with every change in the number of bytes received; setting `stop`
    ends the download.

    Raises
    ------
    OSError
        The file could not be downloaded or written, or had a wrong checksum twice and was removed.
    """
    target = Path(target)
    part, wrong = part_of(target), []

    def attempt() -> None:
        if not size or bytes_in(part) < size:
            _append(session, url, part, size or LARGEST, advance, stop)
        if size and bytes_in(part) < size:
            raise Failure(f"{urlsplit(url).netloc} sent {bytes_in(part)} of {size} bytes", LATER)
        received = digest(part, checksum)
        if received == checksum:
            part.replace(target)
            return
        advance(-bytes_in(part))
        part.unlink()
        wrong.append(received)
        keepers = "the file was removed; inform the maintainers of the data set"
        raise Failure(f"the checksum is {received}, expected {checksum}", keepers, lasts=len(wrong) == 2)

    with writing(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        persist(attempt, url, stop=stop)


def _append(session, url: str, part: Path, most: int, advance: Callable[[int], Any], stop: threading.Event) -> None:
    """Request the missing rest of `part` once and append it; start over if the server does not resume."""
    received = bytes_in(part)
    with ask(session, "GET", url, headers={"Range": f"bytes={received}-"} if received else {}) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
            part.write_bytes(b"")
            advance(-received)
            if answer.status_code in (206, 416):
                raise Failure(f"{urlsplit(url).netloc} did not resume after {received} bytes", LATER)
        with part.open("ab", buffering=0) as out:
            for chunk in answer.raw.stream(CHUNK, decode_content=False):
                if stop.is_set():
                    raise Failure("The download was stopped", "run the same command again to resume")
                advance(out.write(chunk))
                if out.tell() > most:
                    return  # larger than listed: the checksum will be wrong


def part_of(target: PathLike) -> Path:
    """The path of an unfinished download."""
    target = Path(target)
    return target.with_name(f"{target.name}.part")


def digest(path: PathLike, like: str) -> str:
    """A file's checksum of the same kind as `like`: `SHA-1:`, `MD5:` or `git SHA-1:` (Pro Git, 10.2) with its
    digits."""
    path = Path(path)
    kind = like.partition(":")[0]
    start = f"blob {bytes_in(path)}\0".encode() if kind == "git SHA-1" else b""
    algorithm = hashlib.md5 if kind == "MD5" else hashlib.sha1
    with path.open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, lambda: algorithm(start, usedforsecurity=False)).hexdigest()}"


def bytes_in(path: PathLike) -> int:
    """Size of a file in bytes; 0 if it does not exist."""
    path = Path(path)
    return path.stat().st_size if path.exists() else 0
