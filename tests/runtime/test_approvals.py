"""Approvals: which call waits for one, what a person is shown, and that the tool runs with that and nothing else."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Accept, Agent, Approve, Decline, Deny, Rule, Session, Tool, hooks, tool
from agentloop._runtime.approval import agent_fingerprint
from agentloop._runtime.stream import Stream
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import (
    ApprovalRequested,
    QuestionAnswered,
    QuestionDeclined,
    StreamEvent,
    ToolCallFinished,
    ToolCallStarted,
    WarningIssued,
)
from agentloop.hooks import Allow, Ask, Hook, PreToolUse, ReplaceArguments
from agentloop.mcp import McpServer
from agentloop.messages import ToolResult
from agentloop.permissions import Exact, Glob, Grant
from agentloop.questions import Answer
from agentloop.testing import Response, ScriptedModel, calls
from tests.runtime.builders import agent_with, answering, asked, only_result, results, warnings_in
from tests.support import first, nested, of, opened, watch


class Shredder:
    """A tool that had better be asked about, and what it was called with."""

    def __init__(self, **options: Any) -> None:
        self.shredded: list[tuple[object, ...]] = []

        async def shred(path: str, times: int = 1, on: date | None = None) -> str:
            """Shred a file."""
            self.shredded.append((path, times) if on is None else (path, times, on))
            return "shredded"

        self.tool: Tool = tool(**{"requires_approval": True, **options})(shred)

    def agent(self, *paths: str, **options: Any) -> Agent:
        """An agent that shreds each of ``paths``, a turn each."""
        script = [calls("shred", path=path) for path in paths or ("a",)]
        return Agent(ScriptedModel(*script, "Done."), tools=[self.tool], **options)


@tool(name="shred", requires_approval=True)
async def shred_everything(path: str) -> str:
    """Shred a folder."""
    return "shredded"


# --------------------------------------------------------------------------------- who is asked


async def test_a_tool_that_requires_approval_runs_when_a_person_approves() -> None:
    shredder = Shredder()

    result = await only_result(shredder.agent(), on_event=answering(Approve()))

    assert (result.text, shredder.shredded) == ("shredded", [("a", 1)])


async def test_a_tool_that_requires_approval_does_not_run_before_a_person_approves() -> None:
    shredder = Shredder()

    async with opened(shredder.agent()) as stream:
        question = await first(stream, ApprovalRequested)
        await wait_all_tasks_blocked()
        assert shredder.shredded == []
        stream.answer(question.id, Approve())
        await first(stream, ToolCallFinished)
        assert shredder.shredded == [("a", 1)]


async def test_a_tool_that_requires_none_is_not_asked_about() -> None:
    shredder = Shredder(requires_approval=False)

    watched = await watch(shredder.agent())

    assert (asked(watched.events), shredder.shredded) == ([], [("a", 1)])


async def test_an_approval_is_requested_after_the_call_has_started_with_its_exact_arguments() -> None:
    shredder = Shredder()

    watched = await watch(shredder.agent(), on_event=answering(Approve()))

    [started], [question] = of(watched.events, ToolCallStarted), of(watched.events, ApprovalRequested)
    assert started.seq < question.seq
    assert (question.call_id, question.name, question.arguments) == (started.call_id, "shred", {"path": "a"})


async def test_a_call_with_bad_arguments_is_not_asked_about() -> None:
    """A person would approve what cannot run."""
    shredder = Shredder()
    agent = agent_with(shredder.tool, response=calls("shred", path=7))

    watched = await watch(agent)

    assert asked(watched.events) == []
    assert results(watched)[0].status == "error"


async def test_without_an_answerer_the_call_is_denied_and_its_result_says_so() -> None:
    shredder = Shredder()

    watched = await watch(shredder.agent(), on_question="decline")

    assert (results(watched)[0].text, results(watched)[0].status) == (
        "Denied: it needs approval. Nobody is there to be asked.",
        "denied",
    )
    assert len(of(watched.events, QuestionDeclined)) == 1
    assert shredder.shredded == []


@pytest.mark.parametrize("depth", [1, 2])
async def test_the_call_of_a_child_is_approved_at_the_root(depth: int) -> None:
    shredder = Shredder()

    await watch(nested(shredder.agent(name="inner"), depth), on_event=answering(Approve()))

    assert shredder.shredded == [("a", 1)]


async def test_several_calls_wait_for_approval_side_by_side() -> None:
    shredder = Shredder()
    agent = agent_with(shredder.tool, response=calls("shred", path="a") + calls("shred", path="b"))

    async with opened(agent) as stream:
        await wait_all_tasks_blocked()
        for question in stream.pending:
            assert isinstance(question, ApprovalRequested)
            stream.answer(question.id, Approve() if question.arguments["path"] == "b" else Deny())
        await stream.wait()

    assert shredder.shredded == [("b", 1)]


@pytest.mark.parametrize("attempt", range(10))
async def test_approvals_are_asked_for_in_call_order(attempt: int) -> None:
    """Trio starts tasks in any order: of ten attempts, one would be out of order."""
    shredder = Shredder()
    paths = [f"{attempt}{letter}" for letter in "abcd"]
    [first_path, *others] = paths
    response = sum((calls("shred", path=path) for path in others), calls("shred", path=first_path))

    watched = await watch(agent_with(shredder.tool, response=response), on_event=answering(Approve()))

    assert [question.arguments["path"] for question in of(watched.events, ApprovalRequested)] == paths


@pytest.mark.parametrize("attempt", range(5))
async def test_an_approval_is_not_asked_for_before_those_of_earlier_calls_that_a_hook_is_still_checking(
    attempt: int,
) -> None:
    shredder = Shredder()

    async def slow_for_a(value: PreToolUse) -> None:
        if value.arguments["path"] == "a":
            await trio.sleep(1 + attempt)

    agent = agent_with(shredder.tool, response=calls("shred", path="a") + calls("shred", path="b"))

    watched = await watch(agent.replace(hooks=[hooks.pre_tool_use(slow_for_a)]), on_event=answering(Approve()))

    assert [question.arguments["path"] for question in of(watched.events, ApprovalRequested)] == ["a", "b"]


# ----------------------------------------------------------------------------------- predicates


async def test_a_predicate_says_which_calls_need_approval() -> None:
    shredder = Shredder(requires_approval=lambda arguments: arguments["path"].startswith("/etc"))

    watched = await watch(shredder.agent("a", "/etc/passwd"), on_event=answering(Deny()))

    assert [question.arguments["path"] for question in of(watched.events, ApprovalRequested)] == ["/etc/passwd"]
    assert shredder.shredded == [("a", 1)]


async def test_a_predicate_gets_the_arguments_as_the_function_will() -> None:
    seen: list[dict[str, Any]] = []

    def predicate(arguments: dict[str, Any]) -> bool:
        seen.append(arguments)
        return False

    shredder = Shredder(requires_approval=predicate)
    await watch(agent_with(shredder.tool, response=calls("shred", path="a", on="2026-01-31")))

    assert seen == [{"path": "a", "times": 1, "on": date(2026, 1, 31)}]


async def test_a_predicate_may_be_async() -> None:
    async def predicate(arguments: dict[str, Any]) -> bool:
        await trio.sleep(1)
        return True

    shredder = Shredder(requires_approval=predicate)
    watched = await watch(shredder.agent(), on_event=answering(Deny()))

    assert len(asked(watched.events)) == 1


async def test_where_a_predicate_raises_a_person_decides() -> None:
    def predicate(arguments: dict[str, Any]) -> bool:
        raise KeyError("size")

    shredder = Shredder(requires_approval=predicate)
    watched = await watch(shredder.agent(), on_event=answering(Approve()))

    assert len(asked(watched.events)) == 1
    [warning] = of(watched.events, WarningIssued)
    assert warning.code == "predicate_failed"
    assert warning.message == "requires_approval of tool 'shred' failed: KeyError: 'size'"
    assert shredder.shredded == [("a", 1)]


@pytest.mark.seconds(100)
async def test_where_a_predicate_hangs_a_person_decides() -> None:
    async def predicate(arguments: dict[str, Any]) -> bool:
        await trio.sleep_forever()

    shredder = Shredder(requires_approval=predicate)
    watched = await watch(shredder.agent(), on_event=answering(Approve()))

    assert (len(asked(watched.events)), warnings_in(watched.events)) == (1, ["predicate_failed"])


async def test_a_predicate_cannot_change_what_the_tool_gets() -> None:
    """What a person is shown would not be what runs."""

    def predicate(arguments: dict[str, Any]) -> bool:
        arguments["path"] = "/etc/passwd"
        return True

    shredder = Shredder(requires_approval=predicate)
    watched = await watch(shredder.agent(), on_event=answering(Approve()))

    assert of(watched.events, ApprovalRequested)[0].arguments == {"path": "a"}
    assert shredder.shredded == [("a", 1)]


# -------------------------------------------------------------------------------------- answers


async def test_a_person_may_change_the_arguments() -> None:
    shredder = Shredder()

    result = await only_result(shredder.agent(), on_event=answering(Approve({"path": "b", "times": 7})))

    assert (result.status, shredder.shredded) == ("ok", [("b", 7)])


async def test_changed_arguments_are_converted_like_those_of_the_model() -> None:
    shredder = Shredder()

    await watch(shredder.agent(), on_event=answering(Approve({"path": "b", "on": "2026-01-31"})))

    assert shredder.shredded == [("b", 1, date(2026, 1, 31))]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Approve({"path": 7}), "invalid arguments: `path`: expected `str`, got `int`"),
        (Approve({}), "invalid arguments: missing required field `path`"),
        (Approve({"path": "a", "force": True}), "unknown field `force`; the fields are `path`, `times`, `on`"),
        (Approve({"path": object()}), "where a JSON value is due"),
        (Approve("a"), "`Approve.arguments` is 'a', where a dict or None is due"),  # type: ignore[arg-type]
        (Approve({7: "a"}), "`Approve.arguments` is {7: 'a'}, where a dict with texts as keys is due"),  # type: ignore[dict-item]
        (Accept(), "it wants Approve or Deny, not Accept"),
        (Decline(), "it wants Approve or Deny, not Decline"),
        (True, "it wants Approve or Deny, not bool"),
        (None, "it wants Approve or Deny, not NoneType"),
    ],
    ids=["type", "missing", "unknown", "no JSON", "text", "number", "accept", "decline", "true", "none"],
)
async def test_an_ill_formed_answer_raises_for_its_sender_and_the_question_stays_open(
    answer: Any, problem: str
) -> None:
    shredder = Shredder()
    async with opened(shredder.agent()) as stream:
        question = await first(stream, ApprovalRequested)
        with pytest.raises(InvalidAnswerError) as caught:
            stream.answer(question.id, answer)

        assert problem in str(caught.value)
        assert stream.pending == (question,)
        stream.answer(question.id, Approve())
        await first(stream, ToolCallFinished)

    assert shredder.shredded == [("a", 1)]


async def test_a_second_approval_is_refused() -> None:
    async with opened(Shredder().agent()) as stream:
        question = await first(stream, ApprovalRequested)
        stream.answer(question.id, Deny())
        with pytest.raises(UnknownQuestionError):
            stream.answer(question.id, Approve())

        assert (await first(stream, ToolCallFinished)).result.status == "denied"


@pytest.mark.parametrize(
    ("answer", "text"), [(Deny(), "Denied by the user."), (Deny("not today"), "Denied by the user: not today")]
)
async def test_a_call_that_is_denied_does_not_run_and_the_model_reads_why(answer: Deny, text: str) -> None:
    shredder = Shredder()

    result = await only_result(shredder.agent(), on_event=answering(answer))

    assert (result.text, result.status, shredder.shredded) == (text, "denied", [])


async def test_an_approval_is_emitted_even_if_the_stream_is_stopped_at_that_instant_but_the_tool_does_not_run() -> None:
    shredder = Shredder()

    async with opened(shredder.agent()) as stream:
        question = await first(stream, ApprovalRequested)
        stream.answer(question.id, Approve())
        stream.stop()
        events = [event async for event in stream]

    assert len(of(events, QuestionAnswered)) == 1
    assert of(events, ToolCallFinished)[0].result.text == "Interrupted before it started. It did not run."
    assert shredder.shredded == []


async def test_who_changes_the_event_does_not_change_what_was_approved() -> None:
    """The event is a value that is passed around, also to those who may not approve."""
    shredder = Shredder()

    def meddle(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            event.arguments["path"] = "/etc/passwd"
            stream.answer(event.id, Approve())

    await watch(shredder.agent(), on_event=meddle)

    assert shredder.shredded == [("a", 1)]


async def test_who_changes_the_answer_later_does_not_change_what_was_approved() -> None:
    shredder = Shredder()
    answer = Approve({"path": "b"})

    async with opened(shredder.agent()) as stream:
        question = await first(stream, ApprovalRequested)
        stream.answer(question.id, answer)
        assert answer.arguments is not None
        answer.arguments["path"] = "/etc/passwd"
        await first(stream, ToolCallFinished)

    assert shredder.shredded == [("b", 1)]


# --------------------------------------------------------------------------------------- always


ANY = Approve(always=Rule("shred"))
"""Every call of the tool, from now on."""


async def test_always_holds_for_the_same_call_for_the_rest_of_the_stream() -> None:
    shredder = Shredder()

    watched = await watch(shredder.agent("a", "b", "a", "a"), on_event=answering(Approve(always=True)))

    assert [question.arguments["path"] for question in of(watched.events, ApprovalRequested)] == ["a", "b"]
    assert shredder.shredded == [("a", 1), ("b", 1), ("a", 1), ("a", 1)]


async def test_always_does_not_hold_for_a_call_with_one_argument_more() -> None:
    shredder = Shredder()
    model = ScriptedModel(calls("shred", path="a"), calls("shred", path="a", times=9), "Done.")

    watched = await watch(Agent(model, tools=[shredder.tool]), on_event=answering(Approve(always=True), Deny()))

    assert (len(asked(watched.events)), shredder.shredded) == (2, [("a", 1)])


async def test_always_with_a_rule_approves_the_calls_that_match_it() -> None:
    shredder = Shredder()
    rule = Rule("shred", {"path": Glob("tmp/*")})

    agent = shredder.agent("tmp/a", "tmp/b", "tmp/b; rm -rf /", "etc/c")
    watched = await watch(agent, on_event=answering(Approve(always=rule), Deny()))

    shown = [question.arguments["path"] for question in of(watched.events, ApprovalRequested)]
    assert shown == ["tmp/a", "tmp/b; rm -rf /", "etc/c"]
    assert shredder.shredded == [("tmp/a", 1), ("tmp/b", 1)]


async def test_always_with_a_rule_on_the_tool_alone_holds_for_the_tool() -> None:
    shredder = Shredder()

    watched = await watch(shredder.agent("a", "b", "c"), on_event=answering(ANY))

    assert (len(asked(watched.events)), shredder.shredded) == (1, [("a", 1), ("b", 1), ("c", 1)])


async def test_a_permanent_approval_is_a_grant_of_the_session() -> None:
    session = Session()

    await watch(Shredder().agent("a", name="clerk"), session=session, on_event=answering(Approve(always=True)))

    [grant] = session.grants
    rule = Rule("shred", {"path": Exact("a")}, allow_other_arguments=False)
    assert grant == Grant(("clerk",), rule, grant.fingerprint)
    assert grant.fingerprint


async def test_once_is_once() -> None:
    watched = await watch(Shredder().agent("a", "b", "c"), on_event=answering(Approve()))

    assert len(asked(watched.events)) == 3


async def test_always_holds_for_later_streams_on_the_session() -> None:
    shredder, session = Shredder(), Session()

    await watch(shredder.agent("a"), session=session, on_event=answering(Approve(always=True)))
    watched = await watch(shredder.agent("a"), session=session)

    assert (asked(watched.events), shredder.shredded) == ([], [("a", 1), ("a", 1)])


async def test_always_holds_for_one_session_only() -> None:
    shredder = Shredder()

    await watch(shredder.agent("a"), session=Session(), on_event=answering(ANY))
    watched = await watch(shredder.agent("b"), session=Session(), on_event=answering(Deny()))

    assert (len(asked(watched.events)), shredder.shredded) == (1, [("a", 1)])


async def test_always_with_changed_arguments_holds_for_those() -> None:
    shredder = Shredder()

    answers = answering(Approve({"path": "changed"}, always=True), Deny())
    watched = await watch(shredder.agent("a", "a", "changed"), on_event=answers)

    assert len(asked(watched.events)) == 2
    assert shredder.shredded == [("changed", 1), ("changed", 1)]


@pytest.mark.parametrize(
    ("always", "problem"),
    [
        (Rule("burn"), "it is for other tools than 'shred'"),
        (Rule("*"), "it is for other tools than 'shred'"),
        (Rule("shred", {"path": Glob("b*")}), "it does not match the call that it is to approve"),
        (Rule("shred", {"path": Glob("*", allow_shell_characters=True)}), "allow_shell_characters=True is for rules"),
        ("shred", "`Approve.always` is 'shred', where a bool, a Rule or 'safe' or 'safer' is due"),
        (1, "`Approve.always` is 1, where a bool, a Rule or 'safe' or 'safer' is due"),
    ],
    ids=str,
)
async def test_always_with_a_rule_that_does_not_match_the_call_is_refused(always: Any, problem: str) -> None:
    shredder, session = Shredder(), Session()
    async with opened(shredder.agent(), session=session) as stream:
        question = await first(stream, ApprovalRequested)
        with pytest.raises(InvalidAnswerError) as caught:
            stream.answer(question.id, Approve(always=always))

        assert problem in str(caught.value)
        assert (stream.pending, session.grants) == ((question,), ())


async def test_always_with_a_rule_for_the_changed_arguments_is_judged_by_those() -> None:
    shredder = Shredder()
    rule = Rule("shred", {"path": Glob("b*")})

    await watch(shredder.agent("a", "b2"), on_event=answering(Approve({"path": "b1"}, always=rule), Deny()))

    assert shredder.shredded == [("b1", 1), ("b2", 1)]


def shreds(*paths: str) -> Response:
    """A response that asks for several calls at once."""
    several = calls("shred", path=paths[0])
    for path in paths[1:]:
        several = several + calls("shred", path=path)
    return several


async def open_approvals(stream: Stream) -> list[ApprovalRequested]:
    """Those that are open when all calls have asked, by path: tasks start in any order."""
    await wait_all_tasks_blocked()
    found = [question for question in stream.pending if isinstance(question, ApprovalRequested)]
    return sorted(found, key=lambda question: str(question.arguments["path"]))


async def test_always_answers_the_open_questions_that_its_rule_matches() -> None:
    shredder = Shredder()

    async with opened(agent_with(shredder.tool, response=shreds("tmp/a", "tmp/b", "etc/c"))) as stream:
        three, one, two = await open_approvals(stream)
        stream.answer(one.id, Approve(always=Rule("shred", {"path": Glob("tmp/*")})))
        assert stream.pending == (three,)
        stream.answer(three.id, Deny())
        events = [event async for event in stream]

    told = {event.id: event.by for event in of(events, QuestionAnswered)}
    assert told == {one.id: "reader", two.id: "rule", three.id: "reader"}
    assert sorted(shredder.shredded) == [("tmp/a", 1), ("tmp/b", 1)]


async def test_a_reader_that_approves_what_a_rule_has_approved_already_does_no_harm() -> None:
    """It reads the second question only after it has answered the first."""
    shredder = Shredder()
    agent = agent_with(shredder.tool, response=shreds("a", "b", "a"))

    answer = answering(ANY)
    events: list[StreamEvent] = []
    async with opened(agent) as stream:
        # All three have asked before the first of them is read.
        await open_approvals(stream)
        async for event in stream:
            events.append(event)
            answer(stream, event)

    assert sorted(shredder.shredded) == [("a", 1), ("a", 1), ("b", 1)]
    assert len(of(events, ApprovalRequested)) == 3
    assert [event.by for event in of(events, QuestionAnswered)] == ["reader", "rule", "rule"]


@pytest.mark.parametrize("answer", [Deny("stop"), Approve({"path": "c"})], ids=["deny", "changed"])
async def test_a_reader_cannot_answer_otherwise_what_a_rule_has_approved(answer: Answer) -> None:
    async with opened(agent_with(Shredder().tool, response=shreds("a", "b"))) as stream:
        one, two = await open_approvals(stream)
        stream.answer(one.id, ANY)
        with pytest.raises(UnknownQuestionError):
            stream.answer(two.id, answer)


async def test_always_cancels_the_handler_of_a_question_that_it_answers() -> None:
    shredder = Shredder()

    async def handler(question: object) -> Answer:
        assert isinstance(question, ApprovalRequested)
        await trio.sleep(1 if question.arguments["path"] == "a" else 9)
        return ANY if question.arguments["path"] == "a" else Deny()

    watched = await watch(agent_with(shredder.tool, response=shreds("a", "b")), on_question=handler)

    assert sorted(shredder.shredded) == [("a", 1), ("b", 1)]
    assert [event.by for event in of(watched.events, QuestionAnswered)] == ["handler", "rule"]
    assert trio.current_time() < 9


async def test_always_does_not_answer_an_open_question_of_another_agent() -> None:
    shredder = Shredder()
    inner = shredder.agent("b", name="inner").as_tool()
    agent = Agent(
        ScriptedModel(calls("shred", path="a") + calls("inner", prompt="go"), "Done."), tools=[shredder.tool, inner]
    )

    async with opened(agent) as stream:
        await wait_all_tasks_blocked()
        outer, nested_one = sorted(stream.pending, key=lambda question: question.depth)
        stream.answer(outer.id, ANY)
        assert stream.pending == (nested_one,)
        stream.answer(nested_one.id, Deny())
        await stream.wait()

    assert shredder.shredded == [("a", 1)]


async def test_a_permanent_approval_counts_even_if_the_stream_is_stopped_at_that_instant() -> None:
    session = Session()
    async with opened(Shredder().agent(), session=session) as stream:
        question = await first(stream, ApprovalRequested)
        stream.answer(question.id, Approve(always=True))
        stream.stop()

    assert len(session.grants) == 1


async def test_always_does_not_hold_for_another_tool() -> None:
    shredder, other = Shredder(), Shredder(name="burn")
    model = ScriptedModel(calls("shred", path="a"), calls("burn", path="b"), "Done.")
    agent = Agent(model, tools=[shredder.tool, other.tool])

    watched = await watch(agent, on_event=answering(ANY, Deny()))

    assert (len(asked(watched.events)), shredder.shredded, other.shredded) == (2, [("a", 1)], [])


async def test_always_does_not_hold_for_a_tool_of_the_same_name_of_another_agent() -> None:
    shredder, inners = Shredder(), Shredder()
    inner = inners.agent("b", name="inner")
    model = ScriptedModel(calls("shred", path="a"), calls("inner", prompt="go"), "Done.")
    agent = Agent(model, name="outer", tools=[shredder.tool, inner.as_tool()])

    watched = await watch(agent, on_event=answering(ANY, Deny()))

    assert [question.agent for question in asked(watched.events)] == ["outer", "inner"]
    assert (shredder.shredded, inners.shredded) == ([("a", 1)], [])


async def test_always_does_not_hold_for_a_child_of_the_same_name_either() -> None:
    """Agents that nobody has named are all called "agent"."""
    shredder, inners = Shredder(), Shredder()
    model = ScriptedModel(calls("shred", path="a"), calls("inner", prompt="go"), "Done.")
    agent = Agent(model, tools=[shredder.tool, inners.agent("b").as_tool(name="inner")])

    watched = await watch(agent, on_event=answering(ANY, Deny()))

    assert [question.path for question in asked(watched.events)] == [("agent",), ("agent", "agent")]
    assert (shredder.shredded, inners.shredded) == ([("a", 1)], [])


async def test_always_does_not_hold_for_another_agent_of_the_same_name_on_the_session() -> None:
    session = Session()
    await watch(Shredder().agent("a", instructions="Shred drafts."), session=session, on_event=answering(ANY))

    others = {
        "instructions": Shredder().agent("a", instructions="Shred the archive."),
        "tools": Shredder().agent("a", instructions="Shred drafts.").replace(tools=[shred_everything]),
        "toolsets": Shredder()
        .agent("a", instructions="Shred drafts.")
        .replace(toolsets=[McpServer.stdio("uvx", "shredder")]),
    }
    fingerprints = {agent_fingerprint(agent) for agent in others.values()}
    assert len(fingerprints | {grant.fingerprint for grant in session.grants}) == 4

    watched = await watch(others["tools"], session=session, on_event=answering(Deny()))
    assert len(asked(watched.events)) == 1


async def test_always_holds_for_the_same_agent_with_another_model() -> None:
    shredder, session = Shredder(), Session()

    await watch(shredder.agent("a", instructions="Shred."), session=session, on_event=answering(ANY))
    watched = await watch(shredder.agent("b", instructions="Shred."), session=session)

    assert (asked(watched.events), shredder.shredded) == ([], [("a", 1), ("b", 1)])


async def test_always_said_of_a_childs_tool_holds_the_next_time_that_child_runs() -> None:
    shredder, session = Shredder(), Session()

    await watch(nested(shredder.agent("a", name="inner"), 1), session=session, on_event=answering(ANY))
    watched = await watch(nested(shredder.agent("b", name="inner"), 1), session=session)

    assert (asked(watched.events), shredder.shredded) == ([], [("a", 1), ("b", 1)])


async def test_a_denial_is_not_for_always() -> None:
    shredder = Shredder()

    await watch(shredder.agent("a", "b"), on_event=answering(Deny(), Approve()))

    assert shredder.shredded == [("b", 1)]


# ---------------------------------------------------------------------------------------- hooks


def hook(verdict: object) -> Hook:
    return hooks.pre_tool_use(lambda call: verdict)  # type: ignore[arg-type, return-value]


DENY, ASK, ALLOW = Deny("no"), Ask("careful"), Allow()


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ([], "asked"),
        ([None], "asked"),
        ([ALLOW], "ok"),
        ([ASK], "asked"),
        ([DENY], "denied"),
        ([ALLOW, None], "ok"),
        ([ALLOW, ASK], "asked"),
        ([ASK, ALLOW], "asked"),
        ([ALLOW, DENY], "denied"),
        ([DENY, ALLOW], "denied"),
        ([ASK, DENY], "denied"),
        ([DENY, ASK], "denied"),
        ([ALLOW, ASK, DENY], "denied"),
        ([ReplaceArguments({"path": "b"}), ALLOW], "ok"),
        ([ReplaceArguments({"path": "b"}, ALLOW)], "ok"),
        ([ReplaceArguments({"path": "b"}, ASK), ALLOW], "asked"),
        # What was allowed were other arguments.
        ([ALLOW, ReplaceArguments({"path": "b"})], "asked"),
        ([ALLOW, ReplaceArguments({"path": "b"}), ALLOW], "ok"),
    ],
    ids=lambda given: " ".join(type(one).__name__ for one in given) if isinstance(given, list) else given,
)
async def test_the_strictest_verdict_counts_for_a_tool_that_requires_approval(
    verdicts: list[object], outcome: str
) -> None:
    shredder = Shredder()

    agent = shredder.agent(hooks=[hook(verdict) for verdict in verdicts])
    watched = await watch(agent, on_event=answering(Deny("asked")))

    questions, [result] = asked(watched.events), results(watched)
    if outcome == "asked":
        assert (len(questions), result.text) == (1, "Denied by the user: asked")
    else:
        assert (questions, result.status) == ([], outcome)


@pytest.mark.parametrize(
    ("verdicts", "questions"), [([None], 0), ([ALLOW], 0), ([ASK], 1), ([ASK, ALLOW], 1), ([ALLOW, ASK], 1)]
)
async def test_the_strictest_verdict_counts_for_a_tool_that_requires_none(
    verdicts: list[object], questions: int
) -> None:
    shredder = Shredder(requires_approval=False)

    watched = await watch(shredder.agent(hooks=[hook(verdict) for verdict in verdicts]), on_event=answering(Approve()))

    assert (len(asked(watched.events)), shredder.shredded) == (questions, [("a", 1)])


async def test_the_reasons_of_hooks_that_ask_are_shown() -> None:
    agent = Shredder().agent(hooks=[hook(Ask("it is late")), hook(Ask()), hook(Ask("it is big"))])

    watched = await watch(agent, on_event=answering(Deny()))

    assert of(watched.events, ApprovalRequested)[0].reason == "it is late; it is big"


async def test_the_result_of_a_call_that_a_hook_denies_gives_the_reason_to_the_model() -> None:
    result = await only_result(Shredder().agent(hooks=[hook(Deny("deleting is off"))]))

    assert (result.text, result.status) == ("Denied by a hook: deleting is off", "denied")


async def test_after_a_hook_has_denied_no_other_is_called() -> None:
    called: list[str] = []

    @hooks.pre_tool_use
    def late(call: PreToolUse) -> None:
        called.append(call.name)

    await watch(Shredder().agent(hooks=[hook(DENY), late]))

    assert called == []


async def test_always_also_answers_a_hook_that_asks() -> None:
    shredder = Shredder(requires_approval=False)

    watched = await watch(shredder.agent("a", "a", hooks=[hook(ASK)]), on_event=answering(Approve(always=True)))

    assert (len(asked(watched.events)), len(shredder.shredded)) == (1, 2)


async def test_always_does_not_overrule_a_hook_that_denies() -> None:
    shredder = Shredder()

    @hooks.pre_tool_use
    def no_b(call: PreToolUse) -> Deny | None:
        return Deny() if call.arguments["path"] == "b" else None

    await watch(shredder.agent("a", "b", hooks=[no_b]), on_event=answering(ANY))

    assert shredder.shredded == [("a", 1)]


async def test_a_hook_may_replace_the_arguments_and_the_new_ones_are_shown_and_run() -> None:
    shredder = Shredder()

    agent = shredder.agent(hooks=[hook(ReplaceArguments({"path": "b", "times": 2}))])
    watched = await watch(agent, on_event=answering(Approve()))

    assert of(watched.events, ApprovalRequested)[0].arguments == {"path": "b", "times": 2}
    assert shredder.shredded == [("b", 2)]


async def test_a_hook_sees_what_the_one_before_it_replaced() -> None:
    seen: list[object] = []

    @hooks.pre_tool_use
    def look(call: PreToolUse) -> None:
        seen.append(call.arguments)

    shredder = Shredder(requires_approval=False)
    await watch(shredder.agent(hooks=[look, hook(ReplaceArguments({"path": "b"})), look]))

    assert seen == [{"path": "a"}, {"path": "b"}]


async def test_a_hook_may_replace_what_a_person_then_changes_again() -> None:
    shredder = Shredder()

    agent = shredder.agent(hooks=[hook(ReplaceArguments({"path": "b"}))])
    await watch(agent, on_event=answering(Approve({"path": "c"})))

    assert shredder.shredded == [("c", 1)]


async def test_a_hook_that_changes_the_arguments_in_place_changes_nothing() -> None:
    """What a person is shown would not be what runs."""

    @hooks.pre_tool_use
    def meddle(call: PreToolUse) -> None:
        call.arguments["path"] = "/etc/passwd"

    shredder = Shredder()
    watched = await watch(shredder.agent(hooks=[meddle]), on_event=answering(Approve()))

    assert of(watched.events, ApprovalRequested)[0].arguments == {"path": "a"}
    assert shredder.shredded == [("a", 1)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"path": 7}, "`path`: expected `str`, got `int`"), ({}, "`path`"), ({"path": object()}, "a JSON value is due")],
    ids=["type", "missing", "no JSON"],
)
async def test_replaced_arguments_that_do_not_fit_deny_the_call(arguments: dict[str, Any], problem: str) -> None:
    """It may have been there to take something out: running with the old ones would fail open."""
    shredder = Shredder()

    watched = await watch(shredder.agent(hooks=[hook(ReplaceArguments(arguments))]))

    [result] = results(watched)
    assert result.status == "denied"
    assert problem in result.text
    assert (asked(watched.events), shredder.shredded) == ([], [])


async def test_a_predicate_judges_the_arguments_that_hooks_have_replaced() -> None:
    shredder = Shredder(requires_approval=lambda arguments: arguments["path"] == "b")

    watched = await watch(shredder.agent(hooks=[hook(ReplaceArguments({"path": "b"}))]), on_event=answering(Approve()))

    assert len(asked(watched.events)) == 1


async def test_a_handler_may_approve_in_a_persons_place() -> None:
    shredder = Shredder()

    async def only_a(question: object) -> Answer:
        assert isinstance(question, ApprovalRequested)
        return Approve() if question.arguments["path"] == "a" else Deny("only a")

    outcome = await shredder.agent("a", "b").run("go", on_question=only_a)

    texts = [message.text for message in outcome.messages if isinstance(message, ToolResult)]
    assert texts == ["shredded", "Denied by the user: only a"]


async def test_rules_hooks_people_and_the_function_see_the_same_number() -> None:
    """A model may write 3.0 where an integer is due."""
    seen: list[object] = []

    @tool(requires_approval=True)
    async def wait(seconds: int) -> str:
        seen.append(seconds)
        return "waited"

    def watching(call: hooks.PreToolUse) -> None:
        seen.append(call.arguments["seconds"])

    agent = Agent(
        ScriptedModel(calls("wait", raw='{"seconds": 3.0}'), calls("wait", raw='{"seconds": 3e0}'), "Done."),
        tools=[wait],
        hooks=[hooks.pre_tool_use(watching)],
    )
    watched = await watch(agent, on_event=answering(Approve({"seconds": 4.0}), Approve(always=True)))

    asked = [question.arguments["seconds"] for question in of(watched.events, ApprovalRequested)]
    assert asked == [3, 3]
    assert seen == [3, 4, 4, 3, 3]
    assert all(type(number) is int for number in [*asked, *seen])


async def test_a_call_whose_question_waits_for_an_earlier_one_is_asked_about_when_its_turn_comes() -> None:
    """The first of three is asked about while a hook is still checking the second, for which the third waits."""
    shredder = Shredder()

    async def slow(value: PreToolUse) -> None:
        await trio.sleep({"a": 1.0, "b": 5.0, "c": 0.0}[str(value.arguments["path"])])

    response = calls("shred", path="a") + calls("shred", path="b") + calls("shred", path="c")
    agent = agent_with(shredder.tool, response=response).replace(hooks=[hooks.pre_tool_use(slow)])
    watched = await watch(agent, on_event=answering(Approve()))

    assert [question.arguments["path"] for question in of(watched.events, ApprovalRequested)] == ["a", "b", "c"]
