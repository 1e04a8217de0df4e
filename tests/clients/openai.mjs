// openai for JavaScript: chat completions and responses, whole and streamed, and an abort.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });
const model = "assistant";
const user = (content) => [{ role: "user", content }];

const models = (await client.models.list()).data.map((one) => one.id);
let streamed = "";
let counted = null;
const options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({
  model, stream: true, stream_options: options, messages: user("hello"),
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  counted = chunk.usage ?? counted;
}
const helper = client.chat.completions.stream({ model, messages: user("please add") });
const final = (await helper.finalChatCompletion()).choices[0];
const whole = await client.chat.completions.create({ model, messages: user("please add") });

const deltas = [];
const stream = client.responses.stream({ model, input: "please add" });
stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
const response = await stream.finalResponse();
const next = await client.responses.create({ model, input: "hello", previous_response_id: response.id });

const refused = [];
for (const body of [{ model: "nobody", messages: user("hello") }, { model, messages: [] }]) {
  try { await client.chat.completions.create(body); } catch (error) { refused.push([error.status, error.message]); }
}
const controller = new AbortController();
setTimeout(() => controller.abort(), 400);
let aborted = false;
try {
  const slow = await client.chat.completions.create(
    { model, stream: true, messages: user("be slow") }, { signal: controller.signal });
  for await (const _ of slow) { /* nothing comes */ }
} catch { aborted = true; }
aborted ||= controller.signal.aborted;
console.log(JSON.stringify({
  models, streamed, counted, final: final.message.content, finish: final.finish_reason,
  whole: whole.choices[0].message.content, usage: whole.usage.total_tokens,
  deltas, output: response.output_text, total: response.usage.total_tokens,
  next: next.output_text, refused, aborted,
}));
