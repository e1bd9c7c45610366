"""From one listener's plays to a summary: counts, weights, and which tracks may be cited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from musicrec.errors import ConfigError
from musicrec.graph.digest import (
    RECENT_DAYS,
    Habits,
    Portion,
    Row,
    Summary,
    estimate_tokens,
    row_line,
)
from musicrec.graph.history import History, Ints, Track
from musicrec.graph.nearness import groups, together
from musicrec.graph.words import key

#: Days in which a play comes to weigh half.
HALF_LIFE_DAYS = 90
#: A play that begins later than this after the one before begins another sitting.
PAUSE_MINUTES = 30
LONG_SITTING, DEEP = 40, 10
MAX_ROWS, FEWEST_ROWS, MAX_ROW_TAGS = 80, 5, 6

_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Which of DAYPARTS each hour is in: night from 22, morning from 5, daytime from 11, evening 17.
_DAYPART = np.array([3] * 5 + [0] * 6 + [1] * 6 + [2] * 5 + [3] * 2)


@dataclass(frozen=True, slots=True)
class _Heard:
    """The plays of a history with all that counting needs; one entry a play.

    Attributes:
        tracks: what was heard, in order of first hearing; ``place`` points into it.
        value: of a play: halved every ``HALF_LIFE_DAYS`` before the last, negative if skipped.
        decay: the same, without the sign.
        sitting: number of the sitting, from 0.
        is_recent: in the last ``RECENT_DAYS`` before the last play.
        is_new: the track's first play.
    """

    tracks: list[Track]
    place: Ints
    value: np.ndarray
    decay: np.ndarray
    sitting: Ints
    is_recent: np.ndarray
    is_new: np.ndarray
    daypart: Ints
    is_weekend: np.ndarray


def condense(
    history: History, tracks: Mapping[int, Track], *, zone: str, max_tokens: int
) -> Summary:
    """The summary of a history of one play or more.

    Args:
        tracks: by key; all of the history's.
        zone: whose clock ``history.hour`` is of.
        max_tokens: of ``Summary.text``; rows are left out from the end until it fits.

    Raises:
        ConfigError: not even ``FEWEST_ROWS`` rows fit.
    """
    heard = _heard(history, tracks)
    most = max(3, min(12, max_tokens // 250))
    artist_names = [_names(track.artist) for track in heard.tracks]
    artists = _portions(heard, artist_names, most)
    tags = _portions(heard, [track.tags for track in heard.tracks], most)
    eras = _portions(heard, [_names(track.era) for track in heard.tracks], most // 2)
    rows, places = _rows(history, heard, artists, tags)
    num_pairs = max(4, min(20, max_tokens // 150))

    def of(num_rows: int) -> Summary:
        pairs = together(heard.place, heard.sitting, places[:num_rows])
        has_tags = any(track.tags for track in heard.tracks)
        return Summary(
            zone=zone,
            plays=len(heard.place),
            recent_plays=int(heard.is_recent.sum()),
            tracks=len(heard.tracks),
            num_artists=len({key(name) for names in artist_names for name in names}),
            sittings=int(heard.sitting[-1]) + 1,
            days=int((history.at[-1] - history.at[0]) // _DAY) + 1,
            heard_until=(_EPOCH + timedelta(microseconds=int(history.at[-1]))).isoformat(),
            artists=artists,
            tags=tags,
            eras=eras,
            habits=_habits(history, heard),
            rows=tuple(rows[:num_rows]),
            together=tuple([pair for pair in pairs if pair.sittings > 1][:num_pairs]),
            groups=() if has_tags else groups(rows[:num_rows], pairs),
        )

    return _fitted(of, rows, max_tokens)


def _heard(history: History, tracks: Mapping[int, Track]) -> _Heard:
    keys, first, inverse = np.unique(history.track, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.argsort(order)[inverse]
    ages = (history.at[-1] - history.at) / _DAY
    decay = 0.5 ** (ages / HALF_LIFE_DAYS)
    is_new = np.zeros(len(place), dtype=bool)
    is_new[first] = True
    breaks = np.diff(history.at, prepend=history.at[0]) > PAUSE_MINUTES * 60_000_000
    return _Heard(
        tracks=[tracks[each] for each in keys[order].tolist()],
        place=place,
        value=np.where(history.skipped > 0, -decay, decay),
        decay=decay,
        sitting=np.cumsum(breaks),
        is_recent=ages < RECENT_DAYS,
        is_new=is_new,
        daypart=_DAYPART[history.hour % 24],
        # 1 January 1970 was a Thursday.
        is_weekend=(history.hour // 24 + 3) % 7 >= 5,
    )


def _names(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def _share(part: float, whole: float) -> float:
    return round(float(part) / float(whole), 3) if whole else 0.0


def _portions(heard: _Heard, names: list[tuple[str, ...]], most: int) -> tuple[Portion, ...]:
    """Of each name that a track has; spellings that are one word by ``key`` are one portion."""
    spelling: dict[str, str] = {}
    of_track: dict[str, list[int]] = {}
    for place, each in enumerate(names):
        for word, name in {key(name): name for name in each}.items():
            spelling.setdefault(word, name)
            of_track.setdefault(word, []).append(place)
    num = len(heard.tracks)
    plays = np.bincount(heard.place, minlength=num)
    recent = np.bincount(heard.place, heard.is_recent, num)
    skipped = np.bincount(heard.place, heard.value < 0, num)
    value = np.bincount(heard.place, heard.value, num)
    num_recent, whole = recent.sum(), heard.decay.sum()
    found = []
    for word, places in of_track.items():
        mine, lately = plays[places].sum(), recent[places].sum()
        found.append(
            Portion(
                name=spelling[word],
                share=_share(mine, len(heard.place)),
                older=_share(mine - lately, len(heard.place) - num_recent),
                recent=_share(lately, num_recent),
                skipped=_share(skipped[places].sum(), mine),
                weight=_share(max(0.0, value[places].sum()), whole),
            )
        )
    return tuple(sorted(found, key=lambda p: (-p.weight, -p.share, p.name))[:most])


def _rows(
    history: History, heard: _Heard, artists: tuple[Portion, ...], tags: tuple[Portion, ...]
) -> tuple[list[Row], list[int]]:
    """What may be cited, the most telling first, and where each stands in ``heard.tracks``.

    First the two best tracks of every top artist and tag, and the best of the recent plays; then
    the best of all. Ties go to the id.
    """
    num = len(heard.tracks)
    value = np.round(np.bincount(heard.place, heard.value, num), 6)
    lately = np.round(np.bincount(heard.place, heard.value * heard.is_recent, num), 6)
    order = sorted(range(num), key=lambda t: (-value[t], heard.tracks[t].track_id))
    newest = sorted(order, key=lambda t: -lately[t])
    wanted: dict[int, None] = dict.fromkeys(order[:5])
    top_artists = {key(each.name) for each in artists}
    top_tags = {key(each.name) for each in tags}
    seen: dict[tuple[str, str], int] = {}
    for track in order:
        words = [("artist", key(heard.tracks[track].artist or ""))]
        words += [("tag", key(tag)) for tag in heard.tracks[track].tags]
        for kind, word in words:
            is_top = word in (top_artists if kind == "artist" else top_tags)
            if is_top and seen.get((kind, word), 0) < 2:
                seen[kind, word] = seen.get((kind, word), 0) + 1
                wanted.setdefault(track)
    wanted |= dict.fromkeys([t for t in newest if lately[t] > 0][:8])
    wanted |= dict.fromkeys(order)
    places = list(wanted)[:MAX_ROWS]
    counts = _counts(history, heard)
    return [_row(history, heard, counts, place) for place in places], places


def _counts(history: History, heard: _Heard) -> dict[str, Ints]:
    num = len(heard.tracks)
    last = np.zeros(num, dtype=np.int64)
    last[heard.place] = history.at  # the last one wins: plays are in order of time
    marks = {
        "plays": np.ones(len(heard.place)),
        "recent": heard.is_recent,
        "skipped": history.skipped,
        "weekend": heard.is_weekend,
        "moving": history.moving,
    } | {f"daypart {part}": heard.daypart == part for part in range(4)}
    counted = {name: np.bincount(heard.place, mark, num) for name, mark in marks.items()}
    return {name: each.astype(np.int64) for name, each in counted.items()} | {"last": last}


def _row(history: History, heard: _Heard, counts: dict[str, Ints], place: int) -> Row:
    track, last = heard.tracks[place], int(counts["last"][place])
    num = {name: int(each[place]) for name, each in counts.items()}
    parts = [num[f"daypart {part}"] for part in range(4)]
    return Row(
        track_id=track.track_id,
        title=track.title,
        artist=track.artist,
        tags=track.tags[:MAX_ROW_TAGS],
        year=track.year,
        era=track.era,
        plays=num["plays"],
        recent=num["recent"],
        skipped=num["skipped"],
        last_played_at=datetime.fromtimestamp(last // 1_000_000, UTC).isoformat(),
        days_ago=int((history.at[-1] - last) // _DAY),
        dayparts=(parts[0], parts[1], parts[2], parts[3]),
        weekend=num["weekend"],
        moving=num["moving"],
    )


def _habits(history: History, heard: _Heard) -> Habits:
    plays = len(heard.place)
    albums = _numbered((track.artist or "", track.album) for track in heard.tracks)[heard.place]
    artists = _numbered(("", track.artist) for track in heard.tracks)
    # Unknown albums are numbered -1 and never a run; nor is a track on repeat.
    runs = (albums[1:] == albums[:-1]) & (albums[1:] >= 0) & (heard.place[1:] != heard.place[:-1])
    runs &= heard.sitting[1:] == heard.sitting[:-1]
    heard_of = np.bincount(artists[artists >= 0], minlength=1)
    is_deep = (artists >= 0) & (heard_of[artists] >= DEEP)
    in_sitting = np.bincount(heard.sitting)[heard.sitting]
    parts = [_share((heard.daypart == part).sum(), plays) for part in range(4)]
    is_first_lately = np.zeros(len(heard.tracks), dtype=bool)
    is_first_lately[heard.place[heard.is_new & heard.is_recent]] = True
    new_lately = is_first_lately[heard.place] & heard.is_recent
    return Habits(
        repeats=_share((~heard.is_new).sum(), plays),
        # Where all is recent, everything is new and nothing was discovered.
        new_lately=0.0
        if heard.is_recent.all()
        else _share(new_lately.sum(), heard.is_recent.sum()),
        album_runs=_share(runs.sum(), plays),
        long_sittings=_share((in_sitting >= LONG_SITTING).sum(), plays),
        deep=_share(is_deep[heard.place].sum(), plays),
        dayparts=(parts[0], parts[1], parts[2], parts[3]),
        weekend=_share(heard.is_weekend.sum(), plays),
        moving=_share(history.moving.sum(), plays),
    )


def _numbered(names: Iterable[tuple[str, str | None]]) -> Ints:
    """A number for each name, -1 where its second part is missing."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array(
        [-1 if b is None else numbers.setdefault((a, b), len(numbers)) for a, b in names],
        dtype=np.int64,
    )


def _fitted(of: Callable[[int], Summary], rows: list[Row], max_tokens: int) -> Summary:
    """With as many rows as fit."""
    num_rows = len(rows)
    while True:
        summary = of(num_rows)
        over = estimate_tokens(summary.text) - max_tokens
        if over <= 0:
            return summary
        if num_rows <= FEWEST_ROWS:
            raise ConfigError(
                f"max_tokens={max_tokens} holds no summary of five tracks: give it "
                f"{max_tokens + over} or more"
            )
        # What is too much, off the end, a token for each newline with it; pairs go with their rows.
        while over > 0 and num_rows > FEWEST_ROWS:
            num_rows -= 1
            over -= estimate_tokens(row_line(num_rows, rows[num_rows]))
