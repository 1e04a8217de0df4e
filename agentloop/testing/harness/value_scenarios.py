"""Scenarios whose point is a value: rules, forms, answers, names and shapes that the decisions tell apart."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, ModelRateLimitError
from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.limits import Compaction, Limits, Retries
from agentloop.messages import File, Image, Text
from agentloop.permissions import Exact, Glob, Mode, Permissions, Rule, Under
from agentloop.questions import Accept, Answer, Approve, Decline, Deny
from agentloop.session import Session
from agentloop.testing._lab import Lab, echo
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.scripted import Response, calls, fails, says, thinks
from agentloop.tools import Tool, tool

__all__: list[str] = []


class _Size(enum.Enum):
    SMALL = "small"
    BIG = "big"


class _Order(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    size: Literal["small", "big"] = "small"
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    price: float = 0.5
    is_gift: bool = False
    note: str | None = None


def _fill(question: Question) -> Answer:
    order = Accept({"name": "ann", "size": "big", "count": 2, "price": 1.5, "is_gift": True, "note": "x"})
    return order if isinstance(question, ElicitationRequested) else echo(question)


@on_depths("completed", answer=_fill)
def forms_of_every_kind(lab: Lab) -> Agent[Any, Any]:
    """Answers that do not fit are refused, and the form's defaults are filled in."""

    async def order(context: ToolContext[Any]) -> str:
        message = f"order of {context.source.session}"
        answer = await context.ask_for(message, _Order)
        if isinstance(answer, _Order):
            lab.received[message] = Accept(msgspec.structs.asdict(answer))
        return repr(answer)

    return Agent(lab.model(calls("order"), "Done."), tools=[lab.bare("order", order)])


@scenario(ends("completed"))
async def answers_that_fit_no_form_are_refused(lab: Lab) -> None:
    async def order(context: ToolContext[Any]) -> str:
        return repr(await context.ask_for(f"order of {context.source.session}", _Order))

    wrong: list[dict[str, Any]] = [
        {},
        {"name": ""},
        {"name": "a" * 30},
        {"name": "ann", "size": "huge"},
        {"name": "ann", "count": 0},
        {"name": "ann", "count": 10},
        {"name": "ann", "count": 1.5},
        {"name": "ann", "price": "dear"},
        {"name": "ann", "is_gift": "yes"},
        {"name": "ann", "more": 1},
    ]
    agent = Agent(lab.model(calls("order"), "Done."), tools=[lab.bare("order", order)])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                for content in wrong:
                    if stream.answer(event.id, Accept(content)):
                        lab.watch.note(f"{content} was accepted for a form that it does not fit")
                stream.answer(event.id, Decline("no order today"))


def _by_tag(question: Question) -> Answer:
    if isinstance(question, ApprovalRequested) and question.arguments.get("tag") == "changed":
        return Approve(arguments={"tag": "fine"})
    if isinstance(question, ApprovalRequested) and question.arguments.get("tag") == "no":
        return Deny("not that")
    return Approve(always=True) if isinstance(question, ApprovalRequested) else echo(question)


@on_depths("completed", answer=_by_tag)
def rules_of_every_kind(lab: Lab) -> Agent[Any, Any]:
    rules = Permissions(
        allow=[Rule("read", {"path": Under("/srv/data")}), Rule("run", {"command": Glob("git *")})],
        ask=[Rule("run", {"command": Glob("rm *", allow_shell_characters=True)}), Rule("pay", {"tag": Exact("no")})],
        deny=[Rule("read", {"path": Glob("*.key")}), "never"],
    )
    tools = [lab.tool(name, requires_approval=True) for name in ("read", "run", "pay", "never")]
    script = (
        calls("read", path="/srv/data/a.txt")
        + calls("read", path="/srv/data/../etc/passwd")
        + calls("read", path="/srv/data/my.key")
        + calls("run", command="git status")
        + calls("run", command="git status; rm -rf /")
        + calls("run", command="rm -rf x")
        + calls("pay", tag="no")
        + calls("pay", tag="changed")
        + calls("never")
    )
    again = calls("run", command="rm -rf x") + calls("read", path=["no", "path"]) + calls("pay", tag=3)
    return Agent(lab.model(script, again, "Done."), tools=tools, permissions=rules)


@on_depths("completed", answer=lambda question: Approve())
def modes_of_permissions(lab: Lab) -> Agent[Any, Any]:
    """Each mode, in an agent inside the one around it."""
    agents: list[Agent] = []
    modes: tuple[Mode, ...] = ("plan", "strict", "default", "accept_edits", "autonomous")
    for mode in modes:
        rules = Permissions(mode=mode)
        tools = [
            lab.tool("read", read_only=True),
            lab.tool("write"),
            lab.tool("drop", destructive=True),
            lab.tool("guarded", requires_approval=bool),
        ]
        script = calls("read") + calls("write") + calls("drop") + calls("guarded", tag="x")
        agents.append(Agent(lab.model(script, "Inner.", name=mode), name=mode, tools=tools, permissions=rules))
    script = Response()
    for agent in agents:
        script += calls(agent.name, prompt="x")
    return Agent(lab.model(script, "Done."), tools=[agent.as_tool() for agent in agents])


