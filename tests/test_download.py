"""The download, against a Dataverse and a GitHub of our own on 127.0.0.1 that can be told to misbehave."""

import collections
import contextlib
import hashlib
import http.server
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from wmhlib.intake import download
from wmhlib.intake.challenge import read_challenge
from wmhlib.intake.download import fetch, fetch_for, listing
from wmhlib.intake.sources import COMMIT, REPOSITORY, SERVERS, SOURCES
from wmhlib.study import Study, open_study

CHALLENGE, LJUBLJANA = SOURCES["wmh-challenge"], SOURCES["ljubljana-ms"]

PHILIPS = "Amsterdam/Philips_VU .PETMR_01./160"
KEPT = [
    "training/Utrecht/0/pre/FLAIR.nii.gz",
    "training/Utrecht/0/wmh.nii.gz",
    f"test/{PHILIPS}/pre/FLAIR.nii.gz",
    f"test/{PHILIPS}/wmh.nii.gz",
    "additional_annotations/observer_o3/training/Utrecht/0/result.nii.gz",
    "additional_annotations/observer_o4/training/Utrecht/0/result.nii.gz",
]
OTHER = [
    "training/Utrecht/0/pre/T1.nii.gz",
    "training/Utrecht/0/pre/3DT1.nii.gz",
    "training/Utrecht/0/orig/FLAIR.nii.gz",
    "training/Utrecht/0/orig/T1.nii.gz",
    "training/Utrecht/0/orig/3DT1.nii.gz",
    "readme.pdf",
]
FLAIR = KEPT[0]


class Dataverse:
    """Files by path; `faults` holds, by path, what goes wrong at each coming request; `sent` what was sent so far."""

    def __init__(self, contents: dict[str, bytes]):
        self.contents = contents
        self.faults = collections.defaultdict(list)
        self.asked = []  # (path, Range header or "")
        self.sent = collections.Counter()  # path to bytes
        self.released = threading.Event()  # ends every stall
        self.files = [self.entry(number, path) for number, path in enumerate(contents)]

    def entry(self, number: int, path: str) -> dict:
        content = self.contents[path]
        folder, _, name = path.rpartition("/")
        checksum = {"type": "SHA-1", "value": hashlib.sha1(content).hexdigest()}
        data = {"id": number, "filename": name, "filesize": len(content), "checksum": checksum}
        return ({"directoryLabel": folder} if folder else {}) | {"dataFile": data}

    def find(self, address: str) -> tuple[str, bytes]:
        """The path, or `listing`, that an address stands for, and its content."""
        if address == "/api/datasets/:persistentId/":
            version = {"versionNumber": 1, "versionMinorNumber": 0, "files": self.files}
            return "listing", json.dumps({"status": "OK", "data": {"latestVersion": version}}).encode()
        path = list(self.contents)[int(address.removeprefix("/api/access/datafile/"))]
        return path, self.contents[path]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, content = self.find(urllib.parse.urlparse(request.path).path)
        asked = request.headers.get("Range", "")
        self.asked.append((path, asked))
        fault = self.faults[path].pop(0) if self.faults[path] else ""
        if fault == "silent":
            return self.released.wait(20)
        if fault.isdigit():
            request.send_response(int(fault))
            request.send_header("Retry-After", "0")
            request.send_header("Location", request.path)  # followed after a 303
            request.end_headers()
            return None
        if fault == "wrong":
            content = content[::-1]
        if fault == "longer":
            content += bytes(50_000_000)
        if fault == "truncated":
            content = content[: len(content) // 2]
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fault != "no ranges" else 0
        if asked and first >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.end_headers()
            return None
        shift = 1 if fault == "shifted" else 0
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first - shift}-{len(content) - 1}/{len(content)}")
        body = content[first - shift :]
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = len(body) // 2 if fault in ("cut", "stalled") else len(body)
        with contextlib.suppress(ConnectionError):
            for start in range(0, half, 50_000):
                self.sent[path] += request.wfile.write(body[start : min(start + 50_000, half)])
            if fault == "stalled":
                self.released.wait(20)
        return None


