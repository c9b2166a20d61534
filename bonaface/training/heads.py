"""What `head_only` trains on kept features: the last layer, or with `head_block` the last block."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel

from bonaface.errors import UsageError
from bonaface.models.parts import last_linear

INPUT_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.5  # of a block
GAIN = 64.0  # of what attention adds, undone by the layer behind it: small weights lose precision as 8-bit floats


class Head(Protocol):
    """Features, float32 (n, width) -> logits (n, labels); gives what it learned to the model."""

    def fold_into(self, model: PreTrainedModel) -> None:
        """Write the weights into the model, of which it is the end."""


class LinearHead(nn.Module):
    """One linear layer on standardised features.

    Args:
        views: float32 (views, n, width): what the standardisation is made from.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, views: NDArray[Any], n_labels: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(views.mean((0, 1))))
        self.register_buffer("std", torch.from_numpy(views.std((0, 1)) + 1e-6))
        self.dropout, self.layer = nn.Dropout(dropout), nn.Linear(views.shape[2], n_labels)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (n, labels)."""
        return self.layer(self.dropout((features - self.mean) / self.std))

    @torch.no_grad()
    def fold_into(self, model: PreTrainedModel) -> None:
        """Into the last layer, the standardisation with it, so the architecture stays what it is."""
        layer = last_linear(model, self.layer.out_features)
        assert layer is not None  # or there would be no features
        weight = self.layer.weight / self.std
        layer.weight.copy_(weight)
        layer.bias.copy_(self.layer.bias - weight @ self.mean)


class BlockHead(nn.Module):
    """A perceptron on the class token and the mean of all tokens that a vision transformer's last block can hold.

    Where queries and keys are zero, every token attends to all tokens alike: what attention adds to the class token is
    then a linear map of the mean of the normalised tokens, and the block's own two layers do the rest. As neither the
    class token nor that mean depends on anything learned, both are kept, and an epoch takes seconds.

    Args:
        block: the last block of timm's vision transformer, for its sizes and its activation.
        views: float32 (views, n, 2 width): class token and mean token, as :func:`tokens` gives them.
    """

    mean_of: torch.Tensor
    std_of: torch.Tensor
    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, block: Any, views: NDArray[Any], n_labels: int) -> None:
        super().__init__()
        width = block.mlp.fc1.in_features
        token, mean = torch.from_numpy(views).reshape(-1, 2 * width).split(width, 1)
        standard = layer_norm(token, (width,))
        self.width, self.eps = width, block.norm2.eps
        self.register_buffer("mean_of", mean.mean(0))
        self.register_buffer("std_of", mean.std(0) + 1e-6)
        self.register_buffer("centre", standard.mean(0))
        self.register_buffer("spread", standard.std(0) + 1e-6)
        self.scale = float(token.std(1).mean())  # what is added to the token is of its size
        self.attended = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.attended.weight, std=width**-0.5)
        self.first, self.activation = nn.Linear(width, block.mlp.fc1.out_features), block.mlp.act
        self.second, self.last = nn.Linear(self.first.out_features, width), nn.Linear(width, n_labels)
        for layer in (self.second, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.dropout, self.hidden_dropout = nn.Dropout(INPUT_DROPOUT), nn.Dropout(HIDDEN_DROPOUT)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (n, labels)."""
        token, mean = features.split(self.width, 1)
        size = self.spread * self.scale
        token = token + self.attended(self.dropout((mean - self.mean_of) / self.std_of)) * size
        hidden = self.activation(self.first(self.dropout(self._standard(token))))
        token = token + self.second(self.hidden_dropout(hidden)) * size
        return self.last(self._standard(token))

    def _standard(self, token: torch.Tensor) -> torch.Tensor:
        return (layer_norm(token, (self.width,), eps=self.eps) - self.centre) / self.spread

    @torch.no_grad()
    def fold_into(self, model: PreTrainedModel) -> None:
        """Into the last block, the last norm and the last layer."""
        network, size = transformer_of(model), self.spread * self.scale
        block: Any = network.blocks[-1]
        width = self.width
        attended = size[:, None] * self.attended.weight / self.std_of
        attention = block.attn
        for part in (block.norm1, attention.qkv, attention.proj):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        block.norm1.weight.fill_(1)
        attention.qkv.weight[2 * width :] = GAIN * attended
        attention.qkv.bias[2 * width :] = -GAIN * attended @ self.mean_of
        attention.proj.weight.fill_diagonal_(1 / GAIN)
        for norm in (block.norm2, network.norm):
            norm.weight.copy_(1 / self.spread)
            norm.bias.copy_(-self.centre / self.spread)
        block.mlp.fc1.load_state_dict(self.first.state_dict())
        block.mlp.fc2.weight.copy_(size[:, None] * self.second.weight)
        block.mlp.fc2.bias.copy_(size * self.second.bias)
        network.head.load_state_dict(self.last.state_dict())


def transformer_of(model: PreTrainedModel, asks: str = "head_block") -> Any:
    """The `VisionTransformer` inside the model, which `asks` needs.

    Raises UsageError where there is none, or where it reads another token or has other parts than CLIP's.
    """
    network = getattr(model, "timm_model", None)
    if not (
        isinstance(network, VisionTransformer)
        and network.global_pool == "token"
        and isinstance(network.norm, nn.LayerNorm)
        and isinstance(network.fc_norm, nn.Identity)
        and isinstance(network.blocks[-1].ls1, nn.Identity)
        and len(network.blocks) > 1
    ):
        raise UsageError(
            f"{asks} needs a vision transformer of timm that reads its class token",
            "use `model: clip`, or another of timm's",
        )
    return network


def tokens(model: PreTrainedModel, read: torch.Tensor) -> torch.Tensor:
    """What a last block reads, (n, tokens, width) -> class token and mean of the normalised tokens, (n, 2 width)."""
    normal = layer_norm(read.float(), read.shape[-1:], eps=transformer_of(model).blocks[-1].norm1.eps)
    return torch.cat([read[:, 0].float(), normal.mean(1)], 1)


def read_by_last_layer(model: PreTrainedModel, kept: torch.Tensor) -> torch.Tensor:
    """What :func:`tokens` kept -> what the last layer reads, float32 both; the model has a :class:`BlockHead` in it."""
    network = transformer_of(model)
    block, width = network.blocks[-1], network.embed_dim
    token, mean = kept.split(width, 1)
    values = nn.functional.linear(mean, block.attn.qkv.weight[2 * width :], block.attn.qkv.bias[2 * width :])
    token = token + block.attn.proj(values)
    return network.norm(token + block.mlp(block.norm2(token)))
