"""Growing the ranker: LambdaRank over the candidates of many questions.

Each question is a group with one relevant row, its target; a question whose target is no candidate
teaches nothing and is left out. Trees start from SASRec's score (``base`` times it) and learn what
to add.

To judge it on the very questions it learns from, *cross-fitting*: listeners fall into folds, and
each fold is scored by trees that were grown without it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import ConfigError, DataError
from musicrec.registry.bundle import TrainedRanker
from musicrec.serving.ranker import Ranker
from musicrec.serving.ranking import COLUMNS
from musicrec.serving.replay import Question, stacked

if TYPE_CHECKING:
    import lightgbm

Scores = NDArray[np.float64]

_SCORE = COLUMNS.index("sasrec__score")

#: Questions that teach something: fewer are too few for any trees.
LEAST_QUESTIONS = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """How trees are grown.

    Args:
        rounds: trees.
        learning_rate: of each.
        leaves: of each, at most.
        least_rows: candidates in a leaf, at least.
        l2: how much a leaf's value is drawn to nothing.
        columns_share: of the features each tree may look at.
        truncation: pairs count where one of them is among so many of the best.
        base: what SASRec's score is multiplied with, where the trees begin.
        folds: of cross-fitting.
        seed: of folds, and of the columns that trees look at.

    Raises:
        ConfigError: a number is out of its range.
    """

    rounds: int
    learning_rate: float
    leaves: int
    least_rows: int
    l2: float
    columns_share: float
    truncation: int
    base: float
    folds: int
    seed: int

    def __post_init__(self) -> None:
        least = {"rounds": 1, "leaves": 2, "least_rows": 1, "truncation": 1, "folds": 2, "seed": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {minimum}")
        for name in ("learning_rate", "columns_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not above 0 and at most 1")
        for name in ("l2", "base"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")


def require_lightgbm() -> None:
    """Say clearly where it is not installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("lightgbm") is None:
        raise ConfigError("LightGBM is not installed here; install musicrec[serve]")


def fit(questions: Sequence[Question], recipe: Recipe) -> lightgbm.Booster:
    """Trees grown from all questions.

    Raises:
        DataError: the target of too few is a candidate.
    """
    import lightgbm

    telling = [question for question in questions if question.place >= 0]
    if len(telling) < LEAST_QUESTIONS:
        raise DataError(
            f"in {len(telling):,} of {len(questions):,} questions is the target a candidate, and a "
            f"ranker needs {LEAST_QUESTIONS}; import more listens, or raise candidates= and "
            "targets="
        )
    features, sizes = stacked(telling)
    relevant = np.zeros(len(features), np.int8)
    places = np.array([question.place for question in telling])
    relevant[np.cumsum(sizes) - sizes + places] = 1
    data = lightgbm.Dataset(
        features,
        relevant,
        group=sizes,
        init_score=recipe.base * features[:, _SCORE].astype(np.float64),
        feature_name=list(COLUMNS),
        free_raw_data=True,
    )
    parameters = {
        "objective": "lambdarank",
        "learning_rate": recipe.learning_rate,
        "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.least_rows,
        "lambda_l2": recipe.l2,
        "feature_fraction": recipe.columns_share,
        "lambdarank_truncation_level": recipe.truncation,
        "seed": recipe.seed,
        "deterministic": True,
        "force_row_wise": True,  # else LightGBM times both, and which wins is chance
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, num_boost_round=recipe.rounds)


def trained_ranker(
    booster: lightgbm.Booster,
    recipe: Recipe,
    plays: NDArray[np.int64],
    metrics: dict[str, object],
    *,
    is_active: bool,
) -> TrainedRanker:
    """What travels in the bundle.

    Args:
        plays: ``(catalogue_size,)`` of each item within what the model was trained on.
    """
    text = booster.model_to_string()
    return TrainedRanker(text, COLUMNS, recipe.base, plays, metrics, is_active)


def scores_of(
    booster: lightgbm.Booster, recipe: Recipe, questions: Sequence[Question]
) -> list[Scores]:
    """What the trees say of each question's candidates, as the service would hear it."""
    ranker = Ranker(booster, recipe.base, np.empty(0, np.float32))
    return [ranker.scores(question.features) for question in questions]


def cross_fitted(
    questions: Sequence[Question],
    recipe: Recipe,
    on_fold: Callable[[int], None] = lambda fold: None,
) -> list[Scores]:
    """Each question's scores by trees that have seen nothing of its listener.

    Args:
        on_fold: told how many folds are done.

    Raises:
        DataError: a fold leaves too few questions to learn from.
    """
    fold_of = folds([question.target.user_id for question in questions], recipe)
    found: list[Scores | None] = [None] * len(questions)
    for fold in range(recipe.folds):
        rest = [q for q, of in zip(questions, fold_of, strict=True) if of != fold]
        rows = np.flatnonzero(fold_of == fold).tolist()
        if rows:
            booster = fit(rest, recipe)
            scores = scores_of(booster, recipe, [questions[row] for row in rows])
            for row, values in zip(rows, scores, strict=True):
                found[row] = values
        on_fold(fold + 1)
    return [values for values in found if values is not None]


def folds(user_ids: Sequence[str], recipe: Recipe) -> NDArray[np.int64]:
    """``(questions,)`` the fold of each; a listener's are all in the same one."""
    listeners = sorted(set(user_ids))
    drawn = np.random.default_rng(recipe.seed).permutation(len(listeners)) % recipe.folds
    fold_of = dict(zip(listeners, drawn.tolist(), strict=True))
    return np.array([fold_of[user_id] for user_id in user_ids], np.int64)


def gains(booster: lightgbm.Booster) -> dict[str, float]:
    """Share of the trees' gain by group of features, the greatest first."""
    found: dict[str, float] = {}
    for column, gain in zip(COLUMNS, booster.feature_importance("gain").tolist(), strict=True):
        group = column.partition("__")[0]
        found[group] = found.get(group, 0.0) + gain
    total = sum(found.values()) or 1.0
    return {group: found[group] / total for group in sorted(found, key=lambda g: -found[g])}
