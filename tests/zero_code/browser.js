// What a browser with Amplitude's SDK does: sends a page view of its session to the URL given, and leaves its cookie behind (printed).
const { CookieStorage, getCookieName } = require("@amplitude/analytics-core");
const [url, key, user] = process.argv.slice(2);
const session = { deviceId: "browser-of-node", userId: user, sessionId: Date.now() - 60000, optOut: false, lastEventTime: Date.now(), lastEventId: 7 };
let cookie = "";
globalThis.document = {
  get cookie() { return cookie; },
  set cookie(text) { cookie = text.split(";")[0]; },
};

(async () => {
  await new CookieStorage({ expirationDays: 365, sameSite: "Lax" }).set(getCookieName(key), session);
  const event = {
    event_type: "[Amplitude] Page Viewed", device_id: session.deviceId, user_id: user, session_id: session.sessionId,
    time: session.sessionId, insert_id: "page-1", platform: "Web", language: "de-DE",
  };
  const answer = await fetch(url, { method: "POST", body: JSON.stringify({ api_key: key, events: [event] }), headers: { "Content-Type": "application/json" } });
  console.log(JSON.stringify({ cookie, status: answer.status, session: session.sessionId }));
})();