class GitHub(Dataverse):
    """The same for a repository at its pinned commit: the tree of its API, and its raw files."""

    def __init__(self, contents: dict[str, bytes]):
        super().__init__(contents)
        self.truncated = False

    def entry(self, _, path: str) -> dict:
        content = self.contents[path]
        sha = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"path": path, "type": "blob", "sha": sha, "size": len(content)}

    def find(self, address: str) -> tuple[str, bytes]:
        if address == f"/repos/{REPOSITORY}/git/trees/{COMMIT}":
            folder = {"path": "cross_sectional", "type": "tree", "sha": "0" * 40}
            return "listing", json.dumps({"tree": [folder, *self.files], "truncated": self.truncated}).encode()
        path = address.removeprefix(f"/{REPOSITORY}/{COMMIT}/")
        return path, self.contents[path]


@contextlib.contextmanager
def serving(dataverse: Dataverse):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            dataverse.answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        dataverse.released.set()
        server.shutdown()
        server.server_close()


def contents(paths) -> dict[str, bytes]:
    """Different bytes under every path, some 300 kB."""
    return {path: hashlib.shake_256(path.encode()).digest(300_000 + number) for number, path in enumerate(paths)}


@pytest.fixture
def dataverse() -> Dataverse:
    return Dataverse(contents(KEPT + OTHER))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(dataverse, quick):
    with serving(dataverse) as address:
        yield address


def listed(server: str, source=CHALLENGE):
    return listing(source, dict.fromkeys(SERVERS, server))


def get(server: str, root: Path, source=CHALLENGE, **options) -> list[str]:
    return fetch(source, source.wanted(listed(server, source)), root, **options)


def below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def assert_complete(root: Path, dataverse: Dataverse, paths=KEPT) -> None:
    """Every wanted file is here, whole, and nothing else but the manifest."""
    assert below(root) == {*paths, "manifest.json"}
    for path in paths:
        assert (root / path).read_bytes() == dataverse.contents[path]


def test_what_a_study_needs_arrives_under_its_listed_paths_and_the_manifest_says_so(dataverse, server, tmp_path):
    assert get(server, tmp_path) == []
    assert_complete(tmp_path, dataverse)
    assert (tmp_path / "test" / "Amsterdam" / "Philips_VU .PETMR_01." / "160" / "wmh.nii.gz").is_file()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["licence"] == "CC BY-NC 4.0" and "10.1109/TMI.2019.2905770" in manifest["citation"]
    assert (manifest["name"], manifest["origin"]) == ("wmh-challenge", "doi:10.34894/AECRSD")
    assert manifest["complete"] is True
    assert [row["path"] for row in manifest["files"]] == sorted(KEPT)
    row = next(row for row in manifest["files"] if row["path"] == FLAIR)
    content = dataverse.contents[FLAIR]
    assert (row["size"], row["checksum"]) == (len(content), f"SHA-1:{hashlib.sha1(content).hexdigest()}")
    assert (row["url"], row["version"]) == (f"{server}/api/access/datafile/0", "1.0")
    assert len(row["date"]) == len("2022-12-21")


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, []),
        ({"t1": True}, ["pre/T1"]),
        ({"orig": True}, ["orig/FLAIR"]),
        ({"t1": True, "orig": True}, ["pre/T1", "orig/FLAIR", "orig/T1"]),
    ],
)
def test_the_options_add_t1_and_orig_and_never_3dt1(server, options, more):
    chosen = {file.path for file in CHALLENGE.wanted(listed(server), **options)}
    assert chosen == {*KEPT, *(f"training/Utrecht/0/{name}.nii.gz" for name in more)}


def test_a_dataset_without_scans_is_refused(dataverse, server):
    dataverse.files = dataverse.files[-1:]
    with pytest.raises(ValueError, match=r"\b1 files.*FLAIR\.nii\.gz"):
        CHALLENGE.wanted(listed(server))


