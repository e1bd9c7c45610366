"""What can go wrong by the user's hand or the world's, as one tree.

    MusicrecError            a line for the door: what, where, and the way out
    ├── ConfigError          a key, an option or a combination that cannot work
    ├── DataError            a file, a dataset or a row that cannot be used
    ├── DatabaseError        no server, no such dataset, a connection lost
    ├── FeatureError         features that cannot be computed, stored or read as asked
    ├── TrackingError        a run's journal cannot be read or sent to MLflow
    ├── GraphError           interest graphs that cannot be asked for, stored or read as asked
    ├── BundleError          model.pt is missing, torn or of another version
    └── ServingError         the service cannot answer or write just now: ask again

Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MusicrecError(Exception):
    """Base of all errors whose message is meant for a person, without a traceback."""


class ConfigError(MusicrecError):
    """A setting that cannot work; the message names the setting and its way out."""


class DataError(MusicrecError):
    """Listens that cannot be read or used; the message names the file or dataset."""


class DatabaseError(MusicrecError):
    """Postgres cannot be reached, started or used as asked."""


class FeatureError(MusicrecError):
    """Features that cannot be computed, stored or read as asked."""


class TrackingError(MusicrecError):
    """A run's journal that cannot be read, or cannot be sent to MLflow."""


class GraphError(MusicrecError):
    """Interest graphs that cannot be asked for, stored or read as asked."""


class BundleError(MusicrecError):
    """A bundle that is missing, torn or of another format version."""


class ServingError(MusicrecError):
    """The service cannot answer, or cannot write, just now; the request itself was good."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known word nearest to ``word``, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
