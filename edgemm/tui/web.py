"""The chat screen in a browser of this machine: on loopback, and for whoever has the address with its key alone.

Other web pages and other users of the machine can reach a loopback port too. A request must name the host as it was
given out, come from the page itself where a browser says so, and bring the key. It knows no chat.
"""

import re
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from edgemm.errors import MissingExtra
from edgemm.terminal import note

HOST = "localhost"
_COOKIE = "edgemm"
_LINK = re.compile(r"<link\s[^>]*https?://[^>]*>")  # a font of another host: nothing is fetched from anywhere else
_POLICY = (
    "default-src 'self'; connect-src 'self' ws:; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self' data:"
)
Handler = Callable[[Any], Awaitable[Any]]


def serve(arguments: Sequence[str], port: int) -> None:
    """Serve `edgemm ARGUMENTS`, a new process for each browser window, until Ctrl-C. Raises `MissingExtra`."""
    try:
        base = import_module("textual_serve.server").Server
    except ImportError as error:
        raise MissingExtra("chat --web", "textual-serve is not installed", "pip install 'edgemm[web]'") from error
    key = secrets.token_urlsafe(24)

    class Server(base):  # type: ignore[misc, valid-type]
        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(_middleware(key, port))
            return app

        async def on_startup(self, app: Any) -> None:
            note(f"open http://{HOST}:{port}/?key={key} in a browser on this machine; Ctrl-C ends it")

    Server(_command([sys.executable, "-m", "edgemm", *arguments]), host=HOST, port=port, title="edgemm").serve()


def _command(words: Sequence[str]) -> str:
    """One line for the shell of this system."""
    if sys.platform == "win32":
        return subprocess.list2cmdline(words)
    import shlex

    return shlex.join(words)


def refusal(headers: Any, cookie: str, query: str, key: str, port: int) -> str:
    """Why a request is refused; empty: it is not."""
    if headers.get("Host") != f"{HOST}:{port}":
        return "another host was named"
    if headers.get("Origin", f"http://{HOST}:{port}") != f"http://{HOST}:{port}":
        return "it comes from another page"
    if not any(secrets.compare_digest(each.encode(), key.encode()) for each in (cookie, query)):
        return "it has no key"
    return ""


def _middleware(key: str, port: int) -> Any:
    web = import_module("aiohttp.web")

    @web.middleware  # type: ignore[untyped-decorator]
    async def check(request: Any, handler: Handler) -> Any:
        cookie, query = request.cookies.get(_COOKIE, ""), request.query.get("key", "")
        if why := refusal(request.headers, cookie, query, key, port):
            raise web.HTTPForbidden(text=f"refused: {why}\n")
        response = await handler(request)
        if not response.prepared:  # a page, and no socket
            response.headers["Content-Security-Policy"] = _POLICY
            if query:
                response.set_cookie(_COOKIE, key, httponly=True, samesite="Strict")
            if response.content_type == "text/html":
                response.text = _LINK.sub("", response.text)
        return response

    return check
