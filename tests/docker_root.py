"""Run a Dockerfile without Docker: its steps in copies of a Debian root, as root, then its app as its own user.

    debootstrap --variant=minbase bookworm ROOT
    python tests/docker_root.py ROOT WORK --model-folder runs/mine --image photo.png --arguments='--model /model'

``--env`` and ``--file`` are what a builder brings (build arguments, certificates). It needs Linux and root, takes
minutes and gigabytes, and is no part of the tests. It knows the instructions of our Dockerfile and refuses others;
layers, the registry, network isolation and signals to PID 1 are Docker's own business and are not checked.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

DOCKERFILE = Path(__file__).resolve().parent.parent / "hub" / "templates" / "space" / "Dockerfile"
# By their places here, for a stage has a PATH of its own.
CHROOT, MOUNT = shutil.which("chroot") or "/usr/sbin/chroot", shutil.which("mount") or "/usr/bin/mount"


@dataclass
class Stage:
    """A file system in the making, and what its instructions set."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    folder: str = "/"
    health: list[str] = field(default_factory=list)
    entry: list[str] = field(default_factory=list)

    def run(self, command: list[str], env: dict[str, str], **options: object) -> subprocess.Popen:
        """In the root, in a mount namespace of its own, as the stage's user."""
        inside = " ".join(map(shlex.quote, command))
        mounts = f"{MOUNT} -t proc proc {self.root}/proc; {MOUNT} --rbind /dev {self.root}/dev; "
        enter = f"exec {CHROOT} --userspec={self.user}:{self.user} {self.root} /bin/sh -c "
        whole = mounts + enter + shlex.quote(f"cd {shlex.quote(self.folder)} && exec {inside}")
        default = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        return subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", whole],
            env=default | env | self.env,
            **options,  # type: ignore[call-overload]
        )


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(WORD, the rest) of each; comments and line ends taken away."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def context_files(context: Path) -> list[Path]:
    """What `.dockerignore` lets through: patterns in order, the last that matches counts."""
    ignore = context / ".dockerignore"
    rules = [r for r in ignore.read_text().splitlines() if r and not r.startswith("#")] if ignore.is_file() else []
    found = []
    names = subprocess.run(["git", "ls-files", "-co", "-z", "--exclude-standard"], cwd=context, capture_output=True)
    listed = [context / name for name in names.stdout.decode().split("\0") if name]
    for path in listed or sorted(p for p in context.rglob("*") if p.is_file()):
        name, keep = path.relative_to(context).as_posix(), True
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = [name, *(parent.as_posix() for parent in Path(name).parents)]
            if any(fnmatch.fnmatch(part if "**/" not in rule else Path(part).name, pattern) for part in parts):
                keep = rule.startswith("!")
        found += [path] if keep else []
    return found


def build(dockerfile: Path, context: Path, base: Path, work: Path, env: dict, files: dict, again: bool) -> Stage:
    """All instructions, in order; the last stage. ``again`` takes the files that an earlier call made."""
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for word, rest in instructions(dockerfile):
        print(f"--- {word} {rest[:100]}", flush=True)
        started = time.monotonic()
        if word == "FROM":
            name = rest.split(" AS ")[1] if " AS " in rest else "last"
            stage = stages[name] = Stage(work / name)
            if again:
                continue
            subprocess.run(["cp", "-a", str(base), str(stage.root)], check=True)
            for host, guest in {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts", **files}.items():
                (stage.root / guest.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(host, stage.root / guest.lstrip("/"))
        elif word in ("RUN", "COPY") and again:
            continue
        elif word == "RUN":
            if stage.run(["/bin/sh", "-c", rest], env).wait():
                raise SystemExit(f"failed: {rest}")
        elif word == "COPY":
            copy(rest, stage, stages, context)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "ENTRYPOINT":
            stage.entry = json.loads(rest)
        elif word not in ("ARG", "EXPOSE"):
            raise SystemExit(f"unknown instruction {word}")
        print(f"    {time.monotonic() - started:.1f} s", flush=True)
    return stage


def copy(rest: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    """``COPY [--from=STAGE] [--chown=USER:GROUP] SOURCE TARGET``."""
    options = {w.split("=")[0]: w.split("=")[1] for w in rest.split() if w.startswith("--")}
    source, target = [word for word in rest.split() if not word.startswith("--")]
    place = (
        stage.root / target.lstrip("/") if target.startswith("/") else stage.root / stage.folder.lstrip("/") / target
    )
    if "--from" in options:
        subprocess.run(["cp", "-a", str(stages[options["--from"]].root / source.lstrip("/")), str(place)], check=True)
        return
    if source != ".":
        shutil.copyfile(context / source, place)
        return
    for path in context_files(context):
        goal = place / path.relative_to(context)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, goal)
    if "--chown" in options:
        subprocess.run(["chown", "-R", options["--chown"], str(place)], check=True)


def check_last(stage: Stage) -> None:
    """Not root, and nothing that builds or installs Python packages."""
    tools = ["gcc", "cc", "make", "pip", "pip3", "uv"]
    places = [stage.root / folder / tool for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin") for tool in tools]
    found = [str(place.relative_to(stage.root)) for place in places if place.exists()]
    modules = list((stage.root / "opt/venv").glob("lib/*/site-packages/pip"))
    print(f"user {stage.user}; build tools in the last layer: {found + [str(m) for m in modules] or 'none'}")
    size = subprocess.run(["du", "-sm", str(stage.root)], capture_output=True, text=True).stdout.split()[0]
    print(f"size of the last root: {int(size):,} MB")


def main() -> None:
    """Build, start, wait until it is healthy, ask once, stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--context", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--dockerfile", type=Path, default=DOCKERFILE)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--model-folder", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--port", default="7860")
    parser.add_argument("--again", action="store_true", help="start what is built already")
    parser.add_argument("--arguments", default="", help="of the app, as one word: '--model /model'")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=options.again)
    env = dict(pair.split("=", 1) for pair in options.env)
    files = dict(pair.split(":") for pair in options.file)
    stage = build(options.dockerfile, options.context, options.root, options.work, env, files, options.again)
    check_last(stage)
    if options.model_folder:
        shutil.copytree(options.model_folder, stage.root / "model", dirs_exist_ok=True)
        subprocess.run(["chown", "-R", f"{stage.user}:{stage.user}", str(stage.root / "model")], check=True)
    stage.env["GRADIO_SERVER_PORT"] = options.port
    stage.health = [word.replace(":7860/", f":{options.port}/") for word in stage.health]
    started = time.monotonic()
    app = stage.run(stage.entry + shlex.split(options.arguments), {}, start_new_session=True)
    try:
        while stage.run(stage.health, {}, stderr=subprocess.DEVNULL).wait():
            if app.poll() is not None or time.monotonic() - started > 900:
                raise SystemExit("never healthy")
            time.sleep(2)
        print(f"healthy after {time.monotonic() - started:.1f} s")
        listed = subprocess.run(["ps", "-eo", "user:20,uid,args"], capture_output=True, text=True).stdout
        print([line for line in listed.splitlines() if stage.entry[1] in line and "docker_root" not in line][-1][:120])
        if options.image:
            sys.path.insert(0, os.fspath(Path(__file__).parent))
            from hub_runs import _ask

            print(_ask(f"http://127.0.0.1:{options.port}", options.image))
    finally:
        os.killpg(app.pid, signal.SIGTERM)  # unshare itself does not listen
        app.wait(60)


if __name__ == "__main__":
    main()
