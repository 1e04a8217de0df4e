"""Twenty-four bugs of a sixth set, written from reading the runtime, and before any of them was run.

Its author had written the mixes, and knew them. The comment on each says in which program a user sees it.
"""

# ruff: noqa: E501 - words of other files, in one piece

from __future__ import annotations

from tests.testing.planted.table import Bug

__all__ = ["SIXTH"]

SIXTH = (
    # stream.stop() while a hook looks at a steering message: outcome.undelivered lacks it.
    Bug(
        "steering messages are lost where their hook is cancelled",
        "_runtime/loop.py",
        "            run.mailbox.put_back_steering(messages)\n            raise\n",
        "            raise\n",
        "runtime/test_steering.py",
    ),
    # A session_start hook adds context: the model does not get the system prompt.
    Bug(
        "the context of session_start hooks replaces the instructions of the agent",
        "_runtime/loop.py",
        "                self._instructions.append(verdict.text)",
        "                self._instructions[:] = [verdict.text]",
        "runtime/test_hooks.py",
    ),
    # A resumed run whose answer was saved already asks the model once more.
    Bug(
        "a resumed run that had its answer takes another turn",
        "_runtime/loop.py",
        "        if answer is None:\n            return None\n        if run.background",
        "        if answer is not None:\n            return None\n        if run.background",
        "stores/test_killed_runs.py stores/test_parking.py",
    ),
    # A hook on prompts adds text, which the model reads before the prompt.
    Bug(
        "the context of a hook on prompts goes before the prompt",
        "_runtime/loop.py",
        "                messages = (*others, UserMessage((*last.parts, Text(verdict.text))))",
        "                messages = (*others, UserMessage((Text(verdict.text), *last.parts)))",
        "runtime/test_hooks.py runtime/test_steering.py",
    ),
    # A person lets a run go past a limit; the next limit that it reaches at once is not asked about.
    Bug(
        "of two limits that are reached, the second one is not asked about",
        "_runtime/loop.py",
        "            reached = self._run.meter.before_request()\n        return None\n",
        "            reached = None\n        return None\n",
        "runtime/test_limits.py",
    ),
    # A hook replaces the arguments of a call that another hook had allowed: it runs without approval.
    Bug(
        "what a hook allowed stays allowed where a later hook replaces the arguments",
        "_runtime/approval.py",
        "                self._allowed_by = None\n                denied = self.apply_rules()",
        "                denied = self.apply_rules()",
        "runtime/test_approvals.py",
    ),
    # The permissions change to deny while a question waits; an approval for good of another call approves it.
    Bug(
        "an approval for good approves an open question that is denied by now",
        "_runtime/approval.py",
        'return self._check.is_granted() and self._check.decide(self._reviewed).effect != "deny"',
        "return self._check.is_granted()",
        "runtime/test_approvals.py",
    ),
    # A person approves with other arguments which the rules deny: the tool runs with them.
    Bug(
        "arguments that a person revised are judged as the model's were",
        "_runtime/approval.py",
        "        decision = check.decide(approved)\n",
        "        decision = check.decide(self._reviewed)\n",
        "runtime/test_approvals.py runtime/test_permissions.py",
    ),
    # A hook returns Ask(): the tool runs, and no person is asked.
    Bug(
        "an Ask of a hook without a reason is forgotten",
        "_runtime/approval.py",
        "                    self._must_ask = self._is_asked_about = True\n                    self._metadata.update(metadata)\n                    if reason:\n",
        "                    self._metadata.update(metadata)\n                    if reason:\n                        self._must_ask = self._is_asked_about = True\n",
        "runtime/test_approvals.py runtime/test_hooks.py",
    ),
    # A handler gives an answer that does not fit: the question goes to the reader as if it had passed it on.
    Bug(
        "the answer of a handler that does not fit is passed on in silence",
        "_runtime/questions.py",
        "        if question.is_open():\n            question.refusal = HANDLER_FAILED\n",
        "        if question.is_open() and isinstance(error, UserCodeError):\n            question.refusal = HANDLER_FAILED\n",
        "runtime/test_questions.py",
    ),
    # An answer on record does not fit any more: the run warns, and waits for ever for a question that is closed.
    Bug(
        "an answer on record that is refused counts as given",
        "_runtime/questions.py",
        '            logged=f"question {question.id!r}",\n        )\n        return False\n',
        '            logged=f"question {question.id!r}",\n        )\n        return True\n',
        "stores/test_parking.py runtime/test_questions.py",
    ),
    # A model reports usage on the way, and none at its end: the response counts nothing.
    Bug(
        "a model that fails after it has reported usage counts nothing",
        "_runtime/model_call.py",
        "            if ending.usage.total_tokens:\n                self.reported = ending.usage\n",
        "            self.reported = ending.usage\n",
        "runtime/test_usage.py",
    ),
    # A before_llm_call hook replaces the tools: a call of a tool that was left out runs all the same.
    Bug(
        "a hook that offers fewer tools does not keep the others from being called",
        "_runtime/model_call.py",
        "run.offered = None if request.tools is tools else frozenset([spec.name for spec in request.tools])",
        "run.offered = None",
        "runtime/test_replaced_requests.py",
    ),
    # A second before_llm_call hook is told the name of the agent's model, though the first one chose another.
    Bug(
        "a hook does not hear which model an earlier hook chose",
        "_runtime/model_call.py",
        "                model = chosen if isinstance(chosen, str) else chosen.name\n",
        "                pass\n",
        "runtime/test_replaced_requests.py",
    ),
    # A server that sends keep-alive events for three minutes before the first word counts as silent.
    Bug(
        "signs of life of a server do not keep a request alive",
        "_runtime/model_call.py",
        "        self._scope.deadline = min(now() + self._patience, self._give_up_at)",
        "        self._scope.deadline = min(self._scope.deadline, self._give_up_at)",
        "runtime/test_deadlines.py runtime/test_responses.py",
    ),
    # A tool with max_result=math.inf is cut at the agent's max_result.
    Bug(
        "a tool's own max_result counts only where it is smaller",
        "_runtime/tool_calls.py",
        "return self._run.config.max_result if tool is None or tool.max_result is None else tool.max_result",
        "return self._run.config.max_result if tool is None or tool.max_result is None else min(tool.max_result, self._run.config.max_result)",
        "runtime/test_long_results.py runtime/test_tools.py",
    ),
    # Two calls of a tool with concurrency=1, the first of which waits for a person: the run is never parked.
    Bug(
        "a call that waits for its tool's slot is not parked with the others",
        "_runtime/tool_calls.py",
        "        with run.state.waiting(call.id):\n            await semaphore.acquire()\n",
        "        await semaphore.acquire()\n",
        "stores/test_parking.py",
    ),
    # A post_tool_use hook for `pay` is called for every tool.
    Bug(
        "a hook on results for some tools is called for all",
        "_runtime/tool_calls.py",
        '        for hook in run.hooks.at("post_tool_use"):\n            if not hook.concerns(call.name):\n                continue\n',
        '        for hook in run.hooks.at("post_tool_use"):\n',
        "runtime/test_hooks.py",
    ),
    # A session is rewound to before a handoff: the next prompt goes to the agent that got the conversation in it.
    Bug(
        "a rewind leaves the agent that had the conversation after it",
        "stores/_journal_writer.py",
        "        transcript.handoffs, transcript.agent = agent_after_rewind(transcript.handoffs, transcript.agent, messages)\n",
        "        transcript.handoffs, _ = agent_after_rewind(transcript.handoffs, transcript.agent, messages)\n",
        "stores/test_branches.py runtime/test_handoffs.py",
    ),
    # A call is approved for good, and the process starts anew: the person is asked again.
    Bug(
        "a session that is opened again has lost its approvals for good",
        "stores/_journal_writer.py",
        "        transcript.grants.extend(grant for grant in settings.grants if grant not in transcript.grants)\n",
        "",
        "stores/test_stored_session.py stores/test_parking.py",
    ),
    # Two processes answer one question: the second is told that its answer counts.
    Bug(
        "a second answer to a question that is resumed counts",
        "stores/_journal_writer.py",
        "            if not await self._store.answer(self._session, id, msgspec.json.encode(saved)):\n                raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])\n",
        "            await self._store.answer(self._session, id, msgspec.json.encode(saved))\n",
        "stores/test_parking.py",
    ),
    # The store fails, and a reader that waited for a saved event waits for ever.
    Bug(
        "readers are not woken where a journal fails and nothing takes the place of an event",
        "_runtime/log.py",
        "            # Also if nothing was put in its place: it may have been the last one.\n            for reader in writer.all_readers():\n                reader.wake()\n",
        "",
        "stores/test_slow_store.py stores/test_in_doubt.py",
    ),
    # A slow store and much text: posters never wait, and memory grows.
    Bug(
        "long texts that are not saved do not slow a run down",
        "_runtime/log.py",
        "or len(self._unsaved) >= UNSAVED_EVENTS or self._size >= UNSAVED_CHARACTERS\n",
        "or len(self._unsaved) >= UNSAVED_EVENTS\n",
        "stores/test_slow_store.py",
    ),
    # A call that begins after the stream was stopped while its start was saved has its effect.
    Bug(
        "a tool whose start is saved while its run is stopped begins",
        "_runtime/tool_calls.py",
        "        if run.log.is_journaled:\n            await trio.lowlevel.checkpoint_if_cancelled()\n        self._has_begun[call.id] = None\n",
        "        self._has_begun[call.id] = None\n",
        "runtime/test_ways_out.py stores/test_slow_store.py",
    ),
)
