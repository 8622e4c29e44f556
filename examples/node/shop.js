// A shop in Express, traced by OpenTelemetry, with no Amplitude code: it exports OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT says.
// A middleware says who is logged in, as it would for any tracing backend.
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { ExpressInstrumentation } = require("@opentelemetry/instrumentation-express");

const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation(), new ExpressInstrumentation()] });
sdk.start();

const { trace } = require("@opentelemetry/api");
const express = require("express");

const app = express();
const carts = new Map();

app.use((request, response, next) => {
  const user = request.get("x-user"); // a session's user, in a real shop
  if (user) trace.getActiveSpan().setAttribute("enduser.id", user);
  next();
});
app.get("/products/:name", (request, response) => response.send(`${request.params.name} costs 12.50\n`));
app.post("/cart/:name", (request, response) => {
  carts.set(request.get("x-user"), (carts.get(request.get("x-user")) ?? 0) + 12.5);
  response.send("in the cart\n");
});
app.post("/orders", (request, response) => {
  trace.getActiveSpan().setAttribute("cart.total", carts.get(request.get("x-user")) ?? 0);
  response.send("paid\n");
});

const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => console.log(`shop: http://127.0.0.1:${server.address().port}`));
process.on("SIGTERM", () => {
  server.close();
  // forceFlush rejects with an array when an export failed: without a handler, that ends the process.
  sdk.shutdown().catch((error) => console.error("not everything was exported:", error)).finally(() => process.exit(0));
});
