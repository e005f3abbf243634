// Registers the page's own elements; Gradio places them, they ask the HTTP API.

import { get } from "./api.js";
import { ApiPage } from "./apipage.js";
import { Gallery } from "./gallery.js";
import { Header } from "./header.js";
import { JobPanel } from "./job.js";
import { Words } from "./words.js";

customElements.define("dream-header", Header);
customElements.define("dream-words", Words);
customElements.define("dream-job", JobPanel);
customElements.define("dream-gallery", Gallery);
customElements.define("dream-api", ApiPage);

// What the form calls when a job was queued; also used by the gallery.
window.dream3d = {
  open(job) {
    const address = new URL(location.href);
    address.searchParams.set("job", job);
    address.searchParams.delete("from");
    history.pushState({}, "", address);
    window.dispatchEvent(new CustomEvent("dream3d:job", { detail: job }));
    document.querySelector('[role="tab"][aria-controls], [role="tab"]')?.click();
    document.querySelector("dream-job")?.scrollIntoView({ block: "nearest" });
  },
};
window.addEventListener("popstate", () => {
  const job = new URLSearchParams(location.search).get("job") ?? "";
  window.dispatchEvent(new CustomEvent("dream3d:job", { detail: job }));
});

// An idle page notices a restarted server, too.
setInterval(() => document.hidden || get("server").catch(() => {}), 5000);

// A press of Generate while the form is still on its way is kept until there is something that hears it.
let early = null;
const ready = () => document.querySelector("[data-ready]") !== null;
document.addEventListener("click", (event) => {
  const generate = event.target.closest?.("#dream-generate");
  if (!generate || ready()) return;
  event.stopImmediatePropagation();
  early ??= setInterval(() => {
    if (!ready()) return;
    clearInterval(early);
    early = null;
    setTimeout(() => generate.click(), 200);
  }, 200);
}, true);

// What Gradio leaves without a name for screen readers, or with a wrong one.
function name() {
  document.documentElement.lang ||= "en";
  for (const input of document.querySelectorAll("input[type=number]:not([aria-label])")) {
    const label = input.closest("label, .block")?.querySelector("[data-testid=block-info]")?.textContent;
    if (label) input.setAttribute("aria-label", label.trim());
  }
}
new MutationObserver(() => requestAnimationFrame(name)).observe(document.body, { childList: true, subtree: true });
