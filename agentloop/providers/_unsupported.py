"""The way out where a model does not take a parameter, or a kind of input, that a request has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from agentloop.providers._server_words import ServerWords

__all__ = ["advice"]

_WAYS_OUT: Mapping[str, str] = {
    "temperature": "leave ModelSettings.temperature out",
    "top_p": "leave ModelSettings.top_p out",
    "max_tokens": "give the model max_tokens_field='max_completion_tokens', or leave ModelSettings.max_tokens out",
    "max_completion_tokens": "give the model max_tokens_field='max_tokens', or leave ModelSettings.max_tokens out",
    "max_output_tokens": "leave ModelSettings.max_tokens out",
    "seed": "leave ModelSettings.seed out",
    "stop": "leave ModelSettings.stop out",
    "stop_sequences": "leave ModelSettings.stop out",
    "tool_choice": "leave ModelSettings.tool_choice out",
    "parallel_tool_calls": "leave ModelSettings.parallel_tool_calls out",
    "reasoning_effort": "leave ModelSettings.reasoning_effort out",
    "reasoning": "leave ModelSettings.reasoning_effort out",
    "thinking": "leave ModelSettings.reasoning_effort out",
    "reasoning_content": "give the model send_reasoning=None",
    "reasoning_details": "give the model send_reasoning=None",
    "reasoning_summary": "give the model reasoning_summary=None",
    "include": "give the model encrypted_reasoning=False",
    "encrypted_content": "give the model encrypted_reasoning=False",
    "stream_options": "give the model stream_usage=False",
    "cache_control": "give the model cache=None",
    "response_format": "leave the agent's output_type out, or use a model with structured output",
    "text_format": "leave the agent's output_type out, or use a model with structured output",
    "output_config": "leave the agent's output_type out, or use a model with structured output",
    "tools": "use a model with tools, or an agent without",
    "images": "use a model that can see, or leave the images out",
}
"""For each parameter of a request, the setting that keeps it out."""

_UNSUPPORTED = re.compile(
    r"unsupported|not (currently )?support|n't support|not (be )?(permitted|allowed|recognized|available) (with|for|by)"
    r"|unknown (parameter|field|argument)|unrecognized (request )?(argument|parameter|field)"
    r"|extra inputs are not permitted|no endpoints found that (can )?(support|handle)|does not take|only the default",
    re.IGNORECASE,
)
_TOOLS = re.compile(r"\btool(s| use| call(s|ing)?)?\b|function call(s|ing)?", re.IGNORECASE)
_IMAGES = re.compile(r"\bimages?\b|vision|image_url|multimodal", re.IGNORECASE)


def advice(words: ServerWords) -> str:
    """The way out of an error that says that something is unsupported; empty for other errors, or if none is known."""
    if _UNSUPPORTED.search(words.text) is None:
        return ""
    parameter = _parameter(words)
    if parameter in _WAYS_OUT:
        return f"the model does not take {parameter!r}: {_WAYS_OUT[parameter]}"
    if parameter:
        return f"the model does not take {parameter!r}: leave it out of ModelSettings.extra"
    if _IMAGES.search(words.text):
        return f"the model does not take images: {_WAYS_OUT['images']}"
    if _TOOLS.search(words.text):
        return f"the model does not take tools: {_WAYS_OUT['tools']}"
    return ""


def _parameter(words: ServerWords) -> str:
    """The parameter that the error names, by its last known part: ``reasoning.summary`` is ``reasoning_summary``."""
    named = [str(value) for value in (fields.get("param") for fields in words.fields) if isinstance(value, str)]
    for text in (*named, *_locations(words.fields)):
        parts = re.findall(r"[a-z_]+", text.lower())
        joined = "_".join(parts[:2])
        known = next((name for name in (joined, *parts) if name in _WAYS_OUT), "")
        if known or text in named:
            return known or text
    quoted = re.findall(r"[`'\"]([A-Za-z_.]+)[`'\"]|([a-z_]+): extra inputs", words.text)
    candidates = [name.lower().rpartition(".")[2] for pair in quoted for name in pair if name]
    mentioned = re.findall(r"[a-z]+(?:_[a-z]+)+|temperature|seed", words.text.lower())
    return next((name for name in (*candidates, *mentioned) if name in _WAYS_OUT), "")


def _locations(objects: list[dict[str, Any]]) -> list[str]:
    """The places that pydantic names in a validation error, such as ``["body", "seed"]``."""
    places = [cast("list[object]", fields["loc"]) for fields in objects if isinstance(fields.get("loc"), list)]
    return [".".join(str(part) for part in place if part != "body") for place in places]
