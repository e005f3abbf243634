// Name, connection, and light or dark.

import { connection } from "./api.js";
import { button, h, icon } from "./dom.js";

export class Header extends HTMLElement {
  connectedCallback() {
    if (this.firstChild) return;
    const stored = localStorage.getItem("dream3d-theme");
    if (stored) document.body.classList.toggle("dark", stored === "dark");
    const lost = h("span", { class: "d-lost", role: "status", "aria-live": "polite" });
    connection.addEventListener("lost", () => (lost.textContent = "The server does not answer; trying again."));
    connection.addEventListener("found", () => (lost.textContent = ""));
    const theme = button("", () => {
      const dark = document.body.classList.toggle("dark");
      localStorage.setItem("dream3d-theme", dark ? "dark" : "light");
      name();
    }, { kind: "quiet" });
    const name = () => {
      const dark = document.body.classList.contains("dark");
      theme.replaceChildren(icon(dark ? "sun" : "moon"));
      theme.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
      theme.title = theme.getAttribute("aria-label");
    };
    name();
    new MutationObserver(name).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.append(h("h1", { class: "d-brand" }, "dream3d"), h("p", {}, "Text becomes a 3D asset, on this machine."), lost, theme);
  }
}
