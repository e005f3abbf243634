// The job the address names: its previews while it runs, its results when it has ended. A reload finds it again.

import { fileUrl, get, post, Refusal } from "./api.js";
import { Details } from "./details.js";
import { button, duration, fill, h, tell, when } from "./dom.js";
import { Exports } from "./exports.js";
import { lossPlot, timeSplit } from "./plot.js";
import { Results } from "./results.js";

const STATES = { queued: "Waiting", running: "Running", done: "Done", cancelled: "Stopped", failed: "Failed", lost: "Lost" };

export class JobPanel extends HTMLElement {
  connectedCallback() {
    if (!this.built) this.build();
    this.onjob = (event) => this.show(event.detail);
    window.addEventListener("dream3d:job", this.onjob);
    this.show(new URLSearchParams(location.search).get("job") ?? "");
  }

  disconnectedCallback() {
    window.removeEventListener("dream3d:job", this.onjob);
    clearTimeout(this.timer);
  }

  build() {
    this.built = true;
    this.title_ = h("h2", {});
    this.status = h("p", { class: "d-status", role: "status", "aria-live": "polite", id: "job-status" });
    this.progress = h("div", { class: "d-progress", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": "0" }, h("div", {}));
    this.image = h("img", { class: "d-preview", alt: "" });
    this.plot = h("div", {});
    this.split = h("div", {});
    this.buttons = h("div", { class: "d-row" });
    this.results = new Results();
    this.exports = new Exports();
    this.details = new Details();
    this.live = h("div", { class: "d-grid" },
      h("section", { "aria-label": "Loss" }, h("h3", {}, "Loss"), this.plot),
      h("section", { "aria-label": "Where the time goes" }, h("h3", {}, "Time"), this.split),
    );
    this.card = h("article", { class: "d-card" }, this.title_, this.status, this.progress, this.buttons, this.results.place, this.image, this.live, this.exports.place, this.details.place);
    this.empty = h("article", { class: "d-card d-empty" },
      h("h2", {}, "Nothing is being made yet"),
      h("p", {}, "Type what you want to see, choose how long it may take, and press Generate. Previews from eight sides appear here while it takes shape; you may close the page meanwhile, it goes on."),
    );
  }

  show(job) {
    clearTimeout(this.timer);
    this.job = job;
    this.shown = {};
    this.title_.textContent = "";
    fill(this.status, "Asking the server …");
    this.progress.hidden = this.live.hidden = true;
    this.buttons.replaceChildren();
    this.results.clear();
    this.exports.clear();
    this.details.clear();
    this.image.hidden = true;
    this.plot.replaceChildren();
    this.split.replaceChildren();
    this.replaceChildren(job ? this.card : this.empty);
    if (job) this.look();
  }

  async look() {
    clearTimeout(this.timer);
    const job = this.job;
    let wait = 2000;
    try {
      const { job: found } = await get(`jobs/${job}`);
      if (job !== this.job) return;
      this.paint(found);
      await this.followUp(found);
      // What was stopped may be resumed elsewhere: in another tab, or on the command line.
      wait = found.ended ? (found.can_resume ? 5000 : 0) : found.state === "running" ? 1000 : 2000;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (job !== this.job) return;
      fill(this.status, error.message);
      if (error.message.startsWith("there is no such job")) {
        this.title_.textContent = "This job is not there";
        this.live.hidden = this.progress.hidden = true;
        this.buttons.replaceChildren();
        return;
      }
    }
    if (job !== this.job || !wait) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), document.hidden ? 5000 : wait);
  }

  paint(job) {
    this.card.dataset.state = job.state;
    this.live.hidden = !job.step;
    this.title_.textContent = job.request.prompt;
    fill(this.status, h("b", { class: `d-state ${job.state}` }, STATES[job.state]), ` ${sentence(job)}`);
    const share = job.steps ? job.step / job.steps : 0;
    this.progress.hidden = job.ended;
    this.progress.setAttribute("aria-valuemax", job.steps);
    this.progress.setAttribute("aria-valuenow", job.step);
    this.progress.firstChild.style.width = `${100 * share}%`;
    this.progress.classList.toggle("waiting", !job.step);
    if (job.preview && job.preview !== this.shown.preview) {
      this.shown.preview = job.preview;
      this.image.src = fileUrl(job.id, "preview.png", job.preview);
      this.image.alt = `${job.request.prompt}, seen from eight sides, after ${job.step} steps`;
      this.image.hidden = false;
    }
    fill(this.buttons);
    this.buttons.replaceChildren(
      job.can_cancel ? button("Cancel", () => this.act("cancel", "Stopping; what there is will be kept."), { kind: "danger", id: "job-cancel" }) : "",
      job.can_resume ? button("Resume", () => this.act("resume", "It goes on where it stopped."), { kind: "primary", id: "job-resume" }) : "",
      job.ended ? h("a", { class: "d-button", href: `/?from=${job.id}` }, "Run again with changes") : "",
    );
  }

  async followUp(job) {
    const key = `${job.state} ${job.step}`;
    if (key !== this.shown.steps && job.step) {
      this.shown.steps = key;
      const { points, phases } = await get(`jobs/${job.id}/steps`);
      if (job.id !== this.job) return;
      this.plot.replaceChildren(lossPlot(points, job.steps));
      this.split.replaceChildren(timeSplit(phases));
    }
    if (!job.ended) {
      this.shown.working = true;
      this.results.clear();
      this.exports.clear();
      this.details.clear();
      return;
    }
    if (this.shown.ended === job.since) return;
    this.shown.ended = job.since;
    if (this.shown.working) window.dispatchEvent(new Event("dream3d:ended"));
    this.shown.working = false;
    this.results.show(job);
    if (job.step) this.exports.show(job);  // of nothing, nothing can be made
    this.details.show(job);
  }

  async act(what, said) {
    try {
      await post(`jobs/${this.job}/${what}`);
      tell(said);
    } catch (error) {
      tell(error.message);
    }
    this.look();
  }
}

function sentence(job) {
  const stage = job.stages > 1 ? `stage ${job.stage + 1} of ${job.stages}, ` : "";
  if (job.state === "queued") return job.position ? `${job.position} before it` : "it begins in a moment";
  if (job.state === "running") {
    if (!job.step) return "loading the prior and the renderer; the first run on a machine also compiles it";
    if (job.step >= job.steps) return "writing the files";
    const left = job.seconds_left === null ? "" : `, about ${duration(job.seconds_left)} left`;
    return `${stage}step ${job.step} of ${job.steps}${left}`;
  }
  if (job.live) return "saving what there is";
  const steps = `${job.step} of ${job.steps} steps`;
  const extra = [job.message && job.message !== "cancelled" ? job.message : "", ...job.warnings].filter(Boolean).join("; ");
  return `${job.state === "done" ? `${steps}, ${when(job.since)}` : steps}${extra ? `: ${extra}` : ""}`;
}
