"""The chat in a browser: only the page that was given out, on this machine, with its key."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from edgemm.tui.web import refusal

HOST = {"Host": "localhost:8023"}


@pytest.mark.parametrize(
    ("headers", "cookie", "query", "why"),
    [
        (HOST, "key", "", ""),
        (HOST, "", "key", ""),
        (HOST | {"Origin": "http://localhost:8023"}, "key", "", ""),
        (HOST, "", "", "no key"),
        (HOST, "kez", "ke", "no key"),
        (HOST, "", "k\xe9y", "no key"),
        ({"Host": "evil.example"}, "key", "", "another host"),
        ({"Host": "127.0.0.1:8023"}, "key", "", "another host"),
        ({}, "key", "", "another host"),
        (HOST | {"Origin": "http://evil.example"}, "key", "", "another page"),
        (HOST | {"Origin": "null"}, "key", "", "another page"),
    ],
)
def test_who_is_let_in(headers: dict[str, str], cookie: str, query: str, why: str) -> None:
    found = refusal(headers, cookie, query, "key", 8023)
    assert (why in found) if why else not found


@pytest.fixture
def address() -> Iterator[str]:
    """The address that a running server gives out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "edgemm", "chat", "--web", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        yield re.findall(r"http://\S+", line)[0]
        started = time.monotonic()
        server.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        server.wait(10)
        assert time.monotonic() - started < 8
    assert os.name == "nt" or server.returncode in (0, 130)


def fetch(url: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers.get("Content-Security-Policy", "")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), ""


def test_the_page_is_served_to_its_owner_and_asks_no_other_host(address: str) -> None:
    for _ in range(100):
        try:
            status, page, policy = fetch(address)
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    assert status == 200
    assert "default-src 'self'" in policy
    hosts = set(re.findall(r"(?:src|href)=[\"']?https?://([^/\"'>]+)", page))
    assert hosts <= {address.split("/")[2]}
    bare = address.split("?")[0]
    assert fetch(bare)[0] == 403
    assert fetch(address, Origin="http://evil.example")[0] == 403
    assert fetch(address, Host="evil.example")[0] == 403
