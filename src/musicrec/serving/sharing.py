"""The folder in which the workers of one service share their figures.

Apart from ``measures``, because the variable that names it must be set before ``prometheus_client``
is loaded, which looks for it but once. Feast sets it, too, to a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "musicrec-figures-"


@contextmanager
def shared_figures() -> Iterator[None]:
    """A folder for this process and the workers that it starts; gone at the end of the block."""
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    os.environ[_VARIABLE] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shared_folder() -> Path | None:
    """The folder; None where there is none of a service's."""
    folder = Path(os.environ.get(_VARIABLE, ""))
    return folder if folder.name.startswith(_PREFIX) else None
