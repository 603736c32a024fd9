// Series search: a combobox. Focus stays in the field; arrows (or Ctrl+J and Ctrl+K) move, Enter opens, Esc leaves.
import { $, h, num, seriesName, some } from "./base.js";

export function search(api, open) {
  const q = $("q"), hits = $("hits");
  let found = [], at = 0, asked = 0;
  const show = (on) => { hits.hidden = !on; q.setAttribute("aria-expanded", on); if (!on) q.removeAttribute("aria-activedescendant"); };
  const move = (to) => {
    at = (to + found.length) % found.length;
    [...hits.children].forEach((li, i) => li.setAttribute("aria-selected", i === at));
    q.setAttribute("aria-activedescendant", `hit-${at}`);
    hits.children[at].scrollIntoView({ block: "nearest" });
  };
  const ask = async () => {
    const mine = ++asked, result = await api.series({ query: q.value.trim(), limit: 12 }).catch(() => null);
    if (mine !== asked || !result) return; // an older answer came late, or none
    found = result.series;
    hits.replaceChildren(...found.map((s, i) => h("li", { id: `hit-${i}`, role: "option", onmousedown: (e) => { e.preventDefault(); take(i); } },
      h("span", { className: "name" }, ...seriesName(s.metric, s.labels)), h("span", { className: "last" }, num(s.last.value)),
      h("span", { className: "hint" }, s.anomalies_24h ? some(s.anomalies_24h, "anomaly", "anomalies") : "quiet"))));
    if (!found.length) hits.append(h("li", { className: "hint" }, "No series matches “", h("bdi", {}, q.value.trim()), "”"));
    show(true);
    if (found.length) move(0);
  };
  const take = (i) => { if (!found[i]) return; show(false); q.value = ""; q.blur(); open(found[i]); };
  q.oninput = ask;
  q.onfocus = ask;
  q.onblur = () => { asked++; show(false); };
  q.onkeydown = (e) => {
    const step = e.key === "ArrowDown" || (e.ctrlKey && e.key === "j") ? 1 : e.key === "ArrowUp" || (e.ctrlKey && e.key === "k") ? -1 : 0;
    if (step && found.length) { e.preventDefault(); move(at + step); }
    else if (e.key === "Enter") take(at);
    else if (e.key === "Escape") { e.stopPropagation(); q.value = ""; q.blur(); }
  };
}