def test_licence_and_citation_are_shown_before_the_first_file_is_asked_for(dataverse, server, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("builtins.print", lambda text, **_: shown.append((text, len(dataverse.asked))))
    get(server, tmp_path)
    (notice, asked_before), *_ = shown
    assert asked_before == 1  # the listing
    assert all(part in notice for part in ("CC BY-NC 4.0", "10.1109/TMI.2019.2905770", "10.34894/AECRSD"))


def test_progress_counts_bytes_to_the_exact_total_whatever_happens(dataverse, server, tmp_path, monkeypatch):
    bars = []
    plain = download.tqdm
    monkeypatch.setattr(download, "tqdm", lambda **options: bars.append(plain(**options)) or bars[-1])
    for path, fault in zip(KEPT, ["cut", "wrong", "truncated", "stalled", "500", ""], strict=True):
        dataverse.faults[path] = [fault]
    dataverse.faults[KEPT[0]].append("no ranges")
    assert get(server, tmp_path) == []
    assert bars[0].n == bars[0].total == sum(len(dataverse.contents[path]) for path in KEPT)
    assert bars[0].unit == "B"


def test_a_finished_file_is_never_fetched_again_with_or_without_the_manifest(dataverse, server, tmp_path):
    get(server, tmp_path)
    before = (tmp_path / "manifest.json").read_text()
    for manifest in (before, None, "{broken", '{"files": [{"path": 1}]}'):
        if manifest is None:
            (tmp_path / "manifest.json").unlink()
        else:
            (tmp_path / "manifest.json").write_text(manifest)
        dataverse.asked.clear()
        assert get(server, tmp_path) == []
        assert [path for path, _ in dataverse.asked] == ["listing"]
        assert (tmp_path / "manifest.json").read_text() == before
    assert_complete(tmp_path, dataverse)


def test_a_file_of_the_right_size_and_wrong_content_is_fetched_when_the_manifest_does_not_name_it(
    dataverse, server, tmp_path
):
    (tmp_path / FLAIR).parent.mkdir(parents=True)
    (tmp_path / FLAIR).write_bytes(bytes(len(dataverse.contents[FLAIR])))
    assert get(server, tmp_path) == []
    assert_complete(tmp_path, dataverse)


def test_a_file_that_shrank_or_that_the_dataset_replaced_is_fetched_again_and_only_that(dataverse, server, tmp_path):
    get(server, tmp_path)
    (tmp_path / KEPT[1]).write_bytes(b"half")
    dataverse.contents[FLAIR] = dataverse.contents[FLAIR][::-1]
    dataverse.files[0] = dataverse.entry(0, FLAIR)
    dataverse.faults[FLAIR] = ["404"]
    assert len(get(server, tmp_path)) == 1
    assert FLAIR not in (tmp_path / "manifest.json").read_text()  # what lies there is not what is listed
    (tmp_path / KEPT[1]).write_bytes(b"half")
    dataverse.asked.clear()
    assert get(server, tmp_path) == []
    assert sorted(path for path, _ in dataverse.asked) == sorted(["listing", FLAIR, KEPT[1]])
    assert_complete(tmp_path, dataverse)
    rows = {row["path"]: row for row in json.loads((tmp_path / "manifest.json").read_text())["files"]}
    assert rows[FLAIR]["checksum"] == f"SHA-1:{hashlib.sha1(dataverse.contents[FLAIR]).hexdigest()}"


def test_the_manifest_keeps_files_of_an_earlier_run_with_more_options(server, tmp_path):
    fetch(CHALLENGE, CHALLENGE.wanted(listed(server), t1=True), tmp_path)
    get(server, tmp_path)
    assert "training/Utrecht/0/pre/T1.nii.gz" in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize(
    "faults",
    [
        ["429"],
        ["500"],
        ["503", "502", "504"],
        ["silent"],
        ["cut"],
        ["cut", "cut", "500", "cut"],
        ["stalled"],
        ["truncated"],
        ["cut", "no ranges"],
        ["cut", "shifted", "wrong"],
        ["wrong"],
        ["longer"],
        ["cut", "truncated", "wrong"],
    ],
)
def test_what_goes_wrong_once_is_overcome(dataverse, server, tmp_path, faults):
    dataverse.faults[FLAIR] = list(faults)
    assert get(server, tmp_path) == []
    assert dataverse.faults[FLAIR] == []
    assert dataverse.sent[FLAIR] < 25_000_000  # what is longer than listed is not read to its end
    assert_complete(tmp_path, dataverse)


def test_a_cut_connection_goes_on_where_it_broke_also_when_sent_elsewhere(dataverse, server, tmp_path):
    dataverse.faults[FLAIR] = ["cut", "303"]
    get(server, tmp_path)
    half = len(dataverse.contents[FLAIR]) // 2
    assert [asked for path, asked in dataverse.asked if path == FLAIR] == ["", f"bytes={half}-", f"bytes={half}-"]
    assert dataverse.sent[FLAIR] == len(dataverse.contents[FLAIR])


@pytest.mark.parametrize("fault", ["shifted", "truncated"])
def test_a_part_that_cannot_be_gone_on_with_is_dropped_at_once(dataverse, server, tmp_path, fault):
    dataverse.faults[FLAIR] = ["cut", fault]
    get(server, tmp_path)
    half = len(dataverse.contents[FLAIR]) // 2
    assert [asked for path, asked in dataverse.asked if path == FLAIR] == ["", f"bytes={half}-", ""]


def test_waits_grow_and_follow_the_server(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 2)
    retry = download._session(1).get_adapter("https://a").max_retries
    waits = []
    while len(waits) < 4:
        retry = retry.increment("GET", "/", error=download.urllib3.exceptions.ReadTimeoutError(None, "/", "silent"))
        waits.append(retry.get_backoff_time())
    assert waits[1:] == [4, 8, 16]
    assert retry.respect_retry_after_header and retry.retry_after_max == 60


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("404", "404"),
        ("403", "403"),
        ("429", "429"),
        ("500", "500"),
        ("silent", "timed out"),
        ("truncated", "bytes"),
        ("wrong", "SHA-1:{reversed}"),
        ("longer", "SHA-1:"),
    ],
)
def test_what_stays_wrong_is_one_sentence_and_all_other_files_arrive(
    dataverse, server, tmp_path, monkeypatch, fault, found
):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    dataverse.faults[FLAIR] = [fault] * 20
    (problem,) = get(server, tmp_path)
    content = dataverse.contents[FLAIR]
    expected = f"SHA-1:{hashlib.sha1(content).hexdigest()}" if "SHA-1" in found else f"{len(content)} bytes"
    assert problem.startswith(f"{FLAIR}: ") and expected in problem and "\n" not in problem
    found = found.format(reversed=hashlib.sha1(content[::-1]).hexdigest())
    assert found in problem, problem
    assert not (tmp_path / FLAIR).exists()
    if fault in ("wrong", "longer"):
        assert not (tmp_path / f"{FLAIR}.part").exists()
    for path in KEPT[1:]:
        assert (tmp_path / path).read_bytes() == dataverse.contents[path]
    assert FLAIR not in (tmp_path / "manifest.json").read_text()
    dataverse.faults.clear()
    assert get(server, tmp_path) == []
    assert_complete(tmp_path, dataverse)


