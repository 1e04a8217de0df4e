"""Hooks that choose the model of a request: models that take turns, models by rule, and the one that sums up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentloop import hooks
from agentloop.declarative._models import Choice
from agentloop.hooks import BeforeLLMCall, Hook, ReplaceRequest
from agentloop.messages import UserMessage
from agentloop.models import Model

__all__ = ["choosing_hooks"]


def choosing_hooks(choices: Sequence[Choice], summarizer: Model | str | None) -> list[Hook]:
    """The hooks of an agent with these models; none if there is nothing to choose."""
    made: list[Hook] = []
    if summarizer is not None:
        made.append(_for_summaries(summarizer))
    if len(choices) > 1:
        made.append(_in_turns([choice.model for choice in choices]))
    elif choices[0].rules:
        made.append(_by_rule(choices[0].rules))
    return made


def _for_summaries(model: Model | str) -> Hook:
    @hooks.before_llm_call(name="compaction_model")
    async def choose(call: BeforeLLMCall) -> ReplaceRequest | None:  # noqa: ASYNC124 - it decides at once
        return ReplaceRequest(model=model) if call.purpose == "summary" else None

    return choose


def _in_turns(models: Sequence[Model | str]) -> Hook:
    @hooks.before_llm_call(name="several models")
    async def choose(call: BeforeLLMCall) -> ReplaceRequest | None:  # noqa: ASYNC124 - it decides at once
        return ReplaceRequest(model=models[(call.turn - 1) % len(models)]) if call.purpose == "turn" else None

    return choose


def _by_rule(rules: Sequence[tuple[Model | str, tuple[str, ...]]]) -> Hook:
    known = [(model, [words for example in examples if (words := _words(example))]) for model, examples in rules]

    @hooks.before_llm_call(name="routing")
    async def choose(call: BeforeLLMCall) -> ReplaceRequest | None:  # noqa: ASYNC124 - it decides at once
        if call.purpose != "turn":
            return None
        prompts = [message for message in call.request.messages if isinstance(message, UserMessage)]
        asked = _words(prompts[-1].text) if prompts else set[str]()
        best, model = 0.0, None
        for candidate, examples in known:
            score = max((len(asked & example) / len(example) for example in examples), default=0.0)
            if score > best:
                best, model = score, candidate
        return None if model is None or best < LEAST else ReplaceRequest(model=model)

    return choose


LEAST = 0.3
"""The part of an example's words that a prompt has to have."""
MAX_CHARS = 20_000
"""Characters of a prompt that are looked at."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text[:MAX_CHARS].casefold()))
