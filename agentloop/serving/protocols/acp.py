"""ACP, the Agent Client Protocol, version 1: an editor runs an agent, and shows its events.

Pure functions: the parameters of the editor's requests to prompts, events to ``session/update``, questions to requests
to the editor, and their results to answers. `agentloop.serving._acp` has the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    UsageReported,
)
from agentloop.messages import File, Image, Prompt, Text, Usage, UserMessage, UserPart
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import Verdict, answer_to, commands_of, failure_of, media, media_of, prompt_of

__all__ = [
    "AcpEncoder",
    "ClientForms",
    "answer_of",
    "commands_update",
    "error_code",
    "initialized",
    "read_prompt",
    "request_for",
    "result_of",
]

VERSION = 1

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
NOT_FOUND = -32002
"""ACP's own code, for a session that is not there."""

STOP_REASONS: Mapping[str, str] = {
    "completed": "end_turn",
    "cancelled": "cancelled",
    "limit": "max_turn_requests",
    "blocked": "refusal",
}


class ClientForms(msgspec.Struct, frozen=True):
    """The kinds of questions that the editor can show, besides approvals."""

    form: bool = False
    """Whether it shows a form."""
    url: bool = False
    """Whether it opens an address."""


def error_code(status: int) -> int:
    """The JSON-RPC code of a refusal with the HTTP ``status``."""
    codes = {400: INVALID_PARAMS, 422: INVALID_PARAMS, 404: NOT_FOUND, 409: INVALID_REQUEST, 413: INVALID_REQUEST}
    return codes.get(status, INTERNAL_ERROR)


def initialized(params: Mapping[str, Any], name: str, version: str) -> tuple[dict[str, Any], ClientForms]:
    """The result of ``initialize``, and the editor's forms."""
    client = params.get("clientCapabilities")
    elicitation = client.get("elicitation") if is_object(client) else None
    modes = elicitation if is_object(elicitation) else {}
    capabilities = {
        "loadSession": True,
        "promptCapabilities": {"image": True, "audio": False, "embeddedContext": True},
        "mcpCapabilities": {"http": False, "sse": False},
    }
    result: dict[str, Any] = {
        "protocolVersion": VERSION,
        "agentCapabilities": capabilities,
        "agentInfo": {"name": name, "version": version},
        "authMethods": [],
    }
    return result, ClientForms(form=is_object(modes.get("form")), url=is_object(modes.get("url")))


# -------------------------------------------------------------------------------- prompts


def read_prompt(blocks: Any) -> UserMessage:
    """The prompt of ``session/prompt``. Raises `Refusal`."""
    if not is_array(blocks):
        raise Refusal(400, "the prompt is a list of blocks")
    parts: Prompt = [part for block in blocks for part in _parts(block)]
    return prompt_of(parts)


def _parts(block: Any) -> Iterator[str | UserPart]:
    match block:
        case {"type": "text", "text": str(text)}:
            yield text
        case {"type": "image", "data": str(data), "mimeType": str(kind)} if kind.startswith("image/"):
            yield media_of(data, None, kind)
        case {"type": "resource_link", "uri": str(uri)}:
            # The agent's tools may read it; a provider could not.
            yield uri if not uri.startswith("data:") else media(uri)
        case {"type": "resource", "resource": {"uri": str(uri), "text": str(text)}}:
            yield f"{uri}:\n{text}"
        case {"type": "resource", "resource": {"uri": str(uri), "blob": str(data)} as resource}:
            kind = resource.get("mimeType")
            yield media_of(data, None, kind if isinstance(kind, str) else "", uri.rpartition("/")[2] or "file")
        case _:
            raise Refusal(400, "a block of the prompt is a text, an image, a resource or a link to a resource")


# -------------------------------------------------------------------------------- updates


def commands_update(agent: Agent[Any, Any]) -> dict[str, Any]:
    """The update with the slash commands of ``agent``, which the editor offers to its user."""
    commands: list[dict[str, Any]] = []
    for command in commands_of(agent):
        shown: dict[str, Any] = {"name": command["name"], "description": command["description"]}
        if hint := command["hint"] or ("arguments" if agent.commands[command["name"]].takes_arguments else ""):
            shown["input"] = {"hint": hint}
        commands.append(shown)
    return {"sessionUpdate": "available_commands_update", "availableCommands": commands}


