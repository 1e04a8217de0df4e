"""Long sessions, whatever happens in them: prompts, results and documents of every size, small windows, bad summaries.

Each rule opens the session anew, as another process would, so every promise is one over reopening as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from trio.testing import MockClock

from agentloop import Agent, Approve, Compaction, File, Limits, Retries, Text, tool
from agentloop._core.transcript import problems
from agentloop.errors import (
    CompactionError,
    ModelConnectionError,
    ModelContextOverflowError,
    PromptTooLongError,
)
from agentloop.events import UsageReported
from agentloop.journal import OpenStore
from agentloop.limits import SUMMARIZE
from agentloop.messages import Message, Reasoning, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.outcome import Outcome
from agentloop.stores import MemoryStore, StoredSession, fork_session, stored_session
from agentloop.testing import FunctionModel, Response, calls, fails, says
from agentloop.wire import decode_event

WORDS = {"English": "word ", "Chinese": "语言", "code": "x_1 = f(y);\n", "letters": "Qx7"}
TOKENS_OF_A_PAGE = 1_900
PAGE = b"<</Type/Page>>"


def text_of(kind: str, size: int) -> str:
    """A text of ``size`` characters."""
    word = WORDS[kind]
    return (word * (size // len(word) + 1))[:size] or "?"


class Provider(FunctionModel):
    """A model with a window and a tokenizer of its own, that plays what a rule has told it to."""

    def __init__(self) -> None:
        super().__init__(self._respond, name="provider")
        self.window = 4_000
        self.characters_per_token = 4.0
        self.reports_usage = True
        self.summaries = "whole"
        self.turns: list[Response] = []
        """The responses to the requests of turns that fit."""
        self.reported = Usage()
        """What it has said to have used."""
        self.longest_prompt = 0
        """Of the requests that were refused, the tokens of the last prompt and of what stands in front of it."""
        self.refused = 0

    def tokens(self, request: ModelRequest, messages: list[Message] | None = None) -> int:
        """The tokens of a request, by this provider's tokenizer."""
        characters = len(request.instructions) + len(msgspec.json.encode(request.tools))
        pages = 0
        for message in request.messages if messages is None else messages:
            for part in message.parts:
                match part:
                    case Text(text=text) | Reasoning(text=text):
                        characters += len(text)
                    case ToolCall(name=name, arguments=arguments):
                        characters += len(name) + len(arguments)
                    case File(data=data):
                        pages += (data or b"").count(PAGE)
                    case _:
                        raise AssertionError(part)
        return int(characters / self.characters_per_token) + pages * TOKENS_OF_A_PAGE

    def _respond(self, request: ModelRequest) -> Response:
        # Calls and results stay together, in every request, also in those that are refused.
        assert problems(request.messages) == []
        tokens = self.tokens(request)
        last = request.messages[-1]
        is_summary = isinstance(last, UserMessage) and last.text.startswith(SUMMARIZE)
        if tokens > self.window:
            self.refused += 1
            prompt: list[Message] = []
            for message in reversed(request.messages):
                if not isinstance(message, UserMessage):
                    break
                prompt.append(message)
            self.longest_prompt = max(self.longest_prompt, self.tokens(request, prompt[:1]))
            raise ModelContextOverflowError(model=self.name, status=400, body="too long")
        response = self._summary(tokens, bool(request.tools)) if is_summary else self.turns.pop(0)
        usage = Usage(tokens, 10) if self.reports_usage else Usage()
        if response.error is None:
            self.reported += msgspec.structs.replace(usage, requests=1)
        return msgspec.structs.replace(response, usage=usage)

    def _summary(self, tokens: int, has_tools: bool) -> Response:
        match self.summaries:
            case "fails":
                return fails(ModelConnectionError("gone"))
            case "refuses":
                return Response((Text("I cannot help with that."),), "refusal")
            case "is cut off":
                return Response((Text("The user"),), "length")
            case "is silent":
                return says(" ")
            case "rambles":
                return says("bla " * (tokens * 4 + 100))
            case "calls" if has_tools:
                return calls("read", kind="English", size=1)
            case _:
                return says("They talked.")


@tool
async def read(kind: str, size: int) -> str:
    """Read a text."""
    return text_of(kind, size)


@tool(requires_approval=True)
async def pay() -> str:
    """Pay."""
    return "paid"


@tool
async def scan(pages: int) -> list[Text | File]:
    """Scan a document."""
    return [Text("scanned"), document(pages)]


def document(pages: int) -> File:
    return File(b"%PDF-1.7\n" + PAGE * pages + b"\0" * 50_000, media_type="application/pdf")


