"""Output validators and `Retry`: who is asked again, how often, and what a resumed run makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio
from attrs import frozen

from agentloop import Agent, Deadlines, Limits, OutputInfo, Retry, RunInfo, ToolContext, hooks, tool
from agentloop.errors import OutputError, UsageError
from agentloop.events import TurnFinished
from agentloop.hooks import StopRequested
from agentloop.journal import OpenStore, Record
from agentloop.messages import UserMessage
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, ScriptedModel, calls
from tests.runtime.builders import agent_with, results
from tests.support import of, watch


@frozen
class City:
    name: str
    people: int = 0


PORTO = '{"name": "Porto", "people": 230000}'
GHOST = '{"name": "Atlantis"}'


def exists(city: City) -> City:
    if not city.people:
        raise Retry(f"nobody lives in {city.name}")
    return city


def agent_of(*script: Any, **options: Any) -> Agent:
    settings: dict[str, Any] = {"output_type": City, "output_validators": [exists], **options}
    return Agent(ScriptedModel(*script), **settings)


def last_prompt(agent: Agent, index: int = -1) -> str:
    assert isinstance(agent.model, ScriptedModel)
    message = agent.model.requests[index].messages[-1]
    assert isinstance(message, UserMessage)
    return message.text


def no_argument() -> int:
    return 1


def three_arguments(city: City, info: object, more: object) -> City:
    return city


async def test_an_output_that_a_validator_refuses_is_asked_for_again() -> None:
    agent = agent_of(GHOST, PORTO)

    watched = await watch(agent)

    assert watched.outcome.output == City("Porto", 230000)
    assert "nobody lives in Atlantis\nAnswer again, with nothing but JSON" in last_prompt(agent)
    assert [event.reason for event in of(watched.events, TurnFinished)] == ["output_retry", "final"]
    assert [message.text for message in watched.messages if not isinstance(message, UserMessage)] == [GHOST, PORTO]


async def test_refused_and_invalid_outputs_count_as_attempts_alike() -> None:
    agent = agent_of(GHOST, "no JSON", GHOST, PORTO)

    with pytest.raises(OutputError, match="no valid output in 3 attempts; the last problem: nobody lives") as caught:
        await agent.run("go")

    assert caught.value.text == GHOST


async def test_validators_change_the_output_in_order() -> None:
    async def doubled(city: City) -> City:
        await trio.lowlevel.checkpoint()
        return City(city.name, city.people * 2)

    def named(city: City) -> str:
        return f"{city.name}: {city.people}"

    assert (await agent_of(PORTO, output_validators=[exists, doubled, named]).run("go")).output == "Porto: 460000"


async def test_a_validator_of_two_arguments_gets_the_deps_and_the_attempt() -> None:
    infos: list[OutputInfo[str]] = []

    def check(city: City, info: OutputInfo[str]) -> City:
        infos.append(info)
        if info.attempt < 2:
            raise Retry("once more")
        return city

    await agent_of(GHOST, PORTO, output_validators=[check]).run("go", deps="deps")

    assert [(info.attempt, info.attempts, info.deps, info.turn) for info in infos] == [
        (1, 3, "deps", 1),
        (2, 3, "deps", 2),
    ]
    assert infos[1].message.text == PORTO


async def test_the_info_of_a_validator_is_the_run_info_that_other_functions_get() -> None:
    infos: list[RunInfo[str]] = []

    def check(city: City, info: RunInfo[str]) -> City:
        infos.append(info)
        return city

    outcome = await agent_of(PORTO, output_validators=[check]).run("go", deps="deps")

    [info] = infos
    assert isinstance(info, OutputInfo)
    assert (info.model, info.usage) == ("scripted", outcome.usage)


class Checker:
    def __init__(self) -> None:
        self.checked: list[object] = []

    def __call__(self, output: object) -> object:
        self.checked.append(output)
        return output

    async def method(self, output: object, *, more: int = 1) -> object:
        return self(output)


async def test_a_validator_may_be_any_callable() -> None:
    checker = Checker()

    def bound(limit: int, output: City) -> City:
        return output

    await agent_of(PORTO, output_validators=[checker, checker.method, partial(bound, 3)]).run("go")

    assert len(checker.checked) == 2


async def test_a_text_is_validated_too() -> None:
    def shout(text: str) -> str:
        if not text.isupper():
            raise Retry("louder")
        return text

    agent = agent_of("hi", "HI", output_type=str, output_validators=[shout])

    assert (await agent.run("go")).output == "HI"
    assert last_prompt(agent).endswith("louder\nAnswer again.")


async def test_stop_hooks_are_called_for_valid_outputs_only() -> None:
    asked: list[str] = []

    @hooks.stop
    def note(value: StopRequested) -> None:
        asked.append(value.message.text)

    await agent_of(GHOST, PORTO, hooks=[note]).run("go")

    assert asked == [PORTO]


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "validator",
    [7, City, no_argument, three_arguments, "check"],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_no_validator_is_refused_when_the_agent_is_made(validator: Any) -> None:
    with pytest.raises(UsageError, match="output validator"):
        agent_of(PORTO, output_validators=[validator])


async def test_a_validator_that_raises_fails_the_run_with_its_error() -> None:
    def broken(city: City) -> City:
        raise KeyError(city.name)

    with pytest.raises(UsageError, match="the output validator 'broken' of agent 'agent' failed: KeyError") as caught:
        await agent_of(PORTO, output_validators=[broken]).run("go")

    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_validator_that_forgets_to_return_the_output_is_said_so() -> None:
    def forget(city: City) -> None:
        pass

    with pytest.raises(UsageError, match="returned None: it is to return the output"):
        await agent_of(PORTO, output_validators=[forget]).run("go")


async def test_a_retry_without_words_says_that_there_are_none() -> None:
    def no(city: City) -> City:
        raise Retry

    agent = agent_of(PORTO, PORTO, output_validators=[no], limits=Limits(output_attempts=2))
    with pytest.raises(OutputError, match="the last problem: no reason was given"):
        await agent.run("go")

    assert last_prompt(agent).startswith("That is not the output that was asked for: no reason was given\n")


async def test_a_validator_has_the_deadline_of_a_hook(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(city: City) -> City:
        await trio.Event().wait()
        return city

    with pytest.raises(UsageError, match="'hang' of agent 'agent' failed: took longer than 5 s"):
        await agent_of(PORTO, output_validators=[hang], deadlines=Deadlines(hook=5)).run("go")


async def test_a_run_that_is_stopped_while_a_validator_waits_keeps_the_response() -> None:
    entered = trio.Event()

    async def wait(city: City) -> City:
        entered.set()
        await trio.Event().wait()
        return city

    async with agent_of(PORTO, output_validators=[wait]).stream("go") as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait)
        await entered.wait()
        stream.stop()

    assert stream.outcome.reason == "cancelled"
    assert stream.outcome.messages[-1] == stream.outcome.messages[1]
    assert stream.outcome.output is None


# ------------------------------------------------------------------------------------ resuming


class Recorder:
    """A store that keeps the records that were added to it, as a process that dies leaves them."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self.records: list[Record] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self.store.append(session, records, **options)
        self.records += records