class AcpEncoder:
    """Events to updates, for the events of one session in their order, past ones as well as live ones.

    Args:
      is_replay: whether the editor does not have the user's messages yet.
    """

    def __init__(self, *, is_replay: bool = False) -> None:
        self.is_replay = is_replay
        """Whether the user's messages are updates too."""
        self._message = ""
        """Id of the message of the response that is read now; it changes with the response, so that the editor does
        not join what a response wrote before it broke off to the one that follows."""
        self._calls: dict[str, str] = {}
        """The calls that the editor has seen and that are not finished, each with its id for the editor."""
        self._times: dict[str, int] = {}
        """How often each id has begun a call. Some models use an id again, and the protocol does not."""
        self._unsure: set[str] = set()
        """Those of the response that is read now."""
        self.window: int | None = None
        """The window of the model that answers, tokens; ``None`` if it is not known."""
        self._cost, self._currency = 0.0, ""
        """What the session has cost so far."""

    def encode(self, event: StreamEvent) -> Iterator[dict[str, Any]]:
        """The updates of ``event``. Child streams have none: the call that began one is the editor's view of it."""
        if isinstance(event, UsageReported):
            self._cost += event.usage.cost
            self._currency = event.usage.currency or self._currency
        if event.depth:
            return
        match event:
            case TextDelta() if event.text:
                yield self._chunk("agent_message_chunk", event.seq, event.text)
            case ReasoningDelta() if event.text:
                yield self._chunk("agent_thought_chunk", event.seq, event.text)
            case ToolCallDelta():
                self._unsure.add(event.call_id)
                yield from self._begin(event.call_id, event.name)
            case ResponseDiscarded(purpose="turn"):
                for id in sorted(self._unsure & self._calls.keys()):
                    yield self._end(id, "failed", "the response of the model broke off")
                self._unsure, self._message = set(), ""
            case UsageReported(purpose="turn"):
                self._unsure, self._message = set(), ""
                if self.window is not None and event.is_complete:
                    yield self._usage(event.usage, self.window)
            case ToolCallStarted():
                yield from self._begin(event.call_id, event.name)
                raw = _json_or_text(event.arguments)
                yield _update(self.shown(event.call_id), status="in_progress", rawInput=raw)
            case ToolCallProgress() if event.message and event.call_id in self._calls:
                yield _update(self.shown(event.call_id), content=[_content(event.message)])
            case ToolCallFinished():
                yield from self._begin(event.call_id, event.name)
                yield self._end(
                    event.call_id, "completed" if event.result.status == "ok" else "failed", event.result.text
                )
            case MessageCommitted(message=UserMessage(is_prompt=True) as message) if self.is_replay:
                for part in message.parts:
                    yield {"sessionUpdate": "user_message_chunk", "content": _block(part)}
            case StreamStopped():
                # A parked call is asked about again by the run that resumes this one, which knows it by the same id.
                self._unsure, self._message = set(), ""
            case _:
                pass

    def _usage(self, usage: Usage, window: int) -> dict[str, Any]:
        """How full the window is after a response, and what the session has cost."""
        update: dict[str, Any] = {"sessionUpdate": "usage_update", "used": usage.total_tokens, "size": window}
        if self._currency:
            update["cost"] = {"amount": self._cost, "currency": self._currency}
        return update

    def shown(self, call_id: str) -> str:
        """The editor's id of a call that is not finished; empty if the editor has not seen the call."""
        return self._calls.get(call_id, "")

    def _chunk(self, kind: str, seq: int, text: str) -> dict[str, Any]:
        self._message = self._message or f"message-{seq}"
        return {"sessionUpdate": kind, "messageId": self._message, "content": {"type": "text", "text": text}}

    def _begin(self, id: str, name: str) -> Iterator[dict[str, Any]]:
        if id not in self._calls:
            times = self._times[id] = self._times.get(id, 0) + 1
            shown = self._calls[id] = id if times == 1 else f"{id}#{times}"
            yield {
                "sessionUpdate": "tool_call",
                "toolCallId": shown,
                "title": name,
                "kind": "other",
                "status": "pending",
            }

    def _end(self, id: str, status: str, text: str) -> dict[str, Any]:
        shown = self._calls.pop(id)
        return _update(shown, status=status, content=[_content(text)])


