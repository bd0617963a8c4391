"""Files written whole or not at all, folders held by one process, and why a file could not be written, in one sentence."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; paths inside configurations are relative to it."""

PathLike = str | os.PathLike[str]
"""A path as text or as a `Path`: every public function that takes one takes both."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or use another disk",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "move away what is in its place"),
}
"""What helps where a file cannot be written."""


def find(name: PathLike, what: str) -> Path:
    """A path as the caller sees it, else as the project sees it; FileNotFoundError where neither is there."""
    for path in (Path(name).expanduser(), ROOT / name):
        if path.exists():
            return path.resolve()
    looked = " and ".join(dict.fromkeys(map(str, (Path.cwd(), ROOT))))
    raise FileNotFoundError(f"No {what} at {name} (looked in {looked}): check the path.")


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Say in one sentence why a file or folder cannot be written; any other error passes unchanged.

    Raises OSError: of the same class as the one that was raised; the message names `path`, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        target = Path(path).absolute()
        place = Path(str(error.filename or path)).absolute()  # writes as such name no file
        if error.errno not in REMEDIES or not (target.parent in place.parents or place in target.parents):
            raise
        raise type(error)(f"{path} cannot be written ({error.strerror}): {REMEDIES[error.errno]}.") from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary name next to `path` that takes its place only when the block ends without an error.

    Raises OSError: the disk is full, or the folder is not writable; as `writing`.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".h5") else path.suffix
        handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: PathLike) -> Iterator[None]:
    """Hold a folder while the block lasts, or until the process ends. (On a cluster the study's own lock does not reach the
    jobs, and a job that Slurm believes lost may run twice.)

    Raises BlockingIOError: another process holds it.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder} is being written by another process: wait until that one ends.") from None
        except OSError:
            pass  # a disk without locks
        yield


def sha256(path: PathLike) -> str:
    """The checksum of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: PathLike) -> dict:
    """The object that a JSON file holds; an empty one where it is not there, cannot be read or holds anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: PathLike, content: dict) -> None:
    """Write a dict as indented JSON, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(path: PathLike, table: pd.DataFrame) -> None:
    """Write a table as CSV, all or nothing."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: PathLike) -> pd.DataFrame:
    """A saved table without losing names: subjects and centres are text, and NA may be one of them."""
    return pd.read_csv(path, dtype={"subject": str, "centre": str}, na_values=[""], keep_default_na=False)
