"""Downloads from simulated servers (Dataverse, GitHub, proxies) on 127.0.0.1 with simulated faults."""

import collections
import contextlib
import csv
import hashlib
import http.server
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
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
from conftest import naming

from wmhlib.intake import download, sources, web
from wmhlib.intake.challenge import read_challenge
from wmhlib.intake.download import fetch, fetch_for, listing
from wmhlib.intake.sources import SERVERS, SOURCES
from wmhlib.running.files import ROOT, alone
from wmhlib.study import Study, open_study

CHALLENGE, LJUBLJANA, HEADS = (SOURCES[name] for name in ("wmh-challenge", "ljubljana-ms", "head-label-maps"))
SHARED = ROOT.parent / "shared"

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
    "training/Utrecht/0/orig/3DT1_mask.nii.gz",
    "training/Utrecht/0/orig/reg_3DT1_to_FLAIR.txt",
    "readme.pdf",
]
FLAIR = KEPT[0]


PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Are you a robot?</body></html>"
GUESTBOOK = "You may not download this file without the required Guestbook response."


class Dataverse:
    """Files by path; `faults` holds, by path, what goes wrong at each coming request; `sent` what was sent so far."""

    def __init__(self, contents: dict[str, bytes]):
        self.contents = contents
        self.faults = collections.defaultdict(list)
        self.asked = []  # (path, Range header or ""), of every GET
        self.agents = set()
        self.sent = collections.Counter()  # path to bytes
        self.released = threading.Event()  # ends every stall
        self.files = [self.entry(number, path) for number, path in enumerate(contents)]

    def entry(self, number: int, path: str) -> dict:
        content = self.contents[path]
        folder, _, name = path.rpartition("/")
        checksum = {"type": "SHA-1", "value": hashlib.sha1(content).hexdigest()}
        data = {"id": number, "filename": name, "filesize": len(content), "checksum": checksum}
        return ({"directoryLabel": folder} if folder else {}) | {"label": name, "restricted": False, "dataFile": data}

    def find(self, address: str) -> tuple[str, bytes]:
        """The path of an address, or `listing`, and its content."""
        if address == "/api/datasets/:persistentId/":
            version = {"versionNumber": 1, "versionMinorNumber": 0, "files": self.files}
            return "listing", json.dumps({"status": "OK", "data": {"latestVersion": version}}).encode()
        path = list(self.contents)[int(address.removeprefix("/api/access/datafile/"))]
        return path, self.contents[path]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.agents.add(request.headers["User-Agent"])
        if request.path == "/robots.txt":
            return respond(request, 404)
        path, content = self.find(urllib.parse.unquote(urllib.parse.urlparse(request.path).path))
        if request.command == "HEAD":
            return respond(request, 200, content)
        asked = request.headers.get("Range", "")
        self.asked.append((path, asked))
        fault = self.faults[path].pop(0) if self.faults[path] else ""
        if fault == "silent":
            return self.released.wait(20)
        if fault == "page":
            return respond(request, 200, PAGE, "text/html; charset=utf-8")
        if fault.split()[0:1] and fault.split()[0].isdigit():  # a status, and how long to wait before the next request
            status, wait = (fault + " 0").split()[:2]
            words = json.dumps({"status": "ERROR", "message": GUESTBOOK}).encode()
            return respond(request, int(status), words, Retry_After=wait, Location=request.path)
        if fault == "wrong":
            content = content[::-1]
        if fault == "longer":
            content += bytes(50_000_000)
        if fault == "truncated":
            content = content[: len(content) // 2]
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fault != "no ranges" else 0
        if asked and first >= len(content):
            return respond(request, 416, Content_Range=f"bytes */{len(content)}")
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
    """The same for the raw files of repositories, each at its pinned commit."""

    def __init__(self, contents: dict[str, bytes], source: sources.Source):
        super().__init__(contents)
        self.start = source.address

    def find(self, address: str) -> tuple[str, bytes]:
        path = address.removeprefix(f"{self.start}/")
        return path, self.contents[path]


def respond(request, status: int, content: bytes = b"", kind: str = "application/octet-stream", **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


@contextlib.contextmanager
def serving(dataverse, certificate: Path | None = None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            dataverse.answer(self)

        do_HEAD = do_CONNECT = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    finally:
        dataverse.released.set()
        server.shutdown()
        server.server_close()


def contents(paths) -> dict[str, bytes]:
    """Different bytes under every path; of the first, a half is two whole chunks."""
    return {path: hashlib.shake_256(path.encode()).digest(4 * web.CHUNK + number) for number, path in enumerate(paths)}


@pytest.fixture
def dataverse() -> Dataverse:
    return Dataverse(contents(KEPT + OTHER))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(web, "BACKOFF_S", 0.001)
    monkeypatch.setattr(web, "SILENCE_S", 1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(dataverse, quick):
    with serving(dataverse) as address:
        yield address


def listed(server: str, source=CHALLENGE, **options):
    return listing(source, dict.fromkeys(SERVERS, server), **options)


def get(server: str, root: Path, source=CHALLENGE, **options) -> list[str]:
    return fetch(source, listed(server, source), root, **options)


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
    chosen = {file.path for file in listed(server, **options)}
    assert chosen == {*KEPT, *(f"training/Utrecht/0/{name}.nii.gz" for name in more)}


def test_a_dataset_without_scans_is_refused(dataverse, server):
    dataverse.files = dataverse.files[-1:]
    with pytest.raises(ValueError, match=naming(server, "1 files", "FLAIR.nii.gz")):
        listed(server)


def test_terms_and_sizes_are_shown_before_the_first_file_is_asked_for(dataverse, server, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("builtins.print", lambda text, **_: shown.append((text, len(dataverse.asked))))
    get(server, tmp_path)
    assert {asked for _, asked in shown[1:]} == {1}, "the listing"
    text = " ".join(text for text, _ in shown)
    assert all(part in text for part in ("CC BY-NC 4.0", "10.1109/TMI.2019.2905770", "10.34894/AECRSD"))
    assert "6 files" in text and "1.6 MB" in text and str(tmp_path) in text


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
    fetch(CHALLENGE, listed(server, t1=True), tmp_path)
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


def test_waits_grow_and_follow_the_server(dataverse, server, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "BACKOFF_S", 1)
    dataverse.faults[FLAIR] = ["503", "429 9", "429 later", "500"]
    stop = threading.Event()
    waits = []
    monkeypatch.setattr(stop, "wait", waits.append)
    (file,) = (file for file in listed(server) if file.path == FLAIR)
    web.receive(web.open_session(), file.url, tmp_path / "file", file.checksum, file.size, stop=stop)
    assert waits == [1, 9, 4, 8]


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("400", GUESTBOOK),
        ("401", "401"),
        ("403", "403"),
        ("404", "404"),
        ("407", "HTTPS_PROXY"),
        ("429", "429"),
        ("429 3600", "60 min"),
        ("500", "500"),
        ("page", "Just a moment..."),
        ("silent", "127.0.0.1"),
        ("truncated", "bytes"),
        ("wrong", "SHA-1:{reversed}"),
        ("longer", "SHA-1:"),
    ],
)
def test_what_stays_wrong_is_one_sentence_and_all_other_files_arrive(
    dataverse, server, tmp_path, monkeypatch, fault, found
):
    monkeypatch.setattr(web, "ATTEMPTS", 2)
    dataverse.faults[FLAIR] = [fault] * 20
    (problem,) = get(server, tmp_path)
    content = dataverse.contents[FLAIR]
    expected = f"SHA-1:{hashlib.sha1(content).hexdigest()}" if "SHA-1" in found else ""
    assert problem.startswith(f"{FLAIR}: ") and expected in problem
    found = found.format(reversed=hashlib.sha1(content[::-1]).hexdigest())
    assert found in problem, problem
    assert not re.search(r"\n|object at|Error\(|\(\)|None", problem), "a sentence, not Python's objects"
    lasting = fault in ("400", "401", "403", "404", "407", "429 3600", "page")
    assert [path for path, _ in dataverse.asked].count(FLAIR) == (1 if lasting else 2)
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
    monkeypatch.setattr(web, "ATTEMPTS", 2)
    dataverse.faults[FLAIR] = ["cut"] + ["500"] * 20
    half = len(dataverse.contents[FLAIR]) // 2
    assert len(get(server, tmp_path)) == 1
    assert (tmp_path / f"{FLAIR}.part").stat().st_size == half


def test_a_server_that_goes_away_is_not_asked_for_every_file(dataverse, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "GIVE_UP_AFTER", 2)
    for path in KEPT[1:]:
        dataverse.faults[path] = ["404"]
    *failed, last = get(server, tmp_path, workers=1)
    assert str(len(KEPT) - 1 - len(failed)) in last
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
    with pytest.raises(ValueError, match=naming(server, FLAIR, "SHA-1")):
        listed(server)
    del dataverse.files[0]["dataFile"]["checksum"]
    with pytest.raises(ValueError, match=naming(server, FLAIR, "SHA-1")):
        listed(server)


def test_a_path_listed_twice_is_refused(dataverse, server):
    dataverse.files.append(dataverse.files[0])
    with pytest.raises(ValueError, match=naming(server, FLAIR, "twice")):
        listed(server)


@pytest.mark.parametrize("files", [None, [None], {}, [{"dataFile": {}}], [{"dataFile": {"filename": "x", "id": "?"}}]])
def test_what_is_no_dataverse_is_refused(dataverse, server, files):
    dataverse.files = files
    with pytest.raises(ValueError, match=naming(server, "wmh-challenge")) as raised:
        listed(server)
    assert "Error" not in str(raised.value) and "int()" not in str(raised.value)


@pytest.mark.parametrize("address", ["no address", "", "ftp://127.0.0.1", "http://", "http://127.0.0.1:9x"])
def test_what_is_no_address_is_refused(quick, address):
    with pytest.raises(OSError, match=naming(address, "https://dataverse.nl")):
        listed(address)


@pytest.mark.parametrize("fault, found", [("404", "404"), ("403", GUESTBOOK), ("page", "Just a moment...")])
def test_a_listing_that_is_refused_is_asked_for_once(dataverse, server, fault, found):
    dataverse.faults["listing"] = [fault]
    with pytest.raises(OSError, match=naming(server.removeprefix("http://"), found)):
        listed(server)
    assert dataverse.asked == [("listing", "")]


@pytest.mark.parametrize("fault", ["500", "429", "stalled", "cut"])
def test_a_listing_that_does_not_come_at_once_is_asked_for_again(dataverse, server, monkeypatch, fault):
    monkeypatch.setattr(download, "LISTING_S", 1)
    dataverse.faults["listing"] = [fault]
    assert len(listed(server)) == len(KEPT)


def test_a_full_disk_is_noticed_before_anything_is_fetched(dataverse, server, tmp_path, monkeypatch):
    needed = sum(len(dataverse.contents[path]) for path in KEPT)
    part = tmp_path / "data" / f"{FLAIR}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(dataverse.contents[FLAIR][:100_000])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 100_001))
    with pytest.raises(OSError, match=naming(tmp_path, "--root")):
        get(server, tmp_path / "data")
    assert [path for path, _ in dataverse.asked] == ["listing"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 100_000))
    assert get(server, tmp_path / "data") == []


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_no_byte_is_sent_twice(server, dataverse, tmp_path, with_signal):
    """Ended by force, or by Ctrl-C, while one file is half here and the server is silent, and the others are whole."""
    tmp_path = tmp_path / "wmh-challenge"
    dataverse.faults[FLAIR] = ["stalled"]
    process = command("wmh-challenge", "--root", tmp_path.parent, "--dataverse", server, "--workers", "2")
    part, half = tmp_path / f"{FLAIR}.part", len(dataverse.contents[FLAIR]) // 2
    deadline = time.monotonic() + 30
    while not (web.bytes_in(part) == half and all((tmp_path / path).exists() for path in KEPT[1:])):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # the files that came last are counted
    process.send_signal(with_signal)
    began = time.monotonic()
    said = process.communicate(timeout=20)[1]
    assert time.monotonic() - began < 5, "less than a second, where the machine is not busy"
    assert process.returncode == (-signal.SIGKILL if with_signal == signal.SIGKILL else 1)
    assert "Traceback" not in said
    if with_signal == signal.SIGINT:
        assert "same command" in said.splitlines()[-1]
        assert (tmp_path / "manifest.json").exists()
    assert not (tmp_path / FLAIR).exists()
    assert get(server, tmp_path) == []
    assert_complete(tmp_path, dataverse)
    assert (FLAIR, f"bytes={half}-") in dataverse.asked
    del dataverse.sent["listing"]
    assert dataverse.sent == {path: len(dataverse.contents[path]) for path in KEPT}


def test_after_an_interruption_no_file_under_way_is_written_to(dataverse, server, tmp_path, monkeypatch):
    """As in a notebook, where the process lives on, and the cell may be run again."""
    dataverse.faults[FLAIR] = ["stalled"]
    monkeypatch.setattr(web, "SILENCE_S", 20)
    files, part = listed(server), tmp_path / f"{FLAIR}.part"
    half = len(dataverse.contents[FLAIR]) // 2
    tried = download.ThreadPool.imap_unordered

    def interrupted(pool, *arguments):
        yield from itertools.islice(tried(pool, *arguments), len(KEPT) - 1)
        while web.bytes_in(part) < half:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(download.ThreadPool, "imap_unordered", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(CHALLENGE, files, tmp_path)
    assert time.monotonic() - began < 5 and len(json.loads((tmp_path / "manifest.json").read_text())["files"]) == 5
    monkeypatch.setattr(download.ThreadPool, "imap_unordered", tried)
    dataverse.released.set()  # the first one's thread wakes up
    time.sleep(0.1)
    assert not (tmp_path / FLAIR).exists() and web.bytes_in(part) == half
    assert fetch(CHALLENGE, files, tmp_path) == []
    assert_complete(tmp_path, dataverse)


def test_two_at_a_time_do_not_write_to_one_folder(dataverse, server, tmp_path):
    with alone(tmp_path / "data"), pytest.raises(BlockingIOError, match=naming(tmp_path / "data")):
        get(server, tmp_path / "data")


def test_a_folder_that_cannot_be_made_is_one_sentence(dataverse, server, tmp_path):
    (tmp_path / "data").write_text("in its place")
    with pytest.raises(OSError, match=naming(tmp_path / "data" / "wmh-challenge")) as raised:
        get(server, tmp_path / "data" / "wmh-challenge")
    assert "Errno" not in str(raised.value) and [path for path, _ in dataverse.asked] == ["listing"]


def command(*arguments, **environment: str) -> subprocess.Popen:
    """The command as a process of its own."""
    line = [sys.executable, "-m", "wmhlib.intake.download", *arguments]
    settings = {"NO_PROXY": "127.0.0.1"} | environment
    return subprocess.Popen(
        line, env=os.environ | settings, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_says_what_is_missing_and_ends_with_1(dataverse, server, tmp_path, capsys):
    command = ["wmh-challenge", "--root", str(tmp_path), "--dataverse", f"{server}/"]
    dataverse.faults[FLAIR] = ["404"]
    with pytest.raises(SystemExit, match="wmh-challenge"):
        download.main(command)
    assert FLAIR in capsys.readouterr().err
    download.main([*command, "--t1"])
    assert "7 files" in capsys.readouterr().out
    assert (tmp_path / "wmh-challenge" / FLAIR).is_file()
    dataverse.files[0]["directoryLabel"] = "../../x"
    with pytest.raises(SystemExit, match="wmh-challenge"):
        download.main(command)
    assert "../../x" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        download.main(["wmh"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "'wmh'" in said and all(name in said for name in SOURCES)


# Servers that do not answer, or not to us.


@pytest.fixture
def filled():
    """The address of a socket that drops packets: nobody accepts, and no further connection fits into its queue."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def mute():
    """The address of a socket that takes every connection, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_the_command_says_within_10_s_that_packets_are_dropped(filled, tmp_path):
    process = command("wmh-challenge", "--root", tmp_path, "--dataverse", filled)
    assert filled in process.stdout.readline()
    began = time.monotonic()
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - began < 10 and process.returncode == 1
    assert filled.removeprefix("http://") in said and "Traceback" not in said
    assert not (tmp_path / "wmh-challenge").exists()


def test_a_server_without_a_word_counts_as_no_answer(mute, monkeypatch):
    monkeypatch.setattr(web, "REACH_S", 0.5)
    began = time.monotonic()
    with pytest.raises(OSError, match=mute.removeprefix("http://")):
        listed(mute)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_a_server_that_is_not_there_is_asked_twice(monkeypatch, address, capsys):
    monkeypatch.setattr(web, "BACKOFF_S", 0.01)
    with pytest.raises(OSError, match=address.removeprefix("http://")) as raised:
        listed(address)
    assert "object at" not in str(raised.value) and capsys.readouterr().err.count("again") == 1


def test_a_name_that_is_looked_up_without_end_counts_as_no_answer(monkeypatch, capsys):
    def look_up(*_, **__):
        time.sleep(1.5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(web, "REACH_S", 0.5)
    began = time.monotonic()
    with pytest.raises(OSError, match="nowhere.invalid"):
        web.reach("http://nowhere.invalid/x")
    assert time.monotonic() - began < 1.4
    time.sleep(2)
    assert capsys.readouterr().err == ""  # the late outcome is not reported


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_an_unknown_certificate_is_not_tried_again(dataverse, quick, tmp_path, capsys):
    key = tmp_path / "key.pem"
    line = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {key}.crt -subj /CN=x"
    )
    subprocess.run(line.split(), check=True, capture_output=True)
    key.write_text(key.read_text() + Path(f"{key}.crt").read_text())
    with serving(dataverse, key) as address, pytest.raises(OSError, match=naming("127.0.0.1", "REQUESTS_CA_BUNDLE")):
        listed(address)
    assert not dataverse.asked and "again" not in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_not_tried_again(monkeypatch, quick, capsys, scheme):
    class Proxy:
        released, asked = threading.Event(), 0

        def answer(self, request):
            self.asked += 1
            respond(request, 407)

    proxy = Proxy()
    with serving(proxy) as address:
        monkeypatch.setenv(f"{scheme}_proxy", address)
        with pytest.raises(OSError, match=naming("nowhere.invalid", "407", "HTTPS_PROXY")):
            listed(f"{scheme}://nowhere.invalid")
    assert proxy.asked == 1 and "again" not in capsys.readouterr().err


def test_requests_say_who_asks(dataverse, server, tmp_path):
    get(server, tmp_path)
    assert dataverse.agents == {f"wmhlib/{importlib.metadata.version('wmhlib')}"}


def test_a_servers_words_are_kept_short_and_harmless(dataverse, server):
    words = "\x1b[2J" + "very " * 1000 + "long"
    dataverse.answer = lambda request: respond(request, 403, f"<p>{words}</p>".encode(), "text/plain")
    with pytest.raises(OSError, match="very") as raised:
        listed(server)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 500


def real_names() -> list[str]:
    """The 1,791 paths of the challenge's release, in no order."""
    training = {
        "Utrecht": "0 2 4 6 8 11 17 19 21 23 25 27 29 31 33 35 37 39 41 49",
        "Singapore": " ".join(map(str, range(50, 70))),
        "Amsterdam/GE3T": "100 101 102 103 104 105 106 107 108 109 110 112 113 114 115 116 126 132 137 144",
    }
    centres = {"Utrecht": 0, "Singapore": 50, "Amsterdam/GE3T": 100}
    centres |= {"Amsterdam/GE1T5": 150, "Amsterdam/Philips_VU .PETMR_01.": 160}
    names = ["readme.pdf"]
    for centre, first in centres.items():
        images = ["wmh.nii.gz", "orig/reg_3DT1_to_FLAIR.txt", "orig/3DT1_mask.nii.gz"]
        images += [f"{folder}/{image}.nii.gz" for folder in ("orig", "pre") for image in ("FLAIR", "T1", "3DT1")]
        images += ["orig/FLAIR_mask.nii.gz", "orig/T1_mask.nii.gz"] if "Amsterdam" in centre else []
        for number in map(str, range(first, first + (10 if first >= 150 else 50))):
            trained = number in training.get(centre, "").split()
            names += [f"{'training' if trained else 'test'}/{centre}/{number}/{image}" for image in images]
            observers = ("o3", "o4") if trained else ()
            names += [
                f"additional_annotations/observer_{o}/training/{centre}/{number}/result.nii.gz" for o in observers
            ]
    return names


@pytest.mark.skipif(not SHARED.is_dir(), reason="no list of the release's files next to the project")
def test_the_names_are_the_releases_own():
    assert sorted(real_names()) == sorted((SHARED / "facts" / "wmh_challenge_files.txt").read_text().split("\n")[:-1])


def test_of_the_whole_release_460_files_arrive(quick, tmp_path):
    names = real_names()
    dataverse = Dataverse({name: name.encode() for name in names})
    with serving(dataverse) as server:
        assert get(server, tmp_path) == []
        assert len(names) == 1791 and len(listed(server, t1=True, orig=True)) == 170 * 4 + 170 + 120
    assert len(below(tmp_path)) == 1 + 170 + 170 + 120
    subjects = read_challenge(tmp_path)
    assert dict(subjects.split.value_counts()) == {"external": 110, "": 60}


# The second data set: a git repository.


def nifti(patient: int, image: str) -> bytes:
    """A tiny scan, another one for every patient, or its mask."""
    voxels = np.arange(7 * 8 * 9).reshape(7, 8, 9) + patient if image == "FLAIR" else np.ones((7, 8, 9))
    return nibabel.Nifti1Image(voxels.astype(np.uint16), np.eye(4)).to_bytes()


def in_repository(patient: int, image: str) -> str:
    return f"cross_sectional/coregistered/patient{patient:02}/{image}.nii.gz"


SCANS = {in_repository(n, image): nifti(n, image) for n in range(1, 31) for image in ("FLAIR", "consensus_gt")}
MASK_03, MASK_03_HERE = in_repository(3, "consensus_gt"), "test/Ljubljana/patient03/wmh.nii.gz"


@pytest.fixture
def github(tmp_path_factory, monkeypatch) -> GitHub:
    """A repository of other content, and the listing of it in place of the package's; sizes of FLAIRs are not
    listed."""
    folder = tmp_path_factory.mktemp("listings")
    github = GitHub(SCANS, LJUBLJANA)
    with LJUBLJANA.table.open(newline="") as rows, (folder / "ljubljana-ms.csv").open("w", newline="") as own:
        table = csv.DictWriter(own, ["path", "listed", "git_sha1", "bytes"])
        table.writeheader()
        for row in csv.DictReader(rows):
            content = SCANS[row["listed"]]
            sha = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            table.writerow(row | {"git_sha1": sha, "bytes": row["bytes"] and len(content)})
    monkeypatch.setattr(sources, "LISTINGS", folder)
    return github


@pytest.fixture
def hub(github, quick):
    with serving(github) as address:
        yield address


@pytest.mark.parametrize(("source", "count", "unsized"), [(LJUBLJANA, 60, 30), (HEADS, 20, 0)])
def test_the_packages_listings_are_whole(source, count, unsized):
    files = listing(source)
    assert len({file.path for file in files}) == len({file.url for file in files}) == len(files) == count
    assert sum(file.size is None for file in files) == unsized
    for file in files:
        assert file.url.startswith(f"https://raw.githubusercontent.com{source.address}/")
        assert re.fullmatch(r"(test/Ljubljana/patient\d\d/(pre/FLAIR|wmh)|training_seg_\d\d)\.nii\.gz", file.path)
        assert re.fullmatch("git SHA-1:[0-9a-f]{40}", file.checksum) and file.version == source.address[-40:]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no list of the repositories' files next to the project")
@pytest.mark.parametrize(("source", "facts"), [(LJUBLJANA, "ljubljana_ms_files"), (HEADS, "head_label_maps_files")])
def test_the_packages_listings_are_the_repositories_own(source, facts):
    lines = (SHARED / "facts" / f"{facts}.csv").read_text().splitlines()
    with source.table.open(newline="") as rows:
        listed = [[row["listed"], row["git_sha1"], row["bytes"]] for row in csv.DictReader(rows)]
    assert listed == [line.split(",") for line in lines if not line.startswith(("#", "path,"))]


@pytest.mark.skipif(not (SHARED / "anatomy").is_dir(), reason="no label maps next to the project")
def test_the_label_maps_arrive_when_asked_for_and_are_the_pinned_ones(quick, tmp_path, capsys):
    maps = {f"data/training_label_maps/{path.name}": path.read_bytes() for path in SHARED.glob("anatomy/*/*.nii.gz")}
    with serving(GitHub(maps, HEADS)) as address:
        download.main(["head-label-maps", "--root", str(tmp_path), "--github", address])
    assert below(tmp_path / "head-label-maps") == {*(file.path for file in listing(HEADS)), "manifest.json"}
    shown = capsys.readouterr().out
    assert all(
        part in shown for part in (HEADS.origin, "Apache-2.0", "10.1016/j.media.2023.102789", "20 files", "33.0 MB")
    )


def test_a_repository_arrives_as_external_subjects_of_the_challenges_layout(github, hub, tmp_path, capsys):
    assert get(hub, tmp_path, LJUBLJANA) == []
    shown = capsys.readouterr().out
    assert "licensed CC BY;" in shown and "10.1007/s12021-017-9348-7" in shown and LJUBLJANA.origin in shown
    assert "60 files" in shown and f"{sum(map(len, SCANS.values())) / 1e6:.1f} MB" in shown
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
    assert (row["version"], row["url"]) == (LJUBLJANA.address[-40:], f"{hub}{LJUBLJANA.address}/{MASK_03}")
    assert {row["size"] for row in manifest["files"]} == {len(content) for content in SCANS.values()}
    github.asked.clear(), github.agents.clear()
    (tmp_path / "manifest.json").unlink()
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.agents == set(), "no server is asked"


def test_sizes_that_a_server_does_not_tell_are_said_to_be_unknown(github, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(web, "length", lambda *_: 0)
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert "30 files whose size" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "test")
    monkeypatch.setattr(web, "length", lambda *_: time.sleep(5))
    monkeypatch.setattr(web, "REACH_S", 0.3)
    began = time.monotonic()
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert time.monotonic() - began < 4 and len(below(tmp_path)) == 61


@pytest.mark.parametrize("faults", [["cut"], ["truncated"], ["cut", "no ranges"], ["wrong"], ["longer"]])
def test_what_goes_wrong_once_with_a_file_of_unlisted_size_is_overcome(github, hub, tmp_path, monkeypatch, faults):
    flair = in_repository(3, "FLAIR")
    monkeypatch.setattr(web, "LARGEST", 1_000_000)
    github.faults[flair] = list(faults)
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.faults[flair] == [] and github.sent[flair] < 25_000_000
    assert (tmp_path / "test/Ljubljana/patient03/pre/FLAIR.nii.gz").read_bytes() == SCANS[flair]
    assert len(below(tmp_path)) == 61


@pytest.mark.parametrize("content", [b"", b"version 1\n", SCANS[MASK_03]])
def test_the_checksum_of_a_blob_is_gits_own(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    gits = subprocess.run(
        ["git", "hash-object", "--no-filters", tmp_path / "file"], capture_output=True, text=True, check=True
    )
    assert web.digest(tmp_path / "file", "git SHA-1:") == f"git SHA-1:{gits.stdout.strip()}"


@pytest.mark.parametrize("faults", [["500"], ["cut"], ["cut", "no ranges"], ["wrong"], ["cut", "truncated", "longer"]])
def test_what_goes_wrong_once_with_a_repository_is_overcome(github, hub, tmp_path, faults):
    github.faults[MASK_03] = list(faults)
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.faults[MASK_03] == []
    assert (tmp_path / MASK_03_HERE).read_bytes() == SCANS[MASK_03]
    assert len(below(tmp_path)) == 61


def test_a_cut_file_of_a_repository_goes_on_in_the_next_run(github, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    github.faults[MASK_03] = ["cut"]
    (problem,) = get(hub, tmp_path, LJUBLJANA)
    assert problem.startswith(f"{MASK_03_HERE}: ") and not (tmp_path / MASK_03_HERE).exists()
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False
    github.asked.clear()
    assert get(hub, tmp_path, LJUBLJANA) == []
    assert github.asked == [(MASK_03, f"bytes={len(SCANS[MASK_03]) // 2}-")]
    assert github.sent[MASK_03] == len(SCANS[MASK_03])
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is True


def test_what_is_not_the_commits_content_twice_is_removed_and_said(github, hub, tmp_path):
    github.faults[MASK_03] = ["wrong"] * 2
    (problem,) = get(hub, tmp_path, LJUBLJANA)
    assert problem.startswith(f"{MASK_03_HERE}: ") and problem.count("git SHA-1:") == 2
    assert not list((tmp_path / MASK_03_HERE).parent.glob("wmh*"))
    assert github.faults[MASK_03] == []


def test_a_set_that_fails_is_told_of_before_the_next_is_fetched(dataverse, server, github, hub, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("builtins.print", lambda text, **_: told.append((text, len(github.asked))))
    command = ["--root", str(tmp_path), "--dataverse", server, "--github", hub]
    dataverse.faults["listing"] = ["404"]
    with pytest.raises(SystemExit, match="wmh-challenge") as ended:
        download.main(command)
    assert "ljubljana-ms" not in ended.value.code
    assert {asked for text, asked in told if "404" in text} == {0}
    assert len(below(tmp_path / "ljubljana-ms")) == 61 and below(tmp_path / "wmh-challenge") == set()
    download.main(command)
    assert below(tmp_path / "wmh-challenge") == {*KEPT, "manifest.json"} and not (tmp_path / HEADS.name).exists()


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
    monkeypatch.setitem(SERVERS, "dataverse", server)
    monkeypatch.setitem(SERVERS, "github", hub)
    return tmp_path / "data"


def test_a_study_gets_what_it_asks_for_and_then_no_server_is_asked(study_asking_for, at, dataverse, github):
    fetch_for(study_asking_for())
    assert not at.exists() and dataverse.asked == github.asked == []
    fetch_for(study_asking_for("ljubljana-ms"))
    assert dataverse.asked == [] and len(github.asked) == 60
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert_complete(at / "wmh-challenge", dataverse)
    assert len(dataverse.asked) == 1 + len(KEPT) and len(github.asked) == 60
    dataverse.asked.clear(), github.asked.clear()
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert dataverse.asked == github.asked == []
    (at / "ljubljana-ms" / MASK_03_HERE).unlink()  # whatever the manifest says
    fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    assert dataverse.asked == [] and github.asked == [(MASK_03, "")]


def test_a_study_whose_files_failed_says_so_in_a_sentence_and_goes_on_later(study_asking_for, at, github, dataverse):
    github.faults[MASK_03] = ["404"]
    dataverse.faults["listing"] = ["403"]
    with pytest.raises(OSError, match=naming(at / "ljubljana-ms", MASK_03_HERE, "404", at / "wmh-challenge", "403")):
        fetch_for(study_asking_for("wmh-challenge", "ljubljana-ms"))
    github.asked.clear()
    fetch_for(study_asking_for("ljubljana-ms"))
    assert github.asked == [(MASK_03, "")]


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
