// A door in front of gateways for clients that cannot send a key: adds it to every request and passes everything else on as it
// comes, Host and Origin included. Several gateways are asked in turn, request by request.
// Usage: node front.mjs KEY PORT...   Prints the port that it listens on.
import http from "node:http";

const [key, ...ports] = process.argv.slice(2);
let turn = 0;

const server = http.createServer((request, response) => {
  const headers = [...request.rawHeaders, "Authorization", `Bearer ${key}`];
  const port = ports[turn++ % ports.length];
  const onward = http.request({ host: "127.0.0.1", port, method: request.method, path: request.url, headers, setHost: false, agent: false });
  onward.on("response", (answer) => {
    response.writeHead(answer.statusCode, answer.rawHeaders);
    response.flushHeaders();
    answer.pipe(response);
    answer.on("error", () => response.destroy());
    answer.on("aborted", () => response.destroy());
  });
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});
server.requestTimeout = 0;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
