"""What models replied once is replayed: the same pieces, the same errors, and no secret in the file."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines, Session, UsageError, errors, tool
from agentloop.errors import (
    CassetteError,
    ModelConnectionError,
    ModelError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
    ScriptError,
)
from agentloop.events import StreamEvent, TextDelta
from agentloop.limits import Retries
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from agentloop.models import Model, ModelRequest, ModelSettings, OpenableModel, Reply, Stop, ToolSpec
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.testing import (
    FunctionModel,
    Lab,
    NetworkForbiddenError,
    Response,
    ScriptedModel,
    calls,
    cassette,
    fails,
    forbid_network_models,
    hangs,
    says,
    sweep,
    thinks,
)
from agentloop.testing._tape import Failure, read_tape
from agentloop.testing.scripted import play_response
from tests.providers.chat import Heard, said, whole
from tests.providers.server import answering, serving
from tests.support import of, watch

KEY = "not-a-known-shape-1234567890"


class Provider:
    """Stands in for a model behind a network: it has a script, and knows how often it was asked."""

    def __init__(self, *script: Response | str, name: str = "provider:m") -> None:
        self.script = [says(one) if isinstance(one, str) else one for one in script]
        self.name = name
        self.requests: list[ModelRequest] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.requests.append(request)
        return await play_response(self.script[len(self.requests) - 1], reply)


class Unreachable(Provider):
    """There is no network."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        raise AssertionError("a model was asked in replay")


def asking(*texts: str, **fields: Any) -> ModelRequest:
    return ModelRequest(tuple(UserMessage((Text(text),)) for text in texts), **fields)


async def ask(model: Model, request: ModelRequest | None = None) -> Heard:
    heard = Heard()
    await model.respond(request or asking("Hi"), heard)
    return heard


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "it.json"


async def record(path: Path, *script: Response | str, requests: tuple[ModelRequest, ...] = (), **options: Any) -> None:
    """Record what a model replies to ``requests``."""
    provider = Provider(*script)
    with cassette(path, mode="record", **options) as tape:
        for request in requests or (asking("Hi"),) * len(script):
            with suppress(ModelError):
                await ask(tape.model(provider), request)


async def replayed(path: Path, request: ModelRequest, **options: Any) -> Heard:
    with cassette(path, mode="replay", unused="ignore", **options) as tape:
        return await ask(tape.model("provider:m"), request)


def exchanges(path: Path) -> list[Any]:
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))["exchanges"]
    return found


