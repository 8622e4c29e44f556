// Writes a cookie as the browser SDK does, or reads one: node browser_cookie.js write <name's key> <json> | read <name's key> <cookie>
const { CookieStorage, getCookieName } = require("@amplitude/analytics-core");

let jar = "";
globalThis.window = globalThis;
globalThis.document = {
  get cookie() { return jar; },
  set cookie(text) { jar = text.split(";")[0]; },
};

const [, , verb, key, text] = process.argv;
const storage = new CookieStorage({ domain: "", expirationDays: 365, sameSite: "Lax" });
if (verb === "write") {
  storage.set(getCookieName(key), JSON.parse(text)).then(() => console.log(jar));
} else {
  jar = text;
  storage.get(getCookieName(key)).then((session) => console.log(JSON.stringify(session)));
}
