"""Runs, requests and tool calls are spans by the GenAI conventions, in the tree of the runs."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from opentelemetry.trace import SpanKind, StatusCode

import agentloop.telemetry
from agentloop import Agent, Price, Retries, Team, ToolContext, hooks, tool
from agentloop.errors import ModelConnectionError, UsageError
from agentloop.events import ToolCallStarted
from agentloop.messages import Text, Usage, UserMessage
from agentloop.models import ModelRequest, ModelSettings
from agentloop.observers import of_process
from agentloop.telemetry import Tracing, _tracing
from agentloop.testing import Response, ScriptedModel, calls, fails
from tests.support import first, nested, opened
from tests.telemetry.support import Recorder, attributes, tree


@tool
async def breaks() -> None:
    """Break."""
    raise ValueError("the secret is xyzzy")


@tool
async def waits() -> None:
    """Wait."""
    await trio.sleep_forever()


async def test_the_spans_of_a_run_are_a_tree_with_the_runs_of_sub_agents_in_their_calls() -> None:
    recorder = Recorder()
    inner = Agent(ScriptedModel(calls("breaks"), "Done."), name="inner", tools=[breaks])
    await nested(inner, 1).replace(observers=[recorder.tracing]).run("go")
    assert tree(recorder.spans) == [
        "invoke_agent outer1",
        "  chat scripted",
        "  execute_tool inner",
        "    invoke_agent inner",
        "      chat scripted",
        "      execute_tool breaks",
        "      chat scripted",
        "  chat scripted",
    ]


async def test_after_a_handoff_the_spans_of_the_next_agent_are_in_the_same_run() -> None:
    recorder = Recorder()
    front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"])
    billing = Agent(ScriptedModel(calls("breaks"), "Done."), name="billing", tools=[breaks])
    await nested(Team(front, billing), 1).replace(observers=[recorder.tracing]).run("go")
    assert tree(recorder.spans) == [
        "invoke_agent outer1",
        "  chat scripted",
        "  execute_tool front",
        "    invoke_agent front",
        "      chat scripted",
        "      execute_tool handoff",
        "      chat scripted",
        "      execute_tool breaks",
        "      chat scripted",
        "  chat scripted",
    ]
    [run] = [span for span in recorder.spans if span.name == "invoke_agent front"]
    [handoff] = [event for event in run.events if event.name == "agentloop.handoff"]
    assert handoff.attributes == {"agentloop.handoff.from": "front", "agentloop.handoff.to": "billing"}


async def test_a_request_says_its_model_settings_usage_cost_and_time_to_the_first_token() -> None:
    recorder = Recorder()
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=10, reasoning_tokens=5, cache_written_tokens=3)
    agent = Agent(
        ScriptedModel(Response((Text("Hi."),), usage=usage), name="openai-responses:gpt-5"),
        name="greeter",
        settings=ModelSettings(temperature=0.5, max_tokens=100, stop=("END",)),
        prices={"openai-responses:gpt-5": Price(1, 10)},
        observers=[recorder.tracing],
    )
    outcome = await agent.run("go")
    [chat] = recorder.named("chat")
    found = attributes(chat)
    assert (chat.name, chat.kind) == ("chat gpt-5", SpanKind.CLIENT)
    assert found.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert found.pop("gen_ai.conversation.id")
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.cache_creation.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.usage.cost": outcome.usage.cost,
        "operation.cost": outcome.usage.cost,
    }


async def test_a_run_says_how_it_ended_and_what_it_used_as_a_whole() -> None:
    recorder = Recorder()
    await Agent(ScriptedModel("Hi."), name="greeter", observers=[recorder.tracing]).run("go")
    [run] = recorder.named("invoke_agent")
    found = attributes(run)
    assert found["gen_ai.operation.name"] == "invoke_agent"
    assert found["agentloop.outcome"] == "completed"
    assert found["session.id"] == found["gen_ai.conversation.id"]
    assert found["gen_ai.aggregated_usage.output_tokens"] == 5
    # A viewer that adds up the spans of a trace would count each response twice.
    assert "gen_ai.usage.output_tokens" not in found
    assert run.status.status_code == StatusCode.UNSET


async def test_errors_have_their_types_and_no_words() -> None:
    recorder = Recorder()
    model = ScriptedModel(fails(ModelConnectionError("secret xyzzy")), calls("breaks") + calls("made_up"), "Done.")
    agent = Agent(model, tools=[breaks], observers=[recorder.tracing], retries=Retries(delay=0.01))
    await agent.run("go")
    failed, *rest = recorder.named("chat")
    assert attributes(failed)["error.type"] == "ModelConnectionError"
    assert failed.status.status_code == StatusCode.ERROR
    assert [attributes(span).get("error.type") for span in rest] == [None, None]
    names = {attributes(span)["gen_ai.tool.name"]: span for span in recorder.named("execute_tool")}
    assert attributes(names["breaks"])["error.type"] == "ValueError"
    # The names that a model makes up are too many for names of spans.
    assert names["made_up"].name == "execute_tool"
    [run] = recorder.named("invoke_agent")
    assert [event.name for event in run.events] == ["agentloop.retry"]
    assert "xyzzy" not in str([span.to_json() for span in recorder.spans])


async def test_a_run_that_fails_says_why() -> None:
    recorder = Recorder()
    agent = Agent(ScriptedModel(fails(ModelConnectionError("no"))), retries=Retries(attempts=1))
    with pytest.raises(ModelConnectionError):
        await agent.replace(observers=[recorder.tracing]).run("go")
    [run] = recorder.named("invoke_agent")
    assert attributes(run)["error.type"] == "ModelConnectionError"
    assert run.status.status_code == StatusCode.ERROR


async def test_a_cancellation_is_no_error() -> None:
    recorder = Recorder()
    agent = Agent(ScriptedModel(calls("waits")), tools=[waits], observers=[recorder.tracing])
    async with opened(agent) as stream:
        await first(stream, ToolCallStarted)
    outcomes = {span.name: attributes(span).get("agentloop.outcome") for span in recorder.spans}
    assert outcomes == {
        "invoke_agent agent": "cancelled",
        "chat scripted": None,
        "execute_tool waits": "interrupted",
    }
    assert all(span.status.status_code == StatusCode.UNSET for span in recorder.spans)


async def test_spans_of_tools_threads_hooks_and_models_are_inside_those_of_their_steps() -> None:
    recorder = Recorder()
    own = recorder.provider.get_tracer("own")

    @tool
    async def searches(context: ToolContext[Any]) -> str:
        """Search."""
        with own.start_as_current_span("in a tool"):
            return (await context.ask_model(ModelRequest((UserMessage((Text("?"),)),)))).text

    @hooks.pre_tool_use
    async def guard(call: Any) -> None:
        own.start_span("in a hook of the call").end()

    @hooks.turn_start
    async def begins(turn: Any) -> None:
        own.start_span("in a hook of the run").end()

    class Model(ScriptedModel):
        async def respond(self, request: Any, reply: Any, /) -> Any:
            with own.start_as_current_span("in a model"):
                return await super().respond(request, reply)

    model = Model(calls("searches"), "An answer.", "Done.")
    await Agent(model, tools=[searches], hooks=[guard, begins], observers=[recorder.tracing]).run("go")
    assert tree(recorder.spans) == [
        "invoke_agent agent",
        "  in a hook of the run",
        "  chat scripted",
        "    in a model",
        "  execute_tool searches",
        "    in a hook of the call",
        "    in a tool",
        "      chat scripted",
        "        in a model",
        "  in a hook of the run",
        "  chat scripted",
        "    in a model",
    ]


@pytest.mark.real_clock
async def test_a_span_of_a_plain_tool_in_a_thread_is_inside_its_call() -> None:
    recorder = Recorder()
    own = recorder.provider.get_tracer("own")

    @tool
    def blocks() -> None:
        """Block."""
        own.start_span("in a thread").end()

    await Agent(ScriptedModel(calls("blocks"), "Done."), tools=[blocks], observers=[recorder.tracing]).run("go")
    assert "    in a thread" in tree(recorder.spans)


async def test_a_run_is_inside_the_current_span_of_the_code_that_opens_it() -> None:
    recorder = Recorder()
    own = recorder.provider.get_tracer("own")
    agent = Agent(ScriptedModel("Hi."), observers=[recorder.tracing])
    with own.start_as_current_span("a request of the server"):
        async with opened(agent) as stream:
            async for _ in stream:
                pass
            own.start_span("beside the run").end()
    assert tree(recorder.spans) == [
        "a request of the server",
        "  invoke_agent agent",
        "    chat scripted",
        "  beside the run",
    ]


async def test_a_run_is_traced_once_though_its_agent_and_the_process_have_a_tracer() -> None:
    recorder = Recorder()
    own = recorder.another(content=True)
    inner = Agent(ScriptedModel("Hi."), name="inner", observers=[own])
    with agentloop.telemetry.instrument(
        tracer_provider=recorder.provider, meter_provider=recorder.meters
    ) as instrumentation:
        await nested(inner, 1).run("go")
        assert instrumentation.tracing.flush()
        assert own.flush()
    assert of_process == []
    await Agent(ScriptedModel("Hi."), name="later").run("go")
    assert tree(recorder.spans) == [
        "invoke_agent outer1",
        "  chat scripted",
        "  execute_tool inner",
        "    invoke_agent inner",
        "      chat scripted",
        "  chat scripted",
    ]
    # The agent's own settings hold for its runs.
    with_content = [span.name for span in recorder.spans if "gen_ai.input.messages" in attributes(span)]
    assert with_content == ["invoke_agent inner", "chat scripted"]
    assert _tracing._traced == set()


async def test_without_an_sdk_a_run_is_as_ever() -> None:
    assert (await Agent(ScriptedModel("Hi."), observers=[Tracing()]).run("go")).output == "Hi."
    assert _tracing._traced == set()


async def test_runs_that_are_not_sampled_record_nothing_and_end_all_the_same() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    tracing = Tracing(tracer_provider=TracerProvider(ALWAYS_OFF, shutdown_on_exit=False), metrics=False)
    inner = Agent(ScriptedModel(calls("breaks"), "Done."), name="inner", tools=[breaks])
    assert (await nested(inner, 1).replace(observers=[tracing]).run("go")).output == "Done."
    assert tracing._runs == {}


async def test_the_metrics_count_tokens_durations_and_first_tokens() -> None:
    recorder = Recorder()
    model = ScriptedModel(fails(ModelConnectionError("no")), calls("breaks"), "Done.")
    agent = Agent(model, tools=[breaks], observers=[recorder.tracing], retries=Retries(delay=0.01))
    await agent.run("go")
    metrics = recorder.metrics()
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 20, "output": 10}
    durations = metrics["gen_ai.client.operation.duration"]
    assert {(point.attributes.get("error.type"), point.count) for point in durations} == {
        ("ModelConnectionError", 1),
        (None, 2),
    }
    assert durations[0].explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert sum(point.count for point in metrics["gen_ai.client.operation.time_to_first_chunk"]) == 2
    assert [point.attributes["error.type"] for point in metrics["gen_ai.execute_tool.duration"]] == ["ValueError"]
    assert [point.count for point in metrics["gen_ai.invoke_agent.duration"]] == [1]


def test_a_limit_for_content_that_leaves_none_is_refused() -> None:
    with pytest.raises(UsageError, match="max_content=0"):
        Tracing(content=True, max_content=0)
