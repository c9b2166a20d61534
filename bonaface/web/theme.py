"""How the page looks: calm, one accent, system fonts, light and dark. Real is blue, fake is orange, as in the plots."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, colors, sizes

STYLE = Path(__file__).with_name("style.css")
# Names and roles for screen readers that Gradio's own markup lacks (found with axe-core).
NAMES_FOR_SCREEN_READERS = """() => {
  const fix = () => {
    document.querySelectorAll('[aria-label="Empty value"]:not([role])').forEach(e => e.setAttribute('role', 'img'));
    document.querySelectorAll('.gallery-item:not([aria-label])').forEach(
      (e, i) => e.setAttribute('aria-label', `Example image ${i + 1}`));
    document.querySelectorAll('button:has(button)').forEach(e => {  // the inner one is what can be pressed
      e.setAttribute('role', 'group');
      e.setAttribute('aria-label', 'Add files');
      e.removeAttribute('title');
      e.tabIndex = -1;
    });
  };
  fix();
  new MutationObserver(fix).observe(document.body, {childList: true, subtree: true});
}"""
ACCENT = colors.teal
COLOURS = {
    "body_background_fill": "#f5f7f8",
    "body_background_fill_dark": "#0f1316",
    "body_text_color": "#1b2429",
    "body_text_color_dark": "#e6ebee",
    "body_text_color_subdued": "#52606a",
    "body_text_color_subdued_dark": "#a5b1ba",
    "block_background_fill": "#ffffff",
    "block_background_fill_dark": "#171d21",
    "block_border_color": "#dfe5e8",
    "block_border_color_dark": "#2b353b",
    "block_shadow": "0 1px 2px rgb(16 32 40 / 0.05)",
    "block_shadow_dark": "none",
    "block_label_background_fill": "#ffffff",
    "block_label_background_fill_dark": "#171d21",
    "block_label_text_color": "#52606a",
    "block_label_text_color_dark": "#a5b1ba",
    "block_title_text_color": "#37444c",
    "block_title_text_color_dark": "#c9d2d8",
    "block_info_text_color": "#52606a",
    "block_info_text_color_dark": "#a5b1ba",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#171d21",
    "background_fill_secondary": "#eef2f4",
    "background_fill_secondary_dark": "#12181b",
    "border_color_primary": "#dfe5e8",
    "border_color_primary_dark": "#2b353b",
    "button_primary_background_fill": "#0f766e",
    "button_primary_background_fill_hover": "#115e59",
    "button_primary_background_fill_dark": "#0f766e",
    "button_primary_background_fill_hover_dark": "#0d9488",
    "button_primary_text_color": "#ffffff",
    "button_secondary_background_fill": "#e7ecef",
    "button_secondary_background_fill_dark": "#26313a",
    "button_secondary_text_color": "#1b2429",
    "button_secondary_text_color_dark": "#e6ebee",
    "color_accent": "#0f766e",
    "link_text_color": "#0f6b64",
    "link_text_color_dark": "#5eead4",
    "checkbox_background_color_dark": "#12181b",
    "table_even_background_fill": "#ffffff",
    "table_even_background_fill_dark": "#171d21",
    "table_odd_background_fill": "#f5f7f8",
    "table_odd_background_fill_dark": "#12181b",
    "input_background_fill": "#ffffff",
    "input_background_fill_dark": "#12181b",
}


class Calm(Base):
    """Nothing of it is loaded from elsewhere: the fonts are those that the visitor's system has."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=ACCENT,
            secondary_hue=ACCENT,
            neutral_hue=colors.slate,
            radius_size=sizes.radius_lg,
            text_size=sizes.text_md,
            font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
            font_mono=["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"],
        )
        self.name = "calm"
        self.set(**COLOURS)
