// Does one round with each official TypeScript client, and says what came of it.
// Usage: node clients.mjs MODULES URL KEY
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url, key] = process.argv.slice(2);
const require = createRequire(modules + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
const words = (result) => result.content.map((part) => part.text ?? part.type).join(" ");

async function round(name, client, transport) {
  await client.connect(transport);
  console.log(`${name}: tools`, (await client.listTools()).tools.length);
  console.log(`${name}:`, words(await client.callTool({ name: "test_simple_text", arguments: {} })));
  console.log(`${name}:`, (await client.readResource({ uri: "test://static-text" })).contents[0].text);
  const prompt = await client.getPrompt({ name: "test_simple_prompt" });
  console.log(`${name}:`, prompt.messages[0].content.text);
  await transport.terminateSession?.();
  await client.close();
}

const who = { name: "obleth-tests", version: "1" };
{
  const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
  await round("typescript, first", new Client(who), new StreamableHTTPClientTransport(new URL(url), { requestInit }));
}
{
  const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
  const transport = () => new StreamableHTTPClientTransport(new URL(url), { requestInit });
  await round("typescript, second", new Client(who), transport());
  const newer = new Client(who, { versionNegotiation: { mode: "auto" } });
  await round("typescript, second, newer", newer, transport());
}
