"""A version's card: what a person should know of a model before using it, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from musicrec.metrics.significance import Interval
from musicrec.metrics.slices import Slice
from musicrec.registry.bundle import Bundle
from musicrec.registry.versions import Version

#: metrics.json's name for who is judged -> how it is called here
_JUDGED = {
    "": "this model",
    "popularity/": "popularity",
    "personal_top/": "personal top",
    "markov/": "Markov",
    "oracle/": "oracle (the truth)",
}
_METRICS = {"ndcg_10": "NDCG@10", "hit_rate_10": "HR@10", "hit_rate_20": "HR@20", "mrr": "MRR"}


def card(version: Version, bundle: Bundle, slices: Sequence[Slice] = ()) -> str:
    """The card of a version.

    Args:
        slices: what it reaches on parts of its test targets, where its data are at hand.
    """
    parts = [
        _head(version, bundle),
        _use(bundle),
        _data(bundle),
        _metrics(bundle),
        _slices(version, slices),
        _settings(bundle),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def _head(version: Version, bundle: Bundle) -> Iterator[str]:
    parameters = sum(weight.numel() for weight in bundle.model.parameters())
    yield f"# {version.name}, version {version.number}"
    yield ""
    yield (
        f"SASRec, {parameters:,} parameters, for {len(bundle.catalogue):,} tracks. "
        f"Trained {bundle.created_at} by commit `{bundle.commit}`; registered "
        f"{version.record['registered_at']} by {version.record['registered_by']} from "
        f"`{version.record['source']}`. Digest of the file: `{version.record['digest']}`."
    )


def _use(bundle: Bundle) -> Iterator[str]:
    protocol = bundle.metrics["protocol"]
    yield "## Intended use, and its limits"
    yield ""
    yield (
        "It ranks the tracks of its catalogue by how likely a listener plays each next, given what "
        "they played before, oldest first. It is meant for lists of recommendations, and for "
        "candidates that something else ranks again."
    )
    yield ""
    yield f"- It reads the newest {bundle.model.max_length} plays of a listener and no more."
    yield (
        "- It knows no track that was not in its data. New tracks need a new training; "
        f"{protocol['cold_items']:,} of its {protocol['users']:,} test targets were such tracks, "
        f"and {protocol['cold_listeners']:,} were of listeners it was not trained on."
    )
    if bundle.seen == "keep":
        yield "- It may recommend what the listener has heard, as it was judged that way."
    else:
        yield "- It was judged on tracks new to the listener; heard ones are not to be recommended."
    yield (
        "- It learned from what was played, so it repeats what made people play it: popular tracks "
        "come up more than others. Scores order one answer; they are no probabilities to compare "
        "between listeners."
    )
    yield "- It says nothing of a person but what they may play; it is not meant to judge people."
    if protocol["refit"]:
        yield "- After it was judged it was trained again on everything, its test targets included."


def _data(bundle: Bundle) -> Iterator[str]:
    protocol = bundle.metrics["protocol"]
    yield "## Data and protocol"
    yield ""
    yield from _table(["", ""], [[_words(key), _cell(value)] for key, value in protocol.items()])


def _metrics(bundle: Bundle) -> Iterator[str]:
    metrics = bundle.metrics
    yield "## Metrics"
    yield ""
    yield "On the test targets, the full catalogue ranked; as the training wrote them down."
    yield ""
    rows = []
    for key, name in _JUDGED.items():
        if f"test/{key}ndcg_10" in metrics:
            rows.append([name, *(_reached(metrics, f"test/{key}{m}") for m in _METRICS)])
    rows.append(["this model, validation", *(_reached(metrics, f"val/{m}") for m in _METRICS)])
    yield from _table(["", *_METRICS.values()], rows)
    yield ""
    for key, what in (
        ("test/ndcg_10", "NDCG@10"),
        ("test/lead_ndcg_10", "NDCG@10 above the best baseline, target by target"),
    ):
        if f"{key}_low" in metrics:
            interval = Interval(metrics[key], metrics[f"{key}_low"], metrics[f"{key}_high"])
            yield f"- {what}: {_interval(interval)}"


def _slices(version: Version, slices: Sequence[Slice]) -> Iterator[str]:
    yield "## Parts of the test targets"
    yield ""
    if not slices:
        yield (
            "Not looked at yet; they need the data it was trained on: "
            f"`python scripts/models.py card name={version.name} version={version.number}`"
        )
        return
    yield "With 95 % intervals; a part of few targets says little."
    yield ""
    rows = [
        [each.group, each.name, f"{each.num_targets:,}", *map(_interval, each[3:])]
        for each in slices
    ]
    yield from _table(["by", "", "targets", "NDCG@10", "HR@10"], rows)


def _settings(bundle: Bundle) -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield from _table(["", ""], [[f"`{k}`", _cell(v)] for k, v in _flat(bundle.config)])


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + str(key), value


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _reached(metrics: Mapping[str, Any], key: str) -> str:
    return f"{metrics[key]:.4f}" if key in metrics else "–"


def _words(key: str) -> str:
    return key.replace("_", " ")


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f} .. {interval.high:.4f}]"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
