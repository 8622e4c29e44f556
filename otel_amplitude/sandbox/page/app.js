// The sandbox's page. Everything that arrived from outside is shown as text, never as markup: nodes are made by `h` alone.

const TOKEN = document.querySelector('meta[name="sandbox-token"]').content;
const UPLOAD = `${location.origin}/2/httpapi`;
const MAX_ROWS = 300;
const $ = (id) => document.getElementById(id);

// ---------------------------------------------------------------------------------------------------------------- tools

function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

const number = (value) => Number(value).toLocaleString("en");
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const two = (value) => String(value).padStart(2, "0");

function clock(seconds, withDate = false) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "no time";
  const text = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return withDate ? `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${text}` : text;
}

let toast;
function say(text) {
  $("said").textContent = text;
  $("said").classList.add("shown");
  clearTimeout(toast);
  toast = setTimeout(() => $("said").classList.remove("shown"), 1800);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not every browser lends its clipboard: the old way, with a field that is gone at once.
    const field = h("textarea", { class: "skip", readonly: true });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say(`${what} copied`);
}

const copyButton = (text, what, label = "Copy") => h("button", { type: "button", onclick: () => copy(text, what) }, label);

async function ask(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined));
  const response = await fetch(`${path}?${query}`);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function tell(path, body) {
  const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", "X-Sandbox-Token": TOKEN }, body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function throttled(work, pause) {
  let timer = null;
  let again = false;
  const run = async () => {
    try { await work(); } catch { /* the stream tells when the sandbox is gone */ }
    timer = setTimeout(() => { timer = null; if (again) { again = false; start(); } }, pause);
  };
  const start = () => { if (timer === null) { timer = 0; run(); } else again = true; };
  return start;
}

// ----------------------------------------------------------------------------------------------------------------- tabs

const VIEWS = ["events", "catalog", "timeline", "problems", "faults"];
const refreshers = { catalog: throttled(drawCatalog, 1000), timeline: throttled(drawTimeline, 1000), problems: throttled(drawProblems, 1000), faults: throttled(drawFaults, 500) };
const current = () => VIEWS.find((view) => location.hash.slice(1).split("/")[0] === view) ?? "events";

function show() {
  for (const view of VIEWS) {
    const chosen = view === current();
    $(`view-${view}`).hidden = !chosen;
    $(`tab-${view}`).setAttribute("aria-selected", String(chosen));
    $(`tab-${view}`).tabIndex = chosen ? 0 : -1;
  }
  const [, user] = location.hash.slice(1).split("/");
  if (current() === "timeline" && user) $("who").elements.user.value = decodeURIComponent(user);
  refreshers[current()]?.();
}

