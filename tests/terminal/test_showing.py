"""A chat program of ten lines: a run is shown, its questions are asked, and a prompt is read."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from agentloop import Agent, Price, Session, ToolContext, UsageError, tool
from agentloop.commands import Command
from agentloop.errors import ModelConnectionError, ModelNotFoundError, StreamStateError
from agentloop.questions import Accept
from agentloop.terminal import ask_in_terminal, read_prompt, show
from agentloop.terminal._command import _talk
from agentloop.testing import ScriptedModel, calls


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def payer(*script: Any) -> Agent:
    return Agent(ScriptedModel(*script), name="ann", tools=[pay], prices={"scripted": Price(1000, 1000)})


@contextmanager
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Generator[Keyboard]:
    """A terminal without rich."""
    outside, inside = os.openpty()
    with (
        os.fdopen(os.dup(inside), encoding="utf-8") as source,
        os.fdopen(inside, "w", encoding="utf-8") as out,
        monkeypatch.context() as patched,
    ):
        patched.setenv("TERM", "dumb")
        patched.setattr(sys, "stdin", source)
        patched.setattr(sys, "stdout", out)
        yield Keyboard(outside)
    os.close(outside)


class Keyboard:
    """The other side of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = ""

    async def type(self, line: str, *, after: str) -> None:
        """Type ``line`` when the screen shows ``after``, which is looked for behind what was shown before."""
        await self.type_one_of({after: [line]})

    async def type_one_of(self, lines: dict[str, list[str]]) -> None:
        """Type the next line for the prompt that the screen shows, of several prompts."""
        seen = len(self.shown)
        with trio.fail_after(10):
            while not (prompts := [prompt for prompt in lines if prompt in self.shown[seen:]]):
                await trio.lowlevel.wait_readable(self._descriptor)
                self.shown += os.read(self._descriptor, 4096).decode().replace("\r\n", "\n")
        [prompt] = prompts  # two of them: a question was asked beside another one
        os.write(self._descriptor, f"{lines[prompt].pop(0)}\n".encode())


async def test_a_run_is_shown_with_its_tools_and_its_cost_and_without_a_terminal_its_questions_are_declined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    async with payer(calls("pay", amount=5), "Not paid.").stream("Pay Bob.") as stream:
        outcome = await show(stream)
    assert outcome.output == "Not paid."
    assert out.getvalue().splitlines() == [
        "you: Pay Bob.",
        'ann -> pay({"amount":5})',
        "ann ?? May I call pay?",
        "    amount: 5",
        "ann is told: refused: There is no terminal to ask at.",
        "ann !! pay: Denied by the user: There is no terminal to ask at.",
        "ann: Not paid.",
        "ann ends: completed (2 requests, 30 tokens, 0.03 USD)",
    ]


@pytest.mark.real_clock
async def test_a_prompt_is_read_and_the_questions_of_the_run_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = payer(calls("pay", amount=5), "Paid.", calls("pay", amount=6), "Not paid.")
    with keyboard(monkeypatch) as keys:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(type_all, keys)
            session = Session()
            outputs: list[Any] = []
            while prompt := await read_prompt():
                # The handler leaves the question to `show`.
                async with agent.stream(prompt, session=session, on_question=ask_in_terminal) as stream:
                    outputs.append((await show(stream)).output)
    assert outputs == ["Paid.", "Not paid."]
    assert "paid 5" in keys.shown
    assert "paid 6" not in keys.shown
    # The prompt stands there, since it was typed there.
    assert "you: Pay 5" not in keys.shown


async def type_all(keys: Keyboard) -> None:
    await keys.type("Pay 5.", after="> ")
    await keys.type("y", after="[y/N/always]")
    await keys.type("Pay 6.", after="> ")
    await keys.type("", after="[y/N/always]")
    await keys.type("", after="> ")


