// Why this point is an anomaly, or why it is not: one sentence, a ruler, the detector's checks with their numbers.
import { $, h, svg, icon, num, clockFull, day, copy } from "./base.js";

/** The band, the expected value and the value on one line, in the value's own unit. */
function ruler(a) {
  const low = Math.min(a.lower, a.value), high = Math.max(a.upper, a.value);
  // In halves, since the difference of two doubles may be beyond one.
  const half = high / 2 - low / 2 || 1, share = (v) => (v / 2 - low / 2) / half, at = (v) => `${(9.7 + share(v) * 80.6).toFixed(2)}%`, level = a.severity ?? "fine";
  const label = (v, y, text, cls) => svg("text", { x: at(v), y, class: cls, "text-anchor": text.length < 12 || (share(v) > 0.2 && share(v) < 0.8) ? "middle" : share(v) < 0.5 ? "start" : "end" }, text);
  const el = svg("svg", { class: "ruler", role: "img", "aria-label": `Expected ${num(a.lower)} to ${num(a.upper)}, value ${num(a.value)}` });
  el.append(svg("line", { x1: 0, x2: "100%", y1: 32, y2: 32, class: "base" }),
    svg("rect", { x: at(a.lower), y: 26, width: `${Math.max(0.4, parseFloat(at(a.upper)) - parseFloat(at(a.lower))).toFixed(2)}%`, height: 12, rx: 3, class: "band" }),
    svg("line", { x1: at(a.expected), x2: at(a.expected), y1: 26, y2: 38, class: "mid" }),
    svg("line", { x1: at(a.value), x2: at(a.value), y1: 20, y2: 40, class: `mark ${level}` }),
    label(a.value, 14, num(a.value), `value ${level}`), label(a.expected, 54, `expected ${num(a.lower)} – ${num(a.upper)}`, "muted"));
  return el;
}

const check = ({ passed, name, detail }, word = passed ? "yes" : "no") => h("li", { className: word }, icon(word, word), h("span", {}, name), h("span", { className: "hint", title: detail }, detail));

const HEADS = { anomaly: "Why this is an anomaly", normal: "Why this is not an anomaly" };

/** Where it would begin to be one; detectors that look one way say so in a check. */
function border(a) {
  const one = (name) => a.checks.some((c) => c.name.startsWith(name)), low = !one("Above what"), high = !one("Below what");
  if (a.verdict !== "normal" || a.lower === null || a.value < a.lower || a.value > a.upper) return "";
  return ` It would be one ${[low && `below ${num(a.lower)}`, high && `above ${num(a.upper)}`].filter(Boolean).join(" or ")}.`;
}

/** `a` is an anomaly, or what GET /series/explain says of any point; null where nothing is selected. */
export function explain(a, toast) {
  if (!a) return $("explain").replaceChildren(h("p", { className: "hint" }, "Select an anomaly, or any point on the chart, to see why it is one or why it is not."));
  const verdict = a.verdict ?? "anomaly", is = verdict === "anomaly", judged = is || verdict === "normal";
  const share = (text, done) => h("button", { className: "link", textContent: done[0], onclick: async () => toast((await copy(text())) ? done[1] : "The browser does not allow copying here") });
  const meta = Object.entries(a.meta ?? {}).slice(0, 8).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`);
  $("explain").replaceChildren(
    h("div", { className: "head" }, h("h3", {}, is ? icon(a.severity, a.severity) : null, HEADS[verdict] ?? "Why this was not judged"), h("span", { className: "hint", title: new Date(a.timestamp * 1000).toLocaleString() }, day(a.timestamp) + clockFull(a.timestamp)),
      h("span", { className: "acts" }, share(() => location.href, ["Copy link", "Link copied"]), share(() => JSON.stringify(a, null, 1), ["Copy JSON", "JSON copied"]))),
    h("p", { className: "sentence" }, `${a.explanation}.${border(a)}`),
    h("div", { className: "proof" }, judged && a.lower !== null ? ruler(a) : null, h("ul", { className: "checks" }, ...a.checks.map((c) => check(c)))),
    meta.length ? h("p", { className: "meta" }, ...meta.map((text) => h("span", { title: text }, text))) : "");
}
