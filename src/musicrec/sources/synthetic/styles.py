"""The sixteen styles and five moods every synthetic world is made of.

A style gives its tracks their genre, their years and the middle of their audio features; a mood
is what a session asks of a track within a style. Audio features are whole thousandths (0..1000),
tempo is beats per minute, loudness tenths of dBFS: integers, because they take part in draws.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """What the tracks of one style have in common.

    Attributes:
        name: a tag every track of the style carries.
        genre: the broader tag.
        first_year: year of the oldest releases.
        seconds: typical duration.
        audio: typical values, in the order of ``AUDIO_FEATURES``.
    """

    name: str
    genre: str
    first_year: int
    seconds: int
    audio: tuple[int, int, int, int, int, int, int, int, int]


# fmt: off
#                                            danc ener vale  bpm  loud acou inst spee live
STYLES = (
    Style("synth pop", "pop", 1979, 225,      (680, 700, 640, 118, -70, 120, 60, 50, 150)),
    Style("dream pop", "pop", 1986, 255,      (450, 480, 380, 104, -95, 350, 250, 40, 160)),
    Style("indie folk", "folk", 1998, 230,    (480, 360, 420, 108, -105, 720, 120, 40, 170)),
    Style("fingerstyle", "folk", 1967, 205,   (400, 260, 460, 98, -150, 900, 780, 45, 150)),
    Style("deep house", "electronic", 1988, 345, (790, 620, 520, 122, -85, 90, 640, 50, 110)),
    Style("techno", "electronic", 1989, 370,  (720, 820, 300, 132, -75, 40, 830, 55, 120)),
    Style("drum and bass", "electronic", 1993, 310, (580, 880, 400, 172, -60, 50, 560, 80, 190)),
    Style("ambient", "electronic", 1978, 330, (240, 180, 220, 84, -190, 780, 900, 40, 120)),
    Style("boom bap", "hip hop", 1989, 220,   (770, 620, 560, 92, -75, 180, 60, 290, 200)),
    Style("trap", "hip hop", 2009, 190,       (730, 640, 380, 142, -65, 130, 40, 240, 160)),
    Style("neo soul", "soul", 1995, 250,      (660, 470, 560, 88, -85, 400, 70, 90, 150)),
    Style("funk", "soul", 1969, 240,          (790, 720, 820, 112, -80, 240, 110, 70, 230)),
    Style("hard bop", "jazz", 1956, 340,      (520, 450, 600, 126, -120, 760, 620, 50, 260)),
    Style("piano trio", "jazz", 1959, 315,    (440, 300, 440, 110, -150, 880, 800, 40, 220)),
    Style("garage rock", "rock", 1965, 180,   (500, 850, 580, 138, -60, 80, 90, 60, 280)),
    Style("post rock", "rock", 1994, 390,     (300, 580, 240, 116, -90, 260, 760, 40, 200)),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Mood:
    """What a session asks of a track, and when.

    Attributes:
        name: for documents and tests; never written to a dataset.
        asks: the audio features it wants above (+1) or below (-1) the style's middle.
        hours: weight in the morning (5-11), day (11-17), evening (17-22), night (22-5).
        weekend: factor on Saturdays and Sundays.
    """

    name: str
    asks: tuple[tuple[str, int], ...]
    hours: tuple[int, int, int, int]
    weekend: int


MOODS = (
    Mood("focus", (("instrumentalness", 1), ("speechiness", -1)), (6, 8, 2, 2), 1),
    Mood("drive", (("energy", 1), ("tempo", 1)), (6, 3, 4, 1), 2),
    Mood("party", (("danceability", 1), ("valence", 1)), (1, 2, 6, 5), 4),
    Mood("unwind", (("energy", -1), ("acousticness", 1)), (2, 2, 6, 5), 2),
    Mood("brood", (("valence", -1), ("tempo", -1)), (1, 2, 3, 7), 2),
)
