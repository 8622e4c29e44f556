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
  const text = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
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

// The URL holds the view, and what is looked at in it: #events?type=Paid&event=12, #timeline/customer-1.

const VIEWS = ["events", "counters", "catalog", "timeline", "problems", "faults"];
const refreshers = { counters: throttled(drawCounters, 500), catalog: throttled(drawCatalog, 1000), timeline: throttled(drawTimeline, 1000), problems: throttled(drawProblems, 1000), faults: throttled(drawFaults, 500) };

function place() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [view, user = ""] = path.split("/");
  let name = "";
  try { name = decodeURIComponent(user); } catch { /* typed by hand */ }
  return { view: VIEWS.includes(view) ? view : "events", user: name, query: new URLSearchParams(query) };
}

const current = () => place().view;

function eventsHash(chosen = state.chosen) {
  const query = new URLSearchParams(Object.entries(form()).filter(([, value]) => value));
  if (chosen) query.set("event", chosen);
  return query.toString() ? `#events?${query}` : "#events";
}

function keepPlace() {
  if (current() === "events" && location.hash !== eventsHash() && (location.hash || eventsHash() !== "#events")) history.replaceState(null, "", eventsHash());
}

function show() {
  const { view: chosen, user, query } = place();
  for (const view of VIEWS) {
    $(`view-${view}`).hidden = view !== chosen;
    $(`tab-${view}`).setAttribute("aria-selected", String(view === chosen));
    $(`tab-${view}`).tabIndex = view === chosen ? 0 : -1;
  }
  if (chosen === "timeline" && user) $("who").elements.user.value = user;
  if (chosen === "events") showPlace(query);
  refreshers[chosen]?.();
}

function showPlace(query) {
  const before = JSON.stringify(form());
  for (const name of Object.keys(form())) $("filters").elements[name].value = query.get(name) ?? "";
  if (JSON.stringify(form()) !== before) refetch();
  const event = Number(query.get("event"));
  if (event && event !== state.chosen) openEvent(event);
  if (!event && state.chosen) close(false);
}

async function openEvent(seq) {
  const known = state.rows.find((row) => row.seq === seq);
  const [row] = known ? [known] : (await ask("/api/events", { seq })).events;
  if (row && matches(row, filters())) choose(row);
  else keepPlace();
}