def test_an_error_of_the_server_leaves_what_was_received(dataverse, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    dataverse.faults[FLAIR] = ["cut"] + ["500"] * 20
    half = len(dataverse.contents[FLAIR]) // 2
    assert len(get(server, tmp_path)) == 1
    assert (tmp_path / f"{FLAIR}.part").stat().st_size == half


def test_a_server_that_goes_away_is_not_asked_for_every_file(dataverse, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "GIVE_UP_AFTER", 2)
    for path in KEPT[1:]:
        dataverse.faults[path] = ["404"]
    *failed, last = get(server, tmp_path, workers=1)
    assert last.startswith(f"{len(KEPT) - 1 - len(failed)} more")
    assert 2 <= len(failed) < len(KEPT) - 1
    assert (tmp_path / FLAIR).is_file() and FLAIR in (tmp_path / "manifest.json").read_text()
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    "folder",
    ["../../x", "/etc", "training/../../x", "training//x", "./training", "C:/x", "..\\x", "\\\\host\\x", "a\0b", "/"],
)
def test_a_listing_that_leads_outside_the_folder_is_refused(dataverse, server, tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataverse.files[-1]["directoryLabel"] = folder
    with pytest.raises(ValueError, match=re.escape(repr(f"{folder}/readme.pdf"))):
        get(server, tmp_path / "data")
    assert below(tmp_path) == set() and [path for path, _ in dataverse.asked] == ["listing"]


@pytest.mark.parametrize("name", ["", "..", "/etc/passwd", "../x", "C:x"])
def test_a_file_name_that_leads_outside_the_folder_is_refused(dataverse, server, name):
    dataverse.files[-1]["dataFile"]["filename"] = name
    with pytest.raises(ValueError, match=re.escape(f"{name}'")):
        listed(server)


@pytest.mark.parametrize(
    "checksum", [None, {}, {"type": "MD5", "value": "0" * 40}, {"type": "SHA-1"}, {"type": "SHA-1", "value": "../x"}]
)
def test_a_file_that_cannot_be_verified_is_refused(dataverse, server, checksum):
    dataverse.files[0]["dataFile"]["checksum"] = checksum
    with pytest.raises(ValueError, match=f"{FLAIR}.*checksum.*SHA-1"):
        listed(server)
    del dataverse.files[0]["dataFile"]["checksum"]
    with pytest.raises(ValueError, match=f"{FLAIR}.*checksum.*SHA-1"):
        listed(server)


def test_a_path_listed_twice_is_refused(dataverse, server):
    dataverse.files.append(dataverse.files[0])
    with pytest.raises(ValueError, match=f"{FLAIR} twice"):
        listed(server)


def test_what_is_no_dataverse_is_refused(dataverse, server, monkeypatch):
    dataverse.files = None
    with pytest.raises(ValueError, match=f"{server}.*wmh-challenge"):
        listed(server)
    with pytest.raises(ValueError, match="no address.*wmh-challenge"):
        listed("no address")
    dataverse.faults["listing"] = ["404"]
    with pytest.raises(OSError, match=f"{server}.*404"):
        listed(server)
    with pytest.raises(OSError, match="127.0.0.1:9.*refused"):
        listed("http://127.0.0.1:9")


def test_a_full_disk_is_noticed_before_anything_is_fetched(dataverse, server, tmp_path, monkeypatch):
    needed = sum(len(dataverse.contents[path]) for path in KEPT)
    part = tmp_path / "data" / f"{FLAIR}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(dataverse.contents[FLAIR][:100_000])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 100_001))
    with pytest.raises(OSError, match=f"{re.escape(str(tmp_path))}.*1.7 MB"):
        get(server, tmp_path / "data")
    assert [path for path, _ in dataverse.asked] == ["listing"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 100_000))
    assert get(server, tmp_path / "data") == []


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_no_byte_is_sent_twice(server, dataverse, tmp_path, with_signal):
    """Ended by force, or by Ctrl-C, while one file is half here and the others are whole."""
    tmp_path = tmp_path / "wmh-challenge"
    dataverse.faults[FLAIR] = ["stalled"]
    script = "import sys; from wmhlib.intake import download; download.CHUNK = 10_000; download.main(sys.argv[1:])"
    arguments = ["wmh-challenge", "--root", tmp_path.parent, "--dataverse", server, "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=subprocess.PIPE, text=True)
    part, half = tmp_path / f"{FLAIR}.part", len(dataverse.contents[FLAIR]) // 2
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == half and all((tmp_path / path).exists() for path in KEPT[1:])):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(with_signal)
    if with_signal == signal.SIGINT:  # which lets the file under way end
        time.sleep(0.5)  # until it is noticed: a download that ends first is not interrupted
        dataverse.released.set()
    said = process.communicate(timeout=20)[1]
    assert process.returncode == (-signal.SIGKILL if with_signal == signal.SIGKILL else 1)
    assert "Traceback" not in said
    if with_signal == signal.SIGINT:
        assert said.splitlines()[-1].startswith("Interrupted")
        assert FLAIR in (tmp_path / "manifest.json").read_text()
    dataverse.released.set()
    assert get(server, tmp_path) == []
    assert_complete(tmp_path, dataverse)
    assert (FLAIR, f"bytes={half}-") in dataverse.asked
    del dataverse.sent["listing"]
    assert dataverse.sent == {path: len(dataverse.contents[path]) for path in KEPT}


