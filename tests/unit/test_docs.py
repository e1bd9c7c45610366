"""What the pages say is true: links, commands, settings, keys and figures that code can check."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from hydra.utils import instantiate

from musicrec.cli import feature_store, flags, models, outputs, schedule
from musicrec.cli.compose import check_sweep, compose, config_folder
from musicrec.cli.doctor import command as doctor
from musicrec.graph import schema
from musicrec.interactions.split import leave_one_out
from musicrec.metrics.ranking import RankingMetrics
from musicrec.serving.asking import Rung, Source
from musicrec.serving.measures import Measures
from musicrec.training.datamodule import ListeningDataModule
from musicrec.training.evaluation import Judgement
from musicrec.training.judgement import comparison
from snapshots import cycles, snapshot_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: script or make target -> the config it composes, and its older flags
DOORS = {
    "train_transformer": ("train", flags.TRAIN),
    "import_interactions": ("import", flags.IMPORT),
    "recommend": ("recommend", flags.RECOMMEND),
    "forget_user": ("forget_user", flags.FORGET),
    "generate_interest_graph": ("generate_graph", flags.GENERATE_GRAPH),
    "show_interest_graph": ("show_graph", flags.SHOW_GRAPH),
    "upload_run": ("upload_run", flags.UPLOAD),
    "retrain": ("retrain", flags.TRAIN),
    "models": ("models", {}),
    "graph": ("generate_graph", flags.GENERATE_GRAPH),
    "materialize_features": ("materialize", flags.MATERIALIZE),
    "serve": ("serve", flags.SERVE),
    "train_ranker": ("train_ranker", flags.TRAIN_RANKER),
    "ranker": ("train_ranker", flags.TRAIN_RANKER),
    "recommend_all": ("recommend_all", flags.RECOMMEND_ALL),
    "recommend-all": ("recommend_all", flags.RECOMMEND_ALL),
    "export_onnx": ("export_onnx", flags.EXPORT_ONNX),
    "onnx": ("export_onnx", flags.EXPORT_ONNX),
    "train": ("train", flags.TRAIN),
    "sweep": ("train", flags.TRAIN),
    "import": ("import", flags.IMPORT),
    "materialize": ("materialize", flags.MATERIALIZE),
}
#: Ways to the schedule, and whether they say its verb themselves.
SCHEDULE = {"schedule": False, "cron-install": True, "cron-remove": True}
#: Targets of the Makefile that pass ARGS to something else than Hydra.
OTHER_TARGETS = {"tensorboard", "check", "test"}

#: The lines of the plan that must keep working, word for word; a|b are alternatives, … is anything.
PROMISED = """
make train
make test
python scripts/import_interactions.py data=table dataset=mine data.path=plays.csv.gz data.columns.user=user_id data.columns.item=song_id data.columns.time=ts data.time=unix_s|unix_ms|iso|order
python scripts/import_interactions.py data=sequences dataset=beauty data.path=Beauty.txt.gz
python scripts/import_interactions.py data=pairs dataset=ml1m data.path=ml-1m.txt.gz
python scripts/import_interactions.py data=lastfm1k|listenbrainz|spotify|movielens dataset=… data.path=…
python scripts/train_transformer.py data=postgres dataset=mine split=leave_one_out|temporal seen=keep|drop model=base hydra.run.dir=/some/run
python scripts/train_transformer.py --epochs 10 --batch-size 128 --max-seq-len 50 --output model.pt
python scripts/recommend.py bundle=model.pt dataset=mine user=42 k=10
python scripts/materialize_features.py --all dataset=mine
python scripts/materialize_features.py --all dataset=mine as_of=…
python scripts/materialize_features.py --views … dataset=mine
python scripts/serve.py dataset=mine
python scripts/serve.py bundle=model.pt dataset=mine port=8000
python scripts/train_ranker.py bundle=model.pt
python scripts/recommend_all.py bundle=model.pt dataset=mine output=mine.parquet
python scripts/export_onnx.py bundle=model.pt output=model.onnx
python scripts/feature_store.py dataset=mine apply
python scripts/generate_interest_graph.py --user-id … --provider anthropic dataset=mine
python scripts/generate_interest_graph.py --all-users --batch-size 100 --provider openai dataset=mine
python scripts/show_interest_graph.py user=… dataset=mine
python scripts/forget_user.py dataset=mine user=…
""".strip().splitlines()  # noqa: E501


def code_lines(page: Path) -> Iterator[str]:
    """Every line of code on a page: of fenced blocks, and between back-ticks."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    text = page.read_text()
    for language, block in fenced.findall(text):
        if language == "bash":
            yield from block.splitlines()
    for span in re.findall(r"`([^`]+)`", fenced.sub("", text)):
        yield " ".join(span.split())


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """``(line, words)`` of each command of ours; those with … are templates and left out."""
    for line in code_lines(page):
        start = re.search(r"(python scripts/|\bmake [a-zA-Z])", line)
        if start and not line[: start.start()].strip() and "…" not in line:
            yield line, shlex.split(line, comments=True)


