"""A bound on the history that a model reads, for agents that need only the last few messages."""

from __future__ import annotations

from collections.abc import Sequence

from agentloop import hooks
from agentloop.errors import UsageError
from agentloop.hooks import BeforeLLMCall, Hook, ReplaceMessages
from agentloop.messages import AssistantMessage, Message, ToolResult, UserMessage

__all__ = ["recent_messages"]


def recent_messages(messages: int) -> Hook:
    """A hook by which the model reads only the last messages of the conversation.

    ::

        agent = Agent(model, hooks=[recent_messages(20)])

    The session keeps all of them. A tool call stays with its results, and the newest prompt is always there, so the
    model may read a few messages less, or the prompt and the last turns of a long run. The newest text of each context
    source (`agentloop.context_sources`) comes first, beyond the number.

    The beginning of the request changes with each turn beyond the bound, so a provider's prompt cache knows nothing of
    it. Where that counts, `Compaction` is cheaper: it shortens the conversation now and then.

    Args:
      messages: how many messages of the conversation the model reads at most; 2 or more.

    Raises:
      UsageError: ``messages`` is below 2.
    """
    if messages < 2:
        raise UsageError(f"recent_messages({messages}): give 2 or more, so that a prompt and what follows it fit")

    async def recent(call: BeforeLLMCall) -> ReplaceMessages | None:  # noqa: ASYNC124 - a plain one gets a thread
        whole = call.request.messages
        if call.purpose != "turn" or len(whole) <= messages:
            return None
        return ReplaceMessages(bounded(whole, messages))

    return hooks.before_llm_call(name="recent_messages")(recent)


def bounded(messages: Sequence[Message], most: int) -> list[Message]:
    """At most the last so many ``messages``, as a whole that a provider takes, and the newest context before them."""
    prompt = _newest_prompt(messages)
    first = len(messages) - most
    if prompt >= first:
        # From a prompt on: before it stands the rest of another turn.
        start = next(index for index in range(first, len(messages)) if _begins(messages, index))
        shown = [*messages[start:]]
    else:
        # The last turn stays, however many results it has: the model would make its calls again.
        last = max(index for index, message in enumerate(messages) if isinstance(message, AssistantMessage))
        start = (
            next(index for index in range(first + 1, last + 1) if not isinstance(messages[index], ToolResult))
            if (first < last)
            else last
        )
        shown = [messages[prompt], *messages[start:]]
    return [*_context(messages, shown), *shown]


def _begins(messages: Sequence[Message], index: int) -> bool:
    """Whether the message at ``index`` is a prompt: what follows an answer, and not what was said during a run."""
    message = messages[index]
    if not isinstance(message, UserMessage) or message.context:
        return False
    before = messages[index - 1] if index else None
    return before is None or (isinstance(before, AssistantMessage) and not before.calls)


def _newest_prompt(messages: Sequence[Message]) -> int:
    prompts = (index for index in range(len(messages) - 1, -1, -1) if _begins(messages, index))
    return next(prompts, 0)


def _context(messages: Sequence[Message], shown: Sequence[Message]) -> list[Message]:
    """The messages with a text of a context source that no later one replaces, as far as they are not ``shown``."""
    told: set[str] = set()
    left_out: list[Message] = []
    kept = {id(message) for message in shown}
    for message in reversed(messages):
        if isinstance(message, UserMessage) and message.context:
            if id(message) not in kept and not told.issuperset(message.context):
                left_out.append(message)
            told.update(message.context)
    return left_out[::-1]
