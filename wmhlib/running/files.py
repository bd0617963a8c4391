"""Write files completely or not at all, lock folders, and explain in one sentence why a file cannot be written."""

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
"""The project's folder; paths in configurations are relative to it."""

PathLike = str | os.PathLike[str]
"""A path as text or `Path`; all public functions accept both."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or use another disk",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "move the file or folder in its place"),
}
"""What to do if a file cannot be written, by error number."""


def find(name: PathLike, what: str) -> Path:
    """A path relative to the working directory or, if it does not exist there, to the project.

    Raises FileNotFoundError if neither exists; `what` names the kind of file in the message.
    """
    for path in (Path(name).expanduser(), ROOT / name):
        if path.exists():
            return path.resolve()
    looked = " and ".join(dict.fromkeys(map(str, (Path.cwd(), ROOT))))
    raise FileNotFoundError(f"No {what} found at {name} (searched in {looked}): check the path.")


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Explain in one sentence why a file or folder cannot be written; other errors are not changed.

    Raises
    ------
    OSError
        Of the same class as the original error; the message names `path`, the reason and what to do.
    """
    try:
        yield
    except OSError as error:
        target = Path(path).absolute()
        place = Path(str(error.filename or path)).absolute()  # errors of writing itself name no file
        if error.errno not in REMEDIES or not (target.parent in place.parents or place in target.parents):
            raise
        raise type(error)(f"{path} cannot be written ({error.strerror}): {REMEDIES[error.errno]}.") from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path next to `path`, which is moved to `path` if the block ends without an error.

    Raises OSError if the disk is full or the folder is not writable, as in `writing`.
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
    """Lock a folder until the block or the process ends.

    On a cluster, jobs do not inherit the study's own lock, and a job that Slurm considers lost may run twice.

    Raises BlockingIOError if another process has locked it, and OSError as `writing`.
    """
    folder = Path(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        opened = (folder.parent / f".{folder.name}.lock").open("w")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder} is being written by another process: wait until it ends.") from None
        except OSError:
            pass  # a file system without locks
        yield


def sha256(path: PathLike) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: PathLike) -> dict:
    """The object in a JSON file; empty if the file does not exist, cannot be read or is not an object."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: PathLike, content: dict) -> None:
    """Write a dict as indented JSON; an interruption leaves no partial file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(path: PathLike, table: pd.DataFrame) -> None:
    """Write a table as CSV; an interruption leaves no partial file."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: PathLike) -> pd.DataFrame:
    """Read a saved table; subjects and centres are text, even if they look like numbers or NA."""
    return pd.read_csv(path, dtype={"subject": str, "centre": str}, na_values=[""], keep_default_na=False)
