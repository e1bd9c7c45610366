"""MovieLens ratings in the three ways they are handed around; every rating is an interaction.

``ratings.dat`` (``user::item::rating::time``), ``ratings.csv`` (``userId,movieId,…``) and RecBole's
``.inter`` (``user_id:token``…, tab separated); also ``u.data``. The films beside them give titles,
and genres as tags.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.diagnosis import refuse_no_text
from musicrec.sources.reading.exports import export_files
from musicrec.sources.reading.files import chunks, existing_file, head
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.reading.tracks import TrackColumns, TrackFile
from musicrec.sources.table import TableSource

RATINGS = ("ratings.dat", "ratings.csv", "*.inter", "u.data")
FILMS = ("movies.dat", "movies.csv", "movies.tsv")


class MovieLensSource:
    """Ratings and films; ``configs/data/movielens.yaml`` documents the arguments."""

    name = "movielens"

    def __init__(
        self, path: str | Path, movies: str | Path | None = None, time: str = "unix_s"
    ) -> None:
        if time not in ("unix_s", "order"):
            raise ConfigError(f"data.time={time} is not possible for movielens: unix_s | order")
        self._path = Path(path)
        self._movies = None if movies is None else Path(movies)
        self._time = time
        self.timed = time != "order"

    def batches(self) -> Iterator[ListenBatch]:
        return self._table().batches()

    def total_bytes(self) -> int:
        return self._table().total_bytes()

    def fingerprint(self) -> str:
        return self._table().fingerprint()

    def describe(self) -> str:
        return str(self._path)

    def _table(self) -> TableSource:
        """The files as plain tables, once it is known which they are and how they are written."""
        ratings = _ratings_file(self._path)
        if self.timed:
            _refuse_places(ratings)
        films = self._movies or _films_beside(ratings)
        return TableSource(
            ratings,
            time=self._time,
            tracks=None if films is None else _films(existing_file(films, "data.movies")),
            **_ratings_layout(ratings),
        )


def _ratings_file(path: Path) -> Path:
    found = export_files(path, *((pattern,) for pattern in RATINGS))[0]
    if not isinstance(found, Path):
        raise DataError(f"{path} is a zip archive: unzip it first")
    return found


def _refuse_places(path: Path) -> None:
    """Copies go around whose fourth field counts a user's ratings from 0, without any time."""
    fields = _first_line(path).split("::")
    if len(fields) == 4 and fields[3] == "0":
        raise DataError(
            f"{path} begins with a rating at time 0, so its last field looks like a place in an "
            "order and no time: say data.time=order"
        )


def _first_line(path: Path) -> str:
    refuse_no_text(path)
    return head(path).lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("latin-1").strip()


def _ratings_layout(path: Path) -> dict[str, Any]:
    """Arguments of ``TableSource`` that read these ratings."""
    first = _first_line(path)
    by_place = ListenColumns(user=1, item=2, time=4)
    if "::" in first:
        return {"columns": by_place, "separator": "::", "header": False}
    if first.startswith("userId,"):
        columns = ListenColumns(user="userId", item="movieId", time="timestamp")
        return {"columns": columns, "separator": ","}
    if ":token" in first:
        user, item, time = "user_id:token", "item_id:token", "timestamp:float"
        columns = ListenColumns(user=user, item=item, time=time)
        return {"columns": columns, "separator": "\t", "quoting": False}
    if len(first.split("\t")) == 4:
        return {"columns": by_place, "separator": "\t", "header": False}
    raise DataError(
        f"{path} is no MovieLens ratings file: it begins with {first[:60]!r}, not with "
        "user::item::rating::time, userId,movieId,… or user_id:token; data=table reads any table"
    )


def _films_beside(ratings: Path) -> Path | None:
    """The films in the folder of the ratings, gzipped or not."""
    name = ratings.name.removesuffix(".gz")
    wanted = (name.removesuffix(".inter") + ".item",) if name.endswith(".inter") else FILMS
    beside = (ratings.with_name(film + end) for film in wanted for end in ("", ".gz"))
    return next((film for film in beside if film.is_file()), None)


def _films(path: Path) -> TrackFile:
    first = _first_line(path)
    by_place = TrackColumns(item=1, title=2, tags=3)
    written: dict[str, Any] = {"encoding": _encoding(path), "quoting": False}
    if "::" in first:
        return TrackFile(path, by_place, separator="::", header=False, **written)
    if first.startswith("movieId,"):
        columns = TrackColumns(item="movieId", title="title", tags="genres")
        return TrackFile(path, columns, separator=",")
    if ":token" in first:
        columns = _recbole_columns(first.split("\t"))
        return TrackFile(path, columns, tags_separator=" ", separator="\t", **written)
    if len(first.split("\t")) == 3:
        return TrackFile(path, by_place, separator="\t", header=False, **written)
    raise DataError(
        f"{path} is no MovieLens films file: it begins with {first[:60]!r}; leave it out of the "
        "folder, or read both with data=table"
    )


def _recbole_columns(names: list[str]) -> TrackColumns:
    """RecBole's films; its datasets differ in what they call the genres."""

    def called(*stems: str) -> str | None:
        return next((name for name in names if name.split(":")[0] in stems), None)

    return TrackColumns(
        item=called("item_id", "movie_id"),
        title=called("movie_title", "title"),
        tags=called("class", "genre", "genres"),
        released_on=called("release_year"),
    )


def _encoding(path: Path) -> str:
    """MovieLens-1M wrote its films in Latin-1, the later ones in UTF-8."""
    content = b"".join(chunk.data for chunk in chunks(path))
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