DOCUMENTED = [
    pytest.param(words, id=f"{page.stem}: {line[:60]}")
    for page in PAGES
    for line, words in dict(commands(page)).items()
]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def targets_of(words: list[str]) -> list[str]:
    return [word for word in words[1:] if "=" not in word]


def check_settings(words: list[str]) -> None:
    """Compose what a command line says, as the door would."""
    if words[0] == "make":
        (door,) = targets_of(words)
        arguments = [a for w in words if w.startswith("ARGS=") for a in shlex.split(w[5:])]
    else:
        door, arguments = Path(words[1]).stem, words[2:]
    if door in OTHER_TARGETS or (words[0] == "make" and not arguments):
        return
    if door == "feature_store":  # Feast's command is what follows the settings
        feature_store._split(arguments)
        return
    if door == "doctor":
        doctor._asked(arguments)
        return
    if door in SCHEDULE:
        rest = arguments if SCHEDULE[door] else arguments[2 if arguments[0] == "run" else 1 :]
        _, others = schedule._split(rest)
        if arguments[:1] == ["run"]:
            assert arguments[1] in schedule.JOBS
        else:
            schedule._by_job(others)
        return
    if door == "models":  # a verb comes first, and heeds some of the settings
        verb, *arguments = arguments
        _, heeded = models.VERBS[verb]
        assert {re.split(r"[.=]", setting)[0] for setting in arguments} <= heeded
    name, aliases = DOORS[door]
    settings = flags.translate(arguments, aliases)
    if door == "sweep" or "-m" in settings:
        check_sweep(name, [s for s in settings if not s.startswith("-")])
    elif "--cfg" in settings:
        compose(name, [s for s in settings if "=" in s])
    else:
        compose(name, settings)


def slug(heading: str) -> str:
    """The anchor GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page):
    rooms = r"(?:src|configs|docs|scripts|tests|benchmarks)/[\w./-]+\.(?:py|yaml|md|ipynb)"
    for path in re.findall(rf"`({rooms})`", page.read_text()):
        if not re.search("FORMAT|NAME|000N", path):
            assert (ROOT / path).is_file(), f"{page.name} names {path}"


@pytest.mark.parametrize("words", DOCUMENTED)
def test_every_documented_command_composes(words):
    if words[0] == "make":
        assert set(targets_of(words)) <= make_targets()
    check_settings(words)


def test_the_pages_do_hold_commands():
    scripts = {words[1] for (words,) in (p.values for p in DOCUMENTED) if words[0] == "python"}
    assert scripts == {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}


def alternatives(line: str) -> list[str]:
    """Each line that a line with a|b stands for."""
    words = [
        [f"{key}{sign}{value}" for value in values.split("|")]
        for key, sign, values in (word.partition("=") for word in line.split())
    ]
    return [" ".join(chosen) for chosen in itertools.product(*words)]


@pytest.mark.parametrize("line", PROMISED)
def test_a_promised_line_stands_in_the_pages_and_composes(line):
    said = {code.split(" #")[0].rstrip() for page in PAGES for code in code_lines(page)}
    for one in alternatives(line):
        check_settings(one.replace("…", "anything").split())
    patterns = (re.escape(one).replace("…", r"\S+") for one in alternatives(line))
    assert any(re.fullmatch(pattern, code) for pattern in patterns for code in said), line


def test_every_python_example_imports_what_there_is():
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), page.name


TRAINING = (ROOT / "docs" / "training.md").read_text()


def test_every_setting_of_a_training_is_explained():
    config = compose("train")
    chosen = {*config} - {"experiment", "debug", "hparams_search"}
    optimizer = {f"optimizer.{key}" for key in config.optimizer}
    for key in (chosen | optimizer) - {"optimizer"}:
        assert f"`{key}`" in TRAINING, key


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("materialize", "features"),
        ("serve", "serving"),
        ("train_ranker", "ranking"),
        ("recommend_all", "export"),
        ("export_onnx", "export"),
    ],
)
def test_every_setting_is_explained(name, page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for key in compose(name):
        assert re.search(rf"^\| `{key}` \|", text, flags=re.MULTILINE), key


def test_every_figure_of_prometheus_is_explained():
    page = (ROOT / "docs" / "serving.md").read_text()
    for name in re.findall(r"^# TYPE (\w+)", Measures().exposition().decode(), re.MULTILINE):
        assert f"`{name}{{" in page, name


@pytest.mark.parametrize("word", [*get_args(Rung), *get_args(Source)])
def test_every_word_of_an_answer_is_explained(word):
    assert f"`{word}`" in (ROOT / "docs" / "serving.md").read_text()


def test_every_option_of_a_group_is_listed():
    for folder in (path for path in config_folder().iterdir() if path.is_dir()):
        (row,) = re.findall(rf"^\| `{folder.name}` \|.+$", TRAINING, flags=re.MULTILINE)
        for option in folder.glob("*.yaml"):
            assert f"`{option.stem}`" in row or folder.name == "experiment", option


@pytest.mark.parametrize("size", [path.stem for path in (config_folder() / "model").glob("*.yaml")])
def test_the_table_of_sizes_is_true(size):
    config = compose("train", [f"model={size}"]).model
    with torch.device("meta"):
        model = instantiate(config, catalogue_size=1)
    parameters = sum(p.numel() for p in model.parameters()) - model.item_embedding.weight.numel()
    sizes = (config.dim, config.heads, config.blocks, config.max_length, f"{parameters:,}")
    (row,) = re.findall(rf"^\| `{size}`.*?\|(.+)\|$", TRAINING, flags=re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")] == [str(value) for value in sizes]


def leaves(config, above=""):
    """Dotted keys of a config's values."""
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key


