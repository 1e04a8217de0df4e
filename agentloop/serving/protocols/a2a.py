"""A2A 1.0 by JSON-RPC: the requests of a client, its answers to questions, and the card of an agent.

A context of the protocol is a session, and a task is one run of it with all that resumes it. `a2a_tasks` turns the
events of a run into a task and its updates.

A task that needs answers is in the state ``TASK_STATE_INPUT_REQUIRED``; its status has a message with a part of data
for each question. The next message that names the task answers them: by a part of data each, or, if one question is
open, by its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from attrs import frozen

from agentloop._core.json_text import decode_json, is_object
from agentloop.events import ElicitationRequested, Question
from agentloop.messages import UserMessage, UserPart
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import Verdict, answer_to, json_of, media, media_of, prompt_of

__all__ = [
    "TASK_STATES",
    "A2aRequest",
    "Call",
    "MessageRequest",
    "RpcId",
    "TaskListRequest",
    "TaskRequest",
    "TaskState",
    "agent_card",
    "answers_of",
    "check_version",
    "error_response",
    "prompt_of_message",
    "read_call",
    "read_request",
    "response",
]

T = TypeVar("T")

VERSION = "1.0"

RpcId: TypeAlias = "int | str | None"
"""The id of a JSON-RPC request."""

TaskState: TypeAlias = Literal[
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
]
"""The states that tasks of this server have."""

TASK_STATES = (
    "TASK_STATE_UNSPECIFIED",
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_AUTH_REQUIRED",
)
"""All states of the protocol, by their number."""

MAX_ID = 200
"""Characters of the id of a request, and of a client's name for a context. Each frame of a response repeats them."""

MAX_PAGE = 100
"""Tasks in a page of a list."""

# --------------------------------------------------------------------------------- errors

CODES: Mapping[str, int] = {
    "PARSE_ERROR": -32700,
    "INVALID_REQUEST": -32600,
    "METHOD_NOT_FOUND": -32601,
    "INVALID_PARAMS": -32602,
    "INTERNAL_ERROR": -32603,
    "TASK_NOT_FOUND": -32001,
    "TASK_NOT_CANCELABLE": -32002,
    "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
    "UNSUPPORTED_OPERATION": -32004,
    "VERSION_NOT_SUPPORTED": -32009,
}
"""The codes of errors, by their reason."""

_REASONS_BY_STATUS = {
    400: "INVALID_PARAMS",
    404: "TASK_NOT_FOUND",
    408: "INVALID_REQUEST",
    409: "UNSUPPORTED_OPERATION",
    413: "INVALID_REQUEST",
    415: "INVALID_REQUEST",
    422: "INVALID_PARAMS",
}


class A2aRefusal(Refusal):
    """The server refuses a request with an error of the protocol."""

    def __init__(self, reason: str, message: str, *, id: RpcId = None) -> None:
        super().__init__(200, message)
        self.reason = reason
        """A key of `CODES`."""
        self.id = id
        """The id of the request, if it could be read."""


def error_response(id: RpcId, refusal: Refusal) -> dict[str, Any]:
    """The JSON-RPC response that refuses the request ``id``."""
    if isinstance(refusal, A2aRefusal):
        reason = refusal.reason
    else:
        reason = _REASONS_BY_STATUS.get(refusal.status, "INTERNAL_ERROR")
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org"}
    return {
        "jsonrpc": "2.0",
        "id": id,
        "error": {"code": CODES[reason], "message": refusal.message, "data": [detail]},
    }


