"""Scenarios that try a decision with many values, and compare it with a plain account of the right one.

Each has an account of its own, of a few lines, which shares no code with the runtime: what fits a form, which calls are
the same, how sets of permissions combine, when a model may be asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import trio

from agentloop import hooks
from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop._core.redaction import redacted
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, ModelAuthenticationError, ModelRateLimitError
from agentloop.events import (
    ApprovalRequested,
    CompactionFinished,
    ElicitationRequested,
    OutputDelta,
    ResponseDiscarded,
    ToolCallFinished,
    UsageReported,
)
from agentloop.hooks import HookInput
from agentloop.limits import Compaction, Deadlines, Limits, Retries
from agentloop.messages import Text, ToolResult, Usage
from agentloop.models import ModelSettings
from agentloop.permissions import Exact, Permissions, Rule
from agentloop.questions import Accept, Approve, Decline, Deny
from agentloop.session import Session
from agentloop.testing._lab import Lab
from agentloop.testing.harness.registry import ends, scenario
from agentloop.testing.scripted import Response, calls, fails, hangs, says, thinks
from agentloop.tools import tool

__all__: list[str] = []


# ------------------------------------------------------------------------------- forms

ORDER: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 4},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"type": "number", "minimum": -0.5, "maximum": 0.5},
        "size": {"type": "string", "enum": ["small", "big"]},
        "colors": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1, "maxItems": 2},
        "is_gift": {"type": "boolean"},
    },
    "required": ["name"],
}


def _values(field: Mapping[str, Any]) -> tuple[list[object], list[object]]:
    """Values at the edges of a field that fit it, and values just beyond that do not."""
    match field:
        case {"enum": choices}:
            return [*choices], ["", choices[0].upper(), 0]
        case {"type": "string", "minLength": least, "maxLength": most}:
            return ["x" * least, "x" * most], ["x" * (least - 1), "x" * (most + 1), 5, ["x" * least]]
        case {"type": "integer", "minimum": least, "maximum": most}:
            return [least, most, float(most)], [least - 1, most + 1, least + 0.5, str(least), True]
        case {"type": "number", "minimum": least, "maximum": most}:
            return [least, most, 0], [least - 0.001, most + 0.001, "0", False]
        case {"type": "array", "items": {"enum": choices}, "minItems": least, "maxItems": most}:
            return [choices[:least], choices[:most]], [choices[:1] * (most + 1), ["green"], choices[0]]
        case _:
            return [True, False], [0, 1, "true"]


@scenario(ends("completed"))
async def a_form_takes_what_it_says_up_to_its_edges(lab: Lab) -> None:
    fields: dict[str, Any] = ORDER["properties"]
    base = {"name": "ann"}
    cases = {name: _values(field) for name, field in fields.items()}
    fitting = [base | {name: value} for name, (values, _) in cases.items() for value in values]
    wrong = [base | {name: value} for name, (_, values) in cases.items() for value in values]

    async def order(context: ToolContext[Any]) -> str:
        for number in range(len(fitting)):
            message = f"order {number} of {context.source.session}"
            lab.received[message] = await context.ask(message, ORDER)
        return "ordered"

    agent = Agent(lab.model(calls("order"), "Done."), tools=[lab.bare("order", order)])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if not isinstance(event, ElicitationRequested):
                continue
            for content in [{}, *wrong] if event.message.startswith("order 0") else []:
                # Empty text counts as left out.
                if "" not in content.values() and stream.answer(event.id, Accept(content)):
                    lab.watch.note(f"{content} was accepted for a form that it does not fit")
            content = fitting[int(event.message.split()[1])]
            try:
                stream.stream.answer(event.id, Accept(content))
            except AgentLoopError as error:
                if lab.sim.injection is None:
                    lab.watch.note(f"{content} fits its form, and was refused: {error}")
                stream.answer(event.id, Decline("as it was refused"))


# ------------------------------------------------------------------------------- calls

PAIRS = (
    ('{"n":1}', '{"n":true}', False),
    ('{"n":0}', '{"n":false}', False),
    ('{"n":1}', '{"n":1.0}', True),
    ('{"n":1}', '{"n":"1"}', False),
    ('{"a":1,"b":[2]}', '{"b": [2], "a": 1}', True),
    ('{"n":[1,2]}', '{"n":[2,1]}', False),
    ('{"n":null}', "{}", False),
)
"""Arguments of two calls, and whether they say the same."""


@scenario()
async def the_same_calls_are_those_that_say_the_same(lab: Lab) -> None:
    for first, second, is_same in PAIRS:
        model = lab.model(calls("one", raw=first), calls("one", raw=second), "Done.")
        agent = Agent(model, tools=[lab.bare("one", _nothing)], limits=Limits(identical_turns=2))
        async with lab.stream(agent) as stream:
            await stream.drain()
        reason = stream.stream.outcome.reason
        if lab.sim.injection is None and (reason == "limit") is not is_same:
            lab.watch.note(f"calls with {first} and {second} in a row end a run as {reason}")


async def _nothing(context: ToolContext[Any]) -> str:
    await trio.lowlevel.checkpoint()
    return "done"


@tool
async def plain(number: int = 1) -> str:  # noqa: ASYNC910, ASYNC124 - nothing waits
    """Give a number back."""
    return str(number)


@scenario(ends("completed"))
async def calls_without_arguments_are_written_in_many_ways(lab: Lab) -> None:
    script = Response()
    for raw in ("", " ", "\n \t", "{}", " {} "):
        script += calls("plain", raw=raw)
    async with lab.stream(Agent(lab.model(script, "Done."), tools=[plain])) as stream:
        await stream.drain()
        results = [event.result.text for event in stream.events if isinstance(event, ToolCallFinished)]
        if lab.sim.injection is None and results != ["1"] * 5:
            lab.watch.note(f"calls without arguments gave {results}")


@scenario(ends("completed"))
async def a_tool_gives_the_result_of_another_call(lab: Lab) -> None:
    async def whole(context: ToolContext[Any]) -> ToolResult:
        await lab.sim.seam("whole")
        return ToolResult("another", "other", (Text("mine"),), "error")

    agent = Agent(lab.model(calls("whole") + calls("whole"), "Done."), tools=[lab.bare("whole", whole)])
    async with lab.stream(agent) as stream:
        await stream.drain()
        results = [event.result for event in stream.events if isinstance(event, ToolCallFinished)]
        seen = [(result.name, result.text, result.status) for result in results]
        if lab.sim.injection is None and seen != [("whole", "mine", "error")] * 2:
            lab.watch.note(f"a tool's own results are {results}")


# ------------------------------------------------------------------------- permissions

_EFFECTS = ("none", "allow", "ask", "deny")
_STRICT = {"allow": 0, "none": 1, "ask": 2, "deny": 3}


def _combined(session: str, own: str, around: str) -> str:
    """The strictest counts; of the session and the agent itself, one that says nothing leaves it to the other."""
    said = [effect for effect in (session, own) if effect != "none"]
    mine = max(said, key=_STRICT.__getitem__) if said else "none"
    return max(mine, around, key=_STRICT.__getitem__)


def _rules(names: list[str], place: int) -> Permissions:
    def named(effect: str) -> list[Rule | str]:
        return [name for name in names if name.split("-")[place] == effect]

    return Permissions(allow=named("allow"), ask=named("ask"), deny=named("deny"))


@scenario(ends("completed"))
async def sets_of_permissions_combine_to_the_strictest(lab: Lab) -> None:
    kinds = [*itertools.product(_EFFECTS, _EFFECTS, ("none", "allow", "deny"), ("held",))]
    kinds += [*itertools.product(_EFFECTS, _EFFECTS, ("none",), ("free",))]
    names = ["-".join(kind) for kind in kinds]
    tools = [lab.bare(name, _nothing, requires_approval=name.endswith("held")) for name in names]
    script = Response()
    for name in names:
        script += calls(name)
    inner = Agent(lab.model(script, "Inner.", name="inner"), name="inner", tools=tools, permissions=_rules(names, 1))
    agent = Agent(
        lab.model(calls("inner", prompt="x"), "Done."),
        tools=[inner.as_tool()],
        permissions=Permissions(allow=["inner", *_rules(names, 2).allow], deny=_rules(names, 2).deny),
    )
    session = Session("ruled", permissions=_rules(names, 0))
    async with lab.stream(agent, session=session) as stream:
        await stream.drain(answer=lambda _question: Approve())
        asked = {event.name for event in stream.events if isinstance(event, ApprovalRequested)}
        denied = {
            event.name
            for event in stream.events
            if isinstance(event, ToolCallFinished) and event.result.status == "denied"
        }
    if lab.sim.injection is not None:
        return
    for name in names:
        effect = _combined(*name.split("-")[:3])
        is_asked = effect == "ask" or (effect == "none" and name.endswith("held"))
        if (name in asked, name in denied) != (is_asked, effect == "deny"):
            problem = f"{name} (session, agent, around it, tool) was asked about: {name in asked}"
            lab.watch.note(f"{problem}, denied: {name in denied}, where its permissions say {effect}")


@scenario()
async def an_approval_for_good_opens_nothing_that_is_denied_by_now(lab: Lab) -> None:
    session = Session("strict")
    script = calls("pay", tag="fine") + calls("pay", tag="never")

    @tool(requires_approval=True)
    async def pay(tag: str) -> str:
        """Pay."""
        await lab.sim.seam("pay")
        return tag

    async with lab.stream(Agent(lab.model(script, "Done."), tools=[pay]), session=session) as stream:
        asked: list[str] = []
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                asked.append(event.id)
            if isinstance(event, ApprovalRequested) and len(asked) == 2:
                session.permissions = Permissions(deny=[Rule("pay", {"tag": Exact("never")})])
                if not stream.answer(asked[0], Approve(always=Rule("pay"))) and lab.sim.injection is None:
                    lab.watch.note("an approval for good was refused, since a rule denies another call")
                stream.answer(asked[1], Deny("no"))
        ran = [event.result.text for event in stream.events if isinstance(event, ToolCallFinished)]
        if "never" in ran:
            lab.watch.note("a call that a rule denies was approved for good, before its question was answered")


@scenario()
async def a_hook_has_the_time_of_its_own_agent(lab: Lab) -> None:
    """Also where it is called for the calls of an agent inside, whose hooks have less, or more."""
    for seconds, inside in ((5.0, 1.0), (1.0, 5.0)):

        @hooks.pre_tool_use
        async def look(call: hooks.PreToolUse) -> None:
            if call.name == "one":
                await trio.sleep(3)

        inner = Agent(
            lab.model(calls("one"), "Inner.", name="inner"),
            name="inner",
            tools=[lab.tool("one")],
            deadlines=Deadlines(hook=inside),
        )
        model = lab.model(calls("inner", prompt="x"), "Done.")
        agent = Agent(model, tools=[inner.as_tool()], hooks=[look], deadlines=Deadlines(hook=seconds))
        async with lab.stream(agent) as stream:
            await stream.drain()
            ended = [event for event in stream.events if isinstance(event, ToolCallFinished) and event.name == "one"]
            status = ended[0].result.status if ended else None
            if lab.sim.injection is None and status != ("ok" if seconds > 3 else "denied"):
                lab.watch.note(f"a hook that takes 3 s of {seconds:g} s, for a call inside, leaves it {status}")


# ------------------------------------------------------------------------------ models


@scenario()
async def a_model_is_left_alone_as_long_as_it_should(lab: Lab) -> None:
    """For the cooldown, or for as long as its server wants, whichever is longer."""
    for wanted, pause in ((1.0, 5.0), (None, 5.0), (None, 12.0), (30.0, 20.0), (30.0, 31.0)):
        busy = ModelRateLimitError(model="first", status=429, body="later", retry_after=wanted)
        first, second = lab.model(fails(busy), "First again.", name="first"), lab.model("Second.", name="second")
        agent = Agent(first, fallbacks=[second], retries=Retries(cooldown=10))
        session = Session(f"busy {wanted} {pause}")
        for number in range(2):
            async with lab.stream(agent, session=session) as stream:
                await stream.drain()
            if number == 0:
                await trio.sleep(pause)
        due = 1 + (pause >= max(10.0, wanted or 0.0))
        if lab.sim.injection is None and len(first.requests) != due:
            problem = f"{pause:g} s after its failure, a model that is busy for {wanted} s was asked"
            lab.watch.note(f"{problem} {len(first.requests) - 1} times, with a cooldown of 10 s")


@scenario()
async def a_model_that_a_hook_chose_stands_in_the_place_of_the_first(lab: Lab) -> None:
    """Where it fails, the fallbacks are asked in their order, and the agent's own first model is not."""
    for chosen in ("first", "second", "third"):
        models = [
            lab.model(fails(ModelAuthenticationError(model=name, status=401, body="no")), name=name) for name in _NAMES
        ]

        @hooks.before_llm_call
        async def choose(_call: HookInput, chosen: str = chosen) -> hooks.ReplaceRequest:  # noqa: ASYNC124
            return hooks.ReplaceRequest(model=chosen)

        agent = Agent(models[0], fallbacks=models[1:], hooks=[choose], retries=Retries(attempts=1))
        async with lab.stream(agent) as stream:
            await stream.drain()
        failed = [event.model for event in stream.events if isinstance(event, ResponseDiscarded)]
        asked = [model.name for model in models if model.requests]
        due = [chosen, *(name for name in _NAMES[1:] if name != chosen)]
        if lab.sim.injection is None and (sorted(asked) != sorted(due) or failed != due[:-1]):
            lab.watch.note(f"a hook chose {chosen}, and {asked} were asked: {failed} failed before the last")


