// The live list. One row is one incident; its anomalies fold into it, so a storm on one series stays one line.
//
// Rows come from pages of GET /incidents and grow by anomalies of the socket. Each page says up to which anomaly it counts,
// so whatever order the two arrive in, no anomaly counts twice.
import { $, h, icon, num, ago, put, label, nowSeconds, clockFull, seriesName, spread, measure, strength, worse, some, count } from "./base.js";

const KEEP = 10_000 /* incidents */, PAGE = 60, LOAD = 120, ROW = 80, FULL = 4 /* thresholds, at which the bar is full */, CHECK_MS = 5000;
const LEVELS = [["", "All"], ["critical", "Critical"], ["warning", "Warning"]];

export class Feed {
  constructor(api, open) {
    Object.assign(this, { api, open, rows: $("rows"), byKey: new Map(), els: new Map(), limit: PAGE, level: "", state: "", only: null, frozen: false, reading: false, unread: 0, waiting: 0, selected: null, offline: false, asked: 0, acted: 0 });
    this.reset();
    this.levels = LEVELS.map(([level, label]) => h("button", { "aria-pressed": level === "", onclick: () => this.filter({ level }) }, level ? icon(level) : null, label));
    $("levels").append(...this.levels);
    $("flow").onclick = () => this.freeze(!this.held());
    const box = $("scroll"), read = () => this.setReading(Boolean(box.scrollTop > 8 || (box.matches(":hover") && matchMedia("(hover: hover)").matches) || this.past || this.rows.querySelector(":focus-visible")));
    // Where the page scrolls instead of the list: reading means that the heading is above the window.
    new IntersectionObserver(([e]) => { this.past = !e.isIntersecting && e.boundingClientRect.top < 0; read(); }).observe($("lanes"));
    for (const type of ["mouseenter", "mouseleave", "focusin", "scroll"]) box.addEventListener(type, read, { passive: true });
    box.addEventListener("focusout", () => setTimeout(read));
    this.rows.addEventListener("click", (e) => { const row = e.target.closest(".row"); const group = row && this.byKey.get(row.dataset.key); if (group) this.open(group.peak); });
    $("more").onclick = () => this.older();
    document.addEventListener("visibilitychange", () => { this.title(); this.clockwork(); });
    setInterval(() => this.flush(), 250);
    setInterval(() => this.clockwork(), 1000);
  }

  /** Forgets everything, before it is loaded anew. */
  reset() {
    this.byKey.clear();
    this.all = this.shown = { groups: [], has: new Set(), next: null, whole: true, totals: { incidents: 0, anomalies: 0 }, seq: 0 };
    Object.assign(this, { dirty: new Set(), news: [], unsure: new Set() });
  }

  /** Loads the newest incidents; resolves to the cursor behind which the socket goes on. */
  async load() {
    const page = await this.ask({ limit: LOAD });
    this.all = this.shown = this.list(page);
    this.filter({});
    return page.cursor;
  }

  /** A page. One that was asked for before somebody acted here knows no better what came of it. */
  async ask(query) {
    const { acted } = this;
    return Object.assign(await this.api.incidents(query), { acted });
  }

  list(page) {
    const list = { groups: [], has: new Set(), next: page.next, whole: page.next === null, totals: page.totals, seq: Number(page.cursor) };
    this.append(list, page);
    return list;
  }

  append(list, page) {
    for (const incident of page.incidents) {
      const group = this.absorb(incident, page);
      if (!list.has.has(group.key)) { list.has.add(group.key); list.groups.push(group); }
    }
    list.next = page.next;
  }

  /** An incident as a page counts it. */
  absorb(incident, { cursor, acted }) {
    const { id: key, start: first, end: last, count: n, severity, peak } = incident, seq = Number(cursor);
    let group = this.byKey.get(key);
    if (!group) this.byKey.set(key, (group = { key, seq: -1 }));
    if (n !== group.n || severity !== group.severity || peak.id !== group.peak.id) this.dirty.add(key);
    if (seq >= group.seq) Object.assign(group, { peak, first, last, n, severity, seq });
    else if (!group.sure) Object.assign(group, { first: Math.min(first, group.first), n: Math.max(n, group.n), severity: severity === "critical" ? severity : group.severity, peak: worse(peak, group.peak) });
    group.sure = true;
    if (!(acted < this.acted)) this.fold(group, incident);
    return group;
  }

