"""The picture of a session's runs: a page that follows them, and its data.

Only the session's principal gets the page, as with all endpoints of the session. A link cannot carry a bearer token:
where principals have tokens, a program requests the page with the header, and saves it as a file, which does not follow
the session. Looking at the picture never resumes a run: the page reads the events of the session only while a run is
live in this server.
"""

from __future__ import annotations

import time
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentloop.picture import draw_data, draw_html
from agentloop.picture._command import read_picture
from agentloop.picture._html import policy
from agentloop.serving._connections import JsonResponse
from agentloop.serving._errors import Refusal
from agentloop.serving._service import Service

__all__ = ["picture_routes"]

HEADERS = {
    "content-security-policy": policy(is_live=True) + "; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def picture_routes(service: Service) -> list[Route]:
    """The endpoint of the picture, on the sessions of one service."""

    async def picture(request: Request) -> Response:
        """The page; or its data, with ``format=json``: nothing if the session has ``records`` records, as before."""
        session = service.session(request)
        query = request.query_params
        if query.get("format", "html") not in ("html", "json"):
            raise Refusal(400, "format= is html or json")
        info = await service.runs.store.info(session)
        if info is None:
            raise Refusal(404, "there is no such session, before its first prompt")
        if query.get("records") == str(info.records):
            return Response(status_code=204)
        now = time.time()
        if query.get("format") == "json":
            is_live = service.runs.is_running(info)
            data = msgspec.Raw(await read_picture(service.runs.store, info, draw_data, now=now))
            return JsonResponse({"live": is_live, "records": info.records, "picture": data})
        page = await read_picture(service.runs.store, info, partial(draw_html, is_live=True), now=now)
        return Response(page, media_type="text/html; charset=utf-8", headers=HEADERS)

    return [Route("/sessions/{session}/picture", picture, methods=["GET"])]
