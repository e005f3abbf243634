// Every format of a finished job: made on demand, then there to download.

import { get, post, saveUrl } from "./api.js";
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
    this.place.replaceChildren(h("h3", {}, "Downloads"), this.list);
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
    const focused = document.activeElement?.dataset?.format;
    const files = Object.entries(OWN).filter(([name]) => job.files[name]);
    this.list.replaceChildren(
      ...files.map(([name, what]) => row(name, what, h("a", { class: "d-button", href: saveUrl(job.id, name), download: "", "data-file": name, "aria-label": `Download ${size(job.files[name])}: ${name}` }, `Download ${size(job.files[name])}`))),
      ...data.exports.map((format) => row(format.name, format.summary, this.act(format))),
    );
    if (focused) this.list.querySelector(`[data-format="${CSS.escape(focused)}"]`)?.focus();
    if (data.exports.some((format) => format.state === "running")) this.timer = setTimeout(() => this.look(), 1000);
  }

  act(format) {
    const job = this.job;
    if (format.missing) return h("small", { class: "d-quiet" }, format.missing);
    if (format.file) {
      return h("a", { class: "d-button", href: saveUrl(job.id, format.file), download: "", "data-format": format.name, "aria-label": `Download ${size(format.bytes)}: ${format.name}` }, `Download ${size(format.bytes)}`);
    }
    if (format.state === "running") return h("span", { class: "d-quiet", role: "status" }, "Making …");
    const make = button("Make", async () => {
      try {
        await post(`jobs/${job.id}/exports/${format.name}`);
      } catch (error) {
        tell(error.message);
      }
      this.look();
    }, { "data-format": format.name, "aria-label": `Make ${format.name}` });
    return format.message ? h("span", {}, h("small", { class: "d-problem", role: "alert" }, format.message), " ", make) : make;
  }
}

function row(name, what, act) {
  return h("li", {}, h("b", {}, name), h("span", { class: "d-quiet" }, what ?? ""), act);
}
