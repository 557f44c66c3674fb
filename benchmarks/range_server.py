"""A server of files on loopback that sends parts of them, counts, and can be told to fail as servers do.

    with RangeServer(folder) as server:
        LocalizationMap.open(f"{server.url}/scene.hfmap")

Python's own http.server does not know ranges.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, dict[str, str], bytes]


class RangeServer:
    """Serves a folder while it is entered.

    Args:
        change: what becomes of an answer (status, headers, body) before it is sent, to fail on purpose.
        port: 0: any that is free.

    Attributes:
        requests, sent: how many came, and bytes of bodies that went.
    """

    def __init__(self, folder: Path, change: Callable[[str, Answer], Answer] | None = None, port: int = 0):
        self.folder, self.change, self.requests, self.sent = folder, change, 0, 0
        self._connections: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer._connections.append(self.connection)

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> RangeServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:  # that clients keep
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def reset(self) -> None:
        """Counts from 0 again."""
        self.requests = self.sent = 0

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/")
        status, headers, body = self._part(name, handler.headers.get("Range"), handler.headers.get("If-Range"))
        headers.setdefault("Content-Length", str(len(body)))
        if self.change is not None:
            status, headers, body = self.change(name, (status, headers, body))
        self.requests += 1
        self.sent += len(body)
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)
        if len(body) != int(headers["Content-Length"]):
            handler.close_connection = True

    def _part(self, name: str, asked: str | None, if_range: str | None) -> Answer:
        path = self.folder / name
        if not path.is_file():
            return 404, {}, b"not found"
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        if found is None or (if_range is not None and if_range != etag):
            return 200, {"ETag": etag}, content
        start, stop = int(found[1]), min(int(found[2]) + 1, len(content))
        if start >= stop:
            return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
        said = {"ETag": etag, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return 206, said, content[start:stop]
