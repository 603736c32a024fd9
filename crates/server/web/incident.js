// What people do about incidents: the state of the one that is open, its story, silences, notifications of the browser.
// Loaded by app.js once there is an incident with a state, so it brings its own styles and puts its own parts into the page.
import { $, h, svg, put, kept, nowSeconds, clock, clockFull, day, copy, label, some } from "./base.js";

const RENEW_MS = 5000, SILENCES_MS = 15_000 /* how often the server is asked while the page is looked at */;
const YOUNG = 120 /* seconds, in which messages still follow */, ASIDE_MS = 15_000;
const NOTIFY_MS = 5000, NOTIFY_WAIT_MS = 1000, NOTIFY_MAX_AGE = 3600 /* seconds */;
const SHOWN = 60 /* newest lines of a story */;
const STATES = ["open", "acknowledged", "silenced", "resolved"];
const DID = {
  opened: "Opened", reopened: "Opened again", resolved: "Resolved, the series was quiet", resolved_by_hand: "Resolved", acknowledged: "Acknowledged", silenced: "Silenced",
};
const VERDICTS = { useful: "Useful", false_alarm: "False alarm" };
const TOLD = { pending: "waiting", held: "held back", sent: "sent", failed: "failed" };

/** Who and why, as they wrote it. What is resolved may have become so by itself after that. */
const said = ({ state, by, comment }) => [...(by ? [state === "resolved" ? " · " : " by ", h("bdi", {}, by)] : []), ...(comment ? [": ", h("bdi", {}, comment)] : [])];
const time = (t, text = day(t) + clockFull(t)) => h("time", { className: "hint", dateTime: new Date(t * 1000).toISOString(), title: new Date(t * 1000).toLocaleString() }, text);
const seconds = (s) => (s < 1 ? `${Math.round(s * 1000)} ms` : s < 10 ? `${Number(s.toFixed(1))} s` : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`);
const path = encodeURIComponent;

export class Incidents {
  constructor(parts) {
    Object.assign(this, parts, { subject: null, told: null, busy: false, fresh: [], notified: 0, silences: [] });
    document.head.append(h("link", { rel: "stylesheet", href: new URL("./incident.css", import.meta.url).href }));
    this.bar();
    this.list();
    this.help();
    Object.assign(this.single, { a: () => this.say("acknowledge"), s: () => this.silence(1) });
    Object.assign(this.feed, { told: (group) => this.fold(group), began: (groups) => this.notify(groups) });
    const look = () => document.hidden || this.feed.offline || this.renew();
    setInterval(look, RENEW_MS);
    document.addEventListener("visibilitychange", look);
    this.feed.renew();
    this.askSilences();
  }

  /** Everything that may have changed elsewhere. */
  renew() {
    this.feed.renew();
    if (Date.now() - this.askedSilences > SILENCES_MS) this.askSilences();
    const s = this.subject;
    if (!s || s.gone) return;
    if (!s.shown) return this.load();
    const last = s.shown.history.at(-1)?.at ?? 0, young = nowSeconds() - last < YOUNG || s.shown.notifications.some((n) => n.status === "pending");
    if (young || Date.now() - s.asked > ASIDE_MS) this.load();
  }

  // The bar above the explanation: the state, and what to do about it.

  bar() {
    const button = (text, does, more = {}) => h("button", { className: "btn", type: "button", onclick: does, ...more }, text), part = (name, ...buttons) => h("div", { className: "seg", role: "group", "aria-label": name }, h("span", { className: "hint" }, name), ...buttons);
    this.state = h("p", { className: "state", tabIndex: -1 });
    this.whileOpen = [button("Acknowledge", () => this.say("acknowledge"), { title: "Acknowledge (a)" }), button("Resolve", () => this.say("resolve"))];
    this.verdicts = Object.entries(VERDICTS).map(([verdict, text]) => h("button", { type: "button", "aria-pressed": false, onclick: () => this.say("feedback", { verdict }), "data-verdict": verdict }, text));
    this.name = h("input", { maxLength: 100, placeholder: "Your name", "aria-label": "Your name, kept in this browser", autocomplete: "nickname", onchange: () => kept.set("by", this.name.value.trim()), onkeydown: (e) => { if (e.key === "Enter") { e.preventDefault(); this.keepName(); } } });
    this.drafts = new Map();
    this.comment = h("input", { className: "comment", maxLength: 1000, placeholder: "Comment", "aria-label": "Comment, optional", autocomplete: "off" });
    this.as = button("", () => { this.as.hidden = true; this.name.hidden = false; this.name.focus(); }, { className: "link" });
    this.fault = h("p", { className: "fault", role: "alert" });
    this.host = h("section", { className: "case", "aria-label": "Incident", hidden: true }, this.state,
      ...this.whileOpen,
      part("Silence", ...[1, 4, 24].map((hours) => h("button", { type: "button", "aria-label": `Silence ${hours} h`, title: hours === 1 ? "Silence 1 h (s)" : "", onclick: () => this.silence(hours) }, `${hours} h`))),
      part("Feedback", ...this.verdicts), this.comment, this.name, this.as, this.fault);
    this.story = h("section", { className: "story", "aria-label": "Story of the incident", hidden: true });
    $("explain").before(this.host);
    $("explain").after(this.story);
    this.showName();
  }

  /** The name is asked for until it was given, or left out, once. */
  showName() {
    const name = kept.get("by");
    this.name.value = name ?? "";
    this.name.hidden = name !== null;
    this.as.hidden = name === null;
    this.as.replaceChildren(...(name ? ["as ", h("bdi", {}, name)] : ["Add your name"]));
  }
  /** Not when the field is left: a button that is being pressed must not move away. */
  keepName() {
    kept.set("by", this.name.value.trim());
    this.showName();
    this.as.focus();
  }

  /** Shows what belongs to this anomaly, or to none. */
  show(a) {
    const id = a?.incident_id;
    if (id && this.subject?.id === id) return;
    // What was typed for one is not sent with another.
    this.focused = document.activeElement;
    if (this.subject) this.drafts.set(this.subject.id, this.comment.value);
    this.comment.value = this.drafts.get(id) ?? "";
    this.subject = id ? { id, series: a.series, metric: a.metric, labels: a.labels } : null;
    const inside = this.story.contains(document.activeElement);
    this.host.hidden = this.story.hidden = true;
    put(this.fault, "");
    if (!id) return;
    this.story.replaceChildren();
    $("detail").scrollTop = 0;
    const group = this.feed.byKey.get(id);
    if (group?.state) this.tell(group);
    if (inside) this.state.focus();
    this.load();
  }

  /** Writes the state of the incident that is open. */
  tell(incident) {
    const { state, feedback } = incident, done = state === "resolved", focused = document.activeElement;
    this.host.hidden = false;
    this.host.dataset.state = state;
    this.state.replaceChildren(h("b", {}, label(state)), ...said(incident));
    this.state.title = this.state.textContent;
    const [acknowledge, resolve] = this.whileOpen;
    acknowledge.hidden = done || state === "acknowledged";
    resolve.hidden = done;
    for (const button of this.verdicts) button.setAttribute("aria-pressed", button.dataset.verdict === feedback);
    if (focused?.hidden && this.host.contains(focused)) this.state.focus();
  }

  /** The list has learned of a change. */
  fold(group) {
    if (group.key !== this.subject?.id) return;
    this.tell(group);
    this.load();
  }

  async load() {
    const s = this.subject, { acted } = this.feed;
    s.asked = Date.now();
    let found;
    try { found = await this.api.incident(s.id); } catch (fault) { if (fault.status === 404) s.gone = true; if (s === this.subject && s.gone) this.host.hidden = this.story.hidden = true; return; }
    if (s !== this.subject || acted !== this.feed.acted || !found.incident.state) return;
    const group = this.feed.byKey.get(s.id);
    if (group) this.feed.fold(group, found.incident);
    this.tell(found.incident);
    this.tellStory(s, found);
  }

  // What people do.

  /** What a key acts on: the row that the focus has gone to since something was opened, else that. */
  target() {
    const now = document.activeElement, group = now !== this.focused && this.feed.byKey.get(now?.dataset.key);
    return group && group.key !== this.subject?.id ? { id: group.key, series: group.peak.series, metric: group.peak.metric, labels: group.peak.labels, group } : this.subject;
  }

  /** Does one thing at a time; what goes wrong is said beside the button, or where there is none in a toast. */
  async does(work) {
    const target = this.target(), here = target === this.subject;
    if (!target) return;
    if (this.busy) return this.toast(`Not done: ${this.busy} is still under way`);
    // Where the field is hidden the name is known, maybe from another tab.
    const typed = this.name.hidden ? null : this.name.value.trim(), by = (typed ?? kept.get("by")) || null, comment = (here && this.comment.value.trim()) || null;
    if (typed || (typed === "" && this.host.contains(document.activeElement))) kept.set("by", typed);
    this.busy = target.metric;
    put(this.fault, "");
    try {
      const incident = await work(target, { by, comment });
      this.feed.acted++;
      const group = this.feed.byKey.get(target.id);
      if (group && incident) this.feed.fold(group, incident);
      put($("say"), `${target.metric}: ${incident?.state ?? "silenced"}`);
      this.drafts.delete(target.id);
      if (!here) this.toast(`${target.metric}: ${incident?.state ?? "silenced"}`);
      if (target === this.subject) {
        if (here && this.comment.value.trim() === (comment ?? "")) this.comment.value = "";
        if (incident) this.tell(incident);
        this.load();
      }
    } catch (fault) {
      if (target === this.subject && !this.host.hidden) put(this.fault, fault.message); else this.toast(`${target.metric}: ${fault.message}`);
    }
    this.busy = null;
    const named = document.activeElement === this.name;
    this.showName();
    if (named && this.name.hidden) this.as.focus();
  }

  say(what, more) {
    return this.does(({ id }, words) => this.api.act("POST", `incidents/${path(id)}/${what}`, { ...words, ...more }));
  }

  /** Silences exactly this series. */
  silence(hours) {
    return this.does(async (target, words) => {
      const matchers = [{ name: "series", op: "=", value: target.series }];
      const { to } = await this.api.act("POST", "silences", { matchers, to: nowSeconds() + hours * 3600, ...words });
      this.toast(`Silenced until ${day(to)}${clock(to)}`);
      this.askSilences();
      // It is made, whether or not we hear how the incident stands.
      return (await this.api.incident(target.id).catch(() => null))?.incident;
    });
  }

  // The story below the explanation: history, who was told, what began together.

  tellStory(s, found) {
    const { incident, history, notifications, together, budget } = found, others = together.map((i) => i.id).join(), key = JSON.stringify([history, notifications, others, budget]);
    s.shown = found;
    if (s.key === key && !this.story.hidden) return;
    if (s.others !== others) Object.assign(s, { others, together: this.together(incident, together) });
    s.key = key;
    const focused = this.story.contains(document.activeElement) ? document.activeElement.dataset.of : null, part = (name, ...rest) => h("div", {}, h("h3", { tabIndex: -1 }, name), ...rest);
    const link = `${location.href.split("#")[0]}#incident=${path(s.id)}`;
    this.story.replaceChildren(
      part("History", h("ol", {}, ...history.slice(-SHOWN).map((one) => h("li", {}, time(one.at), h("span", {}, one.what === "feedback" ? VERDICTS[one.verdict] ?? "Feedback" : DID[one.what] ?? one.what, ...said(one))))),
        h("p", { className: "acts" }, h("button", { className: "link", type: "button", "data-of": "link", onclick: async () => this.toast((await copy(link)) ? "Link copied" : "The browser does not allow copying here") }, "Copy incident link"),
          h("a", { href: `incidents/${path(s.id)}/capsule`, download: `incident-${s.id}.json`, "data-of": "capsule" }, "Download capsule"))),
      part("Notifications", notifications.length ? h("ol", {}, ...notifications.slice(-SHOWN).map((n) => this.notification(n))) : h("p", { className: "hint" }, "No message was sent about it alone."),
        budget?.limit ? h("p", { className: "hint" }, `Budget ${budget.limit}: ${budget.sent} used, ${budget.held} held back`) : ""),
      s.together);
    this.story.hidden = false;
    if (focused !== null && !this.story.contains(document.activeElement)) ([...this.story.querySelectorAll("[data-of]")].find((e) => e.dataset.of === focused) ?? this.story.querySelector("h3")).focus({ preventScroll: true });
  }

  notification(n) {
    const fault = h("p", { className: "fault", role: "alert" }), words = h("span", {}, h("b", {}, n.channel), ` ${TOLD[n.status] ?? n.status}`, n.status === "failed" ? ` after ${some(n.attempts, "attempt")}` : "", n.last_error ? h("span", { className: "hint" }, `: ${n.last_error}`) : null);
    const again = n.status === "failed" ? h("button", { className: "link", type: "button", "data-of": n.id, "aria-label": `Send again by ${n.channel}`, onclick: async () => {
      put(fault, "");
      try { await this.api.act("POST", `notifications/${path(n.id)}/resend`); if (this.subject) this.load(); } catch (reason) { put(fault, reason.message); }
    } }, "Send again") : null;
    return h("li", {}, time(n.sent_at ?? n.created_at), h("span", {}, words, again ? " " : null, again, fault));
  }

  /** Small charts of all that began together, on one axis of time; each on its own scale. */
  together(incident, others) {
    if (!others.length) return "";
    const rows = [incident, ...others].sort((a, b) => a.start - b.start), [first, last] = [rows[0].start, rows.at(-1).start], pad = incident.peak.window_seconds ?? 300;
    const from = first - pad, to = Math.min(nowSeconds(), Math.max(last + pad, Math.min(incident.end, last + 3 * pad))), moment = (t) => (to - from < 900 ? clockFull(t) : day(t) + clock(t));
    return h("div", { className: "together" }, h("h3", { tabIndex: -1 }, "Started together"), h("p", { className: "hint" }, h("bdi", {}, rows[0].series), ` was first, at ${clockFull(first)}`),
      h("ul", {}, ...rows.map((row) => {
        const name = [h("b", {}, row.metric), h("span", { className: "labels" }, row.series.slice(row.metric.length))], picture = h("div");
        this.picture(picture, row, from, to);
        return h("li", {}, row === incident ? h("span", { className: "name", title: row.series }, ...name) : h("button", { className: "name link", type: "button", title: row.series, "data-of": row.id, onclick: () => this.open(row.peak, true) }, ...name),
          h("span", { className: "hint" }, row === rows[0] ? "first" : `+${seconds(row.start - first)}`), picture);
      })),
      h("p", { className: "axis", "aria-hidden": "true" }, ...[from, (from + to) / 2, to].map((t) => h("span", {}, moment(t)))));
  }

  async picture(host, { series, start }, from, to) {
    const { points } = await this.api.points({ series, from, to, max_points: 300 }).catch(() => ({ points: [] }));
    if (!points.length) return host.append(h("span", { className: "hint" }, "its points are no longer kept"));
    const low = Math.min(...points.map((p) => p.value)), half = Math.max(...points.map((p) => p.value)) / 2 - low / 2 || 1;
    const x = (t) => (((t - from) / (to - from)) * 1000).toFixed(1), at = (p) => `${x(p.timestamp)} ${(36 - ((p.value / 2 - low / 2) / half) * 32).toFixed(1)}`;
    const dots = (severity) => points.filter((p) => p.severity === severity).map((p) => `M${at(p)}h0`).join("");
    const el = svg("svg", { viewBox: "0 0 1000 40", preserveAspectRatio: "none", role: "img", "aria-label": `${series} from ${clockFull(from)} to ${clockFull(to)}, ${some(points.filter((p) => p.severity).length, "anomaly", "anomalies")}` });
    el.append(svg("path", { class: "start", d: `M${x(start)} 0V40` }), svg("path", { class: "line", d: points.map((p, i) => `${i ? "L" : "M"}${at(p)}`).join("") }),
      svg("path", { class: "dot warning", d: dots("warning") }), svg("path", { class: "dot hollow", d: dots("warning") }), svg("path", { class: "dot critical", d: dots("critical") }));
    host.append(el);
  }

  // In the list's heading: a filter by state, and the silences that are active.

  list() {
    this.feed.states = h("select", { className: "btn states", "aria-label": "State", onchange: (e) => this.feed.filter({ state: e.target.value }) }, ...["", ...STATES].map((state) => h("option", { value: state }, state ? label(state) : "Any state")));
    $("levels").after(this.feed.states);
    this.active = h("button", { className: "link", type: "button", hidden: true, "aria-haspopup": "dialog", onclick: () => { this.drawSilences(); this.dialog.showModal(); } });
    $("feed-n").after(this.active);
    this.lines = h("ul");
    this.lineFault = h("p", { className: "fault", role: "alert" });
    this.close = h("button", { className: "btn" }, "Close");
    this.dialog = h("dialog", { id: "silences", className: "help", "aria-labelledby": "silences-h" }, h("h2", { id: "silences-h" }, "Silences"), this.lines, this.lineFault, h("form", { method: "dialog" }, this.close));
    // What opened it goes with the last silence.
    this.dialog.onclose = () => { put(this.lineFault, ""); if (this.active.hidden) $("feed").focus({ preventScroll: true }); };
    document.body.append(this.dialog);
  }

  async askSilences() {
    this.askedSilences = Date.now();
    const found = await this.api.act("GET", "silences").catch(() => null);
    if (!found) return;
    const now = found.silences.filter((s) => s.state === "active"), changed = JSON.stringify(now) !== JSON.stringify(this.silences);
    this.silences = now;
    put(this.active, some(now.length, "silence"));
    if (!now.length && document.activeElement === this.active) $("feed").focus({ preventScroll: true });
    this.active.hidden = !now.length;
    if (changed && this.dialog.open) this.drawSilences();
  }

  drawSilences() {
    const inside = this.lines.contains(document.activeElement) ? [...this.lines.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    this.lines.replaceChildren(...this.silences.map((s) => {
      const what = s.matchers.map((m) => (m.name === "series" && m.op === "=" ? m.value : `${m.name}${m.op}${JSON.stringify(m.value)}`)).join(", ");
      return h("li", {}, h("div", {}, h("b", { title: what }, h("bdi", {}, what)), h("button", { className: "link", type: "button", "aria-label": `End now: ${what}`, onclick: () => this.end(s) }, "End now")),
        h("p", { className: "hint" }, `until ${day(s.to)}${clock(s.to)}`, ...said(s)));
    }));
    if (!this.silences.length) this.lines.append(h("li", { className: "hint" }, "No silence is active."));
    if (inside >= 0) { const buttons = this.lines.querySelectorAll("button"); (buttons[Math.min(inside, buttons.length - 1)] ?? this.close).focus(); }
  }

  async end({ id }) {
    put(this.lineFault, "");
    try {
      await this.api.act("DELETE", `silences/${path(id)}`);
      this.feed.acted++;
      await this.askSilences();
      this.feed.renew();
    } catch (fault) { put(this.lineFault, fault.message); }
  }

  // In the help: its keys, and whether the browser tells.

  help() {
    const list = $("help").querySelector("dl"), key = (name, text) => [h("dt", {}, h("kbd", {}, name)), h("dd", {}, text)];
    list.append(...key("a", "Acknowledge"), ...key("s", "Silence for an hour"));
    if (!window.Notification || !isSecureContext) return;
    const box = h("input", { type: "checkbox", id: "notify", checked: this.notifies() }), hint = h("span", {}, "Notify me of new incidents while this tab is hidden");
    box.onchange = async () => {
      // The browser is asked only when a person has asked for it.
      const allowed = box.checked && (Notification.permission === "granted" || (await Notification.requestPermission()) === "granted");
      if (box.checked && !allowed) put(hint, "This browser does not allow notifications from here");
      box.checked = allowed;
      kept.set("notify", allowed ? "on" : null);
    };
    $("help").querySelector("label").after(h("label", {}, box, hint));
  }

  notifies() { return kept.get("notify") === "on" && window.Notification?.permission === "granted"; }

  /** One notification in five seconds, for all that began. */
  notify(groups) {
    if (!document.hidden || !this.notifies()) return;
    this.fresh.push(...groups);
    this.notifying ??= setTimeout(() => this.notifyNow(), Math.max(NOTIFY_WAIT_MS, this.notified + NOTIFY_MS - Date.now()));
  }

  async notifyNow() {
    const groups = this.fresh, keys = new Set(groups.map((g) => g.key));
    Object.assign(this, { fresh: [], notifying: null, notified: Date.now() });
    // Whether it is silenced, and whether it is new at all, only the server knows.
    const page = await this.feed.ask({ limit: 200 }).catch(() => null), known = page?.incidents.filter((i) => keys.has(i.id) && i.state === "open") ?? groups.map((g) => ({ ...g.peak, start: g.first, peak: g.peak }));
    const news = known.filter((i) => nowSeconds() - i.start < NOTIFY_MAX_AGE).sort((a, b) => a.start - b.start), [first] = news;
    if (!first || !document.hidden) return;
    const told = news.length === 1 ? [`${first.metric}: ${first.severity}`, first.peak.summary] : [`${news.length} incidents, first ${first.metric}`, news.slice(0, 5).map((i) => i.series).join("\n")];
    try {
      const note = new Notification(told[0], { body: told[1] });
      note.onclick = () => { focus(); note.close(); this.open(first.peak, true); };
    } catch { /* Android: only a service worker may */ }
  }
}