  /** What people or time made of an incident: its row says so where it stands, whether the list is paused or not. */
  fold(group, { state, by, comment, feedback }) {
    const said = [state, by, comment, feedback].join("\n");
    if (!state || group.said === said) return;
    Object.assign(group, { state, by, comment, feedback, said });
    const el = this.els.get(group.key);
    if (el) this.fill(el, group);
    if (this.told) this.told(group);
    else this.met?.();
  }

  /** The head of the list as it is now: while polling, and now and then so that nothing drifts. */
  snapshot(page, list = this.all) {
    const seq = Number(page.cursor), at = page.incidents.findIndex(({ id }) => list.has.has(id));
    // What meets the filter only now has its place among the others.
    if (this.state && at >= 0 && page.incidents.slice(at).some(({ id }) => !list.has.has(id))) return this.held() ? this.learn(page) : this.filter({});
    if (seq > list.seq && page.totals.anomalies > list.totals?.anomalies) this.count(page.totals.anomalies - list.totals.anomalies);
    Object.assign(list, { totals: page.totals, seq });
    this.prepend(list, page.incidents.map((incident) => this.absorb(incident, page)).filter((group) => !list.has.has(group.key)));
    this.sum();
  }

  /** Asks for the head of the list anew. */
  async renew() {
    const list = this.shown, page = await this.ask({ ...this.query(), limit: Math.min(300, this.limit) }).catch(() => null);
    if (page && list === this.shown) this.snapshot(page, list);
    // What has left the filter is in none of its pages.
    if (this.state) this.learn(await this.ask({ ...this.query(), state: "", limit: 300 }).catch(() => null));
  }

  /** What a page says of incidents that are known. */
  learn(page) {
    for (const one of page?.incidents ?? []) if (this.byKey.has(one.id)) this.absorb(one, page);
  }

  prepend(list, groups) {
    if (!groups.length) return;
    for (const group of groups) list.has.add(group.key);
    list.groups.unshift(...groups);
    if (list === this.all) this.began?.(groups);
    if (list === this.shown) { this.news = [...groups, ...this.news].slice(0, KEEP); this.dirty.add(groups[0].key); }
    for (; list.groups.length > KEEP; list.whole = false) { const old = list.groups.pop(); list.has.delete(old.key); list.next = null; this.forget(old); }
  }

  /** What no list holds is not kept. */
  forget(group) {
    if (this.all.has.has(group.key) || this.shown.has.has(group.key)) return;
    for (const known of [this.byKey, this.dirty]) known.delete(group.key);
    this.unsure.delete(group);
  }

  /** Shows another list; what only the one before it held is forgotten. */
  show(list) {
    const before = this.shown;
    this.shown = list;
    if (before !== this.all) for (const group of before.groups) this.forget(group);
  }

  arrive({ cursor, data: a }) {
    const seq = Number(cursor), key = a.incident_id;
    let group = this.byKey.get(key);
    if (group && seq <= group.seq) return; // counted by a page already
    if (!group) {
      this.byKey.set(key, (group = { key, peak: a, first: a.timestamp, last: a.timestamp, n: 0, severity: a.severity, sure: this.all.whole, state: this.told && "open" }));
      // Pages that are not loaded may know it: it is asked for.
      if (!group.sure) this.unsure.add(group);
    }
    Object.assign(group, { seq, n: group.n + 1, peak: worse(group.peak, a), first: Math.min(group.first, a.timestamp), last: Math.max(group.last, a.timestamp) });
    if (a.severity === "critical") group.severity = a.severity;
    if (group.state === "resolved") this.fold(group, { state: "open" });
    for (const list of new Set([this.all, this.shown])) {
      if (list !== this.all && !this.meets(a, group)) continue;
      const fresh = !list.has.has(key);
      if (list.totals && seq > list.seq) { list.totals.anomalies++; if (fresh) list.totals.incidents++; }
      if (fresh) this.prepend(list, [group]);
    }
    this.dirty.add(key);
    // The first incident of all: a page of them tells whether they have states.
    if (this.met) this.looking ??= setTimeout(() => this.renew(), 500);
    this.count(1);
    if (this.unsure.size) this.checking ??= setTimeout(() => this.check(), CHECK_MS);
  }

  count(n) {
    if (document.hidden || this.held()) this.unread += n;
    if (this.held()) this.waiting += n;
    this.status();
  }

