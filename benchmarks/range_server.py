"""A web server that answers Range requests for the files of a folder, and misbehaves on demand; a process of its own.

    python range_server.py FOLDER        prints its port

`GET /control` answers with what was asked for so far (JSON: method, path, Range, bytes); `PUT /control` sets how it
behaves towards paths that end with `only`: `delay` is seconds before an answer; `stall`, `fail`, `cut` and `corrupt`
are how many of the next requests get no answer, status 503, half of the body, and a byte turned over; `forbid` is the
status that all get.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NEVER_SECONDS = 600


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.lock = folder, threading.Lock()
        self.behaviour: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []

    def due(self, what: str, path: str) -> bool:
        """Whether this request is one of the next ones that something is to happen to."""
        with self.lock:
            left = self.behaviour.get(what, 0)
            if not left or not path.endswith(self.behaviour.get("only", "")):
                return False
            self.behaviour[what] = left - 1
            return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if self.path == "/control":
            self._answer(200, json.dumps(self.server.asked).encode())
        else:
            self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        body = self._body()
        if self.path == "/control":
            self.server.behaviour, self.server.asked = json.loads(body), []
        elif not self._misbehaves():
            file = self.server.folder / self.path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        else:
            return
        self._answer(201, b"")

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _misbehaves(self) -> bool:
        """Whether the request has been dealt with."""
        behaviour, due = self.server.behaviour, self.server.due
        if self.path.endswith(behaviour.get("only", "")):
            time.sleep(behaviour.get("delay", 0))
            if "forbid" in behaviour:
                self._answer(behaviour["forbid"], b"")
                return True
        if due("stall", self.path):
            time.sleep(NEVER_SECONDS)
        if due("fail", self.path):
            self._answer(503, b"come again later")
            return True
        return False

    def _serve(self) -> None:
        asked = {"method": self.command, "path": self.path, "range": self.headers.get("Range"), "bytes": 0}
        self.server.asked.append(asked)
        if self._misbehaves():
            return
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self._answer(404, b"")
            return
        size, status, start, end = file.stat().st_size, 200, 0, file.stat().st_size
        if asked["range"]:
            first, last = asked["range"].removeprefix("bytes=").split("-")
            status, start, end = 206, int(first), min(int(last) + 1, size)
            if start >= size:
                self._answer(416, b"")
                return
        with open(file, "rb") as opened:
            opened.seek(start)
            body = opened.read(end - start) if self.command == "GET" else b""
        asked["bytes"] = len(body)
        self._answer(status, body, end - start)

    def _answer(self, status: int, body: bytes, length: int | None = None) -> None:
        if body and status < 400 and self.path != "/control" and self.server.due("corrupt", self.path):
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if body and status < 400 and self.path != "/control" and self.server.due("cut", self.path):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class RangeServer:
    """A running server, as those who test see it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def behave(self, **behaviour: Any) -> None:
        """Behave like this from now on, and forget what was asked for before."""
        self._open(urllib.request.Request(f"{self.url}/control", json.dumps(behaviour).encode(), method="PUT"))

    def asked(self, ending: str = "", method: str = "GET") -> list[dict[str, Any]]:
        """Requests for paths that end like this."""
        asked = json.loads(self._open(urllib.request.Request(f"{self.url}/control")))
        return [each for each in asked if each["path"].endswith(ending) and each["method"] == method]

    @staticmethod
    def _open(request: urllib.request.Request) -> bytes:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.read()


@contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    """A server of `folder` in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield RangeServer(f"http://127.0.0.1:{process.stdout.readline().strip()}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]))
    print(server.server_address[1], flush=True)
    server.serve_forever()
