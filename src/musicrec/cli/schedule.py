# ruff: noqa: S603  commands are lists, given to no shell
"""``scripts/schedule.py VERB``: the daily, weekly and monthly jobs, by the user's crontab.

``install dataset=NAME`` and ``remove`` write and take out marked lines, ``show`` prints them,
``follow dataset=NAME`` does as cron would where there is none, and ``run JOB dataset=NAME`` is what
all of them call: one job at a time, with the environment of a file that the crontab never sees, and
a JSON line for its beginning and its end. Ends with the job's own status, or 4 where the job before
is still at work.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from musicrec.cli import crontab, dotenv, flags
from musicrec.cli.clock import Call, follow
from musicrec.cli.compose import compose
from musicrec.cli.job import Busy, Log, alone
from musicrec.database.home import home
from musicrec.database.sharing import fresh_log
from musicrec.errors import ConfigError, MusicrecError, nearest

BUSY = 4


@dataclass(frozen=True, slots=True)
class Job:
    """A command and when it is due.

    Attributes:
        due: as cron writes it, in the machine's own time zone.
        verb: of ``musicrec``.
        config: the command's, by which its settings are checked.
        settings: besides the dataset and what the person adds.
        said: in words.
    """

    due: str
    verb: str
    config: str
    settings: tuple[str, ...]
    said: str


#: Apart from each other, and the weekly one after the daily one's features.
JOBS: Mapping[str, Job] = {
    "materialize": Job(
        "10 3 * * *", "materialize", "materialize", ("views=all",), "features, daily at 03:10"
    ),
    "retrain": Job("0 4 * * 0", "retrain", "retrain", (), "a new model, Sundays at 04:00"),
    "graph": Job(
        "0 5 1 * *",
        "graph",
        "generate_graph",
        ("all_users=true",),
        "interest graphs, on the 1st at 05:00",
    ),
}

_USAGE = (
    "usage: schedule install dataset=NAME [env_file=.env] [JOB.key=value …] | "
    "remove [dataset=NAME] | show | follow dataset=NAME [JOB.key=value …] | "
    f"run JOB dataset=NAME [env_file=.env] [key=value …], where JOB is one of {', '.join(JOBS)}"
)

_SECRET = re.compile(r"^[^=]*(password|secret|token|api_?key)[^=]*=|://[^/\s]*:[^/\s]*@", re.I)

#: What a job may need of the environment, and would miss if the file did not have it.
_NEEDED = re.compile(
    r"DATABASE_URL|FEAST_\w+|MUSICREC_(?!VERB$)\w+|MLFLOW_\w+|(ANTHROPIC|OPENAI)_\w+|SEQUENTIAL_MODEL_PATH"
)


def commands(job: Job, dataset: str, more: Sequence[str]) -> list[str]:
    """A job's command. Checked here, and not at night.

    Raises:
        ConfigError: a setting that the command does not take, or one that holds a secret.
    """
    settings = [f"dataset={dataset}", *job.settings, *more]
    for setting in settings:
        if _SECRET.search(setting):
            key = setting.partition("=")[0]
            raise ConfigError(f"{key}=… looks like a secret; put it into the file env_file=.env")
    compose(job.config, flags.translate(settings, {}))
    return [sys.executable, "-m", "musicrec", job.verb, *settings]


def block(dataset: str, env_file: str, more: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a dataset, with a mark before and after."""
    lines = [f"{crontab.mark('begin', dataset)}; make cron-remove takes these lines out"]
    for name, job in JOBS.items():
        words = shlex.join(_call(name, dataset, env_file, more.get(name, ())))
        call = f"cd {shlex.quote(str(Path.cwd()))} && {words} > /dev/null"
        # What goes wrong is said on stderr, which cron mails; a % is a new line to cron.
        lines.append(f"{job.due} " + call.replace("%", "\\%"))
    return [*lines, crontab.mark("end", dataset)]


def _call(name: str, dataset: str, env_file: str, more: Sequence[str]) -> list[str]:
    """What runs a job with all that belongs to it; its own command is checked."""
    commands(JOBS[name], dataset, more)
    words = [sys.executable, "-m", "musicrec", "schedule", "run", name, f"dataset={dataset}"]
    return [*words, *([f"env_file={env_file}"] if env_file != dotenv.NAME else []), *more]


def install(settings: Mapping[str, str], more: Mapping[str, Sequence[str]]) -> None:
    """Put the lines into the user's crontab, in place of those that it may have."""
    dataset, env_file = _dataset(settings), settings.get("env_file", dotenv.NAME)
    lines = block(dataset, env_file, more)
    kept = crontab.without_blocks(crontab.read(), dataset)
    crontab.write([*kept, *lines])
    print("\n".join(lines))
    for job in JOBS.values():
        print(f"{job.said}: {dataset}")
    for line in _remarks(Path(env_file)):
        print(line, file=sys.stderr)


