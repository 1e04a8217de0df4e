"""The clients of the A2A project, for JavaScript and for Python, talk to a server of ``python -m agentloop serve``."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

pytestmark = pytest.mark.real_clock

# Only this session of nox has the package.
a2a: Any = import_module("a2a.types")
a2a_client: Any = import_module("a2a.client")
a2a_errors: Any = import_module("a2a.utils.errors")
helpers: Any = import_module("a2a.helpers")
json_format: Any = import_module("google.protobuf.json_format")


def test_the_client_for_javascript_sends_streams_answers_and_cancels(run_script: Callable[[str], Any]) -> None:
    seen = run_script("a2a.mjs")
    working, completed, cancelled = 2, 3, 5
    assert seen["said"] == "You said: hello"
    kinds = [kind for kind, _ in seen["streamed"]]
    assert kinds == ["task", *["artifactUpdate"] * 5, "statusUpdate"]
    assert "".join(value for _, value in seen["streamed"][1:-1]) == "The result is 5."
    assert (seen["streamed"][0][1], seen["streamed"][-1][1]) == (working, completed)
    assert (seen["question"]["tool"], seen["question"]["arguments"]) == ("pay", {"amount": 5})
    assert (seen["paid"], seen["last"]) == ("The result is paid 5.", ["statusUpdate", completed])
    assert seen["denied"] == "The result is Denied by the user: no, that is too much."
    assert (seen["slow"], seen["followed"], seen["cancelled"]) == (working, [working, cancelled], [cancelled] * 2)
    assert seen["listed"] == [["The result is paid 5."], 2]
    names = [name for name, _ in [seen["busy"], *seen["errors"]]]
    assert names == ["UnsupportedOperationError", "TaskNotFoundError", "TaskNotCancelableError"]


def message(*parts: Any, task: str = "", context: str = "") -> Any:
    written = [helpers.new_text_part(part) if isinstance(part, str) else part for part in parts]
    sent = a2a.Message(message_id="1", role=a2a.Role.ROLE_USER, parts=written, task_id=task, context_id=context)
    return a2a.SendMessageRequest(message=sent)


def test_the_client_for_python_sends_streams_answers_and_cancels(server: str) -> None:
    # Under asyncio: the client leaves async generators open, which trio warns of.
    asyncio.run(talk(server))


async def talk(server: str) -> None:
    client = await a2a_client.create_client(server)

    async def send(request: Any) -> list[Any]:
        return [event async for event in client.send_message(request)]

    first, *updates, last = await send(message("please add", context="python-context"))
    assert first.task.status.state == a2a.TaskState.TASK_STATE_WORKING
    assert "".join(update.artifact_update.artifact.parts[0].text for update in updates) == "The result is 5."
    assert last.status_update.status.state == a2a.TaskState.TASK_STATE_COMPLETED

    asked = (await send(message("please pay", context="python-context")))[-1].status_update
    assert asked.status.state == a2a.TaskState.TASK_STATE_INPUT_REQUIRED
    question = json_format.MessageToDict(asked.status.message.parts[1].data)
    answer = helpers.new_data_part({"question": question["question"], "action": "approve"})
    with pytest.raises(a2a_errors.UnsupportedOperationError):
        await send(message("again", task=first.task.id))
    await send(message(answer, task=asked.task_id))
    got = await client.get_task(a2a.GetTaskRequest(id=asked.task_id))
    assert got.artifacts[0].parts[0].text == "The result is paid 5."
    roles = [a2a.Role.ROLE_USER, a2a.Role.ROLE_AGENT, a2a.Role.ROLE_USER]
    assert [said.role for said in got.history] == roles

    polling = await a2a_client.create_client(server, a2a_client.ClientConfig(streaming=False, polling=True))
    [begun] = [event async for event in polling.send_message(message("be slow"))]
    slow = begun.task.id
    # The run goes on without its reader.
    assert (await anext(client.subscribe(a2a.SubscribeToTaskRequest(id=slow)))).task.id == slow
    states: list[int] = []
    async for event in client.subscribe(a2a.SubscribeToTaskRequest(id=slow)):
        if event.HasField("task"):
            states.append(event.task.status.state)
            await client.cancel_task(a2a.CancelTaskRequest(id=slow))
        elif event.HasField("status_update"):
            states.append(event.status_update.status.state)
    assert states == [a2a.TaskState.TASK_STATE_WORKING, a2a.TaskState.TASK_STATE_CANCELED]

    listed = await client.list_tasks(a2a.ListTasksRequest(context_id="python-context"))
    assert [task.id for task in listed.tasks] == [asked.task_id, first.task.id]
    with pytest.raises(a2a_errors.TaskNotFoundError):
        await client.get_task(a2a.GetTaskRequest(id="none"))
    await polling.close()
    await client.close()


def test_cards_and_tasks_have_no_field_that_the_schema_does_not_know(server: str) -> None:
    def fetch(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(server + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def call(method: str, **params: Any) -> Any:
        return fetch("/a2a", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})["result"]

    parts = [{"text": "pay"}, {"data": [1]}, {"raw": "aGk=", "mediaType": "image/png"}, {"text": "please pay"}]
    sent = {"messageId": "1", "role": "ROLE_USER", "parts": parts, "contextId": "strict"}
    asked = call("SendMessage", message=sent)
    json_format.ParseDict(asked, a2a.SendMessageResponse())
    answer = {**sent, "taskId": asked["task"]["id"], "parts": [{"text": "yes"}]}
    assert call("SendMessage", message=answer)["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    json_format.ParseDict(call("GetTask", id=asked["task"]["id"]), a2a.Task())
    json_format.ParseDict(call("ListTasks", contextId="strict", includeArtifacts=True), a2a.ListTasksResponse())
    json_format.ParseDict(fetch("/.well-known/agent-card.json"), a2a.AgentCard())
