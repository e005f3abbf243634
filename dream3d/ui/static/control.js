// One setting: the native control for its kind, its bounds, and its help, which screen readers read with it.

import { upload } from "./api.js";
import { h, size } from "./dom.js";

// Of a file, as the server has it.
const MOST_BYTES = 50 * 2 ** 20;
// Settings that are files, and which endings they take.
const FILES = { "scene.mesh": ".glb,.obj,.ply,.stl" };

export class Control {
  // `changed` is told the new value, or undefined when it is again what it would be without anybody's doing.
  constructor(field, changed) {
    this.kind = field.kind;
    this.choices = field.choices.join("\n");
    const id = `setting-${field.path.replaceAll(".", "-")}`;
    this.input = input(field, id);
    this.help = h("small", { id: `${id}-help` });
    this.label = h("label", { for: id });
    this.place = field.kind === "switch"
      ? h("div", { class: "d-field d-switch" }, this.input, this.label, this.help)
      : h("div", { class: "d-field" }, this.label, this.input, this.help);
    if (FILES[field.path]) this.place.append(...fileField(`${id}-file`, `${field.label}: a file of yours`, FILES[field.path], (name) => {
      this.input.value = name || this.usual;
      this.input.dispatchEvent(new Event("input"));
    }));
    this.input.addEventListener("input", () => {
      const value = this.value;
      const same = value === this.usual;
      this.place.classList.toggle("edited", !same);
      changed(same ? undefined : value);
    });
  }

  // Whether this control can also be the one of `field`, so that who types in it is not disturbed.
  suits(field) {
    return field.kind === this.kind && field.choices.join("\n") === this.choices;
  }

  get value() {
    return this.kind === "switch" ? this.input.checked : this.input.value;
  }

  // Label, help and bounds; and the value, unless `edit` has been written over it.
  describe(field, edit) {
    this.usual = this.kind === "switch" ? field.value : String(field.value);
    this.label.textContent = field.label;
    this.help.textContent = field.help;
    if (this.input.type === "number") {
      this.input.min = field.low ?? "";
      this.input.max = field.high ?? "";
    }
    this.place.classList.toggle("edited", edit !== undefined);
    const shown = edit ?? this.usual;
    if (this.kind === "switch") this.input.checked = shown;
    else if (this.input.value !== String(shown)) this.input.value = shown;
  }
}

function input({ kind, choices }, id) {
  const common = { class: "d-input", id, "aria-describedby": `${id}-help`, autocomplete: "off" };
  if (kind === "switch") return h("input", { ...common, class: "", type: "checkbox" });
  if (kind === "choice") return h("select", common, choices.map((name) => h("option", { value: name }, name)));
  if (kind === "whole" || kind === "number") return h("input", { ...common, type: "number", step: kind === "whole" ? "1" : "any" });
  return h("input", { ...common, type: "text", maxlength: "200", spellcheck: "false" });
}

// A control that sends a file at once and tells the name it goes by; `told` is given "" when it was taken back.
export function fileField(id, label, accept, told) {
  const input = h("input", { type: "file", id, accept, "aria-describedby": `${id}-status` });
  const status = h("small", { id: `${id}-status`, role: "status" });
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (!file) return told("");
    told("");  // what was sent before is not meant any more, also where this one is refused
    if (file.size > MOST_BYTES) {
      input.value = "";
      status.textContent = `${file.name} has ${size(file.size)}; at most ${size(MOST_BYTES)} are taken.`;
      return;
    }
    status.textContent = `Sending ${file.name} …`;
    try {
      told(await (input.pending = upload(file)));
      status.textContent = `${file.name} was sent.`;
    } catch (error) {
      input.value = "";
      status.textContent = error.message;
    }
  });
  return [h("label", { for: id }, label), input, status];
}
