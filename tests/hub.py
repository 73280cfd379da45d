"""A server on this machine that speaks as much of the hub's protocol as its client uses.

Datasets are folders. A revision is the hash of what is in the folder, so that a file that changes
makes another one; the branch ``main`` is the newest. Files are served by ranges from another
address, to which there is a redirect. Answers can be made to fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Hub", "flaky", "hub_serving"]

#: What may happen to an answer: None, or one of "500", "429", "drop", "truncate", "slow".
Fault = Callable[[str], str | None]


def flaky(seed: int, part: float = 0.05) -> Fault:
    """Of the answers with a file such a part fails, as many are truncated, and as many are slow."""
    chance, lock = random.Random(seed), threading.Lock()

    def fault(path: str) -> str | None:
        if not path.startswith("/cdn/"):
            return None
        with lock:
            drawn, which = chance.random(), chance.choice(("500", "429", "drop"))
        if drawn < part:
            return which
        if drawn < 2 * part:
            return "truncate"
        return "slow" if drawn < 3 * part else None

    return fault


@dataclass
class Hub:
    """What is served, and what was asked for.

    Parameters
    ----------
    endpoint : str
        Address of the server.
    folder : pathlib.Path
        A folder for each dataset, ``owner/name``, and for each other branch of it,
        ``owner/name@branch``.
    token : str or None
        What must be sent along, if anything.
    latency : float
        Seconds that every answer takes.
    """

    endpoint: str
    folder: Path
    token: str | None = None
    latency: float = 0.0
    fault: Fault = lambda _: None
    sent: int = 0
    faults: Counter = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    revisions: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The revision's hash, and its files."""
        place = self.folder / repo
        if not place.is_dir():
            return None
        if (repo, revision) in self.revisions:
            return revision, self.revisions[repo, revision]
        if revision != "main":
            place = self.folder / f"{repo}@{revision.replace('/', '-')}"
            if not place.is_dir():
                return None
        found = {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
        digest = hashlib.sha1(b"".join(k.encode() + v for k, v in found.items())).hexdigest()
        self.revisions[repo, digest] = found
        return digest, found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
        time.sleep(self.hub.latency)
        kind = self.hub.fault(path)
        if kind is not None:
            with self.hub.lock:
                self.hub.faults[kind] += 1
        if kind == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if kind in ("429", "500"):
            headers = {"Retry-After": "0"} if kind == "429" else {}
            self._answer(int(kind), b"not now", headers)
            return
        if kind == "slow":
            time.sleep(0.25)
        sent = self.headers.get("Authorization")
        if self.hub.token and sent != f"Bearer {self.hub.token}" and not path.startswith("/cdn/"):
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        self._route(path, query, kind)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", self.path)
        found = match and self.hub.files(match[1], unquote(match[2]))
        if not found:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        fields = parse_qs(body.decode())
        wanted = fields.get("paths", []) if fields else json.loads(body)["paths"]
        infos = [_info(name, found[1][name]) for name in wanted if name in found[1]]
        self._json(infos)

    def _route(self, path: str, query: dict[str, list[str]], kind: str | None) -> None:
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            found = self.hub.files(match[1], match[2] or "main")
            if found is None:
                code = (
                    "RevisionNotFound" if (self.hub.folder / match[1]).is_dir() else "RepoNotFound"
                )
                self._answer(404, b"{}", {"X-Error-Code": code})
                return
            siblings = [{"rfilename": name} for name in found[1]]
            self._json({"id": match[1], "sha": found[0], "siblings": siblings, "tags": []})
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            self._tree(match[1], match[2], match[3], query)
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            found = self.hub.files(match[1], match[2])
            if found is None or match[3] not in found[1]:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            place = f"{self.hub.endpoint}/cdn/{match[1]}/{found[0]}/{match[3]}"
            headers = {"Location": place, "X-Repo-Commit": found[0]}
            self._answer(302, b"", headers)
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._file(self.hub.revisions[match[1], match[2]][match[3]], kind)
        else:
            self._answer(404, b"{}")

    def _tree(self, repo: str, revision: str, below: str, query: dict[str, list[str]]) -> None:
        found = self.hub.files(repo, revision)
        prefix = f"{below}/" if below else ""
        names = [name for name in found[1] if name.startswith(prefix)] if found else []
        if found is None or (below and not names):
            code = "RevisionNotFound" if found is None else "EntryNotFound"
            self._answer(404, b"{}", {"X-Error-Code": code})
            return
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries, folders = [], set()
        for name in names:
            parts = name.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folders.add(prefix + "/".join(parts[:depth]))
            if recursive or len(parts) == 1:
                entries.append(_info(name, found[1][name]))
        entries += [
            {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "path": name,
             "size": 0}
            for name in sorted(folders)
        ]  # fmt: skip
        self._json(entries)

    def _file(self, content: bytes, kind: str | None) -> None:
        start, stop, status = 0, len(content), 200
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            stop = min(int(match[2]) + 1 if match[2] else len(content), len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._answer(status, content[start:stop], headers, truncate=kind == "truncate")

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        truncate: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if truncate:
            content = content[: len(content) // 2]
        with self.hub.lock:
            self.hub.sent += len(content)
        self.wfile.write(content)
        if truncate:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def _info(name: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha1(content).hexdigest()
    return {"type": "file", "oid": digest, "size": len(content), "path": name}


class _Server(ThreadingHTTPServer):
    """One whose connections end with it."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def hub_serving(folder: Path, **options: object) -> Iterator[Hub]:
    """A server of the datasets in a folder, while the context lasts."""
    handler = type("Handler", (_Handler,), {})
    # Where the client, which asks when it is imported, was told that the hub is: see conftest.py.
    endpoint = os.environ["HF_ENDPOINT"]
    server = _Server(("127.0.0.1", urlsplit(endpoint).port), handler)
    hub = Hub(endpoint, folder, **options)  # type: ignore[arg-type]
    handler.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