SIZES = st.one_of(st.integers(1, 300), st.integers(1, 40_000))
KINDS = st.sampled_from(sorted(WORDS))
READS = st.lists(st.tuples(KINDS, SIZES), min_size=1, max_size=4)


class LongSessions(RuleBasedStateMachine):
    """One session and its forks, on one provider whose window and manners change."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.provider = Provider()
        self.session = "s"
        self.expected: list[Message] = []
        """What was said so far."""
        self.said_window = 4_000
        self.threshold = 0.85

    # --------------------------------------------------------------------------- what runs

    def agent(self) -> Agent:
        compaction = Compaction(window=self.said_window, threshold=self.threshold, result_tokens=300)
        options: dict[str, Any] = {
            "compaction": compaction,
            "retries": Retries(attempts=2, delay=0),
            "limits": Limits(turns=20, identical_turns=30),
        }
        child = Agent(self.provider, name="child", tools=[read, pay], **options)
        return Agent(self.provider, instructions="Be brief.", tools=[read, pay, scan, child.as_tool()], **options)

    def on_session(self, function: Callable[[StoredSession, OpenStore], Awaitable[Any]]) -> Any:
        """Open the session as another process would, and check that it has what was said."""

        async def main() -> Any:
            async with self.store.open() as store, stored_session(store, self.session) as session:
                if not session.is_resumable:
                    assert list(session.messages) == self.expected
                return await function(session, store)

        return trio.run(main, clock=MockClock(autojump_threshold=0))

    async def play(self, run: Awaitable[Outcome]) -> Outcome | None:
        """Run to the end, and check the way it ended. Gives the outcome of a run that has one."""
        self.provider.longest_prompt = self.provider.refused = 0
        try:
            return await run
        except PromptTooLongError:
            # Of what was refused, the prompt alone was the most: nothing else could make room for it.
            assert self.provider.longest_prompt * 3 > self.provider.window
        except ModelContextOverflowError:
            # Nothing but a summary that fails for the moment ends a run so, and it does so once.
            assert self.provider.summaries == "fails"
        return None

    def run_prompt(self, prompt: UserMessage, turns: list[Response]) -> Outcome | None:
        self.provider.turns = list(turns)

        async def run(session: StoredSession, store: OpenStore) -> Outcome | None:
            before = len(session.messages)
            run = self.agent().run(prompt, session=session, on_question="park")
            outcome = await self.counted(run, store)
            self.expected = list(session.messages)
            assert self.expected[before] == prompt
            return outcome

        found: Outcome | None = self.on_session(run)
        return found

    async def counted(self, run: Awaitable[Outcome], store: OpenStore, parked: Usage = Usage()) -> Outcome | None:
        """Play ``run``, and check that its usage is that of the provider, of its events and of its outcome."""
        self.provider.reported = Usage()
        info = await store.info(self.session)
        outcome = await self.play(run)
        records = await store.read(self.session, after=0 if info is None else info.records)
        events = [decode_event(record.data) for record in records if record.kind == "usage_reported"]
        reported = [event.usage for event in events if isinstance(event, UsageReported)]
        assert sum(reported, Usage()) == self.provider.reported
        if outcome is not None:
            assert outcome.usage == parked + self.provider.reported
        return outcome

    # ------------------------------------------------------------------------------ the rules

    @initialize(characters=st.sampled_from([1.5, 3.0, 4.0, 5.0]), window=st.integers(2_500, 12_000))
    def begin(self, characters: float, window: int) -> None:
        self.provider.characters_per_token = characters
        self.provider.window = self.said_window = window

    @rule(kind=KINDS, size=SIZES, answer=st.integers(1, 3_000))
    def says(self, kind: str, size: int, answer: int) -> None:
        self.run_prompt(UserMessage((Text(text_of(kind, size)),)), [says(text_of(kind, answer))])
        self.settle()

    @rule(pages=st.integers(1, 8))
    def sends_a_document(self, pages: int) -> None:
        self.run_prompt(UserMessage((Text("Read this."), document(pages))), [says("read")])
        self.settle()

    @rule(batches=st.lists(READS, min_size=1, max_size=4), answer=st.integers(1, 3_000))
    def reads(self, batches: list[list[tuple[str, int]]], answer: int) -> None:
        turns: list[Response] = []
        for batch in batches:
            response = calls("read", kind=batch[0][0], size=batch[0][1])
            for kind, size in batch[1:]:
                response += calls("read", kind=kind, size=size)
            turns.append(response)
        outcome = self.run_prompt(UserMessage((Text("Read."),)), [*turns, says(text_of("English", answer))])
        if self.provider.summaries != "fails":
            assert outcome is not None
            results = [message for message in outcome.messages if isinstance(message, ToolResult)]
            # What was read is in the journal, however little of it the model was shown.
            assert [result.text for result in results] == [
                text_of(kind, size) for batch in batches for kind, size in batch
            ]
        self.settle()

    @rule(pages=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def scans(self, pages: list[int]) -> None:
        response = calls("scan", pages=pages[0])
        for count in pages[1:]:
            response += calls("scan", pages=count)
        outcome = self.run_prompt(UserMessage((Text("Scan."),)), [response, says("scanned")])
        assert outcome is not None or self.provider.summaries == "fails"
        self.settle()

    @rule(batch=READS, in_child=st.booleans(), more=st.integers(1, 3))
    def parks_and_resumes(self, batch: list[tuple[str, int]], in_child: bool, more: int) -> None:
        reads = [calls("read", kind=kind, size=size) for kind, size in batch]
        inner = [*reads, calls("pay")]
        turns = [calls("child", prompt="go"), *inner] if in_child else inner
        outcome = self.run_prompt(UserMessage((Text("Pay."),)), turns)
        if outcome is None:
            self.settle()
            return
        assert outcome.reason == "needs_input"
        self.provider.turns = [
            *[calls("read", kind="English", size=500 * number) for number in range(more)],
            says("done"),
            *([says("done")] if in_child else []),
        ]
        parked = outcome.usage

        async def resume(session: StoredSession, store: OpenStore) -> None:
            answers = {question.id: Approve() for question in session.questions}
            await self.counted(self.agent().resume(session, answers), store, parked)
            self.expected = list(session.messages)

        self.on_session(resume)
        self.settle()

    @rule(window=st.integers(2_500, 12_000), said=st.sampled_from([0.7, 1.0, 1.3, 10.0]))
    def another_model(self, window: int, said: float) -> None:
        self.provider.window = window
        self.said_window = int(window * said)

    @rule(reports=st.booleans(), characters=st.sampled_from([1.5, 3.0, 4.0, 5.0]))
    def another_tokenizer(self, reports: bool, characters: float) -> None:
        self.provider.reports_usage, self.provider.characters_per_token = reports, characters

    @rule(how=st.sampled_from(["whole", "fails", "refuses", "is cut off", "is silent", "rambles", "calls"]))
    def another_summariser(self, how: str) -> None:
        self.provider.summaries = how

    @rule()
    def compacts(self) -> None:
        async def compact(session: StoredSession, store: OpenStore) -> None:
            if session.is_resumable:
                # A fork that ends in the middle of a run.
                return
            try:
                result = await session.compact(self.agent())
            except CompactionError:
                return
            assert result.tokens_after <= result.tokens_before
            assert self.provider.summaries in ("whole", "calls")

        self.on_session(compact)

    @rule(data=st.data())
    def rewinds(self, data: st.DataObject) -> None:
        cuts = [count for count in range(len(self.expected) + 1) if not problems(self.expected[:count])]
        cut = data.draw(st.sampled_from(cuts))

        async def rewind(session: StoredSession, store: OpenStore) -> None:
            await session.rewind(cut)

        self.on_session(rewind)
        del self.expected[cut:]

    @rule(data=st.data())
    def forks(self, data: st.DataObject) -> None:
        cuts = [count for count in range(len(self.expected) + 1) if not problems(self.expected[:count])]
        cut = data.draw(st.none() | st.sampled_from(cuts))

        async def main() -> str:
            async with self.store.open() as store:
                if not self.expected:
                    return self.session
                return await fork_session(store, self.session, messages=cut)

        self.session = trio.run(main, clock=MockClock(autojump_threshold=0))
        if cut is not None and self.expected:
            del self.expected[cut:]

    # --------------------------------------------------------------------------- the promises

    def settle(self) -> None:
        """Whatever came before, a short prompt is answered by then, at the second time at the latest."""
        outcome = self.run_prompt(UserMessage((Text("Are you there?"),)), [says("yes")])
        if outcome is None:
            # A summary that failed, for the moment or for good, does not stop the session the next time.
            assert self.provider.summaries == "fails"
            outcome = self.run_prompt(UserMessage((Text("Are you there?"),)), [says("yes")])
        assert outcome is not None
        assert outcome.output == "yes"


SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


def test_a_long_session_is_never_dead() -> None:
    run_state_machine_as_test(
        LongSessions, settings=settings(SETTINGS, max_examples=12, stateful_step_count=8, derandomize=True)
    )


@pytest.mark.nightly
def test_a_long_session_is_never_dead_in_many_programs() -> None:
    run_state_machine_as_test(LongSessions, settings=settings(SETTINGS, max_examples=150, stateful_step_count=25))