def written(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def there(path: Path) -> bool:
    return path.exists()


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def edit(path: Path, old: str, new: str) -> None:
    text = written(path)
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def beside(path: Path) -> list[str]:
    return [one.name for one in path.parent.iterdir()]


# --------------------------------------------------------------------- record and replay


async def test_a_response_is_replayed_piece_by_piece(path: Path) -> None:
    script = thinks("Let me see.") + says("Twice: ") + calls("add", id="c1", a=1) + calls("add", id="c2", a=2)
    signed = Response((Reasoning("Hm.", "signed"), *script.parts), usage=Usage(7, 3), piece=4)
    provider = Provider(signed)
    with cassette(path) as tape:
        assert tape.recording
        first = await ask(tape.model(provider))

    with cassette(path) as tape:
        assert not tape.recording
        heard = Heard()
        stop = await tape.model("provider:m").respond(asking("Hi"), heard)

    assert heard.pieces == first.pieces
    assert len(heard.pieces) > 10
    assert stop == Stop("tool_calls", Usage(7, 3))
    assert heard.message(stop).parts[0] == Reasoning("Hm.", "signed")
    assert len(provider.requests) == 1


async def test_pieces_that_interleave_are_replayed_in_their_order(path: Path) -> None:
    class Weaver(Provider):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await reply.text("a")
            await reply.tool_call(1, id="x", name="f")
            await reply.tool_call(0, id="y", name="g", arguments="{")
            await reply.tool_call(1, arguments="{}")
            await reply.tool_call(0, arguments="}")
            # Some servers say them again and again.
            await reply.tool_call(0, id="y")
            await reply.tool_call(0, name="g")
            await reply.text("b")
            await reply.reasoning("", signature="s1")
            await reply.reasoning("", signature="s2")
            return Stop()

    with cassette(path) as tape:
        first = await ask(tape.model(Weaver()))
    again = await replayed(path, asking("Hi"))

    assert again.pieces == first.pieces
    assert again.message(Stop()) == first.message(Stop())


def child_and_boss(boss_model: Model | str, child_model: Model | str) -> Agent:
    async def look(city: str) -> str:
        return f"3 degrees in {city}"

    child = Agent(child_model, name="helper", tools=[look])
    return Agent(boss_model, name="boss", tools=[child.as_tool()], instructions="Delegate.")


async def test_agents_and_those_inside_them_go_through_the_cassette(path: Path) -> None:
    boss = Provider(calls("helper", prompt="Porto?"), "It is cold.", name="openai:big")
    helper = Provider(calls("look", city="Porto"), "3 degrees.", name="openai:small")
    with cassette(path):
        first = await watch(child_and_boss(boss, helper), "Weather?", session=Session("s"))

    # As it is held in a module: by name. No key is needed, and no network.
    agent = child_and_boss("openai:big", "openai:small")
    with forbid_network_models(), cassette(path, unused="error"):
        again = await watch(agent, "Weather?", session=Session("s"))

    assert again.outcome.output == "It is cold."
    assert again.events == first.events
    assert again.messages == first.messages
    assert [one["model"] for one in exchanges(path)] == ["openai:big", "openai:small", "openai:small", "openai:big"]


async def test_an_agent_with_a_scripted_model_does_not_go_through_the_cassette(path: Path) -> None:
    with cassette(path):
        assert (await Agent(ScriptedModel("Hello.")).run("Hi")).output == "Hello."
        assert (await Agent(FunctionModel(lambda request: "Hello.")).run("Hi")).output == "Hello."

    assert not there(path)


async def test_an_override_inside_the_block_wins_and_one_around_it_is_recorded(path: Path) -> None:
    agent = Agent("openai:gpt-5")
    with agent.override(model=Provider("From outside.", name="other")), cassette(path):
        assert (await agent.run("Hi")).output == "From outside."
        with agent.override(model=ScriptedModel("From inside.")):
            assert (await agent.run("Hi")).output == "From inside."

    assert [one["model"] for one in exchanges(path)] == ["other"]


async def test_with_agents_none_only_what_is_given_goes_through_the_cassette(path: Path) -> None:
    with cassette(path, agents="none") as tape:
        await Agent(Provider("One.")).run("Hi")
        await Agent(tape.model(Provider("Two."))).run("Hi")

    assert len(exchanges(path)) == 1


async def test_a_model_that_is_given_to_an_agent_is_recorded_once(path: Path) -> None:
    with cassette(path) as tape:
        await Agent(tape.model(Provider("One."))).run("Hi")

    assert len(exchanges(path)) == 1


async def test_the_same_request_is_replayed_in_order(path: Path) -> None:
    await record(path, "One.", "Two.")

    with cassette(path) as tape:
        model = tape.model("provider:m")
        pieces = [(await ask(model)).pieces, (await ask(model)).pieces]
        with pytest.raises(CassetteError, match="was recorded 2 times, and is made once more"):
            await ask(model)

    assert pieces == [[("text", "One.")], [("text", "Two.")]]


async def test_a_cassette_is_replayed_from_the_start_whenever_it_is_entered(path: Path) -> None:
    await record(path, "One.")
    tape = cassette(path)

    for _ in range(2):
        with tape:
            assert (await ask(tape.model("provider:m"))).pieces == [("text", "One.")]


async def test_a_conversation_continues_in_replay(path: Path) -> None:
    for model in (Provider("Hello.", "Bye."), "provider:m"):
        session = Session()
        with cassette(path, unused="error"):
            answers = [(await Agent(model).run(prompt, session=session)).output for prompt in ("Hi", "See you")]
        assert answers == ["Hello.", "Bye."]


async def test_responses_that_run_at_once_are_recorded_in_the_order_in_which_they_began(path: Path) -> None:
    slow, fast = Provider("Slow."), Provider("Fast.", name="fast")
    gate = trio.Event()

    async def wait_first(model: Model) -> None:
        await ask(model, asking("slow"))

    class Gated(Provider):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await gate.wait()
            return await slow.respond(request, reply)

    with cassette(path) as tape:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_first, tape.model(Gated()))
            await trio.testing.wait_all_tasks_blocked()
            await ask(tape.model(fast), asking("fast"))
            gate.set()

    assert [one["model"] for one in exchanges(path)] == ["provider:m", "fast"]
    with cassette(path, unused="error") as tape:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, tape.model("fast"), asking("fast"))
            nursery.start_soon(ask, tape.model("provider:m"), asking("slow"))


async def test_a_model_that_can_be_opened_is_opened_to_record_and_not_to_replay(path: Path) -> None:
    opened: list[str] = []

    class Openable(Provider):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Model]:
            opened.append("open")
            yield Provider("From the open one.")
            opened.append("closed")

    model = Openable()
    assert isinstance(model, OpenableModel)
    for _ in range(2):
        with cassette(path):
            assert (await Agent(model).run("Hi")).output == "From the open one."

    assert opened == ["open", "closed"]


async def events(agent: Agent) -> list[StreamEvent]:
    async with agent.stream("go", session=Session("s")) as stream:
        return [event async for event in stream]


