"""MCP, the Model Context Protocol, revisions 2025-11-25 and 2026-07-28: an agent is a tool of other people's clients.

Pure functions: agents to the descriptions of tools, arguments to prompts, events to the texts of progress
notifications, questions to elicitations, their results to answers, and the end of a run to the result of the tool.
Everything is plain JSON data here. `agentloop.serving._mcp_server` has the SDK's server around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import field, frozen

from agentloop._core.json_text import decode_json, is_object
from agentloop._core.results import to_text
from agentloop._core.structured_output import output_type
from agentloop.agent import Agent
from agentloop.commands import Command
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    Question,
    QuestionDeclined,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from agentloop.messages import UserMessage
from agentloop.outcome import Outcome
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import Verdict, answer_to, failure_of, json_of, prompt_of

__all__ = [
    "DELTA_SECONDS",
    "AskableForms",
    "Declined",
    "Progress",
    "State",
    "ToolCall",
    "answer_of",
    "error_result",
    "input_required",
    "parked_result",
    "prompt_description",
    "prompt_names",
    "prompt_text",
    "read_call",
    "request_for",
    "result_of",
    "tool_names",
    "tool_of",
    "words_of",
]

DELTA_SECONDS = 0.2
"""Deltas of so many seconds are one progress notification."""

SHOWN = 300
"""Characters of arguments and results in a progress notification, and of a question in a result."""

PROGRESS_CHARACTERS = 4000
"""Characters of one progress notification."""

MAX_NAME = 200
"""Characters of a session's name."""


# ------------------------------------------------------------------------------ the tool


def tool_names(agents: Iterable[str]) -> dict[str, str]:
    """The agents' names by the names of their tools, which have only letters, digits, ``_``, ``-`` and ``.``."""
    named: dict[str, str] = {}
    for agent in agents:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", agent)[:120] or "agent"
        name, number = plain, 1
        while name in named:
            number += 1
            name = f"{plain}_{number}"
        named[name] = agent
    return named


def tool_of(name: str, agent_name: str, agent: Agent) -> dict[str, Any]:
    """The tool of an agent, as ``tools/list`` describes it."""
    tool: dict[str, Any] = {
        "name": name,
        "title": agent_name,
        "description": (
            f"Ask the agent {agent_name!r}. It works on the prompt with tools of its own, and answers when it is done."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "prompt": {"type": "string", "description": "What the agent is to do, or to answer."},
                "session": {
                    "type": "string",
                    "maxLength": MAX_NAME,
                    "description": (
                        "A name for the conversation. Calls with the same name continue it, one at a time; a call "
                        "without a name begins a new one, of which the agent remembers nothing later."
                    ),
                },
            },
            "required": ["prompt"],
            "additionalProperties": False,
        },
    }
    schema = output_type(agent.output_type).schema
    if schema is not None:
        tool["outputSchema"] = schema
    return tool


# --------------------------------------------------------------------------- the prompts


def prompt_names(agents: Mapping[str, Agent]) -> dict[str, tuple[str, str]]:
    """The tool and the command of each prompt, by the prompt's name: that of the command, or of the tool and it.

    Args:
      agents: the agents by the names of their tools.
    """
    commands = [(tool, command) for tool, agent in agents.items() for command in agent.commands]
    counts: dict[str, int] = {}
    for _, command in commands:
        counts[command] = counts.get(command, 0) + 1
    return {command if counts[command] == 1 else f"{tool}/{command}": (tool, command) for tool, command in commands}


def prompt_description(name: str, tool: str, command: Command) -> dict[str, Any]:
    """The prompt of a command, as ``prompts/list`` describes it."""
    hint = to_text(command.hint)
    arguments = {"name": "arguments", "description": hint or "What to type after the command.", "required": False}
    described: dict[str, Any] = {"name": name, "description": to_text(command.description) or f"For the tool {tool}."}
    if hint or command.takes_arguments:
        described["arguments"] = [arguments]
    return described


def prompt_text(tool: str, command: Command, arguments: str) -> str:
    """The text of a prompt, for the client's model."""
    return f"Call the tool {tool!r} with this prompt, word for word:\n\n{to_text(command.fill(arguments))}"


@frozen
class ToolCall:
    """The arguments of a call."""

    prompt: UserMessage
    """The prompt."""
    session: str
    """The client's name for the session; empty for a new one."""


