"""Models of pydantic in a run: as arguments, results, outputs of children, forms, and values to remember."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

from agentloop import Accept, Agent, Approve, ToolContext, tool
from agentloop.errors import InvalidAnswerError
from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import agent_with, results
from tests.support import watch


class Guest(BaseModel):
    name: str = Field(alias="guestName")
    age: int = 18

    @field_validator("name")
    @classmethod
    def _is_invited(cls, value: str) -> str:
        if value == "Bob":
            raise ValueError("Bob is not invited")
        return value


ADA = Guest(guestName="Ada")


async def test_a_tool_takes_and_returns_models() -> None:
    taken: list[Guest] = []

    @tool
    async def invite(guest: Guest) -> Guest:
        taken.append(guest)
        return guest

    script = ScriptedModel(
        calls("invite", guest={"guestName": "Bob"}), calls("invite", guest={"guestName": "Ada"}), "ok"
    )
    watched = await watch(agent_with(invite, model=script))

    assert taken == [ADA]
    assert [result.text for result in results(watched)] == [
        "invalid arguments: `guest.guestName`: Bob is not invited",
        '{"name":"Ada","age":18}',
    ]


async def test_a_person_approves_a_model_as_json_and_may_change_it() -> None:
    taken: list[Guest] = []

    @tool(requires_approval=True)
    async def invite(guest: Guest) -> None:
        taken.append(guest)

    async def approve(question: Question) -> Approve:
        assert isinstance(question, ApprovalRequested)
        assert question.arguments == {"guest": {"guestName": "Eve"}}
        return Approve(arguments={"guest": {"guestName": "Ada"}})

    agent = agent_with(invite, model=ScriptedModel(calls("invite", guest={"guestName": "Eve"}), "ok"))
    await agent.run("go", on_question=approve)

    assert taken == [ADA]


async def test_a_form_refuses_an_answer_that_its_validators_refuse_and_asks_on() -> None:
    given: list[object] = []

    @tool
    async def ask(context: ToolContext[None]) -> str:
        given.append(await context.ask_for("Who are you?", Guest))
        return "ok"

    async with agent_with(ask).stream("go") as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                assert event.form["required"] == ["guestName"]
                with pytest.raises(InvalidAnswerError, match="`guestName`: Bob is not invited"):
                    stream.answer(event.id, Accept({"guestName": "Bob"}))
                stream.answer(event.id, Accept({"guestName": "Ada", "age": 18.0}))

    assert given == [ADA]


async def test_the_output_of_a_child_is_a_model_and_text_for_the_model_around_it() -> None:
    inner = Agent(ScriptedModel('{"guestName": "Ada"}'), name="inner", output_type=Guest)

    watched = await watch(agent_with(inner.as_tool(), response=calls("inner", prompt="go")))

    assert results(watched)[0].text == '{"name":"Ada","age":18}'


async def test_a_tool_recalls_the_model_that_it_remembered() -> None:
    recalled: list[object] = []

    @tool
    async def book(context: ToolContext[Any]) -> str:
        recalled.append(context.recall("guest", Guest))
        if recalled == [None]:
            await context.remember("guest", ADA)
        return str(await context.ask("Well?"))

    agent = agent_with(book)
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        parked = await agent.run("go", session=session, on_question="park")
        await agent.resume(session, {parked.questions[0].id: Accept()})

    assert recalled == [None, ADA]
