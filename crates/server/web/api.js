// The server, as the page asks it. `live` tells what comes by itself: "state" of the connection, each "anomaly", and "gap".
import { nowSeconds, setClock } from "./base.js";

/** This file lies in assets/BUILD/ under the page, wherever a proxy has put that. */
const base = new URL("../../", import.meta.url);
const build = new URL(import.meta.url).pathname.split("/").at(-2);

/** What the server answered instead: `message` is its own sentence. */
export class Problem extends Error {
  constructor(status, message) { super(message); this.status = status; }
}
const UNREACHABLE = "The server cannot be reached";

let precise = false; // whether the clock was set to the fraction of a second
function readClock(response, asked) {
  const date = Date.parse(response.headers.get("date")) / 1000;
  // The header is cut to a second, and was written somewhere between the question and now.
  if (date && (!precise || Math.abs(date + 0.5 - nowSeconds()) > 2.5 + (Date.now() - asked) / 1000)) setClock(date + 0.5);
}

async function ask(url, options) {
  const asked = Date.now();
  let response;
  try { response = await fetch(url, { signal: AbortSignal.timeout(15_000), ...options }); } catch { throw new Problem(0, UNREACHABLE); }
  readClock(response, asked);
  const body = await response.json().catch(() => null);
  if (!response.ok || (body === null && response.status !== 204)) throw new Problem(response.status, body?.detail ?? `The server answered ${response.status}`);
  return body;
}

function get(path, params = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  return ask(url);
}

/** Any other request, with a body of JSON if there is one. */
export const act = (method, path, body) => ask(new URL(path, base), { method, ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }) });

export const stats = () => get("stats").then((s) => { seen = nowSeconds(); return s; }, (fault) => { if (fault.status === 0) lost(); throw fault; });
export const incidents = (filter) => get("incidents", filter);
export const incident = (id) => get(`incidents/${encodeURIComponent(id)}?limit=1`);
export const anomalies = (filter) => get("anomalies", filter);
export const anomaly = (id) => get(`anomalies/${encodeURIComponent(id)}`);
export const heat = (range) => get("anomalies/heat", range);
export const series = (query) => get("series", query);
export const points = (range) => get("series/points", range);
export const explain = (point) => get("series/explain", point);

/** A key for one file, the same for each try. `randomUUID` is missing where the page came over plain HTTP from another host. */
export const newKey = () => "dashboard-" + Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

/** Sends a file; resolves to its report when all its rows are judged. `progress` is called with 0…1, `taken` with what is known so far. */
export async function upload(file, { key, signal, progress, taken }) {
  const answer = await send(file, key, signal, progress);
  for (let report = answer.files[0], wait = 300; ; wait = Math.min(2000, wait * 1.5)) {
    if (answer.status === 422 || (report.late !== null && report.anomalies !== null)) return { ...report, upload: answer.id };
    taken(report);
    await new Promise((done) => setTimeout(done, wait));
    try { report = (await get(`uploads/${encodeURIComponent(answer.id)}`)).files[0]; } catch (fault) { if (fault.status === 404) throw fault; }
  }
}

/** Only XMLHttpRequest tells how much of a body has been sent. */
const send = (file, key, signal, progress) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest(), form = new FormData();
  form.append("file", file, file.name);
  request.open("POST", new URL("upload", base));
  request.setRequestHeader("Idempotency-Key", key);
  request.upload.onprogress = (e) => progress(e.lengthComputable ? e.loaded / e.total : 0);
  request.upload.onload = () => progress(1);
  request.onload = () => {
    let body = null;
    try { body = JSON.parse(request.responseText); } catch { /* told below */ }
    if (body?.files) resolve({ ...body, status: request.status });
    else reject(new Problem(request.status, body?.detail ?? `The server answered ${request.status}`));
  };
  // No answer came. With the key a retry finds out whether the file had arrived, and counts nothing twice.
  // A file that the browser cannot read any more ends in the same way.
  request.onerror = async () => {
    const readable = await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
    reject(new Problem(0, readable ? `${UNREACHABLE}. Retry sends the file again; nothing counts twice.` : "This is a folder, or the file was changed or moved after it was dropped. Drop it again."));
  };
  request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
  signal.addEventListener("abort", () => request.abort());
  request.send(form);
});

// The live connection. `cursor` is the last anomaly that has been told to the page: a new socket goes on behind it. In another
// store, as behind an emptied data directory, it means nothing.
export const live = new EventTarget();
const tell = (type, detail) => live.dispatchEvent(new CustomEvent(type, { detail }));
const WAITS = [1, 2, 4, 8, 15, 30], POLL_MS = 5000, POLLS_A_TRY = 6, GREETING_MS = 10_000;
let socket = null, store, cursor = "0", state = "connecting", tries = 0, polls = 0, seen = nowSeconds(), timer, silence;

function become(next, more = {}) {
  state = next;
  tell("state", { state, ...more });
}

/** Follows from `after` on: the cursor of what the page has loaded. */
export function connect(after) {
  cursor = after;
  open();
}

export function reconnect() {
  if (state === "live" || state === "connecting") return;
  become("connecting");
  open();
}

function open() {
  close();
  clearTimeout(timer);
  const url = new URL("ws/anomalies", base), mine = (socket = new WebSocket(Object.assign(url, { protocol: url.protocol === "https:" ? "wss:" : "ws:", search: `after=${cursor}` })));
  let replaying = true;
  silence = setTimeout(lost, GREETING_MS);
  mine.onclose = () => mine === socket && lost();
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    const message = JSON.parse(data);
    seen = nowSeconds();
    clearTimeout(silence);
    switch (message.type) {
      case "hello": {
        setClock(message.server_time);
        precise = true;
        const known = store;
        store = message.store;
        if (known && known !== store) { close(); tell("gap", { other: true }); }
        break;
      }
      case "anomaly": cursor = message.cursor; tell("anomaly", { cursor, data: message.data, replayed: replaying }); break;
      case "gap": close(); tell("gap", {}); break;
      case "caught_up": replaying = false; tries = 0; become("live", { replayed: message.replayed });
    }
  };
}

function close() {
  const old = socket;
  socket = null;
  clearTimeout(silence);
  old?.close();
}

/** The socket is gone, or the server does not answer: says so and tries again. */
async function lost() {
  if (!socket) return;
  close();
  const wait = WAITS[Math.min(tries++, WAITS.length - 1)];
  // A proxy may let HTTP through and no WebSocket: then the page asks.
  const answers = tries > 1 && (await get("livez").then(() => true, () => false));
  if (socket) return; // someone else was faster
  if (!answers) return offline(wait);
  if (state !== "polling") become("polling");
  poll();
}

function offline(wait) {
  become("offline", { retry_at: nowSeconds() + wait, seen });
  timer = setTimeout(reconnect, wait * 1000);
}

async function poll() {
  try { tell("snapshot", await incidents({ limit: 100 })); } catch (fault) { if (fault.status === 0) return offline(1); }
  seen = nowSeconds();
  timer = setTimeout(() => (++polls % POLLS_A_TRY ? poll() : open()), POLL_MS);
}
addEventListener("online", reconnect);

/** Whether the server now serves another version of this page. */
export const replaced = () => fetch(base, { method: "HEAD", cache: "no-store" }).then((r) => r.ok && !r.headers.get("etag")?.includes(build), () => false);
