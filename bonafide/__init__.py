"""bonafide: train, check, publish and serve detectors of AI-generated faces.

Importing it is cheap. Once transformers is imported too, before or after, our own models are registered with the Auto
classes, so that ``pipeline("image-classification", model=FOLDER)`` can load it.
"""

from types import ModuleType

from wrapt import when_imported

__version__ = "0.1.0"


@when_imported("transformers.models.auto.modeling_auto")
def _register_models(_: ModuleType) -> None:
    import bonafide.cnn
    import bonafide.head  # noqa: F401
