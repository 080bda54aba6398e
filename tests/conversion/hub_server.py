"""A server on this machine that speaks the part of the Hub's API that downloads use, and can misbehave."""

from __future__ import annotations

import _socket
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conversion.checkpoints import write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_HOLD_SECONDS = 20.0
_API = re.compile(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?(?:\?.*)?")
_TREE = re.compile(r"/api/models/([^/]+/[^/?]+)/tree/([^/?]+)(?:\?.*)?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(?:\?.*)?")


@dataclass
class Hub:
    """Repositories as folders; `faults` maps a file name to what goes wrong with its next downloads."""

    repositories: dict[str, Path] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)  # what "hold" waits for
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    endpoint: str = ""

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for, in order."""
        return [path.rsplit("/", 1)[-1] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
        if match := _API.fullmatch(self.path):
            self._model(match[1], match[2] or "main")
        elif match := _TREE.fullmatch(self.path):
            self._tree(match[1], match[2])
        elif match := _FILE.fullmatch(self.path):
            self._file(match[1], match[2], match[3], body=body)
        else:
            self._error(404, "EntryNotFound")

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _known(self, repository: str, revision: str) -> bool:
        if repository not in self.hub.repositories:
            self._error(404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        else:
            return True
        return False

    def _model(self, repository: str, revision: str) -> None:
        if not self._known(repository, revision):
            return
        siblings = [_sibling(path) for path in self._files(repository)]
        self._json({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings})

    def _tree(self, repository: str, revision: str) -> None:
        if self._known(repository, revision):
            self._json([_tree_entry(path) for path in self._files(repository)])

    def _files(self, repository: str) -> list[Path]:
        return [path for path in sorted(self.hub.repositories[repository].rglob("*")) if path.is_file()]

    def _json(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _file(self, repository: str, revision: str, name: str, *, body: bool) -> None:
        if not self._known(repository, revision):
            return
        if repository in self.hub.gated:
            self._error(403, "GatedRepo")
            return
        path = self.hub.repositories[repository] / name
        if not path.is_file():
            self._error(404, "EntryNotFound")
            return
        content = path.read_bytes()
        fault = self._fault(name) if body else ""
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        sent = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(sent[: len(sent) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        elif fault == "hold":
            self.wfile.write(sent[: len(sent) // 2])
            self.wfile.flush()
            self.hub.released.wait(_HOLD_SECONDS)
            with suppress(OSError):  # nobody waits for the rest any more
                self.wfile.write(sent[len(sent) // 2 :])
        elif body:
            self.wfile.write(bytes([sent[0] ^ 1]) + sent[1:] if fault == "damage" else sent)

    def _fault(self, name: str) -> str:
        waiting = self.hub.faults.get(name)
        return waiting.pop(0) if waiting else ""


def _sibling(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    entry: dict[str, Any] = {"rfilename": path.name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if path.suffix in (".safetensors", ".bin"):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return entry


def _tree_entry(path: Path) -> dict[str, Any]:
    entry = _sibling(path)
    found = {"type": "file", "path": entry["rfilename"], "size": entry["size"], "oid": entry["blobId"]}
    if "lfs" in entry:
        lfs = entry["lfs"]
        found["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return found


@contextmanager
def serving_model(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model of two files of weights, made in `folder`, and the client pointed at it."""
    write_checkpoint(folder / "remote", "transformers-4-mamba", shards=2)
    with serving() as running:
        running.repositories[name] = folder / "remote"
        _point_client_at(running, folder / "cache", monkeypatch)
        yield running
        running.released.set()


def _point_client_at(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's client ask this server, keep what it fetches in `cache`, and make no pauses between tries."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(socket.socket, "connect", _connect_here)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)


def _connect_here(self: socket.socket, address: object) -> None:
    """The socket class's own connect, to this machine only."""
    assert isinstance(address, tuple) and address[0] == "127.0.0.1", address
    _socket.socket.connect(self, address)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
