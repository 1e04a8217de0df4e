// @a2a-js/sdk: a message, a stream, a question answered by data and one by text, a task cancelled, and one resubscribed to.
import { ClientFactory } from "@a2a-js/sdk/client";

const client = await new ClientFactory().createFromUrl(process.argv[2]);
const text = (value) => ({ content: { $case: "text", value }, filename: "", mediaType: "", metadata: undefined });
const data = (value) => ({ content: { $case: "data", value }, filename: "", mediaType: "", metadata: undefined });
const message = (parts, { taskId = "", contextId = "", returnImmediately = false } = {}) => ({
  message: {
    messageId: crypto.randomUUID(), role: 1, parts, taskId, contextId,
    extensions: [], referenceTaskIds: [], metadata: undefined,
  },
  tenant: "", metadata: undefined,
  configuration: { returnImmediately, acceptedOutputModes: [], taskPushNotificationConfig: undefined },
});
const words = (task) => task.artifacts.flatMap(({ parts }) => parts.map(({ content }) => content.value)).join("");
const error = async (promise) => { try { await promise; } catch (caught) { return [caught.name, caught.message]; } };

const said = await client.sendMessage(message([text("hello")], { contextId: "js-context" }));

const streamed = [];
for await (const { payload } of client.sendMessageStream(message([text("please add")]))) {
  const { value } = payload;
  streamed.push([payload.$case, value.status?.state ?? value.artifact.parts[0].content.value]);
}

const asked = await client.sendMessage(message([text("please pay")], { contextId: "js-context" }));
const question = asked.status.message.parts[1].content.value;
const answers = [data({ question: question.question, action: "approve" })];
let paid;
for await (const { payload } of client.sendMessageStream(message(answers, { taskId: asked.id }))) paid = payload;
const got = await client.getTask({ id: asked.id, tenant: "" });

const again = await client.sendMessage(message([text("please pay")]));
const denied = await client.sendMessage(message([text("no, that is too much")], { taskId: again.id }));

const slow = await client.sendMessage(message([text("be slow")], { returnImmediately: true }));
const followed = [];
const following = (async () => {
  for await (const { payload } of client.resubscribeTask({ id: slow.id, tenant: "" })) followed.push(payload.value.status.state);
})();
const busy = await error(client.sendMessage(message([text("hello")], { taskId: slow.id })));
const cancelled = await client.cancelTask({ id: slow.id, tenant: "", metadata: undefined });
await following;

const parked = await client.sendMessage(message([text("please pay")]));
const dropped = await client.cancelTask({ id: parked.id, tenant: "", metadata: undefined });
const listed = await client.listTasks({
  tenant: "", contextId: "js-context", status: 0, pageToken: "", pageSize: 1, includeArtifacts: true,
});

console.log(JSON.stringify({
  said: words(said), streamed, question, paid: words(got), last: [paid.$case, paid.value.status.state],
  denied: words(denied), slow: slow.status.state, followed, busy,
  cancelled: [cancelled.status.state, dropped.status.state],
  listed: [listed.tasks.map(words), listed.totalSize],
  errors: [
    await error(client.getTask({ id: "none", tenant: "" })),
    await error(client.cancelTask({ id: slow.id, tenant: "", metadata: undefined })),
  ],
}));
