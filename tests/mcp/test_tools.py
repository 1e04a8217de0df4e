"""What a server offers, and what its tools give, in both eras of the protocol."""

from __future__ import annotations

import pytest

from agentloop import Agent, Deny, Stream, Text, UsageError
from agentloop.events import ApprovalRequested, StreamEvent, ToolCallFinished, ToolCallProgress
from agentloop.mcp import McpServer
from agentloop.messages import File, Image
from agentloop.testing import ScriptedModel, calls
from tests.mcp.support import ERAS, agent_with, playground, results, watched
from tests.support import of, watch

both_eras = pytest.mark.parametrize("mode", ERAS)


def specs(model: ScriptedModel, request: int = 0) -> dict[str, object]:
    return {spec.name: spec.parameters for spec in model.requests[request].tools}


@both_eras
async def test_a_servers_tools_are_offered_with_its_own_schemas_and_called(mode: str) -> None:
    model = ScriptedModel(calls("add", a=2, b=3), "5")
    seen = await watch(agent_with(playground(mode)).replace(model=model))
    assert results(seen)["add"].parts == (Text("5"),)
    schema = specs(model)["add"]
    assert isinstance(schema, dict)
    assert schema["required"] == ["a", "b"]


@both_eras
async def test_a_server_tells_the_model_how_to_use_it(mode: str) -> None:
    model = ScriptedModel("done")
    await watch(agent_with(playground(mode), instructions="Be brief.").replace(model=model))
    told = model.requests[0].instructions
    assert told == "Be brief.\n\nFrom the MCP server 'playground', about its tools:\nPlay nicely."


async def test_names_get_the_prefix_and_lose_what_providers_refuse() -> None:
    model = ScriptedModel(calls("my_dotted_name"), "done")
    seen = await watch(agent_with(playground(prefix="my.", allow=["dotted*"])).replace(model=model))
    assert list(specs(model)) == ["my_dotted_name"]
    assert results(seen)["my_dotted_name"].text == "fine"


async def test_a_denied_tool_is_not_there_even_if_it_is_allowed() -> None:
    model = ScriptedModel(calls("die"), "done")
    seen = await watch(agent_with(playground(allow=["a*", "d*"], deny=["die", "a?k*"])).replace(model=model))
    assert list(specs(model)) == ["add", "dotted_name"]
    assert "no tool called 'die'" in results(seen)["die"].text


async def test_two_servers_with_the_same_tool_are_refused_unless_one_has_a_prefix() -> None:
    from agentloop import Agent
    from agentloop.errors import ToolsetError

    servers = [playground(allow=["add"], name="one"), playground(allow=["add"], name="two")]
    with pytest.raises(ToolsetError, match="toolset 'two' has a tool 'add'"):
        await Agent(ScriptedModel(), toolsets=servers).run("go")
    servers[1] = playground(allow=["add"], name="two", prefix="two_")
    await Agent(ScriptedModel("done"), toolsets=servers).run("go")


@pytest.mark.parametrize("hints", [True, False])
async def test_what_a_server_says_of_its_tools_is_believed_unless_it_is_not_to_be(hints: bool) -> None:
    async with playground(trust_annotations=hints).open() as opened:
        tools = {tool.name: tool for tool in await opened.list_tools()}
    assert (tools["add"].read_only, tools["add"].idempotent) == (hints, hints)
    assert (tools["die"].read_only, tools["die"].destructive) == (False, True if hints else None)


@both_eras
async def test_all_kinds_of_content_become_parts(mode: str) -> None:
    seen = await watched(playground(mode), calls("show"))
    assert results(seen)["show"].parts == (
        Text("text"),
        Image(data=b"\x89PNG", media_type="image/png"),
        File(data=b"RIFF", media_type="audio/wav", name="audio"),
        Text("[a resource, not fetched: file:///data/b.txt (b); the second]"),
        Text("[file:///data/c.txt]\ninside"),
        File(data=b"\x00\x01\x02", media_type="application/x-thing", name="a.bin"),
        Text("[image: image/png, with invalid base64]"),
        Text('{"n":1}'),
    )


@both_eras
async def test_a_tool_that_fails_is_an_error_that_the_model_reads(mode: str) -> None:
    seen = await watched(playground(mode), calls("fail") + calls("add", a=1, b=1))
    assert results(seen)["fail"].status == "error"
    assert "Error executing tool fail" in results(seen)["fail"].text
    assert results(seen)["add"].text == "2"
    assert seen.outcome.reason == "completed"


@both_eras
async def test_arguments_that_do_not_fit_are_an_error_that_the_model_reads(mode: str) -> None:
    seen = await watched(playground(mode), calls("add", a="two"))
    assert results(seen)["add"].status == "error"


