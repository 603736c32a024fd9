// Four numbers with a minute (or a day) of history each.
import { $, h, svg, icon, count, put } from "./base.js";

function spark(values, bars) {
  const el = svg("svg", { class: "spark", viewBox: "0 0 96 28", preserveAspectRatio: "none", "aria-hidden": "true" });
  const top = Math.max(...values, 1e-9), low = bars ? 0 : Math.min(...values) * 0.9, y = (v) => 26 - ((v - low) / (top - low || 1)) * 23, step = 96 / Math.max(1, values.length - (bars ? 0 : 1));
  if (bars) el.append(...values.map((v, i) => svg("rect", { x: (i * step).toFixed(1), y: y(v).toFixed(1), width: (step - 1).toFixed(1), height: (27 - y(v)).toFixed(1) })));
  else if (values.length) el.append(svg("polyline", { points: values.map((v, i) => `${(i * step).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
  return el;
}

export function tiles() {
  const make = (label) => { const t = { value: h("b"), sub: h("span", { className: "hint" }), pic: h("div") }; $("tiles").append(h("div", { className: "tile" }, h("span", { className: "label" }, label), t.value, t.sub, t.pic)); return t; };
  const [rate, queue, series, found] = ["Events per second", "Queue depth", "Series", "Anomalies, 24 h"].map(make);
  return (s) => {
    put(rate.value, count(Math.round(s.events_per_second)));
    put(rate.sub, `${count(s.rejected_last_minute)} rejected, ${count(s.late_last_minute)} late`);
    rate.pic.replaceChildren(spark(s.history.events_per_second));
    put(queue.value, count(s.queue_depth));
    const full = s.queue_depth / s.queue_capacity;
    put(queue.sub, full < 0.01 ? "keeping up" : `${Math.round(full * 100)} % of ${count(s.queue_capacity)}`);
    queue.sub.dataset.level = full >= 0.8 ? "critical" : full >= 0.5 ? "warning" : "";
    queue.pic.replaceChildren(spark(s.history.queue_depth));
    put(series.value, count(s.series));
    put(series.sub, s.series_new_24h ? `${count(s.series_new_24h)} new today` : "none new today");
    const { critical, warning } = s.anomalies_24h;
    put(found.value, count(critical + warning));
    found.sub.replaceChildren(icon("critical"), h("span", {}, count(critical)), h("span", { className: "word" }, "critical"), icon("warning"), h("span", {}, count(warning)), h("span", { className: "word" }, "warning"));
    found.pic.replaceChildren(spark(s.history.anomalies_per_hour, true));
  };
}
