// Wires the parts together; holds which series, anomaly and filter are open, and mirrors that in the address.
import * as api from "./api.js";
import { $, h, put, icon, kept, nowSeconds, clock, clockFull, day, some, copy, worse } from "./base.js";
import { Chart } from "./chart.js";
import { Lanes } from "./lanes.js";
import { Feed } from "./feed.js";
import { Uploads } from "./uploads.js";
import { explain } from "./explain.js";
import { search } from "./search.js";
import { tiles } from "./tiles.js";

const phone = matchMedia("(max-width: 719px)"), sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let toasting;
function toast(text) {
  clearTimeout(toasting);
  put($("toast"), text);
  $("toast").hidden = false;
  toasting = setTimeout(() => ($("toast").hidden = true), 6000);
}

/** What people do about incidents, from the first on that has a state. */
let people = null, opened = null;
function why(a) {
  opened = a;
  explain(a, toast);
  people?.show(a);
}

const chart = new Chart(api, async (series, at) => {
  try { openAnomaly(await api.explain({ series, at }), false); } catch (fault) { toast(fault.message); }
});
const feed = new Feed(api, (a) => openAnomaly(a, true));
feed.met = () => {
  feed.met = null;
  import("./incident.js").then(({ Incidents }) => { people = new Incidents({ api, feed, toast, single, open: openAnomaly }); people.show(opened); }, (fault) => toast(fault.message));
};
const lanes = new Lanes(api, choose);
const uploads = new Uploads(api, showFile, () => lanes.soon(), toast);
const showTiles = tiles();
search(api, (s) => openSeries(s));

/** A bar, a lane or a file's time was chosen, or with null nothing any more. */
async function choose(only) {
  if (!only) { lanes.show(null); return clearFilter(); }
  feed.filter({ only });
  if (only.from === undefined) return openSeries(only.lane);
  if (phone.matches || !only.lane) return;
  const { anomalies } = await api.anomalies({ series: only.lane.series, from: only.from, to: only.to - 1e-3, limit: 1000 }).catch(() => ({ anomalies: [] }));
  if (feed.only !== only) return; // another was chosen meanwhile
  if (anomalies.length) openAnomaly(anomalies.reduce(worse), false);
  Object.assign(chart, { info: only.lane, marked: anomalies.length ? anomalies.reduce(worse).timestamp : null });
  showTitle(only.lane);
  chart.zoom(only.from - 300, Math.min(only.to + 300, nowSeconds()));
}

/** Opens overview, list and chart at the time of a file's data, which may be long ago. */
async function showFile(report) {
  const moment = (t) => day(t) + clock(t), pad = Math.max(30, (report.to - report.from) * 0.02);
  const range = { from: report.from - pad, to: report.to + pad, name: report.file, label: ` · ${moment(report.from)} – ${moment(report.to)}` };
  lanes.mark(null);
  const [found] = await Promise.all([api.incidents({ from: range.from, to: range.to, limit: 1000 }).catch(() => ({ incidents: [] })), lanes.show(range), feed.filter({ only: range, level: "", state: "" })]);
  // Other series may have spoken at that time: what came from this file goes first.
  const peaks = found.incidents.map((i) => i.peak), mine = peaks.filter((a) => a.source?.startsWith(`upload:${report.upload}/`));
  const worst = (mine.length ? mine : peaks).reduce((a, b) => (a ? worse(a, b) : b), null);
  const info = worst ?? (await api.series({ limit: 1000 }).catch(() => ({ series: [] }))).series.find((s) => s.last.timestamp >= report.from && s.last.timestamp <= report.to);
  if (!info) return;
  if (worst) openAnomaly(worst, false); else { showTitle(info); why(null); feed.select(null); address(info.series); }
  Object.assign(chart, { info, marked: worst?.timestamp ?? null });
  showDetail();
  chart.zoom(range.from, range.to);
}

function showTitle(s) { $("chart-h").replaceChildren(h("b", {}, s.metric), h("span", { className: "labels" }, s.series.slice(s.metric.length))); $("chart-h").title = s.series; }
function showDetail() { if (phone.matches) { document.body.classList.add("detail-open"); $("back").focus(); } }
const address = (s, a) => history.replaceState(null, "", `#series=${encodeURIComponent(s)}${a ? `&anomaly=${encodeURIComponent(a)}` : ""}`);

