// How to make it again, every setting of it, and how good it is where the truth is known.

import { get, post } from "./api.js";
import { button, duration, h, tell } from "./dom.js";

export class Details {
  constructor() {
    this.place = h("section", { class: "d-details", "aria-label": "Details" });
  }

  clear() {
    clearTimeout(this.timer);
    this.job = null;
    if (this.place.firstChild) this.place.replaceChildren();
  }

  async show(job) {
    this.job = job;
    let details;
    try {
      details = await get(`jobs/${job.id}/details`);
    } catch (error) {
      tell(error.message);
      return;
    }
    if (job !== this.job) return;
    const { command, config, record } = details;
    this.measures = h("div", {});
    this.place.replaceChildren(
      h("h3", {}, "The same again"),
      h("div", { class: "d-code" }, h("pre", { tabindex: "0", "aria-label": "Command" }, command), copy(command, "Copy the command")),
      h("details", {}, h("summary", {}, "Every setting (config.yaml)"), h("div", { class: "d-code" }, h("pre", { tabindex: "0", "aria-label": "Configuration" }, config), copy(config, "Copy the configuration"))),
      facts(record),
      this.measures,
    );
    this.paintMeasures(details);
  }

  paintMeasures({ can_be_measured: possible, evaluation, evaluating }) {
    if (!possible) return;
    const title = h("h3", {}, "Against the true object");
    if (Object.keys(evaluation).length) {
      const rows = Object.entries(evaluation).filter(([name, value]) => name !== "format_version" && ["number", "boolean", "string"].includes(typeof value));
      this.measures.replaceChildren(title, h("table", { class: "d-table" }, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", {}, typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value)))))));
      return;
    }
    const running = evaluating?.state === "running";
    this.measures.replaceChildren(
      title,
      running ? h("p", { class: "d-quiet", role: "status" }, "Measuring …") : h("p", {}, button("Measure", () => this.measure(), { id: "job-measure" }), " ", h("span", { class: "d-quiet" }, evaluating?.message ?? "The prompt's own object is known: shape, colours and views can be compared.")),
    );
    if (running) this.timer = setTimeout(() => this.again(), 1500);
  }

  async again() {
    const job = this.job;
    if (!job) return;
    const details = await get(`jobs/${job.id}/details`).catch(() => null);
    if (details && job === this.job) this.paintMeasures(details);
  }

  async measure() {
    try {
      await post(`jobs/${this.job.id}/evaluation`);
    } catch (error) {
      tell(error.message);
    }
    this.again();
  }
}

function facts(record) {
  const known = [];
  if (record.seconds) known.push(["Time", duration(record.seconds)]);
  if (record.peak_memory_megabytes) known.push(["Memory at most", `${Math.round(record.peak_memory_megabytes)} MB`]);
  if (record.seed !== undefined) known.push(["Seed", String(record.seed)]);
  if (record.versions) known.push(["Versions", Object.entries(record.versions).map(([name, version]) => `${name} ${version}`).join(", ")]);
  return h("dl", { class: "d-facts" }, known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function copy(text, name) {
  return button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied.");
    } catch {
      tell("The browser does not let this page copy; select the text instead.");
    }
  }, { "aria-label": name });
}

