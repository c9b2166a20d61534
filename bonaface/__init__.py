"""bonaface: train, check, publish and serve detectors of AI-generated faces.

Importing it is cheap. Once transformers is imported too, before or after, our own models are registered with the Auto
classes, so that ``pipeline("image-classification", model=FOLDER)`` can load it.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import when_imported

if TYPE_CHECKING:
    from bonaface.inference.detector import Detector as Detector

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """``from bonaface import Detector``: imported on first use, since it brings torch."""
    if name == "Detector":
        from bonaface.environment import check_hub

        check_hub()
        from bonaface.inference.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@when_imported("transformers.models.auto.modeling_auto")
def _register_models(_: ModuleType) -> None:
    import bonaface.models.cnn
    import bonaface.models.head  # noqa: F401