def test_the_command_says_what_is_missing_and_ends_with_1(dataverse, server, tmp_path, capsys):
    command = ["wmh-challenge", "--root", str(tmp_path), "--dataverse", f"{server}/"]
    dataverse.faults[FLAIR] = ["404"]
    with pytest.raises(SystemExit) as ended:
        download.main(command)
    assert FLAIR in ended.value.code and "6 files of wmh-challenge" in ended.value.code
    download.main([*command, "--t1"])
    assert "7 files, 2.1 MB" in capsys.readouterr().out
    assert (tmp_path / "wmh-challenge" / FLAIR).is_file()
    dataverse.files[0]["directoryLabel"] = "../../x"
    with pytest.raises(SystemExit) as ended:
        download.main(command)
    assert "wmh-challenge" in ended.value.code and "../../x" in ended.value.code
    with pytest.raises(SystemExit) as ended:
        download.main(["wmh"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "'wmh'" in said and all(name in said for name in SOURCES)


# The second data set: a git repository.


def nifti(patient: int, image: str) -> bytes:
    """A tiny scan, another one for every patient, or its mask."""
    voxels = np.arange(7 * 8 * 9).reshape(7, 8, 9) + patient if image == "FLAIR" else np.ones((7, 8, 9))
    return nibabel.Nifti1Image(voxels.astype(np.uint16), np.eye(4)).to_bytes()


def in_repository(patient: int, image: str) -> str:
    """A path at the pinned commit, every third with its patient's name before the file's."""
    prefix = f"patient{patient:02}_" if patient % 3 == 0 else ""
    return f"cross_sectional/coregistered/patient{patient:02}/{prefix}{image}.nii.gz"


SCANS = {in_repository(n, image): nifti(n, image) for n in range(1, 31) for image in ("FLAIR", "consensus_gt")}
MASK_03, MASK_03_HERE = in_repository(3, "consensus_gt"), "test/Ljubljana/patient03/wmh.nii.gz"


@pytest.fixture
def github() -> GitHub:
    folder = "cross_sectional/coregistered"
    other = [
        f"{folder}/patient01/T1W.nii.gz",
        f"{folder}/patient01/brainmask.nii.gz",
        "cross_sectional/MNI/patient01/FLAIR.nii.gz",
    ]
    return GitHub(SCANS | dict.fromkeys([*other, f"{folder}_resampled/patient01/FLAIR.nii.gz", "README.md"], b"x"))


@pytest.fixture
def hub(github, quick):
    with serving(github) as address:
        yield address


def test_a_repository_arrives_as_external_subjects_of_the_challenges_layout(github, hub, tmp_path, capsys):
    assert get(hub, tmp_path, LJUBLJANA) == []
    shown = capsys.readouterr().out
    assert "licensed CC BY;" in shown and "10.1007/s12021-017-9348-7" in shown and f"github.com/{REPOSITORY}" in shown
    subjects = read_challenge(tmp_path)
    assert list(subjects.subject) == [f"patient{number:02}" for number in range(1, 31)]
    assert set(subjects.split) == {"external"} and set(subjects.centre) == {"Ljubljana"}
    for number, row in enumerate(subjects.itertuples(), 1):
        assert Path(row.flair).read_bytes() == SCANS[in_repository(number, "FLAIR")]
        assert Path(row.reference).read_bytes() == SCANS[in_repository(number, "consensus_gt")]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["name"], manifest["licence"], manifest["complete"]) == ("ljubljana-ms", "CC BY", True)
    assert below(tmp_path) == {"manifest.json", *(row["path"] for row in manifest["files"])}
    row = next(row for row in manifest["files"] if row["path"] == MASK_03_HERE)
    assert (row["version"], row["url"]) == (COMMIT, f"{hub}/{REPOSITORY}/{COMMIT}/{MASK_03}")
    github.asked.clear()
    (tmp_path / "manifest.json").unlink()
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.asked == [("listing", "")]


@pytest.mark.parametrize("content", [b"", b"version 1\n", SCANS[MASK_03]])
def test_the_checksum_of_a_blob_is_gits_own(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    gits = subprocess.run(
        ["git", "hash-object", "--no-filters", tmp_path / "file"], capture_output=True, text=True, check=True
    )
    blob = download.File("file", "", len(content), "git SHA-1:", "")
    assert download._checksum(tmp_path / "file", blob) == f"git SHA-1:{gits.stdout.strip()}"


@pytest.mark.parametrize(
    "faults", [["500"], ["cut"], ["stalled", "no ranges"], ["wrong"], ["cut", "truncated", "longer"]]
)
def test_what_goes_wrong_once_with_a_repository_is_overcome(github, hub, tmp_path, faults):
    github.faults[MASK_03] = list(faults)
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.faults[MASK_03] == []
    assert (tmp_path / MASK_03_HERE).read_bytes() == SCANS[MASK_03]
    assert len(below(tmp_path)) == 61


def test_a_cut_file_of_a_repository_goes_on_in_the_next_run(github, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    github.faults[MASK_03] = ["cut"]
    (problem,) = get(hub, tmp_path, LJUBLJANA)
    assert problem.startswith(f"{MASK_03_HERE}: ") and not (tmp_path / MASK_03_HERE).exists()
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False
    github.asked.clear()
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.asked == [("listing", ""), (MASK_03, f"bytes={len(SCANS[MASK_03]) // 2}-")]
    assert github.sent[MASK_03] == len(SCANS[MASK_03])
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is True


def test_what_is_not_the_commits_content_twice_is_removed_and_said(github, hub, tmp_path):
    github.faults[MASK_03] = ["wrong"] * 2
    (problem,) = get(hub, tmp_path, LJUBLJANA)
    assert problem.startswith(f"{MASK_03_HERE}: git SHA-1:") and problem.count("git SHA-1:") == 2
    assert not list((tmp_path / MASK_03_HERE).parent.glob("wmh*"))
    assert github.faults[MASK_03] == []


@pytest.mark.parametrize("truncated", [True, None, "no"])
def test_a_listing_that_is_not_whole_is_refused(github, hub, truncated):
    github.truncated = truncated
    with pytest.raises(ValueError, match="ljubljana-ms.*truncated"):
        listed(hub, LJUBLJANA)


@pytest.mark.parametrize(
    "files", [None, [None], [{"type": "blob"}], [{"type": "blob", "path": "x", "sha": 1, "size": "x"}]]
)
def test_what_is_no_github_is_refused(github, hub, files):
    github.find = lambda _: ("listing", json.dumps({"tree": files, "truncated": False}).encode())
    with pytest.raises(ValueError, match=f"{hub}.*ljubljana-ms"):
        listed(hub, LJUBLJANA)


@pytest.mark.parametrize("image", ["FLAIR", "consensus_gt"])
@pytest.mark.parametrize("patient", [1, 3, 30])
def test_a_patient_without_scan_or_mask_is_refused(github, hub, tmp_path, patient, image):
    github.files = [entry for entry in github.files if entry["path"] != in_repository(patient, image)]
    with pytest.raises(ValueError, match=rf"\b0 files .*patient{patient:02}_\]{image}.nii.gz"):
        get(hub, tmp_path, LJUBLJANA)
    assert below(tmp_path) == set()


def test_a_patient_whose_mask_stands_under_both_names_is_refused(github, hub):
    github.files.append(github.files[0] | {"path": "cross_sectional/coregistered/patient01/patient01_FLAIR.nii.gz"})
    with pytest.raises(ValueError, match=r"\b2 files .*patient01_"):
        LJUBLJANA.wanted(listed(hub, LJUBLJANA))


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "cross_sectional/../../x", "a//x", "./x", "C:/x", "..\\x", "a\0b", "", 7, None, ["x"]],
)
def test_a_repository_that_leads_outside_the_folder_is_refused(github, hub, tmp_path, path):
    github.files.append(github.files[0] | {"path": path})
    if isinstance(path, str):
        with pytest.raises(ValueError, match=re.escape(repr(path))):
            get(hub, tmp_path, LJUBLJANA)
        assert below(tmp_path) == set()
    else:  # not a path at all: never one of the files wanted
        assert len(LJUBLJANA.wanted(listed(hub, LJUBLJANA))) == 60


def test_a_repository_that_lists_a_path_twice_or_without_its_sha_is_refused(github, hub):
    github.files.append(github.files[0])
    with pytest.raises(ValueError, match=f"{github.files[0]['path']} twice"):
        listed(hub, LJUBLJANA)
    github.files[-1] = github.files[0] | {"path": "x", "sha": "../x"}
    with pytest.raises(ValueError, match="x.*git SHA-1:../x"):
        listed(hub, LJUBLJANA)


def test_the_command_fetches_both_and_goes_on_to_the_second_when_the_first_fails(
    dataverse, server, github, hub, tmp_path, capsys
):
    command = ["--root", str(tmp_path), "--dataverse", server, "--github-api", hub, "--github-raw", hub]
    dataverse.faults["listing"] = ["404"]
    with pytest.raises(SystemExit) as ended:
        download.main(command)
    assert "wmh-challenge" in ended.value.code and "404" in ended.value.code and "\n" not in ended.value.code
    assert len(below(tmp_path / "ljubljana-ms")) == 61
    download.main(command)
    shown = capsys.readouterr().out
    assert "6 files, 1.8 MB" in shown and "60 files, 0.1 MB" in shown


# What a study asks for.


@pytest.fixture
def study_asking_for(settings, write_config):
    """A function that gives a study over the data sets of these names."""

    def asking(*names: str) -> Study:
        settings["data"] = {"root": "data/wmh-challenge"} | ({"download": list(names)} if names else {})
        return open_study(write_config(settings))

    return asking


@pytest.fixture
def at(dataverse, server, github, hub, tmp_path, monkeypatch):
    """The project's folder and its servers, as `fetch_for` sees them."""
    monkeypatch.setattr(download, "ROOT", tmp_path)
    for name in SERVERS:
        monkeypatch.setitem(SERVERS, name, server if name == "dataverse" else hub)
    return tmp_path / "data"


def test_a_study_gets_what_it_asks_for_and_then_no_server_is_asked(study_asking_for, at, dataverse, github):
    fetch_for(study_asking_for())
    assert not at.exists() and dataverse.asked == github.asked == []
    fetch_for(study_asking_for("ljubljana-ms"))
    assert dataverse.asked == [] and len(github.asked) == 61
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert_complete(at / "wmh-challenge", dataverse)
    assert len(dataverse.asked) == 1 + len(KEPT) and len(github.asked) == 61
    dataverse.asked.clear(), github.asked.clear()
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert dataverse.asked == github.asked == []
    (at / "ljubljana-ms" / MASK_03_HERE).unlink()  # whatever the manifest says
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert dataverse.asked == [] and github.asked == [("listing", ""), (MASK_03, "")]


def test_a_study_whose_files_failed_says_so_in_a_sentence_and_goes_on_later(study_asking_for, at, github):
    github.faults[MASK_03] = ["404"]
    with pytest.raises(OSError, match="404") as raised:
        fetch_for(study_asking_for("ljubljana-ms"))
    said = str(raised.value)
    assert said.startswith(f"{at / 'ljubljana-ms'} ") and MASK_03_HERE in said and "\n" not in said
    github.asked.clear()
    fetch_for(study_asking_for("ljubljana-ms"))
    assert github.asked == [("listing", ""), (MASK_03, "")]


def test_a_configuration_may_ask_for_the_data_sets_there_are_and_no_other(settings, tmp_path):
    config = tmp_path / "asking.yaml"
    for names in ([], *([name] for name in SOURCES), list(SOURCES)):
        settings["data"]["download"] = names
        config.write_text(yaml.safe_dump(settings))
        assert open_study(config).config.data.download == names
    assert open_study(config, data=tmp_path).config.data.download == []  # DATA= replaces all of it
    settings["data"]["download"] = ["wmh"]
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=r"asking.yaml.*data\.download") as raised:
        open_study(config)
    assert all(name in str(raised.value) for name in SOURCES)