function openSeries(s, quietly = false) {
  showTitle(s);
  if (!quietly) { why(null); feed.select(null); address(s.series); showDetail(); }
  return chart.open(s);
}
async function openAnomaly(a, move) {
  showTitle(a);
  feed.select(a);
  why(a);
  address(a.series, a.id);
  if (move) { showDetail(); await chart.open(a, a.timestamp); }
}
/** The newest anomaly, followed live; or any series while there is none. */
async function openNewest() {
  const a = feed.all.groups[0]?.peak;
  if (a) { showTitle(a); feed.select(a); why(a); await chart.open(a); chart.marked = a.timestamp; return chart.plot?.redraw(false); }
  const { series } = await api.series({ limit: 1 }).catch(() => ({ series: [] }));
  if (series.length && !chart.info) await openSeries(series[0], true);
}
/** What the address names, as a copied link does. False where it names nothing that is known. */
async function openAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1)), id = wanted.get("anomaly"), name = wanted.get("series"), incident = wanted.get("incident");
  if (id || incident) {
    try { await openAnomaly(id ? (await api.anomaly(id)).anomaly : (await api.incident(incident)).incident.peak, true); return true; }
    catch (fault) { toast(fault.status === 404 ? `This ${id ? "anomaly" : "incident"} is no longer kept.` : fault.message); }
  }
  if (!name) return false;
  const brace = name.indexOf("{");
  await openSeries({ series: name, metric: brace < 0 ? name : name.slice(0, brace) });
  return true;
}
addEventListener("hashchange", openAddress);
function closeDetail() { document.body.classList.remove("detail-open"); $("feed").focus({ preventScroll: true }); }

// Connection: one pill, one banner, one toast. What is on screen stays, and says how old it is.
const STATES = { live: "Connected", connecting: "Connecting", offline: "Offline", polling: "Polling" };
let countdown, lost = null;
api.live.addEventListener("state", ({ detail: s }) => {
  clearInterval(countdown);
  const on = s.state === "live" || s.state === "polling", back = on && lost;
  $("conn").dataset.state = s.state;
  put($("conn").lastChild, STATES[s.state]);
  $("conn").title = s.state === "polling" ? "No WebSocket comes through: the page asks every 5 s" : "";
  if (s.state === "offline") {
    if (!lost) put($("say"), "Connection lost");
    lost ??= { seen: s.seen, row: $("rows").querySelector("li:not(.divider)") };
    const tell = () => put($("banner").children[1], `Connection lost at ${clockFull(lost.seen)}. Trying again in ${Math.max(0, Math.ceil(s.retry_at - nowSeconds()))} s.`);
    countdown = setInterval(tell, 250);
    tell();
  }
  const gone = !on && lost !== null;
  $("banner").hidden = !gone;
  if (s.state === "connecting" && lost) put($("banner").children[1], "Reconnecting…");
  document.body.classList.toggle("stale", gone);
  feed.offline = gone;
  feed.status();
  chart.lose(gone);
  if (!back) return;
  if (s.replayed) { feed.away(s.replayed, lost.row); toast(`Missed ${some(s.replayed, "anomaly", "anomalies")} while away, loaded`); } else if (s.state === "live") toast("Connected again. Nothing was missed.");
  lost = null;
  lanes.soon();
  api.replaced().then((yes) => yes && !uploads.busy() && location.reload());
});
$("banner").lastElementChild.onclick = () => api.reconnect();
api.live.addEventListener("anomaly", ({ detail }) => { feed.arrive(detail); lanes.soon(); if (started && !chart.info) openNewest(); });
api.live.addEventListener("snapshot", ({ detail }) => { feed.snapshot(detail); lanes.soon(); });
api.live.addEventListener("gap", async ({ detail: { other } }) => {
  toast(`${other ? "The server has other data than before" : "Some of what was missed is no longer kept"}. The list was loaded anew.`);
  lost = null;
  feed.reset();
  if (other) { feed.only = null; lanes.mark(null); lanes.show(null); }
  api.connect(await patiently(() => feed.load()));
  if (!started) return;
  const gone = other || (chart.info && (await api.points({ series: chart.info.series, max_points: 1 }).then(() => false, (fault) => fault.status === 404)));
  if (gone) forget();
  await untilFirstEvent();
  lanes.refresh();
  if (gone) openNewest();
});
/** Closes what is gone. */
function forget() {
  $("chart-h").replaceChildren();
  chart.clear();
  why(null);
  feed.select(null);
  history.replaceState(null, "", location.pathname + location.search);
  document.body.classList.remove("detail-open");
}

