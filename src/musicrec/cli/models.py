"""``scripts/models.py VERB``: the registered versions of a model, and which of them is champion.

Ends with status 3 where a promotion was refused, and 2 where something cannot work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from musicrec.cli import candidacy, door, outputs, report
from musicrec.errors import ConfigError, nearest
from musicrec.registry import changes
from musicrec.registry.bundle import load
from musicrec.registry.policy import Policy
from musicrec.registry.versions import (
    Model,
    Version,
    known_model,
    model_names,
    models_folder,
    resolve,
)
from musicrec.registry.whole import whole_file

REFUSED = 3


def list_versions(config: DictConfig, console: Console) -> None:
    """Every version, newest first, with its alias."""
    if config.name is None and not model_names():
        report.say(console, f"no model is registered in {models_folder()} yet")
        return
    names = model_names() if config.name is None else [known_model(str(config.name)).name]
    rows = [row for name in names for row in _rows(Model(name))]
    table = Table(title=str(models_folder()), title_justify="left")
    for title in ("model", "version", "alias", "NDCG@10", "data", "trained", "commit"):
        table.add_column(title, no_wrap=title != "commit")
    for row in rows:
        ndcg = "–" if row["ndcg_10"] is None else f"{row['ndcg_10']:.4f}"
        cells = [row["name"], str(row["version"]), row["alias"] or "", ndcg]
        cells += [f"{row['dataset']} {row['data_fingerprint'][:8]}", row["created_at"][:16]]
        table.add_row(*(Text(cell) for cell in (*cells, row["commit"])))
    console.print(table)
    if config.output is not None:
        outputs.write_json({"models": rows}, Path(config.output))


def _rows(model: Model) -> list[dict[str, Any]]:
    champion, challenger = model.linked("champion"), model.linked("challenger")
    aliases = {challenger: "challenger", champion: "champion"}
    keys = ("dataset", "data_fingerprint", "created_at", "commit", "registered_at", "digest")
    return [
        {
            "name": model.name,
            "version": version.number,
            "alias": aliases.get(version.number),
            "ndcg_10": version.record["metrics"].get("test/ndcg_10"),
            **{key: version.record[key] for key in keys},
        }
        for version in reversed(model.versions())
    ]


def register(config: DictConfig, console: Console) -> None:
    """Take a copy of a bundle as the next version, and make it challenger."""
    if config.bundle is None:
        raise ConfigError("which bundle? say bundle=PATH, such as bundle=model.pt")
    source = resolve(str(config.bundle))
    if config.name is not None:
        name = str(config.name)
    else:
        name = str(load(source).metrics["protocol"]["dataset"])
    model = Model(name)
    version = changes.register(model, source, why=_reason(config, "by hand"))
    role = "champion" if model.linked("champion") == version.number else "challenger"
    report.say(console, f"{version.spelt} is {role}: {version.path}")
    if role == "challenger":
        report.say(console, f"next: python scripts/models.py promote name={name}")


def promote(config: DictConfig, console: Console) -> None:
    """Make the challenger champion, if the policy lets it, or a person with a reason."""
    policy = Policy(**config.policy)
    if config.force and not str(config.reason or "").strip():
        raise ConfigError("force=true needs a reason=, for those who wonder later")
    model = known_model(_name(config))
    version = _version(model, config.version)
    champion = candidacy.champion_to_beat(model)
    if champion is not None and champion.number == version.number:
        report.say(console, f"{version.spelt} is champion already")
        return
    verdict = candidacy.judged(version, champion, policy, console)
    candidacy.say(verdict, console)
    checks = verdict.as_dicts()
    if verdict.is_passed or (config.force and verdict.may_be_forced):
        why = _reason(config, verdict.why)
        is_forced = not verdict.is_passed
        changes.promote(
            model, version, instead_of=champion, why=why, checks=checks, is_forced=is_forced
        )
        before = "" if champion is None else f" instead of version {champion.number}"
        report.say(console, f"{version.spelt} is champion{before}")
        return
    changes.refuse(model, version, why=verdict.why, checks=checks)
    stays = "there is still no champion" if champion is None else f"{champion.spelt} stays"
    report.say(console, f"refused, and {stays}: {verdict.why}")
    raise SystemExit(REFUSED)


def rollback(config: DictConfig, console: Console) -> None:
    """Make the champion before the champion again."""
    model = known_model(_name(config))
    version, left = changes.rollback(model, _reason(config, "by hand"))
    report.say(console, f"{version.spelt} is champion again instead of version {left.number}")


def compare(config: DictConfig, console: Console) -> None:
    """Two versions on the same test targets."""
    model = known_model(_name(config))
    first = _version(model, config.version)
    second = model.aliased("champion") if config.against is None else None
    if config.against is not None:
        second = _version(model, config.against)
    if second is None or second.number == first.number:
        raise ConfigError(
            f"compare version {first.number} with which? say against=NUMBER (and version=NUMBER)"
        )
    compared = candidacy.comparison(first, second, console)
    console.print(compared.table())
    if config.output is not None:
        outputs.write_json(compared.as_dict(), Path(config.output))


def write_card(config: DictConfig, console: Console) -> None:
    """Look at parts of the test targets, and write the card anew."""
    model = known_model(_name(config))
    version = _version(model, config.version)
    text, has_parts = candidacy.card_of(version, console)
    changes.write_card(version, text)
    places = [version.card]
    if config.output is not None:
        places.append(Path(config.output))
        with whole_file(places[-1]) as file:
            file.write(text.encode())
    if not has_parts:
        report.say(console, f"the data of {version.spelt} are gone, so its card has no parts")
    report.say(console, f"written: {', '.join(map(str, places))}")


def _name(config: DictConfig) -> str | None:
    return None if config.name is None else str(config.name)


def _reason(config: DictConfig, otherwise: str) -> str:
    return otherwise if config.reason is None else str(config.reason)


def _version(model: Model, given: object) -> Version:
    """The version of that number; else the challenger, or the champion where there is none."""
    if given is not None:
        if not isinstance(given, int) or isinstance(given, bool):
            raise ConfigError(f"{given!r} is no version; say its number, such as 3")
        return model.version(given)
    version = model.aliased("challenger") or model.aliased("champion")
    if version is None:
        raise ConfigError(f"model {model.name} has neither alias; say version=NUMBER")
    return version


Verb = Callable[[DictConfig, Console], None]

#: What can be done, and the settings it heeds.
VERBS: Mapping[str, tuple[Verb, frozenset[str]]] = {
    "list": (list_versions, frozenset({"name", "output"})),
    "register": (register, frozenset({"bundle", "name", "reason"})),
    "promote": (promote, frozenset({"name", "version", "force", "reason", "policy"})),
    "rollback": (rollback, frozenset({"name", "reason"})),
    "compare": (compare, frozenset({"name", "version", "against", "output"})),
    "card": (write_card, frozenset({"name", "version", "output"})),
}


def models(verb: str | None, config: DictConfig, overrides: Sequence[str]) -> None:
    """Do what ``verb`` says.

    Raises:
        ConfigError: there is no such verb, or a setting that it does not heed was given.
    """
    if verb is None or verb not in VERBS:
        said = "say what to do" if verb is None else f"{verb!r} is nothing to do with models"
        hint = "" if verb is None else nearest(verb, VERBS)
        raise ConfigError(f"{said}{hint}: python scripts/models.py {' | '.join(VERBS)}")
    task, heeded = VERBS[verb]
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.split(".")[0] not in heeded:
            raise ConfigError(f"{verb} does not heed {key}=; it has {', '.join(sorted(heeded))}")
    outputs.check_writable(config.output)
    task(config, Console())


def main() -> None:
    given = sys.argv[1:2]
    verb = given[0] if given and "=" not in given[0] and not given[0].startswith("-") else None
    if verb is not None:
        del sys.argv[1]

    def do(config: DictConfig) -> None:
        models(verb, config, HydraConfig.get().overrides.task)

    door.run("models", do, {})
