// openai-node, unmodified: models, a reply, a stream, a completion and an error.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ apiKey: "none" });
const model = process.env.MODEL;
const messages = [{ role: "user", content: "What is 12 * 13?" }];

const names = (await client.models.list()).data.map((each) => each.id);
assert(names.includes(model), names);
const reply = await client.chat.completions.create({ model, messages, temperature: 0 });
assert(reply.choices[0].message.content);
let text = "";
const stream = await client.chat.completions.create({
  model, messages, temperature: 0, stream: true, stream_options: { include_usage: true },
});
let usage;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, reply.choices[0].message.content);
assert(usage.completion_tokens > 0);
const raw = await client.completions.create({ model, prompt: "Hello", max_tokens: 4, logprobs: 2, echo: true });
assert.equal(raw.choices[0].logprobs.token_logprobs[0], null);
await assert.rejects(client.chat.completions.create({ model: "another", messages }), OpenAI.NotFoundError);
