"""One listener's plays, from the first session to the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from musicrec.sources.synthetic.choice import Choice
from musicrec.sources.synthetic.listeners import (
    DEVICES,
    LOVED_ARTIST,
    Listener,
    Way,
    pick,
    pick_distinct,
)
from musicrec.sources.synthetic.styles import MOODS
from musicrec.sources.synthetic.tracks import Ints, Tracks, style_weights

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000
#: At least so long between two sessions.
PAUSE_MS = 40 * MINUTE_MS
#: Morning from 5, day from 11, evening from 17, night from 22.
DAYPART_OF_HOUR = np.array([3] * 5 + [0] * 6 + [1] * 6 + [2] * 5 + [3] * 2)
#: The style asked for at this part of the day weighs so many times as much.
DAYPART_STYLE = 3
#: Days after which the short list is renewed, and how many of its tracks.
RENEWAL_DAYS, RENEWED = 10, 2
#: Chance of a skip in thousandths: an artist the listener loves, a style at home, anything else.
SKIP_LOVED, SKIP_HOME, SKIP_FOREIGN = 40, 130, 420


@dataclass(frozen=True, slots=True)
class Session:
    """When and how a listener listens once; ``start`` in milliseconds from the first midnight."""

    start: int
    day: int
    hour: int
    length: int
    way: Way
    styles: tuple[int, int]
    mood: int
    taste: Ints


@dataclass(slots=True)
class Diary:
    """What was played, one entry a play: times in milliseconds from the world's first midnight."""

    track: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    played: list[int] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    device: list[str] = field(default_factory=list)


class Listening:
    """Plays one listener's life; what was played stands in ``diary``."""

    def __init__(
        self,
        rng: np.random.Generator,
        tracks: Tracks,
        popularity: Ints,
        listener: Listener,
        first_day: date,
    ) -> None:
        self._rng = rng
        self._tracks = tracks
        self._popularity = popularity
        self._listener = listener
        self._first_weekday = first_day.weekday()
        self._rotation: list[int] = []
        self._renewed_on = 0
        self._liked: list[int] = []
        self.diary = Diary()

    def choices(self) -> Iterator[tuple[Choice, int]]:
        """For every play in order: the choice as it stood before, and the track drawn."""
        for planned, hour in self._calendar():
            session = self._session(planned, hour)
            choice = self._choice(session)
            heard = []
            for draw in self._rng.random(session.length).tolist():
                track = choice.draw(draw)
                yield choice, track
                choice.hear(track)
                heard.append(track)
            self._write(session, np.array(heard))

    def _calendar(self) -> Iterator[tuple[int, int]]:
        """Planned starts of the sessions, oldest first, and their local hours."""
        who = self._listener
        days = np.arange(who.first_day, who.last_day + 1)
        weekend = (days + self._first_weekday) % 7 >= 5
        on_day = np.where(weekend, 3, 2)
        draws = self._rng.random((who.sessions, 3)).tolist()
        starts = []
        for day_draw, hour_draw, minute_draw in draws:
            day, hour = int(days[pick(on_day, day_draw)]), pick(who.hours, hour_draw)
            local = day * DAY_MS + hour * HOUR_MS + int(minute_draw * HOUR_MS)
            starts.append((local - who.utc_offset * HOUR_MS, hour))
        return iter(sorted(starts))

    def _session(self, planned: int, hour: int) -> Session:
        who, diary = self._listener, self.diary
        last_end = diary.start[-1] + diary.played[-1] + PAUSE_MS if diary.start else planned
        start = max(planned, last_end)
        day = min(max(start // DAY_MS, 0), len(self._popularity) - 1)
        daypart = int(DAYPART_OF_HOUR[hour])
        taste = self._taste(day)
        draws = self._rng.random(6).tolist()
        now = taste.copy()
        now[who.daypart_style[daypart]] *= DAYPART_STYLE
        weekend = (day + self._first_weekday) % 7 >= 5
        asked = np.array([m.hours[daypart] * (m.weekend if weekend else 1) for m in MOODS])
        style = pick(now, draws[3])
        others = style_weights(len(taste))
        others[style] = 0
        return Session(
            start=start,
            day=day,
            hour=hour,
            length=8 + int(draws[0] * draws[1] * 48),
            way=Way(pick(who.ways, draws[2])),
            styles=(style, pick(others, draws[5])),
            mood=pick(asked * who.moods, draws[4]),
            taste=taste,
        )

    def _taste(self, day: int) -> Ints:
        """Taste fades from the first to the last day's in steps of a day."""
        who, last = self._listener, len(self._popularity) - 1
        return who.taste_at_first * (last - day) + who.taste_at_last * day

    def _choice(self, session: Session) -> Choice:
        if session.way is Way.ROTATION:
            self._renew_rotation(session)
        return Choice(
            self._tracks,
            self._listener,
            self._popularity[session.day],
            session.taste * 8 // max(1, len(self._popularity) - 1),
            way=session.way,
            styles=session.styles,
            mood=session.mood,
            rotation=self._rotation,
        )

    def _renew_rotation(self, session: Session) -> None:
        """The first list is drawn from taste; later, tracks liked lately take the oldest places."""
        who, tracks = self._listener, self._tracks
        if not self._rotation:
            liked = self._popularity[session.day] * who.affinity[tracks.artist]
            weights = liked * session.taste[tracks.style]
            self._rotation += pick_distinct(weights, self._rng.random(who.rotation_size).tolist())
            self._renewed_on = session.day
        elif session.day - self._renewed_on >= RENEWAL_DAYS:
            new = [track for track in dict.fromkeys(self._liked) if track not in self._rotation]
            new = new[-RENEWED:]
            self._rotation[: len(new)] = new
            self._renewed_on = session.day

    def _write(self, session: Session, track: Ints) -> None:
        """Skips, times and devices of a session's plays."""
        draws = self._rng.random((4, session.length))
        duration = self._tracks.duration[track]
        skipped = draws[0] * 1000 < self._skip_chance(session, track)
        heard = np.where(skipped, 20 + draws[1] * 400, 970 + draws[1] * 31).astype(np.int64)
        played = np.minimum(duration, duration * heard // 1000)
        gap = 500 + (draws[2] * draws[2] * 8000).astype(np.int64)
        start = session.start + np.cumsum(played + gap) - played - gap
        at_home, out = self._listener.devices
        usual = out if 9 <= session.hour < 18 else at_home
        diary = self.diary
        diary.track += track.tolist()
        diary.start += start.tolist()
        diary.played += played.tolist()
        diary.skipped += skipped.tolist()
        diary.device += [usual if draws[3, 0] < 0.85 else DEVICES[0]] * session.length
        self._liked = track[~skipped].tolist()

    def _skip_chance(self, session: Session, track: Ints) -> Ints:
        """``(plays,)`` thousandths: the worse a track fits the listener's taste, the more."""
        who, tracks = self._listener, self._tracks
        loved = who.affinity[tracks.artist[track]] == LOVED_ARTIST
        home = session.taste[tracks.style[track]] > 0
        return np.where(loved, SKIP_LOVED, np.where(home, SKIP_HOME, SKIP_FOREIGN))