def read_call(arguments: Mapping[str, Any]) -> ToolCall:
    """Read the arguments of a call. Raises `Refusal`."""
    unknown = sorted(arguments.keys() - {"prompt", "session"})
    if unknown:
        raise Refusal(400, f"the tool has no argument {_cut(unknown[0], 100)!r}; it has prompt and session")
    prompt, session = arguments.get("prompt"), arguments.get("session")
    if not isinstance(prompt, str):
        raise Refusal(400, "the argument prompt is a text")
    if session is None:
        session = ""
    if not isinstance(session, str) or len(session) > MAX_NAME:
        raise Refusal(400, f"the argument session is a text of {MAX_NAME} characters at most")
    return ToolCall(prompt_of(to_text(prompt)), to_text(session))


# ------------------------------------------------------------------------------ progress


class Progress:
    """Collects the texts for progress notifications of one call."""

    def __init__(self) -> None:
        self._deltas: list[str] = []
        self._lines: list[str] = []

    def add(self, event: StreamEvent) -> None:
        """Add ``event``. The text of child runs stays theirs."""
        match event:
            case TextDelta() if not event.depth:
                self._deltas.append(event.text)
            case ToolCallStarted():
                self._add_line(f"{event.name}({_cut(event.arguments)})")
            case ToolCallFinished():
                outcome = "" if event.result.status == "ok" else f" ({event.result.status})"
                self._add_line(f"{event.name}{outcome}: {_cut(event.result.text)}")
            case _:
                pass

    def _add_line(self, line: str) -> None:
        self._add_deltas()
        self._lines.append(line)

    def _add_deltas(self) -> None:
        if text := "".join(self._deltas):
            self._lines.append(text)
        self._deltas.clear()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self._lines or self._deltas)

    @property
    def is_urgent(self) -> bool:
        """Whether there is more than deltas, which may wait for others."""
        return bool(self._lines)

    def take(self) -> str:
        """The text of the next notification."""
        self._add_deltas()
        text = "\n".join(self._lines)
        self._lines.clear()
        return to_text(_cut(text, PROGRESS_CHARACTERS))


def _cut(text: str, length: int = SHOWN) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


# ------------------------------------------------------------------------------ questions


@frozen
class AskableForms:
    """The kinds of elicitations that a client can show."""

    form: bool = False
    """Whether it shows a form."""
    url: bool = False
    """Whether it opens an address."""

    @classmethod
    def of(cls, capabilities: Mapping[str, Any]) -> AskableForms:
        """Read the capabilities of a client. An elicitation without a mode is a form."""
        elicitation = capabilities.get("elicitation")
        if not is_object(elicitation):
            return cls()
        url = is_object(elicitation.get("url"))
        return cls(form=is_object(elicitation.get("form")) or not url, url=url)

    @property
    def any(self) -> bool:
        """Whether it shows anything."""
        return self.form or self.url


CONFIRMATION: Mapping[str, Any] = {"type": "object", "properties": {}}
"""The form of a question to which the person says yes or no: it has no field, and accepting it is the yes."""


def request_for(question: Question, forms: AskableForms, *, note: str = "") -> dict[str, Any] | None:
    """The parameters of the elicitation that asks ``question``; ``None`` if the client cannot show it.

    Args:
      question: the question.
      forms: the client's.
      note: the reason for which an earlier answer was not valid.
    """
    message = to_text(f"{note}\n\n{words_of(question)}" if note else words_of(question))
    if isinstance(question, ElicitationRequested):
        if question.url is not None:
            return {"mode": "url", "message": message, "url": to_text(question.url)} if forms.url else None
        # Once through JSON: half an emoji in a form of a tool would end the client's connection.
        schema: dict[str, Any] = decode_json(json_of(question.form), Any)
    else:
        schema = dict(CONFIRMATION)
    return {"mode": "form", "message": message, "requestedSchema": schema} if forms.form else None


def words_of(question: Question) -> str:
    """A question in one text."""
    if isinstance(question, ElicitationRequested):
        return question.message
    if isinstance(question, ApprovalRequested):
        reason = f" {question.reason}" if question.reason else ""
        return f"Run {question.name}({json_of(question.arguments).decode()})?{reason}"
    return f"The run has reached its limit of {question.limit} ({question.allowed:g}). Go on?"


