"""A Hub on this machine: a server that speaks the protocol of the Hugging Face Hub.

The address of the Hub is read when huggingface_hub is imported, so each load is a fresh process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


class Hub(BaseHTTPRequestHandler):
    """Public repositories someone/NAME: the files of directories NAME.

    Attributes:
        root: Where the directories are.
        sent: Names of the files whose contents were asked for.
        large: Large files that were uploaded, by their sums.
    """

    root: Path
    sent: list[str]
    large: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if not (self.root / parts[3]).is_dir():
                return self.send(b"{}", with_body=with_body, status=404, code="RepoNotFound")
            content = self.describe(parts[3], tree="tree" in parts)
            return self.send(json.dumps(content).encode(), with_body=with_body)
        file = self.root / parts[1] / parts[-1]
        if "resolve" not in parts or not file.is_file():
            return self.send(b"", with_body=with_body, status=404, code="EntryNotFound")
        if with_body:
            self.sent.append(file.name)
        return self.send(file.read_bytes(), with_body=with_body)

    def do_POST(self) -> None:
        """What `create_repo` and `create_commit` ask; what is committed is there afterwards."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(b'{"error": "Invalid token"}', with_body=True, status=401)
        answer = self.answer_to(parts, body)
        return self.send(json.dumps(answer).encode(), with_body=True)

    def do_PUT(self) -> None:
        """A large file, named by its sum."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.large[hashlib.sha256(data).hexdigest()] = data
        self.send(b"", with_body=True)

    def answer_to(self, parts: list[str], body: bytes) -> Any:
        """The answer to a writer."""
        address = f"http://{self.headers['Host']}"
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            (self.root / wanted["name"]).mkdir(parents=True, exist_ok=True)
            return {"url": f"{address}/{wanted['organization']}/{wanted['name']}"}
        if parts == ["api", "validate-yaml"]:
            assert json.loads(body)["content"].startswith("---\n")
            return {"errors": [], "warnings": []}
        if "preupload" in parts:
            files = json.loads(body)["files"]
            kinds = {True: "lfs", False: "regular"}
            names = [file["path"] for file in files]
            return {
                "files": [
                    {"path": n, "uploadMode": kinds[n.endswith("tensors")], "shouldIgnore": False}
                    for n in names
                ]
            }
        if parts[-2:] == ["objects", "batch"]:
            objects = json.loads(body)["objects"]
            upload = {"upload": {"href": f"{address}/large"}}
            return {"transfer": "basic", "objects": [{**o, "actions": upload} for o in objects]}
        assert "commit" in parts, parts
        for line in map(json.loads, body.splitlines()):
            file = self.root / parts[3] / str(line["value"].get("path"))
            if line["key"] == "lfsFile":
                file.write_bytes(self.large[line["value"]["oid"]])
            elif line["key"] == "file":
                file.write_bytes(base64.b64decode(line["value"]["content"]))
            elif line["key"] == "deletedFile":
                file.unlink()
        commit = f"{address}/{parts[2]}/{parts[3]}/commit/{REVISION}"
        return {"commitUrl": commit, "commitOid": REVISION, "pullRequestUrl": None}

    def describe(self, name: str, *, tree: bool) -> Any:
        files = [
            {key: file.name, "type": "file", "size": file.stat().st_size, "oid": "0" * 40}
            for key in ["path" if tree else "rfilename"]
            for file in sorted((self.root / name).iterdir())
        ]
        about = {"id": f"someone/{name}", "sha": REVISION, "tags": [], "siblings": files}
        return files if tree else about

    def send(
        self, content: bytes, *, with_body: bool, status: int = 200, code: str | None = None
    ) -> None:
        start, end = 0, len(content)
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last) + 1) if last else end
            status = 206
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


def environment_of(address: str, home: Path) -> dict[str, str]:
    """The environment of a process for which this is the Hub, and `home` its place for files."""
    return {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(home / "home"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
