// Registers the page's own elements; Gradio places them, they ask the HTTP API.

import { get } from "./api.js";
import { ApiPage } from "./apipage.js";
import { BatchTab } from "./batch.js";
import { Gallery } from "./gallery.js";
import { Header } from "./header.js";
import { JobPanel } from "./job.js";
import { Settings } from "./settings.js";
import { Words } from "./words.js";

customElements.define("dream-header", Header);
customElements.define("dream-words", Words);
customElements.define("dream-settings", Settings);
customElements.define("dream-job", JobPanel);
customElements.define("dream-batch", BatchTab);
customElements.define("dream-gallery", Gallery);
customElements.define("dream-api", ApiPage);

// What the button calls, and what shows a job.
window.dream3d = {
  generate: (prompt) => document.querySelector("dream-settings")?.generate(prompt),
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

// What Gradio leaves out and a screen reader wants.
document.documentElement.lang ||= "en";