_NAMES = ("first", "second", "third")


@scenario(ends("failed"))
async def a_model_falls_silent_after_a_reader_has_rested(lab: Lab) -> None:
    model = lab.model(says(" ".join(["word"] * 60)) + hangs())
    agent = Agent(model, deadlines=Deadlines(idle=60), retries=Retries(attempts=1))
    async with lab.stream(agent) as stream:
        await trio.sleep(1)
        began = lab.sim.now
        await stream.drain()
    if lab.sim.injection is None and lab.sim.now - began > 70:
        lab.watch.note(f"a model that was silent was given up after {lab.sim.now - began:g} s, where 60 are allowed")


@scenario(ends("failed"))
async def a_response_breaks_off_after_a_thought(lab: Lab) -> None:
    gone = ModelAuthenticationError(model="model", status=401, body="no")
    agent = Agent(lab.model(thinks("Hm. ") + says("Half of it") + fails(gone)))
    async with lab.stream(agent) as stream:
        await stream.drain()


def _cut_off(name: str) -> Response:
    return msgspec.structs.replace(calls(name), stop="length")


@scenario(None)
async def responses_that_were_cut_off_in_an_earlier_run_are_past(lab: Lab) -> None:
    session = Session("cut off")
    for name, script, turns in (("A", [_cut_off("one")] * 2, 2), ("B", [_cut_off("one")] * 2, 9)):
        agent = Agent(lab.model(*script, "Done."), tools=[lab.tool("one")], limits=Limits(turns=turns))
        async with lab.stream(agent, name=name, session=session, on_question="decline") as stream:
            await stream.drain()
    reasons = [each.stream.outcome.reason for each in lab.recorded]
    if lab.sim.injection is None and reasons != ["limit", "completed"]:
        lab.watch.note(f"two cut-off responses in each of two runs end them as {reasons}")


