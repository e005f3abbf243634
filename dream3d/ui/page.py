"""The Gradio page: a form whose press queues a job, and places where the page's own scripts show jobs.

Layout, prompt and button are Gradio's; settings and jobs are not: scripts below static/ ask the HTTP API, so that no
press depends on what the server remembers of a session, watching costs little, a reloaded page finds its job by its
address, and a restarted server is noticed.
"""

import html

import gradio as gr

import dream3d
from dream3d.jobs import MAX_PROMPT

# The press waits for the page's own scripts, so that one made while they are on their way is kept.
PRESS = """(prompt) => {
    customElements.whenDefined("dream-settings").then(() => window.dream3d.generate(prompt));
    return [];
}"""


def head() -> str:
    """The page's own styles and scripts; `module` runs them when the document is there."""
    version = html.escape(dream3d.__version__)
    return (
        f'<link rel="stylesheet" href="/static/style.css?{version}">'
        f'<script type="module" src="/static/main.js?{version}"></script>'
    )


def build_page() -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="dream3d", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            '<dream-header role="banner"></dream-header>', padding=False, apply_default_css=False
        )
        with gr.Tabs(elem_id="dream-tabs"):
            with gr.Tab("Create", id="create"), gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320, elem_classes="dream-form"):
                    _form()
                with gr.Column(scale=3, min_width=320):
                    gr.HTML("<dream-job></dream-job>", padding=False, apply_default_css=False)
            with gr.Tab("Batch", id="batch"):
                gr.HTML("<dream-batch></dream-batch>", padding=False, apply_default_css=False)
            with gr.Tab("Gallery", id="gallery"):
                gr.HTML("<dream-gallery></dream-gallery>", padding=False, apply_default_css=False)
            with gr.Tab("API", id="api"):
                gr.HTML("<dream-api></dream-api>", padding=False, apply_default_css=False)
    return page


def _form() -> None:
    """Everything one can say about a run, and the button that begins it."""
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="a red mug",
        max_length=MAX_PROMPT,
        lines=1,
        interactive=True,
        elem_id="dream-prompt",
    )
    # The button stays where it is while suggestions come and go.
    generate = gr.Button("Generate", variant="primary", size="lg", elem_id="dream-generate")
    gr.HTML("<dream-words></dream-words>", padding=False, apply_default_css=False)
    gr.HTML("<dream-settings></dream-settings>", padding=False, apply_default_css=False)
    gr.on([generate.click, prompt.submit], None, prompt, None, js=PRESS)