@pytest.mark.real_clock
async def test_an_http_adapter_is_recorded_and_replayed_without_its_server(path: Path) -> None:
    async with serving(answering(whole(said("Hello "), said("there.")))) as server:
        agent = Agent(OpenAIChat("m", base_url=server.url, api_key=KEY))
        with cassette(path):
            first = await events(agent)
    with cassette(path, unused="error"):
        again = await events(agent)

    assert again == first
    assert len(of(again, TextDelta)) == 2
    assert KEY not in written(path)


async def test_replay_takes_no_time_on_the_clock(path: Path) -> None:
    await record(path, says("word " * 500))
    before = trio.current_time()

    await replayed(path, asking("Hi"))

    assert trio.current_time() == before


# ------------------------------------------------------------------------------- errors


async def test_an_error_is_replayed_with_its_facts_after_the_pieces_before_it(path: Path) -> None:
    error = ModelRateLimitError(model="m", status=429, body="Slow down.", code="rate_limit", retry_after=2.5)
    await record(path, says("Well") + fails(error))

    heard = Heard()
    with cassette(path) as tape, pytest.raises(ModelRateLimitError) as caught:
        await tape.model("provider:m").respond(asking("Hi"), heard)

    assert heard.pieces == [("text", "Well")]
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error)


async def test_the_usage_of_a_response_that_failed_is_replayed(path: Path) -> None:
    usage = Usage(input_tokens=25_000, output_tokens=1)
    await record(path, msgspec.structs.replace(says("Well"), reported=usage) + fails(ModelConnectionError("dropped")))

    heard = Heard()
    with cassette(path) as tape, pytest.raises(ModelConnectionError):
        await tape.model("provider:m").respond(asking("Hi"), heard)

    assert heard.reported == usage


def made(kind: type[ModelError]) -> ModelError:
    facts: dict[str, Any] = {
        "advice": "a", "attempts": 2, "body": "b", "code": "c", "model": "m", "problem": "p", "retry_after": 1.0,
        "seconds": 5.0, "status": 429, "text": "t", "waiting_for": "w",
    }  # fmt: skip
    try:
        return kind("What went wrong.")
    except TypeError:
        parameters = [name for name in kind.__init__.__annotations__ if name != "return"]
        return kind(**{name: facts[name] for name in parameters})


KINDS = [
    kind for kind in (getattr(errors, name) for name in errors.__all__) if issubclass(kind, ModelError)
]  # each of them


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_of_a_model_comes_back_as_it_was(kind: type[ModelError]) -> None:
    error = made(kind)

    told = msgspec.json.decode(msgspec.json.encode(Failure.of(error)), type=Failure)
    again = told.error()

    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


async def test_an_error_of_the_users_own_comes_back_as_the_nearest_of_ours(path: Path) -> None:
    class BusyError(ModelRateLimitError):
        pass

    await record(path, fails(BusyError(model="m", status=529, body="b")))

    with pytest.raises(ModelRateLimitError, match="529"):
        await replayed(path, asking("Hi"))


async def test_what_a_library_raises_is_replayed_as_what_the_runtime_makes_of_it(path: Path) -> None:
    agent = Agent(Provider(fails(OSError("no route"))), retries=Retries(attempts=1))
    told: list[str] = []
    for _ in range(2):
        with cassette(path), pytest.raises(ModelConnectionError) as caught:
            await agent.run("Hi")
        told.append(str(caught.value))

    assert told == ["model 'provider:m' failed: OSError: no route"] * 2


async def test_a_request_that_is_made_again_after_an_error_is_replayed_with_the_error(path: Path) -> None:
    busy = ModelRateLimitError(model="m", status=429, body="Slow down.", retry_after=2.5)
    agent = Agent(Provider(fails(busy), "Now."))
    took: list[float] = []
    for _ in range(2):
        start = trio.current_time()
        with cassette(path, unused="error"):
            assert (await agent.run("Hi")).output == "Now."
        took.append(trio.current_time() - start)

    assert len(exchanges(path)) == 2
    assert min(took) >= 2.5


async def test_a_callers_mistake_is_not_recorded(path: Path) -> None:
    with cassette(path) as tape, pytest.raises(ScriptError):
        await ask(tape.model(ScriptedModel(name="empty")))

    assert not there(path)


# ------------------------------------------------------------------------ the simulator


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    await trio.sleep(1)
    return a + b


async def adding(lab: Lab, model: Model) -> None:
    async with lab.stream(Agent(model, tools=[add])) as stream:
        await stream.drain()


def test_a_cassette_is_replayed_in_the_simulator(path: Path) -> None:
    async def play(lab: Lab) -> None:
        with cassette(path, mode="replay", unused="ignore") as tape:
            await adding(lab, tape.model("provider:m"))

    async def main() -> None:
        with cassette(path):
            await Agent(Provider(calls("add", a=1, b=2), "It is 3."), tools=[add]).run("go")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    def ends_well(lab: Lab) -> None:
        [stream] = lab.recorded
        assert stream.stream.result.output == "It is 3."

    assert sweep(play, kinds=["cancel", "schedule"], limit=12, expect=ends_well).fired > 10


