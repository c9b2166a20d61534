"""What the API answers with; Gradio's documentation of the endpoints is made from these."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr
from pydantic import BaseModel, Field

from bonaface.web.uploads import Quiet

VerdictName = Literal["real", "fake", "uncertain", "error"]


class FaceAnswer(BaseModel):
    """One face that was cut out and scored."""

    box: list[float] = Field(description="x0, y0, x1, y1 in pixels of the upright image")
    p_fake: float = Field(description="in [0, 1]")
    verdict: VerdictName


class Prediction(BaseModel):
    """The model's result for one image."""

    name: str = Field(description="the file's name, as it was sent")
    status: str = Field(description="ok, or why there is no score: empty, truncated, not an image, ...")
    error: str | None = Field(description="the same in a sentence")
    verdict: VerdictName = Field(description="by the model's uncertainty band; error if there is no score")
    p_fake: float | None = Field(description="sum over all labels except the real one, in [0, 1]")
    labels: dict[str, float] = Field(description="probability of each label")
    band: list[float] | None = Field(description="p_fake up to the first is real, from the second on fake")
    faces: list[FaceAnswer] = Field(description="largest first; empty if the whole image was scored")
    warnings: list[str] = Field(
        description="no face found, very small, heavily compressed, unlike the training data, ..."
    )
    resembles: list[str] | None = Field(
        description="generators of the training data that a fake is most like, no part of the verdict; empty: none of "
        "them; null: not told"
    )
    meaning: str = Field(description="how many known images with such a score were fake, and at which base rate")


class HeatMapAnswer(BaseModel):
    """What a heat map shows, and how far to trust it."""

    target: Literal["real", "fake"] = Field(description="what the bright areas point to")
    method: str = Field(description="integrated_gradients, or occlusion where the network was exported")
    trust: str = Field(description="whether to, and what a deletion and insertion test found")
    prediction: Prediction


class ModelAnswer(BaseModel):
    """Which model is loaded."""

    status: str = Field(description="ready, loading, failed or no model")
    message: str
    name: str = Field(description="the model's title")
    version: str = Field(description="of bonaface")
    weights: str = Field(description="fingerprint of the weights: the first 16 digits of their SHA-256")
    data_fingerprint: str = Field(description="of the training data")
    labels: list[str] = Field(description="in class order")
    real_label: str
    knows_only_drawings: bool = Field(description="trained on the sample set only: meaningless for photographs")
    band: list[float] | None = Field(description="p_fake up to the first is real, from the second on fake")
    figures: dict[str, list[float | None]] = Field(description="value, low and high of each figure on the test split")
    conclusion: str = Field(description="what the figures say, in words")


class Answer(gr.JSON, metaclass=Quiet):
    """A JSON output whose schema is that of a model above."""

    is_template = True

    def __init__(self, model: type[BaseModel], *, many: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.many = model, many

    def api_info(self) -> dict[str, Any]:
        """The JSON schema, with its references resolved: clients read it without ``$defs``."""
        schema = self.model.model_json_schema()
        resolved = _resolved(schema, schema.pop("$defs", {}))
        return {"type": "array", "items": resolved} if self.many else resolved

    def get_config(self, cls: Any = None) -> dict[str, Any]:
        """As the class above: the browser knows nothing of ``model``."""
        return super().get_config(gr.JSON)


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _resolved(value, definitions) for key, value in node.items()}
    return [_resolved(item, definitions) for item in node] if isinstance(node, list) else node
