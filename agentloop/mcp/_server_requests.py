"""Requests of a server to its client: user input (elicitation), a model's answer (sampling), folders (roots)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from textwrap import indent
from typing import Any, cast
from urllib.parse import urlsplit

import mcp_types as types
import msgspec
import trio

from agentloop._core.forms import check_form
from agentloop._core.redaction import names_a_secret
from agentloop._core.response import is_blank
from agentloop._runtime.exception_groups import single
from agentloop._runtime.user_code import describe
from agentloop.errors import BlockedError, LimitReachedError, StreamStateError, ToolDefinitionError, UsageError
from agentloop.mcp._call import Call
from agentloop.mcp._config import ServerConfig
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    File,
    Image,
    Message,
    Text,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings
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
    ) -> types.CreateMessageResult | types.ErrorData:
        """Have the configured model answer, if the user approves: under the limits, hooks and retries of the stream.

        Raises:
          StreamStateError: the call has ended.
        """
        sampling = self._server.sampling
        if sampling is None:
            return refused("no model is configured to answer")
        if not self._may_ask(call):
            return refused(f"more than {MAX_QUESTIONS} questions during one call")
        if params.tools:
            return types.ErrorData(code=types.INVALID_PARAMS, message="tools are not supported in sampling")
        try:
            messages = tuple(_message(message) for message in params.messages)
            settings = ModelSettings(
                temperature=params.temperature,
                max_tokens=params.max_tokens,
                stop=tuple(params.stop_sequences or ()),
            )
        except (ValueError, UsageError) as error:
            return types.ErrorData(code=types.INVALID_PARAMS, message=str(error))
        request = ModelRequest(
            messages,
            params.system_prompt or "",
            settings=settings,
        )
        if self._server.approve_sampling:
            question = f"MCP server {self._server.name!r} wants the model to answer this:\n\n{_shown(request)}"
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
        flaw = _flaw_of(message)
        if flaw:
            return types.ErrorData(code=types.INTERNAL_ERROR, message=f"the model gave no answer: {flaw}")
        return types.CreateMessageResult(
            role="assistant",
            content=types.TextContent(text=message.text),
            model=message.model or model.name,
            stop_reason="maxTokens" if message.stop == "length" else "endTurn",
        )


def elicited(answer: Accept | Decline | Cancel) -> types.ElicitResult:
    """The user's answer as the protocol's result."""
    match answer:
        case Accept(content=content):
            return types.ElicitResult(action="accept", content=content)
        case Decline():
            return types.ElicitResult(action="decline")
        case Cancel():
            return types.ElicitResult(action="cancel")


def _flaw_of(message: AssistantMessage) -> str:
    """Why ``message`` is no answer to a sampling request; empty if it is one. An answer may be cut off."""
    if message.stop == "refusal":
        return "it refused"
    if message.stop == "paused":
        return "it paused"
    return "it said nothing" if is_blank(message.text) else ""


def _message(message: types.SamplingMessage) -> Message:
    parts = [_part(block) for block in message.content_as_list]
    if message.role == "user":
        return UserMessage(tuple(parts))
    texts: list[AssistantPart] = [part for part in parts if isinstance(part, Text)]
    if len(texts) < len(parts):
        raise ValueError("an assistant's message can only be text")
    return AssistantMessage(tuple(texts))


def _part(block: types.SamplingMessageContentBlock) -> UserPart:
    match block:
        case types.TextContent(text=text):
            return Text(text)
        case types.ImageContent(data=data, mime_type=media_type):
            return Image(data=base64.b64decode(data, validate=True), media_type=media_type)
        case types.AudioContent(data=data, mime_type=media_type):
            return File(data=base64.b64decode(data, validate=True), media_type=media_type, name="audio")
        case _:
            raise ValueError("tools are not supported in sampling")


def _shown(request: ModelRequest) -> str:
    """All that would be sent to the model, for the user to approve."""
    settings = request.settings
    values: list[tuple[str, object]] = [
        ("max_tokens", settings.max_tokens),
        ("temperature", settings.temperature),
        ("stop", list(settings.stop) or None),
    ]
    options = ", ".join(f"{name}={value!r}" for name, value in values if value is not None)
    said = [
        ("the model" if isinstance(message, AssistantMessage) else "the user", _shown_parts(message))
        for message in request.messages
    ]
    sections = [("instructions", request.instructions), *said, ("settings", options)]
    # Indented, so that no text can pass for a heading.
    return "\n".join(f"({heading})\n{indent(text, '    ')}" for heading, text in sections if text)


def _shown_parts(message: Message) -> str:
    return "\n".join(part.text if isinstance(part, Text) else _shown_data(part) for part in message.parts)


def _shown_data(part: object) -> str:
    data = getattr(part, "data", None) or b""
    # The digest tells two images apart, and lets a user compare one with a file.
    digest = hashlib.sha256(data).hexdigest()
    return f"[{type(part).__name__.lower()}: {getattr(part, 'media_type', '')}, {len(data)} bytes, sha256 {digest}]"
