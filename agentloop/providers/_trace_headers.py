"""The headers by which a model's server continues the trace of a run: ``traceparent`` and the like."""

from __future__ import annotations

import logging
import re

from agentloop._runtime.logs import HTTP, log
from agentloop.observers import TRACE_HEADERS

__all__ = ["trace_headers"]

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[!-~](?:[ -~]{0,8000}[!-~])?")


def trace_headers() -> dict[str, str]:
    """The headers to send with a request; empty if no observer traces this run.

    They come from other code, and parts of them from other machines, so those that are no valid headers are left out.
    """
    provide = TRACE_HEADERS.get()
    if provide is None:
        return {}
    try:
        headers = provide()
        return {name: value for name, value in headers.items() if _NAME.fullmatch(name) and _VALUE.fullmatch(value)}
    except Exception as error:  # noqa: BLE001 - a tracer that fails must not fail the request
        log(HTTP, logging.ERROR, "the headers of the trace are not sent", error=error)
        return {}
