// Overview: top series × time. A bar's height is the largest z-score, its colour the severity. Arrow keys walk, Enter filters.
import { $, h, clock, clockFull, day, nowSeconds, put, seriesName, some, zWords } from "./base.js";

const DAY = 86400, TALL = 13 /* the z-score of the highest bar */;

export class Lanes {
  constructor(api, pick) {
    Object.assign(this, { api, pick, grid: $("grid"), cells: [], lanes: [], at: [0, 0], chosen: null, due: 0, range: null, asked: 0 });
    this.grid.addEventListener("click", (e) => this.hit(e.target));
    this.grid.addEventListener("keydown", (e) => this.key(e));
    $("lanes-back").onclick = () => this.pick(null);
    let settled;
    addEventListener("resize", () => { clearTimeout(settled); settled = setTimeout(() => this.cells.length && this.columns() !== this.cells[0].length && this.refresh(), 300); });
  }

  columns() { return innerWidth < 720 ? 24 : innerWidth < 1500 ? 48 : 96; }

  /** Shows another time than the last 24 hours; null goes back. */
  show(range) {
    if (range === this.range) return null;
    this.range = range;
    this.lanes = [];
    $("lanes-h").replaceChildren(...(range ? [h("bdi", {}, range.name), range.label] : ["Last 24 hours"]));
    $("lanes-back").hidden = !range;
    return this.refresh();
  }

  async refresh() {
    clearTimeout(this.due);
    this.due = 0;
    const mine = ++this.asked, n = this.columns(), top = innerWidth < 720 ? 5 : innerHeight < 820 ? 4 : 7;
    let { from, to } = this.range ?? {};
    if (!this.range) { to = Math.ceil(nowSeconds() / (DAY / n)) * (DAY / n); from = to - DAY; }
    const answer = await this.api.heat({ from, to, buckets: n, top }).catch(() => null);
    if (!answer || mine !== this.asked) return;
    const { lanes } = answer, known = new Map(this.lanes.map((l, i) => [l.series, i])); // keep the order people have learned
    lanes.sort((a, b) => (known.get(a.series) ?? 99) - (known.get(b.series) ?? 99));
    const same = this.cells.length === lanes.length && this.cells[0]?.length === n && this.from === from && this.to === to && lanes.every((l, i) => l.series === this.lanes[i]?.series);
    Object.assign(this, { lanes, from, to, width: (to - from) / n });
    if (!same) this.build(n);
    lanes.forEach((lane, y) => lane.buckets.forEach((bucket, x) => this.paint(y, x, bucket)));
  }

  /** At most one request in five seconds, however many anomalies arrive. */
  soon() { this.due ||= setTimeout(() => { if (document.hidden) this.due = 0; else this.refresh(); }, 5000); }

  /** A time on the axis, as coarse as the range allows. */
  moment(t) { return this.to - this.from < 900 ? clockFull(t) : this.range ? day(t) + clock(t) : clock(t); }

  build(n) {
    const focused = this.grid.contains(document.activeElement) && document.activeElement.dataset.x !== undefined ? document.activeElement.dataset : null;
    const chosen = this.chosen?.dataset, at = focused ? [Number(focused.y), Number(focused.x)] : this.at;
    $("quiet").hidden = this.lanes.length > 0;
    this.grid.hidden = this.lanes.length === 0;
    this.grid.replaceChildren(...this.lanes.map((lane, y) => h("div", { className: "lane", role: "row" },
      h("div", { role: "rowheader", className: "label" }, h("button", { className: "name", title: lane.series, "data-y": y }, ...seriesName(lane.metric, lane.labels))),
      h("div", { className: "cells", role: "presentation" }, ...Array.from({ length: n }, (_, x) =>
        h("div", { className: "cell", role: "gridcell", tabIndex: -1, "data-y": y, "data-x": x }, h("i")))))),
      h("div", { className: "axis", "aria-hidden": "true" }, ...[0, 0.25, 0.5, 0.75].map((f) => h("span", {}, this.moment(this.from + f * (this.to - this.from)))), h("span", {}, this.range ? this.moment(this.to) : "now")));
    this.cells = [...this.grid.querySelectorAll(".cells")].map((c) => [...c.children]);
    this.chosen = null;
    if (!this.cells.length) return;
    this.at = [Math.max(0, Math.min(at[0], this.cells.length - 1)), this.grid.dataset.n === String(n) ? at[1] : n - 1];
    this.grid.dataset.n = n;
    const roving = this.cells[this.at[0]][this.at[1]];
    roving.tabIndex = 0;
    if (focused) roving.focus({ preventScroll: true });
    if (chosen && this.chosenFrom >= this.from) { // what was chosen has moved with the time
      const y = this.lanes.findIndex((l) => l.series === this.chosenSeries), x = Math.round((this.chosenFrom - this.from) / this.width);
      if (this.cells[y]?.[x]) this.mark(this.cells[y][x]);
    }
  }

  paint(y, x, bucket) {
    const cell = this.cells[y][x], key = bucket ? `${bucket.count}/${bucket.max_z}/${bucket.severity}` : "";
    const from = this.from + x * this.width, when = `${this.moment(from)} to ${this.moment(from + this.width)}`;
    if (cell.dataset.key === key && cell.dataset.when === when) return;
    Object.assign(cell.dataset, { key, when });
    cell.firstChild.className = bucket?.severity ?? "";
    cell.firstChild.style.height = bucket ? `${Math.round(Math.min(1, Math.max(0.28, bucket.max_z / TALL)) * 100)}%` : "";
    const text = bucket ? `${when}: ${some(bucket.count, "anomaly", "anomalies")}, ${zWords(bucket.max_z).replace(/^z/, "largest z")}, ${bucket.severity}` : `${when}: nothing`;
    cell.setAttribute("aria-label", `${this.lanes[y].series}, ${text}`);
    cell.title = text;
  }

  hit(target) {
    const el = target.closest("[data-y]");
    if (!el) return;
    const lane = this.lanes[el.dataset.y];
    if (el.dataset.x === undefined) { this.mark(null); return this.pick({ lane, name: lane.series }); }
    const from = this.from + el.dataset.x * this.width, to = from + this.width;
    this.mark(el === this.chosen ? null : el);
    Object.assign(this, { chosenFrom: from, chosenSeries: lane.series });
    this.pick(this.chosen ? { lane, from, to, name: lane.metric, label: ` · ${this.moment(from)}–${this.moment(to)}` } : this.range);
  }

  mark(el) {
    this.chosen?.removeAttribute("aria-selected");
    this.chosen = el;
    el?.setAttribute("aria-selected", "true");
  }

  key(e) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
    if (e.target.dataset.x === undefined) return;
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); return this.hit(e.target); }
    if (!step) return;
    e.preventDefault();
    const y = Math.max(0, Math.min(this.cells.length - 1, Number(e.target.dataset.y) + step[0]));
    const x = Math.max(0, Math.min(this.cells[0].length - 1, Number(e.target.dataset.x) + step[1]));
    e.target.tabIndex = -1;
    this.at = [y, x];
    this.cells[y][x].tabIndex = 0;
    this.cells[y][x].focus();
  }
}
