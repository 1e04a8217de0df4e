"""Fifty bugs, written from reading the runtime and without a look at the checks of the harness.

Each is a change of a few words, as a contributor makes one in a refactoring: a file, the words before, and the words
after. ``python -m tests.testing.planted`` plants them one at a time in a copy.
"""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PLANTED", "Bug"]


class Bug(NamedTuple):
    """A bug, planted by replacing some words of one file."""

    name: str
    file: str
    """Below ``agentloop``."""
    before: str
    after: str
    tests: str
    """The tests of the area, below ``tests``."""


_LOOP, _LIFE, _RUN = "_runtime/loop.py", "_runtime/lifecycle.py", "_runtime/run.py"
_LOG, _CALLS, _MODEL = "_runtime/log.py", "_runtime/tool_calls.py", "_runtime/model_call.py"
_WRITER = "stores/_journal_writer.py"

PLANTED = (
    Bug(
        "steering is lost where its hook fails",
        _LOOP,
        "            run.mailbox.put_back_steering(messages)\n",
        "",
        "runtime/test_steering.py",
    ),
    Bug(
        "a failed turn ends as cancelled",
        _LOOP,
        '"failed" if isinstance(error, Exception) else "cancelled"',
        '"cancelled"',
        "runtime",
    ),
    Bug(
        "calls of a resumed turn count twice",
        _LOOP,
        "            if not is_counted:\n                run.meter",
        "            if True:\n                run.meter",
        "stores",
    ),
    Bug(
        "only the first of two limits is asked about",
        _LOOP,
        "            reached = self._run.meter.before_request()\n",
        "            reached = None\n",
        "runtime",
    ),
    Bug(
        "calls of unknown tools may repeat for ever",
        _LOOP,
        "if call.name not in tools or not tools[call.name].polling:",
        "if call.name in tools and not tools[call.name].polling:",
        "runtime",
    ),
    Bug(
        "a message in the last turn is not read",
        _LOOP,
        "        if run.mailbox.steering:\n            # The loop",
        "        if False:\n            # The loop",
        "runtime",
    ),
    Bug(
        "undelivered messages are not in the outcome",
        _LIFE,
        "    if undelivered:\n",
        "    if undelivered and outcome.reason == 'completed':\n",
        "runtime",
    ),
    Bug(
        "a run that is cancelled from around it failed",
        _LIFE,
        'run.stopped or trio.current_effective_deadline() == -float("inf")',
        "run.stopped",
        "runtime",
    ),
    Bug(
        "a time limit wins over a stop",
        _LIFE,
        "    if cancelled or (error is not None",
        "    if (cancelled and not run.deadline.expired) or (error is not None",
        "runtime",
    ),
    Bug(
        "no hook hears of a child that failed",
        _LIFE,
        '    if parent.hooks.at("subagent_stop"):',
        '    if outcome.error is None and parent.hooks.at("subagent_stop"):',
        "runtime",
    ),
    Bug(
        "a child that is resumed has the id of its first stream",
        _LIFE,
        "        transcript.streams = previous.openings\n",
        "",
        "stores",
    ),
    Bug(
        "a child that is reused has used nothing",
        _LIFE,
        "output=output, error=error, usage=state.usage,",
        "output=output, error=error,",
        "stores",
    ),
    Bug(
        "messages are added after the journal has failed",
        _RUN,
        "    run.log.check()\n    if run.redactor",
        "    if run.redactor",
        "stores",
    ),
    Bug(
        "the start of a call that may run again is not saved",
        _RUN,
        "if not (tool.read_only and tool.may_run_again):",
        "if not (tool.read_only or tool.may_run_again):",
        "stores",
    ),
    Bug(
        "a child keeps messages that were not saved",
        _RUN,
        "    lost = run.log.lost.get(run.transcript.id)\n    if lost is not None:",
        "    lost = run.log.lost.get(run.root.session.id)\n    if lost is not None and run.parent is None:",
        "stores",
    ),
    Bug(
        "tools of one name share their slots",
        _RUN,
        "        if tool not in self.semaphores:\n            self.semaphores[tool] = trio.Semaphore(concurrency)\n        return self.semaphores[tool]",
        "        names = {other.name: other for other in self.semaphores}\n        tool = names.get(tool.name, tool)\n        if tool not in self.semaphores:\n            self.semaphores[tool] = trio.Semaphore(concurrency)\n        return self.semaphores[tool]",
        "runtime",
    ),
    Bug(
        "a reader wakes posters by what it has, not by what waits",
        _LOG,
        "        if len(queue) + self.hidden == _HALF:",
        "        if len(queue) == 0:",
        "runtime",
    ),
    Bug(
        "after a failure of the journal, readers wait for events that are there",
        _LOG,
        "            for reader in writer.all_readers():\n                reader.hidden -= 1\n            if isinstance",
        "            if isinstance",
        "stores",
    ),
    Bug(
        "deltas behind a saved event wait for the next write",
        _LOG,
        "        while self._hidden and isinstance(unsaved[-self._hidden][0], _SHOWN_AT_ONCE):",
        "        while False:",
        "stores",
    ),
    Bug(
        "a slow store does not slow down the run",
        _LOG,
        "return self._hidden >= CAPACITY or len(self._unsaved) >= UNSAVED_EVENTS or",
        "return len(self._unsaved) >= UNSAVED_EVENTS or",
        "stores",
    ),
    Bug(
        "a reader that comes late does not count what is hidden",
        _LOG,
        "            reader.hidden += not isinstance(item, Note) and self in writer.lineage()",
        "            pass",
        "runtime",
    ),
    Bug(
        "the reader of a child does not see its error",
        _LOG,
        "reason=event.reason, detail=event.detail, error=event.error, usage=event.usage",
        "reason=event.reason, detail=event.detail, usage=event.usage",
        "runtime",
    ),
    Bug(
        "words that nobody reads are not saved",
        _LOG,
        "            writer = writer._parent\n        return self._log.is_journaled\n",
        "            writer = writer._parent\n        return False\n",
        "stores",
    ),
    Bug(
        "a call that ends early holds up the questions of later ones",
        _CALLS,
        "        finally:\n            self._settle(call)\n            if self._handoffs",
        "        finally:\n            if self._handoffs",
        "runtime",
    ),
    Bug(
        "a call that fails keeps its slot",
        _CALLS,
        "            run.end_turn(call.id)\n            semaphore.release()",
        "            run.end_turn(call.id)\n            if not trio.current_effective_deadline() == -float('inf'):\n                semaphore.release()",
        "runtime",
    ),
    Bug(
        "a stop is taken for the deadline of the calls",
        _CALLS,
        "if shared is None or not shared.cancel_called or since(shared.deadline) < 0:",
        "if shared is None:",
        "runtime",
    ),
    Bug(
        "a result that a hook replaces is always well",
        _CALLS,
        "verdict.result.parts, verdict.result.status)",
        "verdict.result.parts)",
        "runtime",
    ),
    Bug(
        "a tool begins after a stop that came while its start was saved",
        _CALLS,
        "        if run.log.is_journaled:\n            await trio.lowlevel.checkpoint_if_cancelled()\n",
        "",
        "stores",
    ),
    Bug(
        "an interrupted call is said not to have run",
        _CALLS,
        "interrupted_result(call, started=call.id in self._has_begun)",
        "interrupted_result(call, started=False)",
        "runtime",
    ),
    Bug(
        "a person's time counts for the call that asks",
        "_runtime/questions.py",
        "with (run.deadline if deadline is None else deadline).paused():",
        "with run.deadline.paused():",
        "runtime",
    ),
    Bug(
        "questions of children come in the order of the inside",
        "_runtime/questions.py",
        "tuple(reversed(position)), order",
        "tuple(position), order",
        "runtime",
    ),
    Bug(
        "a question waits for a reader that only waits",
        "_core/questions.py",
        "        self._has_reader = False\n        self._wake_all()",
        "        self._has_reader = False",
        "runtime",
    ),
    Bug(
        "questions of handlers are parked as well",
        "_core/questions.py",
        "[question for id, question in self._open.items() if id in self._deferred]",
        "[*self._open.values()]",
        "stores",
    ),
    Bug(
        "a toolset is cut off with the stream",
        "_runtime/toolset_task.py",
        "                    scope.shield = True\n",
        "",
        "runtime",
    ),
    Bug(
        "toolsets that clash from the start are a warning",
        "_runtime/toolsets.py",
        "        tools = await list_all(self._own, self._tasks, servings, on_clash=self._report if self._known else None)\n        self._known = True",
        "        self._known = True\n        tools = await list_all(self._own, self._tasks, servings, on_clash=self._report if self._known else None)",
        "runtime",
    ),
    Bug(
        "usage of a broken response counts twice",
        _MODEL,
        "        self._is_taken = True\n        return",
        "        return",
        "runtime",
    ),
    Bug(
        "a slow reader makes the model time out",
        _MODEL,
        "            self._scope.deadline = math.inf\n            await",
        "            await",
        "runtime",
    ),
    Bug(
        "many calls past a limit are asked about one by one",
        "_core/usage.py",
        "max(needed, reached.allowed) + step",
        "reached.allowed + step",
        "core runtime",
    ),
    Bug(
        "after a failed write the session in memory counts",
        _WRITER,
        "            self._is_stale, self._settings, self._log = True, SessionSettings(), None",
        "            self._settings, self._log = SessionSettings(), None",
        "stores",
    ),
    Bug(
        "a second answer from another process is accepted",
        _WRITER,
        "            if not await self._store.answer(self._session, id, msgspec.json.encode(saved)):\n                raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])",
        "            await self._store.answer(self._session, id, msgspec.json.encode(saved))",
        "stores",
    ),
    Bug(
        "a turn that is given up is not closed in the journal",
        _WRITER,
        "        await self._append(TurnAbandoned(closing))",
        "        await self._append(TurnAbandoned(()))",
        "stores",
    ),
    Bug(
        "one failure ends the renewal of a lease",
        _WRITER,
        "                if isinstance(error, LeaseLostError):\n",
        "                if isinstance(error, StoreError):\n",
        "stores",
    ),
    Bug(
        "a summary outlives the messages that it stood for",
        _WRITER,
        "        transcript.shown.rewind(messages)\n",
        "",
        "stores",
    ),
    Bug(
        "a run that was resumed twice is read from its last opening",
        "stores/_replay.py",
        "            if not started.resumes:\n                return index",
        "            return index",
        "stores",
    ),
    Bug(
        "a run is idle while its children work",
        "_core/state.py",
        "        if running:\n            return all(child.is_idle for child in running)\n        return self.waits > 0",
        "        return self.waits > 0 or (bool(running) and any(child.is_idle for child in running))",
        "core stores",
    ),
    Bug(
        "a child counts though the call came to it another way",
        "_core/state.py",
        "            child.after = tuple(\n                other.session for other in self.children if other.is_over and other.session in self._opened\n            )",
        "            child.after = ()",
        "core stores",
    ),
    Bug(
        "a hook allows a call whose arguments were replaced",
        "_runtime/approval.py",
        "                self._allowed_by = None\n                denied",
        "                denied",
        "runtime",
    ),
    Bug(
        "arguments that a person has revised are not used",
        "_runtime/approval.py",
        "                self.arguments = question.approved\n",
        "",
        "runtime",
    ),
    Bug(
        "one hook that hangs keeps the later ones from running",
        "_runtime/hooks.py",
        "        for hook in self.at(point):\n            # A scope each: a hook that hangs must not keep the next one from running.\n            scope = trio.move_on_after(self._deadlines.cleanup, shield=True)\n",
        "        scope = trio.move_on_after(self._deadlines.cleanup, shield=True)\n        for hook in self.at(point):\n            if scope.cancel_called:\n                return\n            scope = trio.move_on_after(self._deadlines.cleanup, shield=True)\n",
        "runtime",
    ),
    Bug(
        "a hook of its agent alone is called for children too",
        "_runtime/hooks.py",
        "if hook.children and not any(",
        "if not any(",
        "runtime",
    ),
)
