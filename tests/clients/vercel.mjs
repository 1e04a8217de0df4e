// ai and @ai-sdk/react: text, a tool, an approval in the page, and a second reader of a run.
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

const api = process.argv[2] + "/vercel";
const errors = [];
const made = (id) => new Chat({
  id, transport: new DefaultChatTransport({ api }), onError: (error) => errors.push(String(error)),
});
const parts = (chat) => chat.messages.map((message) => [message.role, message.parts.map((part) => ({
  type: part.type, text: part.text, state: part.state, output: part.output,
}))]);

const chat = made("vercel-chat");
await chat.sendMessage({ text: "hello" });
const text = parts(chat);
await chat.sendMessage({ text: "please add" });
const add = parts(chat).at(-1);
await chat.sendMessage({ text: "please pay" });
const asked = chat.messages.at(-1).parts.find((part) => part.state === "approval-requested");
const before = chat.messages.length;
await chat.addToolApprovalResponse({ id: asked.approval.id, approved: true });
await chat.sendMessage();
const paid = parts(chat).at(-1);
const grew = chat.messages.length - before;

await chat.sendMessage({ text: "please pay" });
const again = chat.messages.at(-1).parts.find((part) => part.state === "approval-requested");
await chat.addToolApprovalResponse({ id: again.approval.id, approved: false, reason: "too much" });
await chat.sendMessage();
const denied = parts(chat).at(-1);
const status = chat.status;

// A second page reads the run of the first one, while it goes on.
const first = made("vercel-shared");
const sending = first.sendMessage({ text: "be slow" });
await new Promise((done) => setTimeout(done, 400));
const second = made("vercel-shared");
const resuming = second.resumeStream();
await new Promise((done) => setTimeout(done, 400));
const shared = parts(second).at(-1);
await first.stop();
await second.stop();
await sending;
await resuming;
console.log(JSON.stringify({ text, add, paid, grew, denied, status, shared, errors }));
