"""The flags of the older scripts, as aliases of Hydra overrides. This table is all there is.

``--batch-size 128`` and ``--batch-size=128`` both become ``batch_size=128``; ``--all`` takes no
value. Other settings go to Hydra as they are, but for ids: ``user=007`` and ``user=1e5`` are text,
not numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from musicrec.errors import ConfigError, nearest

#: flag -> the key it sets, or the whole setting where it takes no value
TRAIN: Mapping[str, str] = {
    "--epochs": "trainer.max_epochs",
    "--batch-size": "batch_size",
    "--max-seq-len": "model.max_length",
    "--embedding-dim": "model.dim",
    "--num-heads": "model.heads",
    "--num-layers": "model.blocks",
    "--output": "output",
}
RECOMMEND: Mapping[str, str] = {"--user-id": "user", "--output": "output"}
IMPORT: Mapping[str, str] = {}
FORGET: Mapping[str, str] = {"--user-id": "user", "--yes": "yes=true", "--output": "output"}
SERVE: Mapping[str, str] = {"--host": "host", "--port": "port"}
GENERATE_GRAPH: Mapping[str, str] = {
    "--user-id": "user",
    "--all-users": "all_users=true",
    "--batch-size": "batch_size",
    "--provider": "llm",
    "--dry-run": "dry_run=true",
}
MATERIALIZE: Mapping[str, str] = {"--all": "views=all", "--views": "views", "--as-of": "as_of"}
EXPORT_ONNX: Mapping[str, str] = {"--output": "output"}
TRAIN_RANKER: Mapping[str, str] = {"--output": "output"}
RECOMMEND_ALL: Mapping[str, str] = {"--output": "output"}
UPLOAD: Mapping[str, str] = {}
SHOW_GRAPH: Mapping[str, str] = {"--user-id": "user", "--output": "output"}

#: Keys whose value is an outside id, and the one that holds a list of them.
_IDS = ("user", "listener", "data.user")
_ID_LIST = "history"

#: Hydra's own flags; the second column tells whether a value follows.
_HYDRA: Mapping[str, bool] = {
    "--help": False,
    "-h": False,
    "--hydra-help": False,
    "--version": False,
    "--cfg": True,
    "-c": True,
    "--resolve": False,
    "--package": True,
    "-p": True,
    "--run": False,
    "-r": False,
    "--multirun": False,
    "-m": False,
    "--config-path": True,
    "-cp": True,
    "--config-name": True,
    "-cn": True,
    "--config-dir": True,
    "-cd": True,
    "--experimental-rerun": True,
    "--info": False,
    "-i": False,
    "--shell-completion": False,
    "-sc": False,
}


def translate(arguments: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """``arguments`` with every alias replaced by its override, and ids kept as text.

    Raises:
        ConfigError: an unknown flag, or an alias without its value.
    """
    hydras: list[str] = []  # first, where argparse takes them wherever they stood
    translated: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, has_value, value = argument.partition("=")
        if flag in aliases and "=" in aliases[flag]:
            if has_value:
                raise ConfigError(f"{flag} takes no value, such as {value!r}")
            translated.append(aliases[flag])
        elif flag in aliases:
            translated.append(_setting(aliases[flag], value if has_value else _value(flag, rest)))
        elif flag in _HYDRA:
            hydras.append(argument)
            if _HYDRA[flag] and not has_value:
                hydras.append(_value(flag, rest))
        elif argument.startswith("-"):
            raise ConfigError(
                f"unknown flag {flag}{nearest(flag, [*aliases, *_HYDRA])}; "
                "settings are given as key=value"
            )
        else:
            translated.append(_ids_as_text(argument))
    return hydras + translated


def _value(flag: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise ConfigError(f"{flag} needs a value")
    return value


def _setting(key: str, value: str) -> str:
    plain = key not in _IDS and re.fullmatch(r"[A-Za-z0-9._/:-]+", value)
    return f"{key}={value if plain else quoted(value)}"


def _ids_as_text(argument: str) -> str:
    """Quote the ids of ``user=…`` or ``history=[…]`` unless the person did, or gave null."""
    key, _, value = argument.partition("=")
    if "'" in value or '"' in value or value in ("", "null"):
        return argument
    if key in _IDS or (key == _ID_LIST and not value.startswith("[")):
        return f"{key}={quoted(value)}"
    if key == _ID_LIST and value.startswith("[") and value.endswith("]"):
        ids = (part.strip() for part in value[1:-1].split(","))
        return f"{key}=[{','.join(quoted(part) for part in ids if part)}]"
    return argument


def quoted(value: str) -> str:
    """A text as Hydra's grammar writes it: in quotes, and with them escaped."""
    # A backslash only escapes before a quote or at the end; elsewhere it stands for itself.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    # ${…} would be looked up as another setting.
    return "'" + escaped.replace("${", "\\${") + "'"
