"""A recorded run: what a scenario shows of itself, line by line.

The trace of a scenario without a fault says what went over each boundary of the runtime, in order: the requests that
models get, the events, what hooks and tools are called with and return, each call of the store with its records, the
outcomes, and the virtual time. Compared with the trace that was recorded before, it shows each change of behaviour,
whatever the change is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import trio

from agentloop._core.json_text import decode_json
from agentloop._runtime.hooks import Hooks
from agentloop._runtime.log import EventLog, EventWriter
from agentloop._runtime.model_call import ModelCall
from agentloop._runtime.run import Run
from agentloop._runtime.stream import Stream
from agentloop.context import ToolContext
from agentloop.events import OutputDelta, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, ToolCallOutput
from agentloop.journal import Record, SessionInfo
from agentloop.messages import Message
from agentloop.models import ModelRequest, ModelSettings
from agentloop.stores import memory
from agentloop.testing._patched import patched
from agentloop.testing._shown import shown, shown_error, shown_event
from agentloop.wire import EVENT_TYPES, decode_event

__all__ = ["Trace"]

_PIECES = (TextDelta, ReasoningDelta, ToolCallDelta, ToolCallOutput)
_NOTHING: tuple[object, ...] = (None, (), "", [], {}, ModelSettings())
_PROCESS = re.compile(r"process \d+ on [^\s\"]+")
"""The name of a holder of a lease, which is another one in each process."""
_LAST = 3
"""Events at the end of a stream that its line under a fault names."""
_STORE = ("answer", "answers", "acquire", "renew", "release", "info", "sessions", "fork", "rename", "delete")
_LOGGER = logging.getLogger("agentloop")


class _Lines(logging.Handler):
    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        raised = "" if record.exc_info is None or record.exc_info[1] is None else shown_error(record.exc_info[1])
        # A log that is redacted has the traceback in its words, whose files and lines are those of this checkout.
        words = record.getMessage().partition("\nTraceback (most recent call last):")[0]
        self._trace.add(f"log {record.name} {record.levelname} {shown(words)} {raised}".rstrip())


class Trace:
    """The trace of one run of a scenario.

    Attributes:
      lines: what happened so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._now = 0.0
        self._seq: dict[int, int] = {}
        """The number of the last event, by log."""
        self._piece: tuple[object, ...] = ()
        """The text that the last line has a piece of."""
        self._requests: dict[int, ModelRequest] = {}
        """The last request of each transcript."""
        self._last: ModelRequest | None = None
        self._appended: dict[tuple[str, int], StreamEvent] = {}
        """Events by their root session and number."""
        self._read: dict[Run, list[tuple[float, list[int]]]] = {}
        self._runs: list[Run] = []
        self._shown: set[str] = set()
        """The messages that a line has in full. Later ones have their beginning and a checksum."""
        self._kinds: dict[str, list[str]] = {}
        """The names of the last events of each stream, without pieces of text."""
        self._keep: list[object] = []
        """Objects whose identity is a key: no other object may get it."""

    def add(self, line: str) -> None:
        """Add a line, after one for the virtual time if that has changed."""
        try:
            now = trio.current_time()
        except RuntimeError:
            now = self._now
        if round(now - self._now, 6):
            self._now = now
            self.lines.append(f"@ {now:.6g}")
        self._piece = ()
        self.lines.append(_PROCESS.sub("process N", line))

    def call(self, name: str, context: ToolContext[Any], arguments: object) -> None:
        """A fake tool is called."""
        key = context.idempotency_key
        self.add(f"tool {name} {context.call_id} {key} {shown(arguments)} {_depth(context.source.stream)}".rstrip())

    def result(self, context: ToolContext[Any], result: object) -> None:
        """A fake tool has returned, or raised."""
        self.add(f"tool {context.call_id} gives {shown(result)}")

    def asked(self, name: str, request: ModelRequest) -> None:
        """A fake model got a request."""
        self.add(f"model {name} is asked{'' if request is self._last else ' ' + shown(request)}")

    # ------------------------------------------------------------------------- what is patched

    @contextmanager
    def on(self) -> Generator[None]:
        """Record what happens in the block."""
        handler = _Lines(self)
        _LOGGER.addHandler(handler)
        try:
            with self._events(), self._models(), self._hooks(), self._store():
                yield
        finally:
            _LOGGER.removeHandler(handler)

    @contextmanager
    def _events(self) -> Generator[None]:
        real_append, real_next = EventLog.append, Stream.__anext__

        def append(log: EventLog, event: Any, writer: EventWriter) -> None:
            self._event(log, event)
            real_append(log, event, writer)

        async def anext_(stream: Stream) -> StreamEvent:
            try:
                event = await real_next(stream)
            except BaseException as error:
                self._ended_reading(stream._run, error)
                raise
            self._was_read(stream._run, event)
            return event

        with patched(EventLog, "append", append), patched(Stream, "__anext__", anext_):
            yield

    def _event(self, log: EventLog, event: Any) -> None:
        if id(log) not in self._seq:
            self._keep.append(log)
        last = self._seq.get(id(log), 0)
        self._seq[id(log)] = event.seq
        self._appended[event.source.stream.partition("/")[0], event.seq] = event
        stream = _depth(event.source.stream)
        if not isinstance(event, _PIECES):
            kinds = self._kinds.setdefault(event.source.stream, [])
            kinds[:] = [*kinds[1 - _LAST :], type(event).__name__]
        if isinstance(event, _PIECES) and event.seq == last + 1:
            kind = (type(event), stream, getattr(event, "call_id", ""), getattr(event, "name", ""))
            text = event.arguments if isinstance(event, ToolCallDelta) else event.text
            if self._piece == kind and len(self.lines[-1]) < 200:
                self.lines[-1] += f"|{shown(text)[1:-1]}"
                return
            self.add(f"{stream}{type(event).__name__} {' '.join([*map(str, kind[2:]), ''])}{shown(text)[1:-1]}")
            self._piece = kind
            return
        jump = "" if event.seq == last + 1 else f"#{event.seq} "
        line = shown_event(event, self._message)
        if type(event).__name__ in ("StreamStarted", "ChildStreamStarted"):
            line += f" source={shown(event.source)}"
        self.add(f"{stream}{jump}{line}")

    def _was_read(self, run: Run, event: StreamEvent) -> None:
        rows = self._read.setdefault(run, [])
        now = trio.current_time()
        if not rows or rows[-1][0] != now:
            rows.append((now, []))
        rows[-1][1].append(event.seq)

    def _ended_reading(self, run: Run, error: BaseException) -> None:
        if not isinstance(error, (StopAsyncIteration, trio.Cancelled)):
            self.add(f"the reader of {run.source.stream} gets {shown_error(error)}")

    @contextmanager
    def _models(self) -> Generator[None]:
        real, real_init = ModelCall.respond, Run.__init__

        async def respond(call: ModelCall, request: ModelRequest) -> Any:
            self._request(call._run, request)
            return await real(call, request)

        def init(run: Run, **options: Any) -> None:
            real_init(run, **options)
            self._runs.append(run)

        with patched(ModelCall, "respond", respond), patched(Run, "__init__", init):
            yield

    def _request(self, run: Run, request: ModelRequest) -> None:
        key = id(run.transcript)
        self._keep += [run, run.transcript]
        before = self._requests.get(key)
        self._requests[key] = self._last = request
        fields = {name: getattr(request, name) for name in request.__struct_fields__}
        words: list[str] = []
        messages = fields.pop("messages")
        same = 0
        if before is not None:
            while same < min(len(before.messages), len(messages)) and before.messages[same] == messages[same]:
                same += 1
            if same < len(before.messages):
                words.append(f"without {len(before.messages) - same}")
            fields = {name: value for name, value in fields.items() if value != getattr(before, name)}
        else:
            fields = {name: value for name, value in fields.items() if value not in _NOTHING}
        tools = fields.pop("tools", ())
        if tools:
            words.append(" ".join(["tools", *(f"{tool.name}:{_checksum(tool)}" for tool in tools)]))
        words += [f"{name}={shown(value)}" for name, value in fields.items()]
        self.add(f"request of {run.source.stream} {same}+{len(messages) - same} {' '.join(words)}".rstrip())
        for message in messages[same:]:
            self.add(f"  {self._message(message)}")

    def _message(self, message: Message) -> str:
        text = shown(message)
        if text not in self._shown:
            self._shown.add(text)
            return text
        return text if len(text) < 40 else f"{text[:24]}^{crc32(text.encode()):08x}"

    @contextmanager
    def _hooks(self) -> Generator[None]:
        real = Hooks.ask

        async def ask(hooks: Hooks, hook: Any, value: Any) -> Any:
            self.add(f"hook {hook.point} {hook.name} {self._hook_input(value)}")
            try:
                verdict = await real(hooks, hook, value)
            except BaseException as error:
                self.add(f"hook {hook.point} raises {type(error).__name__}")
                raise
            if verdict is not None:
                self.add(f"hook {hook.point} says {shown(verdict)}")
            return verdict

        with patched(Hooks, "ask", ask):
            yield

    def _hook_input(self, value: Any) -> str:
        words = [_depth(value.source.stream).rstrip()] if hasattr(value, "source") else []
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if name == "source" or item in (None, "", ()):
                continue
            if name in ("request", "messages", "transcript"):
                # The events and the request say what they have: here, that they are the same.
                words.append(f"{name}:{_checksum(item)}")
                continue
            words.append(f"{name}={shown(item)}")
        return " ".join(words)

    @contextmanager
    def _store(self) -> Generator[None]:
        kind: Any = memory._OpenMemory
        real_append, real_read = kind.append, kind.read

        async def append(store: Any, session: str, records: Any, /, **options: Any) -> None:
            records = list(records)
            try:
                await real_append(store, session, records, **options)
            except BaseException as error:
                self.add(f"append {session} raises {shown_error(error)}")
                raise
            self._records(session, records, options)

        async def read(store: Any, session: str, /, **options: Any) -> Any:
            found = await real_read(store, session, **options)
            ranges = _ranges([record.seq for record in found])
            self.add(f"read {session} {_options(options)} gives {ranges}")
            return found

        with patched(kind, "append", append), patched(kind, "read", read):
            yield from self._methods(kind, list(_STORE))

    def _methods(self, kind: Any, names: list[str]) -> Generator[None]:
        if not names:
            yield
            return
        name = names.pop()
        with patched(kind, name, self._method(name, getattr(kind, name))):
            yield from self._methods(kind, names)

    def _method(self, name: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def method(store: Any, *args: Any, **options: Any) -> Any:
            line = f"store {name} {' '.join([*map(shown, args), _options(options)])}".rstrip()
            try:
                result = await real(store, *args, **options)
            except BaseException as error:
                self.add(f"{line} raises {shown_error(error)}")
                raise
            if isinstance(result, SessionInfo):
                line += f" gives {result.records} records {result.state} {shown(result.holder)}"
            else:
                line += f" gives {shown(result)}"
            self.add(line)
            return result

        return method

    def _records(self, session: str, records: list[Record], options: dict[str, Any]) -> None:
        lease = options.pop("lease", None)
        token = "" if lease is None else f" by {lease.token}"
        first = records[0].seq if records else 0
        self.add(f"append {session} from {first}{token} {_options(options)}".rstrip())
        events: list[str] = []
        for record in records:
            label = self._record(session, record)
            if label.isdigit():
                events.append(label)
                continue
            if events:
                self.add(f"  events {_ranges([int(seq) for seq in events])}")
                events = []
            self.add(f"  {label}")
        if events:
            self.add(f"  events {_ranges([int(seq) for seq in events])}")

    def _record(self, session: str, record: Record) -> str:
        """The number of an event that is saved as it was emitted; otherwise the whole record."""
        if record.kind in EVENT_TYPES:
            event: Any = decode_event(record.data)
            emitted = self._appended.get((session, event.seq))
            if emitted == event and not isinstance(event, OutputDelta) and record.stream == event.source.stream:
                if getattr(event, "call_id", record.key) == record.key:
                    return str(event.seq)
                return f"{event.seq} key={record.key}"
        fields = {name: getattr(record, name) for name in ("stream", "key") if getattr(record, name)}
        values: Any = decode_json(record.data)
        if record.kind in EVENT_TYPES:
            del values["source"]
        data = shown(values)
        return f"{record.kind} {_options(fields)} {data}"

    # ------------------------------------------------------------------------- at the end

    def close(self) -> list[str]:
        """All lines, and then how each stream ended, and what its readers got when."""
        for run in self._runs:
            outcome: Any = run.outcome
            if outcome is None:
                self.lines.append(f"{run.source.stream} has no outcome")
                continue
            fields = {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name != "messages"}
            said = {name: item for name, item in fields.items() if item not in (None, "", ())}
            counts = f"{run.meter.requests} requests, {run.meter.tool_calls} calls, {run.meter.turns} turns"
            last = f"{len(outcome.messages)} messages {_checksum(outcome.messages)}"
            self.lines.append(f"{run.source.stream} ends {_options(said)}; {counts}; {last}; cost {outcome.cost}")
            for now, numbers in self._read.get(run, []):
                self.lines.append(f"  read at {now:.6g}: {_ranges(numbers)}")
        return self.lines

    def brief(self) -> str:
        """One line: how each stream ended, with its last events, and a checksum of the whole trace."""
        whole = crc32("\n".join(self.close()).encode("utf-8", "surrogatepass"))
        return "; ".join([*map(self._end_of, self._runs), f"{whole:08x}"])

    def _end_of(self, run: Run) -> str:
        outcome: Any = run.outcome
        stream = run.source.stream
        kinds = " ".join(self._kinds.get(stream, []))
        if outcome is None:
            return f"{stream} has no outcome {kinds}".rstrip()
        error = "" if outcome.error is None else f" {type(outcome.error).__name__}"
        return f"{stream} {outcome.reason}{error} {run.meter.requests}/{run.meter.tool_calls} {kinds}".rstrip()


def _depth(stream: str) -> str:
    """The place of a child stream below its root, and a space; nothing for the root."""
    root = stream.rpartition("/")[2]
    _, _, rest = root.partition(".")
    return f"{rest}> " if rest else ""


def _options(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={shown(value)}" for name, value in options.items() if value != "")


def _checksum(value: object) -> str:
    return f"{crc32(shown(value).encode()):08x}"


def _ranges(numbers: list[int]) -> str:
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ",".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else f"{group[0]}" for group in groups) or "nothing"
