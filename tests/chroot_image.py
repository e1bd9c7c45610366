"""Builds a stage of docker/Dockerfile without Docker: each step in a chroot, as root.

``python tests/chroot_image.py STAGE --base FOLDER --into FOLDER [--set ARG=value …]
[--env NAME=value …] [--bind PATH …]``

``--base`` is what ``debootstrap --variant=minbase bookworm FOLDER`` made; each stage becomes a
folder of ``--into``, and one that is there is kept. ``--env`` and ``--bind`` are for the steps
alone, such as a mirror of packages and its certificate. The instructions are taken for what they
are here: no layers, no cache but pip's of this machine, its network, and no ``.dockerignore``
(tests/unit/docker checks that).
"""

from __future__ import annotations

import argparse
import shutil
import string
import subprocess
import sys
import time
from pathlib import Path

from dockerfiles import Instruction, Stage, read

ROOT = Path(__file__).resolve().parents[1]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def expand(text: str, values: dict[str, str]) -> str:
    return string.Template(text).safe_substitute(values)


class Builder:
    """Makes folders out of stages."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.stages = read(ROOT / "docker" / "Dockerfile")
        self.base, self.into = asked.base, asked.into
        self.arguments = dict(word.split("=", 1) for word in asked.set)
        self.only_here = dict(word.split("=", 1) for word in asked.env)
        self.binds = asked.bind

    def environment(self, name: str) -> dict[str, str]:
        """What a container of the stage has."""
        if name not in self.stages:
            return {"PATH": PATH}
        stage = self.stages[name]
        values = self.environment(stage.parent)
        for one in stage.all("ENV"):
            for word in one.words:
                key, _, value = word.partition("=")
                values[key] = expand(value, values)
        return values

    def workdir(self, name: str) -> str:
        if name not in self.stages:
            return "/"
        found = self.stages[name].all("WORKDIR")
        return found[-1].text if found else self.workdir(self.stages[name].parent)

    def build(self, name: str) -> Path:
        """The stage's folder."""
        if name not in self.stages:
            return self.base
        folder, done = self.into / name, self.into / f"{name}.done"
        if done.exists():
            return folder
        stage = self.stages[name]
        parent = self.build(stage.parent)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", parent, folder], check=True)
        workdir, arguments = self.workdir(stage.parent), {}
        for one in stage.instructions:
            started = time.monotonic()
            if one.word == "WORKDIR":
                workdir = one.text
                (folder / workdir[1:]).mkdir(parents=True, exist_ok=True)
            elif one.word == "ARG":
                key, _, value = one.words[0].partition("=")
                arguments[key] = self.arguments.get(key, value)
            elif one.word == "COPY":
                self.copy(stage, one, folder, workdir)
            elif one.word == "RUN":
                self.run(stage, one, folder, workdir, arguments)
            print(
                f"{name}: {one.word} {one.text[:70]}: {time.monotonic() - started:.1f} s",
                flush=True,
            )
        done.touch()
        return folder

    def copy(self, stage: Stage, one: Instruction, folder: Path, workdir: str) -> None:
        *sources, target = one.words
        origin = one.option("from")
        top = self.build(origin) if origin else ROOT
        into = folder / str(Path(workdir) / target)[1:]
        for source in sources:
            whole = top / source.lstrip("/")
            place = into / whole.name if target.endswith("/") else into
            place.parent.mkdir(parents=True, exist_ok=True)
            if whole.is_dir():
                place.mkdir(exist_ok=True)
                subprocess.run(["cp", "-a", f"{whole}/.", place], check=True)
                for cache in [] if origin else list(place.rglob("__pycache__")):
                    shutil.rmtree(cache)
            else:
                shutil.copy2(whole, place)
            if mode := one.option("chmod"):
                place.chmod(int(mode, 8))

    def run(
        self, stage: Stage, one: Instruction, folder: Path, workdir: str, arguments: dict[str, str]
    ) -> None:
        values = {"HOME": "/root"} | self.environment(stage.name) | arguments | self.only_here
        cache = (
            [] if not any("/root/.cache/pip" in o for o in one.options) else ["/root/.cache/pip"]
        )
        lines = ["set -e", f"cd {folder}", "mount -t proc proc proc"]
        for path in ["/dev", *self.binds, *cache]:
            make = "mkdir -p" if Path(path).is_dir() else f"mkdir -p .{Path(path).parent}; touch"
            lines.append(f"{make} .{path}; mount --rbind {path} .{path}")
        lines.append("cp --dereference /etc/resolv.conf etc/resolv.conf")
        lines.append('exec chroot . /usr/bin/env -i "${@:2}" /bin/sh -c "cd $WORKDIR && $1"')
        words = [f"{key}={value}" for key, value in values.items()]
        script = "\n".join(lines).replace("$WORKDIR", workdir)
        command = ["unshare", "--mount", "--pid", "--fork", "bash", "-c", script, "bash", one.text]
        if status := subprocess.run([*command, *words]).returncode:
            raise SystemExit(f"{stage.name}: RUN {one.text}: status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    for name in ("set", "env", "bind"):
        parser.add_argument(f"--{name}", action="append", default=[])
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    print(Builder(asked).build(asked.stage), file=sys.stderr)


if __name__ == "__main__":
    main()
