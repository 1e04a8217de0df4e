"""A result that is too long is shortened for the model, and the rest is kept where the model can read it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agentloop import Agent, Image, Session, Text, ToolError, UsageError, tool
from agentloop._core import context_window
from agentloop.errors import ToolDefinitionError
from agentloop.events import ToolCallFinished
from agentloop.hooks import ReplaceResult, post_tool_use
from agentloop.messages import File, ToolResult
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import only_result, results
from tests.support import of, watch

LONG = "".join(f"line {number}\n" for number in range(1000))


@tool
async def dump() -> str:
    return LONG


def dumping(*script: Any, **options: Any) -> Agent:
    options.setdefault("tools", [dump])
    return Agent(ScriptedModel(calls("dump", id="c1"), *script, "Done."), **{"max_result": 1000, **options})


async def test_the_model_reads_the_beginning_and_the_end() -> None:
    result = await only_result(dumping())

    assert result.text.startswith(LONG[:750])
    assert result.text.endswith(LONG[-250:])
    assert f"[{len(LONG) - 1000:,} of {len(LONG):,} characters are left out here." in result.text
    assert 'read_result(call_id="c1", offset=750)' in result.text
    assert len(result.text) < 1200


async def test_the_event_of_a_long_result_has_the_text_that_the_model_reads() -> None:
    watched = await watch(dumping())

    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result == results(watched)[0]


async def test_all_of_the_rest_can_be_read() -> None:
    pieces = [calls("read_result", call_id="c1", offset=750 + start) for start in range(0, len(LONG), 800)]

    watched = await watch(dumping(*pieces))

    read = "".join(result.text.partition("\n")[2] for result in results(watched)[1:] if result.status == "ok")
    assert LONG[:750] + read == LONG
    assert results(watched)[-1].status == "error"


async def test_it_can_be_searched() -> None:
    watched = await watch(dumping(calls("read_result", call_id="c1", find="line 500\n", limit=20)))

    at = LONG.index("line 500\n")
    assert results(watched)[1].text == f"[characters {at} to {at + 20} of {len(LONG)}]\n{LONG[at : at + 20]}"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"call_id": "c9"}, "there is no long result of call 'c9' (any more); those that are kept: c1"),
        ({"call_id": "c1", "offset": 10**6}, "so there is nothing at offset 1000000"),
        ({"call_id": "c1", "find": "no such line"}, "'no such line' does not stand at or after offset 0"),
    ],
)
async def test_a_result_that_cannot_be_read_is_an_error_for_the_model(arguments: dict[str, Any], problem: str) -> None:
    watched = await watch(dumping(calls("read_result", **arguments)))

    assert problem in results(watched)[1].text


async def test_the_tool_is_there_only_where_there_is_something_to_read() -> None:
    model = ScriptedModel(calls("dump"), "Done.")
    agent = Agent(model, tools=[dump], max_result=1000)
    session = Session()

    await agent.run("go", session=session)
    assert [[spec.name for spec in request.tools] for request in model.requests] == [["dump"], ["dump", "read_result"]]

    # In the session's next stream, too.
    later = ScriptedModel(calls("read_result", call_id=_call_id(session)), "Done.")
    await agent.replace(model=later).run("go on", session=session)
    assert session.messages[-2].text.startswith("[characters 0 to")


def _call_id(session: Session) -> str:
    [result] = [message for message in session.messages if isinstance(message, ToolResult)]
    return result.call_id


async def test_a_users_tool_of_that_name_stays() -> None:
    @tool
    async def read_result() -> str:
        return "mine"

    watched = await watch(dumping(calls("read_result"), tools=[dump, read_result]))

    assert results(watched)[1].text == "mine"


async def test_a_tool_has_a_limit_of_its_own() -> None:
    @tool(name="dump", max_result=math.inf)
    async def whole() -> str:
        return LONG

    assert (await only_result(dumping(tools=[whole]))).text == LONG


async def test_a_hook_sees_all_of_it_and_what_it_makes_of_it_is_shortened() -> None:
    seen: list[int] = []

    @post_tool_use
    def redact(use: Any) -> ReplaceResult:
        seen.append(len(use.result.text))
        text = use.result.text.replace("line", "LINE")
        return ReplaceResult(ToolResult("", "", (Text(text),)))

    result = await only_result(dumping(hooks=[redact]))

    assert seen == [len(LONG)]
    assert "LINE 1\n" in result.text
    assert len(result.text) < 1200


async def test_an_error_is_shortened_too_and_images_stay() -> None:
    @tool(name="dump")
    async def fail() -> str:
        raise ToolError(LONG)

    @tool(name="dump")
    async def draw() -> list[Text | Image]:
        return [Text(LONG[:5000]), Image(b"\x89PNG"), Text(LONG[5000:])]

    failed = await only_result(dumping(tools=[fail]))
    assert failed.status == "error"
    assert len(failed.text) < 1200

    drawn = await only_result(dumping(tools=[draw]))
    assert [type(part) for part in drawn.parts] == [Text, Image]


async def test_by_default_a_hundred_thousand_characters_are_shown() -> None:
    @tool
    async def much() -> str:
        return "x" * 100_001

    watched = await watch(Agent(ScriptedModel(calls("much"), "Done."), tools=[much]))

    assert "[1 of 100,001 characters are left out here." in results(watched)[0].text


async def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_window, "MOST_CHARACTERS", len(LONG) * 2)
    script = [calls("dump", id="c2"), calls("dump", id="c3"), calls("read_result", call_id="c1")]

    watched = await watch(dumping(*script))

    assert "those that are kept: c2, c3" in results(watched)[-1].text


def test_a_limit_that_leaves_no_room_for_the_note_is_refused() -> None:
    with pytest.raises(UsageError, match="max_result=10: give 200 characters or more"):
        Agent(ScriptedModel(), max_result=10)
    with pytest.raises(ToolDefinitionError, match="tool 'dump': max_result='all'"):
        tool(max_result="all", name="dump")(dump.function)  # type: ignore[call-overload]


# --------------------------------------------------------------------------- text files


async def test_text_files_of_a_result_count_and_are_read_on_as_its_text() -> None:
    @tool(name="dump")
    async def files() -> list[Text | Image | File]:
        """Give files."""
        texts = [File(b"line %d\n" % number * 500, media_type="text/plain", name=f"{number}.txt") for number in (1, 2)]
        return [Text("Here they are."), Image(b"\x89PNG"), *texts, File(b"%PDF", media_type="application/pdf")]

    model = ScriptedModel(calls("dump", id="c1"), calls("read_result", call_id="c1", offset=3500), "Done.")
    await Agent(model, tools=[files], max_result=1000).run("go")

    shown, read = [message for message in model.requests[2].messages if isinstance(message, ToolResult)]
    assert [type(part) for part in shown.parts] == [Text, Image, File]
    assert shown.parts[2] == File(b"%PDF", media_type="application/pdf")
    assert len(shown.text) < 1300
    assert shown.text.startswith("Here they are.\n[1.txt]\nline 1\n")
    assert "[2.txt]" in read.text


@pytest.mark.parametrize(
    "file",
    [
        File(b"[" + b"1," * 3000 + b"1]", media_type="application/json; charset=utf-8"),
        File(b"<svg>" + b" " * 3000 + b"</svg>", media_type="image/svg+xml"),
        File(url="data:text/csv," + "a,b%0A" * 1000, media_type="text/csv"),
        Image(b"<html>not found" + b" " * 3000, media_type="image/png"),
    ],
    ids=["json", "svg", "url", "error page"],
)
async def test_everything_that_is_sent_as_text_counts(file: File | Image) -> None:
    @tool(name="dump")
    async def give() -> File | Image:
        """Give a file."""
        return file

    result = await only_result(dumping(tools=[give]))
    assert [type(part) for part in result.parts] == [Text]
    assert len(result.text) < 1300


async def test_files_that_fit_stay_files() -> None:
    file = File(b"a" * 900, media_type="text/plain")

    @tool(name="dump")
    async def give() -> File:
        """Give a file."""
        return file

    result = await only_result(dumping(tools=[give]))
    assert result.parts == (file,)
