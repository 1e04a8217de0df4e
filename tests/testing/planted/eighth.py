"""Fifty bugs of an eighth set, written from reading the runtime and without a look at the checks of the harness.

The comment on each says what a user sees.
"""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from tests.testing.planted.table import Bug

__all__ = ["EIGHTH"]

EIGHTH = (
    # An agent whose run was parked, or cut off, after two refused answers gets all its attempts at the output again.
    Bug(
        "a resumed run counts its output attempts from the start",
        "_runtime/loop.py",
        "        self._reminders = run.state.output_retries\n",
        "        self._reminders = 0\n",
        "runtime stores",
    ),
    # Once a run has waited for its background runs, the results of later calls reach the model only when another background run has ended.
    Bug(
        "a run that has waited for its background runs once waits for them before each turn",
        "_runtime/loop.py",
        "                await self._run.background.report(wait=self._is_done)\n                self._is_done = False\n",
        "                await self._run.background.report(wait=self._is_done)\n",
        "runtime",
    ),
    # The request right after a compaction goes out without the texts of the context sources, which the summary has taken the place of.
    Bug(
        "the context is not told again after a summary",
        "_runtime/loop.py",
        "        if context is not None:\n            # A summary may have taken the place of what was told.\n            context.tell()\n        return self._with_less(request)",
        "        return self._with_less(request)",
        "runtime",
    ),
    # The second run of a session calls its first background run researcher-1 again, and the model reads of two of that name.
    Bug(
        "the ids of background runs begin anew with each run of the session",
        "_runtime/background.py",
        "            self.id = id_of(name, max(counts))\n",
        "            self.id = id_of(name, counts[0])\n",
        "runtime",
    ),
    # A child run starts a background run of a shared block, and the end is told to the model of the outer run, which had joined the block before.
    Bug(
        "the end of a background run of a block is told to the stream that joined first",
        "_runtime/background_blocks.py",
        "        return sorted(tellers, key=lambda run: run is not starter)\n",
        "        return tellers\n",
        "runtime toolkit",
    ),
    # stream.park() on a paused run that has no open question never ends the run: leaving it to another process hangs.
    Bug(
        "a paused run cannot be parked",
        "_runtime/pauses.py",
        ".paused(), run.state.waiting(call_id), questions.holding():",
        ".paused(), run.state.waiting(call_id):",
        "runtime stores",
    ),
    # A hook whose agent asks a person times out while the person thinks, and a guard then refuses.
    Bug(
        "a person's time counts for the hook whose agent asks",
        "_runtime/hook_runs.py",
        'opening = run.root.open_child(run, "", self.deadline, agent, prompt',
        'opening = run.root.open_child(run, "", run.deadline, agent, prompt',
        "runtime",
    ),
    # A hook replaces the arguments of a call by ones for which the tool's requires_approval says yes, and the call runs unasked.
    Bug(
        "a tool is not asked again whether replaced arguments need approval",
        "_runtime/approval.py",
        "                self._tool_requires = None\n",
        "",
        "runtime",
    ),
    # session.permissions denies a tool, and a background run of a Toolsets block that a stream of the session has started uses it.
    Bug(
        "the permissions of the session do not hold for background runs of blocks",
        "_runtime/approval.py",
        "        yield from root.apart.permissions\n        for session in root.apart.sessions:\n            if session.permissions is not None:\n                yield session.permissions\n",
        "        yield from root.apart.permissions\n",
        "runtime toolkit",
    ),
    # A message that was steered to a session between two runs is read by the next run, and by each run after it again.
    Bug(
        "messages that waited for a session are delivered to each later run",
        "_runtime/lifecycle.py",
        "                run.mailbox.steering, transcript.waiting = transcript.waiting, ()\n",
        "                run.mailbox.steering = transcript.waiting\n",
        "runtime",
    ),
    # outcome.messages of a parked run has the open turn with results that say 'interrupted', as if its calls had ended.
    Bug(
        "the outcome of a parked run has the turn that is still open",
        "_runtime/lifecycle.py",
        "        last = len(run.transcript) - run.transcript.provisional\n",
        "        last = len(run.transcript)\n",
        "stores",
    ),
    # When the store fails with several messages unsaved, outcome.messages and the session keep all of them but the last.
    Bug(
        "after a failure of the store only the last unsaved message leaves the session",
        "_runtime/log.py",
        "self.lost = {event.session: event.index, **self.lost}",
        "self.lost = {**self.lost, event.session: event.index}",
        "runtime stores",
    ),
    # A run that is stopped while the conversation is summed up has half of a summary in its transcript, as an answer of the model.
    Bug(
        "half of a summary becomes part of the conversation",
        "_runtime/model_call.py",
        '        if cut_off is not None and retry.purpose == "turn":\n',
        "        if cut_off is not None:\n",
        "runtime",
    ),
    # A run with Limits.requests that was parked may ask its judges and for summaries as often again when it is resumed.
    Bug(
        "requests of judges and for summaries do not count after a resume",
        "_runtime/model_call.py",
        "        run.meter.count_retry()\n        run.note(RequestSent(purpose))\n",
        "        run.meter.count_retry()\n",
        "runtime stores",
    ),
    # Of two calls of one turn, a tool with timeout=1 runs until the timeout of the other one, or is cut off by a shorter one.
    Bug(
        "tools of one turn share the timeout of the last",
        "_runtime/tool_calls.py",
        "            if (seconds is not None and own != seconds) or not is_free(run, tool):\n",
        "            if not is_free(run, tool):\n",
        "runtime",
    ),
    # A run is never parked while a tool waits for a background run that waits for a person: the process hangs in its block.
    Bug(
        "a call that waits for a background run keeps the run from being parked",
        "_runtime/tool_context.py",
        "        with self._use() as run, run.state.waiting(self._call_id):\n            run.root.questions.notify()\n            if _is_inside(",
        "        with self._use() as run:\n            if _is_inside(",
        "runtime stores toolkit",
    ),
    # After restart_toolset() each call of the toolset's tools is refused, since 'it was started again before this call ran'.
    Bug(
        "the tools of a toolset are of no use after a restart",
        "_runtime/toolset_task.py",
        "        self.serving = Serving(self.toolset.name)\n",
        "",
        "runtime",
    ),
    # When a Toolsets block ends, the servers are stopped under the background runs that still use them.
    Bug(
        "toolsets stop before the background runs that use them have ended",
        "_runtime/toolsets.py",
        "            if first:\n                # Shielded: it stops in order also where the block is cancelled.\n                with trio.CancelScope(shield=True):\n                    for task in first:\n                        await task.ended.wait()\n",
        "",
        "runtime toolkit",
    ),
    # Of three calls of one turn that need approval, a person sees one question at a time, and a run with on_question='park' hangs.
    Bug(
        "the second approval is asked only when the first is answered",
        "_runtime/questions.py",
        "        if run.call_order is not None and not question.event.background:\n            run.call_order.settle(question.call_id)\n",
        "",
        "runtime stores",
    ),
    # Where the hook for an earlier call is slow, a later call of the turn is denied, and nobody was asked about it.
    Bug(
        "a question that came before its turn is never asked",
        "_runtime/call_order.py",
        "                arrival.open()\n            else:\n                self._arrived[arrival] = None\n",
        "                arrival.open()\n",
        "runtime",
    ),
    # After a handoff the next agent is offered find_tools with the list of tools of the agent before.
    Bug(
        "the agent that gets the conversation has the deferred tools of the one before",
        "_runtime/handoffs.py",
        "run.chain = run.reader = run.deferred = run.offered",
        "run.chain = run.reader = run.offered",
        "runtime",
    ),
    # With settings=ModelSettings(max_tokens=...) summaries are cut off at that number, and the conversation cannot be compacted.
    Bug(
        "a summary has the limit of tokens of an answer",
        "_runtime/context_window.py",
        "tool_choice=choice, max_tokens=None, stop=())",
        "tool_choice=choice)",
        "runtime",
    ),
    # Once a tool with model= was called, all later turns go to its model, and not only the one that reads its result.
    Bug(
        "the model that a tool names stays for the rest of the session",
        "_runtime/dynamic.py",
        "        if isinstance(message, AssistantMessage):\n            break\n        tool = tools.get(message.name)",
        "        tool = tools.get(message.name)",
        "runtime",
    ),
    # A resumed run that is stopped before it has taken up its open turn cannot be resumed again: 'nothing is unfinished'.
    Bug(
        "a run that is stopped as it is resumed cannot be resumed again",
        "_runtime/run.py",
        "    # After a failure the session is read again in any case, when it is used next.\n    leaves_turn_open = run.state.message is not None and run.log.failure is None\n    if journal is not None and (run.root.questions.is_parked or leaves_turn_open):\n",
        "    if journal is not None and run.root.questions.is_parked:\n",
        "stores",
    ),
    # In another process, a new key gets the placeholder that stands for an old key in the transcript, and a tool that is given the old one's placeholder gets the new key.
    Bug(
        "placeholders of an earlier process are given out again",
        "_runtime/redaction.py",
        "        earlier = (session.messages, session.values)\n",
        "        earlier = (session.values,)\n",
        "runtime stores",
    ),
    # A tool of one's own that waits in context.run() is not called again when its parked run is resumed: the model reads that the call was interrupted.
    Bug(
        "a call that is parked with its child is taken for one that was cut off",
        "_core/state.py",
        "for child in (*call.children, *self._background_of(call.id)))",
        "for child in self._background_of(call.id))",
        "core stores",
    ),
    # session.questions of a parked run lacks the questions of its background runs, so a person in another process is not shown them.
    Bug(
        "the questions of background runs are not among those of a parked run",
        "_core/state.py",
        "        for child in self.background.values():\n            if not child.is_over:\n                questions += child.open_questions\n        return questions\n",
        "        return questions\n",
        "core stores",
    ),
    # A run that was parked while it was paused says is_paused after it was resumed, and pause() has no effect on it.
    Bug(
        "a resumed run is paused for good",
        "_core/state.py",
        "        self.waits_for_background = False\n        self.is_paused = False\n        if self._questions is not None:\n",
        "        self.waits_for_background = False\n        if self._questions is not None:\n",
        "core runtime stores",
    ),
    # With Limits(tool_calls=20), each background run of a Toolsets block makes as many tool calls as it likes.
    Bug(
        "tool calls of background runs of blocks do not count",
        "_core/usage.py",
        "                used = owner.tool_calls + (0 if owner._guests is None else owner._guests.tool_calls)\n",
        "                used = owner.tool_calls\n",
        "core runtime toolkit",
    ),
    # A person approves a call for good, and a page that answers the next question, which that has settled, gets an UnknownQuestionError.
    Bug(
        "to approve what a rule has just approved is an error",
        "_core/questions.py",
        "            self._scopes[question.scope].granted |= {question.id}\n",
        "",
        "core runtime",
    ),
    # A person allows all 'safe' calls for good, and calls of a shell that its assess= finds harmless run unasked as well.
    Bug(
        "the lower level of safety covers the calls of the higher one",
        "_core/permissions.py",
        '("safer",) if level == "safer" else ("safe", "safer")',
        '("safe", "safer")',
        "core runtime",
    ),
    # After session.compact(), session.context() still tells the tokens of the long conversation, and the next run sums it up once more.
    Bug(
        "counts from before a summary hold after it",
        "_core/context_window.py",
        "    first = max(view.first_kept, view.changed_at)\n",
        "    first = view.first_kept\n",
        "core runtime",
    ),
    # A password that was found behind password= is shown in clear in every later text that has it without its name.
    Bug(
        "a secret that was found by its name is secret only there",
        "_core/secrets.py",
        "is_unmistakable=not is_named or len(value) >= SHORTEST_ELSEWHERE)",
        "is_unmistakable=not is_named)",
        "core runtime",
    ),
    # After a rewind to right before the turn with the handoff, the next prompt still goes to the agent that had got the conversation.
    Bug(
        "a rewind to the moment of a handoff keeps the handoff",
        "_core/handoffs.py",
        "if handoff.index < messages])",
        "if handoff.index <= messages])",
        "core stores runtime",
    ),
    # A server that answers 'Retry-After: 20' is asked again after half a second, until the attempts are used up.
    Bug(
        "the time that a server asks for is not waited",
        "_core/retries.py",
        "    return max(backoff * (1 - jitter / 4), asked_for or 0.0)",
        "    return backoff * (1 - jitter / 4)",
        "core runtime",
    ),
    # With a server that numbers its calls anew in each response, the second turn repeats a call id, and the run fails or later requests are refused.
    Bug(
        "a call keeps an id that an earlier call of the session has",
        "_core/response.py",
        '        if not id or "\\0" in id or id in self._ids or id in self._taken:\n',
        '        if not id or "\\0" in id or id in self._ids:\n',
        "core runtime",
    ),
    # When the hook on steering messages is cut off, outcome.undelivered has the newer messages before the older ones.
    Bug(
        "steering messages that are put back stand behind the newer ones",
        "_core/transcript.py",
        "        self.steering = messages + self.steering\n",
        "        self.steering = self.steering + messages\n",
        "core runtime",
    ),
    # resume() with two answers, of which the second does not fit, raises, and the first is accepted all the same.
    Bug(
        "of several answers those before a wrong one count",
        "stores/_journal_writer.py",
        "        accepted = {id: _checked(past, id, answer) for id, answer in answers.items()}\n        for asked, answer in accepted.values():\n            id = asked.question.id\n",
        "        for id, given in answers.items():\n            asked, answer = _checked(past, id, given)\n",
        "stores",
    ),
    # A new prompt takes the place of a parked run, and the model never reads what became of the background runs that it had started.
    Bug(
        "background runs of a run that is given up are never reported",
        "stores/_journal_writer.py",
        "        if self.unfinished.background:\n            # First: a process that dies in between leaves a run that reports them itself when it is resumed.\n            transcript.leave_unreported(self.unfinished.background, GIVEN_UP)\n            settings = self._changed_settings()\n            if settings is not None:\n                await self._append(settings)\n",
        "",
        "stores",
    ),
    # A page that reconnects in the middle of a saved text gets the last piece that it has once more.
    Bug(
        "a follower that begins within a text gets a piece twice",
        "stores/_follow.py",
        "known = sum(sizes[: max(after - (event.seq - len(sizes)), 0)])",
        "known = sum(sizes[: max(after - (event.seq - len(sizes)) - 1, 0)])",
        "stores",
    ),
    # A process whose lease had run out and was taken over ends the lease of the other process when it leaves, and that one's run fails.
    Bug(
        "a release ends the lease of another process",
        "stores/_sql.py",
        '        statement = "UPDATE agentloop_leases SET holder = \'\' WHERE session = :session AND token = :token"\n        await self.write_in(lambda tx: tx.write(statement, {"session": lease.session, "token": lease.token}))\n',
        '        statement = "UPDATE agentloop_leases SET holder = \'\' WHERE session = :session"\n        await self.write_in(lambda tx: tx.write(statement, {"session": lease.session}))\n',
        "stores",
    ),
    # session.usage() of a stored session counts what a run had used before it was parked twice.
    Bug(
        "the usage of a resumed run counts twice in its session",
        "stores/stored.py",
        '            if record.kind == "stream_started":\n                used.pop(facts.resumes, None)\n            else:\n                used[record.stream] = facts.usage\n',
        '            if record.kind == "stream_stopped":\n                used[record.stream] = facts.usage\n',
        "stores",
    ),
    # A fork of a session whose process died, and which was opened since, has the cut-off run as well, and original and fork both make its calls when they are resumed.
    Bug(
        "a run that was cut off is part of a fork",
        "stores/_branches.py",
        '                is_running = _stopped(record) == "interrupted"\n',
        "                is_running = False\n",
        "stores",
    ),
    # Each page of the sessions of a MemoryStore begins with the last session of the page before.
    Bug(
        "the last session of a page is listed twice",
        "stores/memory.py",
        "and (before is None or _order(info) < _order(before))",
        "and (before is None or _order(info) <= _order(before))",
        "stores",
    ),
    # session.steer() raises while the last hooks of a run are called, in place of keeping the message for the next run.
    Bug(
        "a message to a session is refused while its run ends",
        "session.py",
        "        if live is not None and not live.mailbox.closed:\n",
        "        if live is not None:\n",
        "runtime",
    ),
    # A process dies while an agent that is a tool works, and the resumed run does not continue the agent: the model reads that the call was interrupted.
    Bug(
        "an agent as a tool is not continued after its process died",
        "agent.py",
        '        # A retry resumes the child; each call inside it decides about itself.\n        options.setdefault("if_interrupted", "retry")\n',
        "",
        "runtime stores",
    ),
    # A stream that borrows a toolset which has failed, or waits for a sign-in, has no event that says so.
    Bug(
        "a stream is not told the state of the shared toolsets that it joins",
        "toolsets.py",
        '            if task.status.state != "ready":\n                listener(task.status)\n',
        "",
        "runtime",
    ),
    # A judge at stop with retries=2 sends the agent on a third time before it blocks the run.
    Bug(
        "a judge sends the agent on once too often",
        "judges.py",
        "if continuations < self.retries:",
        "if continuations <= self.retries:",
        "runtime",
    ),
    # With Handoff(history='last') the next agent reads from the newest told context on, and not the question of the user.
    Bug(
        "a message of the context sources counts as a prompt",
        "messages.py",
        "        return not (self.reports or self.context)\n",
        "        return not self.reports\n",
        "core runtime",
    ),
    # A hook that logs its input writes deps=, with the keys and passwords in it, into the log.
    Bug(
        "the repr of a hook's input has the deps",
        "hooks.py",
        '_OUTSIDE = ("deps", "asking", "runs")',
        '_OUTSIDE = ("asking", "runs")',
        "runtime",
    ),
)