@on_depths("completed")
def arguments_of_every_type(lab: Lab) -> Agent[Any, Any]:
    @tool
    async def everything(
        text: str,
        number: float,
        flag: bool,
        size: _Size,
        pick: Literal[1, "two"],
        pair: tuple[int, str],
        names: set[str],
        anything: Any = None,
        data: bytes = b"",
        rows: list[_Order] | None = None,
    ) -> tuple[str, ...]:
        """Take everything."""
        await lab.sim.seam("everything")
        return (text, str(number), str(flag), size.value, str(pick), str(pair), str(sorted(names)))

    right: dict[str, Any] = {
        "text": "a",
        "number": 1.5,
        "flag": True,
        "size": "small",
        "pick": "two",
        "pair": [1, "x"],
        "names": ["a"],
        "rows": [{"name": "ann"}],
        "data": "AAEC",
    }
    script = calls("everything", **right)
    wrong: list[tuple[str, Any]] = [
        ("text", 1),
        ("flag", "yes"),
        ("size", "huge"),
        ("pick", 3),
        ("pair", [1]),
        ("rows", [{}]),
    ]
    for name, value in wrong:
        script += calls("everything", **{**right, name: value})
    for raw in ('{"text": "a", "text": "b"}', "", "null", "[1]", '{"text": 1e999}'):
        script += calls("everything", raw=raw)
    return Agent(lab.model(script, "Done."), tools=[everything])


@on_depths("completed")
def results_of_every_type(lab: Lab) -> Agent[Any, Any]:
    values: list[object] = [
        None,
        3,
        1.5,
        True,
        [1, "a"],
        {"a": (1, 2)},
        Text("parts"),
        [Text("one"), Image(b"\x89PNG\r\n\x1a\n")],
        File(b"%PDF-1.4", media_type="application/pdf"),
        b"bytes",
        "\ud800 cannot be encoded",
        _Order("ann"),
        _Size.BIG,
        float("nan"),
    ]
    tools: list[Tool] = []
    script = Response()
    for number, value in enumerate(values):

        async def give(_context: ToolContext[Any], value: object = value) -> object:
            await trio.lowlevel.checkpoint()
            return value

        tools.append(lab.bare(f"give{number}", give))
        script += calls(f"give{number}")
    return Agent(lab.model(script, "Done."), tools=tools)


@on_depths("completed")
def an_output_of_a_class(lab: Lab) -> Agent[Any, Any]:
    wrong = says('{"name": "ANN"}')
    return Agent(lab.model(wrong, '{"name": "ann", "count": 3}'), output_type=_Order)


@on_depths("failed")
def a_response_is_refused(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(says("I cannot", stop="refusal")), output_type=_Order)


@on_depths("completed")
def responses_that_stop_for_other_reasons(lab: Lab) -> Agent[Any, Any]:
    script: list[Response | str] = [thinks("Hm. ") + calls("one"), says("Paused.", stop="paused")]
    return Agent(lab.model(*script, "Done."), tools=[lab.tool("one")])


@on_depths("failed")
def requests_are_repeated_as_the_server_says(lab: Lab) -> Agent[Any, Any]:
    later = fails(ModelRateLimitError(model="model", status=429, body="later", retry_after=500))
    return Agent(lab.model(later), retries=Retries(attempts=4, delay=1, max_delay=2, max_wait=20))


@scenario(ends("completed"))
async def a_session_is_shortened_on_request(lab: Lab) -> None:
    session = Session("long")
    agent = Agent(
        lab.model("One. " * 40, "Two. " * 40, "They counted.", "Three.", "Four."),
        compaction=Compaction(window=10_000),
        hooks=[lab.hook(hooks.pre_compact), lab.hook(hooks.post_compact)],
    )
    for name in ("A", "B"):
        async with lab.stream(agent, name=name, session=session) as stream:
            await stream.drain()
    try:
        await session.compact(agent, instructions="Keep the numbers.")
        session.context(agent)
    except AgentLoopError:
        if lab.sim.injection is None:
            raise
    async with lab.stream(agent, name="C", session=session) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def only_the_text_is_read(lab: Lab) -> None:
    inner = Agent(lab.model("Inner words.", name="inner"), name="inner")
    agent = Agent(lab.model(says("First. ") + calls("inner", prompt="x"), "Second."), tools=[inner.as_tool()])
    async with lab.stream(agent) as stream:
        text = "".join([piece async for piece in stream.stream.text()])
        if lab.sim.injection is None and text != "First. Second.":
            lab.watch.note(f"the text of the answer is {text!r}")


@on_depths("limit")
def unknown_calls_again_and_again(lab: Lab) -> Agent[Any, Any]:
    """Calls that never come to run are repeated calls like the others."""
    script: list[Response] = [calls("nope")] * 4
    return Agent(lab.model(*script), tools=[lab.tool("one")], limits=Limits(identical_turns=3))


@on_depths("limit")
def unreadable_calls_again_and_again(lab: Lab) -> Agent[Any, Any]:
    script: list[Response] = [calls("one", raw="{")] * 4
    return Agent(lab.model(*script), tools=[lab.tool("one")], limits=Limits(identical_turns=3))


@on_depths("limit")
def denied_calls_again_and_again(lab: Lab) -> Agent[Any, Any]:
    script: list[Response] = [calls("one", tag="x")] * 4
    rules = Permissions(deny=["one"])
    return Agent(lab.model(*script), tools=[lab.tool("one")], permissions=rules, limits=Limits(identical_turns=3))