def test_wherever_recording_is_cancelled_only_whole_exchanges_are_saved(path: Path) -> None:
    script = calls("add", a=1, b=2), says("It is 3.")
    kept: set[int] = set()

    async def play(lab: Lab) -> None:
        remove(path)
        try:
            with cassette(path) as tape:
                await adding(lab, tape.model(Provider(*script)))
        finally:
            found = read_tape(path) if there(path) else ()
            kept.add(len(found))
            replies = [sum(len(row.pieces) for row in one.reply) for one in found]
            assert replies == [2, 3][: len(found)]
            assert all(one.stop is not None for one in found)

    sweep(play, kinds=["cancel"], limit=25)

    assert kept == {0, 1, 2}


# ------------------------------------------------------------------------ what is written


async def test_only_whole_exchanges_are_saved_when_the_run_is_cancelled(path: Path) -> None:
    provider = Provider(calls("add", a=1, b=2), says("It is") + hangs())

    async def add(a: int, b: int) -> int:
        return a + b

    with trio.move_on_after(1), cassette(path):
        await Agent(provider, tools=[add]).run("1 + 2?")

    assert len(provider.requests) == 2
    [kept] = exchanges(path)
    assert kept["reply"][0]["name"] == "add"


async def test_a_response_that_is_out_of_time_is_not_recorded(path: Path) -> None:
    with cassette(path), pytest.raises(ModelTimeoutError):
        await Agent(Provider(hangs()), deadlines=Deadlines(first_token=1), retries=Retries(attempts=1)).run("Hi")

    assert not there(path)


async def test_a_recording_is_saved_when_the_block_fails(path: Path) -> None:
    with pytest.raises(KeyError), cassette(path) as tape:
        await ask(tape.model(Provider("One.")))
        raise KeyError

    assert len(exchanges(path)) == 1


async def test_a_recording_that_comes_to_nothing_leaves_the_file_as_it_was(path: Path) -> None:
    await record(path, "One.")
    before = written(path)

    with cassette(path, mode="record"):
        pass

    assert written(path) == before


async def test_recording_anew_replaces_the_file_whole(path: Path) -> None:
    await record(path, "One.", "Two.")
    await record(path, "Three.")

    assert [one["reply"][0]["pieces"] for one in exchanges(path)] == [["Three."]]
    assert beside(path) == ["it.json"]


async def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(path, "One.")
    before = written(path)

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        await record(path, "Two.")

    assert written(path) == before
    assert beside(path) == ["it.json"]


async def test_the_file_is_there_to_be_read(path: Path) -> None:
    """Each of these lines is what a person looks for in a difference between two versions."""
    text = "Ünï☂ " + "a long sentence that is not cut, " * 10
    request = asking(text, instructions="Be brief.", tools=(ToolSpec("add", "Adds.", {"type": "object"}),))
    await record(path, says("It is ") + calls("add", id="c1", a=1), requests=(request,))

    file = written(path)
    lines = [line.strip() for line in file.splitlines()]
    assert file.startswith('{\n  "format": 1,\n  "exchanges": [\n')
    assert any(text in line for line in lines)
    assert '"model": "provider:m",' in lines
    assert '"instructions": "Be brief.",' in lines
    assert '{"type": "text", "pieces": ["It ", "is ", ""]},' not in lines
    assert '{"type": "text", "pieces": ["It ", "is "]},' in lines
    assert '{"type": "tool_call", "index": 0, "pieces": ["", "{\\"a\\":1}"], "id": "c1", "name": "add"}' in lines
    assert file.endswith("}\n")


async def test_recording_the_same_again_writes_the_same_bytes(path: Path) -> None:
    files = []
    for settings in ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}):
        request = asking("Hi", settings=ModelSettings(extra=settings))
        await record(path, says("Hello. " * 100), requests=(request,))
        files.append(written(path))

    assert files[0] == files[1]


# -------------------------------------------------------------------------- what matches


def spoken(call_id: str, **fields: Any) -> tuple[Message, ...]:
    return (
        UserMessage((Text("Hi"),)),
        AssistantMessage((ToolCall(call_id, "add", "{}"),), "tool_calls", **fields),
        ToolResult(call_id, "add", (Text("3"),)),
    )


def results_in_order(*call_ids: str) -> ModelRequest:
    asked = AssistantMessage((ToolCall("x", "f", "{}"), ToolCall("y", "f", "{}")))
    return ModelRequest((asked, *(ToolResult(call_id, "f", (Text("3"),)) for call_id in call_ids)))


