// Small words that every module uses: elements, numbers, times.
export const $ = (id) => document.getElementById(id);

/** Builds an element. `props` are properties, `on…` listeners, `aria-`/`data-` attributes; text only ever becomes text nodes. */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role") el.setAttribute(key, value);
    else el[key] = value;
  }
  el.append(...children.filter((c) => c !== null && c !== undefined));
  return el;
}

export function svg(tag, attrs = {}, text) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attrs)) el.setAttribute(key, value);
  if (text !== undefined) el.textContent = text;
  return el;
}

export function icon(name, label) {
  const el = svg("svg", label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" });
  el.append(svg("use", { href: `#i-${name}` }));
  return el;
}

/** What the browser keeps of a person's choices, where it keeps anything. */
export const kept = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { value === null ? localStorage.removeItem(name) : localStorage.setItem(name, value); } catch { /* for this visit only */ } },
};

/** Writes text only when it changed, so that a tick costs no layout. */
export function put(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: "min2" });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0, useGrouping: "min2" });
/** What there is no number of. */
const NONE = "–";
const sci = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 3 });
/** Four digits: 95, 54.5, 3271, 12,480, 1.2e-5. Groups from five digits on, as the server's sentences do. */
export const num = (x) => {
  if (x === null || x === undefined) return NONE;
  if (x === 0) return "0"; // −0 too
  const a = Math.abs(x);
  if (a < 1e-3 || a >= 1e9) return sci.format(x).toLowerCase().replaceAll("-", "−");
  return (a >= 1000 ? whole.format(x) : plain.format(x)).replace("-", "−");
};
export const zed = (z) => (z === null || z === undefined ? NONE : Math.abs(z) >= 1000 ? sci.format(z).toLowerCase() : Math.abs(z) < 0.05 ? "0.0" : z.toFixed(1)).replaceAll("-", "−");
/** A z-score from here on stands for a deviation from a constant that was divided by nothing. */
const ANY_CHANGE = 1e300;
export const zWords = (z) => (Math.abs(z) >= ANY_CHANGE ? "any change" : `z ${zed(z)}`);
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (n) => grouped.format(n);
export const some = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
/** "acknowledged" as a label. */
export const label = (word) => word[0].toUpperCase() + word.slice(1);
export const bytes = (n) => (n < 1e3 ? `${n} B` : n < 1e6 ? `${Math.round(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`);

/** How far the server's clock is ahead of this one, in seconds: times are the server's, so "7 min ago" needs its clock. */
let ahead = 0;
export const nowSeconds = () => Date.now() / 1000 + ahead;
export const setClock = (serverSeconds) => { ahead = serverSeconds - Date.now() / 1000; };
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockFormatFull = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const clock = (t) => clockFormat.format(t * 1000);
export const clockFull = (t) => clockFormatFull.format(t * 1000);
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" }), yearFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
/** "" today, "21 Nov " on any other day, "21 Nov 2024 " of another year. */
export function day(t) {
  const [then, now] = [t * 1000, nowSeconds() * 1000];
  if (yearFormat.format(then) === yearFormat.format(now)) return "";
  return `${(new Date(then).getFullYear() === new Date(now).getFullYear() ? dayFormat : yearFormat).format(then)} `;
}
export function ago(t, now = nowSeconds()) {
  const s = Math.max(0, Math.round(now - t));
  if (s < 3) return "now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return s < 730 * 86400 ? `${Math.floor(s / 86400)} d ago` : `${Math.floor(s / 31_557_600)} y ago`;
}

/** "cpu{dc="eu"}" in two tones: the metric, then its labels without the punctuation. */
export function seriesName(metric, labels) {
  const rest = Object.entries(labels).map(([k, v]) => `${k}=${v}`).join(" ");
  return [h("b", {}, metric), rest ? h("span", { className: "labels" }, rest) : null];
}

/** Half the width of the band: the "8.6" of "54.5 ± 8.6". Halved first, since the whole may be beyond a double. */
export const spread = (a) => (a.upper === null ? NONE : num(Number((a.upper / 2 - a.lower / 2).toPrecision(3))));
/** The measure of any detector in units of its threshold. */
export const strength = (a) => (a.z_score !== null && a.threshold > 0 ? Math.abs(a.z_score) / a.threshold : Math.min(99, -Math.log2(1 - a.score)));
export const worse = (a, b) => (strength(a) >= strength(b) ? a : b);
/** "z 4.2", "any change", or "1.4 ×" the threshold for a detector that has no z-score. */
export const measure = (a) => (a.z_score === null ? `${zed(strength(a))} ×` : zWords(a.z_score));

/** Copies where the browser allows it (a page served over plain HTTP from another host may not). */
export const copy = (text) => (navigator.clipboard?.writeText(text).then(() => true, () => false)) ?? Promise.resolve(false);
