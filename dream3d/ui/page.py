"""The Gradio page: a form whose press queues a job, and places where the page's own scripts show jobs.

The form lives in Gradio; what is shown of jobs does not: scripts below static/ ask the HTTP API, so that watching costs
the server little, a reloaded page finds its job by its address, and a restarted server is noticed.
"""

import html
from typing import Any

import gradio as gr

import dream3d
from dream3d.catalogue import entries
from dream3d.config.build import COMPONENTS
from dream3d.errors import Dream3DError
from dream3d.jobs import MAX_PROMPT
from dream3d.ui.form import PARTS, RAMP_HELP, Field, chosen_config, form_fields, part_name
from dream3d.ui.handlers import SPEEDS, Chosen, Handlers, named
from dream3d.ui.jobs import UserJobs

OTHER = "other"
MAX_SEED = 2**53 - 1
GROUP_TITLES = {
    "guidance": "Guidance",
    "scene": "Representation",
    "time": "Noise levels",
    "noise": "Noise",
    "cameras": "Cameras",
    "background": "Background",
    "prior": "Prior",
    "stage": "Steps and views",
}


def head() -> str:
    """The page's own styles and scripts; `module` runs them when the document is there."""
    version = html.escape(dream3d.__version__)
    return (
        f'<link rel="stylesheet" href="/static/style.css?{version}">'
        f'<script type="module" src="/static/main.js?{version}"></script>'
    )


def build_page(jobs: UserJobs) -> gr.Blocks:
    """The page, not yet served."""
    handlers = Handlers(jobs)
    with gr.Blocks(title="dream3d", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            '<dream-header role="banner"></dream-header>', padding=False, apply_default_css=False
        )
        with gr.Tabs(elem_id="dream-tabs"):
            with gr.Tab("Create", id="create"), gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320, elem_classes="dream-form"):
                    _form(page, handlers)
                with gr.Column(scale=3, min_width=320):
                    gr.HTML("<dream-job></dream-job>", padding=False, apply_default_css=False)
            with gr.Tab("Gallery", id="gallery"):
                gr.HTML("<dream-gallery></dream-gallery>", padding=False, apply_default_css=False)
            with gr.Tab("API", id="api"):
                gr.HTML("<dream-api></dream-api>", padding=False, apply_default_css=False)
    return page


def _form(page: gr.Blocks, handlers: Handlers) -> None:
    """Everything one can say about a run, and the button that begins it."""
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="a red mug",
        max_length=MAX_PROMPT,
        lines=1,
        interactive=True,
        elem_id="dream-prompt",
    )
    gr.HTML("<dream-words></dream-words>", padding=False, apply_default_css=False)
    speed = gr.Radio(
        [*((name.capitalize(), name) for name in SPEEDS), ("Other", OTHER)],
        value="default",
        label="Preset",
        interactive=True,
        elem_id="dream-speed",
    )
    preset = gr.Dropdown(
        [(f"{e['name']}: {e['summary']}", e["name"]) for e in entries("presets")],
        value="default",
        label="All presets",
        interactive=True,
        visible=False,
        elem_id="dream-preset",
    )
    about = gr.HTML(handlers.about("default", None), padding=False, apply_default_css=False)
    with gr.Row():
        steps = gr.Number(
            chosen_config("default").stages[0].steps,
            label="Steps",
            precision=0,
            minimum=1,
            maximum=1_000_000,
            interactive=True,
            elem_id="dream-steps",
        )
        seed = gr.Number(
            0,
            label="Seed",
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            interactive=True,
            elem_id="dream-seed",
        )
    generate = gr.Button("Generate", variant="primary", size="lg", elem_id="dream-generate")
    job = gr.Textbox(visible=False)
    problem = gr.HTML("", elem_id="dream-problem", padding=False, apply_default_css=False)
    negative = gr.Textbox(
        label="Negative prompt",
        info="What to avoid; takes the place of the empty prompt.",
        max_length=MAX_PROMPT,
        lines=1,
        interactive=True,
        elem_id="dream-negative",
    )
    parts = _parts()
    edited = gr.State({})

    @gr.render(inputs=[preset, edited, *parts], show_progress="hidden")
    def settings(of_preset: str, edits: dict[str, Any], *names: str) -> None:
        fields, controls = _settings(of_preset, named(names), edits)
        main = [prompt, negative, preset, seed, steps, *parts]

        def submit(request: gr.Request, *values: Any) -> tuple[str, str]:
            chosen = Chosen(*values[:5], parts=values[5 : len(main)])
            return handlers.submit(chosen, fields, list(values[len(main) :]), request)

        gr.on(
            [generate.click, prompt.submit],
            submit,
            [*main, *controls],
            [job, problem],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=4,
        ).then(None, job, None, js="(job) => { if (job) window.dream3d.open(job); }")
        # Until this is there nothing listens to the button; main.js keeps an early press for it.
        gr.HTML("<span data-ready></span>", padding=False, apply_default_css=False)

    quiet: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    # Only what a person does resets the rest; a form filled from a past run stays as it was filled.
    chosen_by_preset = [steps, edited, *parts]
    # One event each: a second one that came late would write over what was typed meanwhile.
    speed.input(handlers.choose_speed, speed, [preset, *chosen_by_preset], **quiet)
    preset.input(handlers.choose_preset, preset, chosen_by_preset, **quiet)
    gr.on(
        [preset.change, steps.change, *(part.change for part in parts)],
        handlers.about,
        [preset, steps, *parts],
        about,
        **quiet,
    )
    everything = [prompt, negative, speed, preset, seed, steps, edited, *parts]
    page.load(handlers.load, None, everything, **quiet)


