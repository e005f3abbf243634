// The form below the prompt: preset, steps, seed, parts, and every setting of every part, as the server describes them.
//
// What a person has changed is kept here and nothing else is sent, so a description that arrives late never takes
// anything back: it brings labels, bounds and the values of what was not touched.

import { get, post } from "./api.js";
import { Control, fileField } from "./control.js";
import { arrange, duration, h } from "./dom.js";

const WAIT = 300;
const PLAIN = ["fast", "default", "balanced", "quality"];
const GPU = ["gpu-fast", "gpu-balanced", "gpu-quality"];
const DIRECT = [...PLAIN, ...GPU];

export class Settings extends HTMLElement {
  connectedCallback() {
    if (this.problem) return;
    this.preset = "default";
    this.prior = "embedded";
    this.parts = new Map();
    this.edits = new Map();
    this.groups = new Map();
    this.asked = 0;
    this.build();
    const origin = new URLSearchParams(location.search).get("from");
    this.ready = this.look(origin ? { from: origin } : {});
    // A run that ended has taught how long the next is likely to take; a refusal in sight is not wiped away for it.
    window.addEventListener("dream3d:ended", () => this.problem.textContent || this.again());
  }

  build() {
    this.problem = h("p", { class: "dream-problem", role: "alert", id: "dream-problem" });
    this.about = h("p", { class: "dream-about", role: "status", "aria-live": "polite" });
    this.speeds = [...DIRECT, "other"].map((name) =>
      h("input", { type: "radio", name: "dream-speed", value: name, id: `dream-speed-${name}`, onchange: () => this.speed(name) }));
    this.presets = h("select", { class: "d-input", id: "dream-preset", onchange: () => this.choose(this.presets.value) });
    this.others = h("div", { class: "d-field" }, h("label", { for: "dream-preset" }, "All presets"), this.presets);
    this.others.hidden = true;
    this.steps = number("steps", 1, () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.again(), WAIT);
    });
    this.seed = number("seed", 0, () => {});
    this.seed.value = "0";
    this.negative = h("input", { type: "text", class: "d-input", id: "dream-negative", maxlength: "1000", autocomplete: "off", "aria-describedby": "dream-negative-help" });
    this.choices = h("div", { class: "d-fields" });
    this.lists = h("div", {});
    this.append(
      this.problem,
      h("fieldset", { class: "d-presets", id: "dream-speed" }, h("legend", {}, "Preset"),
        h("small", {}, "CPU or GPU, the prior that ships with dream3d"), this.choose_of(PLAIN),
        h("small", {}, "GPU, a real model to download"), this.choose_of(GPU),
        h("small", {}, "All others, published systems among them"), this.choose_of(["other"])),
      this.others,
      this.about,
      h("div", { class: "d-fields" },
        h("div", { class: "d-field" }, h("label", { for: "dream-steps" }, "Steps"), this.steps),
        h("div", { class: "d-field" }, h("label", { for: "dream-seed" }, "Seed"), this.seed),
      ),
      h("div", { class: "d-field" }, h("label", { for: "dream-negative" }, "Negative prompt"), this.negative, h("small", { id: "dream-negative-help" }, "What to avoid; takes the place of the empty prompt.")),
      h("div", { class: "d-field", id: "dream-picture" }, fileField("dream-image", "Picture to follow from one side", ".png,.jpg,.jpeg,.webp", (name) => (this.image = name))),
      this.choices,
      h("small", { class: "d-quiet" }, "A mesh of yours to begin with: choose the representation “mesh”, then open “Representation: mesh” and send the file."),
      this.lists,
    );
    this.mark();
  }

  choose_of(names) {
    const title = (name) => (GPU.includes(name) ? `GPU ${name.slice(4)}` : name[0].toUpperCase() + name.slice(1));
    return this.speeds.filter(({ value }) => names.includes(value)).map((radio) => h("label", {}, radio, title(radio.value)));
  }

  speed(name) {
    this.others.hidden = name !== "other";
    if (name !== "other") this.choose(name);
  }

  // At once, before the server has answered: what is typed from now on is the new preset's.
  choose(preset) {
    this.touched = true;
    if (preset === this.preset) return;
    this.preset = preset;
    this.parts.clear();
    this.edits.clear();
    delete this.steps.dataset.touched;
    this.again();
  }

  mark() {
    const plain = DIRECT.includes(this.preset) && this.others.hidden;
    for (const radio of this.speeds) radio.checked = radio.value === (plain ? this.preset : "other");
    this.presets.value = this.preset;
  }

  again() {
    this.typing = 0;
    this.ready = this.look(this.query());
  }

  query() {
    const query = { preset: this.preset, ...Object.fromEntries(this.parts) };
    if (this.steps.dataset.touched && /^[1-9]\d{0,8}$/.test(this.steps.value)) query.steps = this.steps.value;
    return query;
  }

  async look(query) {
    const number = ++this.asked;
    let answer;
    try {
      answer = await get(`form?${new URLSearchParams(query)}`);
    } catch (error) {
      if (number === this.asked) this.problem.textContent = error.message;
      return;
    }
    if (answer.filled) await this.fill(answer.filled);
    if (number === this.asked) this.paint(answer.form);
  }

  // A past run's answers, where nobody has given others meanwhile.
  async fill(filled) {
    if (!this.touched) {
      this.preset = filled.preset;
      this.parts = new Map(Object.entries(filled.parts));
      this.edits = new Map(Object.entries(filled.settings));
      this.image = filled.image;
      if (filled.image) this.querySelector("#dream-image-status").textContent = "The picture of that run is used unless you choose another.";
      this.others.hidden = DIRECT.includes(filled.preset);
      if (filled.steps !== null && !this.steps.dataset.touched) {
        this.steps.value = filled.steps;
        this.steps.dataset.touched = "1";
      }
    }
    if (!this.seed.dataset.touched) this.seed.value = filled.seed;
    if (!this.negative.value) this.negative.value = filled.negative_prompt;
    let prompt;
    while (!(prompt = document.querySelector("#dream-prompt textarea, #dream-prompt input"))) await new Promise(requestAnimationFrame);
    if (prompt.value) return;
    prompt.value = filled.prompt;
    prompt.dispatchEvent(new Event("input", { bubbles: true }));
  }

  paint(form) {
    this.problem.textContent = form.problem;
    if (!this.presets.length) {
      const group = (label, wanted) => h("optgroup", { label }, form.presets.filter(wanted).map(({ name, summary }) => h("option", { value: name }, `${name}: ${summary}`)));
      this.presets.append(group("CPU or GPU", ({ published, gpu }) => !published && !gpu), group("GPU, a real model to download", ({ gpu }) => gpu), group("Published systems, CPU or GPU", ({ published, gpu }) => published && !gpu));
    }
    this.mark();
    if (!this.steps.dataset.touched) this.steps.value = form.steps;
    const time = form.seconds === null ? "No run like it was made on this machine yet, so there is no estimate." : `About ${duration(form.seconds)} on this machine.`;
    this.about.replaceChildren(`${form.summary} `, form.refused ? h("strong", {}, `It cannot run on this machine: ${form.refused}.`) : time);
    if (this.prior !== form.prior) {
      this.prior = form.prior;
      this.dispatchEvent(new Event("prior", { bubbles: true }));
    }
    this.paintParts(form.parts);
    const groups = form.groups.map((group) => this.paintGroup(group));
    if (!form.problem) arrange(this.lists, groups);
  }

  paintParts(parts) {
    if (!this.choices.firstChild) {
      this.choices.append(...parts.map(({ kind, title, choices }) => {
        const select = h("select", { class: "d-input", id: `dream-${kind}` }, choices.map((name) => h("option", { value: name }, name)));
        select.addEventListener("change", () => {
          this.touched = true;
          if (select.value === select.dataset.usual) this.parts.delete(kind);
          else this.parts.set(kind, select.value);
          this.again();
        });
        return h("div", { class: "d-field" }, h("label", { for: select.id }, title), select);
      }));
    }
    for (const { kind, usual, chosen } of parts) {
      const select = this.choices.querySelector(`#dream-${kind}`);
      select.dataset.usual = usual;
      select.value = chosen;
    }
  }

  paintGroup({ name, title, origin, fields }) {
    let group = this.groups.get(name);
    if (!group) {
      const body = { title: h("span", {}), count: h("small", { class: "d-quiet" }), origin: h("p", { class: "dream-origin" }), rows: h("div", { class: "d-fields" }) };
      group = { ...body, controls: new Map(), place: h("details", { class: "d-group", "data-group": name }, h("summary", {}, body.title, body.count), body.origin, body.rows) };
      this.groups.set(name, group);
    }
    group.title.textContent = title;
    group.origin.hidden = !origin;
    if (origin) group.origin.replaceChildren(origin.summary, h("br"), h("code", {}, origin.formula), h("br"), h("small", {}, origin.paper));
    const known = group.controls;
    group.controls = new Map(fields.map((field) => {
      const old = known.get(field.path);
      const control = old?.suits(field) ? old : new Control(field, (value) => this.edit(group, field.path, value));
      control.describe(field, this.edits.get(field.path));
      return [field.path, control];
    }));
    arrange(group.rows, [...group.controls.values()].map((control) => control.place));
    this.count(group);
    return group.place;
  }

  edit(group, path, value) {
    this.touched = true;
    if (value === undefined) this.edits.delete(path);
    else this.edits.set(path, value);
    this.count(group);
  }

  count(group) {
    const changed = [...group.controls.keys()].filter((path) => this.edits.has(path)).length;
    group.count.textContent = changed ? `${changed} changed` : "";
  }

  // Only what was changed; a setting that the chosen parts do not have any more is forgotten.
  changed() {
    const there = new Set([...this.groups.values()].filter(({ place }) => place.isConnected).flatMap(({ controls }) => [...controls.keys()]));
    return {
      preset: this.preset,
      negative_prompt: this.negative.value,
      seed: this.seed.value,
      steps: this.steps.dataset.touched ? this.steps.value : null,
      parts: Object.fromEntries(this.parts),
      image: this.image || null,
      settings: Object.fromEntries([...this.edits].filter(([path]) => there.has(path))),
    };
  }

  async generate(prompt) {
    if (this.sending) return;
    this.sending = true;
    const pressed = document.querySelector("#dream-generate");
    pressed?.setAttribute("aria-busy", "true");
    this.problem.textContent = "";
    // Steps typed just now are asked about first: an answer that comes after a refusal would wipe it away.
    clearTimeout(this.typing);
    if (this.typing) this.again();
    try {
      await Promise.all([this.ready, ...[...this.querySelectorAll("input[type=file]")].map((input) => input.pending?.catch(() => {}))]);
      const words = prompt || document.querySelector("#dream-prompt textarea, #dream-prompt input")?.value;
      const { job } = await post("form", { prompt: words, ...this.changed() });
      this.problem.textContent = "";
      window.dream3d.open(job.id);
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.sending = false;
      pressed?.removeAttribute("aria-busy");
    }
  }
}

function number(name, min, typed) {
  const input = h("input", { type: "number", class: "d-input", id: `dream-${name}`, min, step: "1", autocomplete: "off" });
  input.addEventListener("input", () => {
    input.dataset.touched = "1";
    typed();
  });
  return input;
}
