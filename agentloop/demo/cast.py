"""The cast of the tour: a guide with tools, a critic, a dreamer that never ends by itself, and a host.

The tools are real. The models are real if one is given; otherwise functions play them.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import trio
from attrs import define, field, frozen

from agentloop._core.json_text import decode_own
from agentloop._interpreter import python_command
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.messages import ToolResult, UserMessage
from agentloop.models import Model, ModelRequest, Reply, Stop
from agentloop.team import Team
from agentloop.testing import FunctionModel, Response, calls, says
from agentloop.toolkit import background
from agentloop.tools import Tool, tool

__all__ = ["AT_LENGTH", "REPORT", "STILL_THERE", "TEXT", "Cast", "make_cast"]

TEXT = """\
Most programs cannot say what they have left running. A task waits somewhere, a socket stays open, and a question \
that was put to somebody will never be answered any more. Here every run of an agent is a block. When the block ends, \
everything that it started has ended, whatever ended it."""

REPORT = "Write me a short report on this text:"
AT_LENGTH = (
    "Now count down from sixty, run another program for a minute, and have the dreamer tell a story. All at once."
)
STILL_THERE = "Are you still there? What became of the three things?"


@frozen
class Manner:
    """The critic's form."""

    name: str = "reader"
    tone: Literal["kind", "frank"] = "kind"


@define
class Cast:
    """The agents of the tour, and the traces that they leave behind."""

    guide: Agent
    """The agent that does most of it."""
    team: Agent
    """The guide, and the host to whom it hands the conversation in the end."""
    processes: list[trio.Process] = field(factory=list[trio.Process])
    """The programs that were started."""


def make_cast(model: Model | str | None, text: str) -> Cast:
    """The guide and the others, with ``text`` on the table."""
    reading, processes = _reading_tools(text), list[trio.Process]()
    critic = Agent(
        model or FunctionModel(_critic),
        name="critic",
        description="Says what it thinks of the text.",
        instructions="Look at the longest sentence, ask the reader for a name and a tone, then say what you think.",
        tools=[reading["longest_sentence"], ask_for_manner],
    )
    dreamer = Agent(
        model or Dreamer(),
        name="dreamer",
        instructions="Tell a story that never ends. Never stop.",
    )
    guide = Agent(
        model or FunctionModel(_guide),
        name="guide",
        instructions=(
            "For a report: first call measure and frequent_words at once; then start the critic in the background, and "
            "search_python for each of the words, at once; when you have read what the critic says, save_report, with "
            "a few lines. Say one short sentence before each step. When you are asked whether you are still there, "
            "answer, and hand off to the host."
        ),
        tools=[
            reading["measure"],
            reading["frequent_words"],
            search_python,
            save_report,
            count_down,
            _program_runner(processes),
            dreamer.as_tool(description="Have the dreamer tell a story."),
        ],
        toolsets=[background(critic)],
        handoffs=["host"],
    )
    host = Agent(
        model or FunctionModel(_host),
        name="host",
        description="Says good-bye.",
        instructions="Thank the reader in one sentence, and say good-bye.",
    )
    return Cast(guide, Team(guide, host), processes)


# --------------------------------------------------------------------------------- tools


def _reading_tools(text: str) -> dict[str, Tool]:
    """The tools that know the text."""

    @tool
    def measure() -> str:
        """Count the words and the sentences of the text."""
        return f"{len(text.split())} words in {len(_sentences(text))} sentences"

    @tool
    def frequent_words() -> list[str]:
        """Find the three longer words that the text uses most often."""
        words = Counter(re.findall(r"[^\W\d_]{5,}", text.lower()))
        # The longer ones first, where two are as frequent.
        return sorted(words, key=lambda word: (-words[word], -len(word)))[:3]

    @tool
    def longest_sentence() -> str:
        """Find the longest sentence of the text."""
        return max(_sentences(text), key=len, default="")

    return {one.name: one for one in (measure, frequent_words, longest_sentence)}


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in re.findall(r"[^.!?]*\w[^.!?]*[.!?]*", text)]


