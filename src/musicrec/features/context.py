"""``context_aware_features``: computed on demand from the moment a listener is in.

One function for serving, training and Feast's own SDK; it sees whole columns and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "context_aware_features"

#: What the caller knows of the moment, and Feast's type of it: one value per candidate.
REQUEST = {
    "hour": "Int64",
    "weekday": "Int64",
    "device": "String",
    "session_plays": "Int64",
    "in_session": "Int64",
}

#: Stored features it also needs, as columns of the feature matrix.
STORED_INPUTS = ("track_audio_features__energy", "user_audio_preferences__energy_30d")

#: Lower-case words in a device's name by which it is one that is carried.
MOBILE = ("android", "ios", "iphone", "ipad", "ipod", "mobile", "phone", "tablet", "watch")

#: Feature: (unit, meaning, when it is NaN).
FEATURES = {
    "hour_sin": ("-1..1", "sine of the hour on a 24-hour circle", "hour not given"),
    "hour_cos": ("-1..1", "cosine of the hour on a 24-hour circle", "hour not given"),
    "is_weekend": ("0 or 1", "Saturday or Sunday", "weekday not given"),
    "is_mobile": ("0 or 1", "the device is a phone, tablet or watch", "device not given"),
    "session_plays": ("plays", "plays so far in the listener's session", "session not given"),
    "is_in_session": ("0 or 1", "the candidate was played in the session", "session not given"),
    "energy_gap": (
        "-1..1",
        "the track's energy less the mean energy of what the listener played in 30 days",
        "either is not known",
    ),
}

_IN_SESSION, _ENERGY_GAP = (list(FEATURES).index(name) for name in ("is_in_session", "energy_gap"))

COLUMNS = tuple(f"{NAME}__{feature}" for feature in FEATURES)


@dataclass(frozen=True, slots=True)
class Context:
    """The moment of one request; what is None is not known.

    Attributes:
        hour: 0 to 23, on the listener's clock.
        weekday: 0 Monday to 6 Sunday, on the listener's clock.
        device: free text, such as a user agent's or Spotify's platform.
        session: ids of the tracks played so far in this session, repeats included.
    """

    hour: int | None = None
    weekday: int | None = None
    device: str | None = None
    session: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.hour is not None and not 0 <= self.hour <= 23:
            raise ValueError(f"hour={self.hour} is not within 0 to 23")
        if self.weekday is not None and not 0 <= self.weekday <= 6:
            raise ValueError(f"weekday={self.weekday} is not within 0 (Monday) to 6 (Sunday)")


def is_mobile(device: str | None) -> float:
    """1.0 if the device is one that is carried, 0.0 if not, NaN if none is given."""
    if not device:
        return float("nan")
    name = device.lower()
    return float(any(word in name for word in MOBILE))


def context_features(
    hour: NDArray[Any],
    weekday: NDArray[Any],
    mobile: NDArray[Any],
    session_plays: NDArray[Any],
    in_session: NDArray[Any],
    energy: NDArray[Any],
    energy_30d: NDArray[Any],
) -> NDArray[np.float32]:
    """The features, a row per candidate.

    Args:
        hour, weekday, session_plays, in_session: ``(rows,)`` or scalars, as in ``Context``; NaN
            where not known.
        mobile: ``is_mobile`` of the devices.
        energy, energy_30d: ``(rows,)`` the two ``STORED_INPUTS``.

    Returns:
        ``(rows, len(FEATURES))`` float32, columns as in ``FEATURES``.
    """
    out = np.empty((len(energy), len(FEATURES)), np.float32)
    angle = np.asarray(hour, np.float64) * (2 * np.pi / 24)
    day = np.asarray(weekday, np.float64)
    out[:, 0] = np.sin(angle)
    out[:, 1] = np.cos(angle)
    out[:, 2] = np.where(np.isnan(day), np.nan, day >= 5)
    out[:, 3] = mobile
    out[:, 4] = session_plays
    out[:, 5] = in_session
    out[:, 6] = energy - energy_30d
    return out


def of_request(
    context: Context,
    track_ids: Sequence[str],
    energy: NDArray[np.float32],
    energy_30d: NDArray[np.float32],
) -> NDArray[np.float32]:
    """``context_features`` of one request's candidates."""
    session = context.session
    plays = None if session is None else len(session)
    out = np.empty((len(track_ids), len(FEATURES)), np.float32)
    out[:] = _of_moment(context.hour, context.weekday, context.device, plays)
    if session:
        played = set(session)
        out[:, _IN_SESSION] = [track in played for track in track_ids]
    out[:, _ENERGY_GAP] = energy - energy_30d
    return out


@lru_cache(maxsize=1024)
def _of_moment(
    hour: int | None, weekday: int | None, device: str | None, session_plays: int | None
) -> NDArray[np.float32]:
    """What all candidates of a request share; the rest as if it were not in the session."""
    nan = np.array([np.nan], np.float32)
    known = [np.array([np.nan if n is None else n]) for n in (hour, weekday, session_plays)]
    in_session = known[2] * 0
    mobile = np.array([is_mobile(device)])
    return context_features(known[0], known[1], mobile, known[2], in_session, nan, nan)[0]


def of_rows(inputs: Mapping[str, Sequence[Any] | NDArray[Any]]) -> NDArray[np.float32]:
    """``context_features`` of rows that come as columns: training's, and those of Feast's SDK.

    Args:
        inputs: ``REQUEST``'s names and ``STORED_INPUTS``'s; None or NaN where not known.
    """

    def column(name: str) -> NDArray[np.float64]:
        return np.array([np.nan if v is None else v for v in inputs[name]], np.float64)

    energy, energy_30d = (column(name).astype(np.float32) for name in STORED_INPUTS)
    return context_features(
        column("hour"),
        column("weekday"),
        np.array([is_mobile(v if isinstance(v, str) else None) for v in inputs["device"]]),
        column("session_plays"),
        column("in_session"),
        energy,
        energy_30d,
    )