@both_eras
async def test_progress_comes_in_order_and_before_the_result(mode: str) -> None:
    seen = await watched(playground(mode), calls("work", steps=20))
    steps = of(seen.events, ToolCallProgress)
    assert [step.progress for step in steps] == [n + 1 for n in range(20)]
    assert (steps[0].total, steps[0].message) == (20, "step 1")


@both_eras
async def test_a_tool_that_a_server_adds_is_there_in_the_next_turn(mode: str) -> None:
    model = ScriptedModel(calls("grow"), calls("add", a=1, b=1), calls("grown"), "done")
    seen = await watch(agent_with(playground(mode)).replace(model=model))
    assert "grown" not in specs(model)
    assert "grown" in specs(model, 2)
    assert results(seen)["grown"].text == "grown"


@both_eras
async def test_cancelling_a_call_cancels_it_on_the_server(mode: str) -> None:
    seen = await watched(playground(mode, timeout=1), calls("hang"), calls("how_often_cancelled"))
    assert results(seen)["hang"].status == "timeout"
    assert results(seen)["how_often_cancelled"].text == "1"


async def test_so_many_calls_run_at_once_as_the_server_may_have() -> None:
    # Each would take for ever. Time in the queue is not theirs: each is sent, and cut off, one after the other.
    server = playground(concurrency=1, timeout=1)
    seen = await watched(server, calls("hang") + calls("hang") + calls("hang"), calls("how_often_cancelled"))
    assert results(seen)["how_often_cancelled"].text == "3"
    ends = [event.elapsed for event in of(seen.events, ToolCallFinished) if event.name == "hang"]
    assert ends == pytest.approx([1, 2, 3])


async def test_an_approval_can_be_required_for_all_of_a_servers_tools() -> None:
    def deny(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event.id, Deny())

    server = playground(requires_approval=True, allow=["add"])
    seen = await watched(server, calls("add", a=1, b=1), on_event=deny)
    assert results(seen)["add"].status == "denied"


def test_a_server_is_described_without_the_sdk() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from agentloop.mcp import McpServer; McpServer.stdio('x'); "
        "print('mcp' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_server_that_is_described_wrongly_is_refused() -> None:
    from agentloop.errors import UsageError

    with pytest.raises(UsageError, match="takes an http or https URL"):
        McpServer.http("example.org/mcp")
    with pytest.raises(UsageError, match="put it in brackets"):
        McpServer.stdio("x", allow="a*")
    with pytest.raises(UsageError, match="give a number above 0"):
        McpServer.stdio("x", max_processes=0)


async def test_without_the_sdk_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from agentloop import Agent
    from agentloop.errors import ToolsetError

    for name in [name for name in sys.modules if name.startswith("agentloop.mcp._")]:
        monkeypatch.delitem(sys.modules, name)
    # With all that comes with it.
    for name in ("mcp", "mcp_types", "pydantic", "pydantic_core", "httpx2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ToolsetError, match=r"pip install 'agentloop-trio\[mcp\]'"):
        await Agent(ScriptedModel(), toolsets=[McpServer.stdio("x")]).run("go")


def test_no_secret_of_a_server_is_in_the_repr_of_an_agent() -> None:
    servers = [
        McpServer.http("https://ada:hunter2@h.example/mcp?api_key=hunter3", headers={"Authorization": "hunter4"}),
        McpServer.stdio("server", "--token", "hunter5", env={"API_KEY": "hunter6"}),
    ]
    shown = repr(Agent(ScriptedModel("done"), toolsets=servers))
    assert "hunter" not in shown
    assert "h.example/mcp" in shown


@pytest.mark.parametrize(
    "url", ["ftp://ada:hunter2@h/x", "http://ada:hunter2@[::/v1", "http://ada:hunter2@", "x?key=hunter2"]
)
def test_the_error_for_a_url_that_cannot_be_used_shows_no_secret(url: str) -> None:
    with pytest.raises(UsageError, match="takes an http or https URL") as caught:
        McpServer.http(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


@both_eras
async def test_a_servers_tools_are_deferred_if_it_says_so(mode: str) -> None:
    wrong = calls("call_tool", name="add", arguments={"a": 2})
    model = ScriptedModel(calls("find_tools", query="add"), wrong, calls("add", a=2, b=3), "5")
    seen = await watch(agent_with(playground(mode, deferred=True)).replace(model=model))
    assert list(specs(model)) == ["find_tools", "call_tool"]
    refused, added = [event.result for event in of(seen.events, ToolCallFinished)][1:]
    assert "it needs 'b'" in refused.text
    assert added.text == "5"
