"""A classifier with a hidden layer in its head: any backbone, then dense, batch norm, ReLU, dropout, dense.

Stock architectures end in one linear layer, so a model with this head needs `import bonaface` to be loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


class HiddenHeadConfig(PreTrainedConfig):
    """Configuration of :class:`HiddenHeadForImageClassification`.

    Args:
        body: the configuration of the image classifier whose last linear layer the head replaces, as a dictionary.
        hidden_size: width of the hidden layer.
        dropout: probability behind the hidden layer, in [0, 1).
    """

    model_type = "bonaface_hidden_head"

    body: dict[str, Any] | None = None
    hidden_size: int = 128
    dropout: float = 0.0


class HiddenHeadForImageClassification(PreTrainedModel):
    """pixel_values float (batch, 3, height, width) -> logits float (batch, num_labels)."""

    config_class = HiddenHeadConfig
    main_input_name = "pixel_values"

    def __init__(self, config: HiddenHeadConfig) -> None:
        super().__init__(config)
        body = config.body or {}
        inner = CONFIG_MAPPING[body["model_type"]].from_dict(body)
        self.body = AutoModelForImageClassification.from_config(inner)
        name, layer = [(n, m) for n, m in self.body.named_modules() if isinstance(m, nn.Linear)][-1]
        parent, _, attribute = name.rpartition(".")
        setattr(self.body.get_submodule(parent), attribute, nn.Identity())
        assert config.num_labels is not None
        layers = {
            "dense": nn.Linear(layer.in_features, config.hidden_size, bias=False),
            "norm": nn.BatchNorm1d(config.hidden_size),
            "activation": nn.ReLU(),
            "dropout": nn.Dropout(config.dropout),
            "classifier": nn.Linear(config.hidden_size, config.num_labels),
        }
        self.head = nn.Sequential(OrderedDict(layers))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits, and the cross-entropy loss when `labels` (int64, shape (batch,)) are given."""
        logits = self.head(self.body(pixel_values=pixel_values).logits)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


def with_hidden_head(model: PreTrainedModel, hidden_size: int, dropout: float = 0.0) -> PreTrainedModel:
    """The classifier with a fresh head that has a hidden layer; one that has such a head already stays as it is."""
    if isinstance(model, HiddenHeadForImageClassification):
        return model
    config = HiddenHeadConfig(
        body=model.config.to_dict(),
        hidden_size=hidden_size,
        dropout=dropout,
        id2label=model.config.id2label,
        label2id=model.config.label2id,
    )
    if hasattr(model.config, "base_model"):
        config.base_model = model.config.base_model
    headed = HiddenHeadForImageClassification(config)
    headed.body.load_state_dict(model.state_dict(), strict=False)  # all but the layer that the head replaces
    return headed


# The Auto classes know this model from now on.
AutoConfig.register(HiddenHeadConfig.model_type, HiddenHeadConfig, exist_ok=True)
AutoModelForImageClassification.register(HiddenHeadConfig, HiddenHeadForImageClassification, exist_ok=True)
