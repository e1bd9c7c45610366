"""Configs composed and checked before anything runs; notebooks use ``compose`` too."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from musicrec.errors import ConfigError, nearest


def config_folder() -> Path:
    """``configs/``: inside the package when installed from a wheel, else at the top level."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parents[1] / "configs"


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config ``name`` with overrides, exactly as the command of that name would see it.

    ``compose("train", ["model=small", "data=synthetic"])``

    Raises:
        ConfigError: one line that names the misspelt key, option or value and the nearest known.
    """
    parsed = _parse(overrides)
    for override in parsed:
        _check_option(override)
    groups = [line for o, line in zip(parsed, overrides, strict=True) if _is_group(o)]
    chosen = _compose(name, *groups)
    for override in parsed:
        _check_key(name, override, chosen)
    config = _compose(name, *overrides)
    _check_types(chosen, config, parsed)
    return copy.deepcopy(config)


def check_sweep(name: str, overrides: Sequence[str]) -> None:
    """Check a multirun's overrides: every value of every sweep, one at a time.

    Raises:
        ConfigError: as ``compose``.
    """
    parsed = _parse(overrides)
    sweeps = {o.input_line: list(_values(o)) for o in parsed if o.is_sweep_override()}
    first = {line: values[0] for line, values in sweeps.items() if values}
    plain = [first.get(line, line) for line in overrides if line in first or line not in sweeps]
    compose(name, plain)
    for line, values in sweeps.items():
        for value in values[1:]:
            compose(name, [value if one == first[line] else one for one in plain])


def _values(override: Override) -> Iterator[str]:
    """``key=value`` for each value of a choice or range sweep; a glob is left to Hydra."""
    if override.is_choice_sweep() or override.is_range_sweep():
        for value in override.sweep_string_iterator():
            yield f"{override.get_key_element()}={value}"


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot read a setting: {reason} (write key=value; quote values with spaces or "
            "commas as \"key='a, b'\")"
        ) from error


@cache
def _compose(name: str, *overrides: str) -> DictConfig:
    """Shared by all who ask for the same: not to be changed."""
    # A notebook or a running hydra.main may hold the global state; it must be as before after.
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra.compose(name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error
    finally:
        GlobalHydra.instance().hydra = state


def _one_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _groups() -> dict[str, list[str]]:
    """Config groups and their options."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in config_folder().iterdir()
        if folder.is_dir()
    }


def _is_group(override: Override) -> bool:
    return override.key_or_group in _groups()


def _check_option(override: Override) -> None:
    """A group's option that does not exist, said with the nearest one."""
    group, value = str(override.key_or_group), override.value()
    options = _groups().get(group)
    if options and isinstance(value, str) and value not in options:
        raise ConfigError(
            f"{group}={value}: there is no such {group}{nearest(value, options)}; "
            f"known: {', '.join(options)}"
        )


def _check_key(name: str, override: Override, chosen: DictConfig) -> None:
    """An unknown setting, said with the nearest known one or the options that have it."""
    key = str(override.key_or_group)
    added = override.is_add() or override.is_force_add()
    if added or key.startswith("hydra") or _is_group(override) or _exists(chosen, key):
        return
    group = key.split(".", 1)[0]
    having = [
        option
        for option in _groups().get(group, [])
        if _exists(_compose(name, f"{group}={option}"), key)
    ]
    if having:
        raise ConfigError(f"{key} is a setting of {group}={' | '.join(having)} only; add that")
    raise ConfigError(
        f"unknown setting {key!r}{nearest(key, [*_keys(chosen), *_groups()])}; "
        f"see all with --cfg job, or configs/{name}.yaml"
    )


def _exists(config: DictConfig, key: str) -> bool:
    """Whether the key stands in the config, its value null or missing included."""
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        if not OmegaConf.is_dict(node) or parent not in node.keys():  # noqa: SIM118
            return False
        node = node._get_node(parent)
    return OmegaConf.is_dict(node) and last in node.keys()  # noqa: SIM118


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        path = f"{prefix}{key!s}"
        yield path
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, f"{path}.")


def _check_types(chosen: DictConfig, config: DictConfig, overrides: Sequence[Override]) -> None:
    """A whole number must stay one, a number a number, a switch a switch; null is the key's say."""
    for override in overrides:
        key = str(override.key_or_group)
        if key.startswith("hydra") or _is_group(override) or not _exists(chosen, key):
            continue
        before, after = OmegaConf.select(chosen, key), OmegaConf.select(config, key)
        if before is None or after is None:
            continue
        kind, given = _kind(before), _kind(after)
        if kind and kind != given and (kind, given) != ("number", "whole number"):
            raise ConfigError(f"{key}={after!r} must be a {kind}, such as {before!r}")


def _kind(value: object) -> str | None:
    """What a number or switch is; None for text, lists and groups, which nothing here judges."""
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int):
        return "whole number"
    return "number" if isinstance(value, float) else None
