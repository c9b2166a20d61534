"""The plain CNN of the student systems, as a proper `PreTrainedModel`.

Convolution, ReLU and max-pooling a few times, then Flatten, Dense, Dense. Two softmax logits with cross-entropy are
the same model as their one sigmoid with binary cross-entropy.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


class PlainCNNConfig(PreTrainedConfig):
    """Configuration of :class:`PlainCNNForImageClassification`.

    Args:
        image_size: side of the square input, pixels; the Dense layer is sized by it.
        channels: output channels of each Conv-ReLU-MaxPool block; every block halves the side.
        hidden_size: width of the Dense layer.
        dropout: probability in front of the last layer, in [0, 1).
    """

    model_type = "bonaface_plain_cnn"

    image_size: int = 256
    num_channels: int = 3
    channels: list[int] | tuple[int, ...] = (32, 64, 128, 128)
    hidden_size: int = 64
    dropout: float = 0.0


class PlainCNNForImageClassification(PreTrainedModel):
    """pixel_values float (batch, 3, image_size, image_size) -> logits float (batch, num_labels)."""

    config_class = PlainCNNConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PlainCNNConfig) -> None:
        super().__init__(config)
        widths = [config.num_channels, *config.channels]
        blocks: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            blocks += [nn.Conv2d(narrow, wide, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        side = config.image_size // 2 ** len(config.channels)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(side * side * widths[-1], config.hidden_size), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        assert config.num_labels is not None
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits, and the cross-entropy loss when `labels` (int64, shape (batch,)) are given."""
        hidden = self.dense(self.features(pixel_values))
        logits = self.classifier(self.dropout(hidden))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


# The Auto classes know this model from now on.
AutoConfig.register(PlainCNNConfig.model_type, PlainCNNConfig, exist_ok=True)
AutoModelForImageClassification.register(PlainCNNConfig, PlainCNNForImageClassification, exist_ok=True)
