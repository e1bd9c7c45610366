"""``musicrec VERB …``: every command under one name. This table is all there is of it.

Nothing is imported before the verb is known, so that ``musicrec doctor`` can tell of a package
that is missing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from musicrec import __version__
from musicrec.errors import nearest


@dataclass(frozen=True, slots=True)
class Door:
    """A command.

    Attributes:
        module: of ``musicrec.cli``, with a ``main``.
        script: of ``scripts/``, the same command.
        said: what it does, for the list.
    """

    module: str
    script: str
    said: str


VERBS: Mapping[str, Door] = {
    "import": Door("import_interactions", "import_interactions", "a file of listens into Postgres"),
    "train": Door("train", "train_transformer", "listens in, a judged model out"),
    "recommend": Door("recommend", "recommend", "what a trained model would play next"),
    "materialize": Door("materialize", "materialize_features", "features from Postgres into Redis"),
    "serve": Door("serve", "serve", "the HTTP service"),
    "train-ranker": Door("train_ranker", "train_ranker", "the second stage of a model"),
    "recommend-all": Door("recommend_all", "recommend_all", "recommendations for every listener"),
    "export-onnx": Door("export_onnx", "export_onnx", "the encoder of a bundle as ONNX"),
    "graph": Door("generate_graph", "generate_interest_graph", "interest graphs of listeners"),
    "show-graph": Door("show_graph", "show_interest_graph", "an interest graph on screen"),
    "feast": Door("feature_store", "feature_store", "Feast's own command on a dataset"),
    "models": Door("models", "models", "versions of a model: list, register, promote, …"),
    "retrain": Door("retrain", "retrain", "train on what is new, and promote by policy"),
    "schedule": Door("schedule", "schedule", "the daily, weekly and monthly jobs"),
    "upload-run": Door("upload_run", "upload_run", "to MLflow with what it missed of a run"),
    "forget-user": Door("forget_user", "forget_user", "everything of a listener erased"),
    "doctor": Door("doctor.command", "doctor", "what works here, what does not, and the fix"),
}

#: The verb, for the processes that a launcher of several starts: it starts this very program
#: again, with the door's arguments and without its name.
_VERB = "MUSICREC_VERB"

_HELP = ("help", "--help", "-h")


def spelt(verb: str, *arguments: str) -> str:
    """A command as a person types it: by its script in a checkout, else by its verb."""
    in_checkout = (Path(__file__).resolve().parents[3] / "scripts").is_dir()
    by = f"python scripts/{VERBS[verb].script}.py" if in_checkout else f"musicrec {verb}"
    return " ".join([by, *arguments])


def usage() -> str:
    lines = [f"  musicrec {verb:<12} {door.said}" for verb, door in VERBS.items()]
    about = "\n\nEach takes settings as key=value; `musicrec VERB --help` lists them."
    return "\n".join(["usage: musicrec VERB [key=value …]", "", *lines]) + about


def main() -> None:
    """Hand over to the door of the verb."""
    launched = os.environ.get(_VERB) if "LOCAL_RANK" in os.environ else None
    if launched is None and sys.argv[1:2] in ([], *([word] for word in _HELP)):
        print(usage())
        return
    if launched is None and sys.argv[1] == "--version":
        print(f"musicrec {__version__}")
        return
    verb = launched or sys.argv.pop(1)
    if verb not in VERBS:
        print(
            f"error: there is no musicrec {verb}{nearest(verb, VERBS)}; `musicrec help` lists "
            "what there is",
            file=sys.stderr,
        )
        raise SystemExit(2)
    os.environ[_VERB] = verb
    importlib.import_module(f"musicrec.cli.{VERBS[verb].module}").main()
