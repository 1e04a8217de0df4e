"""Fifty bugs of a seventh set, written from reading the runtime, and before any of them was run.

Its author had read `agentloop` and its design, and neither the harness nor the tests; of the earlier sets, the first.
19 of the bugs that came to mind first were in sets before (by a comparison of their lines), and gave way to others; no
bug is one of those sets. The comment on each says what a user sees.
"""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from tests.testing.planted.table import Bug

__all__ = ["SEVENTH"]

_STATE, _LOOP, _LIFE, _RUN = "_core/state.py", "_runtime/loop.py", "_runtime/lifecycle.py", "_runtime/run.py"
_LOG, _CALLS, _MODEL = "_runtime/log.py", "_runtime/tool_calls.py", "_runtime/model_call.py"
_CONTEXT, _APPROVAL, _BACKGROUND = "_runtime/tool_context.py", "_runtime/approval.py", "_runtime/background.py"
_QUESTIONS, _WINDOW, _WRITER = "_core/questions.py", "_core/context_window.py", "stores/_journal_writer.py"

SEVENTH = (
    # ------------------------------------------------------------------------------------------ state
    # A run is paused, and parked: the resumed stream says that it is paused, cannot be paused, and resume() breaks.
    Bug(
        "a run that was parked in a pause is paused when it is resumed",
        _STATE,
        "        self.waits_for_background = False\n        self.is_paused = False\n        if self._questions",
        "        self.waits_for_background = False\n        if self._questions",
        "runtime/test_pause.py",
    ),
    # A background run has ended, unreported, while a call asks a person: the run hangs in the place of being parked.
    Bug(
        "a background run that has ended keeps its run from being parked",
        _STATE,
        "all(child.is_idle for child in self.background.values() if child.is_running)",
        "all(child.is_idle for child in self.background.values())",
        "runtime/test_background.py",
    ),
    # A run is parked in its second turn of two, and resumed: Limits(requests=3) leaves no request for the third.
    Bug(
        "a turn that is resumed counts as one more request",
        _STATE,
        "        if event.turn > self.turn:\n            # A turn that is resumed has its response already.\n            self._count_request(event)\n            if self._questions",
        "        self._count_request(event)\n        if event.turn > self.turn:\n            if self._questions",
        "runtime/test_limits.py stores/test_parking.py",
    ),
    # A process dies while a person is asked whether to retry a call: the next one makes the call again, unasked.
    Bug(
        "a call that may have run is made again where the process died as it asked about that",
        _STATE,
        "                call.parked = any(record.is_open for record in call.questions.records)",
        "                call.parked = any(record.is_open for record in call.all_questions)",
        "stores/test_in_doubt.py stores/test_interrupted.py stores/test_killed_runs.py",
    ),
    # -------------------------------------------------------------------------------------------- log
    # An observer that is woken for some kinds only (a tracer), on a session with a journal: it sees nothing until the end.
    Bug(
        "with a journal, an observer that waits for some kinds is not woken for them",
        _LOG,
        "        writer.deliver(item, was_hidden=1)\n        if self.patient:\n            self.wake_patient(item.__class__)\n",
        "        writer.deliver(item, was_hidden=1)\n",
        "runtime/test_observers.py",
    ),
    # The store fails: the numbers of the events after that have a gap, and a client takes it that some were lost.
    Bug(
        "the numbers of events have a gap where the store has failed",
        _LOG,
        "        self.seq -= len(events)\n",
        "",
        "stores/test_stored_session.py",
    ),
    # A run with a time limit is paused for longer than that: it ends at its limit when it goes on, or before.
    Bug(
        "the time limit of a run goes on while it is paused",
        "_runtime/pauses.py",
        "    with (run.deadline if deadline is None else deadline).paused(), run.state.waiting(call_id), questions.holding():",
        "    with run.state.waiting(call_id), questions.holding():",
        "runtime/test_pause.py",
    ),
    # ------------------------------------------------------------------------------------- model call
    # A server sends signs of life for ever, and no word: the run hangs.
    Bug(
        "a model that only says that it lives is never given up",
        _MODEL,
        "        self._scope.deadline = min(now() + self._patience, self._give_up_at)",
        "        self._scope.deadline = now() + self._patience",
        "runtime/test_deadlines.py runtime/test_requests.py",
    ),
    # Limits(requests=2) and a model that fails now and then: more requests go out than the limit says.
    Bug(
        "retries of a request do not count against the limit of requests",
        _MODEL,
        "            # At once, and not after the delay: meanwhile, children side by side would all pass the limit.\n            run.meter.count_retry()\n",
        "",
        "runtime/test_retries.py runtime/test_limits.py",
    ),
    # A stream is stopped while the conversation is summed up: half of the summary is a response in the session.
    Bug(
        "a summary that is cut off becomes a message of the conversation",
        _MODEL,
        '        if cut_off is not None and retry.purpose == "turn":',
        "        if cut_off is not None:",
        "runtime/test_compaction.py runtime/test_compact.py",
    ),
    # -------------------------------------------------------------------------------- context window
    # Handoff(history=function), and a long conversation after it: the summary is never shown, and what it sums up is lost.
    Bug(
        "a summary after a handoff is not shown",
        _WINDOW,
        "        self.failures = 0\n        if self.cut is not None:\n            self.cut = msgspec.structs.replace(self.cut, messages=())\n",
        "        self.failures = 0\n",
        "runtime/test_handoffs.py runtime/test_compaction.py",
    ),
    # Handoff(history="last") from an agent with context sources: the next agent reads a note, and not the prompt.
    Bug(
        "the next agent begins with what the program told, and not with the prompt",
        _WINDOW,
        "            if isinstance(message, UserMessage) and message.is_prompt:",
        "            if isinstance(message, UserMessage):",
        "runtime/test_handoffs.py runtime/test_context_sources.py",
    ),
    # A summary fails once: for the rest of the run, a request that is too long is never summed up again.
    Bug(
        "a summary that failed for one request is not tried for the next",
        "_runtime/context_window.py",
        "        self._overflows, self._has_failed = 0, False\n",
        "        self._overflows = 0\n",
        "runtime/test_compaction.py",
    ),
    # -------------------------------------------------------------------------------------- lifecycle
    # A run that redacts is resumed, and its child had a secret in its prompt: the child is run once more, from the start.
    Bug(
        "a child whose prompt has a secret is not found when it is resumed",
        _LIFE,
        "    if redactor is not None:\n        # Before the previous child is looked for: the journal has its prompt with placeholders.\n        message = redactor.value(message)\n",
        "",
        "runtime/test_redaction.py",
    ),
    # session.steer() between two runs: each run from then on reads the message once more.
    Bug(
        "messages that wait for the next run stay for the runs after it",
        _LIFE,
        "                run.mailbox.steering, transcript.waiting = transcript.waiting, ()",
        "                run.mailbox.steering = transcript.waiting",
        "runtime/test_sessions.py runtime/test_steering.py runtime/test_session_facts.py",
    ),
    # session.choice has an effort, and run(settings=) another one: the run thinks as the session says.
    Bug(
        "the choice of the session comes before the settings of the run",
        _LIFE,
        "settings = chosen if settings is None else merged_settings(chosen, settings)",
        "settings = chosen if settings is None else merged_settings(settings, chosen)",
        "runtime/test_choosing_models.py",
    ),
    # --------------------------------------------------------------------------------------- approval
    # A person has approved all that is safe for good: a hook that asks about a reading tool is overruled.
    Bug(
        "a level that was approved for good counts where a hook asks",
        _APPROVAL,
        "        await self.assess()\n        if self._is_asked_about:\n            return\n",
        "        await self.assess()\n",
        "runtime/test_safety.py runtime/test_approvals.py",
    ),
    # A hook replaces harmless arguments by dangerous ones: requires_approval is not asked about these, and the tool runs.
    Bug(
        "what the tool said of the first arguments holds for those of a hook",
        _APPROVAL,
        "                self._tool_requires = None\n",
        "",
        "runtime/test_approvals.py runtime/test_hooks.py",
    ),
    # ------------------------------------------------------------------------------------------- loop
    # A call waits for a person while its tool is withdrawn: the resumed call is one of an unknown tool.
    Bug(
        "a parked call is lost if its tool is not offered any more",
        _LOOP,
        "            if self._has_offers:\n                self._tools = {**self._tools, **self._tools_in_use()}\n",
        "",
        "runtime/test_dynamic_agents.py",
    ),
    # A summary takes the place of what the program told: the request after it lacks the facts.
    Bug(
        "what a summary has replaced is told a turn late",
        _LOOP,
        "        if context is not None:\n            # A summary may have taken the place of what was told.\n            context.tell()\n",
        "",
        "runtime/test_context_sources.py",
    ),
    # Two background runs, the first is reported: the model's next request waits for the end of the second.
    Bug(
        "after one wait for background runs, each turn waits for one",
        _LOOP,
        "                await self._run.background.report(wait=self._is_done)\n                self._is_done = False\n",
        "                await self._run.background.report(wait=self._is_done)\n",
        "runtime/test_background.py",
    ),
    # -------------------------------------------------------------------------------------------- run
    # A resumed run is stopped before its calls begin: in the same process, the session has nothing to resume.
    Bug(
        "a turn that a stopped run left open is forgotten by its process",
        _RUN,
        "    if journal is not None and (run.root.questions.is_parked or leaves_turn_open):",
        "    if journal is not None and run.root.questions.is_parked:",
        "stores/test_interrupted.py stores/test_parking.py",
    ),
    # An agent with a judge has another agent as a tool: each call of that one is denied, since no run asks the judge.
    Bug(
        "a judge cannot ask about the calls of child runs",
        _RUN,
        "        if any(hook.asks for hook in config.hooks) or (around is not None and around.asks):",
        "        if any(hook.asks for hook in config.hooks):",
        "runtime/test_judges.py",
    ),
    # --------------------------------------------------------------------------------------- response
    # Calls are cut off at the limit of tokens again and again, and a context source tells the time: the run never ends.
    Bug(
        "what the program tells hides that responses are cut off in a row",
        "_core/response.py",
        "        elif not isinstance(earlier, ToolResult) and not _is_context(earlier):",
        "        elif not isinstance(earlier, ToolResult):",
        "core/test_turn.py runtime/test_context_sources.py",
    ),
    # -------------------------------------------------------------------------------------- redaction
    # Another process resumes a run that has named a secret in its open turn: the next secret gets the same placeholder.
    Bug(
        "a placeholder of the open turn is given to another secret",
        "_runtime/redaction.py",
        "    for part in (*earlier, *_parts_of(state)):",
        "    for part in earlier:",
        "runtime/test_redaction.py",
    ),
    # ----------------------------------------------------------------------------------- tool context
    # A tool of a run that redacts prints "done" without a new line: no reader ever sees it.
    Bug(
        "the last words of a tool are lost where secrets are redacted",
        _CONTEXT,
        "        if self._held is not None and (rest := self._held.flush()):\n            self._run.emit(ToolCallOutput, call_id=self._call_id, text=rest)\n",
        "",
        "runtime/test_redaction.py",
    ),
    # A tool waits for a background run that asks a person: the run is never parked, and hangs.
    Bug(
        "a tool that waits for a background run counts as working",
        _CONTEXT,
        "        with self._use() as run, run.state.waiting(self._call_id):\n            run.root.questions.notify()\n            if _is_inside(",
        "        with self._use() as run:\n            if _is_inside(",
        "runtime/test_background.py",
    ),
    # ------------------------------------------------------------------------------------- tool calls
    # A run is paused for longer than the deadline of a tool: each call times out when the run goes on.
    Bug(
        "the time of a pause counts for the tool that begins after it",
        _CALLS,
        "        if run.root.pauses is not None and await hold(run, call.id, self._shared_deadline_as_pausable()):\n            began = None\n",
        "        if run.root.pauses is not None:\n            await hold(run, call.id, self._shared_deadline_as_pausable())\n",
        "runtime/test_pause.py",
    ),
    # A session is opened in another process: the model cannot read the rest of a long result.
    Bug(
        "the rest of a long result is not saved",
        _CALLS,
        "            record_long_result(run, call.id)\n",
        "",
        "runtime/test_long_results.py",
    ),
    # ----------------------------------------------------------------------------------------- stream
    # A program reads each event with a timeout of its own: after the first timeout, the stream cannot be read any more.
    Bug(
        "a stream whose reader was cancelled once counts as read by another task",
        "_runtime/stream.py",
        "            try:\n                await self._run.events.wait_until_ready()\n            finally:\n                self._is_waiting = False\n",
        "            await self._run.events.wait_until_ready()\n            self._is_waiting = False\n",
        "runtime/test_stream.py runtime/test_backpressure.py",
    ),
    # --------------------------------------------------------------------------------------- toolsets
    # A server has a tool that cannot be offered: the warning about it comes once more in each turn.
    Bug(
        "a problem of a toolset is reported in each turn",
        "_runtime/toolsets.py",
        "            self._reported |= {problem}\n",
        "",
        "runtime/test_toolsets.py",
    ),
    # ------------------------------------------------------------------------------------- background
    # A person steers a run that waits for its background runs: the model reads it when one of those has ended.
    Bug(
        "a message does not wake a run that waits for background runs",
        _BACKGROUND,
        "            while not (run.mailbox.steering or any(started.ended.is_set() for started in self.started.values())):",
        "            while not any(started.ended.is_set() for started in self.started.values()):",
        "runtime/test_background.py",
    ),
    # A tool starts two background runs of one agent with one prompt, and is resumed: it gets the first one twice.
    Bug(
        "a call that is made again gets one background run twice",
        _BACKGROUND,
        "            started.is_taken = True\n            await trio.lowlevel.checkpoint()\n",
        "            await trio.lowlevel.checkpoint()\n",
        "runtime/test_background.py",
    ),
    # --------------------------------------------------------------------------------------- handoffs
    # An agent with deferred tools hands off: the next agent is shown find_tools, with a list of tools that it lacks.
    Bug(
        "an agent that gets the conversation finds the deferred tools of the one before",
        "_runtime/handoffs.py",
        "    run.chain = run.reader = run.deferred = run.offered = run.response = run.partial = None",
        "    run.chain = run.reader = run.offered = run.response = run.partial = None",
        "runtime/test_handoffs.py runtime/test_deferred.py",
    ),
    # --------------------------------------------------------------------------------------- deferred
    # A deferred tool is not offered in this turn: find_tools loads it all the same, and a call of it fails.
    Bug(
        "a search finds tools that are not offered",
        "_runtime/deferred.py",
        "        specs = [spec for name, spec in self._specs.items() if name in self.tools]\n",
        "        specs = [*self._specs.values()]\n",
        "runtime/test_deferred.py",
    ),
    # -------------------------------------------------------------------------------------- questions
    # A person answers with a password, and the run is resumed in the same process: the tool gets the placeholder.
    Bug(
        "a tool that is resumed gets an answer with placeholders",
        "_runtime/questions.py",
        "        if run.redactor is not None and isinstance(answer, Accept):\n            # An answer that was saved has placeholders. If this process does not know the secret, the person is asked.\n            answer = Accept(run.redactor.put_back(answer.content))\n",
        "",
        "runtime/test_redaction.py",
    ),
    # A stream with on_question="park" is paused: it ends, parked without a question, in the place of holding.
    Bug(
        "a pause parks a run that may be parked",
        _QUESTIONS,
        "        waits = self._deferred or (self._held and self.is_left_to_resume)",
        "        waits = self._deferred or self._held",
        "runtime/test_pause.py",
    ),
    # ------------------------------------------------------------------------------------ permissions
    # A person has approved "safe" calls for good: calls that a tool calls harmless run unasked, too.
    Bug(
        "an approval of what is safe covers what is safer",
        "_core/permissions.py",
        'enough = () if level is None else ("safer",) if level == "safer" else ("safe", "safer")',
        'enough = () if level is None else ("safe", "safer")',
        "runtime/test_safety.py core/test_permissions.py",
    ),
    # ----------------------------------------------------------------------------------------- pauses
    # A run is paused while its child works: the child goes on with turn after turn.
    Bug(
        "a child of a paused run goes on",
        "_runtime/pauses.py",
        "    return any(state.is_paused for state in run.state.around)",
        "    return run.state.is_paused",
        "runtime/test_pause.py",
    ),
    # ------------------------------------------------------------------------------------------ usage
    # Limits(identical_turns=3): the model asks for the same calls a fourth time before the run ends.
    Bug(
        "a model may repeat itself once more than the limit says",
        "_core/usage.py",
        "        if self.times < self._limit:",
        "        if self.times <= self._limit:",
        "core/test_budget.py runtime/test_limits.py runtime/test_traps.py",
    ),
    # ---------------------------------------------------------------------------------------- retries
    # The first model is left alone for a while, and the second fails: the run fails, and the first is not tried.
    Bug(
        "only later models are asked after a failure",
        "_core/retries.py",
        "        other = next((at for at in range(len(self._models)) if at not in attempts), None) if found.other else None",
        "        other = next((at for at in range(model + 1, len(self._models)) if at not in attempts), None) if found.other else None",
        "core/test_retries.py runtime/test_retries.py",
    ),
    # ---------------------------------------------------------------------------------------- dynamic
    # A tool names the model that reads its result, and a person steers meanwhile: the agent's own model reads it.
    Bug(
        "a message makes the run forget the model that a tool has named",
        "_runtime/dynamic.py",
        "        if isinstance(message, AssistantMessage):\n            break\n",
        "        if not isinstance(message, ToolResult):\n            break\n",
        "runtime/test_choosing_models.py",
    ),
    # ----------------------------------------------------------------------------------------- judges
    # A judge reads the conversation: in a long one, it reads how it began, and not what was said last.
    Bug(
        "a judge reads the beginning of a long conversation",
        "judges.py",
        "said[-MOST_OF_CONVERSATION:]",
        "said[:MOST_OF_CONVERSATION]",
        "runtime/test_judges.py",
    ),
    # ----------------------------------------------------------------------------------------- stores
    # A session is deleted, and another one gets its id: its first question is answered by the answer to the old one.
    Bug(
        "a deleted session leaves its answers to the next one of its id",
        "stores/_sql.py",
        '            for table in ("records", "answers", "mail"):',
        '            for table in ("records", "mail"):',
        "stores/test_every_store.py stores/test_model.py",
    ),
    # A parked run is resumed: await session.usage() has what it used before twice.
    Bug(
        "a stored session counts the usage of resumed runs twice",
        "stores/stored.py",
        '            if record.kind == "stream_started":\n                used.pop(facts.resumes, None)\n            else:\n                used[record.stream] = facts.usage\n',
        '            if record.kind == "stream_stopped":\n                used[record.stream] = facts.usage\n',
        "runtime/test_session_facts.py runtime/test_usage_adds_up.py stores/test_stored_session.py",
    ),
    # session.choice = ModelChoice(model="a:b") on a session without permissions: another process runs the agent's model.
    Bug(
        "the model that was chosen for a session is not saved",
        _WRITER,
        "        is_plain = is_plain and not transcript.values and transcript.choice is None\n",
        "        is_plain = is_plain and not transcript.values\n",
        "runtime/test_choosing_models.py runtime/test_session_facts.py",
    ),
    # A write of one session is too large for the disk: those of all sessions that shared its transaction fail, too.
    Bug(
        "one write that fails takes the others of its transaction with it",
        "stores/sqlite.py",
        "            if len(writes) == 1:\n                return [outcome.Error(_explain(error, self._path))]\n            # Each write alone: a write that is too large for the disk must not fail the others.\n            return [result for write in writes for result in self.commit([write])]\n",
        "            return [outcome.Error(_explain(error, self._path)) for _ in writes]\n",
        "stores/test_sqlite.py",
    ),
    # A command prints for ever, and its session is followed: the note on what is left out comes with each further piece.
    Bug(
        "the note on output that is not saved is saved with each piece",
        "stores/_saved_output.py",
        "    left[call] = -1\n",
        "    left[call] = 0\n",
        "stores/test_saved_output.py",
    ),
    # A session is held for longer than its lease: another process takes it, in the midst of a run.
    Bug(
        "a lease that is renewed ends when it would have",
        "stores/_leases.py",
        "    _check_seconds(seconds)\n    return LeaseState(state.token, state.holder, moment.wall + seconds, moment.era, moment.steady + seconds)",
        "    _check_seconds(seconds)\n    return evolve(state, expires=moment.wall + seconds)",
        "stores/test_leases.py stores/test_every_session.py",
    ),
    # ------------------------------------------------------------------------------------------ agent
    # The answer of an agent that is a tool was cut off at its limit of tokens: the model that asked takes it for whole.
    Bug(
        "an agent as a tool does not say that its answer was cut off",
        "agent.py",
        '            if outcome.detail and isinstance(outcome.output, str):\n                # An answer that is empty, or was cut off: the outer model must not take it for a whole one.\n                return f"{outcome.output}\\n\\n[{outcome.detail}]".lstrip()\n',
        "",
        "test_agent.py runtime/test_children.py",
    ),
)
