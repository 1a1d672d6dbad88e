"""Downloads over HTTPS that can be interrupted and gone on with, checked by SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refnaf import __version__
from refnaf.persistence import atomic_write

_CHUNK = 1 << 18  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_ELSEWHERE = "get the file by other means and give it to refnaf data prepare with --from"

Progress = Callable[[int, int | None], None]


class DownloadError(RuntimeError):
    """A download that failed: no network, no such file, another file than was asked for. One line."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to another."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(
                f"{req.full_url}: the server sends on to {newurl}, which is not encrypted; name another"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = _TIMEOUT,
) -> str:
    """Download a URL to a file; returns the SHA-256 of what came, in hexadecimal digits.

    What has come so far is in ``path`` with ``.part`` behind it, and a later call goes on from there where the server
    can (HTTP Range, and If-Range so that a file which has changed meanwhile starts afresh). The file appears under its
    name only when it is whole and its digest is ``sha256``, if that is given. A file that is there already is not asked
    for again where its digest is ``sha256``, or the one recorded beside it in ``.sha256``. ``progress`` is called with
    the bytes that are there and how many there will be, None where the server does not tell.

    Raises ValueError for a URL that is not https (or http), and a ``sha256`` that is none. Raises DownloadError, after
    which calling again goes on, for a network or server that cannot be reached, breaks off or refuses, and for another
    digest, after which what came is removed.
    """
    url, path = _checked_url(url), Path(path)
    wanted = _checked_digest(sha256)
    record = path.with_name(path.name + ".sha256")
    if path.exists():
        found = file_digest(path)
        if found == (wanted or _recorded(record)):
            return found
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _get(url, part, progress, timeout)
    found = file_digest(part)
    if wanted and found != wanted:
        part.unlink()
        raise DownloadError(
            f"{url}: expected SHA-256 {wanted}, got {found}; the file was removed: try again, or another source"
        )
    os.replace(part, path)
    _tag(part).unlink(missing_ok=True)
    with atomic_write(record) as file:
        file.write(f"{found}  {path.name}\n".encode())
    return found


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def file_name(url: str) -> str:
    """The name under which a URL is kept: the last part of its path. Raises ValueError where there is none."""
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if not name or name in (".", "..") or "\\" in name:
        raise ValueError(f"{url}: expected a URL that ends with a file's name; name the file itself")
    return name


def _checked_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"expected a URL that starts with https://, got {url!r}; for a file, prepare it from there")
    return url


def _checked_digest(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"expected a SHA-256 of 64 hexadecimal digits, got {sha256!r}; copy it from the source")
    return sha256.lower()


def _recorded(record: Path) -> str | None:
    """The digest in a file as ``sha256sum`` writes it, if there is one."""
    words = record.read_text("latin-1").split() if record.exists() else []
    return words[0] if words else None


def _tag(part: Path) -> Path:
    """Beside an unfinished download: what the server called the version of the file."""
    return part.with_name(part.name + ".tag")


def _get(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Brings what is missing of a URL into ``part``."""
    tag = _tag(part)
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": f"refnaf/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text("latin-1")}
    opener = urllib.request.build_opener(_NoDowngrade)
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            start = _start(response, have, url)
            total = _total(response, start)
            version = _version(response)
            if version:
                tag.write_text(version, "latin-1")
            else:
                tag.unlink(missing_ok=True)  # nothing to tell a changed file by: not to be gone on with
            have = _copy(response, part, start, total, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have and error.headers.get("Content-Range", "") == f"bytes */{have}":
            return  # all of it had come
        if error.code == 416:  # less is there than had come: another file
            part.unlink(missing_ok=True)
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}; {_ELSEWHERE}") from None
    except (OSError, http.client.HTTPException) as error:
        _raise(url, part, error)
    if total is not None and have < total:
        raise DownloadError(
            f"{url}: the connection broke off after {have:,} of {total:,} bytes; run the same command to go on"
        )


def _raise(url: str, part: Path, error: Exception) -> None:
    reason = getattr(error, "reason", None) or error
    text = " ".join(str(reason).split()) or type(error).__name__
    have = part.stat().st_size if part.exists() else 0
    if isinstance(error, urllib.error.URLError):
        host = urllib.parse.urlsplit(url).hostname
        raise DownloadError(f"{url}: {host} cannot be reached ({text}); check the network, or {_ELSEWHERE}") from None
    raise DownloadError(
        f"{url}: the connection broke off after {have:,} bytes ({text}); run the same command to go on"
    ) from None


def _start(response: Any, have: int, url: str) -> int:
    """From which byte on the server sends: all of it, unless it says that it heeds the range."""
    if response.status != 206:
        return 0
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) != have:
        raise DownloadError(f"{url}: the server sends another part than was asked for; {_ELSEWHERE}")
    return have


def _total(response: Any, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _version(response: Any) -> str:
    """What If-Range takes: a strong entity tag, or the time of the last change."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _copy(response: Any, part: Path, start: int, total: int | None, progress: Progress | None) -> int:
    """Appends the body to ``part`` from byte ``start`` on, and returns its length then."""
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        have = start
        while True:
            if progress:
                progress(have, total)
            block = response.read1(_CHUNK)
            if not block:
                return have
            file.write(block)
            have += len(block)