def _update(id: str, **fields: Any) -> dict[str, Any]:
    return {"sessionUpdate": "tool_call_update", "toolCallId": id, **fields}


def _content(text: str) -> dict[str, Any]:
    return {"type": "content", "content": {"type": "text", "text": text}}


def _block(part: UserPart) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image() | File() if part.url is not None:
            return {"type": "resource_link", "uri": part.url, "name": part.url}
        case Image():
            return {"type": "image", "data": part.data, "mimeType": part.media_type}
        case File():
            resource = {"uri": f"attachment:///{part.name}", "mimeType": part.media_type, "blob": part.data}
            return {"type": "resource", "resource": resource}


def _json_or_text(arguments: str) -> Any:
    try:
        return decode_json(arguments or "{}", Any)
    except (msgspec.DecodeError, UnicodeError, UsageError):
        return arguments


def result_of(event: StreamStopped) -> dict[str, Any]:
    """The result of ``session/prompt``. Raises `Refusal`, if the run has none."""
    if event.reason not in STOP_REASONS:
        raise Refusal(500, failure_of(event))
    return {"stopReason": STOP_REASONS[event.reason]}


# ------------------------------------------------------------------------------ questions

YES, NO = "yes", "no"


def request_for(
    question: Question, session: str, forms: ClientForms, encoder: AcpEncoder
) -> tuple[str, dict[str, Any]] | None:
    """The request to the editor that asks ``question``: its method and parameters; ``None`` if the editor cannot."""
    # The editor does not know the calls of child streams.
    call = "" if question.depth or isinstance(question, ContinueRequested) else encoder.shown(question.call_id)
    if isinstance(question, ElicitationRequested):
        params: dict[str, Any] = {"sessionId": session, "message": question.message}
        if call:
            params["toolCallId"] = call
        if question.url is not None:
            mode = {"mode": "url", "url": question.url, "elicitationId": question.id}
            return ("elicitation/create", params | mode) if forms.url else None
        form = {"mode": "form", "requestedSchema": question.form}
        return ("elicitation/create", params | form) if forms.form else None
    if isinstance(question, ApprovalRequested):
        title = f"{question.name}: {question.reason}" if question.reason else question.name
        shown = {"toolCallId": call or question.id, "title": title, "rawInput": question.arguments, "status": "pending"}
        options = _options("Allow", "Reject")
    else:
        title = f"The run has reached its limit of {question.limit} ({question.allowed:g}). Go on?"
        shown = {"toolCallId": question.id, "title": title, "status": "pending"}
        options = _options("Go on", "Stop")
    return "session/request_permission", {"sessionId": session, "toolCall": shown, "options": options}


def _options(yes: str, no: str) -> Sequence[dict[str, str]]:
    return [
        {"optionId": YES, "name": yes, "kind": "allow_once"},
        {"optionId": NO, "name": no, "kind": "reject_once"},
    ]


def answer_of(question: Question, result: Any) -> Answer:
    """The answer that the editor's ``result`` gives. Only the option that approves approves."""
    agrees: bool | None = None
    content: Mapping[str, Any] = {}
    kind: Literal["form", "permission"] = "form" if isinstance(question, ElicitationRequested) else "permission"
    match kind, result:
        case "form", {"action": "accept"}:
            agrees = True
            given = result.get("content")
            content = given if is_object(given) else {}
        case "form", {"action": "decline"}:
            agrees = False
        case "permission", {"outcome": {"outcome": "selected", "optionId": str(option)}}:
            agrees = option == YES
        case _:
            pass
    return answer_to(question, Verdict(agrees, content=content))
