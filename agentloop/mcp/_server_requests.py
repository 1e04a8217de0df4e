"""Requests of a server to its client: user input (elicitation), a model's answer (sampling), folders (roots)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import mcp_types as types
import msgspec
import trio

from agentloop._core.forms import check_form
from agentloop._core.redaction import names_a_secret
from agentloop._runtime.exception_groups import single
from agentloop._runtime.user_code import describe
from agentloop.errors import BlockedError, LimitReachedError, StreamStateError, ToolDefinitionError, UsageError
from agentloop.mcp._call import Call
from agentloop.mcp._config import ServerConfig
from agentloop.mcp._sampling import SamplingRequest, has_tools, shown
from agentloop.providers import find_model
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["MAX_QUESTIONS", "ServerRequests", "refused", "secrets_in"]

USER_REJECTED = -1
"""The error code of the protocol's examples for a user who rejects a sampling request."""

MAX_QUESTIONS = 50
"""Questions of a server, to the user or to the model, that are put during one call. Further ones are declined."""

SAMPLING_SECONDS = 300.0
"""Seconds in which the model must answer a sampling request."""


def refused(why: str) -> types.ErrorData:
    """The error that refuses a sampling request, with the reason ``why``."""
    return types.ErrorData(code=USER_REJECTED, message=why)


def secrets_in(form: Mapping[str, Any]) -> list[str]:
    """The names of the fields of a form that seem to ask for a secret, by their name, title or format."""
    try:
        fields = msgspec.convert(form.get("properties", {}), dict[str, _Field])
    except msgspec.ValidationError:
        # Not a form: `ToolContext.ask` raises the error that says so.
        return []
    return [name for name, field in fields.items() if field.is_secret(name)]


def _usual(form: Mapping[str, Any]) -> dict[str, Any]:
    """``form`` without flaws that keep no user from filling it in: keywords of ``null``, defaults that do not fit."""
    form = {key: value for key, value in form.items() if value is not None}
    fields: Any = form.get("properties")
    if isinstance(fields, dict):
        form["properties"] = {name: _usual_field(name, field) for name, field in cast("dict[str, Any]", fields).items()}
    return form


def _usual_field(name: str, field: Any) -> Any:
    if not isinstance(field, dict):
        return field
    usual = {key: value for key, value in cast("dict[str, Any]", field).items() if value is not None}
    if isinstance(usual.get("enum"), list):
        usual["enum"] = [choice for choice in usual["enum"] if choice is not None]
    without = {key: value for key, value in usual.items() if key != "default"}
    # A default that does not fit is the only flaw that its absence mends.
    return without if _is_field(name, without) and not _is_field(name, usual) else usual


def _is_field(name: str, field: dict[str, Any]) -> bool:
    try:
        check_form({"type": "object", "properties": {name: field}})
    except ToolDefinitionError:
        return False
    return True


def _is_web_page(url: str) -> bool:
    try:
        return url.lower().startswith(("http://", "https://")) and bool(urlsplit(url).hostname)
    except ValueError:
        return False


class _Field(msgspec.Struct, rename="camel"):
    type: Any = None
    title: Any = None
    format: Any = None
    write_only: Any = False
    enum: Any = None
    one_of: Any = None

    def is_secret(self, name: str) -> bool:
        if self.format == "password" or self.write_only is True:
            return True
        if self.type in ("boolean", "array") or self.enum is not None or self.one_of is not None:
            # A choice: the server knows the values.
            return False
        return names_a_secret(name) or names_a_secret(str(self.title or ""))


