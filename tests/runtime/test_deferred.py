"""Deferred tools: offered by name and a line, found by ``find_tools``, called by their own names."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import msgspec
import pytest

from agentloop import (
    Agent,
    Approve,
    Compaction,
    Deferred,
    Deny,
    Handoff,
    Limits,
    Permissions,
    Rule,
    Session,
    Team,
    Tool,
    UsageError,
    hooks,
    tool,
)
from agentloop._core.deferred import CATALOGUE_TOKENS, finder_description, found_names, with_loaded
from agentloop._core.tokens import tokens_in_front, tokens_of_text
from agentloop._core.tool_index import search
from agentloop.deferred import CALL_TOOL, FIND_TOOLS
from agentloop.errors import ToolDefinitionError
from agentloop.events import ApprovalRequested, ToolCallDelta, ToolCallFinished, ToolCallStarted
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.observers import ToolStep
from agentloop.permissions import Exact
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import Response, ScriptedModel, calls
from agentloop.tools import JsonArguments, OpenToolset
from tests.support import of, watch

ALL = Deferred(over=0)


@tool
async def mail_send(to: str, text: str = "") -> str:
    """Send a mail. It goes out at once."""
    return f"sent to {to}"


@tool
async def mail_search(words: str) -> str:
    """Search all mails."""
    return f"no mail has {words}"


@tool
async def clock() -> str:
    """Tell the time."""
    return "noon"


def find(query: str, **more: Any) -> Response:
    return calls(FIND_TOOLS, query=query, **more)


def call(name: str, /, **arguments: Any) -> Response:
    return calls(CALL_TOOL, name=name, arguments=arguments)


def uncounted(response: Response) -> Response:
    """``response`` of a provider that does not say what was used: then the estimate counts."""
    return msgspec.structs.replace(response, usage=Usage())


class Searching(ScriptedModel):
    """A model whose provider has a tool search of its own."""

    has_tool_search = True


def agent_with(*script: Response | str, kind: type[ScriptedModel] = ScriptedModel, **options: Any) -> Agent[Any, Any]:
    options = {"tools": [mail_send, mail_search, clock], "deferred": ALL, **options}
    return Agent(kind(*script), **options)


def requests_of(agent: Agent[Any, Any]) -> list[ModelRequest]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


def names(request: ModelRequest) -> list[str]:
    return [spec.name for spec in request.tools]


def last_result(messages: Sequence[Message]) -> ToolResult:
    return [message for message in messages if isinstance(message, ToolResult)][-1]


# ---------------------------------------------------------------------- found and called


async def test_a_deferred_tool_is_found_by_words_and_called_by_its_own_name() -> None:
    agent = agent_with(find("send a mail", limit=1), call("mail_send", to="ann"), "Done.")

    watched = await watch(agent)

    first, second, third = requests_of(agent)
    assert names(first) == names(second) == names(third) == [FIND_TOOLS, CALL_TOOL]
    assert first.tools == second.tools == third.tools
    assert "- mail_send: Send a mail." in first.tools[0].description
    found = msgspec.json.decode(last_result(second.messages).text)
    assert (found["name"], found["description"]) == ("mail_send", "Send a mail. It goes out at once.")
    assert found["parameters"]["required"] == ["to"]
    # The model reads what it wrote, and all others read the tool's own name.
    assert third.messages[-2] == AssistantMessage(
        (ToolCall("call_1_2_0", CALL_TOOL, '{"name":"mail_send","arguments":{"to":"ann"}}'),),
        "tool_calls",
        "scripted",
        watched.messages[3].usage,  # type: ignore[union-attr]
    )
    assert [event.name for event in of(watched.events, ToolCallStarted)] == [FIND_TOOLS, "mail_send"]
    assert [event.arguments for event in of(watched.events, ToolCallStarted)][1] == '{"to":"ann"}'
    assert {event.name for event in of(watched.events, ToolCallDelta)} == {FIND_TOOLS, "mail_send"}
    assert watched.messages[3].calls == (ToolCall("call_1_2_0", "mail_send", '{"to":"ann"}'),)  # type: ignore[union-attr]
    assert last_result(watched.messages) == ToolResult("call_1_2_0", "mail_send", (Text("sent to ann"),))


async def test_a_model_with_a_tool_search_of_its_own_gets_the_deferred_tools_and_calls_them_itself() -> None:
    agent = agent_with(find("mail"), calls("mail_send", to="ann"), "Done.", kind=Searching)

    await watch(agent)

    for request in requests_of(agent):
        assert names(request) == [FIND_TOOLS, "mail_send", "mail_search", "clock"]
        assert [spec.deferred for spec in request.tools] == [False, True, True, True]
    assert last_result(requests_of(agent)[-1].messages).text == "sent to ann"


async def test_only_the_marked_tools_are_deferred_where_the_agent_does_not_say_more() -> None:
    rare = Tool(
        name="rare", description="Rare.", function=mail_send.function, arguments=mail_send.arguments, deferred=True
    )
    agent = agent_with(call("rare", to="bob"), "Done.", tools=[mail_send, clock, rare], deferred=None)

    await watch(agent)

    assert names(requests_of(agent)[0]) == ["mail_send", "clock", FIND_TOOLS, CALL_TOOL]
    assert last_result(requests_of(agent)[1].messages).text == "sent to bob"


async def test_an_agent_without_deferred_tools_has_the_same_requests_as_ever() -> None:
    for deferred in (None, Deferred(over=20_000)):
        agent = agent_with("Hello.", deferred=deferred)
        watched = await watch(agent)
        assert names(requests_of(agent)[0]) == ["mail_send", "mail_search", "clock"]
        assert watched.stream._run.deferred is None


async def test_above_the_budget_all_tools_are_deferred_but_those_that_are_always_there() -> None:
    own = [mail_send.spec, mail_search.spec, clock.spec]
    tokens = tokens_in_front("", own)
    below = agent_with("Hello.", deferred=Deferred(over=tokens))
    above = agent_with("Hello.", deferred=Deferred(over=tokens - 1, always=["mail_*"]))

    await watch(below)
    await watch(above)

    assert names(requests_of(below)[0]) == ["mail_send", "mail_search", "clock"]
    assert names(requests_of(above)[0]) == ["mail_send", "mail_search", FIND_TOOLS, CALL_TOOL]


async def test_the_tools_of_a_server_are_counted_again_only_when_they_change() -> None:
    reads: list[int] = []

    class Counted(JsonArguments):
        """Arguments that count how often their schema is read."""

        @property
        def schema(self) -> Mapping[str, Any]:
            reads.append(1)
            return {"type": "object"}

        @schema.setter
        def schema(self, value: Mapping[str, Any]) -> None:
            pass

    async def run(**given: Any) -> str:
        return "done"

    async def reads_in(turns: int) -> int:
        served = Tool(name="served", description="", function=run, arguments=Counted({}))
        script = [calls("other")] * turns
        toolset = Changing([served])
        limits = Limits(identical_turns=math.inf)
        reads.clear()
        await watch(agent_with(*script, "Done.", tools=[], toolsets=[toolset], deferred=Deferred(), limits=limits))
        return len(reads)

    assert await reads_in(9) == await reads_in(1)


async def test_a_tool_that_is_not_to_be_deferred_never_is() -> None:
    @tool(deferred=False)
    async def shell(command: str) -> str:
        """Run a command."""
        return command

    agent = agent_with("Hello.", tools=[shell, mail_send])

    await watch(agent)

    assert names(requests_of(agent)[0]) == ["shell", FIND_TOOLS, CALL_TOOL]


# ---------------------------------------------------------------- calls that do not fit


async def test_a_call_without_finding_that_fits_is_made() -> None:
    for response in (call("mail_send", to="ann"), calls("mail_send", to="ann")):
        agent = agent_with(response, "Done.")
        watched = await watch(agent)
        assert last_result(watched.messages).text == "sent to ann"
        # Called directly, it is shown to the model as the call that it should have made.
        assert requests_of(agent)[1].messages[1].calls[0].name == CALL_TOOL  # type: ignore[union-attr]


async def test_arguments_that_do_not_fit_are_refused_with_the_schema() -> None:
    watched = await watch(agent_with(call("mail_send", too="ann"), "Done."))

    result = last_result(watched.messages)
    assert result.status == "error"
    assert "unknown field `too`; the fields are `to`, `text`" in result.text
    assert msgspec.json.decode(result.text.splitlines()[-1])["parameters"]["required"] == ["to"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "it needs 'to'"),
        ({"to": 3}, "'to' is to be string"),
        ({"to": "x", "count": True}, "'count' is to be integer or null"),
        ({"to": "x", "other": 1}, "it has no 'other'"),
        ({"count": None}, "it needs 'to'"),
    ],
)
async def test_the_arguments_of_a_server_s_tool_are_checked_before_it_is_called(
    arguments: dict[str, Any], problem: str
) -> None:
    called: list[Mapping[str, Any]] = []

    async def send(**given: Any) -> str:
        called.append(given)
        return "sent"

    schema = {
        "type": "object",
        "properties": {"to": {"type": "string"}, "count": {"type": ["integer", "null"]}, "any": True},
        "required": ["to"],
        "additionalProperties": False,
    }
    served = Tool(name="send", description="Send.", function=send, arguments=JsonArguments(schema))
    agent = agent_with(call("send", **arguments), call("send", to="x", count=3, any=[1]), "Done.", tools=[served])

    watched = await watch(agent)

    refused, sent = [message for message in watched.messages if isinstance(message, ToolResult)]
    assert refused.status == "error"
    assert problem in refused.text
    assert '"required":["to"]' in refused.text
    assert sent.text == "sent"
    assert called == [{"to": "x", "count": 3, "any": [1]}]


@pytest.mark.parametrize(
    ("raw", "name", "arguments"),
    [
        ('{"name": "mail_send", "arguments": {"to": "a}\\"{"}}', "mail_send", '{"to": "a}\\"{"}'),
        ('{"arguments":{"to":"a"},"name":"mail_send"}', "mail_send", '{"to":"a"}'),
        ('{"name":"mail_send","arguments":"{\\"to\\":\\"a\\"}"}', "mail_send", '{"to":"a"}'),
        ('{"name":"mail_send","to":"a"}', "mail_send", '{"to":"a"}'),
        ('{"name":"clock"}', "clock", "{}"),
        ('{"name":"clock","arguments":null}', "clock", "{}"),
        ('{"name":"\\u0063lock","arguments":{}}', "clock", "{}"),
        ('{"name":"clock","arguments":{}', "clock", "{}"),
        ('{"name":"mail_send","arguments":{"to":{"x":{}}},"more":{}}', "mail_send", '{"to":{"x":{}}}'),
        ('{"to":"a"}', CALL_TOOL, '{"to":"a"}'),
        ('{"name":"call_tool","arguments":{}}', CALL_TOOL, "{}"),
        ("[1, 2]", CALL_TOOL, "[1, 2]"),
        ('{"name":', CALL_TOOL, '{"name":'),
        ("", CALL_TOOL, ""),
    ],
)
@pytest.mark.parametrize("piece", [0, 1, 3])
async def test_the_inner_call_is_read_however_the_model_writes_it(
    raw: str, name: str, arguments: str, piece: int
) -> None:
    response = msgspec.structs.replace(calls(CALL_TOOL, raw=raw), piece=piece)
    watched = await watch(agent_with(response, "Done."))

    [started] = of(watched.events, ToolCallStarted)
    assert (started.name, started.arguments) == (name, arguments)
    deltas = of(watched.events, ToolCallDelta)
    assert "".join(event.arguments for event in deltas) == arguments
    assert {event.name for event in deltas} <= {name}


async def test_a_call_of_a_tool_that_is_not_there_says_which_may_be_meant() -> None:
    for response, words in (
        (call("mail_sent", to="a"), "Did you mean mail_send"),
        (call("xyzzy"), "There is no tool called 'xyzzy'. find_tools finds"),
        (calls(CALL_TOOL, tool="clock"), 'call_tool takes {"name"'),
    ):
        watched = await watch(agent_with(response, "Done."))
        result = last_result(watched.messages)
        assert result.status == "error"
        assert words in result.text


async def test_calls_keep_the_order_in_which_the_model_wrote_them() -> None:
    response = calls(CALL_TOOL, raw='{"arguments":{},"name":"clock"}') + call("mail_search", words="x") + find("mail")
    watched = await watch(agent_with(response, "Done."))

    assert [event.name for event in of(watched.events, ToolCallStarted)] == ["clock", "mail_search", FIND_TOOLS]


# -------------------------------------------------- permissions, hooks, limits, observers


async def test_permissions_and_approvals_know_the_inner_tool() -> None:
    agent = agent_with(
        call("mail_send", to="ann") + call("mail_search", words="x"),
        "Done.",
        permissions=Permissions(deny=[Rule("mail_search")], ask=[Rule("mail_send", {"to": Exact("ann")})]),
    )
    asked: list[ApprovalRequested] = []

    def answer(stream: Any, event: Any) -> None:
        if isinstance(event, ApprovalRequested):
            asked.append(event)
            stream.answer(event.id, Approve())

    watched = await watch(agent, on_event=answer)

    assert [(event.name, event.arguments) for event in asked] == [("mail_send", {"to": "ann"})]
    sent, denied = [event.result for event in sorted(of(watched.events, ToolCallFinished), key=lambda e: e.call_id)]
    assert (sent.status, denied.status) == ("ok", "denied")


async def test_hooks_see_the_inner_call_and_may_refuse_the_search() -> None:
    seen: list[tuple[str, Any]] = []

    @hooks.pre_tool_use
    async def before(value: hooks.PreToolUse) -> Deny | None:
        seen.append((value.name, value.arguments))
        return Deny("no searching") if value.name == FIND_TOOLS else None

    agent = agent_with(find("mail"), call("mail_send", to="ann"), "Done.", hooks=[before])
    watched = await watch(agent)

    assert seen == [(FIND_TOOLS, {"query": "mail"}), ("mail_send", {"to": "ann"})]
    assert requests_of(agent)[1].messages[-1].text == "Denied by a hook: no searching"
    assert last_result(watched.messages).text == "sent to ann"


async def test_a_search_does_not_find_what_a_hook_has_left_out_of_the_request() -> None:
    @hooks.before_llm_call
    async def without_mail(value: hooks.BeforeLLMCall) -> hooks.ReplaceRequest:
        left = tuple(spec for spec in value.request.tools if spec.name != "mail_send")
        return hooks.ReplaceRequest(tools=left)

    agent = agent_with(find("mail_send, mail"), call("mail_send", to="ann"), "Done.", hooks=[without_mail])
    watched = await watch(agent)

    found, refused = [message for message in watched.messages if isinstance(message, ToolResult)]
    assert found_names(found) == ["mail_search"]
    assert refused.status == "error"


async def test_the_same_inner_call_again_and_again_ends_the_run() -> None:
    script = [call("clock")] * 5
    watched = await watch(agent_with(*script, limits=Limits(identical_turns=3)))

    assert watched.outcome.reason == "limit"
    # Different tools behind the same call_tool are different calls.
    script = [call("clock"), call("mail_search", words="x")] * 3
    assert (await watch(agent_with(*script, "Done.", limits=Limits(identical_turns=3)))).outcome.output == "Done."


async def test_observers_surround_the_inner_call() -> None:
    steps: list[tuple[str, str]] = []

    class Observer:
        def observe(self, event: object) -> None:
            pass

        def leave(self, source: object) -> None:
            pass

        def around(self, step: Any) -> Any:
            if isinstance(step, ToolStep):
                steps.append((step.name, step.arguments))
            return nullcontext()

    await watch(agent_with(call("mail_send", to="ann"), "Done.", observers=[Observer()]))

    assert steps == [("mail_send", '{"to":"ann"}')]


# ------------------------------------------------------------- toolsets that come and go


class Changing:
    """A toolset whose tools change from turn to turn."""

    name = "changing"

    def __init__(self, *listings: Sequence[Tool]) -> None:
        self.listings = list(listings)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        yield self

    async def list_tools(self) -> Sequence[Tool]:
        return self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]


async def test_tools_that_come_and_go_leave_the_front_of_the_request_as_it_is() -> None:
    toolset = Changing([mail_send, clock], [mail_send, clock], [mail_send, mail_search])
    agent = agent_with(find("clock"), find("mail_search"), call("clock"), "Done.", tools=[], toolsets=[toolset])

    watched = await watch(agent)

    assert len({request.tools for request in map(_hashable, requests_of(agent))}) == 1
    first, second, third = [message for message in watched.messages if isinstance(message, ToolResult)]
    assert found_names(first) == ["clock"]
    assert found_names(second) == ["mail_search"]
    assert third.status == "error"


async def test_a_server_that_takes_one_of_the_two_names_later_changes_nothing() -> None:
    @tool(name=CALL_TOOL)
    async def taken() -> str:
        """Not to be called."""
        return "wrong"

    toolset = Changing([clock], [clock], [clock, taken, taken])
    agent = agent_with(call("clock"), call("clock"), "Done.", tools=[], toolsets=[toolset])

    watched = await watch(agent)

    assert watched.outcome.output == "Done."
    assert last_result(watched.messages).text == "noon"


def _hashable(request: ModelRequest) -> Any:
    class Frozen:
        tools = msgspec.json.encode(request.tools)

    return Frozen


@pytest.mark.parametrize("name", [FIND_TOOLS, CALL_TOOL])
async def test_a_tool_that_has_the_name_of_one_of_the_two_is_refused(name: str) -> None:
    @tool(name=name)
    async def other() -> str:
        return ""

    with pytest.raises(UsageError, match="give it another name"):
        agent_with(tools=[other])
    watched = await watch(agent_with("never", tools=[clock], toolsets=[Changing([other])]))
    assert isinstance(watched.error, UsageError)
    # Where nothing is deferred, such a name is as good as any.
    agent = agent_with(calls(name), "Done.", tools=[other], deferred=None)
    assert (await watch(agent)).outcome.output == "Done."


# ---------------------------------------------- sessions, children, handoffs, compaction


async def test_what_was_loaded_is_part_of_the_session_in_any_process() -> None:
    async with MemoryStore().open() as store:
        first = agent_with(find("mail"), "Found.", kind=Searching)
        async with stored_session(store, "ann") as session:
            await watch(first, session=session)
        second = agent_with(calls("mail_send", to="ann"), "Sent.", kind=Searching)
        async with stored_session(store, "ann") as session:
            await watch(second, session=session)
            found = next(message for message in session.messages if isinstance(message, ToolResult))
            assert set(found_names(found)) == {"mail_send", "mail_search"}
        assert requests_of(second)[0].messages[:4] == (*requests_of(first)[1].messages, first_answer(session))


def first_answer(session: Any) -> Message:
    message: Message = session.messages[3]
    return message


async def test_a_child_run_loads_its_own_tools() -> None:
    inner = agent_with(call("mail_send", to="bob"), find("clock"), "Inner.", name="inner")
    outer = agent_with(
        find("mail"),
        call("inner", prompt="x"),
        "Done.",
        tools=[mail_send, inner.as_tool()],
    )
    watched = await watch(outer)

    assert watched.outcome.output == "Done."
    assert "- inner:" in requests_of(outer)[0].tools[0].description
    assert names(requests_of(inner)[0]) == [FIND_TOOLS, CALL_TOOL]
    assert len(requests_of(inner)[0].messages) == 1


async def test_the_agent_after_a_handoff_has_its_own_deferred_tools() -> None:
    front = agent_with(find("mail"), calls("handoff", agent="back"), name="front", handoffs=[Handoff("back")])
    back = agent_with(find("clock"), call("clock"), "Done.", name="back", tools=[clock])

    watched = await watch(Team(front, back))

    assert watched.outcome.output == "Done."
    assert names(requests_of(front)[0]) == ["handoff", FIND_TOOLS, CALL_TOOL]
    assert "mail_send" not in requests_of(back)[0].tools[0].description
    assert last_result(watched.messages).text == "noon"


async def test_after_a_summary_the_model_reads_the_loaded_tools_once_more() -> None:
    long = "bla " * 700
    agent = agent_with(
        find("mail_send"),
        uncounted(call("mail_send", to="ann", text=long)),
        uncounted(call("mail_send", to="bob", text=long)),
        "A summary.",
        call("clock"),
        "Done.",
        tools=[mail_send, clock],
        compaction=Compaction(window=2000, keep_recent=0.1, threshold=0.6),
    )
    watched = await watch(agent)

    assert watched.outcome.output == "Done."
    after, later = requests_of(agent)[-2:]
    summary, asked, loaded = after.messages[:3]
    assert "A summary." in summary.text
    assert asked.calls[0].name == FIND_TOOLS  # type: ignore[union-attr]
    assert found_names(loaded) == ["mail_send"]  # type: ignore[arg-type]
    # They stay where they are, for the sake of the cache, and are no part of the session.
    assert later.messages[: len(after.messages)] == after.messages
    assert asked not in watched.messages


def test_tools_are_shown_once_more_only_if_no_shown_result_has_them() -> None:
    spec = mail_send.spec
    line = msgspec.json.encode({"name": "mail_send", "description": "", "parameters": {}}).decode()
    result = ToolResult("c", FIND_TOOLS, (Text(line),))
    messages = (UserMessage((Text("go"),)), AssistantMessage((ToolCall("c", FIND_TOOLS, "{}"),)), result)
    elided = (*messages[:2], msgspec.structs.replace(result, parts=(Text("[left out]"),)))

    def shown(view: Sequence[Message], specs: Mapping[str, ToolSpec], first: int = 0) -> int:
        return len(with_loaded(view, messages, specs, first=first, changed_at=3)) - len(view)

    assert shown(messages, {"mail_send": spec}) == 0
    assert shown(elided, {"mail_send": spec}) == 2
    assert shown(elided, {}) == 0
    assert shown(elided, {"mail_send": spec}, first=3) == 0


# ------------------------------------------------------------------------- list and search


def spec(name: str, description: str = "", **parameters: str) -> ToolSpec:
    properties = {key: {"type": "string", "description": about} for key, about in parameters.items()}
    return ToolSpec(name, description, {"type": "object", "properties": properties})


@pytest.mark.parametrize("count", [1, 178, 1_000, 5_000])
def test_the_list_of_names_has_a_bound_and_does_not_depend_on_their_order(count: int) -> None:
    specs = [spec(f"server_{number % 7}_tool_{number}", "Do this and that with it. " * 9) for number in range(count)]
    text = finder_description(specs)

    assert tokens_of_text(text) <= CATALOGUE_TOKENS * 1.1
    assert finder_description(reversed(specs)) == text
    assert specs[0].name in text


def test_a_search_finds_names_first_and_then_words() -> None:
    specs = [
        spec("github_create_issue", "Create a new issue in a repository.", title="Title of the issue"),
        spec("github_list_issues", "List the issues of a repository."),
        spec("calendarAddEvent", "Add an appointment.", start="When the meeting begins"),
        spec("mail_send", "Send a message to people."),
    ]

    def found(query: str, limit: int = 2) -> list[str]:
        return [spec.name for spec in search(query, specs, limit)]

    assert found("open a new issue", 1) == ["github_create_issue"]
    assert found("issue", 5) == ["github_create_issue", "github_list_issues"]
    assert found("meeting") == ["calendarAddEvent"]
    assert found("events in my calendar", 1) == ["calendarAddEvent"]
    assert found("MAIL_SEND, calendaraddevent", 5) == ["mail_send", "calendarAddEvent"]
    assert found("zebra \ud800 \0") == found("") == []
    assert len(found("a issue message appointment repository", 100)) == 4


async def test_odd_texts_and_schemas_are_found_too() -> None:
    odd = Tool(
        name="odd",
        description="Half \ud800 a character,\u2028 and a\nbreak.",
        function=clock.function,
        arguments=JsonArguments({"type": "object", "properties": {"a\ud800": {"default": object}}}),
    )
    agent = agent_with(find("half character"), call("odd"), "Done.", tools=[odd], deferred=Deferred(over=10))

    watched = await watch(agent)

    found, called = [message for message in watched.messages if isinstance(message, ToolResult)]
    assert found_names(found) == ["odd"]
    assert called.text == "noon"


async def test_a_search_that_finds_nothing_says_so() -> None:
    for response in (find("zebra"), find("zebra\U0001f600\0")):
        watched = await watch(agent_with(response, "Done."))
        assert "Try other words" in last_result(watched.messages).text
    watched = await watch(agent_with(calls(FIND_TOOLS, words="mail"), "Done."))
    assert 'find_tools takes {"query"' in last_result(watched.messages).text


def test_wrong_options_are_refused() -> None:
    for make in (
        lambda: Deferred(over=-1),
        lambda: Deferred(over="many"),  # type: ignore[arg-type]
        lambda: Deferred(always="shell"),
        lambda: Deferred(always=[mail_send]),  # type: ignore[list-item]
        lambda: Agent(ScriptedModel(), deferred=True),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match="eferred"):
            make()
    with pytest.raises(ToolDefinitionError, match="deferred="):
        tool(deferred="yes")(clock.function)  # type: ignore[call-overload]


async def test_a_model_that_writes_a_call_without_its_name_first_is_understood() -> None:
    class Late:
        name = "late"

        def __init__(self) -> None:
            self.requests = 0

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            self.requests += 1
            if self.requests > 1:
                await reply.text("Done.")
                return Stop()
            await reply.tool_call(0, id="a")
            await reply.tool_call(1, id="b", arguments='{"words":')
            await reply.tool_call(0, name=CALL_TOOL, arguments='{"arguments":{},')
            await reply.tool_call(0, arguments='"name":"clock"}')
            await reply.tool_call(1, name="mail_search", arguments='"x"}')
            await reply.reasoning("Hm.")
            return Stop("tool_calls")

    watched = await watch(agent_with().replace(model=Late()))

    started = of(watched.events, ToolCallStarted)
    assert [(event.call_id, event.name, event.arguments) for event in started] == [
        ("a", "clock", "{}"),
        ("b", "mail_search", '{"words":"x"}'),
    ]


async def test_a_huge_call_in_small_pieces_takes_time_by_its_length() -> None:
    text = 'x\\"{}' * 5_000
    for raw in (
        f'{{"name":"mail_send","arguments":{{"to":"a","text":"{text}"}}}}',
        f'{{"arguments":{{"to":"a","text":"{text}"}},"name":"mail_send"}}',
    ):
        response = msgspec.structs.replace(calls(CALL_TOOL, raw=raw), piece=3)
        watched = await watch(agent_with(response, "Done."))
        [started] = of(watched.events, ToolCallStarted)
        assert (started.name, len(msgspec.json.decode(started.arguments)["text"])) == ("mail_send", 20_000)
        assert "" not in [event.arguments for event in of(watched.events, ToolCallDelta)]


async def test_a_session_without_deferral_goes_on_with_it() -> None:
    session = Session()
    await watch(agent_with(calls("mail_send", to="ann"), "Sent.", deferred=None), session=session)
    agent = agent_with("Hello.")

    await watch(agent, session=session)

    assert requests_of(agent)[0].messages[1].calls[0].name == CALL_TOOL  # type: ignore[union-attr]
    assert requests_of(agent)[0].messages[2].name == CALL_TOOL  # type: ignore[union-attr]