def response(id: RpcId, result: Any) -> dict[str, Any]:
    """The JSON-RPC response to the request ``id``."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


# ------------------------------------------------------------------------------- requests


class Call(msgspec.Struct, frozen=True):
    """A JSON-RPC request."""

    id: RpcId
    """The id that its response repeats."""
    method: str
    """The method."""
    params: dict[str, Any]
    """The parameters of the method."""


def read_call(body: bytes) -> Call:
    """Read the JSON-RPC request in ``body``. Raises `A2aRefusal`."""
    try:
        sent: Any = decode_json(body, Any)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise A2aRefusal("PARSE_ERROR", f"the body of the request is not JSON: {error}") from error
    if not is_object(sent):
        raise A2aRefusal("INVALID_REQUEST", "the body is one JSON-RPC request: an object, and no batch")
    if "id" not in sent:
        raise A2aRefusal("INVALID_REQUEST", "the request has no id: notifications are not answered here")
    id: Any = sent["id"]
    if isinstance(id, bool) or not isinstance(id, (int, str, type(None))) or len(str(id)) > MAX_ID:
        raise A2aRefusal("INVALID_REQUEST", f"the id of a request is a text or a whole number, up to {MAX_ID} long")
    method, params = sent.get("method"), sent.get("params", {})
    if sent.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise A2aRefusal("INVALID_REQUEST", 'a request has "jsonrpc": "2.0", and the name of a method', id=id)
    if not is_object(params):
        raise A2aRefusal("INVALID_PARAMS", "params is an object", id=id)
    return Call(id, method, dict(params))


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    raw: str | None = None
    url: str | None = None
    data: Any = msgspec.UNSET
    filename: str | None = None
    media_type: str | None = None


class _Message(msgspec.Struct, rename="camel"):
    message_id: str
    role: str | int
    parts: list[_Part]
    context_id: str | None = None
    task_id: str | None = None


class _Configuration(msgspec.Struct, rename="camel"):
    history_length: int | None = None
    return_immediately: bool | None = None
    task_push_notification_config: Any = None


class _Sent(msgspec.Struct, rename="camel"):
    message: _Message
    configuration: _Configuration | None = None


class _Named(msgspec.Struct, rename="camel"):
    id: str
    history_length: int | None = None


class _Listed(msgspec.Struct, rename="camel"):
    context_id: str | None = None
    status: str | int | None = None
    page_size: int | None = None
    page_token: str | None = None
    history_length: int | None = None
    status_timestamp_after: str | None = None
    include_artifacts: bool | None = None


@frozen(kw_only=True)
class MessageRequest:
    """``SendMessage`` or ``SendStreamingMessage``: begin a task, or answer the questions of one."""

    message: _Message
    """The message as the client has sent it."""
    task: str
    """The id of the task whose questions the message answers; empty for a new task."""
    context: str
    """The client's name for the context; empty for a new one."""
    streams: bool
    """Whether the client reads updates as they come."""
    waits: bool
    """Whether the response comes when the task has ended or needs answers, and not at once."""
    history_length: int | None
    """How many messages of the history the client wants; ``None`` for all."""


@frozen(kw_only=True)
class TaskRequest:
    """``GetTask``, ``CancelTask`` or ``SubscribeToTask``."""

    method: Literal["GetTask", "CancelTask", "SubscribeToTask"]
    """The method."""
    task: str
    """The id of the task."""
    history_length: int | None
    """How many messages of the history the client wants; ``None`` for all."""


@frozen(kw_only=True)
class TaskListRequest:
    """``ListTasks``."""

    context: str
    """The client's name for the only context whose tasks are listed; empty for all."""
    state: str
    """The only state whose tasks are listed; empty for all."""
    after: float
    """Seconds since 1970: tasks are listed whose state has changed since."""
    page_size: int
    """How many tasks a page has at most."""
    page_token: str
    """The end of the page before; empty for the first page."""
    history_length: int | None
    """How many messages of each history the client wants; ``None`` for all."""
    has_artifacts: bool
    """Whether the client wants the artifacts."""


A2aRequest: TypeAlias = MessageRequest | TaskRequest | TaskListRequest

_PUSH = frozenset(
    f"{verb}TaskPushNotificationConfig{plural}"
    for verb, plural in (("Create", ""), ("Get", ""), ("List", "s"), ("Delete", ""))
)


def check_version(version: str) -> None:
    """Refuse a request whose ``A2A-Version`` is another one. Without one, the name of its method decides."""
    if version.strip() and version.strip().partition(".")[0] != "1":
        raise _other_version(version.strip()[:20])


def _other_version(version: str) -> A2aRefusal:
    return A2aRefusal("VERSION_NOT_SUPPORTED", f"this server speaks A2A {VERSION}, and not {version}")