ONE, TWO = ToolSpec("a", "A.", {"x": 1, "y": 2}), ToolSpec("b", "B.", {})
UUIDS = ("0b3c8a52-3c0e-4d0b-9f0c-111111111111", "c56a4180-65aa-42ec-a945-222222222222")


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        (asking("Hi", tools=(ONE, TWO)), asking("Hi", tools=(TWO, ToolSpec("a", "A.", {"y": 2, "x": 1})))),
        (ModelRequest(spoken("call_x7")), ModelRequest(spoken("call_q9"))),
        (ModelRequest(spoken("c", model="m-1")), ModelRequest(spoken("c", model="m-2", usage=Usage(5, 5)))),
        (asking(f"Job {UUIDS[0]}"), asking(f"Job {UUIDS[1].upper()}")),
        (ModelRequest([UserMessage((Text("Hi"),))]), asking("Hi", instructions="", tools=())),
    ],
    ids=["order of tools and keys", "call ids", "usage and model", "uuids", "kinds of sequence"],
)
async def test_what_does_not_matter_does_not_count(path: Path, recorded: ModelRequest, asked: ModelRequest) -> None:
    await record(path, "Yes.", requests=(recorded,))

    assert (await replayed(path, asked)).pieces == [("text", "Yes.")]


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        (asking("Hi"), asking("Hi!")),
        (asking("Hi"), asking("Hi", instructions="Be brief.")),
        (asking("Hi", tools=(ONE,)), asking("Hi", tools=(ToolSpec("a", "A.", {"x": 1, "y": 3}),))),
        (asking("Hi"), asking("Hi", settings=ModelSettings(temperature=0.5))),
        (asking("Hi"), asking("Hi", output=ONE)),
        (
            ModelRequest((UserMessage((Image(b"one"),)),)),
            ModelRequest((UserMessage((Image(b"two"),)),)),
        ),
        (
            results_in_order("x", "y"),
            results_in_order("y", "x"),
        ),
    ],
    ids=["text", "instructions", "tools", "settings", "output", "images", "which call a result is for"],
)
async def test_what_matters_counts(path: Path, recorded: ModelRequest, asked: ModelRequest) -> None:
    await record(path, "Yes.", requests=(recorded,))

    with pytest.raises(CassetteError):
        await replayed(path, asked)


async def test_a_request_to_another_model_is_another_request(path: Path) -> None:
    await record(path, "Yes.")

    with (
        cassette(path, unused="ignore") as tape,
        pytest.raises(CassetteError, match=r"\n-model: provider:m\n\+model: other"),
    ):
        await ask(tape.model("other"))


async def test_text_that_changes_can_be_ignored(path: Path) -> None:
    await record(path, "Yes.", requests=(asking("It is 2026-01-02."),), ignore=[r"\d{4}-\d\d-\d\d"])

    heard = await replayed(path, asking("It is 2027-03-04."), ignore=[r"\d{4}-\d\d-\d\d"])
    assert heard.pieces == [("text", "Yes.")]


async def test_a_file_that_a_person_has_edited_counts_as_it_stands(path: Path) -> None:
    await record(path, "Yes.", requests=(asking("Hi there"),))
    edit(path, "Hi there", "Hello")

    assert (await replayed(path, asking("Hello"))).pieces == [("text", "Yes.")]


async def test_bytes_and_broken_text_are_recorded(path: Path) -> None:
    request = ModelRequest((UserMessage((File(b"\x00\xff" * 50, name="a.bin"), Text("half \ud83d a pair"))),))
    await record(path, says("half \ud83d a pair"), requests=(request,))

    assert "".join(piece[1] for piece in (await replayed(path, request)).pieces) == "half ? a pair"


# ----------------------------------------------------------------------- nothing matches


async def test_the_error_for_a_request_without_a_recording_shows_the_difference_to_the_nearest(path: Path) -> None:
    far = asking("Something else altogether.")
    near = asking("What is it?\nIn Porto, I mean.", instructions="You are a weatherman. Be brief. Be kind.")
    await record(path, "1", "2", requests=(far, near))

    now = asking("What is it?\nIn Lisbon, I mean.", instructions="You are a weatherman. Be long. Be kind.")
    with pytest.raises(CassetteError) as caught:
        await replayed(path, now)

    error = caught.value
    assert isinstance(error, ScriptError)
    assert (error.path, error.model) == (str(path), "provider:m")
    told = str(error)
    assert told.startswith(
        f"cassette {path}: there is no recording of this request to 'provider:m'. The nearest one is"
    )
    assert "The nearest one is 2 of 2" in told
    changed = [line.replace(" ", "") for line in error.difference.splitlines() if line[0] in "-+"]
    assert sorted(changed) == ["+Belong.", "+InLisbon,Imean.", "-Bebrief.", "-InPorto,Imean."]
    assert "pytest --cassettes=record" in told
    assert 'mode="record"' in told