class ServerRequests:
    """Answers the requests of a server on behalf of a call.

    Args:
      server: its configuration, which says which requests it may make.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server

    @property
    def sampling_capability(self) -> types.SamplingCapability | None:
        """What the client tells the server of sampling with tools; ``None`` for nothing."""
        return types.SamplingCapability(tools=types.SamplingToolsCapability()) if self._server.sampling_tools else None

    @property
    def samples(self) -> bool:
        """Whether a model is configured for sampling requests."""
        return self._server.sampling is not None

    def roots(self) -> types.ListRootsResult:
        """The folders that the server may work in."""
        return types.ListRootsResult.model_validate({"roots": [{"uri": uri} for uri in self._server.roots]})

    async def answer(self, call: Call, request: types.InputRequest) -> types.InputResponse | types.ErrorData:
        """Answer a request that arrived as the result of a call, with an error if the configuration refuses it."""
        match request:
            case types.ElicitRequest(params=params) if self._server.elicitation:
                return await self.elicit(call, params)
            case types.CreateMessageRequest(params=params) if self.samples:
                return await self.sample(call, params)
            case types.ListRootsRequest() if self._server.roots:
                return self.roots()
            case _:
                return types.ErrorData(
                    code=types.METHOD_NOT_FOUND, message=f"{request.method} is not among the client's capabilities"
                )

    # ------------------------------------------------------------------------ the user

    async def elicit(self, call: Call, params: types.ElicitRequestParams) -> types.ElicitResult | types.ErrorData:
        """Ask the user, through the stream of ``call``.

        Raises:
          StreamStateError: the call has ended.
        """
        if not self._may_ask(call):
            return types.ElicitResult(action="decline")
        if isinstance(params, types.ElicitRequestURLParams):
            if not _is_web_page(params.url):
                self._decline_for(call, f"wants the user to open {params.url!r}, which is not a web page")
                return types.ElicitResult(action="decline")
            answer = elicited(await call.questions.ask(params.message, url=params.url))
            # The protocol has content in answers to forms only.
            answer.content = None
            return answer
        form = _usual(params.requested_schema)
        secrets = [] if self._server.ask_secrets else secrets_in(form)
        if secrets:
            self._decline_for(call, f"asks for a secret in a form ({', '.join(secrets)})")
            return types.ElicitResult(action="decline")
        try:
            return elicited(await call.questions.ask(params.message, form))
        except ToolDefinitionError as error:
            return types.ErrorData(code=types.INVALID_PARAMS, message=f"not a form as MCP allows it: {error}")

    def _may_ask(self, call: Call) -> bool:
        """Whether the server may ask once more during the call. A hostile one would ask for ever."""
        call.questions.count += 1
        if call.questions.count == MAX_QUESTIONS + 1:
            self._decline_for(call, f"asked more than {MAX_QUESTIONS} questions during one call")
        return call.questions.count <= MAX_QUESTIONS

    def _decline_for(self, call: Call, why: str) -> None:
        call.warn("question_refused", f"MCP server {self._server.name!r} {why}; it was declined")

    # ----------------------------------------------------------------------- the model

    async def sample(
        self, call: Call, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
        """Have the configured model answer, if the user approves: under the limits, hooks and retries of the stream.

        Raises:
          StreamStateError: the call has ended.
        """
        sampling = self._server.sampling
        if sampling is None:
            return refused("no model is configured to answer")
        if not self._may_ask(call):
            return refused(f"more than {MAX_QUESTIONS} questions during one call")
        if not self._server.sampling_tools and has_tools(params):
            return types.ErrorData(code=types.INVALID_PARAMS, message="tools are not supported in sampling")
        try:
            sampling_request = SamplingRequest(params)
            request = sampling_request.for_model()
        except (ValueError, UsageError) as error:
            return types.ErrorData(code=types.INVALID_PARAMS, message=str(error))
        if self._server.approve_sampling:
            question = f"MCP server {self._server.name!r} wants the model to answer this:\n\n{shown(request)}"
            answer = await call.questions.ask(question)
            if not isinstance(answer, Accept):
                return refused("the user rejected the request")
        try:
            model = find_model(sampling) if isinstance(sampling, str) else sampling
            with trio.fail_after(SAMPLING_SECONDS):
                message = await call.context.ask_model(request, model=model)
        except StreamStateError:
            raise
        except LimitReachedError as error:
            call.warn_once("question_refused", f"MCP server {self._server.name!r} may not ask the model: {error}")
            return refused("the client has reached its limits")
        except BlockedError:
            return refused("the client refused the request")
        except Exception as error:  # noqa: BLE001 - the server gets any error as its answer
            return types.ErrorData(
                code=types.INTERNAL_ERROR, message=f"the model gave no answer: {describe(single(error))}"
            )
        flaw = sampling_request.flaw_of(message)
        if not flaw:
            return sampling_request.answer_of(message, message.model or model.name)
        return types.ErrorData(code=types.INTERNAL_ERROR, message=f"the model gave no answer: {flaw}")


def elicited(answer: Accept | Decline | Cancel) -> types.ElicitResult:
    """The user's answer as the protocol's result."""
    match answer:
        case Accept(content=content):
            return types.ElicitResult(action="accept", content=content)
        case Decline():
            return types.ElicitResult(action="decline")
        case Cancel():
            return types.ElicitResult(action="cancel")