for (const view of VIEWS) {
  $(`tab-${view}`).addEventListener("click", () => { location.hash = view === "events" ? eventsHash() : view; });
  $(`tab-${view}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(VIEWS.indexOf(view) + step + VIEWS.length) % VIEWS.length];
    location.hash = next === "events" ? eventsHash() : next;
    $(`tab-${next}`).focus();
  });
}
addEventListener("hashchange", show);

// --------------------------------------------------------------------------------------------------------------- events

const state = { last: 0, epoch: 0, paused: false, missed: 0, rows: [], chosen: null, row: null, asked: 0, run: null };
const form = () => Object.fromEntries([...new FormData($("filters"))].map(([name, value]) => [name, value.trim()]));
const filters = () => { const { order, ...wanted } = form(); return wanted; };

// The events of one visit come from several processes: what arrives late belongs where it happened.
const moment = (row) => row.time ?? row.at * 1000;
const byArrival = (one, other) => other.seq - one.seq;
const inOrder = (one, other) => (form().order ? 0 : moment(other) - moment(one)) || byArrival(one, other);
const newest = (rows) => (rows.length > MAX_ROWS ? rows.toSorted(byArrival).slice(0, MAX_ROWS) : rows).toSorted(inOrder);

function matches(row, wanted) {
  const within = (value, part) => !part || String(value ?? "").toLowerCase().includes(part.toLowerCase());
  return (!wanted.type || row.type === wanted.type) && (!wanted.verdict || row.verdict === wanted.verdict)
    && within(row.user, wanted.user) && within(row.device, wanted.device) && (!wanted.text || within(JSON.stringify(row.sent), wanted.text));
}

// Only what is not as usual has a badge: an event from a browser, and one that Amplitude would not keep as it was sent.
function exceptions(row) {
  const changes = row.notes.filter((note) => note.kind === "changed").length;
  const found = row.origin === "browser" ? [badge("browser")] : [];
  if (row.verdict === "rejected") found.push(h("span", { class: "badge rejected" }, "rejected"));
  else if (row.verdict === "duplicate") found.push(h("span", { class: "badge" }, "duplicate"));
  else if (changes) found.push(h("span", { class: "badge changed" }, plural(changes, "change")));
  else if (row.notes.length) found.push(h("span", { class: "badge" }, plural(row.notes.length, "note")));
  return found;
}

const badge = (kind) => h("span", { class: `badge ${kind}` }, kind);

const PLAIN = ["string", "number", "boolean"];
const IN_EACH = ["service", "trace_id", "duration_ms"];

// What tells one event from the next of its type: of a request its method, route and status, else the first properties.
function gist(row) {
  const properties = row.sent.event_properties;
  if (properties === null || typeof properties !== "object") return "";
  const { method, route, status_code: status } = properties;
  if (typeof method === "string" && typeof route === "string") {
    return [`${method} ${route}`, PLAIN.includes(typeof status) ? h("span", { class: Number(status) >= 400 ? "status bad" : "status" }, ` ${status}`) : ""];
  }
  return Object.entries(properties).filter(([name, value]) => PLAIN.includes(typeof value) && !IN_EACH.includes(name)).slice(0, 3).map(([name, value]) => `${name} ${String(value).slice(0, 40)}`).join(" · ");
}

function drawRow(row, fresh) {
  const button = h("button", { type: "button", class: "row", "data-seq": row.seq, onclick: () => choose(row) },
    h("time", { datetime: new Date(row.at * 1000).toISOString() }, clock(moment(row) / 1000)),
    h("span", { class: "what" }, h("span", { class: "name", title: row.type }, row.type ?? "(no type)"), h("span", { class: "gist" }, gist(row))),
    h("span", { class: "who", title: row.user ?? row.device }, row.user ?? row.device ?? "no id"),
    h("span", { class: "badges" }, exceptions(row)));
  if (state.chosen === row.seq) button.setAttribute("aria-current", "true");
  return h("li", { class: fresh ? "fresh" : "" }, button);
}

let guide = null;
let framework = "Flask";

function drawEmpty() {
  const nothing = state.rows.length === 0;
  $("empty").hidden = !nothing;
  if (!nothing) return;
  if (Object.values(filters()).some(Boolean)) {
    $("empty").replaceChildren(h("p", { class: "nothing" }, "No event matches these filters. ", h("button", { type: "button", onclick: () => $("filters").reset() }, "Clear filters")));
    return;
  }
  if (guide) drawGuide();
}

function drawGuide() {
  const { key, frameworks } = guide;
  const chosen = frameworks.find((one) => one.title === framework);
  const start = [...chosen.environment, chosen.start].join("\n");
  const cookie = `curl -H "$(otel-amplitude cookie --api-key ${key} --user-id u-12345)" http://127.0.0.1:8000/`;
  const curl = `curl ${UPLOAD} -H 'Content-Type: application/json' -d '{"api_key": "${key}", "events": [{"event_type": "Hello", "user_id": "customer-42"}]}'`;
  const step = (title, ...content) => h("li", {}, h("div", {}, h("h3", {}, title), content));
  const code = (text, what) => [h("pre", {}, text), copyButton(text, what)];
  const isWeb = !["Celery", "Script"].includes(chosen.title);
  $("empty").replaceChildren(
    h("h2", {}, "Waiting for the first event"),
    h("p", { class: "muted" }, "This page shows what Amplitude would take, change or reject. Nothing leaves your machine. Any API key will do; this one works everywhere, also for a cookie."),
    h("div", { class: "frameworks", role: "group", "aria-label": "Your framework" }, frameworks.map((one) => h("button", { type: "button", "aria-pressed": String(one === chosen), onclick: () => { framework = one.title; drawGuide(); document.querySelector('.frameworks [aria-pressed="true"]').focus(); } }, one.title))),
    h("ol", {},
      step("Install", code(chosen.install, "Command")),
      step("Start your service so", code(start, "Commands"), h("p", { class: "muted" }, "With the name of your own module in place of shop.")),
      step(isWeb ? "Say who is logged in" : "Name the event and the user", code(chosen.user, "Code"), h("p", { class: "muted" }, `${chosen.where[0].toUpperCase()}${chosen.where.slice(1)}. ${isWeb ? "A request of an unknown user becomes no event, and is counted above. Without a line of code, a browser is known by the cookie of Amplitude's browser SDK; curl can send one:" : ""}`),
        isWeb ? code(cookie, "Command") : null),
      step("Use it: events appear here as they arrive", h("p", { class: "muted" }, isWeb ? "A request becomes an event by itself when it has a route and a status below 400, and its user or device is known. " : "", "Nothing arrives? Run ", h("code", {}, "otel-amplitude doctor"), " in the shell of the service. No service at hand? Send an event from a shell, or from this page."), h("pre", {}, curl),
        h("div", { class: "actions" }, copyButton(curl, "Command"), h("button", { type: "button", class: "primary", id: "send-test", onclick: sendTest }, "Send a test event")))));
}

async function sendTest() {
  const event = { event_type: "Hello", user_id: "customer-42", device_id: "this-page", time: Date.now(), insert_id: crypto.randomUUID(), library: "amplitude-ts/sandbox-page", event_properties: { from: "the sandbox page" } };
  const response = await fetch("/2/httpapi", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ api_key: guide.key, events: [event] }) });
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
  const known = Math.max(0, ...answer.events.map((row) => row.seq));
  const newer = [...arrived, ...state.rows].filter((row) => row.seq > known && matches(row, wanted));
  arrived = [];
  state.rows = newest([...newer, ...answer.events]);
  state.last = Math.max(state.last, ...answer.events.map((row) => row.seq));
  state.missed = 0;
  if (state.row && !matches(state.row, wanted)) close(false);
  drawWaiting();
  drawRows();
  drawFold();
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
  const fresh = new Set(arrived);
  const shown = new Set(state.rows = newest([...arrived, ...state.rows]));
  state.rows.forEach((row, index) => { if (fresh.has(row)) list.insertBefore(drawRow(row, true), list.children[index] ?? null); });
  if (list.children.length > MAX_ROWS) {
    const kept = new Set([...shown].map((row) => String(row.seq)));
    for (const item of [...list.children]) if (!kept.has(item.firstElementChild.dataset.seq)) item.remove();
  }
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
$("filters").addEventListener("input", () => { keepPlace(); later(); });
$("filters").addEventListener("reset", () => setTimeout(() => { keepPlace(); refetch(); }));
$("filters").addEventListener("submit", (event) => { event.preventDefault(); refetch(); });
$("pause").addEventListener("click", pause);