# ---------------------------------------------------------------------- partial outputs

OUTPUT = '{"n": 12345, "t": "a\\u00e9\\ud83d\\ude00\\n\\"", "l": [-1.5e3, true, null, {"k": "v"}], "o": {}, "e": []}'


def _begins(part: Any, whole: Any) -> bool:
    """Whether ``part`` may become ``whole``: texts grow, and everything else is whole from the first."""
    if is_object(part) and is_object(whole):
        return all(name in whole and _begins(value, whole[name]) for name, value in part.items())
    if is_array(part) and is_array(whole):
        return len(part) <= len(whole) and all(map(_begins, part, whole))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return type(part) is type(whole) and part == whole


def _put(output: Any, event: OutputDelta) -> Any:
    """``output`` with a change, by the words of `OutputDelta`."""
    if not event.location:
        return event.value
    *outer, last = event.location
    inside: Any = output
    for step in outer:
        inside = inside[step]
    if event.is_piece:
        inside[last] += event.value
    elif is_array(inside):
        inside.append(event.value)
    else:
        inside[last] = event.value
    return output


@scenario(ends("completed"))
async def an_output_grows_wherever_its_pieces_are_cut(lab: Lab) -> None:
    whole: Any = decode_json(OUTPUT)
    for piece in (1, 2, 3, 7, 1000):
        agent = Agent(lab.model(says(OUTPUT, piece=piece)), output_type=dict[str, Any], output_deltas=True)
        folded: Any = None
        async with lab.stream(agent) as stream:
            async for event in stream:
                if stream.stream.partial is not None and not _begins(stream.stream.partial, whole):
                    lab.watch.note(f"in pieces of {piece}, a part of the output is {stream.stream.partial}")
                if isinstance(event, OutputDelta):
                    folded = _put(folded, event)
            if lab.sim.injection is None and folded != whole:
                lab.watch.note(f"in pieces of {piece}, the changes of the output make {folded}")


