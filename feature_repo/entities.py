"""Whose features they are: listeners and tracks, by their outside ids."""

from feast import Entity, ValueType

from musicrec.features.views import JOIN_KEYS

user = Entity(
    name="user",
    join_keys=[JOIN_KEYS["user"]],
    value_type=ValueType.STRING,
    description="A listener.",
)
track = Entity(
    name="track",
    join_keys=[JOIN_KEYS["track"]],
    value_type=ValueType.STRING,
    description="A track.",
)
