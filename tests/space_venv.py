"""A Space's folder in an empty place, a fresh environment from its own requirements, and an answer from its app.

    python tests/space_venv.py MODEL WORK --image photo.png

Everything is installed anew from the package index, which takes minutes and gigabytes: no part of the tests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from hub_runs import ask_app

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bonaface.hub.space import make_space


def main() -> None:
    """Write, install, start, ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("work", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--uv", default=str(Path(sys.executable).with_name("uv")))
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    space = make_space(options.model, "user/app", out=options.work / "space")
    assert isinstance(space, Path)
    names = sorted(path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file())
    print(f"{len(names)} files, {sum((space / name).stat().st_size for name in names) / 1e6:.1f} MB")
    python, started = options.work / "venv" / "bin" / "python", time.monotonic()
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([options.uv, "venv", "--quiet", str(options.work / "venv")], check=True, env=env)
    requirements = ["-r", str(space / "requirements.txt")]
    subprocess.run(
        [options.uv, "pip", "install", "--quiet", "--python", str(python), *requirements], check=True, env=env
    )
    print(f"installed in {time.monotonic() - started:.1f} s")
    elsewhere, started = options.work / "elsewhere", time.monotonic()
    elsewhere.mkdir()
    where = "import importlib.util as u; print(u.find_spec('bonaface'))"
    found = subprocess.run([str(python), "-c", where], cwd=elsewhere, env=env, capture_output=True, text=True)
    print(f"the project in the new environment: {found.stdout.strip()}")
    command = [str(python), str(space / "app.py"), "--host", "127.0.0.1"]
    (answer,) = ask_app(command, [options.image], cwd=elsewhere, env=env | {"HF_HOME": str(options.work / "home")})
    print(f"started and answered in {time.monotonic() - started:.1f} s: {answer}")


if __name__ == "__main__":
    main()