def read_request(call: Call) -> A2aRequest:
    """Read the parameters of ``call``. Raises `A2aRefusal`."""
    match call.method:
        case "SendMessage" | "SendStreamingMessage":
            return _message_request(call)
        case "GetTask" | "CancelTask" | "SubscribeToTask":
            named = _params(call, _Named)
            history_length = _history_length(named.history_length)
            return TaskRequest(method=call.method, task=named.id, history_length=history_length)
        case "ListTasks":
            return _list_request(call)
        case "GetExtendedAgentCard":
            raise A2aRefusal("UNSUPPORTED_OPERATION", "the agent has one card, at /.well-known/agent-card.json")
        case method if method in _PUSH:
            raise A2aRefusal("PUSH_NOTIFICATION_NOT_SUPPORTED", NO_PUSH)
        case method if "/" in method:
            # `message/send` and `tasks/get` are the names of version 0.3.
            raise _other_version("0.3: its methods are SendMessage, GetTask and the like")
        case _:
            raise A2aRefusal("METHOD_NOT_FOUND", f"there is no method {call.method[:100]!r} here")


NO_PUSH = "the server sends no push notifications: read the stream of the task, or get the task"


def _params(call: Call, type: type[T]) -> T:
    try:
        return msgspec.convert(call.params, type)
    except msgspec.ValidationError as error:
        raise A2aRefusal("INVALID_PARAMS", f"params of {call.method} are not as they should be: {error}") from error


def _history_length(length: int | None) -> int | None:
    if length is not None and length < 0:
        raise A2aRefusal("INVALID_PARAMS", "historyLength is 0 or more")
    return length


def _message_request(call: Call) -> MessageRequest:
    sent = _params(call, _Sent)
    message, configuration = sent.message, sent.configuration or _Configuration()
    if message.role not in ("ROLE_USER", 1):
        raise A2aRefusal("INVALID_PARAMS", "the role of a message to an agent is ROLE_USER")
    if not message.parts:
        raise A2aRefusal("INVALID_PARAMS", "a message has a part at least")
    for part in message.parts:
        contents = (part.text, part.raw, part.url, None if part.data is msgspec.UNSET else part)
        if sum(content is not None for content in contents) != 1:
            raise A2aRefusal("INVALID_PARAMS", "a part has exactly one of text, raw, url and data")
    if configuration.task_push_notification_config is not None:
        raise A2aRefusal("PUSH_NOTIFICATION_NOT_SUPPORTED", NO_PUSH)
    if message.context_id and len(message.context_id) > MAX_ID:
        raise A2aRefusal("INVALID_PARAMS", f"a contextId has {MAX_ID} characters at most")
    return MessageRequest(
        message=message,
        task=message.task_id or "",
        context=message.context_id or "",
        streams=call.method == "SendStreamingMessage",
        waits=configuration.return_immediately is not True,
        history_length=_history_length(configuration.history_length),
    )


def _list_request(call: Call) -> TaskListRequest:
    sent = _params(call, _Listed)
    page_size = 50 if sent.page_size is None else sent.page_size
    if not 1 <= page_size <= MAX_PAGE:
        raise A2aRefusal("INVALID_PARAMS", f"pageSize is a number from 1 to {MAX_PAGE}")
    state = sent.status or ""
    if isinstance(state, int):
        state = TASK_STATES[state] if 0 < state < len(TASK_STATES) else "?"
    if state and state not in TASK_STATES:
        raise A2aRefusal("INVALID_PARAMS", f"status is one of {', '.join(TASK_STATES[1:])}")
    return TaskListRequest(
        context=sent.context_id or "",
        state="" if state == TASK_STATES[0] else state,
        after=_seconds(sent.status_timestamp_after),
        page_size=page_size,
        page_token=sent.page_token or "",
        history_length=_history_length(sent.history_length),
        has_artifacts=sent.include_artifacts is True,
    )


def _seconds(timestamp: str | None) -> float:
    if timestamp is None:
        return 0.0
    try:
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        why = f"statusTimestampAfter is a time such as 2026-01-31T12:00:00Z: {error}"
        raise A2aRefusal("INVALID_PARAMS", why) from error


# ------------------------------------------------------------------------------- messages


def prompt_of_message(message: _Message) -> UserMessage:
    """The prompt that ``message`` is. Raises `Refusal`."""
    return prompt_of(list(_prompt_parts(message)))


