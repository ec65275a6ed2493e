"""A hub on loopback that speaks what huggingface_hub asks of the real one, and misbehaves by script.

    GET /api/models/ORG/NAME/revision/REV   commit and files, with sizes and digests
    GET /ORG/NAME/resolve/REV/FILE          content; ranges; ETag, X-Repo-Commit, X-Linked-Size

A fault is taken from the script by the first request whose path holds its `where`.
"""

import contextlib
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LFS_FROM = 1000  # bytes; smaller files are plain git blobs


@dataclass
class Repo:
    """`commits`: revision to files; `main` is `default`."""

    commits: dict[str, dict[str, bytes]]
    default: str = COMMIT

    def commit(self, revision: str) -> str | None:
        revision = self.default if revision == "main" else revision
        return revision if revision in self.commits else None


@dataclass
class Fault:
    """`kind`: a status ("401"), `gated`, `cut` (after `at` bytes), `short` (announces and sends `at` bytes),
    `long` (sends more), `slow` (`seconds` before the body), `stall` (`at` bytes, then nothing for `seconds`),
    `corrupt`, `html`, `redirect` (to the same path at `to`). `headers`: of an answer that is a status.
    """

    where: str
    kind: str
    times: int = 1
    at: int = 0
    seconds: float = 0.0
    to: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    token: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    tokens: list[str | None] = field(default_factory=list)
    bytes_served: int = 0
    sizes: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, repo_id: str, files: dict[str, bytes], commit: str = COMMIT) -> Repo:
        repo = self.repos.setdefault(repo_id, Repo({}))
        repo.commits[commit] = files
        repo.default = commit
        return repo

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.where in path:
                    fault.times -= 1
                    return fault
        return None

    def gets(self, name: str) -> list[str | None]:
        """The Range headers of the requests for a file, in order."""
        return [asked for path, asked in self.requests if path.endswith(f"/{name}")]

    @property
    def content_requests(self) -> list[str]:
        return [path for path, _ in self.requests if "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        with self.hub.lock:
            self.hub.requests.append((path, self.headers.get("Range")))
            self.hub.agents.add(self.headers.get("User-Agent", ""))
            self.hub.tokens.append(self.headers.get("Authorization"))
        fault = self.hub.fault(path)
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "redirect":
            self._answer(302, b"", {"Location": fault.to + self.path})
            return
        if fault is not None and fault.kind == "html":
            self._answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
            return
        if fault is not None and (fault.kind.isdigit() or fault.kind == "gated"):
            self._refuse(fault.kind, fault.headers)
            return
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._refuse("gated" if "/resolve/" in path else "401")
            return
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        else:
            self._content(path, fault)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _info(self, rest: str) -> None:
        repo_id, _, revision = rest.partition("/revision/")
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self._answer(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return
        commit = repo.commit(revision or "main")
        if commit is None:
            self._answer(404, b'{"error":"Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [self._sibling(name, content) for name, content in repo.commits[commit].items()]
        body = {"_id": "1", "id": repo_id, "modelId": repo_id, "sha": commit, "private": False, "siblings": siblings}
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        if not self.hub.sizes:
            return {"rfilename": name}
        found: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
        if len(content) >= LFS_FROM:
            digest = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return found

    def _content(self, path: str, fault: Fault | None) -> None:
        repo_id, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        repo = self.hub.repos.get(repo_id)
        commit = repo.commit(revision) if repo else None
        if repo is None or commit is None or name not in repo.commits[commit]:
            self._answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            return
        content = repo.commits[commit][name]
        etag = hashlib.sha256(content).hexdigest() if len(content) >= LFS_FROM else blob_id(content)
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }
        start, status = 0, 200
        if asked := self.headers.get("Range"):
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(status, content[start:], headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        announced = len(body)
        if fault is not None and kind == "short":
            body, announced = body[: fault.at], fault.at
        if kind == "long":
            body, announced = body + b"more", len(body) + 4
        if kind == "corrupt":
            body = bytes([body[0] ^ 255]) + body[1:]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and kind in ("cut", "stall"):
            self._write(body[: fault.at])
            time.sleep(fault.seconds)
            self.close_connection = True
            return
        self._write(body)

    def _write(self, body: bytes) -> None:
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return
        with self.hub.lock:
            self.hub.bytes_served += len(body)

    def _refuse(self, kind: str, headers: dict[str, str] | None = None) -> None:
        if kind == "gated":
            self._answer(403, b"Access to this model is restricted", {"X-Error-Code": "GatedRepo"})
            return
        self._answer(int(kind), b"{}", headers or {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):  # the client lost its patience
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


def blob_id(content: bytes) -> str:
    """git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