async def test_a_difference_is_cut_where_it_is_too_long_to_read(path: Path) -> None:
    await record(path, "1", requests=(asking(*(f"old {n}" for n in range(200))),))

    with pytest.raises(CassetteError, match="more lines") as caught:
        await replayed(path, asking(*(f"new {n}" for n in range(200))))

    assert len(str(caught.value).splitlines()) < 70


async def test_the_error_of_a_refused_parent_still_names_the_refused_child(path: Path) -> None:
    boss = Provider(calls("helper", prompt="Porto?"), "It is cold.", name="openai:big")
    helper = Provider(calls("look", city="Porto"), "3 degrees.", name="openai:small")
    with cassette(path):
        await child_and_boss(boss, helper).run("Weather?")
    edit(path, '"Porto?"', '"Porto??"')

    with cassette(path, unused="ignore"), pytest.raises(CassetteError) as caught:
        await child_and_boss("openai:big", "openai:small").run("Weather?")

    assert (
        "It is not the first such request. Of the first: there is no recording of this request to 'openai:small'"
        in str(caught.value)
    )


async def test_in_replay_no_model_is_looked_up_or_asked(path: Path) -> None:
    await record(path, "Yes.")

    with cassette(path, mode="replay") as tape:
        assert (await ask(tape.model(Unreachable()))).pieces == [("text", "Yes.")]
        with pytest.raises(CassetteError):
            await ask(tape.model("nobody:nothing"))


def test_replay_without_a_file_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(CassetteError, match=r"it\.json: cannot be read: No such file"), cassette(path, mode="replay"):
        pass


