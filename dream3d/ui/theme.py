"""Colours and type of the page: the system's own fonts, one accent, much air."""

from typing import Any

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def calm() -> Any:
    """The Gradio theme; no font is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=list(FONTS),
        font_mono=list(MONO),
    ).set(
        body_background_fill="#f7f8fb",
        body_background_fill_dark="#0d1017",
        block_background_fill="#ffffff",
        block_background_fill_dark="#151a24",
        block_border_width="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        body_text_color="#1d2433",
        body_text_color_dark="#e7eaf1",
        # Readable on their backgrounds: at least 4.5 to 1.
        body_text_color_subdued="#556074",
        body_text_color_subdued_dark="#a3adc0",
        block_info_text_color="#556074",
        block_info_text_color_dark="#a3adc0",
        input_background_fill="#f4f5f9",
        input_background_fill_dark="#0f141d",
        input_border_color="#d5dae4",
        input_border_color_dark="#2a3242",
        button_primary_background_fill="#4653d6",
        button_primary_background_fill_hover="#3742b8",
        button_primary_background_fill_dark="#4f5de0",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
