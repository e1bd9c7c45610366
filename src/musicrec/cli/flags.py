"""The flags of the older scripts, as aliases of Hydra overrides. This table is all there is.

``--batch-size 128`` and ``--batch-size=128`` both become ``batch_size=128``; whatever is not in
the table goes to Hydra untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from musicrec.errors import ConfigError, nearest

#: flag -> the key it sets
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
    """``arguments`` with every alias replaced by its override.

    Raises:
        ConfigError: an unknown flag, or an alias without its value.
    """
    translated: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, has_value, value = argument.partition("=")
        if flag in aliases:
            translated.append(
                f"{aliases[flag]}={quoted(value if has_value else _value(flag, rest))}"
            )
        elif not argument.startswith("-") or flag in _HYDRA:
            translated.append(argument)
            if _HYDRA.get(argument):
                translated.append(_value(flag, rest))
        else:
            known = [*aliases, *_HYDRA]
            raise ConfigError(
                f"unknown flag {flag}{nearest(flag, known)}; settings are given as key=value"
            )
    return translated


def _value(flag: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise ConfigError(f"{flag} needs a value")
    return value


def quoted(value: str) -> str:
    """A value that Hydra's grammar reads back as this very text, or as its number."""
    if value and all(c.isalnum() or c in "._/:-" for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