def _prompt_parts(message: _Message) -> Iterator[str | UserPart]:
    for part in message.parts:
        kind, name = part.media_type or "", part.filename or ""
        if part.text is not None:
            yield part.text
        elif part.raw is not None:
            yield media_of(part.raw, None, kind, name)
        elif part.url is not None:
            yield media(part.url, kind, name)
        else:
            yield json_of(part.data).decode()


class _AnswerPart(msgspec.Struct, forbid_unknown_fields=True):
    """The data of a part that answers a question."""

    action: Literal["approve", "deny", "accept", "decline", "cancel"]
    question: str = ""
    content: dict[str, Any] = {}
    reason: str = ""


YES = frozenset({"yes", "approve"})
"""Texts that approve a call. Every other text denies it, and is the reason."""


def actions_for(question: Question) -> tuple[str, ...]:
    """The actions of an answer to ``question``."""
    return ("accept", "decline", "cancel") if isinstance(question, ElicitationRequested) else ("approve", "deny")


def answers_of(message: _Message, questions: Sequence[Question]) -> dict[str, Answer]:
    """The answers to ``questions``, which are open, that ``message`` gives. Raises `A2aRefusal`."""
    asked = {question.id: question for question in questions}
    texts = " ".join(part.text for part in message.parts if part.text is not None).strip()
    parts = [_answer_part(part.data) for part in message.parts if part.data is not msgspec.UNSET]
    only = questions[0] if len(questions) == 1 else None
    if not parts:
        if only is None or not texts:
            raise A2aRefusal("INVALID_PARAMS", f"the task has {len(questions)} open questions: {HOW_TO_ANSWER}")
        return {only.id: _answer_in_words(only, texts)}
    answers: dict[str, Answer] = {}
    for part in parts:
        question = only if only is not None and not part.question else asked.get(part.question)
        if question is None or question.id in answers:
            why = "is not open" if question is None else "is answered twice"
            open_ids = ", ".join(asked) or "none"
            raise A2aRefusal("INVALID_PARAMS", f"question {part.question[:200]!r} {why}; open questions: {open_ids}")
        if part.action not in actions_for(question):
            actions = ", ".join(actions_for(question))
            raise A2aRefusal("INVALID_PARAMS", f"the action for question {question.id!r} is one of {actions}")
        agrees = None if part.action == "cancel" else part.action in ("approve", "accept")
        answers[question.id] = answer_to(question, Verdict(agrees, part.content, part.reason or texts))
    return answers


HOW_TO_ANSWER = (
    'answer each by a part of data such as {"question": "the id", "action": "approve"}; the status of the task has the '
    "ids and the actions"
)


def _answer_part(data: Any) -> _AnswerPart:
    try:
        return msgspec.convert(data, _AnswerPart)
    except msgspec.ValidationError as error:
        raise A2aRefusal("INVALID_PARAMS", f"a part of data is no answer: {error}; {HOW_TO_ANSWER}") from error


def _answer_in_words(question: Question, text: str) -> Answer:
    """The answer that a text is: for clients that know no parts of data."""
    word = text.lower().rstrip(".!")
    if not isinstance(question, ElicitationRequested):
        return answer_to(question, Verdict(word in YES, note="" if word in YES | {"no", "deny"} else text))
    if word in ("decline", "cancel"):
        return answer_to(question, Verdict(False if word == "decline" else None))
    properties: Any = question.form.get("properties")
    fields = list(properties.items()) if is_object(properties) else []
    if len(fields) == 1 and is_object(fields[0][1]) and fields[0][1].get("type") == "string":
        return answer_to(question, Verdict(agrees=True, content={fields[0][0]: text}))
    raise A2aRefusal("INVALID_PARAMS", f"a text cannot fill in the form of question {question.id!r}: {HOW_TO_ANSWER}")


# ----------------------------------------------------------------------------------- card


def agent_card(name: str, url: str, version: str) -> dict[str, Any]:
    """The card of the agent ``name``, whose endpoint is at ``url``."""
    description = f"The agent {name}."
    return {
        "name": name,
        "description": description,
        "version": version,
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": VERSION}],
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": ["text/plain", "application/json", "image/png", "image/jpeg", "application/pdf"],
        "defaultOutputModes": ["text/plain", "application/json"],
        "skills": [{"id": name, "name": name, "description": description, "tags": ["agent"]}],
    }
