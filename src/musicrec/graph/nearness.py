"""What a listener hears together: pairs of tracks within a sitting, and groups of them.

Groups are single-linkage clusters over the pairs, strongest first, none larger than what a node
can cite. They stand in for genres where no track has a tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from musicrec.graph.digest import Group, Row, Together
from musicrec.graph.history import Ints
from musicrec.graph.schema import MAX_EVIDENCE
from musicrec.graph.words import clean, key

#: Two plays of one sitting are together if at most so many steps apart.
NEAR = 5
MAX_GROUPS, SMALLEST_GROUP, MAX_NAME = 6, 3, 60


def together(place: Ints, sitting: Ints, chosen: Sequence[int]) -> list[Together]:
    """Pairs among the chosen tracks, most sittings first, then by place.

    Args:
        place, sitting: of every play, in order.
        chosen: places that matter; the answer counts in their order.
    """
    row_of = np.full(int(place.max()) + 1, -1, dtype=np.int64)
    row_of[list(chosen)] = np.arange(len(chosen))
    row = row_of[place]
    found = []
    for step in range(1, NEAR + 1):
        one, other, where = row[:-step], row[step:], sitting[step:]
        is_pair = (one >= 0) & (other >= 0) & (one != other) & (sitting[:-step] == where)
        low, high = np.minimum(one, other)[is_pair], np.maximum(one, other)[is_pair]
        found.append(np.stack([low, high, where[is_pair]], axis=1))
    seen = np.unique(np.concatenate(found), axis=0)
    pairs, sittings = np.unique(seen[:, :2], axis=0, return_counts=True)
    counted = zip(pairs.tolist(), sittings.tolist(), strict=True)
    return sorted(
        (Together(one, other, count) for (one, other), count in counted),
        key=lambda pair: (-pair.sittings, pair.one, pair.other),
    )


def groups(rows: Sequence[Row], pairs: Sequence[Together]) -> tuple[Group, ...]:
    """Clusters of three rows or more, most played first; each named by its most played row."""
    group_of = list(range(len(rows)))
    members = [[row] for row in range(len(rows))]
    for pair in pairs:
        one, other = sorted((group_of[pair.one], group_of[pair.other]))
        if one == other or len(members[one]) + len(members[other]) > MAX_EVIDENCE:
            continue
        for row in members[other]:
            group_of[row] = one
        members[one] += members[other]
        members[other] = []
    found = [sorted(each) for each in members if len(each) >= SMALLEST_GROUP]
    found.sort(key=lambda each: (-sum(rows[row].plays for row in each), each))
    named: dict[str, Group] = {}
    for each in found[:MAX_GROUPS]:
        name = _name(rows, each, named)
        named[key(name)] = Group(name, tuple(each))
    return tuple(named.values())


def _name(rows: Sequence[Row], group: Sequence[int], taken: dict[str, Group]) -> str:
    """By the artist most of it is by, else a title, else an id: the first that is not taken."""
    artists = Counter(artist for row in group if (artist := rows[row].artist))
    titles = [title for row in group if (title := rows[row].title)]
    ids = [rows[row].track_id for row in group]
    for name in [*(artist for artist, _ in artists.most_common()), *titles, *ids]:
        label = f"around {clean(name, MAX_NAME) or '?'}"
        if key(label) not in taken:
            return label
    return f"around {group[0] + 1}"
