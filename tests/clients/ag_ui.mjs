// @ag-ui/client: text, a tool, an approval in a second request, and an abort.
import { HttpAgent } from "@ag-ui/client";

const url = process.argv[2] + "/ag-ui";
const seen = [];
const watch = { onEvent: ({ event }) => { seen.push(event); } };
const types = () => seen.splice(0).map((event) => event.type);

const agent = new HttpAgent({ url, threadId: "ag-ui-thread" });
agent.addMessage({ id: "1", role: "user", content: "please add" });
await agent.runAgent({ runId: "r1" }, watch);
const add = types();

agent.addMessage({ id: "2", role: "user", content: "please pay" });
await agent.runAgent({ runId: "r2" }, watch);
const { outcome } = seen.find((event) => event.type === "RUN_FINISHED");
seen.splice(0);
const resume = [{ interruptId: outcome.interrupts[0].id, status: "resolved", payload: { approved: true } }];
await agent.runAgent({ runId: "r3", resume }, watch);
const resumed = types();

agent.addMessage({ id: "3", role: "user", content: "hello" });
await agent.runAgent({ runId: "r4" }, watch);
const thinking = types();
const messages = agent.messages.map((message) => [message.role, message.content ?? message.toolCalls]);

const other = new HttpAgent({ url, threadId: "ag-ui-aborted" });
other.addMessage({ id: "1", role: "user", content: "be slow" });
setTimeout(() => other.abortRun(), 400);
try { await other.runAgent({ runId: "r5" }); } catch { /* an abort may be an error */ }
console.log(JSON.stringify({ add, outcome, resumed, thinking, messages }));
