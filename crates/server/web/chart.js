// The main chart: value, expected band, anomaly markers, tooltip, zoom, live follow.
import { $, num, clock, clockFull, day, nowSeconds, spread, zWords, h, icon, put } from "./base.js";

const BIGGEST = 8e307; // value that is drawn, so that any distance on the axis is a double too

// A canvas knows no custom properties: a hidden element resolves them, once for each theme.
const probe = document.body.appendChild(h("i", { hidden: true })), colours = new Map();
function css(name) {
  if (!colours.has(name)) { probe.style.color = `var(${name})`; colours.set(name, getComputedStyle(probe).color); }
  return colours.get(name);
}

/** About `n` round values from `low` to `high`, of any magnitude. */
function ticks(low, high, n) {
  const raw = (high - low) / Math.max(1, n), power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw) ?? raw;
  const first = Math.ceil(low / step), all = Array.from({ length: 2 + Math.floor((high - low) / step) }, (_, i) => (first + i) * step);
  return all.filter((v) => v <= high);
}
const SPANS = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400]];

export class Chart {
  constructor(api, pick) {
    Object.assign(this, { api, pick, host: $("chart"), tip: $("tip"), span: 900, follow: true, fit: false, points: [], marked: null, info: null, asked: 0 });
    this.buttons = SPANS.map(([label, span]) => h("button", { onclick: () => this.range(span) }, label));
    $("ranges").append(...this.buttons);
    $("follow").onclick = () => (this.follow ? this.hold() : this.live());
    $("fit").onclick = () => { this.fit = !this.fit; $("fit").setAttribute("aria-pressed", this.fit); this.plot?.setData(this.columns()); };
    this.host.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.host);
    this.range(this.span);
  }

  size() { return { width: this.host.clientWidth, height: this.host.clientHeight }; }

  async open(info, at) {
    if (this.info?.series !== info.series) this.points = [];
    this.info = info;
    this.marked = at ?? null;
    if (this.follow) this.move();
    // Wide enough for what it was compared with.
    const half = Math.max(this.span / 2, 1.5 * (info.window_seconds ?? 0));
    if (at && (at < this.from || !this.follow || at > this.to || half > this.span / 2)) {
      this.hold();
      [this.from, this.to] = [at - half, Math.max(at, Math.min(at + half, nowSeconds()))];
    }
    await this.load();
    if (!at && this.follow && !this.points.length && this.info === info) await this.findLast(info);
  }

  /** A series that is silent now is shown where it spoke last. */
  async findLast(info) {
    const { points } = await this.api.points({ series: info.series, max_points: 1 }).catch(() => ({ points: [] })), last = points.at(-1)?.timestamp;
    if (last !== undefined && last < this.from && this.info === info) await this.zoom(last - 0.9 * this.span, Math.min(last + 0.1 * this.span, nowSeconds()));
  }

  range(span) {
    this.span = span;
    this.live();
  }

  live() { this.setFollow(true); this.tick(); }

  /** Shows no series. */
  clear() {
    this.asked++;
    Object.assign(this, { info: null, points: [], marked: null });
    this.tip.hidden = true;
    put($("chart-now"), "");
    this.plot?.setData(this.columns());
    this.range(this.span);
  }
  hold() { this.setFollow(false); }
  setFollow(on) { this.follow = on; $("follow").setAttribute("aria-pressed", on); put($("follow").lastChild, on ? "Live" : "Go live"); this.buttons.forEach((b, i) => b.setAttribute("aria-pressed", on && SPANS[i][1] === this.span)); }

  zoom(from, to) { this.hold(); [this.from, this.to] = [from, to]; return this.load(); }

  /** While the connection is down nothing moves, and the newest value says how old it is. */
  lose(offline) {
    this.offline = offline;
    const last = this.points.at(-1);
    if (offline && last) put($("chart-now"), `${num(last.value)} at ${clockFull(last.t)}`);
    else this.tick();
  }

  /** Called every two seconds; moves the window only while following. */
  async tick() {
    if (!this.follow || this.offline || document.hidden) return;
    this.move();
    await this.load();
  }
  move() { [this.from, this.to] = [nowSeconds() - this.span, nowSeconds()]; }

  async load() {
    if (!this.info || !this.host.clientWidth) return;
    const mine = ++this.asked;
    let points;
    try { ({ points } = await this.api.points({ series: this.info.series, from: this.from, to: this.to, max_points: Math.min(900, this.host.clientWidth) })); }
    catch (fault) { if (mine === this.asked && fault.status) put($("chart-now"), fault.message); return; }
    if (mine !== this.asked) return; // something else was opened meanwhile
    for (const p of points) p.t = p.timestamp;
    this.points = points;
    const last = points.at(-1);
    const range = `${day(this.from)}${clock(this.from)} – ${clock(this.to)}`;
    put($("chart-now"), !last ? `${range}: no points` : this.follow ? `${num(last.value)} now${last.expected === null ? "" : `, expected ${num(last.expected)} ± ${spread(last)}`}` : range);
    if (this.plot) this.plot.setData(this.columns());
    else this.draw();
  }

  columns() {
    const p = this.points, drawn = (v) => (v === null ? null : Math.max(-BIGGEST, Math.min(BIGGEST, v)));
    return [p.map((x) => x.t), ...["lower", "upper", "expected", "value"].map((name) => p.map((x) => drawn(x[name])))];
  }

  yRange() {
    let low = Infinity, high = -Infinity;
    for (const p of this.points) {
      const value = this.fit && p.lower !== null ? p.lower : p.value;
      low = Math.min(low, p.lower ?? value, value);
      high = Math.max(high, p.upper ?? value, this.fit && p.upper !== null ? p.upper : p.value);
    }
    if (low > high) return [0, 1];
    const pad = (high / 2 - low / 2) * 0.24 || Math.abs(high) * 0.1 || 1;
    return [Math.max(-BIGGEST, low - pad), Math.min(BIGGEST, high + pad)];
  }

  /** Builds the plot anew; also after a change of theme. */
  draw() {
    colours.clear();
    this.plot?.destroy();
    if (!window.uPlot) return this.host.replaceChildren(h("p", { className: "none" }, "This server was built without npm, so it has no charts. Built with npm installed, it has."));
    const axis = { stroke: css("--muted"), font: `11px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false }, grid: { stroke: css("--line"), width: 1 } };
    const quiet = { points: { show: false } };
    this.plot = new uPlot({
      ...this.size(), legend: { show: false }, padding: [8, 20, 0, 0],
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: (u, i) => (i === 4 ? h("div") : null) },
        bind: { dblclick: () => () => { this.live(); return null; } } },
      scales: { x: { range: () => [this.from, this.to] }, y: { range: () => this.yRange() } },
      series: [{}, { ...quiet, stroke: "transparent" }, { ...quiet, stroke: "transparent" },
        { ...quiet, stroke: css("--expected"), width: 1, dash: [4, 4] }, { ...quiet, stroke: css("--accent"), width: 1.25 }],
      bands: [{ series: [2, 1], fill: css("--band") }],
      axes: [{ ...axis, grid: { show: false }, size: 28, space: 56, values: (u, ts, i, space, step) => ts.map(step < 60 ? clockFull : clock) },
        { ...axis, size: (u, texts) => Math.max(48, 14 + 6.6 * Math.max(0, ...(texts ?? []).map((t) => t.length))),
          // uPlot's own steps end at 1e32, and without one that is wide enough it draws no axis.
          incrs: (u, i, low, high) => [Math.max(5, high - low)], splits: (u, i, low, high) => ticks(low, high, this.host.clientHeight / 48), values: (u, vs) => vs.map(num) }],
      hooks: { draw: [(u) => this.markers(u)], setCursor: [(u) => this.hover(u)],
        setSelect: [(u) => { const { left, width } = u.select; if (width > 6) this.zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x")); u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false); }] },
    }, this.columns(), this.host);
    let down = 0;
    this.plot.over.addEventListener("mousedown", (e) => { down = e.clientX; });
    this.plot.over.addEventListener("click", (e) => { if (Math.abs(e.clientX - down) < 4) this.choose(); });
    this.plot.over.addEventListener("mouseleave", () => { this.tip.hidden = true; });
  }

  markers(u) {
    const c = u.ctx, r = devicePixelRatio, { top, height } = u.bbox;
    c.save();
    if (this.marked !== null) {
      const x = Math.round(u.valToPos(this.marked, "x", true)) + 0.5;
      c.strokeStyle = css("--edge");
      c.setLineDash([3 * r, 3 * r]);
      c.beginPath(); c.moveTo(x, top); c.lineTo(x, top + height); c.stroke();
      c.setLineDash([]);
    }
    // The worst of a cluster gets the full shape, its neighbours a dot: the peak stays readable.
    const full = [], small = [];
    for (const p of this.points.filter((p) => p.severity).sort((a, b) => (b.t === this.marked) - (a.t === this.marked) || Math.abs(b.z_score ?? 0) - Math.abs(a.z_score ?? 0))) {
      const x = u.valToPos(p.t, "x", true), y = Math.max(top + 6 * r, Math.min(top + height - 6 * r, u.valToPos(p.value, "y", true)));
      (full.some((f) => Math.abs(f.x - x) < 11 * r) ? small : full).push({ x, y, p, critical: p.severity === "critical" });
    }
    for (const { x, y, critical } of small) {
      c.beginPath(); c.arc(x, y, 2.25 * r, 0, 7);
      c.fillStyle = css(critical ? "--critical" : "--warning"); c.fill();
    }
    for (const { x, y, p, critical } of full) {
      const s = (p.t === this.marked ? 7.5 : 5.5) * r;
      c.beginPath();
      c.moveTo(x, y - s); c.lineTo(x + s, critical ? y : y + s * 0.8);
      if (critical) c.lineTo(x, y + s);
      c.lineTo(x - s, critical ? y : y + s * 0.8);
      c.closePath();
      c.lineWidth = 1.7 * r;
      c.fillStyle = css(critical ? "--critical" : "--surface");
      c.strokeStyle = css(critical ? "--surface" : "--warning");
      c.fill(); c.stroke();
    }
    const last = this.points.at(-1);
    if (this.follow && last) {
      c.beginPath(); c.arc(u.valToPos(last.t, "x", true), u.valToPos(last.value, "y", true), 3 * r, 0, 7);
      c.fillStyle = css("--accent"); c.fill();
    }
    c.restore();
  }

  hover(u) {
    const i = u.cursor.idx, p = this.points[i], { left } = u.cursor;
    this.tip.hidden = !p || left < 0;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(h("b", {}, p.severity ? icon(p.severity) : null, day(p.t) + clockFull(p.t), p.severity ? ` · ${p.severity}` : ""), h("span", {}, this.sentence(p)));
    this.tip.dataset.level = p.severity ?? "";
    // Beside the cursor and within the plot, at the top or the bottom: where it covers neither the point nor an anomaly.
    const { clientWidth: w, clientHeight: tall, offsetLeft } = u.over, x = u.valToPos(p.t, "x"), wide = this.tip.offsetWidth;
    const start = Math.max(-offsetLeft, Math.min(x > w / 2 ? x - 12 - wide : x + 12, w - wide));
    const inTheWay = (top) => this.points.some((q) => {
      if (!q.severity && q !== p) return false;
      const at = u.valToPos(q.t, "x"), y = u.valToPos(q.value, "y");
      return at >= start - 12 && at <= start + wide + 12 && (top ? y < 72 : y > tall - 72);
    });
    const low = !inTheWay(true) || inTheWay(false);
    this.tip.style.transform = `translate(${Math.round(start + offsetLeft)}px, ${low ? 12 : tall}px) translate(0, ${low ? "0" : "-100%"})`;
  }

  sentence(p) {
    if (p.expected === null) return `value ${num(p.value)}, not judged`;
    return `value ${num(p.value)}, expected ${num(p.expected)} ± ${spread(p)}${p.z_score === null ? "" : `, ${zWords(p.z_score)}`}`;
  }

  /** A pointer means the anomaly within 8 px rather than the plain point next to it; a key means the point that was spoken. */
  choose(reach = 8) {
    const p = this.points[this.plot?.cursor.idx];
    if (!p) return;
    const near = (this.to - this.from) * (reach / this.host.clientWidth);
    const best = this.points.filter((q) => q.severity && Math.abs(q.t - p.t) <= near).sort((a, b) => Math.abs(a.t - p.t) - Math.abs(b.t - p.t))[0] ?? p;
    this.marked = best.t;
    this.plot.redraw(false);
    this.pick(this.info.series, best.t);
  }

  key(e) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[e.key];
    if (e.key === "Enter") return this.choose(-1);
    if (step === undefined || !this.plot || !this.points.length) return;
    e.preventDefault();
    this.hold();
    const i = Math.max(0, Math.min(this.points.length - 1, (this.plot.cursor.idx ?? this.points.length) + step)), p = this.points[i];
    this.plot.setCursor({ left: this.plot.valToPos(p.t, "x"), top: this.plot.valToPos(p.value, "y") });
    put($("say"), `${clockFull(p.t)}, ${this.sentence(p)}${p.severity ? `, ${p.severity} anomaly` : ""}`);
  }
}
