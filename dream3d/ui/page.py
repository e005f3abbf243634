"""The page: a prompt goes to a job, a timer shows the job. The optimisation never lives in an event of the page."""

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Gradio is imported: it reports usage home unless told not to.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from dream3d.config.layers import preset_names
from dream3d.errors import Dream3DError
from dream3d.jobs import ENDED, MAX_PROMPT, Job, JobRequest, JobStore

EXAMPLES = (
    *("a red mug", "a green snowman", "a blue car", "a yellow duck"),
    *("a purple castle", "an orange cat", "a white lighthouse", "a red cube on a blue cylinder"),
)
SECONDS_BETWEEN_LOOKS = 1.0
_WORDS = {
    "queued": "Waiting for its turn",
    "running": "Optimising",
    "done": "Done",
    "cancelled": "Stopped; this is what there was",
    "failed": "Failed",
    "lost": "Failed",
}


@dataclass(frozen=True)
class Shown:
    """What a browser shows already, so that nothing is sent twice.

    Attributes:
        job: id of the job.
        preview: when the preview file it shows was written, in nanoseconds.
        ended: whether it shows the final files.
    """

    job: str = ""
    preview: int = 0
    ended: bool = False


def progress_html(view: Job) -> str:
    """The state of a job as a sentence and a bar; every word of a message is escaped."""
    words = _WORDS[view.state]
    if view.state == "running" and not view.step:
        words = "Loading"
    elif view.state == "running":
        words += f", step {view.step} of {view.steps}"
        if view.seconds_left is not None:
            words += f", about {max(1, round(view.seconds_left))} s left"
        if view.step == view.steps:
            words = "Writing the files"
    if view.message:
        words += f": {view.message}"
    part = f' value="{view.step}" max="{view.steps}"' if view.steps else ""
    bar = "" if view.state in ENDED else f'<progress{part} style="width:100%"></progress>'
    return f'<div id="job-status" role="status" aria-live="polite">{html.escape(words)}{bar}</div>'


class Page:
    """The handlers of the page's events.

    Args:
        jobs: where they are started and found.
    """

    def __init__(self, jobs: JobStore) -> None:
        self.jobs = jobs

    def generate(self, prompt: str, preset: str, seed: float | None) -> tuple[Any, ...]:
        """Start a job; returns its id, the message and an emptied page."""
        try:
            job = self.jobs.submit(JobRequest(prompt, preset, int(seed or 0)))
        except Dream3DError as error:
            gr.Warning(html.escape(str(error)))
            return (gr.skip(),) * 9
        progress = progress_html(self.jobs.status(job))
        return (job, Shown(job), progress, None, None, None, None, *_buttons(True))

    def cancel(self, job: str) -> None:
        """Ask the job to stop."""
        if job and self.jobs.exists(job):
            self.jobs.cancel(job)

    def look(self, job: str, shown: Shown | None) -> tuple[Any, ...]:
        """What changed since the last look: shown, message, preview, mesh, two downloads, two buttons."""
        shown = shown or Shown()
        if not job or (shown.job == job and shown.ended):
            return (gr.skip(),) * 8
        try:
            self.jobs.tend()
            view = self.jobs.status(job)
        except Dream3DError:
            # A browser may remember a job that was removed from the disk: it starts afresh.
            return (Shown(job, ended=True), "", None, None, None, None, *_buttons(False))
        run = self.jobs.run_path(job)
        files = {name: run / name for name in view.files}
        fresh = view.preview != shown.preview or shown.job != job
        ended = view.state in ENDED and not view.live
        downloads: tuple[Any, ...] = (gr.skip(),) * 3
        if ended:
            glb, ply = _path(files, "asset.glb"), _path(files, "asset.ply")
            downloads = (glb, _download(glb), _download(ply))
        return (
            Shown(job, view.preview, ended),
            progress_html(view),
            (_path(files, "preview.png") if fresh else gr.skip()),
            *downloads,
            *_buttons(not ended),
        )


def _path(files: dict[str, Path], name: str) -> str | None:
    return str(files[name]) if name in files else None


def _download(path: str | None) -> Any:
    return gr.update(value=path, interactive=path is not None)


def _buttons(busy: bool) -> tuple[Any, Any]:
    """Generate is for the idle page, Cancel for the busy one."""
    return gr.update(interactive=not busy), gr.update(interactive=busy)


def build_page(jobs: JobStore) -> gr.Blocks:
    """The page, not yet served."""
    handlers = Page(jobs)
    presets = [name for name in preset_names() if name != "gaussian"]
    with gr.Blocks(title="dream3d", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        # The job's id stays in the browser: a reloaded or reopened page finds its job again.
        job = gr.BrowserState("", storage_key="dream3d-job", secret="not a secret: a job id")
        shown = gr.State(Shown())
        gr.Markdown("# dream3d\nText becomes a 3D asset, on this machine.")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                prompt = gr.Textbox(label="Prompt", placeholder="a red mug", max_length=MAX_PROMPT)
                gr.Examples([[text] for text in EXAMPLES], prompt, label="Examples")
                preset = gr.Radio(
                    presets,
                    value="default",
                    label="Preset",
                    info="`dream3d list presets` tells what each one does.",
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53 - 1)
                with gr.Row():
                    generate = gr.Button("Generate", variant="primary")
                    cancel = gr.Button("Cancel", variant="stop", interactive=False)
                status = gr.HTML(label="Progress")
            with gr.Column(scale=2, min_width=320):
                preview = gr.Image(
                    label="Eight views, from the front toward the object's left",
                    type="filepath",
                    format="png",
                    interactive=False,
                    buttons=[],
                )
                mesh = gr.Model3D(label="Mesh", interactive=False, height=420)
                with gr.Row():
                    glb = gr.DownloadButton("Mesh (.glb)", interactive=False)
                    ply = gr.DownloadButton("Splats (.ply)", interactive=False)
        results = [shown, status, preview, mesh, glb, ply, generate, cancel]
        gr.on(
            [generate.click, prompt.submit],
            handlers.generate,
            [prompt, preset, seed],
            [job, *results],
            concurrency_limit=1,
            api_visibility="private",
        )
        cancel.click(handlers.cancel, job, None, queue=False, api_visibility="private")
        for look in (gr.Timer(SECONDS_BETWEEN_LOOKS).tick, page.load):
            look(
                handlers.look,
                [job, shown],
                results,
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
    return page


def launch_options(root: Path) -> dict[str, Any]:
    """How the page is served: to this machine only, with nothing but the jobs' files."""
    return {
        "server_name": "127.0.0.1",
        "share": False,
        "show_error": False,
        "allowed_paths": [str(root.resolve())],
        "max_file_size": "1mb",
        "enable_monitoring": False,
        "strict_cors": True,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
    }