// On a phone the filters are folded until they are asked for.
function drawFold() {
  const set = Object.values(filters()).filter(Boolean).length;
  const unfolded = $("filters").classList.contains("unfolded");
  $("fold").setAttribute("aria-expanded", String(unfolded));
  $("fold").textContent = `Filters${set ? ` (${set})` : ""} ${unfolded ? "▴" : "▾"}`;
}
$("fold").addEventListener("click", () => { $("filters").classList.toggle("unfolded"); drawFold(); });

function neighbour(step) {
  const index = state.rows.findIndex((row) => row.seq === state.chosen);
  return index < 0 ? state.rows[0] : state.rows[index + step];
}

function goTo(step) {
  const row = neighbour(step);
  if (!row) return;
  choose(row);
  document.querySelector(`[data-seq="${Number(row.seq)}"]`)?.scrollIntoView({ block: "nearest" });
}

$("events").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target.closest("li")?.[step];
  if (!next) return;
  event.preventDefault();
  next.querySelector("button").focus();
});

$("show-keys").addEventListener("click", () => $("keys").showModal());

addEventListener("keydown", (event) => {
  if ($("keys").open) return;
  if (event.key === "Escape" && state.chosen) { close(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "?") { $("keys").showModal(); return; }
  if (current() !== "events") return;
  if (event.key === "/") { event.preventDefault(); $("filters").classList.add("unfolded"); drawFold(); $("filters").elements.text.focus(); }
  if (event.key === "p") pause();
  if (event.key === "j") goTo(1);
  if (event.key === "k") goTo(-1);
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
  if (!lines.length) lines.push(h("li", {}, h("span", { class: "badge accepted" }, "accepted"), h("span", {}, "Amplitude would keep this event as it is.")));
  if (row.verdict === "rejected") lines.push(h("li", {}, h("span", { class: "badge" }, "note"), h("span", {}, "The whole request was rejected, its good events too: take this one out and send the others again.")));
  return h("ul", { class: "notes" }, lines);
}

// Properties as a table; the values of a list or a map as JSON.
function values(title, properties) {
  if (properties === null || typeof properties !== "object" || !Object.keys(properties).length) return null;
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return h("div", {}, h("h3", {}, title), h("dl", { class: "facts" }, Object.entries(properties).map(([name, value]) => [h("dt", {}, name), h("dd", {}, text(value))])));
}

function choose(row) {
  close(false);
  Object.assign(state, { chosen: row.seq, row });
  document.querySelector(`[data-seq="${Number(row.seq)}"]`)?.setAttribute("aria-current", "true");
  const json = JSON.stringify(row.sent, null, 2);
  const person = row.user ?? row.device;
  const move = (step, mark, label) => h("button", { type: "button", class: "quiet", "aria-label": label, title: label, disabled: !neighbour(step), onclick: () => goTo(step) }, mark);
  const parts = [
    h("div", {},
      h("div", { class: "heading" }, h("h2", {}, row.type ?? "(no type)"),
        h("span", { class: "moves" }, move(-1, "↑", "Previous event (k)"), move(1, "↓", "Next event (j)"), h("button", { type: "button", class: "quiet", "aria-label": "Close", title: "Close (Esc)", onclick: () => close() }, "✕"))),
      h("p", { class: "mono" }, gist(row)),
      h("p", { class: "muted" }, person ?? "no id", " · ", clock(moment(row) / 1000, true)),
      person ? h("p", {}, h("button", { type: "button", class: "quiet link", onclick: () => { location.hash = `timeline/${encodeURIComponent(person)}`; } }, "See this user's timeline →")) : null),
    values("Event properties", row.sent.event_properties), values("User properties", row.sent.user_properties), values("Groups", row.sent.groups),
    h("div", {}, h("div", { class: "heading" }, h("h3", {}, "What Amplitude does with it")), notes(row)),
    h("div", {}, h("h3", {}, "Delivery"), h("dl", { class: "facts", id: "delivery" },
      fact("Verdict", row.verdict), fact("Event time", row.time === null ? "" : clock(row.time / 1000, true)), fact("Received", clock(row.at, true)),
      fact("User", row.user), fact("Device", row.device), fact("Session", row.session), fact("Sent by", row.sent.library ?? row.origin), fact("To", row.path),
      fact("Trace id", row.trace, row.trace ? copyButton(row.trace, "Trace id") : null))),
    h("div", {}, h("div", { class: "heading" }, h("h3", {}, "What was sent"), copyButton(json, "JSON", "Copy JSON")), h("pre", { id: "json", tabindex: "0" }, colour(json))),
  ];
  $("detail").replaceChildren(...parts.filter(Boolean));
  $("detail").hidden = false;
  $("detail").scrollTop = 0;
  $("split").classList.add("open");
  keepPlace();
}

function close(focus = true) {
  const before = document.querySelector('.row[aria-current="true"]');
  before?.removeAttribute("aria-current");
  Object.assign(state, { chosen: null, row: null });
  $("detail").hidden = true;
  $("split").classList.remove("open");
  keepPlace();
  if (focus) before?.focus();
}

// --------------------------------------------------------------------------------------------------------- totals, chart

let summary = null;
let received = 0;

async function drawSummary() {
  const [answer, counters] = await Promise.all([ask("/api/summary"), ask("/api/counters")]);
  summary = answer;
  drawRefused(counters);
  received = performance.now();
  const rejected = Object.values(summary.rejections).reduce((sum, count) => sum + count, 0);
  $("total-accepted").textContent = number(summary.accepted);
  $("total-duplicates").textContent = number(summary.duplicates);
  $("total-rejected").textContent = number(rejected);
  $("total-users").textContent = number(summary.user_count);
  $("problem-count").hidden = rejected === 0;
  $("problem-count").textContent = number(rejected);
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

// ------------------------------------------------------------------------------------------------------------- counters

// Two words for two things: the server rejects, the exporter refuses before it sends.
const OF_REQUESTS = ["no_identity", "excluded", "bot", "prefetch", "websocket", "no_route", "cap"];
const spoken = (name) => name.replaceAll("_", " ");

function drawRefused({ refused, reasons }) {
  const total = refused.reduce((sum, { count }) => sum + count, 0);
  const what = refused.every(({ reason }) => OF_REQUESTS.includes(reason)) ? plural(total, "request") : `${number(total)} requests, logs and calls`;
  const words = `${what} became no event: ${refused.map(({ reason, count }) => `${spoken(reason)} ${number(count)}`).join(", ")}`;
  const note = $("refused");
  if (note.hidden && total && !summary.accepted) note.open = true;
  note.hidden = total === 0;
  $("refused-count").hidden = total === 0;
  $("refused-count").textContent = number(total);
  if (note.dataset.words === words) return;
  note.dataset.words = words;
  note.querySelector("summary").textContent = words;
  note.querySelector(".reasons").replaceChildren(drawReasons(refused, reasons), h("p", { class: "muted" }, "Refused here: the exporter did not send these. The server saw none of them."));
}

const drawReasons = (refused, reasons) => h("dl", { class: "cures" }, refused.map(({ reason, count }) => [
  h("dt", {}, `${spoken(reason)} `, h("b", {}, number(count))),
  h("dd", {}, reasons[reason] ? [`${reasons[reason].words[0].toUpperCase()}${reasons[reason].words.slice(1)}. `, h("span", { class: "muted" }, reasons[reason].cure)] : "No words for this reason.")]));

function lines(counters, depth = 0) {
  return Object.entries(counters).flatMap(([name, value]) => {
    const title = h("dt", { class: depth ? "sub" : "" }, depth || !WORDS[name] ? spoken(name) : WORDS[name]);
    if (typeof value === "number") return [title, h("dd", {}, number(value))];
    const inner = Object.entries(value).filter(([, count]) => count !== 0);
    return [title, h("dd", {}, number(inner.reduce((total, [, count]) => total + count, 0))), ...lines(Object.fromEntries(inner), depth + 1)];
  });
}

const WORDS = { adopted: "adopted from ended processes", acknowledged: "acknowledged by the server", rejected: "rejected by the server", dropped: "dropped here", refused: "refused here", pending: "not yet settled" };

function balance(counters) {
  const total = (value) => (typeof value === "number" ? value : Object.values(value ?? {}).reduce((sum, count) => sum + (Number(count) || 0), 0));
  if (typeof counters.accepted !== "number" || typeof counters.acknowledged !== "number") return null;
  const left = counters.accepted + total(counters.adopted);
  const right = counters.acknowledged + total(counters.rejected) + total(counters.dropped) + total(counters.pending);
  return left === right
    ? h("p", { class: "balance" }, `They balance: ${number(left)} = ${number(right)}`)
    : h("p", { class: "balance off" }, `They do not balance: ${number(left)} ≠ ${number(right)}`);
}

async function drawCounters() {
  const { processes, refused, reasons } = await ask("/api/counters");
  if (!processes.length) {
    $("view-counters").replaceChildren(h("div", { class: "card nothing" }, "No exporter has posted its counters yet. It does so by itself, from its first refusal or event on, when server_url begins with http://127.0.0.1 or http://[::1]."));
    return;
  }
  const sorted = processes.toSorted((one, other) => `${one.service} ${one.pid}`.localeCompare(`${other.service} ${other.pid}`));
  $("view-counters").replaceChildren(
    refused.length ? h("div", { class: "card" }, h("h2", {}, "Refused here, before anything was sent"), drawReasons(refused, reasons)) : "",
    h("div", { class: "kinds" }, sorted.map((post) => h("article", { class: "card" },
      h("h3", {}, `${post.service} · process ${post.pid}`), h("p", { class: "muted" }, `as of ${clock(post.at)}`), h("dl", { class: "counters" }, lines(post.counters)), balance(post.counters)))));
}

// -------------------------------------------------------------------------------------------------------------- catalog

const MONTH_SECONDS = 30 * 86400;
const ENOUGH_SECONDS = 600; // of less, a month would be a guess
const open = new Set();

async function drawCatalog() {
  const { types } = await ask("/api/catalog");
  if (!types.length) {
    $("view-catalog").replaceChildren(h("div", { class: "card nothing" }, "No event types yet: each one appears here with its counts, users and properties."));
    return;
  }
  const most = types[0].count;
  const seconds = (Math.max(...types.map((type) => type.last ?? -Infinity)) - Math.min(...types.map((type) => type.first ?? Infinity))) / 1000;
  const aMonth = (count) => number(Math.round((count / seconds) * MONTH_SECONDS));
  const isEnough = seconds >= ENOUGH_SECONDS;
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
    body.append(h("tr", {}, h("td", {}, toggle), h("td", { class: "optional" }, h("span", { class: "bar" }, fillBar)), h("td", { class: "figure" }, number(type.count)), h("td", { class: "figure" }, number(type.users)), isEnough ? h("td", { class: "figure optional" }, aMonth(type.count)) : null), inner);
  }
  const focused = document.activeElement?.closest?.("#view-catalog button")?.textContent;
  $("view-catalog").replaceChildren(h("div", { class: "card flat" }, h("table", { class: "table", id: "types" },
    h("thead", {}, h("tr", {}, h("th", {}, "Event type"), h("th", { class: "optional" }, ""), h("th", { class: "figure" }, "Events"), h("th", { class: "figure" }, "Users"), isEnough ? h("th", { class: "figure optional" }, "A month, at this rate") : null)), body)),
    h("p", { class: "muted" }, `${plural(types.length, "type")} of the 2,000 that one Amplitude project indexes.${isEnough ? "" : " Events a month at this rate are shown from ten minutes of events on."}`));
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
$("who").addEventListener("submit", (event) => { event.preventDefault(); location.hash = `timeline/${encodeURIComponent($("who").elements.user.value.trim())}`; });

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
      known.slice(0, 8).map((name) => h("button", { type: "button", class: "link", onclick: () => { location.hash = `timeline/${encodeURIComponent(name)}`; } }, name))));
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
      h("ol", {}, rows.map((row) => h("li", {}, h("button", { type: "button", class: `step ${row.origin}`, onclick: () => { location.hash = `events?event=${row.seq}`; } },
        h("span", { class: "muted" }, clock(moment(row) / 1000)), badge(row.origin), h("span", { class: "name" }, row.type ?? "(no type)"),
        h("span", { class: "gist" }, gist(row)))))));
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

