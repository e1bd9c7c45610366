"""Words of the catalogue as data: cleaned, capped, compared, and what a tag says.

Titles, artists and tags are written by strangers. Whatever leaves or is stored has passed
``clean``; whether two words are the same is asked of ``key``, never of their spelling.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from musicrec.graph.genres import GENRES, SPELLINGS
from musicrec.graph.schema import ERAS, MAX_LABEL, MOODS, THEMES, Kind

MAX_TITLE, MAX_TAG, MAX_TAG_WORDS = 100, 32, 3

#: Categories that nobody sees and a model may obey (bidi, zero width, tag characters) or that no
#: encoding holds.
_INVISIBLE = ("Cf", "Cs", "Co", "Cn")
_TAG = re.compile(r"[\w&'+./!-]+(?: [\w&'+./!-]+)*")
_DECADE = re.compile(r"(?:(\d\d))?(\d)0'?s")

_MOOD_TAGS = {
    "aggressive": "angry",
    "chill": "calm",
    "chillout": "calm",
    "mellow": "calm",
    "peaceful": "calm",
    "relaxing": "calm",
    "gloomy": "dark",
    "sombre": "dark",
    "ethereal": "dreamy",
    "atmospheric": "dreamy",
    "upbeat": "energetic",
    "cheerful": "happy",
    "feel good": "happy",
    "melancholy": "melancholic",
    "sad": "melancholic",
    "love songs": "romantic",
    "sexy": "romantic",
    "anxious": "tense",
    "intense": "tense",
    "cosy": "warm",
    "soothing": "warm",
}
_THEME_TAGS = {
    "acoustic": "live and acoustic",
    "live": "live and acoustic",
    "unplugged": "live and acoustic",
    "instrumental": "instrumental",
    "a cappella": "vocal",
    "female vocalists": "vocal",
    "male vocalists": "vocal",
    "vocal": "vocal",
    "party": "party",
}
#: Tags that say something of the tagger, or of no kind that a graph has.
_SILENT_TAGS = (
    *("seen live", "favorites", "favourites", "favorite", "favourite", "favorite songs"),
    *("albums i own", "owned", "spotify", "awesome", "beautiful", "love", "loved", "good"),
    *("great", "cool", "amazing", "best", "catchy", "danceable", "music", "under 2000 listeners"),
    *("to listen", "check out", "american", "british", "english", "usa", "uk", "german"),
)


def clean(text: str | None, cap: int) -> str | None:
    """One visible line of at most ``cap`` characters, in NFC; None where nothing is left."""
    if text is None:
        return None
    if not (text.isascii() and text.isprintable()):
        seen = (
            " "
            if (category := unicodedata.category(letter)) == "Cc" or category[0] == "Z"
            else letter
            for letter in text
            if unicodedata.category(letter) not in _INVISIBLE
        )
        text = unicodedata.normalize("NFC", "".join(seen))
    line = " ".join(text.split())
    return (line if len(line) <= cap else line[: cap - 1].rstrip() + "…") or None


@lru_cache(maxsize=65_536)
def key(word: str) -> str:
    """What two spellings of one word share: no case, accents, spaces or punctuation, ``&`` is and.

    A word of punctuation alone is its own.
    """
    plain = unicodedata.normalize("NFKD", word.casefold()).replace("&", " and ")
    letters = "".join(letter for letter in plain if letter.isalnum())
    return letters or word.strip().casefold()


@lru_cache(maxsize=65_536)
def tag_of(raw: str) -> str | None:
    """A tag in lower case, or None where it can be none: an essay, a code, a thing unseen."""
    tag = clean(raw, MAX_TAG + 1)
    if tag is None or len(tag) > MAX_TAG or len(tag.split()) > MAX_TAG_WORDS:
        return None
    tag = tag.casefold().replace("_", " ").strip()
    return tag if _TAG.fullmatch(tag) and any(letter.isalpha() for letter in tag) else None


def artist_of(raw: str | None) -> str | None:
    """An artist's name as it is sent, stored and compared: at most ``MAX_LABEL`` characters."""
    return clean(raw, MAX_LABEL)


_GENRE_OF_KEY = {key(genre): genre for genre in GENRES} | {
    key(other): genre for other, genre in SPELLINGS.items()
}
_MOOD_OF_KEY = {key(m): m for m in MOODS} | {key(t): mood for t, mood in _MOOD_TAGS.items()}
_THEME_OF_KEY = {key(t): t for t in THEMES} | {key(t): theme for t, theme in _THEME_TAGS.items()}
_SILENT_KEYS = {key(tag) for tag in _SILENT_TAGS}


def known_genre(label: str) -> str | None:
    """The built-in genre that this is a spelling of."""
    return _GENRE_OF_KEY.get(key(label))


def era_of(label: str) -> str | None:
    """``1990s`` for ``1990s``, ``1990's`` or ``90s``; a bare ``10s`` or ``20s`` says no century."""
    match = _DECADE.fullmatch(label.strip().casefold())
    if not match:
        return None
    century = match[1] or ("19" if match[2] in "3456789" else "20" if match[2] == "0" else "")
    era = f"{century}{match[2]}0s"
    return era if era in ERAS else None


def era_in(year: int) -> str | None:
    """The decade of a year; None where it is outside ``ERAS``."""
    era = f"{year // 10 * 10}s"
    return era if era in ERAS else None


def meaning(tag: str) -> tuple[Kind, str] | None:
    """``(kind, label)`` that a tag speaks of; a tag that is nothing else is a genre.

    None for those that say nothing.
    """
    if era := era_of(tag):
        return "era", era
    word = key(tag)
    if word in _MOOD_OF_KEY:
        return "mood", _MOOD_OF_KEY[word]
    if word in _THEME_OF_KEY:
        return "theme", _THEME_OF_KEY[word]
    return None if word in _SILENT_KEYS else ("genre", known_genre(tag) or tag)


def is_genre(tag: str) -> bool:
    """Whether ``meaning`` takes it for one."""
    meant = meaning(tag)
    return meant is not None and meant[0] == "genre"
