// A list of prompts and what became of it: a row an asset, live; the sheet of their pictures, also to save; results.csv.

import { fileUrl, get, post } from "./api.js";
import { button, duration, h, tell, when } from "./dom.js";

export class BatchTab extends HTMLElement {
  connectedCallback() {
    if (!this.form) this.build();
    this.timer = setInterval(() => this.offsetParent && !document.hidden && this.look(), 1500);
    this.look();
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  build() {
    this.text = h("textarea", { id: "batch-text", class: "d-input", rows: "7", placeholder: "a red mug\na green snowman\na blue car", spellcheck: "false", "aria-describedby": "batch-help" });
    this.file = h("input", { type: "file", id: "batch-file", accept: ".txt,.csv,.jsonl" });
    this.file.addEventListener("change", () => this.read());
    this.preset = h("select", { id: "batch-preset", class: "d-input" }, h("option", { value: "fast" }, "fast"));
    this.seeds = h("input", { id: "batch-seeds", class: "d-input", type: "text", value: "0", autocomplete: "off" });
    this.problem = h("p", { class: "dream-problem", role: "alert" });
    this.form = h("article", { class: "d-card" },
      h("h2", {}, "Many at once"),
      h("p", { class: "d-quiet", id: "batch-help" }, "A prompt a line; or a CSV with a header, or JSON lines, with prompt, negative, seed, preset and settings (at most 100 assets, 1 MB)."),
      h("div", { class: "d-field" }, h("label", { for: "batch-text" }, "Prompts"), this.text),
      h("div", { class: "d-fields" },
        h("div", { class: "d-field" }, h("label", { for: "batch-file" }, "Or a file (.txt, .csv, .jsonl)"), this.file),
        h("div", { class: "d-field" }, h("label", { for: "batch-preset" }, "Preset of lines that do not say"), this.preset),
        h("div", { class: "d-field" }, h("label", { for: "batch-seeds" }, "Seeds, e.g. 0,1,2"), this.seeds),
      ),
      this.problem,
      h("div", { class: "d-row" }, button("Make them all", () => this.send(), { kind: "primary", id: "batch-send" })),
    );
    this.choice = h("select", { id: "batch-choice", class: "d-input" });
    this.choice.addEventListener("change", () => { this.batch = this.choice.value; this.look(); });
    this.status = h("p", { class: "d-status", role: "status", "aria-live": "polite" });
    this.buttons = h("div", { class: "d-row" });
    this.rows = h("tbody", {});
    this.sheet = h("ul", { class: "d-gallery", "aria-label": "Contact sheet" });
    this.found = h("article", { class: "d-card" },
      h("div", { class: "d-field" }, h("label", { for: "batch-choice" }, "Batch"), this.choice),
      this.status, this.buttons,
      h("div", { class: "d-scroll", tabindex: "0", role: "region", "aria-label": "Assets of the batch" }, h("table", { class: "d-table" }, h("thead", {}, h("tr", {}, ["Line", "Prompt", "Seed", "State", "Progress"].map((name) => h("th", { scope: "col" }, name)))), this.rows)),
      this.sheet);
    this.found.hidden = true;
    this.append(this.form, this.found);
    get("form").then(({ form }) => {
      this.preset.replaceChildren(...form.presets.map(({ name }) => h("option", { value: name }, name)));
      this.preset.value = "fast";
    }, () => {});
  }

  async read() {
    const [file] = this.file.files;
    if (!file) return;
    if (file.size > 900000) {
      this.problem.textContent = `${file.name} has ${Math.round(file.size / 1000)} kB; at most 900 kB are taken here, more by \`dream3d batch\``;
      return;
    }
    this.text.value = await file.text();
    this.name = file.name;
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    const pressed = this.querySelector("#batch-send");
    pressed.setAttribute("aria-busy", "true");
    this.problem.textContent = "";
    try {
      const body = { name: this.name ?? "prompts.txt", text: this.text.value, preset: this.preset.value, seeds: this.seeds.value };
      const { batch } = await post("batches", body);
      this.batch = batch.id;
      this.name = undefined;
      this.text.value = this.file.value = "";
    } catch (error) {
      this.problem.textContent = error.message;
    }
    this.sending = false;
    pressed.removeAttribute("aria-busy");
    this.look();
  }

  async look() {
    try {
      const { batches } = await get("batches");
      this.found.hidden = !batches.length;
      if (!batches.length) return;
      const known = batches.map(({ id }) => id).join();
      if (known !== this.known) {
        this.known = known;
        this.choice.replaceChildren(...batches.map(({ id, name, created, assets }) => h("option", { value: id }, `${name}, ${assets} ${assets === 1 ? "asset" : "assets"}, ${when(created)}`)));
      }
      this.batch ??= batches[0].id;
      this.choice.value = this.batch;
      const { batch } = await get(`batches/${this.batch}`);
      if (batch.id === this.batch) this.paint(batch);
    } catch (error) {
      this.status.textContent = error.message;
    }
  }

  paint(batch) {
    const state = JSON.stringify(batch);
    if (state === this.state) return;
    this.state = state;
    const left = batch.ended || batch.seconds_left === null ? "" : `, about ${duration(batch.seconds_left)} left`;
    this.status.textContent = `${Object.entries(batch.states).map(([name, count]) => `${count} ${name}`).join(", ")}${left}`;
    this.buttons.replaceChildren(
      batch.ended ? "" : button("Cancel all", () => this.cancel(), { kind: "danger", id: "batch-cancel" }),
      ...["contact.html", "contact.png", "results.csv"].map((name) => h("a", { class: "d-button", href: `/api/batches/${batch.id}/${name}`, download: "" }, name)),
    );
    this.rows.replaceChildren(...batch.items.map((item) => h("tr", { "data-state": item.state },
      h("td", {}, String(item.line)), h("th", { scope: "row" }, item.prompt || "–"), h("td", {}, String(item.seed ?? "–")),
      h("td", {}, h("span", { class: `d-state ${item.state}` }, item.state)),
      told(item))));
    this.sheet.replaceChildren(...batch.items.filter((item) => item.preview).map((item) =>
      h("li", { class: "d-item" },
        h("button", { type: "button", class: "d-open", "aria-label": `Open ${item.prompt}`, onclick: () => window.dream3d.open(item.job) },
          h("div", { class: "d-window" }, h("img", { src: fileUrl(item.job, "preview.png", item.preview), alt: "", loading: "lazy" }))),
        h("div", { class: "d-caption" }, h("b", {}, item.prompt), h("small", { class: "d-quiet" }, `seed ${item.seed ?? 0}, ${item.state}`)))));
  }

  async cancel() {
    try {
      await post(`batches/${this.batch}/cancel`);
      tell("Stopping; what there is will be kept.");
    } catch (error) {
      tell(error.message);
    }
    this.look();
  }
}

// How far it is, or the first sentence of what went wrong; the rest opens.
function told(item) {
  const message = item.problem || item.message;
  if (!message) return h("td", {}, item.steps ? `${item.step} of ${item.steps}` : "");
  const first = message.split(". ")[0];
  return h("td", {}, first === message ? message : h("details", {}, h("summary", {}, `${first}.`), message.slice(first.length + 2)));
}
