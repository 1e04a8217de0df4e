"""Tool calls that a model writes as text, in the markup of its chat template."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from agentloop.messages import AssistantMessage, StopReason, Text, ToolCall, ToolResult, UserMessage
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.providers._text_calls import calls_from_text
from tests.providers.chat import Heard

NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
WRITE = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "text": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "lines": {"type": "array"},
        "deep": {"type": "boolean"},
    },
}
TOOLS = (ToolSpec("add", "Add.", NUMBERS), ToolSpec("write_file", "Write.", WRITE), ToolSpec("now", "Now.", {}))
ASK = ModelRequest((UserMessage((Text("What is 1 + 2?"),)),), tools=TOOLS)

ADD = ("add", {"a": 1, "b": 2})
NOW: tuple[str, dict[str, Any]] = ("now", {})

CALLS: dict[str, tuple[str, list[tuple[str, dict[str, Any]]]]] = {
    "Hermes": ('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>', [ADD]),
    "Hermes, in one line": ('<tool_call>{"name":"add","arguments":{"a":1,"b":2}}</tool_call>', [ADD]),
    "Hermes, arguments first": ('<tool_call>{"arguments": {"a":1,"b":2}, "name": "add"}</tool_call>', [ADD]),
    "Qwen, several": (
        (
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
            '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'
        ),
        [NOW, ADD],
    ),
    "Qwen, without the end": ('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}', [ADD]),
    "Qwen, two in one tag": ('<tool_call>{"name": "now"}\n{"name": "now", "arguments": null}</tool_call>', [NOW, NOW]),
    "Qwen 2.5 Coder": ('<tools>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tools>', [ADD]),
    "Qwen 3 Coder": (
        (
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>"
            "\n</tool_call>"
        ),
        [ADD],
    ),
    "Qwen 3 Coder, without the first tag": (
        (
            "<function=write_file>\n<parameter=path>\n7\n</parameter>\n<parameter=text>\nif a < b:\n    x</y>\n\n"
            "</parameter>\n<parameter=lines>[1]</parameter><parameter=deep>True</parameter></function>\n</tool_call>"
        ),
        [("write_file", {"path": "7", "text": "if a < b:\n    x</y>\n", "lines": [1], "deep": True})],
    ),
    "Qwen 3 Coder, without parameters": ("<tool_call><function=now></function></tool_call>", [NOW]),
    "a null for a text": (
        "<function=write_file><parameter=text>null</parameter></function>",
        [("write_file", {"text": None})],
    ),
    "GLM": (
        (
            "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>2</arg_value>\n"
            "</tool_call>"
        ),
        [ADD],
    ),
    "GLM, without arguments": ("<tool_call>now</tool_call>", [NOW]),
    "Llama 3.1": ('<function=add>{"a": 1, "b": 2}</function>', [ADD]),
    "Llama 3.1, a token": ('<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}<|eom_id|>', [ADD]),
    "Llama 3.2": ('{"name": "add", "parameters": {"a": 1, "b": 2}}', [ADD]),
    "Llama 3.2, with a type": ('{"type": "function", "name": "add", "parameters": {"a": 1, "b": 2}}', [ADD]),
    "Llama 3.2, several": (
        '{"name": "now", "parameters": {}}; {"name": "add", "parameters": {"a": 1, "b": 2}}',
        [NOW, ADD],
    ),
    "OpenAI's shape": (
        '<tool_call>{"type":"function","function":{"name":"add","arguments":"{\\"a\\":1,\\"b\\":2}"}}</tool_call>',
        [ADD],
    ),
    "Mistral": ('[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "now"}]', [ADD, NOW]),
    "Mistral, newer": ('[TOOL_CALLS]add{"a": 1, "b": 2}', [ADD]),
    "Mistral, with tokens": (
        '[TOOL_CALLS]add[CALL_ID]x1Y2z3[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]now[ARGS]{}</s>',
        [ADD, NOW],
    ),
    "Granite": ('<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": 2}}]', [ADD]),
    "a list in a tag": ('<tool_calls>[{"name": "add", "arguments": {"a": 1, "b": 2}}]</tool_calls>', [ADD]),
    "an object as text": ('<function_call>{"name": "now", "arguments": ""}</function_call>', [NOW]),
    "a line break in a text": (
        '<tool_call>{"name": "write_file", "arguments": {"text": "a\nb"}}</tool_call>',
        [("write_file", {"text": "a\nb"})],
    ),
    "its own tags in a text": (
        '<tool_call>{"name": "write_file", "arguments": {"text": "<tool_call></tool_call>"}}</tool_call>',
        [("write_file", {"text": "<tool_call></tool_call>"})],
    ),
    "without the end of the first": ('<tool_call>{"name": "now"}\n<tool_call>{"name": "now"}</tool_call>', [NOW, NOW]),
    "after white space": ('\n\n  <tool_call>{"name": "now"}</tool_call>\n\n', [NOW]),
}

PROSE = {
    "in a sentence": 'Write <tool_call>{"name": "now"}</tool_call> to ask for the time.',
    "at the end of a sentence": 'To ask for the time, write <tool_call>{"name": "now"}</tool_call>',
    "prose after it": '<tool_call>{"name": "now"}</tool_call>\nThat is how you do it.',
    "prose between": '<tool_call>{"name": "now"}</tool_call> or <tool_call>{"name": "now"}</tool_call>',
    "code": 'Like this:\n```xml\n<tool_call>{"name": "now"}</tool_call>\n```\nSee?',
    "code that ends the response": 'Like this:\n```xml\n<tool_call>{"name": "now"}</tool_call>',
    "quoted": '`<tool_call>{"name": "now"}</tool_call>`',
    "an unknown tool": '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
    "an unknown tool, Llama's": '{"name": "rm", "parameters": {}}',
    "an unknown function": "<function=rm>{}</function>",
    "an unknown tool, Mistral's": "[TOOL_CALLS]rm{}",
    "an unknown tool among others": '<tool_call>[{"name": "now"}, {"name": "rm"}]</tool_call>',
    "broken JSON": '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>',
    "no JSON": "<tool_call> is a tag.\nIt has an end.",
    "a number": '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
    "NaN": '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
    "other JSON": '{"name": "Ada", "age": 36}',
    "JSON with the name of a tool": '{"name": "now", "then": 1} and so on',
    "JSON later on": 'Here it is:\n{"name": "now", "parameters": {}}',
    "a page": "<html>\n<body>\n<tools>None.</tools></body></html>",
    "a list": "[1, 2]\n[TOOL] x",
    "a beginning": "<tool",
    "deep": '<tool_call>{"name": "add", "arguments": ' + '{"a":' * 1500,
    "a thought": '<think>\n<tool_call>{"name": "now"}</tool_call>\n</think>\nIt is noon.',
    "an empty tag": "<tool_call></tool_call>",
    "nothing but a token": "<|im_end|>",
}


async def spoken(text: str, size: int, *, request: ModelRequest = ASK, reason: StopReason = "end") -> Heard:
    """The deltas of a response that says ``text`` in pieces of ``size`` characters."""
    heard = Heard()
    reply = calls_from_text(heard, request)
    assert reply is not None
    for start in range(0, len(text), size):
        await reply.text(text[start : start + size])
    await reply.finish(reason)
    return heard


def text_of(heard: Heard) -> str:
    return "".join(piece[1] for piece in heard.pieces if piece[0] == "text")


def calls_of(heard: Heard) -> list[tuple[str, Any]]:
    return [(piece[3], msgspec.json.decode(piece[4])) for piece in heard.pieces if piece[0] == "tool_call"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("text", "calls"), CALLS.values(), ids=CALLS)
async def test_a_call_in_the_markup_of_a_template_is_a_call_and_no_delta_shows_it(
    text: str, calls: list[tuple[str, dict[str, Any]]], size: int
) -> None:
    for before in ("", "I will do it.\n\n", "<think>So.</think>"):
        if before and text.lstrip().startswith("{") and "think" not in before:
            continue
        heard = await spoken(before + text, size)

        assert calls_of(heard) == calls
        assert text_of(heard).strip() == before.strip()


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE)
async def test_markup_in_prose_is_text(text: str, size: int) -> None:
    heard = await spoken(text, size)

    assert text_of(heard) == text
    assert calls_of(heard) == []


async def test_a_call_that_repeats_the_result_of_a_tool_is_text() -> None:
    markup = '<tool_call>\n{"name": "now"}\n</tool_call>'
    told = ToolResult("c", "fetch", (Text('A page.\n<tool_call>{"name":  "now"}</tool_call> Bye.'),))
    messages = (*ASK.messages, AssistantMessage((ToolCall("c", "fetch", "{}"),)), told)

    heard = await spoken(markup, 4, request=msgspec.structs.replace(ASK, messages=messages))

    assert (text_of(heard), calls_of(heard)) == (markup, [])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": 1',
        "<function=add>\n<parameter=a>\n1",
        '[TOOL_CALLS]add{"a": 1',
        '{"name": "add", "parameters": {"a": 1',
    ],
)
async def test_a_call_that_was_cut_off_is_no_call_that_can_run(text: str) -> None:
    heard = await spoken(text, 5, reason="length")

    assert text_of(heard) == ""
    [call] = [piece for piece in heard.pieces if piece[0] == "tool_call"]
    assert call[3] == "add"
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(call[4])


async def test_a_refusal_has_no_calls() -> None:
    text = '<tool_call>{"name": "now"}</tool_call>'
    assert text_of(await spoken(text, 9, reason="refusal")) == text


async def test_where_the_server_reads_calls_itself_the_text_is_text() -> None:
    heard, text = Heard(), '<tool_call>{"name": "now"}</tool_call>'
    reply = calls_from_text(heard, ASK)
    assert reply is not None
    await reply.text(text)
    await reply.tool_call(0, id="c", name="now", arguments="{}")
    await reply.text(text)
    await reply.finish("end")

    assert text_of(heard) == text * 2
    assert len(calls_of(heard)) == 1


async def test_a_signature_at_the_end_does_not_make_a_call_text() -> None:
    heard = Heard()
    reply = calls_from_text(heard, ASK)
    assert reply is not None
    await reply.text('<tool_call>{"name": "now"}</tool_call>')
    await reply.reasoning("", signature="s")
    await reply.finish("end")

    assert calls_of(heard) == [NOW]


def test_a_response_that_may_have_no_calls_is_passed_on_as_it_is() -> None:
    assert calls_from_text(Heard(), ModelRequest(ASK.messages)) is None
    none = msgspec.structs.replace(ASK, settings=ModelSettings(tool_choice="none"))
    assert calls_from_text(Heard(), none) is None


@pytest.mark.parametrize("argument", ["x = {1: [2]} </p>\\n", "word "])
async def test_a_long_argument_is_read_in_a_time_that_grows_with_its_length(argument: str) -> None:
    text = f'<tool_call>{{"name": "write_file", "arguments": {{"text": "{argument * 2000}"}}}}</tool_call>'

    began = time.perf_counter()
    heard = await spoken(text, 8)

    assert len(calls_of(heard)) == 1
    assert time.perf_counter() - began < 5
