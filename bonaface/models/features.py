"""A model's penultimate features: what its last linear layer reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from bonaface.models.parts import last_linear

Calls = list[tuple[torch.Tensor, torch.Tensor]]


class LastLayer:
    """Watches a model's last linear layer, also where several threads run the model at once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._seen = threading.local()
        layer = last_linear(model, model.config.num_labels)
        self._handle = layer.register_forward_hook(self._keep) if layer is not None else None

    def run(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (n, classes) and, where one linear layer makes them, its input (n, width); else None.

        A model may average several heads or normalise after its last linear layer: the layer counts only where its
        output is the logits.
        """
        with self.calls() as calls:
            logits = self.model(pixel_values=pixels).logits
        if len(calls) == 1 and calls[0][0].ndim == 2 and torch.equal(calls[0][1], logits):
            return logits, calls[0][0]
        return logits, None

    @contextmanager
    def calls(self) -> Iterator[Calls]:
        """The inputs and outputs of the layer in the calls that this thread makes within the block."""
        calls: Calls = []
        self._seen.calls = calls
        try:
            yield calls
        finally:
            del self._seen.calls

    def remove(self) -> None:
        """Watch it no longer."""
        if self._handle is not None:
            self._handle.remove()

    def _keep(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls: Calls | None = getattr(self._seen, "calls", None)  # None where another thread runs the model
        if calls is not None:
            calls.append((inputs[0], output))