def failing(error: str) -> str:
    """A file with one exchange, which failed."""
    return '{"format": 1, "exchanges": [{"key": "", "model": "", "request": {}, "error": ERROR}]}'.replace(
        "ERROR", error
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"format": 2, "tracks": []}', "is of format 2, and this version of agentloop reads up to 1: update"),
        ("[]", "is no cassette"),
        ("{", "is no cassette"),
        ("\ud800", "is no cassette"),
        ('{"format": 1, "exchanges": [{"key": "k", "model": "m", "request": {}}]}', "neither a stop nor an error"),
        (failing('{"type": "X", "message": ""}'), "there is no ModelError 'X'"),
        (
            failing('{"type": "ModelStatusError", "message": "", "facts": {"a": 1}}'),
            "ModelStatusError is not made of a",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(path: Path, content: str, problem: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogatepass"))

    with pytest.raises(CassetteError) as caught, cassette(path):
        pass

    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


# ------------------------------------------------------------------------------- unused


async def test_recordings_that_are_not_asked_for_are_a_warning(path: Path) -> None:
    await record(path, "One.", "Two.", "Three.")

    with pytest.warns(UserWarning, match="2 of 3 recordings were not asked for: number 2, 3"):  # noqa: SIM117
        with cassette(path) as tape:
            await ask(tape.model("provider:m"))


async def test_recordings_that_are_not_asked_for_can_be_an_error_or_nothing(path: Path) -> None:
    await record(path, "One.")

    with pytest.raises(CassetteError, match="1 of 1 recordings were not asked for"), cassette(path, unused="error"):
        pass
    with cassette(path, unused="ignore"):
        pass
    with cassette(path, unused="error") as tape:
        assert tape.unused == (0,)
        tape.ignore_unused()


async def test_nothing_is_said_of_them_if_the_block_failed(path: Path) -> None:
    await record(path, "One.")

    with pytest.raises(KeyError), cassette(path, unused="error"):
        raise KeyError


# ------------------------------------------------------------------------------ secrets

SHAPES = {
    "openai": "sk-proj-abcdefghijklmnop1234",
    "anthropic": "sk-ant-api03-abcdefghijklmnop",
    "bearer": "Bearer abcdef0123456789.xyz",
    "basic": "Basic dXNlcjpwYXNzd29yZDE=",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github fine": "github_pat_11ABCDEFG0abcdefghijklmnop",
    "google": "AIzaSyA-abcdefghijklmnopqrstuvwxyz12345",
    "hugging face": "hf_abcdefghijklmnopqrstuvwxyz",
    "slack": "xoxb-123456789012-abcdefghijkl",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "url": "https://user:hunter2222@example.org/",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
}
HEART = {"bearer": "abcdef0123456789", "basic": "dXNlcjpw", "url": "hunter2222", "pem": "MIIEow"}
"""What must not be in the file, where it is not the whole."""


async def exposed(path: Path, secret: str, **options: Any) -> str:
    """The file of a cassette in which ``secret`` came up everywhere."""
    half = len(secret) // 2
    request = ModelRequest(
        (
            UserMessage((Text(f"My key is {secret}."), File(f"KEY={secret}\n".encode(), media_type="text/plain"))),
            AssistantMessage(
                (Reasoning(f"It says {secret}", secret), ToolCall(secret, "f", json.dumps({"k": secret})))
            ),
            ToolResult(
                secret,
                "f",
                (Text(json.dumps({secret: [secret]})), Text(json.dumps({secret: secret}, ensure_ascii=False))),
                "error",
            ),
        ),
        instructions=f"Use {secret}",
        tools=(ToolSpec("f", secret, {"default": secret}),),
        settings=ModelSettings(extra={"headers": {"x-key": secret, secret: 1}}, stop=(secret,)),
    )

    class Chatty(Provider):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await reply.reasoning(f"hm {secret[:half]}")
            await reply.reasoning(secret[half:], signature=secret)
            for letter in f"I say {secret}, {secret}!":
                await reply.text(letter)
            await reply.tool_call(0, id=secret, name="f", arguments='{"k":"' + secret[:3])
            # The calls of one response come interleaved: what is one text there is in two places here.
            await reply.tool_call(1, name="g", arguments="{}")
            await reply.tool_call(0, arguments=secret[3:] + '"}')
            if not self.requests:
                self.requests.append(request)
                return Stop(model=secret)
            body = f"Incorrect API key provided: {secret}"
            raise ModelRateLimitError(model=secret, status=401, body=body, code=secret)

    with cassette(path, mode="record", **options) as tape:
        model = tape.model(Chatty())
        await ask(model, request)
        with pytest.raises(ModelRateLimitError):
            await ask(model, request)
    # In replay the request has the secret in it, too: it must match all the same.
    with cassette(path, mode="replay", unused="ignore", **options) as tape:
        heard = await ask(tape.model("provider:m"), request)
    # A piece without its part of the secret may be empty.
    assert len([piece for piece in heard.pieces if piece[0] == "text"]) + heard.signs_of_life > len(secret)
    return written(path)


def strings(value: Any) -> Iterator[str]:
    """All text in ``value``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def assert_not_in(secret: str, text: str) -> None:
    decoded = msgspec.json.decode(text)
    assert "<redacted>" in text
    spelled = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for one in (text, *strings(decoded)):
        assert not [form for form in spelled if form in one]
    [data] = {one["request"]["messages"][0]["parts"][1]["data"] for one in decoded["exchanges"]}
    assert secret.encode() not in msgspec.convert(data, bytes)
    for one in decoded["exchanges"]:
        for kind in ("text", "reasoning", "tool_call"):
            rows = [row for row in one["reply"] if row["type"] == kind and row.get("index") != 1]
            whole = "".join(piece for row in rows for piece in row["pieces"])
            assert whole
            assert secret not in whole


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_looks_like_a_key_is_not_in_the_file(path: Path, shape: str) -> None:
    assert_not_in(HEART.get(shape, SHAPES[shape]), await exposed(path, SHAPES[shape]))


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MY_OWN_API_KEY"])
@pytest.mark.parametrize("secret", [KEY, 'quo"ted\\and/slashed', 'schlüssel-"☂"-1234'])
async def test_a_key_in_the_environment_is_not_in_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, secret: str
) -> None:
    monkeypatch.setenv(variable, secret + "\n")

    assert_not_in(secret, await exposed(path, secret))


async def test_what_the_user_calls_a_secret_is_not_in_the_file(path: Path) -> None:
    assert_not_in("customer 4711", await exposed(path, "customer 4711", redact=[r"customer \d+"]))


async def test_a_key_that_is_a_word_stays_a_word(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_API_KEY", "lm-studio")
    monkeypatch.setenv("SOME_OTHER_API_KEY", "cautious")
    await record(path, "I run in lm-studio, said the risk-averse-and-cautious-model. Basic understanding.")

    assert "<redacted>" not in written(path)


async def test_an_error_for_a_request_without_a_recording_shows_no_secret(path: Path) -> None:
    await record(path, "1")

    with pytest.raises(CassetteError) as caught:
        await replayed(path, asking(f"Use {SHAPES['openai']}."))

    assert SHAPES["openai"] not in str(caught.value)
    assert "<redacted>" in str(caught.value)


# ------------------------------------------------------------------------------ misuse


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mode": "once"}, "mode= is one of 'auto', 'record', 'replay', not 'once'"),
        ({"agents": "all"}, "agents= is one of"),
        ({"unused": "fail"}, "unused= is one of"),
        ({"redact": "secret"}, "redact= takes a list"),
        ({"redact": ["("]}, "redact= takes regular expressions"),
        ({"redact": ["x*"]}, "matches also where there is nothing"),
        ({"ignore": ["("]}, "ignore= takes regular expressions"),
    ],
)
def test_an_argument_that_is_wrong_is_refused(path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        cassette(path, **options)

    assert problem in str(caught.value)


async def test_a_cassette_is_used_inside_of_its_block(path: Path) -> None:
    tape = cassette(path)
    with pytest.raises(UsageError, match="is not open"):
        tape.model("openai:gpt-5")
    with tape:
        model = tape.model(Provider("Hi."))
        with pytest.raises(UsageError, match="is open already"), tape:
            pass
    with pytest.raises(UsageError, match="is not open"):
        await ask(model)


async def test_after_the_block_agents_have_their_own_models_again(path: Path) -> None:
    agent = Agent(Provider("One.", "Two."))
    with cassette(path):
        await agent.run("Hi")
    await agent.run("Hi")

    assert len(exchanges(path)) == 1


# ------------------------------------------------------------------------ the network


class Networked(Provider):
    """A model that asks whether it may send, as the adapters do."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        from agentloop.providers import check_network

        check_network(model=self.name, url="https://provider.invalid")
        return await super().respond(request, reply)


async def test_recording_on_purpose_is_allowed_where_the_network_is_forbidden(path: Path) -> None:
    with forbid_network_models(), cassette(path, mode="record"):
        assert (await Agent(Networked("Hi.")).run("Hi")).output == "Hi."
        # Only what is recorded: nothing else is allowed by it.
        with pytest.raises(NetworkForbiddenError):
            await ask(Networked("Hi."))


async def test_recording_because_there_is_no_file_is_not(path: Path) -> None:
    with forbid_network_models(), cassette(path):
        with pytest.raises(NetworkForbiddenError):
            await Agent(Networked("Hi.")).run("Hi")
        with pytest.raises(NetworkForbiddenError, match="agent 'writer' may not use the model 'openai:gpt-5'"):
            await Agent("openai:gpt-5", name="writer").run("Hi")


async def test_to_record_a_model_by_name_its_key_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.endswith(("_API_KEY", "_BASE_URL")):
            monkeypatch.delenv(variable)

    with cassette(path), pytest.raises(ModelNotFoundError, match="OPENAI_API_KEY"):
        await Agent("openai:gpt-5").run("Hi")


# ------------------------------------------------------------------------------ pytest

HELD = """
import trio
from agentloop import Agent
from agentloop.models import Stop

class Model:
    name = "provider:m"
    asked = 0

    async def respond(self, request, reply):
        type(self).asked += 1
        await reply.text("Hello.")
        return Stop()

AGENT = Agent(Model())
"""


def test_the_fixture_records_beside_the_test_and_replays(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HELD
        + """
import pytest

class TestThem:
    @pytest.mark.parametrize("text", ["a/b", "a-b"])
    def test_it(self, cassette, text):
        before = Model.asked
        assert trio.run(AGENT.run, text).output == "Hello."
        assert Model.asked - before == cassette.recording
        print("recording" if cassette.recording else "replaying")
"""
    )

    for option, does in (
        ("auto", "recording"),
        ("auto", "replaying"),
        ("replay", "replaying"),
        ("record", "recording"),
    ):
        result = pytester.runpytest_inprocess("-s", f"--cassettes={option}")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines([f"*{does}*", f"*{does}*"])

    names = sorted(path.name for path in (pytester.path / "cassettes" / "test_it").iterdir())
    assert len(names) == 2
    assert names[1] == "TestThem.test_it[a-b].json"
    assert names[0].startswith("TestThem.test_it[a-b]-")


def test_the_fixture_takes_options_from_another_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HELD
        + """
import pytest

@pytest.fixture
def cassette_options():
    return {"redact": ["Hello"]}

def test_it(cassette):
    trio.run(AGENT.run, "Hi")
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert "Hello" not in (pytester.path / "cassettes" / "test_it" / "test_it.json").read_text(encoding="utf-8")


def test_with_replay_only_a_test_without_its_cassette_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(HELD + "def test_it(cassette):\n    trio.run(AGENT.run, 'Hi')\n")

    result = pytester.runpytest_inprocess("--cassettes=replay")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*CassetteError*test_it.json: cannot be read*"])


def test_the_fixture_reports_unused_recordings_but_not_of_a_test_that_failed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HELD
        + """
import pytest

@pytest.fixture
def cassette_options():
    return {"unused": "error"}

@pytest.mark.parametrize("way", ["leaves", "fails"])
def test_it(cassette, way):
    if cassette.recording:
        trio.run(AGENT.run, "Hi")
    else:
        assert way == "leaves"
"""
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=2)

    pytester.runpytest_inprocess().assert_outcomes(passed=1, failed=1, errors=1)


def test_the_fixture_reaches_agents_in_a_run_that_began_before_it(pytester: pytest.Pytester) -> None:
    """As with test runners that keep a loop going: the test's context is not that of its fixtures."""
    pytester.makepyfile(
        test_it=HELD
        + """
import contextvars

context = contextvars.copy_context()

def test_it(cassette):
    context.run(trio.run, AGENT.run, "Hi")
    assert cassette.recording
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert (pytester.path / "cassettes" / "test_it" / "test_it.json").exists()