# A plain function: it runs in a thread, since reading files would keep the loop waiting.
@tool
def search_python(word: str) -> str:
    """Count in how many files of Python's own library a word is used."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [*library.glob("*.py"), *library.glob("[!st]*/*.py")]
    found = sum(word.encode().lower() in path.read_bytes().lower() for path in files)
    return f'"{word}" is in {found} of {len(files)} files'


@tool
async def ask_for_manner(context: ToolContext[None]) -> Manner:
    """Ask the reader for a name, and for a tone to speak in."""
    answer = await context.ask_for("To whom do I speak, and shall I be kind, or frank?", Manner)
    return answer if isinstance(answer, Manner) else Manner()


@tool(requires_approval=True)
async def save_report(report: str) -> str:
    """Save the report in a file."""
    descriptor, path = tempfile.mkstemp(prefix="agentloop-report-", suffix=".txt")
    async with await trio.open_file(descriptor, "w", encoding="utf-8") as file:
        await file.write(report)
    return f"saved as {path}"


@tool
async def count_down(seconds: int, context: ToolContext[None]) -> str:
    """Count down, once a second."""
    for gone in range(seconds):
        await context.progress(gone, total=seconds)
        await trio.sleep(1)
    await context.progress(seconds, total=seconds)
    return "zero"


def _program_runner(processes: list[trio.Process]) -> Tool:
    @tool
    async def run_program(seconds: int, context: ToolContext[None]) -> str:
        """Run another program, which does nothing for some seconds."""
        command = [python_command("run_program"), "-I", "-c", f"import time; time.sleep({seconds})"]
        # Silent: Ctrl-C reaches this process too, and it would print a traceback.
        start = partial(trio.run_process, command, check=False, stderr=subprocess.DEVNULL)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            processes.append(process)
            await context.output(f"process {process.pid} has started\n")
        return f"process {process.pid} has ended with {process.returncode}"

    return run_program


# -------------------------------------------------------------------------------- models


class Dreamer:
    """A model that never ends its response."""

    name = "offline"

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        await reply.text("Once upon a time I counted sheep:")
        for sheep in itertools.count(1):
            await reply.text(f" {sheep},")
            await trio.sleep(0.3)
        raise AssertionError


def _critic(request: ModelRequest) -> Response | str:
    """The function that plays the critic's model."""
    results = _results(request)
    if "longest_sentence" not in results:
        return calls("longest_sentence")
    if "ask_for_manner" not in results:
        return says("I have an opinion, but I must ask first.") + calls("ask_for_manner")
    manner = decode_own(results["ask_for_manner"][0].text, Manner)
    length = len(results["longest_sentence"][0].text.split())
    if manner.tone == "frank":
        return f"{manner.name}, nobody should be made to read a sentence of {length} words."
    return f"Dear {manner.name}, this reads well, and best of all the sentence of {length} words."


def _guide(request: ModelRequest) -> Response | str:
    """The function that plays the guide's model."""
    users = [message for message in request.messages if isinstance(message, UserMessage)]
    prompts = [message for message in users if not message.reports]
    if prompts[-1].text == STILL_THERE:
        cut = [m.name for m in request.messages if isinstance(m, ToolResult) and m.status == "interrupted"]
        answer = f"Yes, I am. I was interrupted at: {', '.join(cut)}. That is all in my transcript."
        return says(answer) + calls("handoff", agent="host")
    if prompts[-1].text == AT_LENGTH:
        return (
            says("That will take a while.")
            + calls("count_down", seconds=60)
            + calls("run_program", seconds=60)
            + calls("dreamer", prompt="Tell me a story.")
        )
    return _report(_results(request), [message.text for message in users if message.reports])


def _host(_request: ModelRequest) -> str:
    """The function that plays the host's model."""
    return "Thank you for your time. Good-bye!"


def _report(results: dict[str, Sequence[ToolResult]], reports: Sequence[str]) -> Response | str:
    """The next step on the way to a report.

    Args:
      reports: the reports of the critic's end, if it has come.
    """
    if "measure" not in results:
        return says("I will have it measured, in two ways at once.") + calls("measure") + calls("frequent_words")
    words: list[str] = decode_own(results["frequent_words"][0].text)
    if "run_background_agent" not in results:
        critic = calls("run_background_agent", agent="critic", task="What do you think of the text?")
        searches = sum((calls("search_python", word=word) for word in words), start=critic)
        return says("A critic looks at it in the background. I search Python's library, in threads.") + searches
    if not reports:
        return "All is there but the critic's opinion."
    if "save_report" not in results:
        told = [results["measure"][0].text, *(result.text for result in results.get("search_python", ()))]
        report = "".join(f"- {line}\n" for line in [*told, reports[-1].splitlines()[-1]])
        return says("I would like to keep my report.") + calls("save_report", report=report)
    result = results["save_report"][0]
    return f"Done. The report is {result.text}." if result.status == "ok" else "Done, and nothing was saved."


def _results(request: ModelRequest) -> dict[str, Sequence[ToolResult]]:
    """By name, the results since the prompt."""
    found: dict[str, list[ToolResult]] = {}
    for message in reversed(request.messages):
        if isinstance(message, UserMessage) and not message.reports:
            break
        if isinstance(message, ToolResult):
            found.setdefault(message.name, []).insert(0, message)
    return dict(found)
