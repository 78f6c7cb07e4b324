"""The chat screen in a browser of this machine: on loopback, and for whoever has the address with its key alone.

Other web pages and other users of the machine can reach a loopback port too. So the key is a part of every path, and
no cookie, which a browser would give to every other port of this machine; a request must also name the host as it was
given out, and come from the page itself where a browser says so. It knows no chat.
"""

import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from edgemm.errors import MissingExtra, UsageError
from edgemm.terminal import note

HOST = "localhost"
_LINK = re.compile(rf"<link\s[^>]*https?://(?!{HOST}:)[^>]*>")  # a font of another host: nothing is fetched from there
Handler = Callable[[Any], Awaitable[Any]]


def serve(arguments: Sequence[str], port: int) -> None:
    """Serve `edgemm ARGUMENTS`, a new process for each browser window, until Ctrl-C.

    Raises `MissingExtra`, and `UsageError` for a port that is taken.
    """
    try:
        base, web = import_module("textual_serve.server").Server, import_module("aiohttp.web")
    except ImportError as error:
        raise MissingExtra("chat --web", "textual-serve is not installed", "pip install 'edgemm[web]'") from error
    _check_free(port)
    key = secrets.token_urlsafe(24)

    class Server(base):  # type: ignore[misc, valid-type]
        def initialize_logging(self) -> None:
            """No line for each request: the key stands in it."""

        async def _make_app(self) -> Any:
            whole = web.Application(middlewares=[_middleware(port)])
            whole.add_subapp(f"/{key}", await super()._make_app())
            return whole

        async def on_startup(self, app: Any) -> None:
            note(f"open http://{HOST}:{port}/{key}/ in a browser on this machine; Ctrl-C ends it")

    Server(_command([sys.executable, "-m", "edgemm", *arguments]), host=HOST, port=port, title="edgemm").serve()


def _command(words: Sequence[str]) -> str:
    """One line for the shell of this system."""
    if sys.platform == "win32":
        return subprocess.list2cmdline(words)
    import shlex

    return shlex.join(words)


def _check_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise UsageError(f"port {port}", error.strerror or str(error), "choose another one with --port") from error


def refusal(headers: Mapping[str, str], port: int) -> str:
    """Why a request is refused; empty: it is not."""
    if headers.get("Host") != f"{HOST}:{port}":
        return "another host was named"
    if headers.get("Origin", f"http://{HOST}:{port}") != f"http://{HOST}:{port}":
        return "it comes from another page"
    return ""


def _policy(port: int) -> dict[str, str]:
    """Headers that keep the page from asking any other host, and other pages from framing it."""
    inline = "'self' 'unsafe-inline'"
    rules = (
        f"default-src 'self'; connect-src 'self' ws://{HOST}:{port}; script-src {inline}; style-src {inline}; "
        "img-src 'self' data:; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": rules, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


def _middleware(port: int) -> Any:
    web = import_module("aiohttp.web")

    @web.middleware  # type: ignore[untyped-decorator]
    async def check(request: Any, handler: Handler) -> Any:
        if why := refusal(request.headers, port):
            raise web.HTTPForbidden(text=f"refused: {why}\n")
        response = await handler(request)
        if not response.prepared:  # a page, and no socket
            response.headers.update(_policy(port))
            if response.content_type == "text/html":
                response.text = _LINK.sub("", response.text)
        return response

    return check
