"""What musicrec needs of Feast: its store, and what its registry says.

``feature_repo/`` is Feast's own folder, and everything in it is built from ``views`` and
``context``. Each view there carries a tag, ``DEFINITION``, by which registry and code are told
apart: a registry of other definitions is refused, never read by names that happen to match.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import string
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from musicrec.database.engine import Dataset
from musicrec.database.home import home
from musicrec.database.locks import exclusive
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError, nearest
from musicrec.features import context
from musicrec.features.environment import environment, folder
from musicrec.features.views import BY_NAME

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_contents import RepoContents

#: The feature service that recommends: all six views.
SERVICE = "recommendation"

#: The tag of every view in the registry.
DEFINITION = "definition"


def definition(view: str) -> str:
    """A fingerprint of what the code takes a view for."""
    whole = (
        (context.REQUEST, context.STORED_INPUTS, context.FEATURES)
        if view == context.NAME
        else BY_NAME[view]
    )
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def require_feast() -> None:
    """Say clearly where Feast is not installed.

    Raises:
        FeatureError: it is not.
    """
    if importlib.util.find_spec("feast") is None:
        raise FeatureError("Feast is not installed here; install musicrec[features]")


def open_store(dataset: Dataset, redis: RedisAddress) -> FeatureStore:
    """Feast's own store of the dataset. Importing Feast takes seconds.

    Raises:
        FeatureError: Feast is not installed.
        DatabaseError: Postgres cannot be reached.
    """
    require_feast()
    import yaml
    from feast import FeatureStore, RepoConfig

    text = (folder() / "feature_store.yaml").read_text()
    values = environment(dataset, redis)
    config = RepoConfig(**yaml.safe_load(string.Template(text).substitute(values)))
    config.repo_path = folder()
    return FeatureStore(config=config)


def apply(store: FeatureStore) -> bool:
    """Bring the registry to what ``feature_repo/`` says; as ``feast apply``, without its waits.

    Returns:
        Whether anything had to change.
    """
    from feast.diff.property_diff import TransitionType
    from feast.repo_operations import extract_objects_for_apply_delete

    with _writing(store), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature")
        repo = _contents(store)
        diffs = store.plan(repo)[0].feast_object_diffs
        if all(diff.transition_type == TransitionType.UNCHANGED for diff in diffs):
            return False
        changed, gone, _, _ = extract_objects_for_apply_delete(store.project, store.registry, repo)
        store.apply(changed, objects_to_delete=gone, partial=False)
    return True


def check_current(store: FeatureStore) -> None:
    """Refuse a registry that holds other views than the code.

    Raises:
        FeatureError: it is missing, or one of the views is not in it or of another definition.
    """
    for view in (*BY_NAME, context.NAME):
        _check_view(store, view)


def service_columns(store: FeatureStore, service: str = SERVICE) -> dict[str, tuple[str, ...]]:
    """The features that a feature service asks for, by view, in its order.

    Raises:
        FeatureError: the registry is missing or of other definitions than the code, or there is
            no such service, or it asks for a view that the code does not know.
    """
    registry = _registry(store)
    known = {each.name: each for each in registry.list_feature_services(store.project)}
    if service not in known:
        raise FeatureError(
            f"no feature service {service!r} in the registry {store.config.registry.path} (there "
            f"are: {', '.join(sorted(known)) or 'none'}){nearest(service, known)}; add it to "
            f"feature_repo/services.py, and run {_apply_command(store)}"
        )
    columns = {
        projection.name: tuple(feature.name for feature in projection.features)
        for projection in known[service].feature_view_projections
    }
    for view in columns:
        if view not in BY_NAME and view != context.NAME:
            raise FeatureError(
                f"the feature service {service!r} asks for the view {view!r}, which is unknown to "
                f"musicrec{nearest(view, [*BY_NAME, context.NAME])}; correct "
                f"feature_repo/services.py, and run {_apply_command(store)}"
            )
        _check_view(store, view)
    return columns


def watermark(store: FeatureStore, view: str) -> datetime | None:
    """Up to when a view is in Redis, as the registry has it; None before the first time.

    Raises:
        FeatureError: the registry is missing, or has no such view.
    """
    _check_view(store, view)
    return store.registry.get_feature_view(view, store.project).most_recent_end_time


def record_materialized(store: FeatureStore, view: str, start: datetime, end: datetime) -> None:
    """Note in the registry that Redis holds a view's rows of ``[start, end]``.

    From then on Feast's SDK serves the view.

    Raises:
        FeatureError: the registry is missing, or has no such view.
    """
    _check_view(store, view)
    with _writing(store):
        store.registry.apply_materialization(
            store.registry.get_feature_view(view, store.project), store.project, start, end
        )


def _check_view(store: FeatureStore, view: str) -> None:
    from feast.errors import FeatureViewNotFoundException

    try:
        found = _registry(store).get_any_feature_view(view, store.project).tags.get(DEFINITION)
    except FeatureViewNotFoundException:
        found = None
    if found != definition(view):
        what = "of another definition than this code's" if found else "missing"
        raise FeatureError(
            f"the view {view!r} is {what} in the registry {store.config.registry.path}; run "
            f"{_apply_command(store)}, then materialize"
        )


def _registry(store: FeatureStore) -> BaseRegistry:
    from feast.errors import ProjectObjectNotFoundException

    place = str(store.config.registry.path)
    try:
        # Before it is opened: what is not there Feast would make, empty.
        if "://" not in place and not Path(place).exists():
            raise ProjectObjectNotFoundException(store.project)
        with _whole(store):
            store.registry.get_project(store.project)
    except ProjectObjectNotFoundException as error:
        raise FeatureError(
            f"the registry {place} is missing, or has no project {store.project!r}; run "
            f"{_apply_command(store)}, then materialize"
        ) from error
    return store.registry


@contextmanager
def _whole(store: FeatureStore) -> Iterator[None]:
    """A registry that is read in the block, and cannot be, is said."""
    from google.protobuf.message import DecodeError

    try:
        yield
    except DecodeError as error:
        raise FeatureError(
            f"the registry {store.config.registry.path} is torn; delete it, run "
            f"{_apply_command(store)}, then materialize"
        ) from error


def _apply_command(store: FeatureStore) -> str:
    return f"`python scripts/feature_store.py dataset={store.project} apply`"


@contextmanager
def _writing(store: FeatureStore) -> Iterator[None]:
    """Nobody else of this home writes the registry; Feast itself lets the last one win."""
    locks = home() / "feast"
    locks.mkdir(exist_ok=True)
    with exclusive(locks / f"{store.project}.lock"):
        with _whole(store):
            store.refresh_registry()
        yield


def _contents(store: FeatureStore) -> RepoContents:
    """The objects of ``feature_repo/``, new ones each time, because to apply them changes them."""
    from feast import Project
    from feast.repo_operations import parse_repo

    names = [path.stem for path in folder().glob("*.py")]
    # Whoever calls may have modules of such plain names too, and keeps them.
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder()))
    try:
        with chdir(folder()):  # where Feast takes modules' names from
            importlib.invalidate_caches()
            contents = parse_repo(folder())
    finally:
        sys.path.remove(str(folder()))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(others)
    description = store.config.project_description
    contents.projects.append(Project(name=store.project, description=description))
    return contents
