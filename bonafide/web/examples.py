"""Pictures to try the app with: only such as the model was meant for, and none of anyone who did not agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path


def example_pictures(model: str | None, folder: Path) -> list[str]:
    """Paths of example pictures for a model; those that we draw are written to ``folder``.

    A model that was trained on the embedded sample gets two of its drawn portraits. Any other gets the portrait of
    Eileen Collins that NASA placed in the public domain, where scikit-image, which carries it, is installed.
    """
    if model is not None and _knows_the_sample(Path(model)):
        return _drawn(folder)
    return _astronaut()


def _knows_the_sample(model: Path) -> bool:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        sources = set(((config.get("bonafide") or {}).get("unfamiliar") or {}).get("sources") or [])
    except (OSError, ValueError, AttributeError):
        return False
    if not any(str(name).startswith("camera_") for name in sources):
        return False
    from bonafide.sample import FAKE, REAL  # it brings what draws, which no other model needs

    return sources <= {*REAL, *FAKE}


def _drawn(folder: Path) -> list[str]:
    from bonafide.sample import SampleSpec, make_image

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