@pytest.mark.real_clock
async def test_a_run_that_is_not_shown_asks_one_question_at_a_time_until_the_answer_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @tool
    async def count(context: ToolContext) -> str:
        """Count."""
        form = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
        answer = await context.ask("How many?", form)
        assert isinstance(answer, Accept)
        return f"{answer.content['n']} of them"

    agent = Agent(ScriptedModel(calls("count") + calls("pay", amount=1), "Done."), tools=[count, pay])
    with keyboard(monkeypatch) as keys:
        async with trio.open_nursery() as nursery:
            outcome = None

            async def run() -> None:
                nonlocal outcome
                outcome = await agent.run("go", on_question=ask_in_terminal)

            nursery.start_soon(run)
            # Both calls ask at once: trio decides which of them is first.
            lines = {"n (a whole number)": ["2", "4"], "[y/N/always]": ["n too dear"]}
            for _ in range(3):
                await keys.type_one_of(lines)
    assert outcome is not None
    results = [message.text for message in outcome.messages if hasattr(message, "call_id")]
    assert "4 of them" in results[0]
    assert "too dear" in results[1]


@pytest.mark.real_clock
async def test_a_run_inside_of_a_tool_asks_on_the_screen_of_the_run_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @tool
    async def delegate() -> str:
        """Have another agent pay."""
        outcome = await payer(calls("pay", amount=9), "Paid.").run("Pay.", on_question=ask_in_terminal)
        return str(outcome.output)

    agent = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])
    with keyboard(monkeypatch) as keys:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys_then_yes, keys)
            async with agent.stream("go") as stream:
                outcome = await show(stream)
    assert outcome.output == "Done."


async def keys_then_yes(keys: Keyboard) -> None:
    await keys.type("yes", after="[y/N/always]")


async def test_what_is_no_open_stream_is_refused_with_the_way() -> None:
    agent = payer("Hi.")
    with pytest.raises(StreamStateError, match=r"async with agent\.stream"):
        await show(agent.stream("go"))  # type: ignore[arg-type]


def test_outside_of_trio_a_question_says_what_it_needs() -> None:
    with pytest.raises(UsageError, match=r"start it with trio\.run"):
        ask_in_terminal(None).send(None)  # type: ignore[arg-type]


@pytest.mark.real_clock
async def test_commands_that_are_typed_become_prompts_and_unknown_ones_are_typed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ScriptedModel("Fixed.", "Seen.")
    fix = Command("Fix $1.", description="Fix an issue", hint="[issue]")
    agent = Agent(model, commands={"fix": fix, "look": "Look."})
    with keyboard(monkeypatch) as keys:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(type_commands, keys)
            while prompt := await read_prompt(agent=agent):
                async with agent.stream(prompt) as stream:
                    await show(stream)
    assert [request.messages[0].text for request in model.requests] == ["Fix 7.", "/etc/hosts is empty"]
    assert "/fix [issue]  Fix an issue" in keys.shown
    assert "did you mean /fix?" in keys.shown
    # The prompt of a command does not stand on the screen yet; the other one was typed there.
    assert "you: Fix 7." in keys.shown
    assert "you: /etc" not in keys.shown


async def type_commands(keys: Keyboard) -> None:
    for line in ("/help", "/fxi 7", "/fix 7", "/etc/hosts is empty", ""):
        await keys.type(line, after="> ")


@pytest.mark.real_clock
async def test_without_a_keyboard_commands_come_from_the_lines_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("/fxi\n/fix 7\n"))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    agent = Agent(ScriptedModel(), commands={"fix": "Fix $1."})
    assert [await read_prompt(agent=agent), await read_prompt(agent=agent)] == ["Fix 7.", None]


@pytest.mark.real_clock
async def test_without_a_keyboard_the_prompts_are_the_lines_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Pay Bob.\n"))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert [await read_prompt(), await read_prompt()] == ["Pay Bob.", None]
    monkeypatch.setattr(sys, "stdin", None)
    assert await read_prompt() is None
    assert (await payer(calls("pay", amount=1), "No.").run("go", on_question=ask_in_terminal)).output == "No."


@pytest.mark.real_clock
async def test_a_chosen_model_that_cannot_be_asked_leaves_the_chat_to_choose_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Keyless(ScriptedModel):
        def open(self) -> Any:
            raise ModelNotFoundError("there is no key")

    agent = Agent(ScriptedModel("Hello."), models={"keyless": Keyless()})
    monkeypatch.setattr(sys, "stdin", io.StringIO("/model keyless\nHi!\n/model default\nHi!\n"))
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    await _talk(agent, None)
    assert "there is no key" in capsys.readouterr().err
    assert "agent: Hello." in out.getvalue()
    # The agent's own is the program's to mend.
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi!\n"))
    with pytest.raises(ModelConnectionError, match="there is no key"):
        await _talk(agent.replace(model=Keyless()), None)
