"""What providers refuse in a request, as their documentation and their error messages say.

A request is held against the rules without a network: `request_problems` lists what a provider would answer with status
400, and `assert_accepted` raises. The rules are written apart from agentloop's adapters, so that they can be wrong in
different places.
"""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

__all__ = ["WireProvider", "assert_accepted", "request_problems"]

WireProvider: TypeAlias = Literal["openai", "openai-responses", "anthropic", "gemini", "mistral", "deepseek"]
"""A provider whose rules are known: OpenAI by chat completions and by the Responses API, Anthropic by the Messages API,
and Gemini, Mistral and DeepSeek by chat completions."""

_Object: TypeAlias = dict[str, Any]
_Problems: TypeAlias = Iterator[str]

MAX_DEPTH = 100
"""Levels of arrays and objects that all servers' parsers accept."""


def assert_accepted(body: bytes, provider: WireProvider) -> None:
    """Raise `AssertionError` with each rule of ``provider`` that a request with this body breaks."""
    problems = request_problems(body, provider)
    if problems:
        raise AssertionError("\n".join([f"{provider} would refuse the request:", *problems, body.decode()[:4000]]))


def request_problems(body: bytes, provider: WireProvider) -> list[str]:
    """What ``provider`` would refuse in a request with this body, a sentence each; empty if nothing."""
    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return [f"the body is not JSON: {error}"]
    return [*_json_problems(request), *_CHECKS[provider](request)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _json_problems(request: Any) -> _Problems:
    stack: list[tuple[Any, int, str]] = [(request, 1, "$")]
    while stack:
        value, depth, path = stack.pop()
        if depth > MAX_DEPTH:
            yield f"{path[:80]}: nests too deeply"
        elif isinstance(value, dict):
            mapping = cast("_Object", value)
            stack += [(key, depth, path) for key in mapping]
            stack += [(inner, depth + 1, f"{path}.{key}") for key, inner in mapping.items()]
        elif isinstance(value, list):
            items = enumerate(cast("Iterable[Any]", value))
            stack += [(inner, depth + 1, f"{path}[{index}]") for index, inner in items]
        elif isinstance(value, str):
            if any("\ud800" <= character <= "\udfff" for character in value):
                yield f"{path}: half of a surrogate pair"
        elif isinstance(value, (float, int)) and abs(value) > sys.float_info.max:
            yield f"{path}: a number that is out of range"


# ---------------------------------------------------------------------- chat completions


def _chat(request: _Object, *, id: str, name: str = r"[a-zA-Z0-9_-]{1,64}") -> _Problems:
    """The rules that all servers of chat completions share."""
    messages: list[_Object] = request["messages"]
    if not any(message["role"] != "system" for message in messages):
        yield "there is no message"
    expected: list[str] = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message["role"] == "tool":
            if not expected or message["tool_call_id"] != expected.pop(0):
                yield f"{at}: a result of a call that is not due"
            if not isinstance(message["content"], str) or not message["content"]:
                yield f"{at}: the content of a result is not a text"
            continue
        if expected:
            yield f"{at}: calls have no results: {expected}"
            expected = []
        if message["role"] == "assistant":
            yield from _chat_calls(message, at, id, name)
            expected = [call["id"] for call in message.get("tool_calls", ())]
            if not message.get("content") and not expected:
                yield f"{at}: neither content nor calls"
        elif message["role"] == "user":
            yield from _chat_content(message["content"], at)
        elif index or not message["content"].strip():
            yield f"{at}: a system message that is blank, or not the first"
    if expected:
        yield f"calls have no results: {expected}"
    yield from _chat_tools(request, name)


def _chat_calls(message: _Object, at: str, id: str, name: str) -> _Problems:
    calls: list[_Object] = message.get("tool_calls", [])
    if "tool_calls" in message and not calls:
        yield f"{at}: an empty list of calls"
    ids = [call["id"] for call in calls]
    if len(set(ids)) < len(ids):
        yield f"{at}: two calls have one id"
    for call in calls:
        if re.fullmatch(id, call["id"]) is None:
            yield f"{at}: the id {call['id']!r} does not match {id}"
        if re.fullmatch(name, call["function"]["name"]) is None:
            yield f"{at}: the name {call['function']['name']!r} does not match {name}"
        try:
            arguments = json.loads(call["function"]["arguments"], parse_constant=_refuse_constant)
        except ValueError as error:
            yield f"{at}: arguments that are not JSON: {error}"
        else:
            if not isinstance(arguments, dict):
                yield f"{at}: arguments that are not an object"
            yield from (f"{at}: arguments: {problem}" for problem in _json_problems(arguments))


def _chat_content(content: Any, at: str) -> _Problems:
    if isinstance(content, str):
        if not content.strip():
            yield f"{at}: a blank text"
        return
    if not content:
        yield f"{at}: no content"
    for part in content:
        match part:
            case {"type": "text", "text": str(text)} if text.strip():
                pass
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                yield from _image_url(url, at)
            case {"type": "file", "file": {"filename": str(name), "file_data": str(url)}} if name:
                if not url.startswith("data:application/pdf;base64,") or b"%PDF" not in _data(url)[:1024]:
                    yield f"{at}: a file that is no PDF: {url[:60]}"
            case {"type": "input_audio", "input_audio": {"data": data, "format": "wav" | "mp3" as format}}:
                if b64decode(data)[:4] not in ((b"RIFF",) if format == "wav" else (b"ID3\4",)):
                    yield f"{at}: sound that is no {format}"
            case _:
                yield f"{at}: a part of a wrong form: {str(part)[:80]}"


_SIGNATURES = {
    "image/png": (b"\x89PNG",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


def _image_url(url: str, at: str) -> _Problems:
    if url.startswith("data:"):
        media_type = url[5:].partition(";")[0]
        if not _data(url).startswith(_SIGNATURES.get(media_type, (b"nothing",))):
            yield f"{at}: a picture that is no {media_type}"
    elif re.fullmatch(r"https?://[^/\s]+\S*", url) is None or _PRIVATE.match(url):
        yield f"{at}: an address that the server cannot fetch: {url}"
    elif re.search(r"\.(svg|bmp|tiff?|heic|avif|ico)(\?|#|$)", url, re.IGNORECASE):
        yield f"{at}: a picture of a type that the server does not read: {url}"


_PRIVATE = re.compile(r"https?://(localhost|127\.|10\.|192\.168\.|\[::1\])")


def _data(url: str) -> bytes:
    return b64decode(url.partition("base64,")[2])


def _chat_tools(request: _Object, name: str) -> _Problems:
    tools: list[_Object] = request.get("tools", [])
    if "tools" in request and not tools:
        yield "tools: an empty list"
    if not tools and {"tool_choice", "parallel_tool_calls"} & request.keys():
        yield "a choice of tools without tools"
    for tool in tools:
        function = tool["function"]
        if re.fullmatch(name, function["name"]) is None:
            yield f"tools: the name {function['name']!r}"


def _openai(request: _Object) -> _Problems:
    yield from _chat(request, id=r"(?s:.{1,40})")
    yield from _openai_schemas(tool["function"] for tool in request.get("tools", ()))
    if "" in request.get("stop", ()):
        yield "stop: an empty text"
    if "parallel_tool_calls" in request and re.match(r"o\d", request["model"]):
        yield "parallel_tool_calls: the model does not know it"
    if "max_tokens" in request and re.match(r"o\d|gpt-5", request["model"]):
        yield "max_tokens: reasoning models want max_completion_tokens"
    yield from _openai_effort(request["model"], request.get("reasoning_effort"))
    output = request.get("response_format")
    if output is not None:
        yield from _openai_output(output["json_schema"])


def _openai_effort(model: str, effort: str | None) -> _Problems:
    if effort is not None and model.startswith(("gpt-4", "gpt-3.5")):
        yield "reasoning_effort: the model does not reason"
    if effort == "minimal" and re.match(r"o\d|gpt-5\.", model):
        yield "reasoning_effort: the model does not know 'minimal'"


def _openai_schemas(functions: Any) -> _Problems:
    for function in functions:
        schema, at = function["parameters"], f"tools: {function['name']}"
        yield from _object_at_the_top(schema, at)
        yield from _schema_problems(schema, at)


def _openai_output(form: _Object) -> _Problems:
    schema = form["schema"]
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", form["name"]) is None:
        yield f"the name of the output is {form['name']!r}"
    yield from _object_at_the_top(schema, "output")
    yield from _schema_problems(schema, "output")
    if form["strict"]:
        for inner in _subschemas(schema):
            if "$ref" in inner and len(inner) > 1:
                yield f"output: keywords beside a reference: {sorted(inner)}"
            if inner.get("type") == "object":
                names = list(inner.get("properties", ()))
                if inner.get("additionalProperties") is not False or sorted(inner.get("required", ())) != sorted(names):
                    yield "output: strict mode wants all properties to be required, and no others"
            unknown = inner.keys() & {"default", "oneOf", "allOf", "not", "patternProperties", "if", "$schema"}
            if unknown:
                yield f"output: strict mode refuses {sorted(unknown)}"


# -------------------------------------------------------------------------------- schemas


def _object_at_the_top(schema: _Object, at: str) -> _Problems:
    if schema.get("type") != "object":
        yield f"{at}: the top of the schema is {schema.get('type')!r}"
    refused = {"oneOf", "anyOf", "allOf", "enum", "not", "$ref"} & schema.keys()
    if refused:
        yield f"{at}: the top of the schema has {sorted(refused)}"


_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
_INSIDE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")


def _subschemas(schema: Any) -> Iterator[_Object]:
    """All schemas in ``schema``, itself included."""
    if not isinstance(schema, dict):
        return
    mapping = cast("_Object", schema)
    yield mapping
    for keyword, value in mapping.items():
        if keyword in ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"):
            for inner in cast("_Object", value).values():
                yield from _subschemas(inner)
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for inner in value:
                yield from _subschemas(inner)
        elif keyword in _INSIDE:
            yield from _subschemas(value)


def _schema_problems(schema: _Object, at: str) -> _Problems:
    """What is no JSON Schema of draft 2020-12, or refused by OpenAI whatever the mode."""
    for inner in _subschemas(schema):
        kinds = inner.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or set(cast("list[str]", kinds)) - _TYPES or ("type" in inner and not kinds):
            yield f"{at}: the type {inner.get('type')!r}"
            continue
        if "object" in kinds and "properties" not in inner:
            yield f"{at}: an object without properties"
        if "array" in kinds and "items" not in inner:
            yield f"{at}: an array without items"
        yield from (f"{at}: {problem}" for problem in _keyword_problems(inner))
        reference = inner.get("$ref")
        if reference is not None and not _resolves(reference, schema):
            yield f"{at}: a reference to nothing: {reference!r}"


def _keyword_problems(schema: _Object) -> _Problems:
    checks: Mapping[str, Callable[[Any], bool]] = {
        "required": _is_list_of_names,
        "properties": lambda value: isinstance(value, dict),
        "items": lambda value: isinstance(value, dict),
        "enum": _is_full_list,
        "anyOf": _is_full_list,
        "oneOf": _is_full_list,
        "allOf": _is_full_list,
        "description": lambda value: isinstance(value, str),
        "title": lambda value: isinstance(value, str),
        "format": lambda value: isinstance(value, str),
        "pattern": _is_plain_pattern,
        "patternProperties": lambda value: all(map(_is_plain_pattern, value)),
        "minimum": _is_number,
        "maximum": _is_number,
        "exclusiveMinimum": _is_number,
        "exclusiveMaximum": _is_number,
        "minLength": lambda value: type(value) is int and value >= 0,
        "maxLength": lambda value: type(value) is int and value >= 0,
        "examples": lambda value: isinstance(value, list),
        "$schema": lambda value: False,
        "$id": lambda value: False,
    }
    for keyword, value in schema.items():
        if keyword in checks and not checks[keyword](value):
            yield f"{keyword}: {value!r}"
        elif keyword == "properties" and not all(isinstance(inner, dict) for inner in value.values()):
            yield "a property that is no object"


def _is_full_list(value: Any) -> bool:
    return isinstance(value, list) and value != []


def _is_list_of_names(value: Any) -> bool:
    names = list(cast("Iterable[Any]", value)) if isinstance(value, list) else [None]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_plain_pattern(value: Any) -> bool:
    if not isinstance(value, str) or re.search(r"\(\?<?[=!]", value):
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _resolves(reference: Any, root: Any) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    for step in reference[1:].split("/")[1:]:
        if isinstance(root, list):
            root = {str(index): inner for index, inner in enumerate(cast("Iterable[Any]", root))}
        if not isinstance(root, dict) or step not in root:
            return False
        root = cast("_Object", root)[step]
    return True


# ------------------------------------------------------- Gemini, Mistral and DeepSeek


def _gemini(request: _Object) -> _Problems:
    yield from _chat(request, id=r"(?s:.+)", name=r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
    yield from _alternating(request["messages"], after_result={"assistant", "tool", "user"})
    unknown = request.keys() & {"seed", "frequency_penalty", "top_k"}
    if unknown:
        yield f"fields that Gemini does not know: {sorted(unknown)}"
    if request.get("reasoning_effort") == "minimal":
        yield "reasoning_effort: Gemini does not know 'minimal'"
    version = re.match(r"gemini-(\d+)", request["model"])
    is_old = version is not None and int(version[1]) < 3
    if is_old and "tools" in request and "response_format" in request:
        yield "tools beside a JSON response"
    if not is_old:
        for message in request["messages"]:
            calls = message.get("tool_calls", ())
            google = [call.get("extra_content", {}).get("google", {}) for call in calls]
            if calls and not any(extra.get("thought_signature") for extra in google):
                yield "a call without a thought signature"
    schemas = [tool["function"].get("parameters") for tool in request.get("tools", ())]
    if "response_format" in request:
        schemas.append(request["response_format"]["json_schema"]["schema"])
    for schema in schemas:
        if schema is not None:
            yield from _gemini_schema(schema, "$")
            if not schema.get("properties"):
                yield "parameters without properties"
    if "file" in _part_types(request):
        yield "a file, which Gemini's endpoint does not know"


def _part_types(request: _Object) -> set[str]:
    """The types of the parts of all messages."""
    contents: list[Any] = [message["content"] for message in request["messages"]]
    parts = [cast("Iterable[_Object]", content) for content in contents if isinstance(content, list)]
    return {part["type"] for content in parts for part in content}


_GEMINI_FIELDS = {
    "anyOf", "description", "enum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "nullable",
    "properties", "required", "title", "type",
}  # fmt: skip


def _gemini_schema(schema: Any, at: str) -> _Problems:
    unknown = schema.keys() - _GEMINI_FIELDS
    if unknown:
        yield f"{at}: unknown fields {sorted(unknown)}"
    kind = schema.get("type")
    if "anyOf" in schema:
        if not schema["anyOf"]:
            yield f"{at}: an empty union"
        for inner in schema["anyOf"]:
            yield from _gemini_schema(inner, f"{at}.anyOf")
    elif kind not in _TYPES - {"null"}:
        yield f"{at}: the type {kind!r}"
    if kind == "array" and not schema.get("items"):
        yield f"{at}: an array without items"
    if "properties" in schema and (kind != "object" or not schema["properties"]):
        yield f"{at}: properties {schema['properties']!r} of {kind!r}"
    if "required" in schema and not set(schema["required"]) <= set(schema.get("properties", ())):
        yield f"{at}: a property is required that there is not"
    if "enum" in schema and (kind != "string" or not all(isinstance(one, str) and one for one in schema["enum"])):
        yield f"{at}: an enumeration of other values than texts"
    if "format" in schema and schema["format"] not in ("date-time", "enum", "float", "double", "int32", "int64"):
        yield f"{at}: the format {schema['format']!r}"
    for name, inner in schema.get("properties", {}).items():
        yield from _gemini_schema(inner, f"{at}.{name}")
    if "items" in schema:
        yield from _gemini_schema(schema["items"], f"{at}.items")


def _alternating(messages: list[_Object], *, after_result: set[str]) -> _Problems:
    """The order of roles that chat templates demand."""
    may_follow = {
        "": {"user"},
        "user": {"assistant"},
        "assistant": {"user", "tool"},
        "tool": after_result,
    }
    last = ""
    for message in messages:
        role = message["role"]
        if role != "system":
            if role not in may_follow[last]:
                yield f"unexpected role {role!r} after role {last!r}"
            last = role
    if last not in ("user", "tool"):
        yield f"the last role is {last!r}"


_MISTRAL_FIELDS = {
    "frequency_penalty", "max_tokens", "messages", "metadata", "model", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "random_seed", "response_format", "safe_prompt", "stop", "stream", "temperature", "tool_choice",
    "tools", "top_p",
}  # fmt: skip


def _mistral(request: _Object) -> _Problems:
    yield from _chat(request, id=r"[a-zA-Z0-9]{9}")
    yield from _alternating(request["messages"], after_result={"assistant", "tool"})
    unknown = request.keys() - _MISTRAL_FIELDS
    if unknown:
        yield f"extra inputs are not permitted: {sorted(unknown)}"
    if "tools" in request and "response_format" in request:
        yield "tools beside a JSON response"
    yield from _openai_schemas(tool["function"] for tool in request.get("tools", ()))
    for message in request["messages"]:
        fields = {"system": {"content"}, "user": {"content"}, "assistant": {"content", "tool_calls"}}
        extra = message.keys() - fields.get(message["role"], {"content", "tool_call_id", "name"}) - {"role"}
        if extra:
            yield f"extra inputs are not permitted: {sorted(extra)}"
    unknown = _part_types(request) - {"text", "image_url"}
    if unknown:
        yield f"parts that Mistral does not know: {sorted(unknown)}"


def _deepseek(request: _Object) -> _Problems:
    yield from _chat(request, id=r"(?s:.+)")
    yield from _openai_schemas(tool["function"] for tool in request.get("tools", ()))
    output = request.get("response_format", {"type": "text"})
    if output["type"] not in ("text", "json_object"):
        yield f"the response format {output['type']!r}"
    texts = [message["content"] for message in request["messages"]]
    if not all(text is None or isinstance(text, str) for text in texts):
        yield "a picture or a file: the models read only text"
    if output["type"] == "json_object" and not any("json" in text.lower() for text in texts if isinstance(text, str)):
        yield "no message speaks of JSON"
    if any("tool_calls" in message and "reasoning_content" not in message for message in request["messages"]):
        yield "a call without reasoning_content"
    if request["model"] == "deepseek-reasoner" and request.get("tool_choice") == "required":
        yield "a forced call"


# ------------------------------------------------------------------------- Responses API


def _responses(request: _Object) -> _Problems:
    items: list[_Object] = request["input"]
    if not items:
        yield "there is no input"
    due: list[str] = []
    before = ""
    for index, item in enumerate(items):
        at, kind = f"input[{index}]", item["type"]
        if before == "reasoning" and kind not in ("reasoning", "message", "function_call"):
            yield f"{at}: reasoning without the item that must follow it"
        if kind == "function_call_output":
            if item["call_id"] not in due:
                yield f"{at}: an output of a call that there is not"
            else:
                due.remove(item["call_id"])
            yield from _responses_content(item["output"], at)
        elif kind == "function_call":
            if not 0 < len(item["call_id"]) <= 64 or item["call_id"] in due:
                yield f"{at}: the call id {item['call_id']!r}"
            if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", item["name"]) is None:
                yield f"{at}: the name {item['name']!r}"
            due.append(item["call_id"])
            function = {"name": item["name"], "arguments": item["arguments"]}
            yield from _chat_calls({"tool_calls": [{"id": "a", "function": function}]}, at, "a", r"(?s:.*)")
        elif kind == "message":
            if due and before == "function_call_output":
                yield f"{at}: calls have no outputs: {due}"
            yield from _responses_content(item["content"], at)
        elif kind != "reasoning":
            yield f"{at}: the type {kind!r}"
        before = kind
    if due or before == "reasoning":
        yield f"calls without outputs, or reasoning without an item: {due}"
    if not request.get("tools") and {"tool_choice", "parallel_tool_calls"} & request.keys():
        yield "a choice of tools without tools"
    yield from _openai_schemas(request.get("tools", ()))
    yield from _openai_effort(request["model"], request.get("reasoning", {}).get("effort"))
    if request.get("max_output_tokens", 16) < 16:
        yield "max_output_tokens: at least 16"
    if "text" in request:
        yield from _openai_output(request["text"]["format"])
    unknown = request.keys() & {"seed", "stop", "messages", "max_tokens"}
    if unknown:
        yield f"fields that the API does not know: {sorted(unknown)}"


def _responses_content(content: Any, at: str) -> _Problems:
    if isinstance(content, str):
        if not content.strip():
            yield f"{at}: a blank text"
        return
    if not content:
        yield f"{at}: no content"
    for part in content:
        match part:
            case {"type": "input_text", "text": str(text)} if text.strip():
                pass
            case {"type": "input_image", "image_url": str(url)}:
                yield from _image_url(url, at)
            case {"type": "input_file", "file_url": str(url)}:
                yield from _image_url(url, at)
            case {"type": "input_file", "filename": str(name), "file_data": str(url)} if name:
                if not url.startswith("data:application/pdf;base64,") or b"%PDF" not in _data(url)[:1024]:
                    yield f"{at}: a file that is no document: {url[:60]}"
            case _:
                yield f"{at}: a part of a wrong form: {str(part)[:80]}"


# -------------------------------------------------------------------------- Messages API


_THOUGHTS = ("thinking", "redacted_thinking")


def _anthropic(request: _Object) -> _Problems:
    messages: list[_Object] = request["messages"]
    if not messages or messages[0]["role"] != "user" or messages[-1]["role"] != "user":
        yield "the first message and the last one must be the user's"
    due: list[str] = []
    marks = 0
    for index, message in enumerate(messages):
        at, blocks = f"messages[{index}]", cast("list[_Object]", message["content"])
        if index and messages[index - 1]["role"] == message["role"]:
            yield f"{at}: roles must alternate"
        if not blocks:
            yield f"{at}: no content"
            continue
        marks += sum("cache_control" in block for block in blocks)
        if message["role"] == "assistant":
            due = [block["id"] for block in blocks if block["type"] == "tool_use"]
            if len(set(due)) < len(due):
                yield f"{at}: two calls have one id"
            if blocks[-1]["type"] in _THOUGHTS:
                yield f"{at}: the last block is a thought"
            kinds = [block["type"] for block in blocks]
            if "tool_use" in kinds and set(kinds[kinds.index("tool_use") :]) != {"tool_use"}:
                yield f"{at}: only calls may follow a call"
        else:
            results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            if sorted(results) != sorted(due):
                yield f"{at}: results of {results} where {due} are due"
            if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
                yield f"{at}: a block before the results"
            due = []
        for block in blocks:
            yield from (f"{at}: {problem}" for problem in _block_problems(block, message["role"]))
    if due:
        yield f"calls without results: {due}"
    for block in (*request.get("system", ()), *request.get("tools", ())):
        marks += "cache_control" in block
    if marks > 4:
        yield f"{marks} marks for the cache"
    for block in request.get("system", ()):
        yield from _block_problems(block, "system")
    yield from _anthropic_tools(request)
    yield from _anthropic_thinking(request)


def _block_problems(block: _Object, role: str) -> _Problems:
    match block:
        case {"type": "text", "text": str(text)}:
            if not text.strip():
                yield "a blank text"
        case {"type": "image", "source": source} if role == "user":
            yield from _source_problems(source, set(_SIGNATURES))
        case {"type": "document", "source": source} if role == "user":
            if not block.get("title", "document"):
                yield "an empty title"
            yield from _source_problems(source, {"application/pdf"})
        case {"type": "tool_use", "id": str(id), "name": str(name), "input": dict()} if role == "assistant":
            if re.fullmatch(r"[a-zA-Z0-9_-]+", id) is None or re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name) is None:
                yield f"the id {id!r} or the name {name!r}"
        case {"type": "tool_result", "tool_use_id": str()} if role == "user":
            content: list[_Object] = block.get("content", [])
            if block.get("is_error") and (not content or any(inner["type"] != "text" for inner in content)):
                yield "the content of an error is not a text"
            for inner in content:
                if inner["type"] in ("tool_use", "tool_result", *_THOUGHTS):
                    yield f"a {inner['type']} in a result"
                yield from _block_problems(inner, role)
        case {"type": "thinking", "thinking": str(), "signature": str(signature)} if role == "assistant":
            if not signature:
                yield "a thought without a signature"
        case {"type": "redacted_thinking", "data": str(data)} if role == "assistant":
            if not data:
                yield "a redacted thought without data"
        case _:
            yield f"a block of a wrong form: {str(block)[:80]}"


def _source_problems(source: _Object, types: set[str]) -> _Problems:
    match source:
        case {"type": "url", "url": str(url)}:
            if not url.startswith("https://"):
                yield f"an address that is not https: {url}"
            yield from _image_url(url, "source")
        case {"type": "text", "media_type": "text/plain", "data": str(data)}:
            if not data.strip():
                yield "an empty document"
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            if media_type not in types:
                yield f"the type {media_type!r}"
            raw = b64decode(data)
            signatures = _SIGNATURES.get(media_type, ())
            if (signatures and not raw.startswith(signatures)) or (not signatures and b"%PDF" not in raw[:1024]):
                yield f"data that is no {media_type}"
        case _:
            yield f"a source of a wrong form: {str(source)[:80]}"


def _anthropic_tools(request: _Object) -> _Problems:
    for tool in request.get("tools", ()):
        at, schema = f"tools: {tool['name']}", tool["input_schema"]
        if re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]) is None:
            yield f"{at}: the name"
        yield from _object_at_the_top(schema, at)
        yield from _schema_problems(schema, at)
        for name in schema["properties"]:
            if re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name) is None:
                yield f"{at}: the property {name!r}"
    if any(not text.strip() for text in request.get("stop_sequences", ())):
        yield "stop_sequences: a blank text"
    if "tool_choice" in request and not request.get("tools"):
        yield "a choice of tools without tools"


def _anthropic_thinking(request: _Object) -> _Problems:
    thinking = request.get("thinking")
    if thinking is None:
        return
    if request.get("tool_choice", {}).get("type") in ("any", "tool"):
        yield "a forced call beside thinking"
    if request.get("temperature", 1) != 1 or not 0.95 <= request.get("top_p", 1) <= 1:
        yield "sampling settings beside thinking"
    if thinking["type"] == "enabled":
        if not 1024 <= thinking["budget_tokens"] < request["max_tokens"]:
            yield f"the budget {thinking['budget_tokens']}"
        # The turn that goes on: back to a message of the user that holds no results.
        begin: list[_Object] | None = None
        for message in reversed(request["messages"]):
            if message["role"] == "assistant":
                begin = message["content"]
            elif not any(block["type"] == "tool_result" for block in message["content"]):
                break
        if begin and begin[0]["type"] not in _THOUGHTS:
            yield f"the turn begins with {begin[0]['type']}, and not with a thought"


_CHECKS: Mapping[WireProvider, Callable[[_Object], _Problems]] = {
    "openai": _openai,
    "openai-responses": _responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "mistral": _mistral,
    "deepseek": _deepseek,
}