# -------------------------------------------------------------------------- compaction


@scenario(ends("completed"))
async def summaries_fail_and_succeed_by_turns(lab: Lab) -> None:
    """Only failures in a row make compaction rest, and no summary has the agent's limit of tokens."""
    long = msgspec.structs.replace(
        says("bla " * 500, piece=2000) + calls("one"), usage=Usage(input_tokens=10, output_tokens=450)
    )
    model = lab.model(long, "", long, "They said bla.", long, "", long, "They said bla.", "Done.")
    agent = Agent(
        model,
        tools=[lab.tool("one")],
        settings=ModelSettings(max_tokens=16),
        limits=Limits(identical_turns=99),
        compaction=Compaction(window=500, keep_recent=0.01, instructions="Sum it all up."),
    )
    async with lab.stream(agent) as stream:
        await stream.drain()
    if lab.sim.injection is not None:
        return
    whole = [not event.problem for event in stream.events if isinstance(event, CompactionFinished)]
    if whole != [False, True, False, True]:
        lab.watch.note(f"of four summaries, the first and the third failed, and those that made room are {whole}")
    for request in model.requests:
        last = request.messages[-1].parts[-1]
        if isinstance(last, Text) and "Sum it all up." in last.text and request.settings.max_tokens is not None:
            lab.watch.note(f"a summary was asked for in {request.settings.max_tokens} tokens")


