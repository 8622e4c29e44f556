// Amplitude's own Node clients, unchanged, against the URL given: one event, one identify and one group each, then a flush.
const url = process.argv[2];
const legacy = require("@amplitude/node");
const { Identify } = require("@amplitude/identify");
const current = require("@amplitude/analytics-node");

(async () => {
  const old = legacy.init("some-key", { serverUrl: url });
  await old.logEvent({ event_type: "Old Node", user_id: "customer-old", device_id: "device-old", insert_id: "old-1" });
  await old.identify("customer-old", "device-old", new Identify().set("plan", "pro").add("orders", 2));
  await old.flush();
  await current.init("some-key", { serverUrl: url, flushIntervalMillis: 10, logLevel: 0 }).promise;
  const person = { user_id: "customer-new", device_id: "device-new" };
  await current.track("New Node", { n: 1 }, person).promise;
  await current.identify(new current.Identify().set("plan", "free").append("seen", "node"), person).promise;
  await current.groupIdentify("org", "node", new current.Identify().set("size", 3), person).promise;
  await current.flush().promise;
})();