def answer_of(question: Question, result: Any) -> Answer:
    """The answer that the client's ``result`` gives. Only accepting it approves something."""
    agrees: bool | None = None
    content: Mapping[str, Any] = {}
    match result:
        case {"action": "accept"}:
            agrees = True
            given = result.get("content")
            content = given if is_object(given) else {}
        case {"action": "decline"}:
            agrees = False
        case _:
            pass
    return answer_to(question, Verdict(agrees, content=content))


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``requestState`` of a call whose questions the client answers with its next request.

    It has no secret, and needs no signature: it names a session, and is read only for the principal of that session.
    """

    session: str
    """The id of the session whose run is parked."""
    number: int
    """The number of the last event, so that each round has a state of its own."""
    is_earlier: bool = False
    """Whether the questions are of a run before the call's: its prompt comes next."""

    def encode(self) -> str:
        """The text for the client."""
        return json_of(self).decode()

    @classmethod
    def decode(cls, text: str) -> State:
        """Read the text of a client. Raises `Refusal`."""
        try:
            return decode_json(text.encode("utf-8", "replace"), cls)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise Refusal(400, "the requestState is not one that this server has made") from error


# -------------------------------------------------------------------------------- results


def result_of(
    agent: Agent, stopped: StreamStopped, outcome: Outcome[Any], session: str, declined: Sequence[str]
) -> dict[str, Any]:
    """The result of the tool at the end of a run.

    Args:
      agent: the agent.
      stopped: the last event of the run.
      outcome: its outcome.
      session: the id of the session.
      declined: the questions that the client could not show.
    """
    if outcome.reason != "completed":
        return error_result(failure_of(stopped), session)
    output: object = outcome.output
    text = to_text(output)
    result = _result([text or stopped.detail, *([_declined(declined)] if declined else [])], session)
    kind = output_type(agent.output_type)
    if kind.schema is not None:
        value = output if output is None else text if isinstance(output, str) else decode_json(text.encode(), Any)
        result["structuredContent"] = {"value": value} if kind.is_wrapped else value
    return result


def _declined(questions: Sequence[str]) -> str:
    listed = "; ".join(_cut(question) for question in questions)
    return (
        f"(This client cannot show the agent's questions, so they were declined: {listed}. A client that supports "
        "elicitation has them answered by its user.)"
    )


def parked_result(questions: Sequence[Question], session: str) -> dict[str, Any]:
    """The result of a call whose run waits for answers that do not come through this client."""
    listed = "; ".join(_cut(words_of(question)) for question in questions) or "it was parked"
    return error_result(
        f"The agent waits for a person ({listed}). Its run is parked, and nothing is lost: have the question answered "
        f"in another client of this server, or call the tool again with session {session!r}, and the run goes on "
        "from there before it reads the new prompt.",
        session,
    )


def input_required(requests: Mapping[str, Mapping[str, Any]], state: State) -> dict[str, Any]:
    """The result of a call that the client sends again, with answers to ``requests`` (revision 2026-07-28)."""
    inputs = {id: {"method": "elicitation/create", "params": params} for id, params in requests.items()}
    return {"resultType": "input_required", "inputRequests": inputs, "requestState": state.encode()}


def error_result(message: str, session: str = "") -> dict[str, Any]:
    """The result of a call that has none: a sentence about the reason."""
    return {**_result([to_text(message)], session), "isError": True}


def _result(texts: Sequence[str], session: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text} for text in texts]
    # Earlier revisions of the protocol have no `resultType`, and the SDK leaves it out there.
    result: dict[str, Any] = {"resultType": "complete", "content": content}
    if session:
        result["_meta"] = {"agentloop/session": session}
    return result


# ------------------------------------------------------------------------- declined questions


@frozen
class Declined:
    """The words of the questions of a run that were declined, since the client could not show them."""

    _asked: dict[str, str] = field(factory=dict[str, str])
    words: list[str] = field(factory=list[str])
    """The words, in order."""

    def add(self, event: StreamEvent) -> None:
        """Add ``event``."""
        if isinstance(event, QuestionDeclined):
            self.words.append(self._asked.pop(event.id, "a question"))
        elif isinstance(event, Question):
            self._asked[event.id] = words_of(event)
