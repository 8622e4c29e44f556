// A shop in Express with no code of Amplitude's: it asks itself, and the user is set in a handler, on a child of the request's span.
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { ExpressInstrumentation } = require("@opentelemetry/instrumentation-express");
const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation({ignoreOutgoingRequestHook: () => true}), new ExpressInstrumentation()] });
sdk.start();
const { trace } = require("@opentelemetry/api");
const express = require("express");
const app = express();
app.get("/products/:name", (request, response) => {
  trace.getActiveSpan().setAttribute("enduser.id", request.get("x-user"));
  response.send("tea");
});
const server = app.listen(0, "127.0.0.1", async () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const total = Number(process.argv[2]);
  for (let i = 0; i < total; i += 1) await (await fetch(`${url}/products/p${i}`, { headers: { "x-user": `user-${String(i % 100).padStart(4, "0")}` } })).text();
  server.close();
  await sdk.shutdown().catch((e) => console.log("lost", e));
  console.log("done");
});