const TITLES = { status: "Status", html: "HTML page", reset: "Connection reset", reset_after: "Connection reset after storing", half_answer: "Half an answer", empty: "Empty answer", hang: "No answer", trickle: "Slow answer", redirect: "Redirect", too_large: "Body too large", too_many: "Too many events" };
const titled = (name) => TITLES[name] ?? spoken(name).replace(/^./, (first) => first.toUpperCase());

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
  const fields = Object.entries(kind.options).map(([name, value]) => h("label", { class: typeof value === "number" ? "" : "long" }, spoken(name), h("input", { name, value: value === 0 ? "" : value, type: typeof value === "number" ? "number" : "text", step: "any", min: "0", autocomplete: "off", list: name === "user" ? "user-list" : null })));
  const form = h("form", { class: "kind", "data-fault": kind.fault, onsubmit: (event) => {
    event.preventDefault();
    const body = { fault: kind.fault };
    for (const [name, value] of new FormData(form)) if (value !== "") body[name] = typeof kind.options[name] === "number" || name === "count" ? Number(value) : value;
    switchFault("/api/faults", body);
  } },
  h("div", {}, h("h3", {}, titled(kind.fault)), h("p", {}, kind.words)),
  h("div", { class: "fields" }, fields, h("label", {}, "requests", h("input", { name: "count", type: "number", min: "1", step: "1", placeholder: "all" })), h("button", {}, "Switch on")),
  h("div", { class: "fields now", hidden: true }, h("span", { class: "state" }), h("button", { type: "button", onclick: () => switchFault("/api/faults/clear", { fault: kind.fault }) }, "Clear")));
  return form;
}

async function drawFaults() {
  const faults = await ask("/api/faults");
  if (!$("kinds").children.length) $("kinds").append(...faults.kinds.map(makeKind));
  for (const card of $("kinds").children) {
    const on = faults.active.filter((fault) => fault.fault === card.dataset.fault);
    card.classList.toggle("on", on.length > 0);
    card.lastElementChild.hidden = on.length === 0;
    // A fault for one device or user can be on several times; any other is on or off.
    card.querySelector(".fields").hidden = on.length > 0 && !card.querySelector('[name="device"], [name="user"]');
    card.querySelector(".state").textContent = on.map((fault) => `On${fault.device || fault.user ? ` for ${fault.device ?? fault.user}` : ""}: hit ${plural(fault.hits, "request")}${fault.count === null ? "" : `, ${number(fault.count)} to go`}`).join(" · ");
  }
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
  for (const [name, value] of place().query) if (name in form()) $("filters").elements[name].value = value;
  [guide] = await Promise.all([ask("/api/guide"), refetch(), drawSummary()]);
  drawEmpty();
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
