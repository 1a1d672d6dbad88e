"""Downloads from a server in this process: whole, interrupted, gone on with, changed meanwhile, refused."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading

import numpy as np
import pytest

from refnaf.datasets.fetch import DownloadError, download, file_digest, file_name
from tests.refusals import refusal

BODY = np.random.default_rng(0).bytes(700_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``body`` at any path but /missing; the switches say how it misbehaves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.tag = BODY, '"one"'
        self.ranges, self.tells_length = True, True
        self.breaks_after = None  # bytes of the file
        self.wrong_part = False
        self.requests = []

    def url(self, name="data.bin"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data.bin")
            self.end_headers()
            return
        start, fresh = 0, self.headers.get("If-Range", server.tag) == server.tag
        if wanted and server.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            said = start - 1 if server.wrong_part else start
            self.send_header("Content-Range", f"bytes {said}-{len(server.body) - 1}/{len(server.body)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(server.body) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(server.body[start : server.breaks_after])


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy stands between the test and its server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole(server, tmp_path):
    seen = []
    target = tmp_path / "new" / "data.bin"
    assert download(server.url(), target, sha256=DIGEST.upper(), progress=lambda *a: seen.append(a)) == DIGEST
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["data.bin", "data.bin.sha256"]
    assert target.with_name("data.bin.sha256").read_text() == f"{DIGEST}  data.bin\n"
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert [have for have, _ in seen] == sorted(have for have, _ in seen)


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    target = tmp_path / "data.bin"
    download(server.url(), target)
    download(server.url(), target)
    download(server.url(), target, sha256=DIGEST)
    assert server.requests == [None]
    target.write_bytes(BODY[:-1])  # no longer what is on record
    download(server.url(), target)
    assert server.requests == [None, None]
    assert target.read_bytes() == BODY


def test_interrupted_and_gone_on_with(server, tmp_path):
    target = tmp_path / "data.bin"
    server.breaks_after = 300_000
    text = refusal(download, server.url(), target, error=DownloadError)
    assert "300,000" in text
    assert "go on" in text
    assert not target.exists()
    server.breaks_after = 500_000
    refusal(download, server.url(), target, error=DownloadError)
    server.breaks_after = None
    seen = []
    assert download(server.url(), target, sha256=DIGEST, progress=lambda *a: seen.append(a)) == DIGEST
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]
    assert seen[0] == (500_000, len(BODY))
    assert names(tmp_path) == ["data.bin", "data.bin.sha256"]


def test_interrupted_by_hand(server, tmp_path):
    def stop(have, total):
        if have:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url(), tmp_path / "data.bin", progress=stop)
    have = (tmp_path / "data.bin.part").stat().st_size
    assert have > 0
    assert download(server.url(), tmp_path / "data.bin") == DIGEST
    assert server.requests == [None, f"bytes={have}-"]


def test_all_had_come_but_the_name(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY)
    (tmp_path / "data.bin.part.tag").write_text(server.tag)
    assert download(server.url(), tmp_path / "data.bin") == DIGEST
    assert server.requests == [f"bytes={len(BODY)}-"]
    assert names(tmp_path) == ["data.bin", "data.bin.sha256"]


def test_server_without_ranges_starts_afresh(server, tmp_path):
    server.ranges, server.breaks_after = False, 300_000
    refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)
    server.breaks_after = None
    assert download(server.url(), tmp_path / "data.bin") == DIGEST
    assert server.requests == [None, "bytes=300000-"]


@pytest.mark.parametrize("tag", ['"two"', ""])
def test_changed_meanwhile_starts_afresh(server, tmp_path, tag):
    server.breaks_after = 300_000
    refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)
    server.breaks_after, server.tag = None, tag
    server.body = BODY[::-1]
    assert download(server.url(), tmp_path / "data.bin") == hashlib.sha256(BODY[::-1]).hexdigest()


def test_server_that_tells_no_version_starts_afresh(server, tmp_path):
    server.breaks_after, server.tag = 300_000, ""
    refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)
    server.breaks_after = None
    assert download(server.url(), tmp_path / "data.bin") == DIGEST
    assert server.requests == [None, None]


def test_server_that_tells_no_length(server, tmp_path):
    server.tells_length, seen = False, []
    assert download(server.url(), tmp_path / "data.bin", progress=lambda *a: seen.append(a)) == DIGEST
    assert seen[-1] == (len(BODY), None)


def test_another_part_than_asked_for(server, tmp_path):
    server.breaks_after = 300_000
    refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)
    server.breaks_after, server.wrong_part = None, True
    assert "another part" in refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)


def test_shorter_than_what_had_come(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY + b"more")
    (tmp_path / "data.bin.part.tag").write_text(server.tag)
    assert "416" in refusal(download, server.url(), tmp_path / "data.bin", error=DownloadError)
    assert download(server.url(), tmp_path / "data.bin") == DIGEST


def test_wrong_digest(server, tmp_path):
    wrong = "0" * 64
    text = refusal(download, server.url(), tmp_path / "data.bin", sha256=wrong, error=DownloadError)
    assert wrong in text
    assert DIGEST in text
    assert not (tmp_path / "data.bin").exists()
    assert not (tmp_path / "data.bin.part").exists()


def test_an_existing_file_survives_a_wrong_digest(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"older")
    refusal(download, server.url(), tmp_path / "data.bin", sha256="0" * 64, error=DownloadError)
    assert (tmp_path / "data.bin").read_bytes() == b"older"


def test_missing_and_moved(server, tmp_path):
    text = refusal(download, server.url("missing"), tmp_path / "data.bin", error=DownloadError)
    assert "404" in text
    assert "--from" in text
    assert names(tmp_path) == []
    assert download(server.url("moved"), tmp_path / "data.bin") == DIGEST


def test_nobody_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = refusal(download, f"http://127.0.0.1:{port}/data.bin", tmp_path / "data.bin", error=DownloadError)
    assert "127.0.0.1 cannot be reached" in text
    assert "network" in text


def test_silence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        text = refusal(download, url, tmp_path / "data.bin", timeout=0.1, error=DownloadError)
    assert "timed out" in text


def test_no_redirect_away_from_encryption():
    from urllib.request import Request

    from refnaf.datasets.fetch import _NoDowngrade

    follow = _NoDowngrade().redirect_request
    with pytest.raises(DownloadError, match="not encrypted"):
        follow(Request("https://a.example/x"), None, 302, "", {}, "http://b.example/x")
    assert follow(Request("https://a.example/x"), None, 302, "", {}, "https://b.example/x") is not None


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.example/x", "/etc/passwd", "https:///x", ""])
def test_only_http(tmp_path, url):
    assert "https://" in refusal(download, url, tmp_path / "x")


def test_digests_are_digests(tmp_path):
    assert "64 hexadecimal" in refusal(download, "https://a.example/x", tmp_path / "x", sha256="abc")


def test_file_names():
    assert file_name("https://a.example/b/data.tar.gz?download=1") == "data.tar.gz"
    assert file_name("https://a.example/a%20b.zip") == "a b.zip"
    for url in ("https://a.example/", "https://a.example", "https://a.example/.."):
        refusal(file_name, url)


def test_file_digest(tmp_path):
    (tmp_path / "x").write_bytes(BODY)
    assert file_digest(tmp_path / "x") == DIGEST
