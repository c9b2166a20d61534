"""The piece of page that all tabs are made of."""

from __future__ import annotations

from typing import Any

import gradio as gr

PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of listeners that are no endpoints


def panel(value: str = "", **options: Any) -> gr.HTML:
    """Our own HTML, without Gradio's styles for text, which would overrule ours."""
    return gr.HTML(value, apply_default_css=False, **options)
