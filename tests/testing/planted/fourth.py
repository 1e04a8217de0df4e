"""Twenty bugs of a fourth set, written after the checks that the third set led to, and by the same rules."""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from tests.testing.planted.table import Bug

__all__ = ["FOURTH"]

FOURTH = (
    Bug(
        "a few long results are left out where half of the room would not be free",
        "_core/context_window.py",
        "if long and not overflow and used - sum(long.values()) < room // 2:",
        "if long and not overflow and used - sum(long.values()) < room:",
        "runtime/test_compaction.py runtime/test_context_window.py",
    ),
    Bug(
        "a long result that is stored again takes its room twice",
        "_core/context_window.py",
        'self._size += len(text) - len(texts.pop(call_id, ""))',
        'texts.pop(call_id, "")\n        self._size += len(text)',
        "runtime/test_long_results.py",
    ),
    Bug(
        "an approval for good may be for all tools",
        "_core/questions.py",
        '    elif always.tool != call.tool:\n        problem = f"always={always}: it is for other tools than {call.tool!r}"\n',
        "",
        "core/test_questions.py runtime/test_approvals.py core/test_permissions.py",
    ),
    Bug(
        "an empty response that was paused is committed",
        "_core/response.py",
        'return Proceed((message,) if message.parts else (), "continued")',
        'return Proceed((message,), "continued")',
        "core/test_turn.py runtime/test_responses.py",
    ),
    Bug(
        "a model is asked once more than the attempts allow",
        "_core/retries.py",
        "again = found.same and asked < self._retries.attempts and delay is not None",
        "again = found.same and asked <= self._retries.attempts and delay is not None",
        "core/test_retries.py runtime/test_retries.py",
    ),
    Bug(
        "an approval that was withdrawn is not asked anew",
        "_core/state.py",
        "if record.answer is not None or isinstance(record.question, ApprovalRequested):",
        "if record.answer is not None:",
        "core/test_state.py stores/test_parking.py",
    ),
    Bug(
        "a parked call whose tool has begun again still counts as parked",
        "_core/state.py",
        "call.started, call.parked = True, False",
        "call.started = True",
        "core/test_state.py stores/test_interrupted.py stores/test_parking.py",
    ),
    Bug(
        "a tag in a valid output is taken for thoughts",
        "_core/structured_output.py",
        "    if _flaw(text) is None:\n        # A tag in an answer is part of the answer.\n        return text\n",
        "",
        "runtime/test_structured_output.py",
    ),
    Bug(
        "a refused response is not part of the transcript",
        "_runtime/loop.py",
        "            if message.parts:\n                commit(run, close_turn(message, {}, ()))\n            raise",
        "            raise",
        "runtime/test_responses.py runtime/test_ways_out.py",
    ),
    Bug(
        "the usage of a message has no cost",
        "_runtime/model_call.py",
        "    usage = _priced(run, usage, name, name if message is None else message.model)\n    retry.counted = usage\n",
        "    retry.counted = usage\n    usage = _priced(run, usage, name, name if message is None else message.model)\n",
        "runtime/test_usage.py runtime/test_limits.py runtime/test_usage_adds_up.py",
    ),
    Bug(
        "posters that wait for the store are not woken when it has saved",
        "_runtime/log.py",
        "        if self._saved is not None:\n            self._saved.unpark_all()\n        self.make_room()\n\n    def fail",
        "        if self._saved is not None:\n            self._saved.unpark_all()\n\n    def fail",
        "stores/test_slow_store.py",
    ),
    Bug(
        "a call of a thread that began before the resumed run is said not to have run",
        "_runtime/tool_calls.py",
        "                if context.call_id not in self._had_begun:\n                    self._has_begun.pop(context.call_id, None)",
        "                self._has_begun.pop(context.call_id, None)",
        "runtime/test_tools.py stores/test_interrupted.py",
    ),
    Bug(
        "the hooks at the end of a cancelled run are cancelled",
        "_runtime/hooks.py",
        "scope = trio.move_on_after(self._deadlines.cleanup, shield=True)",
        "scope = trio.move_on_after(self._deadlines.cleanup)",
        "runtime/test_hooks.py runtime/test_ways_out.py",
    ),
    Bug(
        "a server that takes a name later ends the run",
        "_runtime/toolsets.py",
        "        self._known = True\n        for task",
        "        for task",
        "runtime/test_toolsets.py",
    ),
    Bug(
        "revised arguments pass the hooks of other tools",
        "_runtime/approval.py",
        "            if not hook.concerns(self._tool.name):\n                continue\n            try:",
        "            try:",
        "runtime/test_approvals.py runtime/test_hooks.py",
    ),
    Bug(
        "ids of calls that a rewind has removed are given out again when the session is opened",
        "stores/_journal_writer.py",
        "        transcript.take_ids(loaded.state.removed)\n",
        "",
        "stores/test_branches.py stores/test_stored_session.py",
    ),
    Bug(
        "a follower asks who runs the session after it has read the store",
        "stores/_follow.py",
        "            info, begun = await self._info(), self._begun()\n            records = await self._store.read(self._session, after=self._place, limit=PAGE)\n",
        "            records = await self._store.read(self._session, after=self._place, limit=PAGE)\n            info, begun = await self._info(), self._begun()\n",
        "stores/test_follow.py stores/test_every_session.py",
    ),
    Bug(
        "tokens of leases begin anew after a release",
        "stores/_leases.py",
        "token = 1 if state is None else state.token + 1",
        "token = 1 if state is None or not state.holder else state.token + 1",
        "stores/test_leases.py stores/test_every_store.py",
    ),
    Bug(
        "only one broken turn of a truncated file is left out",
        "stores/jsonl.py",
        "    while refused and not whole_only:",
        "    if refused and not whole_only:",
        "stores/test_jsonl.py",
    ),
    Bug(
        "the permissions of a reopened session replace those of its block",
        "stores/_journal_writer.py",
        "if not self._has_settings and transcript.permissions is None:",
        "if not self._has_settings:",
        "stores/test_stored_session.py",
    ),
)
