"""Slash commands: which texts are commands, what is sent for them, and what a person reads who mistypes one."""

from __future__ import annotations

import pytest

from agentloop import Agent, File, Team, Text, UsageError
from agentloop.commands import Command
from agentloop.errors import UnknownCommandError
from agentloop.testing import ScriptedModel


def agent_of(**commands: Command | str) -> Agent:
    return Agent(ScriptedModel("Done.", "Done."), commands=commands)


@pytest.mark.parametrize(
    ("prompt", "typed", "sent"),
    [
        ("Fix $1 in $2.", "/go 12 'the parser' more", "Fix 12 in the parser."),
        ("Fix $1 in $2.", "/go 12", "Fix 12 in ."),
        ("All: $ARGUMENTS.", "/go  a  'b c'\nd ", "All: a  'b c'\nd."),
        ("It's $1 and $2", "/go don't panic", "It's don't and panic"),
        ("Costs \\$1, \\$ARGUMENTS, $100 and $x: $1", "/go 5", "Costs $1, $ARGUMENTS, $100 and $x: 5"),
        ("Once: $1", "/go $2$ARGUMENTS x", "Once: $2$ARGUMENTS"),
        ("Review.", "/go", "Review."),
        ("Review.\n", "/go only the tests", "Review.\n\nonly the tests"),
        ("$1", "/go a\\b", "a\\b"),
        ("Third: $3", "/go\n1 2 3", "Third: 3"),
    ],
)
def test_a_command_is_its_text_with_what_was_typed_after_its_name(prompt: str, typed: str, sent: str) -> None:
    assert agent_of(go=prompt).expand(typed).text == sent


@pytest.mark.parametrize(
    "text",
    ["/etc/hosts is empty", "// TODO", "/", "/ go", " /go", "\n/nope", "go /go", "/go, please", "/ünï code", "/-x"],
)
def test_a_text_that_merely_begins_with_a_slash_is_sent_as_it_is(text: str) -> None:
    assert agent_of(go="Went.").expand(text).text == text


def test_an_agent_without_commands_takes_each_text_as_it_is() -> None:
    assert Agent(ScriptedModel()).expand("/nope 1").text == "/nope 1"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("/fxi 1", "there is no command /fxi: did you mean /fix? A text that begins with a space is sent as it is"),
        ("/FIX", "did you mean /fix"),
        ("/rev", "did you mean /review or /reverse"),
        ("/zzz", "there are /fix, /review, /reverse. A text"),
    ],
)
def test_an_unknown_command_is_an_error_with_the_nearest_ones(typed: str, words: str) -> None:
    with pytest.raises(UnknownCommandError) as caught:
        agent_of(fix="Fix.", review="Review.", reverse="Reverse.").expand(typed)

    assert words in str(caught.value)
    assert caught.value.known == ("fix", "review", "reverse")


def test_files_that_are_attached_to_a_command_stay() -> None:
    file = File(b"x", media_type="text/plain", name="a.txt")

    sent = agent_of(go="Read $1.").expand(["/go it", file, Text("and this")])

    assert sent.parts == (Text("Read it."), file, Text("and this"))


async def test_a_run_takes_its_prompt_as_it_is_since_a_program_may_have_written_it() -> None:
    agent = agent_of(go="Went.")

    await agent.run("/go")
    await Agent(agent.model, commands=agent.commands).run(agent.expand("/go"))

    model = agent.model
    assert isinstance(model, ScriptedModel)
    assert [request.messages[0].text for request in model.requests] == ["/go", "Went."]


def test_a_team_has_the_commands_of_its_first_agent() -> None:
    first, second = (Agent(ScriptedModel(), name=name, commands={name: "x"}) for name in ("one", "two"))

    assert [*Team(first, second).commands] == ["one"]


def test_lone_surrogates_that_were_typed_do_not_reach_the_transcript() -> None:
    assert "\ud800" not in agent_of(go="$1").expand("/go \ud800").text


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        (["fix"], "takes a dict"),
        ({"/fix": "Fix."}, "leave out the slash"),
        ({"fix it": "Fix."}, "give a letter or digit"),
        ({3: "Fix."}, "give a letter or digit"),
        ({"fix": 3}, "a text or Command"),
        ({"fix": " "}, "give a text of up to"),
    ],
)
def test_wrong_commands_are_refused_where_they_are_given(commands: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Agent("x:y", commands=commands)  # type: ignore[arg-type]


def test_the_commands_of_an_agent_do_not_change_with_the_dict_they_were_given_in() -> None:
    commands: dict[str, Command | str] = {"go": "Went."}
    agent = Agent("x:y", commands=commands)
    commands["other"] = "x"

    assert [*agent.commands] == ["go"]
