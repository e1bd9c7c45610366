"""The engine that answers, and how another takes its place.

One thread looks at the bundle's path, opens what is new there *beside* the engine that answers, and
asks it a few questions. Only then does one assignment put it in the other's place. A request takes
the engine once and keeps it to its end, so none ever sees half of each, and the old one goes when
its last request has.

What cannot be used is refused once, with a line in the log; the old one goes on, and the file is
not opened again until it changes.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from musicrec.errors import MusicrecError
from musicrec.serving.measures import Measures

if TYPE_CHECKING:
    from musicrec.serving.engine import Engine

WATCH_SECONDS = 2.0

#: A stopping process waits so long for a file that is just being opened.
_LAST_WAIT_SECONDS = 10.0

#: A worker waits so long for others to have opened the file.
_TURN_SECONDS = 60.0

_LOG = logging.getLogger("musicrec.engines")


class _File(NamedTuple):
    """Tells a file from the one that was there before, behind any number of links.

    ``changed_ns`` is the kernel's own, so that a copy which keeps its modification time is seen,
    and so is a permission that was given.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Engines:
    """Holds the engine of a path, and renews it.

    Called, it gives the engine that answers now; None where there is none (yet): ``reason`` says
    why.

    Args:
        path: of the bundle; need not exist yet.
        open_engine: makes a file's engine, and asks it whatever it must answer. It runs in this
            object's own thread.
        measures: counts what was taken and refused.
        watch_seconds: between two looks at the path. A file that is new there is opened once two
            looks find it the same, so that one which is being copied is left alone until it is
            whole.
    """

    def __init__(
        self,
        path: Path,
        open_engine: Callable[[Path], Engine],
        measures: Measures,
        *,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        self.path = path.absolute()
        self._open_engine = open_engine
        self._measures = measures
        self._watch_seconds = watch_seconds
        self._engine: Engine | None = None
        self._reason: str | None = f"the model is being loaded from {self.path}"
        self._refusal: str | None = None
        self._seen: _File | None = None
        self._judged: _File | None = None
        self._is_first_look = True
        self._is_missed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engines", daemon=True)

    def __call__(self) -> Engine | None:
        return self._engine

    @property
    def reason(self) -> str | None:
        """Why there is no engine, in one line; None where there is one."""
        return self._reason if self._engine is None else None

    @property
    def refusal(self) -> str | None:
        """What is wrong with the file that is at the path now; None where nothing is."""
        return self._refusal

    def start(self) -> None:
        """Open the first one, and look for others, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_WAIT_SECONDS)

    def _watch(self) -> None:
        while True:
            self.look()
            if self._stop.wait(self._watch_seconds):
                return

    def look(self) -> None:
        """Look at the path once, and open what is new there; for the thread, and for tests."""
        is_first, self._is_first_look = self._is_first_look, False
        try:
            there = _file(self.path)
        except OSError as error:
            self._miss(error)
            return
        self._is_missed = False
        is_settled = is_first or there == self._seen
        self._seen = there
        if not is_settled or there == self._judged:
            return
        self._judged = there
        try:
            with self._turn():
                gc.freeze()  # or a collection of what opening leaves goes through everything else
                start = perf_counter()
                engine = self._open_engine(self.path)
        except Exception as error:  # whatever a file can do: the running engine must go on
            self._refuse(error, there)
        else:
            self._take(engine, perf_counter() - start)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Open while no other worker does, so that the others have the cores for requests.

        It is a courtesy and no more: without requests, without locks in this file system, or
        behind a worker that hangs, the file is opened all the same.
        """
        with ExitStack() as held:
            if self._engine is not None:
                with suppress(OSError):
                    file = held.enter_context(self.path.open("rb"))
                    deadline = perf_counter() + _TURN_SECONDS
                    while not _locked(file) and perf_counter() < deadline:
                        if self._stop.wait(0.05):
                            break
            yield

    def _take(self, engine: Engine, seconds: float) -> None:
        self._refusal = None
        old = self._engine
        if old is not None and old.version == engine.version:  # and old has its caches warm
            _LOG.info("the same model under a new file", extra={"facts": {"model": old.version}})
            return
        self._engine = engine
        # A model's names are a million objects that no collection in a request need go through.
        # The old engine goes all the same: nothing in it refers back to itself.
        gc.freeze()
        self._measures.model_loaded(engine.version)
        facts = {
            "model": engine.version,
            "before": None if old is None else old.version,
            "path": str(self.path),
            "seconds": round(seconds, 3),
        }
        _LOG.info("model taken", extra={"facts": facts})

    def _refuse(self, error: Exception, opened: _File) -> None:
        if not self._is_still(opened):  # the next look sees to what is there now
            self._judged = None
            return
        why = str(error) if isinstance(error, MusicrecError) else _unforeseen(error)
        self._refusal = self._reason = f"{self.path} was refused: {why}"
        self._measures.model_refused()
        kept = self._engine
        facts = {
            "path": str(self.path),
            "why": why,
            "goes_on": None if kept is None else kept.version,
        }
        _LOG.error("model refused", extra={"facts": facts})

    def _is_still(self, opened: _File) -> bool:
        try:
            return _file(self.path) == opened
        except OSError:
            return False

    def _miss(self, error: OSError) -> None:
        self._seen = self._judged = None
        self._refusal = None
        self._reason = (
            f"no model: looked for {self.path} ({error.strerror}); make one with: make train, or "
            "say which with bundle=PATH or SEQUENTIAL_MODEL_PATH"
        )
        if self._is_missed:
            return
        self._is_missed = True
        kept = self._engine
        facts = {
            "path": str(self.path),
            "why": error.strerror,
            "goes_on": None if kept is None else kept.version,
        }
        _LOG.warning("model missing", extra={"facts": facts})


def _file(path: Path) -> _File:
    stat = path.stat()
    return _File(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unforeseen(error: Exception) -> str:
    """What is no fault that this code knows: its words, and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}: {error}"