  /** Asks how incidents began whose first anomaly this page has not seen. */
  async check() {
    this.checking = null;
    if (document.hidden || this.offline) return;
    const unsure = [...this.unsure], times = unsure.map((group) => group.last);
    this.unsure.clear();
    const page = await this.ask({ from: Math.min(...times) - 1e-3, to: Math.max(...times) + 1e-3, limit: 300 }).catch(() => null);
    this.learn(page);
    for (const group of unsure) group.sure = true;
  }

  /** Four times a second: everything that came goes in with one write to the page. */
  flush(force = false) {
    if (!this.dirty.size || (this.held() && !force)) return;
    for (const key of this.dirty) {
      const el = this.els.get(key), group = this.byKey.get(key);
      if (el && group) this.fill(el, group);
    }
    const fresh = this.news.filter((group) => !this.els.has(group.key)).slice(0, this.limit);
    this.dirty.clear();
    this.news = [];
    this.waiting = 0;
    if (fresh.length) {
      this.rows.prepend(...fresh.map((group) => this.row(group)));
      while (this.rows.children.length > this.limit) { const last = this.rows.lastChild; this.els.delete(last.firstChild.dataset?.key); last.remove(); $("more").hidden = false; }
      if (fresh.length <= 3 && !matchMedia("(prefers-reduced-motion: reduce)").matches)
        this.rows.animate([{ transform: `translateY(-${fresh.length * ROW}px)` }, { transform: "none" }], { duration: 260, easing: "cubic-bezier(.2,.7,.2,1)" });
      this.announce(fresh);
    }
    this.status();
    this.sum();
  }

  row(group) {
    const el = h("li", {}, h("button", { className: "row", "data-key": group.key }));
    this.els.set(group.key, el);
    return this.fill(el, group);
  }

  fill(el, { key, peak: a, first, n, severity, state, by }) {
    const bar = h("i", { className: "zbar" }, h("i"));
    bar.firstChild.style.width = `${Math.min(1, strength(a) / FULL) * 100}%`;
    el.firstChild.className = `row ${severity}`;
    el.firstChild.dataset.state = state ?? "";
    el.firstChild.replaceChildren(
      icon(severity, state === "open" ? `${severity}, open` : severity),
      h("span", { className: "name", title: a.series }, ...seriesName(a.metric, a.labels)),
      h("span", { className: "when" }, n > 1 ? h("em", { title: some(n, "anomaly", "anomalies") + " in this incident" }, `×${count(n)}`) : null,
        h("time", { dateTime: new Date(first * 1000).toISOString(), title: new Date(first * 1000).toLocaleString(), textContent: ago(first) })),
      h("span", { className: "vals" }, h("b", {}, num(a.value)), ` ${a.direction === "high" ? "↑" : "↓"} expected ${num(a.expected)} ± ${spread(a)}`),
      h("span", { className: "z" }, bar, measure(a)),
      h("span", { className: "why", title: a.explanation }, ...(state && state !== "open" ? [h("b", {}, label(state)), ...(by && state !== "resolved" ? [" by ", h("bdi", {}, by)] : []), " · "] : []), a.summary));
    if (key === this.selected) el.firstChild.setAttribute("aria-current", "true");
    return el;
  }

  /** What the page asks for when this filter is set; times are inclusive there, a bar ends before the next begins. */
  query() {
    const { only, level, state } = this;
    return { state, series: only?.lane?.series, from: only?.from, to: only?.to && only.to - 1e-3, severity: level };
  }

  async filter(change) {
    Object.assign(this, change);
    this.limit = PAGE;
    const mine = ++this.asked, query = this.query(), { level, only, state } = this;
    this.levels.forEach((b, i) => b.setAttribute("aria-pressed", LEVELS[i][0] === level));
    $("chip").hidden = !only;
    if (only) $("chip").firstChild.replaceChildren(h("bdi", {}, only.name), only.label ?? "");
    $("scroll").scrollTop = 0;
    if (this.states) this.states.value = state;
    if (!level && !only && !state) this.show(this.all);
    else {
      // What is known is shown at once, the rest when it has come: a critical incident may hold warnings too.
      const known = this.all.groups.filter((g) => (!level || g.severity === level) && (!state || g.state === state) && (!only || ((!only.lane || g.peak.series === only.lane.series) && (only.from === undefined || (g.last >= only.from && g.first < only.to)))));
      this.show({ ...this.all, groups: known, has: new Set(known.map((g) => g.key)), next: null, totals: null });
      this.draw();
      const page = await this.ask({ ...query, limit: LOAD }).catch(() => null);
      if (mine !== this.asked || !page) return;
      this.show(this.list(page));
    }
    this.draw();
  }

