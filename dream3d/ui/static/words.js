// While a prompt is typed: words to go on with, and which words the prior does not know.

import { get } from "./api.js";
import { button, h } from "./dom.js";

const WAIT = 350;

export class Words extends HTMLElement {
  connectedCallback() {
    if (this.note) return;
    this.note = h("p", { class: "d-note", role: "status", "aria-live": "polite" });
    this.chips = h("div", { class: "d-chips", role: "group", "aria-label": "Suggestions for the prompt" });
    this.append(this.chips, this.note);
    get("vocabulary").then(({ vocabulary }) => {
      this.vocabulary = vocabulary;
      this.suggest();
    }, () => {});
    this.watch();
  }

  get input() {
    return document.querySelector("#dream-prompt textarea, #dream-prompt input");
  }

  watch() {
    document.addEventListener("input", (event) => {
      if (event.target !== this.input) return;
      this.suggest();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.check(), WAIT);
    });
    document.addEventListener("prior", () => this.check());
    // A form filled by the server says so with no event of the keyboard.
    setInterval(() => {
      const text = this.input?.value ?? "";
      if (text !== this.checked && text !== this.pending) this.check();
    }, 1500);
  }

  write(text) {
    const input = this.input;
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.focus();
  }

  suggest() {
    const { colors, things, relations, examples } = this.vocabulary ?? { colors: [], things: [], relations: [], examples: [] };
    const text = this.input?.value ?? "";
    const words = text.toLowerCase().split(/\s+/);
    const last = words.at(-1) ?? "";
    const before = text.slice(0, text.length - last.length);
    const complete = words.slice(0, -1);
    let offers;
    if (!text.trim()) {
      offers = examples.map((example) => [example, example]);
    } else {
      const after = complete.at(-1);
      let pool = [...colors, ...things];
      if (colors.includes(after)) pool = things;
      else if (things.includes(after)) pool = relations;
      offers = pool
        .filter((word) => word.startsWith(last) && word !== last)
        .slice(0, 10)
        .map((word) => [word, `${before}${word} `]);
    }
    this.chips.replaceChildren(
      ...offers.map(([label, whole]) => button(label, () => this.write(whole), { kind: "chip" })),
    );
  }

  async check() {
    const text = this.input?.value ?? "";
    this.pending = text;
    let found;
    try {
      found = await get(`prompt?text=${encodeURIComponent(text)}&prior=${this.prior()}`);
    } catch {
      return;
    }
    if (text !== this.input?.value) return;
    this.checked = text;
    this.input.setAttribute("aria-invalid", String(!found.known));
    const unknown = Object.entries(found.unknown ?? {});
    const most = this.input.maxLength;
    if (most > 0 && text.length >= most) {
      this.note.textContent = `A prompt has at most ${most} characters; what was pasted beyond them is left out.`;
    } else if (found.known) {
      this.note.replaceChildren();
    } else if (unknown.length) {
      this.note.replaceChildren(
        ...unknown.slice(0, 4).flatMap(([word, near]) => [
          h("strong", {}, `“${word}”`),
          " is not a word this prior knows. ",
          near.length ? "Nearest: " : "",
          ...near.flatMap((other) => [
            button(other, () => this.write(text.replace(new RegExp(`(?<![\\p{L}])${word}(?![\\p{L}])`, "iu"), other)), { kind: "chip" }),
            " ",
          ]),
        ]),
      );
    } else {
      this.note.textContent = found.message;
    }
  }

  prior() {
    return document.querySelector("dream-settings")?.prior ?? "embedded";
  }
}