@pytest.mark.parametrize("provider", ["local", "anthropic", "openai"])
def test_every_setting_of_interest_graphs_is_explained(provider):
    page = (ROOT / "docs" / "interest-graph.md").read_text()
    cells = re.findall(r"^\| (`[\w.`, ]+`) \|", page, flags=re.MULTILINE)
    explained = {key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)}
    asked = {*leaves(compose("generate_graph", [f"llm={provider}"]))} - {"llm.provider"}
    assert asked | {*leaves(compose("show_graph"))} <= explained


def test_every_word_of_the_closed_sets_has_its_meaning():
    page = (ROOT / "docs" / "interest-graph.md").read_text()
    for word in (*schema.MOODS, *schema.CONTEXTS, *schema.THEMES):
        assert re.search(rf"^\| `{word}` \| \S", page, flags=re.MULTILINE), word


def test_every_older_flag_is_listed_with_what_it_sets():
    for aliases in {id(aliases): aliases for _, aliases in DOORS.values()}.values():
        for flag, key in aliases.items():
            assert re.search(rf"^\| `{flag}` \| `{key}`", TRAINING, flags=re.MULTILINE), flag


def test_every_key_of_metrics_json_is_explained(tmp_path):
    page = (ROOT / "docs" / "evaluation.md").read_text()
    metrics = RankingMetrics(catalogue_size=12)
    metrics.update(torch.rand(2, 13), torch.tensor([1, 2]), torch.tensor([True, False]))
    judged = Judgement(metrics.compute(), torch.cat(metrics.ranks))
    others = dict.fromkeys(("popularity", "personal_top", "markov"), judged)
    others["oracle"] = Judgement(judged.values | {"ndcg_10": 1.0}, judged.ranks)
    for key in judged.values:
        name = re.sub(r"(ndcg|hit_rate)_\d+", r"\1_K", key.split("/")[-1])
        assert f"`test/WHO{name}`" in page, key
    for key in comparison(judged, others):
        assert f"`test/{key}`" in page, key
    for key in protocol_of_a_run(tmp_path):
        assert f"`{key}`" in page, key


def protocol_of_a_run(folder: Path) -> dict[str, object]:
    data = ListeningDataModule(
        stream=lambda: snapshot_of(cycles(3, 6, 9), folder / "snapshot"),
        split=leave_one_out,
        max_length=4,
        batch_size=2,
        dim=8,
        seed=1,
    )
    data.setup()
    return outputs.protocol(compose("train"), data)


def test_the_rooms_are_drawn_as_the_build_checks_them():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    drawn = "\n".join(layer.replace("musicrec.", "") for layer in layers)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert drawn == "\n".join(
        line.split("  ")[0] for line in page.split("```")[3].strip().splitlines()
    )


def test_the_readme_has_no_blank_left():
    assert "TBD" not in (ROOT / "README.md").read_text()
