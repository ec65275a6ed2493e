// One call of `openai` from npm a line of standard input, {"name", "options"}; what came of each, a line of JSON.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/`);
const { OpenAI, toFile } = await import(pathToFileURL(require.resolve("openai")).href);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const server = JSON.parse((await lines.next()).value);
const client = new OpenAI({ baseURL: server.url, apiKey: server.key, maxRetries: 0, timeout: 300_000 });

const calls = {
  models: async () => (await client.models.list()).data.map((one) => one.id),
  retrieve: ({ model }) => client.models.retrieve(model),
  chat: (options) => client.chat.completions.create(options),
  completion: (options) => client.completions.create(options),
  embedding: async (options) => (await client.embeddings.create(options)).data[0].embedding.length,
  response: async (options) => (await client.responses.create(options)).output_text,
  transcription: async ({ model, text }) =>
    (await client.audio.transcriptions.create({ model, file: await toFile(Buffer.from(text), "a.wav") })).text,
  streamed: async (options) => {
    const found = [];
    for await (const chunk of await client.chat.completions.create({ ...options, stream: true })) found.push(chunk);
    return found;
  },
  response_events: async (options) => {
    const found = [];
    for await (const event of await client.responses.create({ ...options, stream: true })) found.push(event.type);
    return found;
  },
  left: async (options) => {
    let count = 0;
    for await (const _ of await client.chat.completions.create({ ...options, stream: true })) if (++count === 3) break;
    return count;
  },
  with_key: async ({ key, ...options }) => client.withOptions({ apiKey: key }).chat.completions.create(options),
};

for await (const line of lines) {
  const { name, options } = JSON.parse(line);
  let told;
  try {
    told = { value: await calls[name](options) };
  } catch (error) {
    told = { error: error.constructor.name, status: error.status ?? null, message: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
