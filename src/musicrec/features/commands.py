"""The commands that read one kind of entity from Redis, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from musicrec.features import layout
from musicrec.features.resp import bulk
from musicrec.features.views import View


class Command:
    """The HMGET of one kind of entity: all its bytes but the ids.

    Attributes:
        views: whose features it asks for.
        columns: the features.
        spans: for each view, where its features are in a reply, and as many nulls.
        is_per_candidate: whether there is one for each candidate; else one for the user.
    """

    def __init__(self, project: str, features: Mapping[View, Sequence[str]]) -> None:
        self.views = tuple(features)
        self.columns = [f"{v.name}__{name}" for v, names in features.items() for name in names]
        self.spans: list[tuple[View, slice, list[bytes]]] = []
        place = 0
        for view, names in features.items():
            self.spans.append((view, slice(place, place + len(names)), [layout.NULL] * len(names)))
            place += len(names)
        entities = self.views[0].entities
        self.is_per_candidate = "track" in entities
        self._is_pair = len(entities) == 2
        self._project = project.encode()
        self._prefix = layout.key_prefix(self.views[0].join_keys)
        fields = [layout.field(v.name, name) for v, names in features.items() for name in names]
        # Backwards: a reply's stamps are popped from its end.
        fields += [layout.timestamp_field(view.name) for view in reversed(self.views)]
        self._start = b"*%d\r\n%b" % (2 + len(fields), bulk(b"HMGET"))
        self._end = b"\r\n" + b"".join(map(bulk, fields))

    def encode(self, user_id: str, tracks: Sequence[bytes]) -> bytes:
        """The commands of one request."""
        if not self.is_per_candidate:
            return self._of([user_id.encode()])
        return self._of(tracks, (user_id,) if self._is_pair else ())

    def _of(self, ids: Sequence[bytes], others: tuple[str, ...] = ()) -> bytes:
        """A command for each id; it is the first in the key, and others are the same in all."""
        starts: dict[int, bytes] = {}
        end = b""
        for size in set(map(len, ids)):
            key = layout.key(self._prefix, ("\0" * size, *others), self._project)
            place = len(self._prefix) + 8  # behind the id's type and length
            starts[size] = b"%b$%d\r\n%b" % (self._start, len(key), key[:place])
            end = key[place + size :] + self._end
        if len(starts) == 1:
            (start,) = starts.values()
            return start + (end + start).join(ids) + end
        return b"".join([starts[len(each)] + each + end for each in ids])