def _parts() -> list[gr.Dropdown]:
    """A choice for every part of a stage, in the order of `PARTS`; the two that matter most in sight."""
    with gr.Row():
        first = [_part(kind) for kind in PARTS[:2]]
    with gr.Accordion("Other parts", open=False), gr.Row():
        return first + [_part(kind) for kind in PARTS[2:]]


def _part(kind: str) -> gr.Dropdown:
    return gr.Dropdown(
        COMPONENTS[kind].names(),
        value=part_name(getattr(chosen_config("default").stages[0], kind)),
        label=GROUP_TITLES[kind],
        interactive=True,
        min_width=140,
        elem_id=f"dream-{kind}",
    )


def _settings(
    preset: str, parts: dict[str, str | None], edited: dict[str, Any]
) -> tuple[list[Field], list[Any]]:
    """A control for every setting of what is chosen; closed until somebody wants them."""
    try:
        config = chosen_config(preset, parts)
    except Dream3DError:
        # What does not go together is said where the preset is described.
        return [], []
    fields: list[Field] = []
    controls: list[Any] = []
    for group, members in form_fields(config).items():
        title = GROUP_TITLES[group]
        part = parts.get(group)
        with gr.Accordion(f"{title}: {part}" if part else title, open=False):
            if part and group == "guidance":
                gr.HTML(_origin(part), padding=False, apply_default_css=False)
            for field in members:
                key = f"{preset}/{part}/{field.path}"
                fields.append(field)
                controls.append(_control(field, edited.get(field.path, field.value), key))
    return fields, controls


def _origin(guidance: str) -> str:
    """Formula and source of a guidance."""
    entry = next(entry for entry in entries("guidance") if entry["name"] == guidance)
    paper, formula = html.escape(entry["paper"]), html.escape(entry["formula"])
    summary = html.escape(entry["summary"])
    return (
        f'<p class="dream-origin">{summary}<br><code>{formula}</code><br><small>{paper}</small></p>'
    )


def _control(field: Field, value: Any, key: str) -> Any:
    """The control that suits a setting's type and bounds."""
    common: dict[str, Any] = {
        "label": field.label,
        "info": field.info,
        "interactive": True,
        "key": key,
        "elem_id": f"setting-{field.path.replace('.', '-')}",
    }
    if field.kind == "switch":
        return gr.Checkbox(value=bool(value), **common)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), value=value, **common)
    if field.kind in ("whole", "number"):
        return gr.Number(value, precision=0 if field.kind == "whole" else None, **common)
    if field.kind == "ramp":
        common["info"] = f"{field.info} {RAMP_HELP}"
    return gr.Textbox(str(value), max_length=200, lines=1, **common)
