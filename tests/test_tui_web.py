"""The chat in a browser: only the page that was given out, on this machine, with its key."""

import asyncio
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
from pathlib import Path

import aiohttp
import psutil
import pytest
import tiny_gguf
from conftest import Cli

from edgemm.tui.web import refusal

HOST = {"Host": "localhost:8023"}


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (HOST, ""),
        (HOST | {"Origin": "http://localhost:8023"}, ""),
        ({"Host": "evil.example"}, "another host"),
        ({"Host": "evil.example:8023"}, "another host"),
        ({"Host": "localhost"}, "another host"),
        ({"Host": "127.0.0.1:8023"}, "another host"),
        ({}, "another host"),
        (HOST | {"Origin": "http://evil.example"}, "another page"),
        (HOST | {"Origin": "http://localhost:9999"}, "another page"),
        (HOST | {"Origin": "https://localhost:8023"}, "another page"),
        (HOST | {"Origin": "null"}, "another page"),
        (HOST | {"Origin": ""}, "another page"),
    ],
)
def test_who_is_let_in(headers: dict[str, str], why: str) -> None:
    found = refusal(headers, 8023)
    assert (why in found) if why else not found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address that a running server gives out, and its process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    command = [sys.executable, "-m", "edgemm", "chat", "--web", "--port", str(port), "-m", str(model)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = re.findall(r"http://\S+", process.stderr.readline())[0]
        for _ in range(200):  # the address is told before the first request is taken
            if fetch(address)[0]:
                break
            time.sleep(0.05)
        yield address, process
        if process.poll() is None:
            process.kill()


def fetch(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, text and policy; status 0: nobody is there."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers.get("Content-Security-Policy", "")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), ""
    except urllib.error.URLError:
        return 0, "", ""


def test_the_page_is_served_to_its_owner_and_asks_no_other_host(server: tuple[str, "subprocess.Popen[str]"]) -> None:
    address, _ = server
    host, key = address.split("/")[2:4]
    status, page, policy = fetch(address)
    assert status == 200
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert set(re.findall(r"https?://[^/\"'<>\s]+", page)) <= {f"http://{host}", "http://www.w3.org"}
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert {link.rsplit("/", 1)[1] for link in links} == {"xterm.css", "textual.js"}
    for link in links:
        assert fetch(link)[0] == 200, "what the page needs is there"
        text = fetch(link)[1]
        assert not re.findall(r"(?:@import|url\()\s*[\"']?https?:", text)
    for path in ("", f"{key[:-1]}/", f"{key}x/", "static/js/textual.js", "ws", f"?key={key}"):
        assert fetch(f"http://{host}/{path}")[0] == 404, "without its key nothing is there"
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        assert fetch(address, **headers)[0] == 403


def test_a_chat_runs_in_the_page_and_no_other_page_reaches_it(server: tuple[str, "subprocess.Popen[str]"]) -> None:
    address, process = server

    async def status(url: str, origin: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(url, headers={"Origin": origin}):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    async def use() -> bytes:
        seen = b""
        async with aiohttp.ClientSession() as session:
            own = {"Origin": address.rsplit("/", 2)[0]}
            async with session.ws_connect(f"{address}ws?width=90&height=20", headers=own) as page:
                while b"new chat" not in seen:
                    message = await page.receive(timeout=30)
                    seen += message.data if isinstance(message.data, bytes) else b""
        return seen

    assert b"new chat" in asyncio.run(use())
    assert asyncio.run(status(f"{address}ws", "http://evil.example")) == 403
    assert asyncio.run(status(f"{address.rsplit('/', 2)[0]}/ws", address.rsplit("/", 2)[0])) == 404
    end = time.monotonic() + 20
    while psutil.Process(process.pid).children(recursive=True):
        assert time.monotonic() < end, "the program of a closed page goes on"
        time.sleep(0.1)


@pytest.mark.skipif(os.name == "nt", reason="there a signal ends a process at once")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_ends_cleanly(name: str, server: tuple[str, "subprocess.Popen[str]"]) -> None:
    address, process = server
    assert fetch(address)[0] == 200
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=10)
    assert process.returncode in (0, 130)
    assert (out, err) == ("", ""), "no traceback, and no line for each request"


def test_a_taken_port_is_told_in_one_line(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("chat", "--web", "--port", port)
    assert done.returncode == 2
    assert f"port {port}: " in done.stderr
    assert "choose another one with --port" in done.stderr
    assert len(done.stderr.splitlines()) == 1
