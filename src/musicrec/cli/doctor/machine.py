"""The machine itself: Python, torch, threads, and where there is room."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from musicrec.cli.doctor.findings import Asked, Finding
from musicrec.database.home import location

OLDEST_PYTHON = (3, 11)

#: Free space: below the first a training or an import is likely to fail, below the second soon.
LITTLE_GB, SCARCE_GB = 1.0, 10.0


def python(_: Asked) -> Iterator[Finding]:
    said = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        fix = "rm -rf .venv && make setup PYTHON=python3.12"
        yield Finding("Python", "broken", f"{said}; musicrec needs 3.11 or newer", fix)
    elif sys.prefix == sys.base_prefix and not Path("/.dockerenv").exists():
        fix = "make setup, then . .venv/bin/activate"
        yield Finding("Python", "warning", f"{said}, in no virtual environment", fix)
    else:
        yield Finding("Python", "ok", said)


def torch_build(_: Asked) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        yield Finding("torch", "ok", f"{torch.__version__}, on {', '.join(names)}")
    elif torch.version.cuda is not None:
        said = f"{torch.__version__} is built for CUDA {torch.version.cuda} and finds no device"
        fix = "on a machine with a GPU update its driver (nvidia-smi); else TORCH=cpu saves space"
        yield Finding("torch", "warning" if _has_gpu() else "ok", said, fix if _has_gpu() else "")
    elif _has_gpu():
        fix = f"{sys.executable} -m pip install --force-reinstall torch"
        yield Finding("torch", "warning", f"{torch.__version__} is for CPUs; here is a GPU", fix)
    else:
        devices = "CPU and Apple GPU" if torch.backends.mps.is_available() else "CPU"
        yield Finding("torch", "ok", f"{torch.__version__}, on {devices}")


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def threads(_: Asked) -> Iterator[Finding]:
    cores = available_cores()
    given = os.environ.get("OMP_NUM_THREADS", "").strip()
    said = f"{cores:g} of {os.cpu_count()} cores are ours"
    if not given:
        yield Finding("threads", "ok", said)
    elif not given.isdecimal() or int(given) < 1:
        fix = "unset OMP_NUM_THREADS"
        yield Finding("threads", "broken", f"OMP_NUM_THREADS={given!r} is no number", fix)
    elif int(given) > cores:
        fix = f"export OMP_NUM_THREADS={max(1, int(cores))}"
        said = f"{said}, and OMP_NUM_THREADS={given}: threads wait for each other"
        yield Finding("threads", "warning", said, fix)
    else:
        yield Finding("threads", "ok", f"{said}; OMP_NUM_THREADS={given}")


def available_cores() -> float:
    """What the process may use: of a container with a quota, maybe a part of a core."""
    has_mask = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = float(len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def home_folder(_: Asked) -> Iterator[Finding]:
    folder = location()
    named = "MUSICREC_HOME" if os.environ.get("MUSICREC_HOME") else "the working folder's"
    fix = "export MUSICREC_HOME=FOLDER that you can write"
    if folder.exists() and not folder.is_dir():
        yield Finding("home", "broken", f"{folder} ({named}) is no folder", fix)
    elif not os.access(_nearest_folder(folder), os.W_OK | os.X_OK):
        yield Finding("home", "broken", f"{folder} ({named}) cannot be written", fix)
    else:
        said = "" if folder.is_dir() else ", made when it is first needed"
        yield Finding("home", "ok", f"{folder} ({named}){said}")


def disk(_: Asked) -> Iterator[Finding]:
    folder = _nearest_folder(location())
    free = shutil.disk_usage(folder).free / 1e9
    said = f"{free:,.1f} GB free at {folder}"
    fix = f"make room, or export MUSICREC_HOME=FOLDER elsewhere (du -sh {location()}/* shows whose)"
    if free < LITTLE_GB:
        yield Finding("disk", "broken", said, fix)
    elif free < SCARCE_GB:
        yield Finding("disk", "warning", said, fix)
    else:
        yield Finding("disk", "ok", said)


def _nearest_folder(path: Path) -> Path:
    """``path``, or the folder above it in which it would be made."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
