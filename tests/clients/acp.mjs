// The client of an editor starts the command, and prints what it has seen.
import { spawn } from "node:child_process";
import { Readable, Writable } from "node:stream";
import * as acp from "@agentclientprotocol/sdk";

const [, , program, ...args] = process.argv;
const agent = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
const ended = new Promise((resolve) => agent.on("exit", resolve));
const { agent: ours, client: theirs } = acp.methods;
const seen = { updates: [], permissions: [] };
let calling;
const called = new Promise((resolve) => { calling = resolve; });

await acp.client({ name: "editor" })
  .onRequest(theirs.session.requestPermission, (request) => {
    const { toolCall, options } = request.params;
    seen.permissions.push([toolCall.title, toolCall.rawInput]);
    return { outcome: { outcome: "selected", optionId: options[0].optionId } };
  })
  .onNotification(theirs.session.update, (notification) => {
    const { update } = notification.params;
    seen.updates.push([update.sessionUpdate, update.content?.text ?? update.status ?? ""]);
    if (update.title === "slow") calling();
  })
  .connectWith(acp.ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(agent.stdout)), async (context) => {
    const started = await context.request(ours.initialize, { protocolVersion: acp.PROTOCOL_VERSION, clientCapabilities: {} });
    seen.version = started.protocolVersion;
    const { sessionId } = await context.request(ours.session.new, { cwd: "/", mcpServers: [] });
    const prompt = (text) => context.request(ours.session.prompt, { sessionId, prompt: [{ type: "text", text }] });
    seen.paid = await prompt("pay");
    const slow = prompt("slow");
    await called;
    await context.notify(ours.session.cancel, { sessionId });
    seen.cancelled = await slow;
    seen.refused = await context.request(ours.session.load, { sessionId: "another", cwd: "/", mcpServers: [] }).catch((error) => error.code);
  });
agent.stdin.end();
seen.code = await ended;
console.log(JSON.stringify(seen));