for (const view of VIEWS) {
  $(`tab-${view}`).addEventListener("click", () => { location.hash = view; });
  $(`tab-${view}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(VIEWS.indexOf(view) + step + VIEWS.length) % VIEWS.length];
    location.hash = next;
    $(`tab-${next}`).focus();
  });
}
addEventListener("hashchange", show);

// --------------------------------------------------------------------------------------------------------------- events

const state = { last: 0, epoch: 0, paused: false, missed: 0, rows: [], chosen: null, asked: 0, run: null };
const filters = () => Object.fromEntries([...new FormData($("filters"))].map(([name, value]) => [name, value.trim()]));

function matches(row, wanted) {
  const within = (value, part) => !part || String(value ?? "").toLowerCase().includes(part.toLowerCase());
  return (!wanted.type || row.type === wanted.type) && (!wanted.verdict || row.verdict === wanted.verdict)
    && within(row.user, wanted.user) && within(row.device, wanted.device) && (!wanted.text || within(JSON.stringify(row.sent), wanted.text));
}

function verdict(row) {
  const changes = row.notes.filter((note) => note.kind === "changed").length;
  if (row.verdict === "rejected") return h("span", { class: "badge rejected" }, "rejected");
  if (row.verdict === "duplicate") return h("span", { class: "badge" }, "duplicate");
  if (changes) return h("span", { class: "badge changed" }, plural(changes, "change"));
  return row.notes.length ? h("span", { class: "badge" }, plural(row.notes.length, "note")) : h("span", { class: "badge accepted" }, "as sent");
}

const badge = (kind) => h("span", { class: `badge ${kind}` }, kind);

function drawRow(row, fresh) {
  const button = h("button", { type: "button", class: "row", "data-seq": row.seq, onclick: () => choose(row) },
    h("time", { datetime: new Date(row.at * 1000).toISOString() }, clock(row.at)),
    h("span", { class: "name", title: row.type }, row.type ?? "(no type)"),
    h("span", { class: "who", title: row.user ?? row.device }, row.user ?? row.device ?? "nobody"),
    h("span", { class: "origin" }, badge(row.origin)),
    h("span", { class: "verdict" }, verdict(row)));
  if (state.chosen === row.seq) button.setAttribute("aria-current", "true");
  return h("li", { class: fresh ? "fresh" : "" }, button);
}

function drawEmpty() {
  const nothing = state.rows.length === 0;
  $("empty").hidden = !nothing;
  if (!nothing) return;
  if (Object.values(filters()).some(Boolean)) {
    $("empty").replaceChildren(h("p", { class: "nothing" }, "No event matches these filters."));
    return;
  }
  const environment = `export OTEL_EXPORTER_AMPLITUDE_API_KEY=sandbox\nexport OTEL_EXPORTER_AMPLITUDE_SERVER_URL=${UPLOAD}`;
  const curl = `curl ${UPLOAD} -H 'Content-Type: application/json' -d '{"api_key": "sandbox", "events": [{"event_type": "Hello", "user_id": "customer-42"}]}'`;
  $("empty").replaceChildren(
    h("h2", {}, "Waiting for the first event"),
    h("p", { class: "muted" }, "This page shows what Amplitude would take, change or reject. Any API key will do, and nothing leaves your machine."),
    h("ol", {},
      h("li", {}, h("div", {}, h("h3", {}, "Point your service here"), h("pre", {}, environment), copyButton(environment, "Settings"))),
      h("li", {}, h("div", {}, h("h3", {}, "Use it: click through your application"), h("p", { class: "muted" }, "Events appear here as they arrive. No service at hand? Send one from a shell, or from this page."), h("pre", {}, curl),
        h("div", { class: "actions" }, copyButton(curl, "Command"), h("button", { type: "button", class: "primary", id: "send-test", onclick: sendTest }, "Send a test event")))),
      h("li", {}, h("div", {}, h("h3", {}, "Break something"), h("p", { class: "muted" }, "The Faults tab makes this server fail in the ways the real one does, so that you can watch nothing get lost."))),
    ));
}

async function sendTest() {
  const event = { event_type: "Hello", user_id: "customer-42", device_id: "this-page", time: Date.now(), insert_id: crypto.randomUUID(), library: "amplitude-ts/sandbox-page", event_properties: { from: "the sandbox page" } };
  const response = await fetch("/2/httpapi", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ api_key: "sandbox", events: [event] }) });
  if (!response.ok) say(`The sandbox answered ${response.status}`);
}

function drawRows() {
  $("events").replaceChildren(...state.rows.map((row) => drawRow(row, false)));
  drawEmpty();
}

async function refetch() {
  const asked = ++state.asked;
  const wanted = filters();
  const answer = await ask("/api/events", { ...wanted, limit: MAX_ROWS });
  if (asked !== state.asked) return;
  // What arrived since the answer was made is in neither of them twice.
  const newest = Math.max(0, ...answer.events.map((row) => row.seq));
  const newer = [...arrived, ...state.rows].filter((row) => row.seq > newest && matches(row, wanted));
  arrived = [];
  state.rows = [...newer, ...answer.events].slice(0, MAX_ROWS);
  state.last = Math.max(state.last, ...answer.events.map((row) => row.seq));
  state.missed = 0;
  drawWaiting();
  drawRows();
}

function drawWaiting() {
  $("waiting").hidden = !state.paused;
  $("waiting").textContent = state.missed ? `Paused: ${plural(state.missed, "new event")} waiting.` : "Paused: new events wait here.";
}

// Rows arrive faster than a screen can change: they are gathered and drawn once per frame.
let arrived = [];
function take(rows) {
  const wanted = filters();
  const fresh = rows.filter((row) => row.seq > state.last && matches(row, wanted));
  state.last = Math.max(state.last, ...rows.map((row) => row.seq));
  if (!fresh.length) return;
  if (state.paused) {
    state.missed += fresh.length;
    drawWaiting();
    return;
  }
  if (!arrived.length) requestAnimationFrame(drawArrived);
  arrived = [...fresh, ...arrived].slice(0, MAX_ROWS);
}

function drawArrived() {
  const list = $("events");
  state.rows = [...arrived, ...state.rows].slice(0, MAX_ROWS);
  list.prepend(...arrived.map((row) => drawRow(row, true)));
  while (list.children.length > MAX_ROWS) list.lastElementChild.remove();
  arrived = [];
  drawEmpty();
}

function pause() {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Go on" : "Pause";
  drawWaiting();
  if (!state.paused) refetch();
}

const later = (() => { let timer; return () => { clearTimeout(timer); timer = setTimeout(refetch, 150); }; })();
$("filters").addEventListener("input", later);
$("filters").addEventListener("reset", () => setTimeout(refetch));
$("filters").addEventListener("submit", (event) => { event.preventDefault(); refetch(); });
$("pause").addEventListener("click", pause);

$("events").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target.closest("li")?.[step];
  if (!next) return;
  event.preventDefault();
  next.querySelector("button").focus();
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.chosen) { close(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (current() !== "events") return;
  if (event.key === "/") { event.preventDefault(); $("filters").elements.text.focus(); }
  if (event.key === "p") pause();
});

// --------------------------------------------------------------------------------------------------------------- detail

function colour(text) {
  const parts = text.split(/("(?:[^"\\]|\\.)*"(?:\s*:)?|-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b)/);
  return parts.map((part, index) => {
    if (index % 2 === 0) return part;
    const kind = part.startsWith('"') ? (part.endsWith(":") ? "key" : "string") : /^[-\d]/.test(part) ? "number" : "other";
    return h("span", { class: kind }, part);
  });
}

const fact = (name, value, extra) => (value === null || value === undefined || value === "" ? [] : [h("dt", {}, name), h("dd", {}, value, extra)]);

function notes(row) {
  const lines = row.notes.map((note) => h("li", {}, h("span", { class: `badge ${note.kind}` }, note.kind), h("span", {}, note.words)));
  if (row.verdict === "duplicate") lines.unshift(h("li", {}, h("span", { class: "badge" }, "ignored"), h("span", {}, "This insert_id came from the same device within the last 7 days: answered 200, counted once.")));
  if (!lines.length) lines.push(h("li", {}, h("span", { class: "badge accepted" }, "as sent"), h("span", {}, "Amplitude would keep this event as it is.")));
  if (row.verdict === "rejected") lines.push(h("li", {}, h("span", { class: "badge" }, "note"), h("span", {}, "The whole request was rejected, its good events too: take this one out and send the others again.")));
  return h("ul", { class: "notes" }, lines);
}

function choose(row) {
  close(false);
  state.chosen = row.seq;
  document.querySelector(`[data-seq="${Number(row.seq)}"]`)?.setAttribute("aria-current", "true");
  const json = JSON.stringify(row.sent, null, 2);
  const person = row.user ?? row.device;
  $("detail").replaceChildren(
    h("div", {},
      h("div", { class: "heading" }, h("h2", {}, row.type ?? "(no type)"), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => close() }, "✕")),
      h("dl", { class: "facts" },
        fact("Verdict", row.verdict), fact("Received", clock(row.at, true)), fact("Event time", row.time === null ? "" : clock(row.time / 1000, true)),
        fact("User", row.user), fact("Device", row.device), fact("Session", row.session), fact("Sent by", row.sent.library ?? row.origin), fact("To", row.path),
        fact("Trace id", row.trace, row.trace ? copyButton(row.trace, "Trace id") : null)),
      person ? h("p", {}, h("button", { type: "button", class: "quiet link", onclick: () => { location.hash = `timeline/${encodeURIComponent(person)}`; } }, "See this user's timeline →")) : null),
    h("div", {}, h("div", { class: "heading" }, h("h3", {}, "What Amplitude does with it")), notes(row)),
    h("div", {}, h("div", { class: "heading" }, h("h3", {}, "What was sent"), copyButton(json, "JSON", "Copy JSON")), h("pre", { id: "json", tabindex: "0" }, colour(json))));
  $("detail").hidden = false;
  $("detail").scrollTop = 0;
  $("split").classList.add("open");
}

function close(focus = true) {
  const before = document.querySelector('.row[aria-current="true"]');
  before?.removeAttribute("aria-current");
  state.chosen = null;
  $("detail").hidden = true;
  $("split").classList.remove("open");
  if (focus) before?.focus();
}

// --------------------------------------------------------------------------------------------------------- totals, chart

let summary = null;
let received = 0;

async function drawSummary() {
  summary = await ask("/api/summary");
  received = performance.now();
  const refused = Object.values(summary.rejections).reduce((sum, count) => sum + count, 0);
  $("total-accepted").textContent = number(summary.accepted);
  $("total-duplicates").textContent = number(summary.duplicates);
  $("total-refused").textContent = number(refused);
  $("total-users").textContent = number(summary.user_count);
  $("problem-count").hidden = refused === 0;
  $("problem-count").textContent = number(refused);
  $("fault-count").hidden = summary.faults === 0;
  $("fault-count").textContent = number(summary.faults);
  fill($("type-list"), summary.types.map((type) => type.type));
  fill($("user-list"), summary.users);
  drawChart();
}

function fill(list, values) {
  const key = JSON.stringify(values);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...values.slice(0, 200).map((value) => h("option", { value })));
}

function drawChart() {
  if (!summary) return;
  const canvas = $("chart");
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colours = ["--accent", "--strong-line", "--bad"].map((name) => style.getPropertyValue(name).trim());
  const now = Math.floor(summary.now + (performance.now() - received) / 1000);
  const seconds = new Map(summary.seconds.map(([second, ...counts]) => [second, counts]));
  const shown = 120;
  const peak = Math.max(1, ...[...seconds.values()].map((counts) => counts[0] + counts[1] + counts[2]));
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = style.getPropertyValue("--line").trim();
  pen.fillRect(0, height - 1, width, 1);
  const step = width / shown;
  for (let index = 0; index < shown; index += 1) {
    const counts = seconds.get(now - shown + 1 + index);
    if (!counts) continue;
    let top = height;
    counts.forEach((count, kind) => {
      if (!count) return;
      const tall = Math.max(2, (count / peak) * (height - 4));
      top -= tall;
      pen.fillStyle = colours[kind];
      pen.fillRect(index * step, top, Math.max(1.5, step - 1.5), tall);
    });
  }
  const recent = [1, 2, 3].map((ago) => seconds.get(now - ago)?.[0] ?? 0);
  const rate = Math.round(recent.reduce((sum, count) => sum + count, 0) / 3);
  $("rate").textContent = `${number(rate)} events/s`;
  $("peak").textContent = seconds.size ? `last 2 minutes · peak ${number(peak)}/s` : "last 2 minutes";
  canvas.setAttribute("aria-label", `Events per second over the last two minutes: now ${rate}, at most ${peak}.`);
}

// -------------------------------------------------------------------------------------------------------------- catalog

const MONTH_SECONDS = 30 * 86400;
const open = new Set();

async function drawCatalog() {
  const { types } = await ask("/api/catalog");
  if (!types.length) {
    $("view-catalog").replaceChildren(h("div", { class: "card nothing" }, "No event types yet: each one appears here with its counts, users and properties."));
    return;
  }
  const most = types[0].count;
  const seconds = (Math.max(...types.map((type) => type.last ?? -Infinity)) - Math.min(...types.map((type) => type.first ?? Infinity))) / 1000;
  const aMonth = (count) => (seconds >= 1 ? number(Math.round((count / seconds) * MONTH_SECONDS)) : "–");
  const body = h("tbody");
  for (const type of types) {
    const inner = h("tr", { class: "inner", hidden: !open.has(type.type) }, h("td", { colspan: 5 }, drawProperties(type)));
    const toggle = h("button", { type: "button", "aria-expanded": String(open.has(type.type)), onclick: () => {
      if (!open.delete(type.type)) open.add(type.type);
      inner.hidden = !open.has(type.type);
      toggle.setAttribute("aria-expanded", String(open.has(type.type)));
    } }, type.type);
    const fillBar = h("i");
    fillBar.style.width = `${Math.max(2, (100 * type.count) / most)}%`;
    body.append(h("tr", {}, h("td", {}, toggle), h("td", { class: "optional" }, h("span", { class: "bar" }, fillBar)), h("td", { class: "figure" }, number(type.count)), h("td", { class: "figure" }, number(type.users)), h("td", { class: "figure optional" }, aMonth(type.count))), inner);
  }
  const focused = document.activeElement?.closest?.("#view-catalog button")?.textContent;
  $("view-catalog").replaceChildren(h("div", { class: "card flat" }, h("table", { class: "table", id: "types" },
    h("thead", {}, h("tr", {}, h("th", {}, "Event type"), h("th", { class: "optional" }, ""), h("th", { class: "figure" }, "Events"), h("th", { class: "figure" }, "Users"), h("th", { class: "figure optional" }, "A month, at this rate"))), body)),
    h("p", { class: "muted" }, `${plural(types.length, "type")} of the 2,000 that one Amplitude project indexes.`));
  if (focused) [...$("view-catalog").querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

function drawProperties(type) {
  if (!type.properties.length) return h("p", { class: "muted" }, "No event properties.");
  return h("table", { class: "table" },
    h("thead", {}, h("tr", {}, h("th", {}, "Property"), h("th", {}, "Type"), h("th", { class: "figure" }, "Present"), h("th", {}, "For example"))),
    h("tbody", {}, type.properties.map((property) => h("tr", {},
      h("td", { class: "mono" }, property.name), h("td", {}, property.types.join(", ")),
      h("td", { class: "figure" }, `${Math.round((100 * property.count) / type.count)}%`), h("td", { class: "mono muted" }, property.sample)))));
}

// ------------------------------------------------------------------------------------------------------------- timeline

$("who").addEventListener("input", () => refreshers.timeline());
$("who").addEventListener("submit", (event) => { event.preventDefault(); refreshers.timeline(); });

const moment = (row) => row.time ?? row.at * 1000;

function sessions(events) {
  const found = new Map();
  for (const row of events) {
    const key = row.session === null || row.session === -1 ? "none" : String(row.session);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  return [...found].sort(([, one], [, other]) => moment(other.at(-1)) - moment(one.at(-1)));
}

async function drawTimeline() {
  const user = $("who").elements.user.value.trim();
  if (!user) {
    const known = summary?.users ?? [];
    $("story").replaceChildren(h("div", { class: "card nothing" },
      h("p", {}, known.length ? "Choose someone, or one of the last seen:" : "Once events arrive, choose a user to see what browser and server told about one visit, in order."),
      known.slice(0, 8).map((name) => h("button", { type: "button", class: "quiet", onclick: () => { location.hash = `timeline/${encodeURIComponent(name)}`; } }, name))));
    return;
  }
  const story = await ask("/api/timeline", { user });
  if (!story.events.length) {
    $("story").replaceChildren(h("div", { class: "card nothing" }, "Nothing from this user or device yet."));
    return;
  }
  const cards = sessions(story.events).map(([key, rows]) => {
    const start = moment(rows[0]);
    const minutes = Math.round((moment(rows.at(-1)) - start) / 60000);
    const origins = [...new Set(rows.map((row) => row.origin))].sort();
    return h("article", { class: "card session" },
      h("div", { class: "heading" }, h("h3", {}, key === "none" ? "Outside any session" : `Session from ${clock(Number(key) / 1000, true)}`), h("span", { class: "badges" }, origins.map(badge))),
      h("p", { class: "muted" }, `${plural(rows.length, "event")}${minutes ? ` in ${plural(minutes, "minute")}` : ""}`),
      h("ol", {}, rows.map((row) => h("li", {}, h("button", { type: "button", class: `step ${row.origin}`, onclick: () => { location.hash = "events"; choose(row); } },
        h("span", { class: "muted" }, clock(moment(row) / 1000)), badge(row.origin), h("span", { class: "name" }, row.type ?? "(no type)"),
        h("span", { class: "muted" }, row.trace ? `trace ${row.trace.slice(0, 8)}…` : ""))))));
  });
  const properties = Object.entries(story.properties);
  $("story").replaceChildren(h("div", { class: "story" }, h("div", {}, cards),
    h("div", { class: "card" }, h("h3", {}, "User properties"), properties.length
      ? h("dl", { class: "counters" }, properties.map(([name, value]) => [h("dt", {}, name), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]))
      : h("p", { class: "muted" }, "None: no $identify and no user_properties so far."))));
}

// ------------------------------------------------------------------------------------------------------------- problems

async function drawProblems() {
  const { rejections, changes } = await ask("/api/problems");
  const refused = rejections.length
    ? h("table", { class: "table stack" },
      h("thead", {}, h("tr", {}, h("th", {}, "When"), h("th", {}, "Answer"), h("th", {}, "Why"), h("th", { class: "figure" }, "Events"))),
      h("tbody", {}, rejections.map((rejection) => h("tr", {},
        h("td", { class: "mono muted" }, clock(rejection.at)), h("td", {}, h("span", { class: "badge rejected" }, rejection.status)),
        h("td", {}, h("div", {}, rejection.error, " ", h("span", { class: "muted" }, `on ${rejection.path}${rejection.stored ? ", stored all the same" : ""}`)),
          rejection.words.map((line) => h("div", { class: "muted" }, line.count > 1 ? `${line.words} (${number(line.count)} events)` : line.words))),
        h("td", { class: "figure" }, rejection.offenders ? `${number(rejection.offenders)} bad of ${number(rejection.events)}` : number(rejection.events))))))
    : h("p", { class: "nothing" }, "No request was rejected.");
  const changed = changes.length
    ? h("table", { class: "table" },
      h("thead", {}, h("tr", {}, h("th", {}, "What Amplitude does, or what to know"), h("th", { class: "optional" }, "Field"), h("th", { class: "figure" }, "Events"))),
      h("tbody", {}, changes.map((change) => h("tr", {}, h("td", {}, change.words), h("td", { class: "mono muted optional" }, change.field), h("td", { class: "figure" }, number(change.count))))))
    : h("p", { class: "nothing" }, "Nothing to remark: Amplitude would keep every accepted event as it was sent.");
  $("view-problems").replaceChildren(
    h("div", { class: "heading" }, h("h2", {}, "Rejected requests")), h("div", { class: "card flat" }, refused),
    h("div", { class: "heading" }, h("h2", {}, "Accepted, with a remark")), h("div", { class: "card flat" }, changed));
}

// --------------------------------------------------------------------------------------------------------------- faults

const spoken = (name) => name.replaceAll("_", " ");
const titled = (name) => spoken(name).replace(/^./, (first) => first.toUpperCase());

function fail(error) {
  $("fault-error").hidden = !error;
  $("fault-error").textContent = error ? error.message : "";
}

async function switchFault(path, body) {
  try {
    await tell(path, body);
    fail(null);
  } catch (error) {
    fail(error);
  }
  refreshers.faults();
}

function makeKind(kind) {
  const fields = Object.entries(kind.options).map(([name, value]) => h("label", {}, spoken(name), h("input", { name, value: value === 0 ? "" : value, type: typeof value === "number" ? "number" : "text", step: "any", min: "0", autocomplete: "off", list: name === "user" ? "user-list" : null })));
  const form = h("form", { class: "kind", "data-fault": kind.fault, onsubmit: (event) => {
    event.preventDefault();
    const body = { fault: kind.fault };
    for (const [name, value] of new FormData(form)) if (value !== "") body[name] = typeof kind.options[name] === "number" || name === "count" ? Number(value) : value;
    switchFault("/api/faults", body);
  } },
  h("div", {}, h("h3", {}, titled(kind.fault)), h("p", {}, kind.words)),
  h("div", { class: "fields" }, fields, h("label", {}, "requests", h("input", { name: "count", type: "number", min: "1", step: "1", placeholder: "all" })), h("button", {}, "Switch on")),
  h("div", { class: "fields", hidden: true }, h("span", { class: "state" }), h("button", { type: "button", onclick: () => switchFault("/api/faults/clear", { fault: kind.fault }) }, "Clear")));
  return form;
}

async function drawFaults() {
  const [faults, { processes }] = await Promise.all([ask("/api/faults"), ask("/api/counters")]);
  if (!$("kinds").children.length) $("kinds").append(...faults.kinds.map(makeKind));
  for (const card of $("kinds").children) {
    const on = faults.active.filter((fault) => fault.fault === card.dataset.fault);
    card.classList.toggle("on", on.length > 0);
    card.lastElementChild.hidden = on.length === 0;
    // A fault for one device or user can be on several times; any other is on or off.
    card.querySelector(".fields").hidden = on.length > 0 && !card.querySelector('[name="device"], [name="user"]');
    card.querySelector(".state").textContent = on.map((fault) => `On${fault.device || fault.user ? ` for ${fault.device ?? fault.user}` : ""}: hit ${plural(fault.hits, "request")}${fault.count === null ? "" : `, ${number(fault.count)} to go`}`).join(" · ");
  }
  drawCounters(processes);
}

function lines(counters, depth = 0) {
  return Object.entries(counters).flatMap(([name, value]) => {
    const title = h("dt", { class: depth ? "sub" : "" }, spoken(name));
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      const inner = Object.entries(value);
      const sum = inner.reduce((total, [, count]) => total + (typeof count === "number" ? count : 0), 0);
      return [title, h("dd", {}, number(sum)), ...(depth < 2 ? lines(Object.fromEntries(inner.filter(([, count]) => count !== 0)), depth + 1) : [])];
    }
    return [title, h("dd", {}, typeof value === "number" ? number(value) : String(value))];
  });
}

function balance(counters) {
  const total = (value) => (typeof value === "number" ? value : Object.values(value ?? {}).reduce((sum, count) => sum + (Number(count) || 0), 0));
  if (typeof counters.accepted !== "number" || typeof counters.acknowledged !== "number") return null;
  const left = counters.accepted + total(counters.adopted);
  const right = counters.acknowledged + total(counters.rejected) + total(counters.dropped) + total(counters.pending);
  return left === right
    ? h("p", { class: "balance" }, `They balance: ${number(left)} = ${number(right)}`)
    : h("p", { class: "balance off" }, `They do not balance: ${number(left)} ≠ ${number(right)}`);
}

function drawCounters(processes) {
  if (!processes.length) {
    $("counters").replaceChildren(h("div", { class: "card nothing" }, "No exporter has posted its counters yet. One does so by itself when server_url has the address 127.0.0.1 or [::1]."));
    return;
  }
  $("counters").replaceChildren(...processes.toSorted((one, other) => `${one.service} ${one.pid}`.localeCompare(`${other.service} ${other.pid}`)).map((post) => h("article", { class: "card" },
    h("h3", {}, `${post.service} · process ${post.pid}`), h("p", { class: "muted" }, `as of ${clock(post.at)}`), h("dl", { class: "counters" }, lines(post.counters)), balance(post.counters))));
}

$("clear-faults").addEventListener("click", () => switchFault("/api/faults/clear", {}));

// ----------------------------------------------------------------------------------------------------------------- start

$("address").textContent = UPLOAD;
$("address").addEventListener("click", () => copy(UPLOAD, "Upload URL"));
$("reset").addEventListener("click", async () => {
  if (confirm("Forget all events, counters and faults of this sandbox?")) await tell("/api/reset", {});
});

const refreshSummary = throttled(drawSummary, 500);

async function start() {
  await Promise.all([refetch(), drawSummary()]);
  state.epoch = summary.epoch;
  show();
  const stream = new EventSource(`/api/stream?since=${state.last}`);
  stream.onopen = () => { $("live").textContent = "live"; $("live").className = "live on"; };
  stream.onerror = () => { $("live").textContent = "not reachable"; $("live").className = "live off"; };
  stream.onmessage = (message) => {
    const { events, epoch, run } = JSON.parse(message.data);
    // Another run of the sandbox on the same port has another token and counts from one.
    if (state.run && run !== state.run) location.reload();
    state.run = run;
    if (epoch !== state.epoch) {
      state.epoch = epoch;
      close(false);
      arrived = state.rows = [];
      refetch();
    } else take(events);
    refreshSummary();
    refreshers[current()]?.();
  };
  setInterval(drawChart, 1000);
  addEventListener("resize", drawChart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
}

start();
