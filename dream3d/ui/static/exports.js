// Every format of a finished job: made on demand, then there to download.

import { get, post, saveUrl } from "./api.js";
import { Control } from "./control.js";
import { button, h, size, tell } from "./dom.js";

const OWN = { "asset.glb": "Mesh, coloured per vertex", "asset.ply": "Splats, 62 properties", "turntable.mp4": "One turn, H.264", "preview.png": "Eight views", "metrics.jsonl": "Loss of every step", "config.yaml": "Every setting" };

export class Exports {
  constructor() {
    this.place = h("section", { class: "d-exports", "aria-label": "Downloads" });
  }

  clear() {
    clearTimeout(this.timer);
    this.job = null;
    if (this.place.firstChild) this.place.replaceChildren();
  }

  show(job) {
    this.job = job;
    this.list = h("ul", { class: "d-formats" });
    this.fields = h("div", { class: "d-fields" });
    this.wishes = new Map();
    this.made = new Map();
    this.place.replaceChildren(h("h3", {}, "Downloads"), h("details", { class: "d-group d-options" }, h("summary", {}, "Texture size, triangles, what films show"), this.fields), this.list);
    this.look();
  }

  async look() {
    clearTimeout(this.timer);
    const job = this.job;
    if (!job) return;
    let data;
    try {
      data = await get(`jobs/${job.id}/exports`);
    } catch (error) {
      this.list.replaceChildren(h("li", {}, error.message));
      return;
    }
    if (job !== this.job) return;
    if (!this.fields.firstChild) this.offer(data.options);
    const focused = document.activeElement?.dataset?.format;
    const files = Object.entries(OWN).filter(([name]) => job.files[name]);
    this.list.replaceChildren(
      ...files.map(([name, what]) => row(name, what, h("a", { class: "d-button", href: saveUrl(job.id, name), download: "", "data-file": name, "aria-label": `Download ${size(job.files[name])}: ${name}` }, `Download ${size(job.files[name])}`))),
      ...data.exports.map((format) => row(format.name, format.summary, this.act(format))),
    );
    if (focused) this.list.querySelector(`[data-format="${CSS.escape(focused)}"]`)?.focus();
    if (data.exports.some((format) => format.state === "running")) this.timer = setTimeout(() => this.look(), 1000);
  }

  offer(options) {
    for (const field of options) {
      const control = new Control({ ...field, path: `export.${field.path}` }, (value) => {
        if (value === undefined) this.wishes.delete(field.path);
        else this.wishes.set(field.path, field.kind === "whole" ? Number(value) : value);
        this.look();
      });
      control.describe(field);
      this.fields.append(control.place);
    }
  }

  // Options changed since a format was made here: it can be had anew, and what was made stays until then.
  act(format) {
    const job = this.job;
    if (format.missing) return h("small", { class: "d-quiet" }, format.missing);
    if (format.state === "running") return h("span", { class: "d-quiet", role: "status" }, "Making …");
    const wishes = Object.fromEntries(this.wishes);
    const wanted = JSON.stringify(wishes);
    const link = format.file && h("a", { class: "d-button", href: saveUrl(job.id, format.file), download: "", "data-format": format.name, "aria-label": `Download ${size(format.bytes)}: ${format.name}` }, `Download ${size(format.bytes)}`);
    if (link && !format.message && wanted === (this.made.get(format.name) ?? "{}")) return link;
    const again = link ? "Make anew" : "Make";
    const make = button(again, async () => {
      try {
        await post(`jobs/${job.id}/exports/${format.name}`, wishes);
        this.made.set(format.name, wanted);
      } catch (error) {
        tell(error.message);
      }
      this.look();
    }, { "data-format": format.name, "aria-label": `${again} ${format.name}` });
    const problem = format.message && h("small", { class: "d-problem", role: "alert" }, format.message);
    return h("span", { class: "d-row" }, problem, link, make);
  }
}

function row(name, what, act) {
  return h("li", {}, h("b", {}, name), h("span", { class: "d-quiet" }, what ?? ""), act);
}
