"""The page at ``/``, on which people talk to the agents: files, and the headers that they are sent with.

The files are the same for everybody, so they need no principal: the page asks for a token, and its requests carry it.
They are a fixed table, read once, so no path leads out of their folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

__all__ = ["Page", "as_visitor"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    # Pictures of the conversation come inside of its events.
    "img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # No script can have a text parsed as markup.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The content security policy of the page."""

HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Page:
    """The files of the page, by the path that each is served at."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        for file in resources.files("agentloop.serving").joinpath("page").iterdir():
            media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
            if media_type is not None:
                path = "/" if file.name == "index.html" else f"/page/{file.name}"
                self._files[path] = (file.read_bytes(), media_type)

    def routes(self) -> list[Route]:
        """An endpoint for each file."""
        return [Route(path, self._file, methods=["GET"]) for path in self._files]

    def has(self, scope: Scope) -> bool:
        """Whether a request is for a file of the page."""
        return scope["method"] == "GET" and _path(scope) in self._files

    async def _file(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        content, media_type = self._files[_path(request.scope)]
        return Response(content, media_type=media_type, headers=HEADERS)


def as_visitor(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request for the page, for the check of its site.

    A link on another site may lead to the page, unlike to an endpoint: the page does nothing by itself, and no other
    page can have it in a frame.
    """
    if headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document":
        return {name: value for name, value in headers.items() if name != "sec-fetch-site"}
    return headers


def _path(scope: Scope) -> str:
    """The path of a request within the app, which may be mounted inside of another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"