  /** Whether an anomaly meets the filter; an incident does when any of its anomalies does. */
  meets(a, group) {
    const { only, level, state } = this;
    return (!level || a.severity === level) && (!state || group.state === state) && (!only || ((!only.lane || a.series === only.lane.series) && (only.from === undefined || (a.timestamp >= only.from && a.timestamp < only.to))));
  }

  async older() {
    const list = this.shown, query = this.query();
    this.limit += PAGE;
    for (let n = 0; n < 5 && list.next && list.groups.length < this.limit; n++) {
      const page = await this.ask({ ...query, cursor: list.next, limit: LOAD }).catch(() => null);
      if (!page || list !== this.shown) break;
      this.append(list, page);
      if (list === this.all) list.whole = list.next === null;
    }
    if (list === this.shown) this.draw();
  }

  draw() {
    const { groups, next } = this.shown, focused = document.activeElement?.dataset.key;
    this.els.clear();
    this.dirty.clear();
    Object.assign(this, { news: [], waiting: 0 });
    this.rows.replaceChildren(...groups.slice(0, this.limit).map((g) => this.row(g)));
    if (focused) this.els.get(focused)?.firstChild.focus({ preventScroll: true });
    $("more").hidden = groups.length <= this.limit && !next;
    put($("none"), this.only || this.level || this.state ? "Nothing matches this filter." : "No anomalies yet. A series is judged once it has 5 samples.");
    this.status();
    this.sum();
  }

  sum() {
    const { totals, groups } = this.shown;
    if (totals) put($("feed-n"), totals.incidents > 0 ? `${count(totals.anomalies)} in ${some(totals.incidents, "incident")}` : "");
    $("none").hidden = groups.length > 0 && this.rows.children.length > 0;
  }

  select(anomaly) {
    for (const el of this.els.values()) el.firstChild.removeAttribute("aria-current");
    this.selected = anomaly?.incident_id ?? null;
    this.els.get(this.selected)?.firstChild.setAttribute("aria-current", "true");
  }

  /** The first key takes up the row that is open, or the newest; the next ones go on from there. */
  move(step) {
    const buttons = [...this.rows.querySelectorAll(".row")], at = buttons.indexOf(document.activeElement);
    const to = at >= 0 ? at + step : Math.max(0, buttons.findIndex((b) => b.dataset.key === this.selected));
    buttons[Math.max(0, Math.min(buttons.length - 1, to))]?.focus();
  }

  /** A line between what came while the connection was down and what was there before. */
  away(n, before) {
    this.flush(true);
    this.rows.querySelector(".divider")?.remove();
    const line = h("li", { className: "divider" }, `${some(n, "anomaly", "anomalies")} while you were away`);
    if (before?.isConnected) before.before(line);
    else this.rows.append(line);
  }

  held() { return this.frozen || this.reading; }
  freeze(on) { this.frozen = on; if (!on) { this.reading = false; $("scroll").scrollTop = 0; this.flush(); } this.title(); this.status(); }
  setReading(on) { if (on === this.reading) return; this.reading = on; if (!on) this.flush(); this.title(); this.status(); }

  status() {
    const n = this.waiting, held = this.held();
    $("flow").setAttribute("aria-pressed", held);
    put($("flow").lastChild, this.offline ? "Offline" : !held ? "Live" : n ? `Paused · ${count(n)} new` : "Paused");
    $("flow").title = held ? "Resume (p)" : "Pause (p)";
    this.title();
  }

  title() {
    if (!document.hidden && !this.held()) this.unread = 0;
    const title = this.unread ? `(${this.unread > 999 ? "999+" : this.unread}) anomaly` : "anomaly";
    if (document.title !== title) document.title = title;
  }

  clockwork() {
    if (document.hidden) return;
    const now = nowSeconds();
    for (const [key, el] of this.els) { const group = this.byKey.get(key); if (group) put(el.querySelector("time"), ago(group.first, now)); }
  }

  /** Screen readers hear a summary at most every ten seconds, never every row. */
  announce(groups) {
    const now = nowSeconds();
    this.unsaid = (this.unsaid ?? 0) + groups.length;
    if (now - (this.said ?? 0) < 10) return;
    put($("say"), `${some(this.unsaid, "new anomaly", "new anomalies")}, latest ${groups[0].severity} on ${groups[0].peak.series} at ${clockFull(groups[0].first)}`);
    Object.assign(this, { said: now, unsaid: 0 });
  }
}