// Theme: automatic, light, dark.
const root = document.documentElement, themes = ["auto", "light", "dark"];
function theme(name) {
  if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
  kept.set("theme", name === "auto" ? null : name);
  $("theme").replaceChildren(icon(name));
  $("theme").title = `Theme: ${name} (t)`;
  $("theme").setAttribute("aria-label", `Theme: ${name}`);
  chart.plot && chart.draw();
}
const nextTheme = () => theme(themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % 3]);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.plot && chart.draw());

$("theme").onclick = nextTheme;
$("pick").onclick = $("pick2").onclick = () => uploads.choose();
$("keys").onclick = () => $("help").showModal();
$("back").onclick = closeDetail;
$("chip").lastElementChild.onclick = () => choose(null);
function clearFilter() { lanes.mark(null); feed.filter({ only: null, level: "", state: "" }); }

const single = { "/": () => $("q").focus(), j: () => feed.move(1), k: () => feed.move(-1), l: () => chart.live(), p: () => feed.freeze(!feed.held()), u: () => uploads.choose(), t: nextTheme, "?": () => $("help").showModal() };
$("keys-on").checked = kept.get("keys") !== "off";
$("keys-on").onchange = () => kept.set("keys", $("keys-on").checked ? null : "off");
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || (e.repeat && /[as]/.test(e.key)) || document.querySelector("dialog[open]") || e.target.matches("input, textarea, select")) return;
  if (e.key === "Escape") document.body.classList.contains("detail-open") ? closeDetail() : choose(null);
  else if (single[e.key] && $("keys-on").checked) { e.preventDefault(); single[e.key](); }
});

// First event: until one has arrived there is nothing to draw, so the page shows how to send it.
const send = (values) => [`for v in ${values}; do`, `  curl -s ${new URL("events/raw", location.href)} \\`, "    -H 'Content-Type: application/json' \\", `    -d "{\\"metric\\": \\"cpu_usage\\", \\"value\\": $v}"`, "done"].join("\n");
async function untilFirstEvent() {
  let s = await patiently(() => api.stats());
  showTiles(s);
  if (s.events_total) return;
  document.body.classList.add("is-empty");
  $("main").hidden = true;
  $("empty").hidden = false;
  delete $("waiting").dataset.state;
  put($("waiting").lastChild, "Waiting for your first event…");
  $("curl").textContent = send("52 55 54 57 53 56 54 55 52 58 54 53 56 55 57 54 52 55 53 56 95");
  $("copy").onclick = async () => {
    const copied = await copy($("curl").textContent);
    if (!copied) getSelection().selectAllChildren($("curl"));
    put($("copy"), copied ? "Copied" : "Press Ctrl+C");
    setTimeout(() => put($("copy"), "Copy"), 2500);
  };
  while (!s.events_total) { await sleep(1000); s = await api.stats().catch(() => s); }
  showTiles(s);
  $("waiting").dataset.state = "got";
  put($("waiting").lastChild, `${some(s.events_total, "event")} received. Opening the dashboard…`);
  await sleep(1600);
  $("empty").hidden = true;
  document.body.classList.remove("is-empty");
  $("main").hidden = false;
}

/** Asks until the server answers: it may just restart. */
async function patiently(ask) {
  for (let wait = 500; ; wait = Math.min(8000, 2 * wait)) {
    try { return await ask(); } catch { await sleep(wait); }
  }
}

let started = false;
async function start() {
  theme(root.dataset.theme ?? "auto");
  why(null);
  const asked = location.hash;
  const cursor = await patiently(() => feed.load());
  api.connect(cursor);
  await untilFirstEvent();
  await lanes.refresh();
  // A row may be chosen already.
  if (location.hash === asked && !(await openAddress())) await openNewest();
  started = true;
  if (!chart.info) openNewest();
  // A hidden page asks for nothing: the socket goes on, and what it brought is there when it is looked at.
  const every = (ms, work) => setInterval(() => document.hidden || feed.offline || work(), ms);
  let asking = false;
  every(1000, async () => { if (asking) return; asking = true; await api.stats().then(showTiles, () => {}); asking = false; });
  every(2000, () => chart.tick());
  every(60_000, () => { lanes.refresh(); feed.renew(); });
}
start();
