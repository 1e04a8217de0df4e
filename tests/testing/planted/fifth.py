"""Fifty bugs of a fifth set, written from reading the runtime and without a look at the checks of the harness.

The comment on each says in which program a user sees it.
"""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from tests.testing.planted.table import Bug

__all__ = ["FIFTH"]

FIFTH = (
    # A model raises in its cleanup while stream.stop() cancels it: no error_while_stopping warning says so.
    Bug(
        "an error of a run that is stopped is swallowed",
        "_runtime/lifecycle.py",
        "if plain is not None and outcome.error is None:",
        'if plain is not None and outcome.reason == "completed":',
        "runtime",
    ),
    # A tool of a child calls save_session_value(own=True), the child parks; after the resume session_value(own=True)
    # gives None.
    Bug(
        "a resumed child run has lost the values that its tools saved",
        "_runtime/lifecycle.py",
        "if parent is None and prompt is not None:",
        "if parent is None:",
        "stores/test_session_values.py",
    ),
    # The store fails at the write that has the last response: agent.run() returns an output which the session does not
    # have.
    Bug(
        "a run is completed although its answer could not be saved",
        "_runtime/lifecycle.py",
        "                loops_ending = await run_loop(run)\n                await flush(run)\n",
        "                loops_ending = await run_loop(run)\n",
        "stores/test_in_doubt.py stores/test_slow_store.py stores/test_stored_session.py",
    ),
    # Limits(requests=3): a request fails and is retried, the run parks; the resumed run sends two more requests, four
    # in all.
    Bug(
        "failed requests do not count any more once a run is resumed",
        "_runtime/loop.py",
        "            requests=state.requests,\n",
        "            requests=state.usage.requests,\n",
        "runtime/test_limits.py stores",
    ),
    # Limits(requests=2): two children at once, each with a turn_start hook that waits, both pass the check: three
    # requests go out.
    Bug(
        "a request counts against the limit only when its hooks have run",
        "_runtime/loop.py",
        "        run.meter.count_request()\n        async with _Turn(run) as turn:\n            await self._list(tools)\n            request = await self._request()\n",
        "        async with _Turn(run) as turn:\n            await self._list(tools)\n            request = await self._request()\n            run.meter.count_request()\n",
        "runtime/test_limits.py",
    ),
    # An output is refused once, the second is valid, and a steering message sends the agent on: the next refusal fails
    # the run.
    Bug(
        "a steered run has fewer attempts at its output",
        "_runtime/loop.py",
        "            # The loop submits the message before the next request.\n            self._reminders = 0\n            return None\n",
        "            # The loop submits the message before the next request.\n            return None\n",
        "runtime/test_steering.py runtime/test_structured_output.py",
    ),
    # EachTurn(lambda info: f"turn {info.turn}") says `turn 2` in the first request.
    Bug(
        "instructions of a turn are made for the turn after it",
        "_runtime/loop.py",
        "text = await instructions_for(self._run, each_turn.function, turn=self._run.state.turn)",
        "text = await instructions_for(self._run, each_turn.function, turn=self._run.state.next_turn)",
        "runtime/test_dynamic_agents.py",
    ),
    # A before_llm_call hook takes secrets out of the messages; the request is refused as too long, and the shortened
    # one has them.
    Bug(
        "a shortened request goes out as no hook has seen it",
        "_runtime/model_call.py",
        "            shortened, _ = await _vetted(self.run, request, self.purpose, self.call_id, self.model.name)\n            return shortened\n",
        "            await _vetted(self.run, request, self.purpose, self.call_id, self.model.name)\n            return request\n",
        "runtime/test_compaction.py runtime/test_replaced_requests.py",
    ),
    # stream.stop() while an after_llm_call hook waits: outcome.usage has the tokens of the response twice.
    Bug(
        "the usage of a response counts twice where the run is stopped in the hook after it",
        "_runtime/model_call.py",
        "        retry.take_reported()\n        usage = message.usage\n",
        "        usage = message.usage\n",
        "runtime/test_usage.py runtime/test_usage_adds_up.py",
    ),
    # A before_llm_call hook sends a request to the second of three models, away from the first; when that fails, the
    # first is asked.
    Bug(
        "the model that a hook chose falls back to the agent's own first",
        "_runtime/model_call.py",
        "*[other for other in run.originals[1:] if other is not model]",
        "*[other for other in run.originals if other is not model]",
        "runtime/test_replaced_requests.py",
    ),
    # Two models, of which the first cannot be opened; the second fails once: the run ends with an InternalError in
    # place of a retry.
    Bug(
        "a run whose first model cannot be opened fails at the first retry",
        "_runtime/model_call.py",
        "run.chain = _new_chain(run, originals)",
        "run.chain = _new_chain(run, run.originals)",
        "runtime/test_open_models.py",
    ),
    # A terminal shows UsageReported.total: it is a response behind, and at the end lower than outcome.usage.
    Bug(
        "the total that is reported with a response lacks that response",
        "_runtime/model_call.py",
        "    run.meter.count_usage(usage)\n    reported = UsageReported(\n        run.source,\n        run.log.seq + 1,\n        usage=usage,\n        total=run.meter.usage,\n        purpose=retry.purpose,\n        call_id=retry.call_id,\n        model=name,\n        is_complete=is_complete,\n    )\n",
        "    reported = UsageReported(\n        run.source,\n        run.log.seq + 1,\n        usage=usage,\n        total=run.meter.usage,\n        purpose=retry.purpose,\n        call_id=retry.call_id,\n        model=name,\n        is_complete=is_complete,\n    )\n    run.meter.count_usage(usage)\n",
        "runtime/test_usage.py",
    ),
    # stream.stop() in mid-response: the usage of the messages of the session adds up to less than outcome.usage.
    Bug(
        "a response that was cut off has no usage",
        "_runtime/model_call.py",
        "commit(run, (msgspec.structs.replace(cut_off, usage=retry.counted),))",
        "commit(run, (cut_off,))",
        "runtime/test_usage.py runtime/test_requests.py",
    ),
    # A response asks for a build that takes an hour and for a call that needs approval: the person is asked after an
    # hour.
    Bug(
        "a question waits for the tool of an earlier call",
        "_runtime/tool_calls.py",
        "        self._settle(call)\n        if tool.concurrency is None:\n",
        "        if tool.concurrency is None:\n",
        "runtime/test_questions.py runtime/test_approvals.py",
    ),
    # A plain tool asks by trio.from_thread.run(context.ask, ...), and the stream is stopped: the question stays open,
    # and its task after it.
    Bug(
        "a use of a context outlives its call",
        "_runtime/tool_calls.py",
        "            if context is not None and context.end():\n                await context.wait_for_uses()  # noqa: ASYNC102 - it is shielded\n",
        "            if context is not None:\n                context.end()\n",
        "runtime/test_tools.py runtime/test_questions.py runtime/test_ways_out.py",
    ),
    # A tool with timeout=10 and requires_approval=True, approved after 20 s, times out as it begins.
    Bug(
        "the time of a person who approves a call counts against the tool's deadline",
        "_runtime/tool_calls.py",
        "began if is_unchecked else None",
        "began",
        "runtime/test_deadlines.py runtime/test_approvals.py",
    ),
    # A child parks before it pays; the session is forked and both are resumed: the bank takes the second payment for a
    # repetition.
    Bug(
        "calls in a fork have the idempotency keys of the original",
        "_runtime/tool_context.py",
        '        root, own = self._run.root.session.id, self._run.transcript.id\n        return f"{own}#{self._call_id}" if own == root else f"{root}:{own}#{self._call_id}"\n',
        '        return f"{self._run.transcript.id}#{self._call_id}"\n',
        "stores/test_branches.py runtime/test_children.py",
    ),
    # A generator tool with timeout=5 yields 100 lines at once, and the reader of the stream pauses for 10 s.
    Bug(
        "a tool times out since a reader is slow",
        "_runtime/tool_context.py",
        "            with self._use() as run, self._deadline.paused():\n                await run.writer.wait_for_readers()\n",
        "            with self._use() as run:\n                await run.writer.wait_for_readers()\n",
        "runtime/test_deadlines.py runtime/test_backpressure.py",
    ),
    # A tool pays as soon as context.ask() is accepted, and the process dies: the resumed run takes the call for one
    # that still waits, and pays again.
    Bug(
        "a tool acts on an answer that is not saved",
        "_runtime/tool_context.py",
        "            await self._keep_end_of_question(run)\n        if answer is None:\n",
        "        if answer is None:\n",
        "stores/test_parking.py stores/test_crashes.py stores/test_in_doubt.py",
    ),
    # A tool saves a list and appends to it afterwards: session_value() of the next call has an item that was never
    # saved.
    Bug(
        "a saved value of the session is the tool's own object",
        "_runtime/tool_context.py",
        '        encoded = _encoded(f"the value to save as {name!r}", value)\n        # Decoded, since the tool may change its own object later.\n        decoded = decode_json(encoded)\n',
        '        _encoded(f"the value to save as {name!r}", value)\n        decoded = value\n',
        "stores/test_session_values.py",
    ),
    # Approve(arguments={"amount": 1}, always=True) of a transfer of 1000: from then on 1000 is transferred without a
    # question.
    Bug(
        "an approval for good of revised arguments covers the model's",
        "_runtime/approval.py",
        "self._check.grant(self.approved, answer.always)",
        "self._check.grant(self._reviewed, answer.always)",
        "runtime/test_approvals.py",
    ),
    # The root agent denies `rm`; its tool is an agent without permissions, whose tool is an agent with `rm`: it runs.
    Bug(
        "a tool runs freely below an agent without permissions",
        "_runtime/approval.py",
        "return run.above is None or next(_permissions_around(run), None) is None",
        "return run.above is None or run.above.config.permissions is None",
        "runtime/test_permissions.py runtime/test_children.py",
    ),
    # A predicate normalises arguments["path"] in place before it compares: the tool gets another path than the person
    # saw.
    Bug(
        "a requires_approval function gets the arguments that the tool gets",
        "_runtime/approval.py",
        "            # Decoded anew: a predicate that changes them must not change what the function gets, unseen by the person.\n            arguments = tool.arguments.decode(self.arguments.text)\n",
        "            arguments = self.arguments.values\n",
        "runtime/test_approvals.py",
    ),
    # An on_question function waits for a window that is never opened, and stream.answer() answers from elsewhere: the tool
    # never continues.
    Bug(
        "a handler goes on after its question was answered by id",
        "_runtime/questions.py",
        "        self.changed.set()\n        if not question.is_open() and self.handler is not None:\n            self.handler.cancel()\n",
        "        self.changed.set()\n",
        "runtime/test_questions.py",
    ),
    # Two calls need approval, and a page answers both at once when it has both: it never gets the second.
    Bug(
        "the question of a later call waits for the answer to an earlier one",
        "_runtime/questions.py",
        "            run.call_order.settle(question.call_id)\n        if answer is None",
        "            pass\n        if answer is None",
        "runtime/test_questions.py runtime/test_approvals.py",
    ),
    # The second of two calls asks within trio.move_on_after while the first is still being checked: its question
    # appears after it gave up, and none waits for the answer.
    Bug(
        "a question whose asker was cancelled before it was opened is opened",
        "_runtime/call_order.py",
        "        except BaseException:\n            self._arrived.pop(arrival, None)\n",
        "        except Exception:\n            self._arrived.pop(arrival, None)\n",
        "runtime/test_questions.py",
    ),
    # A reader adds a hint to the form in stream.pending[0]: the answer is checked against the changed form.
    Bug(
        "stream.pending gives the questions themselves",
        "_core/questions.py",
        "tuple(copy_of(asked.event) for asked in",
        "tuple(asked.event for asked in",
        "runtime/test_questions.py core/test_questions.py",
    ),
    # Two observers; the first raises at TurnFinished: the second never gets that event.
    Bug(
        "an observer misses an event at which the one before it failed",
        "_runtime/hooks.py",
        "for observer in tuple(watching):",
        "for observer in watching:",
        "runtime/test_observers.py",
    ),
    # Two step observers, each of which sets a context variable and resets it: the second finds the value of the first,
    # which is not set any more.
    Bug(
        "the context managers of observers are left in the order in which they were entered",
        "_runtime/steps.py",
        "observer, manager = self._entered.pop()",
        "observer, manager = self._entered.pop(0)",
        "runtime/test_steps.py telemetry",
    ),
    # Limits(seconds=60), two calls of a turn ask at once and are answered: the run may go on for ever.
    Bug(
        "the time limit of a run is gone after two questions at once",
        "_runtime/blocks.py",
        "        if self._pauses == 0 and self._scope is not None:\n            self._deadline = self._scope.deadline\n",
        "        if self._scope is not None:\n            self._deadline = self._scope.deadline\n",
        "runtime/test_deadlines.py",
    ),
    # Ctrl-C while a tool's cleanup raises a ValueError: the program gets the ValueError, handles it, and goes on.
    Bug(
        "an interrupt gives way to an error at the same time",
        "_runtime/exception_groups.py",
        "chosen = next((leaf for leaf in leaves if not _is_plain(leaf)), leaves[0])",
        "chosen = leaves[0]",
        "runtime/test_ways_out.py runtime/test_single_errors.py",
    ),
    # The connection of a toolset hangs as its block is left: agent.run() never returns, in spite of Deadlines.cleanup.
    Bug(
        "a toolset that hangs as it stops holds up the run",
        "_runtime/toolset_task.py",
        "                    scope.deadline = after(deadlines.cleanup)\n",
        "",
        "runtime/test_toolsets.py",
    ),
    # A child compacts, asks and parks; the first request of the resumed child has the whole conversation again.
    Bug(
        "a resumed child run reads the messages that were summed up",
        "_runtime/context_window.py",
        "        view.summarize(summary.text, planned.first_kept)\n        self._note_view()\n",
        "        view.summarize(summary.text, planned.first_kept)\n",
        "runtime/test_compaction.py stores/test_parking.py",
    ),
    # A reader stops in the middle of a long response and awaits stream.wait(): the run waits for room for ever.
    Bug(
        "a run goes on waiting for a reader that has left",
        "_runtime/log.py",
        "        self._readers.remove(reader)\n        self._log.make_room()\n",
        "        self._readers.remove(reader)\n",
        "runtime/test_backpressure.py",
    ),
    # An agent with an OpenTelemetry observer gets a response in 100 pieces: the run hangs at the 32nd.
    Bug(
        "an observer that is woken for some kinds of events stalls the run",
        "_runtime/log.py",
        "            if self._log.patient:\n                self._log.wake_patient()\n            await self._log.wait_for_room()\n",
        "            await self._log.wait_for_room()\n",
        "runtime/test_observers.py runtime/test_backpressure.py telemetry",
    ),
    # A tool of the user's own runs a child that asks and parks: the resumed run reports the call as interrupted, and
    # the answer is lost.
    Bug(
        "a tool that was parked inside its child run counts as interrupted",
        "_core/state.py",
        "call.parked = waited or unfinished or not call.started",
        "call.parked = waited or not call.started",
        "stores/test_parking.py core/test_state.py",
    ),
    # A tool asks for an account, then `Transfer?`; after the resume a default account makes it skip the first: the
    # recorded yes for another account counts.
    Bug(
        "an answer is given to a question that the call has come to another way",
        "_core/state.py",
        "is_free = record.question.id not in self._asked and self._asked.issuperset(record.after)",
        "is_free = record.question.id not in self._asked",
        "core/test_state.py stores/test_parking.py",
    ),
    # A tool runs a child that books a flight, then one that asks and parks: the resumed call books the flight again.
    Bug(
        "a child run that ended is run again after a second one was parked",
        "_core/state.py",
        "        self._opened = _NO_IDS\n        self._has_changed = False\n\n    @property\n    def questions",
        "        self._opened = _NO_IDS\n\n    @property\n    def questions",
        "stores/test_parking.py core/test_state.py",
    ),
    # A limit of 5 turns was raised to 10, the run parks, the agent is deployed with 50 turns: the resumed run ends
    # after 10.
    Bug(
        "a raised limit takes the place of a higher one of the resumed agent",
        "_core/usage.py",
        "limit: max(now, most)}",
        "limit: most}",
        "core/test_budget.py runtime/test_limits.py",
    ),
    # A model sends two signed thoughts before a call: the next request has one, whose signature the provider refuses.
    Bug(
        "two thoughts in a row become one, with the signature of the second",
        "_core/response.py",
        "if not isinstance(block, _Thought) or block.signature is not None:",
        "if not isinstance(block, _Thought):",
        "core/test_assembly.py runtime/test_responses.py",
    ),
    # The provider pauses a response, the process dies after the commit: the resumed run ends with the first half.
    Bug(
        "a resumed run takes a paused response for the answer",
        "_core/response.py",
        'last.stop in ("interrupted", "paused")',
        'last.stop == "interrupted"',
        "core/test_turn.py stores",
    ),
    # allow=[Rule("read", {"paths": Under("/srv")})] lets ["/srv/a", "/etc/shadow"] through.
    Bug(
        "a list is allowed if one of its items is",
        "_core/permissions.py",
        "return bool(items) and all(_holds(condition, item) for item in items)",
        "return any(_holds(condition, item) for item in items)",
        "core/test_permissions.py core/test_rule_values.py",
    ),
    # A prompt is refused as too long; the user rewinds to before it and sends a shorter one, which the model never
    # gets.
    Bug(
        "a prompt after a rewind is left out in the place of the one that was too long",
        "_core/context_window.py",
        "self._elided = frozenset([index for index in self._elided if index < messages])",
        "self._elided = frozenset([index for index in self._elided if index <= messages])",
        "runtime/test_compaction.py stores/test_branches.py",
    ),
    # A new prompt gives up a parked turn with one call: outcome.messages of the new run lacks its last two messages.
    Bug(
        "a run after an abandoned one gives too few messages",
        "stores/_journal_writer.py",
        "        await self._append(TurnAbandoned(closing))\n        transcript.provisional = 0\n        self.unfinished = None\n",
        "        await self._append(TurnAbandoned(closing))\n        self.unfinished = None\n",
        "stores/test_stored_session.py stores/test_interrupted.py",
    ),
    # The store fails for a moment as the lease is renewed: another process takes the session over while the run goes
    # on.
    Bug(
        "a lease runs out after one renewal that failed",
        "stores/_journal_writer.py",
        "                wait = seconds / 12\n",
        "                wait = seconds\n",
        "stores/test_leases.py stores/test_stored_session.py",
    ),
    # agent.resume(session, {a: Approve(), b: Accept({})}) raises InvalidAnswerError for b, and a is approved all the
    # same.
    Bug(
        "one answer counts although another one of the same resume is refused",
        "stores/_journal_writer.py",
        "        accepted = {id: _checked(past, id, answer) for id, answer in answers.items()}\n        for asked, answer in accepted.values():\n",
        "        for asked, answer in (_checked(past, id, answer) for id, answer in answers.items()):\n",
        "stores/test_parking.py",
    ),
    # enqueue(after=3600), and the session is deleted: in an hour a worker runs the prompt all the same.
    Bug(
        "the mail of a deleted session stays",
        "stores/_sql.py",
        'for table in ("records", "answers", "mail"):',
        'for table in ("records", "answers"):',
        "stores/test_mailbox.py stores/test_every_store.py",
    ),
    # fork_session(messages=2) of a parked session in SQLite: its info says that it waits for a person, and no prompt
    # in its mailbox is delivered.
    Bug(
        "a fork from the middle of a session is listed as unfinished",
        "stores/_sql.py",
        "entry = IndexEntry(state if end == last else READY, agent)",
        "entry = IndexEntry(state if end <= last else READY, agent)",
        "stores/test_every_store.py stores/test_mailbox.py stores/test_branches.py",
    ),
    # A run is parked with the question whether it may go past Limits(turns=...); session.compact() gives it up, and
    # the answer has nowhere to go.
    Bug(
        "a compaction gives up a run that is parked between two turns",
        "session.py",
        "if self._journal is not None and self._journal.has_unfinished_run:",
        "if self._journal is not None and self._journal.has_unfinished_run and transcript.provisional:",
        "runtime/test_compact.py stores/test_parking.py",
    ),
    # The process dies while agent.as_tool() runs: the outer model reads that the call was interrupted, and the child's
    # work is lost.
    Bug(
        "an agent as a tool is not resumed after a crash",
        "agent.py",
        '        # A retry resumes the child; each call inside it decides about itself.\n        options.setdefault("if_interrupted", "retry")\n',
        "",
        "stores/test_killed_runs.py stores/test_interrupted.py",
    ),
)