def _remarks(env_file: Path) -> Iterator[str]:
    """What the jobs would miss of this shell's environment; names, and never a value."""
    known = dotenv.read(env_file)
    missed = [name for name in os.environ if _NEEDED.fullmatch(name) and name not in known]
    if missed:
        yield f"note: set here and not in {env_file}, so the jobs miss: {', '.join(sorted(missed))}"
    if env_file.exists() and env_file.stat().st_mode & 0o077:
        yield f"note: others can read {env_file}; chmod 600 {shlex.quote(str(env_file))}"


def remove(settings: Mapping[str, str]) -> None:
    before = crontab.read()
    after = crontab.without_blocks(before, settings.get("dataset"))
    if after != before:
        crontab.write(after)
    print(f"{len(before) - len(after)} lines taken out of the crontab")


def run(name: str, settings: Mapping[str, str], more: Sequence[str]) -> int:
    """Run a job to its end, alone of its kind; its status."""
    dataset = _dataset(settings)
    os.environ.update(_environment(Path(settings.get("env_file", dotenv.NAME))))
    command = commands(JOBS[name], dataset, more)
    folder = home() / "schedule" / f"{name}-{dataset}"
    log = Log(folder / "log.jsonl", Console(), job=name, dataset=dataset)
    try:
        with alone(folder) as lock:
            return _run(command, folder, log, lock)
    except Busy as busy:
        log.note("busy", said=str(busy), status=BUSY)
        print(f"{name} {dataset}: nothing done: {busy}", file=sys.stderr)
        return BUSY


def _environment(env_file: Path) -> dict[str, str]:
    """The file's, but for what the process was given: as compose takes it."""
    return {name: text for name, text in dotenv.read(env_file).items() if name not in os.environ}


def _run(command: Sequence[str], folder: Path, log: Log, lock: int) -> int:
    log.tell("begun", f"begun: {shlex.join(command[2:])}", command=list(command))
    started, last = time.monotonic(), ""
    output = folder / "output.log"
    fresh_log(output)
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    assert child.stdout is not None
    with output.open("a") as file:
        for line in child.stdout:
            last = line.strip() or last
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
    status = child.wait()
    status = 128 - status if status < 0 else status  # as a shell has it
    said = f"ended with status {status} after {time.monotonic() - started:.0f} s"
    log.tell("ended", said, status=status, seconds=round(time.monotonic() - started, 1), last=last)
    if status:
        print(f"{shlex.join(command[2:])}: {said}: {last} (see {output})", file=sys.stderr)
    return status


def _dataset(settings: Mapping[str, str]) -> str:
    dataset = settings.get("dataset")
    if not dataset:
        raise ConfigError(f"which dataset? add dataset=NAME, such as dataset=mine; {_USAGE}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", dataset):
        raise ConfigError(f"dataset={dataset} is no legal name of a dataset")
    return dataset


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Our own settings, and the others."""
    own, others = {}, []
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign:
            raise ConfigError(f"{argument!r} is not a setting; write key=value; {_USAGE}")
        if key in ("dataset", "env_file"):
            own[key] = value
        else:
            others.append(argument)
    return own, others


def _by_job(settings: Sequence[str]) -> dict[str, list[str]]:
    """``retrain.model=small`` is the setting ``model=small`` of the job ``retrain``."""
    more: dict[str, list[str]] = {}
    for setting in settings:
        job, dot, rest = setting.partition(".")
        if job not in JOBS or not dot:
            raise ConfigError(
                f"{setting.partition('=')[0]!r} is no job's setting{nearest(job, JOBS)}; begin it "
                f"with {', '.join(f'{name}.' for name in JOBS)}"
            )
        more.setdefault(job, []).append(rest)
    return more


def schedule(arguments: Sequence[str]) -> int:
    """What the command line says; the status to end with."""
    verb, *rest = arguments or [""]
    if verb == "run":
        name = rest[0] if rest else ""
        if name not in JOBS:
            raise ConfigError(f"there is no job {name!r}{nearest(name, JOBS)}; {_USAGE}")
        settings, more = _split(rest[1:])
        return run(name, settings, more)
    settings, others = _split(rest)
    if verb == "install":
        install(settings, _by_job(others))
    elif verb == "remove" and not others:
        remove(settings)
    elif verb in ("show", "follow"):
        dataset, env_file = _dataset(settings), settings.get("env_file", dotenv.NAME)
        added = _by_job(others)
        if verb == "show":
            print("\n".join(block(dataset, env_file, added)))
        else:
            calls = [
                Call(name, job.due, tuple(_call(name, dataset, env_file, added.get(name, ()))))
                for name, job in JOBS.items()
            ]
            follow(calls, home() / "schedule" / "followed")
    else:
        raise ConfigError(_USAGE)
    return 0


def main() -> None:
    try:
        status = schedule(sys.argv[1:])
    except MusicrecError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if status:
        raise SystemExit(status)