@scenario(ends("completed"))
async def a_count_from_before_a_summary_is_void(lab: Lab) -> None:
    """The response that is kept had filled the window. The next one, which nobody counts, does not."""
    full = msgspec.structs.replace(
        says("bla " * 60, piece=2000) + calls("one"), usage=Usage(input_tokens=440, output_tokens=20)
    )
    silent = msgspec.structs.replace(calls("one"), usage=Usage())
    agent = Agent(
        lab.model(full, "Bla.", silent, silent, "Done."),
        tools=[lab.tool("one")],
        limits=Limits(identical_turns=99),
        compaction=Compaction(window=500, keep_recent=0.01),
    )
    async with lab.stream(agent, "bla " * 200) as stream:
        await stream.drain()
    finished = [event for event in stream.events if isinstance(event, CompactionFinished)]
    counted = [event for event in stream.events if isinstance(event, UsageReported)]
    if lab.sim.injection is None and (len(finished) != 1 or len(counted) != 5):
        lab.watch.note(f"the window was full once, and was emptied {len(finished)} times: {finished}")


# ------------------------------------------------------------------- deadlines, stops, keys


@scenario(ends("completed"))
async def a_deadline_starts_again_while_it_is_paused(lab: Lab) -> None:
    async def patient(context: ToolContext[Any]) -> str:
        await trio.sleep(6)
        with context.paused_deadline():
            await trio.sleep(30)
            context.restart_deadline()
        await trio.sleep(8)
        return "in time"

    agent = Agent(lab.model(calls("patient"), "Done."), tools=[lab.bare("patient", patient, timeout=10)])
    async with lab.stream(agent) as stream:
        await stream.drain()
        texts = [event.result.text for event in stream.events if isinstance(event, ToolCallFinished)]
        if lab.sim.injection is None and texts != ["in time"]:
            lab.watch.note(f"8 s after its 10 s began again, a call ended with {texts}")


@scenario(ends("cancelled"))
async def stopped_while_the_hook_of_a_follow_up_works(lab: Lab) -> None:
    """The message that the hook looked at was not delivered."""

    @hooks.user_followup_submit
    async def look(_value: HookInput) -> None:
        await lab.sim.seam("hook:look")
        lab.recorded[0].stop()
        await trio.sleep(1)

    async with lab.stream(Agent(lab.model("First.", "Second."), hooks=[look])) as stream:
        stream.stream.follow_up("And then?")
        await stream.drain()
        if lab.sim.injection is None and len(stream.stream.outcome.undelivered) != 1:
            lab.watch.note(f"a follow-up was not delivered, and undelivered is {stream.stream.outcome.undelivered}")


def _secrets() -> Iterator[tuple[str, ...]]:
    long, short = "abcd1234efgh5678", "abcd1234"
    yield from itertools.permutations((long, short, "5678zzzz"))


@scenario(None)
async def nothing_of_a_secret_is_left(lab: Lab) -> None:
    """Also of one that begins with another one, or ends as it begins."""
    await lab.sim.seam("secrets")
    for secrets in _secrets():
        text = " and ".join(secrets)
        shown = redacted(text, secrets)
        if left := [shown[start : start + 4] for start in range(len(shown)) if _is_of(shown[start : start + 4], text)]:
            lab.watch.note(f"{text!r} is shown as {shown!r}, with {left[0]!r}")


def _is_of(piece: str, text: str) -> bool:
    return len(piece) == 4 and piece.isalnum() and piece in text
