// Past runs: search, open, compare two side by side, run again, delete.

import { fileUrl, get, remove } from "./api.js";
import { Comparison } from "./compare.js";
import { button, confirmed, h, tell, when } from "./dom.js";

const PAGE = 24;

export class Gallery extends HTMLElement {
  connectedCallback() {
    if (!this.built) this.build();
    this.look();
    this.timer = setInterval(() => this.offsetParent && !document.hidden && this.look(), 4000);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  build() {
    this.built = true;
    this.chosen = new Map();
    this.limit = PAGE;
    this.search = h("input", { type: "search", id: "gallery-search", class: "d-input", placeholder: "red, fast, done …", autocomplete: "off" });
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.look(), 200);
    });
    this.count = h("p", { class: "d-quiet", role: "status", "aria-live": "polite" });
    this.compare = button("Compare two", () => this.open(), { kind: "primary", disabled: true, id: "gallery-compare" });
    this.list = h("ul", { class: "d-gallery" });
    this.more = button("Show more", () => { this.limit += PAGE; this.look(); });
    this.more.hidden = true;
    this.comparison = new Comparison(() => { this.all.hidden = false; });
    this.all = h("div", {},
      h("div", { class: "d-row d-search" }, h("label", { for: "gallery-search" }, "Search past runs"), this.search, this.compare),
      this.count, this.list, this.more);
    this.append(this.all, this.comparison.place);
  }

  async look() {
    let found;
    try {
      found = await get(`jobs?limit=${this.limit}&search=${encodeURIComponent(this.search.value)}`);
    } catch (error) {
      this.count.textContent = error.message;
      return;
    }
    const { jobs, total } = found;
    this.count.textContent = total ? `${total} ${total === 1 ? "run" : "runs"}` : this.search.value ? "No run matches." : "No runs yet.";
    this.more.hidden = total <= this.limit;
    const state = JSON.stringify(jobs.map((job) => [job.id, job.state, job.preview, job.live]));
    if (state === this.state) return;
    this.state = state;
    this.list.replaceChildren(...jobs.map((job) => this.item(job)));
    this.choices();
  }

  item(job) {
    const { prompt, preset, seed } = job.request;
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${prompt} to compare`, "data-job": job.id });
    box.checked = this.chosen.has(job.id);
    box.addEventListener("change", () => {
      if (box.checked) this.chosen.set(job.id, job);
      else this.chosen.delete(job.id);
      this.choices();
    });
    const picture = job.preview
      ? h("img", { src: fileUrl(job.id, "preview.png", job.preview), alt: "", loading: "lazy" })
      : h("div", { class: "d-blank", "aria-hidden": "true" });
    return h("li", { class: "d-item", "data-job": job.id, "data-state": job.state },
      h("button", { type: "button", class: "d-open", "aria-label": `Open ${prompt}`, onclick: () => window.dream3d.open(job.id) }, h("div", { class: "d-window" }, picture)),
      h("div", { class: "d-caption" },
        h("b", {}, prompt),
        h("small", { class: "d-quiet" }, h("span", { class: `d-state ${job.state}` }, job.state), ` ${preset}, seed ${seed ?? 0}, ${when(job.created)}`),
        h("div", { class: "d-row" },
          h("label", { class: "d-check" }, box, "Compare"),
          h("a", { class: "d-button quiet", href: `/?from=${job.id}`, "aria-label": `Run ${prompt} again with changes` }, "Again"),
          job.can_delete ? button("Delete", () => this.remove(job), { kind: "quiet", "aria-label": `Delete ${prompt}` }) : "",
        ),
      ));
  }

  choices() {
    this.compare.disabled = this.chosen.size !== 2;
    for (const box of this.list.querySelectorAll("input[type=checkbox]")) box.disabled = this.chosen.size >= 2 && !box.checked;
  }

  open() {
    this.all.hidden = true;
    this.comparison.show([...this.chosen.values()]);
  }

  async remove(job) {
    if (!(await confirmed(`Delete “${job.request.prompt}” and all its files? This cannot be undone.`, "Delete it"))) return;
    try {
      await remove(`jobs/${job.id}`);
      tell("Deleted.");
    } catch (error) {
      tell(error.message);
    }
    this.chosen.delete(job.id);
    this.state = "";
    this.look();
  }
}
