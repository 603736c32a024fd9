// Upload: drop anywhere, one line per file with progress, outcome, first errors, retry and cancel. Two files travel at a time.
import { $, h, put, bytes, some, count } from "./base.js";

const AT_ONCE = 2, SHOWN = 3, BUSY = ["queued", "sending", "checking"];

/** Whether a file was refused before any row of it. */
const refused = (r) => r?.accepted === 0 && r.errors.length === 1 && !r.errors[0].line;
/** Of an array `line` counts elements. One that is refused whole has no format. */
const place = ({ line, code }, { format }) => (line ? `${(format ?? (code === "invalid_json" ? "json" : "")) === "json" ? "element" : "line"} ${count(line)}` : "");

export class Uploads {
  /** `show` opens a report's time, `done` is told of each file that was taken. */
  constructor(api, show, done, toast) {
    Object.assign(this, { api, open: show, done, toast, jobs: [], active: 0 });
    $("file").onchange = () => { this.add($("file").files); $("file").value = ""; };
    $("tray-x").onclick = () => this.close();
    let depth = 0;
    const over = (on) => { if (!on) depth = 0; $("drop").hidden = !on; };
    const on = (type, does) => addEventListener(type, (e) => { if (e.dataTransfer?.types.includes("Files")) { e.preventDefault(); does(e.dataTransfer); } });
    on("dragenter", () => { depth++; over(true); });
    on("dragover", (data) => { data.dropEffect = "copy"; });
    on("dragleave", () => { if (--depth <= 0) over(false); });
    on("drop", (data) => { over(false); this.add(this.files(data)); });
    addEventListener("beforeunload", (e) => { if (this.busy()) e.preventDefault(); });
  }

  /** A folder looks like a file until it is read. */
  files({ items }) {
    const all = [...items].filter((i) => i.kind === "file"), files = all.filter((i) => !i.webkitGetAsEntry()?.isDirectory);
    if (files.length < all.length) this.toast("Folders are not read. Drop the files in them.");
    return files.map((i) => i.getAsFile());
  }

  choose() { $("file").click(); }
  busy() { return this.jobs.some((job) => BUSY.includes(job.state)); }

  add(files) {
    for (const file of files) {
      const job = { file, key: this.api.newKey(), state: "queued", el: h("li"), bar: h("progress", { max: 1, value: 0, "aria-label": `${file.name} upload` }), line: h("p", { className: "hint" }), acts: h("span", { className: "acts" }), errors: h("ul", { className: "errors" }) };
      job.el.append(h("div", {}, h("b", { title: file.name }, file.name), h("span", { className: "hint" }, bytes(file.size)), job.acts), job.bar, job.line, job.errors);
      this.jobs.push(job);
      $("files").append(job.el);
      this.show(job);
    }
    if (this.jobs.length) $("tray").hidden = false;
    this.next();
  }

  next() {
    for (const job of this.jobs) if (this.active < AT_ONCE && job.state === "queued") this.send(job);
    const of = (...states) => this.jobs.filter((j) => states.includes(j.state)).length;
    const left = of(...BUSY);
    put($("tray-sum"), left ? `${count(this.jobs.length - left)} of ${some(this.jobs.length, "file")} done` : of("failed") ? `${some(of("failed"), "file")} failed` : `${some(this.jobs.length, "file")} done`);
  }

  async send(job) {
    Object.assign(job, { state: "sending", stop: new AbortController(), part: 0, report: null });
    this.active++;
    this.show(job);
    try {
      job.report = await this.api.upload(job.file, {
        key: job.key, signal: job.stop.signal,
        progress: (part) => { job.part = part; if (part === 1) job.state = "checking"; this.show(job); },
        taken: (report) => { job.so = report.accepted; this.show(job); },
      });
      job.state = job.report.accepted ? "done" : "failed";
      this.done(job.report);
    } catch (error) {
      job.state = error.name === "AbortError" ? "cancelled" : "failed";
      job.message = error.message;
    }
    this.active--;
    this.show(job);
    this.next();
  }

  /** What its line says. */
  words({ state, report: r, part, so, message }) {
    if (refused(r)) return `Not read: ${r.errors[0].message}`;
    if (r) return `${count(r.accepted)} accepted · ${count(r.rejected)} rejected` + (r.late === null ? "" : ` · ${count(r.late)} late`) + (r.anomalies === null ? "" : ` · ${some(r.anomalies, "anomaly", "anomalies")}`);
    return { queued: "Waiting", sending: `Uploading ${Math.floor((part ?? 0) * 100)} %`, checking: `Checking for anomalies${so ? ` · ${count(so)} accepted` : ""}`, cancelled: "Cancelled. Nothing from this file was kept.", failed: message }[state];
  }

  show(job) {
    const { state, report: r } = job;
    job.el.dataset.state = state === "done" && r.rejected ? "partly" : state;
    job.bar.hidden = !["sending", "checking"].includes(state);
    if (state === "checking") job.bar.removeAttribute("value");
    else job.bar.value = job.part ?? 0;
    put(job.line, this.words(job));
    if (job.shown === state) return; // buttons and errors change with the state only, so focus stays where it is
    const focused = job.acts.contains(document.activeElement);
    job.shown = state;
    const act = (text, does) => h("button", { className: "link", textContent: text, "aria-label": `${text} ${job.file.name}`, onclick: does });
    job.acts.replaceChildren(
      ...(["queued", "sending"].includes(state) ? [act("Cancel", () => this.cancel(job))] : []),
      ...(state === "cancelled" || (state === "failed" && !r) ? [act("Retry", () => this.retry(job))] : []),
      ...(state === "done" && r.from !== null ? [act("Show", () => this.open(r))] : []));
    if (focused) job.acts.firstChild?.focus();
    const { errors: all, rejected } = r && !refused(r) ? r : { errors: [], rejected: 0 }, errors = all.slice(0, SHOWN), more = rejected - errors.length;
    job.errors.replaceChildren(
      ...errors.map((e) => h("li", {}, h("b", {}, place(e, r)), ` ${e.field && !e.message.startsWith(e.field) ? `${e.field}: ` : ""}${e.message}`)),
      ...(more > 0 ? [h("li", { className: "hint" }, `and ${count(more)} more`)] : []),
      ...(r?.warnings ?? []).map((text) => h("li", { className: "hint" }, text)));
  }

  cancel(job) { if (job.state === "queued") { job.state = "cancelled"; this.show(job); this.next(); } else if (job.state === "sending") job.stop.abort(); }
  retry(job) { Object.assign(job, { state: "queued", so: 0 }); this.show(job); this.next(); }
  close() { $("tray").hidden = true; this.jobs = this.jobs.filter((j) => BUSY.includes(j.state) || (j.el.remove(), false)); }
}