def answers_by_transcript(request: ModelRequest) -> str:
    """A model that gives one bad answer, and a good one once it was asked again."""
    return PORTO if any("nobody lives" in message.text for message in request.messages) else GHOST


async def test_a_run_whose_process_dies_at_any_record_ends_with_the_validated_output() -> None:
    def counted(city: City) -> str:
        return f"{city.people} people"

    def agent() -> Agent[Any, Any]:
        model = FunctionModel(answers_by_transcript)
        return Agent(model, output_type=City, output_validators=[exists, counted], limits=Limits(output_attempts=2))

    async with MemoryStore().open() as store:
        recorder: Any = Recorder(store)
        async with stored_session(recorder, "s") as session:
            whole = await agent().run("go", session=session)
    assert whole.output == "230000 people"

    resumed = 0
    for cut in range(1, len(recorder.records)):
        async with MemoryStore().open() as store:
            await store.append("s", recorder.records[:cut])
            async with stored_session(store, "s") as session:
                if session.is_resumable:
                    resumed += 1
                    outcome = await agent().resume(session)
                    assert outcome.output == "230000 people"
                    texts = [message.text for message in session.messages]
                    assert texts.count(PORTO) == texts.count(GHOST) == 1
    assert resumed > 4


async def test_the_info_about_a_child_that_ended_before_its_caller_was_parked_is_the_same_after_resuming() -> None:
    infos: list[OutputInfo[None]] = []

    def check(output: str, info: OutputInfo[None]) -> str:
        infos.append(info)
        return output

    child = Agent(ScriptedModel("Hello."), output_validators=[check])

    @tool
    async def delegate(context: ToolContext) -> str:
        output = (await context.run(child, "go")).output
        return f"{output} {await context.ask('Really?')}"

    agent = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await agent.run("go", session=session, on_question="park")
        async with stored_session(store, "s") as session:
            await agent.resume(session, on_question="decline")

    first, second = infos
    assert (first.usage, first.message, first.model) == (second.usage, second.message, second.model)
    assert second.usage.requests == 1


async def test_a_resumed_run_has_the_attempts_that_are_left() -> None:
    @tool
    async def ask(context: ToolContext[Any]) -> str:
        return str(await context.ask("Well?"))

    agent = agent_of(GHOST, calls("ask"), GHOST, PORTO, tools=[ask], limits=Limits(output_attempts=2))
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        parked = await agent.run("go", session=session, on_question="park")
        assert parked.reason == "needs_input"

        with pytest.raises(OutputError, match="no valid output in 2 attempts"):
            await agent.resume(session, on_question="decline")


# --------------------------------------------------------------------------------- from a tool


async def test_a_tool_may_have_the_model_try_again() -> None:
    @tool
    async def look_up(name: str) -> str:
        if name != "Porto":
            raise Retry(f"there is no {name}: try Porto")
        return "here"

    watched = await watch(agent_with(look_up, model=ScriptedModel(calls("look_up", name="Oporto"), "done")))

    [result] = results(watched)
    assert (result.status, result.text) == (
        "error",
        "there is no Oporto: try Porto\n\nCorrect this, and call the tool again.",
    )


async def test_a_request_to_try_again_needs_no_words() -> None:
    @tool
    async def look_up() -> str:
        raise Retry

    watched = await watch(agent_with(look_up))

    assert results(watched)[0].text == "Correct this, and call the tool again."
