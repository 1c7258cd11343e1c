"""A model hub on loopback: as much of the hub's HTTP as its client asks for, and faults to order."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".onnx", ".data")  # kept apart from git, as a hub does


@dataclass
class Hub:
    """Repositories by name, each a directory, and what goes wrong."""

    endpoint: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    commit: str = COMMIT
    token: str | None = None  # without it: 401
    gated: bool = False
    status: int | None = None  # of every answer
    cut: dict[str, int] = field(default_factory=dict)  # by file, the bytes after which the connection ends
    cuts: int = 1_000  # how often that happens
    damaged: set[str] = field(default_factory=set)
    terse: bool = False  # says of files nothing but their names
    slow: str = ""  # file that never ends
    trickle: float = 0  # seconds between two bytes of a body
    requests: list[tuple[str, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """Files that were sent, or begun to be."""
        return [
            path.rpartition(f"/resolve/{self.commit}/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        ]


@contextmanager
def serving(address: str = "127.0.0.1", port: int = 0) -> Iterator[Hub]:
    """Run a hub until the block ends; port 0 is any that is free."""
    hub = Hub()
    server = ThreadingHTTPServer((address, port), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://{address}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bool) -> None:
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.requests.append((self.command, path))
        if hub.status:
            self._refuse(hub.status, "")
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif path.startswith("/api/models/"):
            self._describe(*path.removeprefix("/api/models/").partition("/revision/")[::2])
        else:
            self._file(path, body)

    def _describe(self, name: str, revision: str) -> None:
        if name not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif revision not in {"", "main", "v2", self.hub.commit}:
            self._refuse(404, "RevisionNotFound")
        else:
            root = self.hub.repositories[name]
            files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": file, **({} if self.hub.terse else _metadata(root / file))} for file in files]
            told = {"id": name, "modelId": name, "sha": self.hub.commit, "siblings": siblings}
            self._plain(200, json.dumps(told).encode())

    def _file(self, path: str, body: bool) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        found = self.hub.repositories.get(name)
        if found is None or revision != self.hub.commit or not (found / file).is_file():
            self._refuse(404, "EntryNotFound")
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        else:
            self._send(found / file, file, body)

    def _send(self, path: Path, file: str, body: bool) -> None:
        hub, content = self.hub, path.read_bytes()
        start = 0
        if (wanted := self.headers.get("Range")) and body:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("ETag", f'"{_metadata(path)["etag"]}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if file in hub.damaged:
            content = bytes(len(content))
        end = hub.cut.get(file, len(content)) if hub.cuts else len(content)
        hub.cuts -= end < len(content)
        if hub.slow == file:
            self.wfile.write(content[:1000])
            hub.done.wait(60)
        elif hub.trickle:
            for position in range(start, end):
                if hub.done.wait(hub.trickle):
                    break
                self.wfile.write(content[position : position + 1])
                self.wfile.flush()
        else:
            self.wfile.write(content[start:end])
        if end < len(content):
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._plain(status, b"{}", {"X-Error-Code": code} if code else {})

    def _plain(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _metadata(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if not path.name.endswith(LARGE):
        return {"size": len(content), "blobId": git, "etag": git}
    sha256 = hashlib.sha256(content).hexdigest()
    large = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return {"size": len(content), "blobId": git, "etag": sha256, "lfs": large}
