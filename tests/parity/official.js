// Makes the calls of a JSON file with Amplitude's own client for Node, unchanged; prints what the client said about each.
const fs = require("fs");
const { init } = require("@amplitude/node");
const { Identify } = require("@amplitude/identify");
const { calls, url } = JSON.parse(fs.readFileSync(0, "utf8"));

const identifyOf = (operations) => operations.reduce((made, [name, ...values]) => made[name](...values), new Identify());

// What this client has no method for, its users write as the event.
const eventOf = (call) => {
  switch (call.call) {
    case "identify":
      return identifyOf(call.operations).identifyUser(call.user);
    case "set_group":
      return new Identify().setGroup(...call.group).identifyUser(call.user);
    case "group_identify":
      return { ...identifyOf(call.operations).identifyGroup(...call.group), user_id: call.user };
    case "revenue": {
      const properties = Object.entries(call.revenue).map(([name, value]) => ["$" + name, value]);
      return { event_type: "revenue_amount", user_id: call.user, event_properties: Object.fromEntries(properties) };
    }
    default:
      return call.user === null ? { ...call.event } : { ...call.event, user_id: call.user };
  }
};

(async () => {
  const said = {};
  const seen = {};
  for (const call of calls) {
    const client = init("some-key", { serverUrl: url, retryTimeouts: [10, 10], logLevel: 0 });
    client.addEventMiddleware((payload, next) => {
      if (payload.extra) seen[call.name] = payload.extra;
      next(payload);
    });
    const answer = await client.logEvent(eventOf(call), call.extra).catch((error) => ({ status: "error", error: String(error) }));
    said[call.name] = `${answer.status} ${answer.statusCode || ""}`.trim();
  }
  console.log(JSON.stringify({ said, seen }));
})();
