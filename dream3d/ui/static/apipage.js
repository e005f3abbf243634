// How to use the server from a program.

import { h } from "./dom.js";

const EXAMPLE = (origin) => `import json, time, urllib.request

SERVER = "${origin}"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(SERVER + path, data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


body = {"prompt": "a red mug", "preset": "fast", "seed": 1, "settings": {"steps": 60}}
job = call("POST", "/api/jobs", body)["job"]
while not job["ended"]:
    time.sleep(1)
    job = call("GET", f"/api/jobs/{job['id']}")["job"]
    print(job["state"], job["step"], "of", job["steps"])
urllib.request.urlretrieve(f"{SERVER}/api/jobs/{job['id']}/files/asset.glb", "mug.glb")`;

const ROUTES = [
  ["POST /api/jobs", "queue a job: prompt, negative_prompt, preset, seed, settings"],
  ["GET /api/jobs?search=&offset=&limit=", "your jobs, the newest first"],
  ["GET /api/jobs/ID", "state, step, time left, files"],
  ["GET /api/jobs/ID/events?after=0", "what happened, in order"],
  ["GET /api/jobs/ID/steps", "loss over the steps, seconds by phase"],
  ["GET /api/jobs/ID/details", "command, configuration, record, measures"],
  ["POST /api/jobs/ID/cancel", "stop; what there is is kept"],
  ["POST /api/jobs/ID/resume", "go on where it stopped"],
  ["DELETE /api/jobs/ID", "remove it and its files"],
  ["GET /api/jobs/ID/files", "names and sizes"],
  ["GET /api/jobs/ID/files/NAME", "one of them"],
  ["GET /api/jobs/ID/exports", "formats, and which are made"],
  ["POST /api/jobs/ID/exports/FORMAT", "make one; it is then among the files"],
  ["POST /api/jobs/ID/evaluation", "measure it against the true object; see details"],
  ["POST /api/batches", "queue a list of prompts: name (.txt, .csv, .jsonl), text, preset, seeds, settings"],
  ["GET /api/batches", "your batches, the newest first"],
  ["GET /api/batches/ID", "every asset with its job, states, seconds left"],
  ["POST /api/batches/ID/cancel", "stop them all; what there is is kept"],
  ["GET /api/batches/ID/NAME", "results.csv, contact.html, contact.png, as dream3d batch writes them"],
  ["POST /api/uploads?name=mug.glb", "keep a mesh or a picture; its upload:ID is what scene.mesh or reference.image takes"],
  ["GET /api/form?preset=&steps=&guidance=...", "every setting of a preset with other parts: value, help, bounds"],
  ["POST /api/form", "queue a job from what is typed in the form"],
  ["GET /api/catalogue/KIND", "presets, guidance, scenes, priors ... with every setting"],
  ["GET /api/prompt?text=", "does the embedded prior know these words?"],
];

export class ApiPage extends HTMLElement {
  connectedCallback() {
    if (this.firstChild) return;
    this.append(h("article", { class: "d-card" },
      h("h2", {}, "Use it from a program"),
      h("p", {}, "Plain HTTP and JSON. A refusal has status 404 or 422 and says in error.message what to do."),
      h("pre", { tabindex: "0", class: "d-block", "aria-label": "Python example" }, EXAMPLE(location.origin)),
      h("table", { class: "d-table" }, h("tbody", {}, ROUTES.map(([route, what]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, route)), h("td", {}, what))))),
    ));
  }
}
