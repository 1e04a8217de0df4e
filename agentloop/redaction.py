"""Redaction: the model, the journal, events and traces get placeholders in the place of secrets.

::

    agent = Agent(model, tools=[deploy], redact=True)
    await agent.run("Deploy with the key AKIAIOSFODNN7EXAMPLE")

The model reads "Deploy with the key [secret:1:aws-key]". If it calls ``deploy(key="[secret:1:aws-key]")``, the tool
gets the real key. The same secret has the same placeholder throughout a session.

**What is redacted.** Prompts, steering messages, follow-ups, instructions, texts of hooks, arguments and results of
tools, their output and their errors, questions and answers, and the words of the model itself. Hooks, permissions and
the people who approve a call see placeholders as well. Pictures, files and their addresses are not searched, and the
exception that a failed run raises is the error itself, with all of its words: it is for the code that runs the agent.

**Where the values are.** In memory, with the `Session`, in this process: `Session.secrets`. No store has them. A run
that is resumed in another process cannot put the old placeholders back, and a tool call with one fails with a sentence
that says so. Values that have to last get a name, in ``Redaction(secrets=...)``, and the same in each process.

**Child runs** share the table and the redaction of the run around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast

from attrs import field, frozen

from agentloop._core.field_checks import shown
from agentloop._core.secrets import SHORTEST, labels_in, placeholder
from agentloop.errors import UsageError
from agentloop.permissions import check_tool_glob

__all__ = ["Redaction", "redaction_of"]


def _patterns(given: object) -> tuple[tuple[str, re.Pattern[str]], ...]:
    words = shown(given)
    if isinstance(given, (str, re.Pattern)) or not isinstance(given, Iterable):
        raise UsageError(f"patterns= takes a list of regular expressions, or a dict of them by kind, not {words}")
    if isinstance(given, Mapping):
        items = [*cast("Mapping[object, object]", given).items()]
    else:
        items = [("pattern", pattern) for pattern in cast("Iterable[object]", given)]
    return tuple([(_kind(kind), _compiled(pattern)) for kind, pattern in items])


def _kind(kind: object) -> str:
    if not isinstance(kind, str) or not labels_in(placeholder(f"1:{kind}")):
        raise UsageError(f"patterns=: a kind is letters, digits and hyphens, as in 'ticket', not {shown(kind)}")
    return kind


def _compiled(pattern: object) -> re.Pattern[str]:
    words, text = shown(pattern), getattr(pattern, "pattern", None)
    if isinstance(pattern, re.Pattern) and isinstance(text, str):
        compiled = cast("re.Pattern[str]", pattern)
    elif isinstance(pattern, str):
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"patterns= takes regular expressions, which {pattern!r} is not: {error}") from error
    else:
        raise UsageError(f"patterns= takes regular expressions, not {words}")
    if compiled.search("") is not None:
        raise UsageError(
            f"patterns=: {compiled.pattern!r} matches where there is nothing: say what a secret looks like"
        )
    return compiled


def _secrets(given: object) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise UsageError(f"secrets= takes a dict of values by name, not {type(given).__name__}")
    named: dict[str, str] = {}
    for name, value in cast("Mapping[object, object]", given).items():
        # `Session.secrets` has them by placeholder.
        label = (labels_in(name) or [name])[0] if isinstance(name, str) else ""
        if placeholder(label) != name and not labels_in(placeholder(label)):
            raise UsageError(f"secrets=: a name is letters, digits and hyphens, as in 'deploy-key', not {shown(name)}")
        # The value is in no error: it is a secret.
        if not isinstance(value, str) or len(value) < SHORTEST:
            raise UsageError(f"secrets=: the value of {name!r} is not a text of {SHORTEST} characters or more")
        named[label] = value
    return named


def _globs(given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"put_back= takes a list of names of tools, or globs of them, not {shown(given)}")
    globs = tuple(cast("Iterable[str]", given))
    for glob in globs:
        check_tool_glob("put_back=", glob)
    return globs


@frozen(eq=False)
class Redaction:
    """How an agent redacts secrets, if ``Agent(redact=True)`` is not enough.

    ::

        Agent(model, redact=Redaction(
            patterns={"ticket": r"TCK-[0-9]{8}"},
            secrets={"deploy-key": os.environ["DEPLOY_KEY"]},
            put_back=["deploy", "http_*"],
        ))

    Keys of common services, private keys, passwords in URLs, values of headers and of names such as ``password`` are
    always found.

    Raises:
      UsageError: a pattern is no regular expression, or a value is too short to be a secret.
    """

    patterns: tuple[tuple[str, re.Pattern[str]], ...] = field(default=(), kw_only=True, converter=_patterns)
    """Regular expressions of further secrets: a list, or a dict by the kind that the placeholder names. If one has a
    group called ``secret``, or any group, the secret is the text of that group, or of the first. Each is tried on parts
    of 64 KiB, but nothing bounds the time of one with nested repetitions, such as ``(a+)+``."""
    secrets: Mapping[str, str] = field(factory=dict[str, str], kw_only=True, converter=_secrets, repr=False)
    """Values by name. They are replaced wherever they occur, by ``[secret:NAME]``, and put back in every process whose
    agent has them, also when it resumes a run of another one. A mapping from `Session.secrets` is as good."""
    put_back: tuple[str, ...] = field(default=("*",), kw_only=True, converter=_globs)
    """Names of the tools, or globs of them, that get the real values; by default all of them. Other tools get the
    placeholders. Tools that run an agent always do, since the child run shares the table."""
    library: bool = field(default=False, kw_only=True)
    """Whether to look for secrets by the rules of Kingfisher as well, some 900 of them, for the keys of rarer services.
    It needs the extra ``redaction``. To load the rules takes about a second at the first run of a process, and ten at
    the first one of a machine, until the compiled rules are in the user's cache folder."""


def redaction_of(value: bool | Iterable[str | re.Pattern[str]] | Redaction | None) -> Redaction | None:
    """The redaction that ``redact=value`` stands for; ``None`` for none.

    Raises:
      UsageError: it is neither a boolean, a list of patterns nor a `Redaction`.
    """
    if value is None or value is False:
        return None
    if value is True:
        return Redaction()
    if isinstance(value, Redaction):
        return value
    if isinstance(value, (str, bytes)) or not isinstance(cast("object", value), Iterable):
        raise UsageError(f"redact= takes True, a list of patterns or Redaction(...), not {shown(value)}")
    return Redaction(patterns=value)
