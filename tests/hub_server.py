"""A model hub of one repository on the loopback, with the faults of real networks.

Answers what `huggingface_hub` asks (repository information) and serves files with ranges, ETags and redirects.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "a" * 40


@dataclass
class Hub:
    """`files` by name. Faults: `drop` closes each of the next connections after so many bytes; see the flags."""

    files: dict[str, bytes]
    drop: list[int] = field(default_factory=list)
    ignore_range: bool = False
    ignore_if_range: bool = False
    announced: int = 0
    page_instead: bool = False
    wrong_sha256: bool = False
    short_by: int = 0
    status: int = 200
    redirect_to: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def information(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            row: dict[str, Any] = {"rfilename": name, "size": self.announced or len(data), "blobId": "0" * 40}
            if name.endswith((".safetensors", ".gguf")):
                digest = "0" * 64 if self.wrong_sha256 else hashlib.sha256(data).hexdigest()
                row["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(row)
        return {"id": "owner/tiny", "sha": REVISION, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}

    def downloads(self, name: str) -> list[dict[str, str]]:
        """Headers of each request for the file `name`."""
        return [headers for path, headers in self.requests if path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.hub.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path.startswith("/api/models/"):
            self.information()
        else:
            self.file(self.path.split(f"/{REVISION}/", 1)[-1])

    def information(self) -> None:
        known = self.path.split("?")[0].startswith("/api/models/owner/tiny")
        self.answer(200 if known else 404, json.dumps(self.hub.information() if known else {"error": "no"}).encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(body)

    def file(self, name: str) -> None:
        if self.hub.redirect_to:
            self.send_response(302)
            self.send_header("Location", self.hub.redirect_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.hub.page_instead:
            self.answer(200, b"<html>please log in</html>", "text/html")
        elif self.hub.status != 200 or name not in self.hub.files:
            self.answer(self.hub.status if self.hub.status != 200 else 404, b"{}")
        else:
            self.send_file(self.hub.files[name])

    def send_file(self, data: bytes) -> None:
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        start = 0
        asked = self.headers.get("Range")
        unchanged = self.hub.ignore_if_range or self.headers.get("If-Range", etag) == etag
        if asked and not self.hub.ignore_range and unchanged:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        body = data[start : len(data) - self.hub.short_by]
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.hub.drop:
            body = body[: self.hub.drop.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
