"""A server asked, and a file received, over a network that may be slow, silent or absent.

A server that does not answer is noticed within `REACH_S`. What may pass (`wmhlib.intake.refusals`) is tried `ATTEMPTS` times,
after waits that double or that the server names: about two minutes for a file that stays silent. What lasts is raised at
once. A file resumes where it stopped (RFC 9110, section 14), and has its name only when its checksum is right.
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

REACH_S = 5  # for any answer at all, with the name looked up and the certificate checked
CONNECT_S = 4  # for each address of a server
SILENCE_S = 20  # without a byte, after which a connection counts as broken
ATTEMPTS = 5
BACKOFF_S = 1.0  # the first wait between two attempts; each further one is twice as long
LARGEST = 10**9  # bytes of a file whose size is not listed
CHUNK = 2**16  # bytes
NEVER = threading.Event()


def open_session() -> requests.Session:
    """Connections that say who asks, and take every file as it is stored."""
    session = requests.Session()
    session.headers["User-Agent"] = f"wmhlib/{importlib.metadata.version('wmhlib')}"
    session.headers["Accept-Encoding"] = "identity"
    return session


def reach(url: str) -> None:
    """Make sure that the server of an address gives any answer; `Failure` where it does not within `REACH_S`."""

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
    late = threading.Event()  # an answer after all is of no more interest
    thread = threading.Thread(target=probe, daemon=True)  # looking a name up cannot be given a time limit
    thread.start()
    thread.join(REACH_S)
    if not outcome:
        late.set()
        raise Failure(f"{urlsplit(url).netloc} has not answered within {REACH_S} s", NETWORK)
    if outcome[0]:
        raise outcome[0]


def ask(session: requests.Session, method: str, url: str, silence_s: float = 0, **options) -> requests.Response:
    """The head of an answer, whose body is still to be read: of data, or 416; `Failure` for any other."""
    answer = session.request(method, url, stream=True, timeout=(CONNECT_S, silence_s or SILENCE_S), **options)
    if answer.status_code != 416 and (is_page(answer) or answer.status_code not in (200, 206)):
        with answer:
            raise refusal(answer)
    return answer


def length(session: requests.Session, url: str) -> int:
    """Bytes of a file, as its server says; 0 where it does not."""
    try:
        with ask(session, "HEAD", url) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, ValueError, KeyError):
        return 0


def persist(action: Callable[[], Any], url: str, attempts: int = 0, stop: threading.Event = NEVER) -> Any:
    """What `action` returns, asked again after failures that may pass, which are told; `Failure` for the last one."""
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
    """Bring a file (`size` bytes) to `target`, by way of `part_of(target)`, from which a later call resumes.

    `checksum` is as in `digest`. `advance` is called with every change in bytes received; `stop` ends the work.

    Raises OSError: the file could not be fetched or written, or it came twice with another checksum, and was removed.
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
        keepers = "the file was removed, tell the data set's keepers"
        raise Failure(f"{received} came, expected {checksum}", keepers, lasts=len(wrong) == 2)

    with writing(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        persist(attempt, url, stop=stop)


def _append(session, url: str, part: Path, most: int, advance: Callable[[int], Any], stop: threading.Event) -> None:
    """Ask once for what `part` lacks and append it; start over where the server does not resume in the middle."""
    here = bytes_in(part)
    with ask(session, "GET", url, headers={"Range": f"bytes={here}-"} if here else {}) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {here}-"):
            part.write_bytes(b"")
            advance(-here)
            if answer.status_code in (206, 416):
                raise Failure(f"{urlsplit(url).netloc} did not resume after {here} bytes", LATER)
        with part.open("ab", buffering=0) as out:
            for chunk in answer.raw.stream(CHUNK, decode_content=False):
                if stop.is_set():
                    raise Failure("It was stopped", "run the same again, which resumes")
                advance(out.write(chunk))
                if out.tell() > most:
                    return  # more than listed: the checksum will tell


def part_of(target: PathLike) -> Path:
    """Where the beginning of an unfinished file lies."""
    target = Path(target)
    return target.with_name(f"{target.name}.part")


def digest(path: PathLike, like: str) -> str:
    """A file's checksum, of the same kind as another: `SHA-1:`, `MD5:` or `git SHA-1:` (Pro Git, 10.2) and its digits."""
    path = Path(path)
    kind = like.partition(":")[0]
    start = f"blob {bytes_in(path)}\0".encode() if kind == "git SHA-1" else b""
    algorithm = hashlib.md5 if kind == "MD5" else hashlib.sha1
    with path.open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, lambda: algorithm(start, usedforsecurity=False)).hexdigest()}"


def bytes_in(path: PathLike) -> int:
    """Bytes of a file; 0 where there is none."""
    path = Path(path)
    return path.stat().st_size if path.exists() else 0
