"""The models behind the page, loaded in the background so that the page opens at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bonaface.errors import UsageError
from bonaface.web.choice import HOW_TO_MAKE_ONE
from bonaface.web.limits import Limits

if TYPE_CHECKING:
    from bonaface.web.judge import Judge

Status = Literal["loading", "ready", "no model", "failed"]


class NotReady(Exception):
    """No model is available; the message tells the visitor why."""


@dataclass(frozen=True)
class Situation:
    """What the page and the health check say; ``message`` is for people."""

    status: Status
    message: str


class Service:
    """One model, or two to compare.

    Args:
        models: folders or Hub ids, none to two of them.
        limits: how many requests are run together, and how many may wait.
    """

    def __init__(self, models: list[str], limits: Limits) -> None:
        self.models, self.limits = models, limits
        self._judges: list[Future[Judge]] = [Future() for _ in models]

    def start(self) -> None:
        """Begin to load."""
        threading.Thread(target=self._load, name="loading the model", daemon=True).start()

    def _load(self) -> None:
        for name, future in zip(self.models, self._judges, strict=True):
            try:
                # Here and not above: it brings torch, which takes longer than everything else together.
                from bonaface.web.judge import Judge

                future.set_result(Judge(name, self.limits))
            except UsageError as error:
                future.set_exception(NotReady(f"{error}. Hint: {error.hint}"))
            except Exception as error:
                future.set_exception(NotReady(f"The model could not be loaded ({type(error).__name__}: {error})."))

    @property
    def situation(self) -> Situation:
        """Whether the first model is ready."""
        if not self._judges:
            return Situation("no model", f"There is no model yet. `{HOW_TO_MAKE_ONE}` trains one on your images.")
        first = self._judges[0]
        if not first.done():
            return Situation("loading", "The model is loading. You can already choose an image.")
        error = first.exception()
        if error is not None:
            return Situation("failed", str(error))
        return Situation("ready", first.result().greeting)

    def judge(self, which: int = 0, timeout: float = 300) -> Judge:
        """The loaded model; waits for it. Raises NotReady."""
        if which >= len(self._judges):
            raise NotReady(self.situation.message)
        try:
            return self._judges[which].result(timeout)
        except TimeoutError as error:
            raise NotReady("The model is still loading. Try again in a minute.") from error
