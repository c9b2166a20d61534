"""Images to try the app with: of the kind that the model is meant for, and of nobody who did not agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bonaface.models.drawings import knows_only_drawings


def example_images(model: str | None, folder: Path) -> list[str]:
    """Paths of example images for a model; those that we draw are written to ``folder``.

    A model that was trained on the embedded sample gets two of its drawn portraits. Any other gets the portrait of
    Eileen Collins that NASA placed in the public domain, where scikit-image, which carries it, is installed.
    """
    if model is not None and knows_only_drawings(Path(model)):
        return _drawn(folder)
    return _astronaut()


def _drawn(folder: Path) -> list[str]:
    from bonaface.data.sample import SampleSpec, make_image  # it brings what draws, which no other model needs

    spec = SampleSpec(n=2, size=160, seed=7)
    paths = []
    for index in range(2):
        path = folder / f"drawn portrait {index + 1}.jpg"
        path.write_bytes(make_image(spec, index)[1])
        paths.append(str(path))
    return paths


def _astronaut() -> list[str]:
    found = importlib.util.find_spec("skimage")
    file = Path(found.origin).parent / "data" / "astronaut.png" if found and found.origin else None
    return [str(file)] if file and file.is_file() else []
