// What a job made, to look at: mesh and splats to turn, the turntable, the views.

import { fileUrl } from "./api.js";
import { button, h } from "./dom.js";
import { viewer } from "./viewer.js";

export function looks(job) {
  const { files, id, request, since } = job;
  const version = Math.round(since * 1000);
  const offers = [];
  if (files["asset.ply"]) offers.push(["Splats", (orbit) => viewer("splats", fileUrl(id, "asset.ply", version), `Splats of ${request.prompt}`, orbit)]);
  if (files["asset.glb"]) offers.push(["Mesh", (orbit) => viewer("mesh", fileUrl(id, "asset.glb", version), `Mesh of ${request.prompt}`, orbit)]);
  if (files["turntable.mp4"]) {
    offers.push(["Turntable", () => {
      const film = h("video", { class: "d-video", src: fileUrl(id, "turntable.mp4", version), controls: true, loop: true, playsinline: true, "aria-label": `Turntable of ${request.prompt}` });
      film.muted = true;  // the attribute alone does not count for a film that begins by itself
      film.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      return film;
    }]);
  }
  if (files["preview.png"]) offers.push(["Views", () => h("img", { class: "d-preview", src: fileUrl(id, "preview.png", version), alt: `${request.prompt} from eight sides` })]);
  return offers;
}

export class Results {
  constructor() {
    this.place = h("section", { class: "d-results", "aria-label": "Result" });
  }

  clear() {
    if (this.place.firstChild) this.place.replaceChildren();
  }

  show(job) {
    const offers = looks(job);
    const stage = h("div", { class: "d-stage", role: "tabpanel", tabindex: "-1" });
    const tabs = offers.map(([name], i) => button(name, () => choose(i), { kind: "tab", role: "tab" }));
    const choose = (chosen) => {
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === chosen));
        tab.tabIndex = i === chosen ? 0 : -1;
      });
      stage.setAttribute("aria-label", offers[chosen][0]);
      stage.replaceChildren(offers[chosen][1]());
    };
    const list = h("div", { class: "d-tabs", role: "tablist", "aria-label": "Ways to look at it" }, tabs);
    list.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      const next = (tabs.indexOf(document.activeElement) + move + tabs.length) % tabs.length;
      choose(next);
      tabs[next].focus();
    });
    if (!offers.length) return;
    this.place.replaceChildren(list, stage);
    choose(0);
  }
}
