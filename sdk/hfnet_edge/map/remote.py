"""A file behind a URL is brought here in parts, as they are needed: range requests (RFC 9110) on one connection.

The bytes lie in memory of the file's size, of which only what was fetched takes any, or in a sparse file of a cache.
Who reads them checks them (`hfnet_edge.map.container`): what a cache has kept needs no other sign that it is there.
"""

from __future__ import annotations

import http.client
import mmap
import os
import re
import threading
from email.message import Message
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from hfnet_edge.errors import MapFormatError, RemoteError

TIMEOUT = 20.0  # seconds without a byte
FIRST = 4096 + 16384  # bytes: the head of a map of up to 14 MB, and its first block
REDIRECTS = 5
AWAY = "check the URL, the network and the server, and try again"
CHANGED = "open it again"
WRONG_RANGE = "serve it with a server that answers range requests (nginx, S3), or download it"


def is_url(where: object) -> bool:
    """Whether it is an http or https URL."""
    return isinstance(where, str) and where.lower().startswith(("http://", "https://"))


class Server:
    """One connection to a server, kept open; threads take turns.

    Args:
        url: of anything there. Raises RemoteError: it is none.

    Attributes:
        requests, received: how many were sent, and bytes of bodies that came, for who counts them.
    """

    def __init__(self, url: str):
        try:
            self._at = urlsplit(url)[:2]
        except ValueError as e:
            raise RemoteError(f"{url!r:.80} is no URL: {e}", AWAY) from e
        self._turn = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self.requests = self.received = 0

    def serves(self, url: str) -> bool:
        """Whether a URL is of this server."""
        return urlsplit(url)[:2] == self._at

    def get(self, url: str, headers: dict[str, str], most: int) -> tuple[int, Message, bytes]:
        """Status, headers and body of an answer; of one that says no, without the body.

        Args:
            url: of this server. most: bytes of the body that are expected.

        Raises:
            RemoteError: the server is away, or breaks off.
        """
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with self._turn:
            for again in (False, True):  # a connection that was kept may have been closed meanwhile
                try:
                    return self._get(target, headers, most)
                except (OSError, ValueError, http.client.HTTPException) as e:
                    self._close()
                    if again:
                        why = " ".join(str(e).split()) or type(e).__name__
                        raise RemoteError(f"cannot fetch {url}: {why}", AWAY) from e
        raise AssertionError

    def _get(self, target: str, headers: dict[str, str], most: int) -> tuple[int, Message, bytes]:
        if self._connection is None:
            scheme, host = self._at
            kind = http.client.HTTPSConnection if scheme.lower() == "https" else http.client.HTTPConnection
            self._connection = kind(host, timeout=TIMEOUT)
        self._connection.request("GET", target, headers={**headers, "Accept-Encoding": "identity"})
        self.requests += 1
        answer = self._connection.getresponse()
        if answer.status != 206:
            self._close()  # whatever follows is not waited for
            return answer.status, answer.headers, b""
        length = answer.length
        body = answer.read(most + 1)
        self.received += len(body)
        if length is not None and len(body) < min(length, most):
            raise http.client.IncompleteRead(body, length - len(body))
        if len(body) > most or not answer.isclosed():
            self._close()
        return answer.status, answer.headers, body

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class RemoteFile:
    """A file behind a URL.

    Args:
        url: http or https. server: to ask, where there is a connection already.
        size: bytes that it must have; None: as the server says.
        cache: folder that parts are kept in, for as long as it is there; None: they are kept in memory.
        name: of the file there.

    Attributes:
        data: all bytes of the file; those that have not been fetched are zeros, or what the cache has kept.

    Raises:
        MapFormatError: there is no such file, or it has another size. RemoteError: the server is away, answers
            otherwise than asked; or the file changed. All by `fetch` too.
    """

    def __init__(
        self,
        url: str,
        server: Server | None = None,
        size: int | None = None,
        cache: Path | None = None,
        name: str = "",
    ):
        self.url, self._size, self._etag = url, size, ""
        self.server = server if server is not None and server.serves(url) else Server(url)
        self._file: int | None = None
        self._begin = b""
        if size is None or cache is None or not _kept(cache, name, size).is_file():
            self._begin = self._get(0, min(FIRST, size or FIRST))
        assert self._size is not None, "the first answer has said it, or the caller"
        try:
            if cache is None:
                self._memory = mmap.mmap(-1, self._size)
            else:
                cache.mkdir(parents=True, exist_ok=True)
                self._file = os.open(_kept(cache, name, self._size), os.O_RDWR | os.O_CREAT, 0o666)
                os.ftruncate(self._file, self._size)
                self._memory = mmap.mmap(self._file, self._size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as e:
            raise RemoteError(f"there is no room for the {self._size} bytes of {url}: {e}", "make room") from e
        self.data = memoryview(self._memory).toreadonly()
        self._store(0, self._begin)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    def fetch(self, start: int, stop: int) -> None:
        """Brings the bytes ``start`` to ``stop`` of the file into `data`."""
        start, stop = max(start, len(self._begin)), min(stop, len(self.data))
        if stop > start:
            self._store(start, self._get(start, stop))

    def _store(self, start: int, content: bytes) -> None:
        if self._file is None:
            self._memory[start : start + len(content)] = content
            return
        try:
            while content:
                written = os.pwrite(self._file, content, start)
                start, content = start + written, content[written:]
        except OSError as e:
            raise RemoteError(f"cannot keep what was fetched of {self.url}: {e.strerror}", "make room there") from e

    def _get(self, start: int, stop: int) -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self._etag:
            headers["If-Range"] = self._etag
        for _ in range(REDIRECTS):
            status, said, body = self.server.get(self.url, headers, stop - start)
            if status not in (301, 302, 303, 307, 308):
                return self._checked(start, stop, status, said, body)
            url = urljoin(self.url, said.get("Location", ""))
            if not is_url(url) or (self.url.lower().startswith("https:") and not url.lower().startswith("https:")):
                raise RemoteError(f"{self.url} leads to {url!r:.80}", "give the URL where the file is")
            self.url = url
            self.server = self.server if self.server.serves(url) else Server(url)
        raise RemoteError(f"{self.url} leads nowhere", "give the URL where the file is")

    def _told_size(self, said: Message) -> int:
        told = re.fullmatch(r"bytes \d{1,18}-\d{1,18}/(\d{1,18})", said.get("Content-Range", ""))
        if told is None:
            raise self._unasked()
        return int(told[1])

    def _unasked(self) -> RemoteError:
        return RemoteError(f"the server of {self.url} sends another part than was asked for", WRONG_RANGE)

    def _checked(self, start: int, stop: int, status: int, said: Message, body: bytes) -> bytes:
        """The body of an answer that is as it was asked for."""
        if status in (404, 410):
            raise MapFormatError(f"there is no map {self.url}", "check the URL")
        if status == 200 and self._etag:
            raise self._changed()
        if status == 200:
            raise RemoteError(f"the server of {self.url} sends whole files, not parts of them", WRONG_RANGE)
        if status == 416:
            raise self._changed()
        if status != 206:
            raise RemoteError(f"the server of {self.url} answers {status}", AWAY)
        size = self._told_size(said)
        if self._size not in (None, size) or (self._etag and _strong(said) != self._etag):
            raise self._changed()
        stop = min(stop, size)
        encoding = said.get("Content-Encoding", "identity")
        if said["Content-Range"] != f"bytes {start}-{stop - 1}/{size}" or encoding != "identity":
            raise self._unasked()
        if len(body) != stop - start:
            raise RemoteError(f"{self.url} came in part: {len(body)} of {stop - start} bytes", AWAY)
        self._size, self._etag = size, _strong(said)
        return body

    def _changed(self) -> MapFormatError:
        return MapFormatError(f"{self.url} is another file than it was, or than its index names", CHANGED)


def _kept(cache: Path, name: str, size: int) -> Path:
    """A file of a cache. No other size has its name, so nobody cuts what another process has mapped."""
    return cache / f"{name}.{size}"


def _strong(said: Message) -> str:
    """What tells versions of a file apart byte for byte; "" where nothing does."""
    etag = said.get("ETag", "")
    return "" if etag.startswith("W/") else etag
