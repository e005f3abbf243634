// Two runs side by side, turned together, and what differs between their settings.

import { get } from "./api.js";
import { button, duration, h } from "./dom.js";
import { Orbit } from "./gl.js";
import { looks } from "./results.js";

export class Comparison {
  constructor(closed) {
    this.closed = closed;
    this.place = h("section", { class: "d-compare", "aria-label": "Comparison" });
  }

  async show(jobs) {
    const orbit = new Orbit();
    const close = button("Back to the gallery", () => {
      this.place.replaceChildren();
      this.closed();
    });
    const pairs = jobs.map((job) => new Map(looks(job)));
    const names = [...pairs[0].keys()].filter((name) => pairs[1].has(name));
    const stages = jobs.map(() => h("div", { class: "d-stage" }));
    const choose = (name) => stages.forEach((stage, i) => stage.replaceChildren(pairs[i].get(name)(orbit)));
    const select = h("select", { class: "d-input", id: "compare-look" }, names.map((name) => h("option", {}, name)));
    select.addEventListener("change", () => choose(select.value));
    const differences = h("div", {});
    this.place.replaceChildren(
      h("div", { class: "d-row" }, close, h("label", { for: "compare-look" }, "Look at"), select),
      h("div", { class: "d-pair" }, jobs.map((job, i) => h("article", { class: "d-card" }, h("h2", {}, job.request.prompt), stages[i]))),
      differences,
    );
    close.focus();
    if (names.length) choose(names[0]);
    else stages.forEach((stage) => stage.replaceChildren(h("p", { class: "d-quiet" }, "The two have nothing in common to look at.")));
    const details = await Promise.all(jobs.map((job) => get(`jobs/${job.id}/details`)));
    differences.replaceChildren(table(jobs, details));
  }
}

function table(jobs, details) {
  const known = details.map(({ config, record }) => new Map([...settings(config), ...results(record)]));
  const names = [...new Set([...known[0].keys(), ...known[1].keys()])];
  const differing = names.filter((name) => known[0].get(name) !== known[1].get(name));
  if (!differing.length) return h("p", { class: "d-quiet" }, "Their settings are the same.");
  return h("table", { class: "d-table" },
    h("caption", {}, "What differs"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), jobs.map((job) => h("th", { scope: "col" }, job.request.prompt)))),
    h("tbody", {}, differing.map((name) => h("tr", {}, h("th", { scope: "row" }, name), known.map((side) => h("td", {}, side.get(name) ?? "–"))))));
}

// Dotted keys of the configuration's YAML, which holds nothing but nested mappings, lists of mappings and plain values.
function settings(text) {
  const found = new Map();
  const path = [];
  for (const line of text.split("\n")) {
    const match = /^( *)(- )?([\w]+):(?: (.*))?$/.exec(line);
    if (!match) continue;
    const depth = match[1].length + (match[2] ? 2 : 0);
    while (path.length && path.at(-1)[0] >= depth) path.pop();
    path.push([depth, match[3]]);
    if (match[4]) found.set(path.map(([, name]) => name).join("."), match[4]);
  }
  return found;
}

function results({ seconds, peak_memory_megabytes: memory }) {
  const found = [];
  if (seconds) found.push(["time", duration(seconds)]);
  if (memory) found.push(["memory at most", `${Math.round(memory)} MB`]);
  return found;
}
