"""Naming what a source holds: a hash of its content and of how it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from musicrec.sources.reading.files import Stored, open_stored

_READ_BYTES = 1 << 20


def fingerprint(name: str, files: Iterable[Stored], settings: Mapping[str, object]) -> str:
    """32 hex digits over the format's name, its settings and every file's stored bytes.

    Where the files lie does not matter; their order does.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([name, settings], sort_keys=True, default=str).encode())
    for path in files:
        with open_stored(path) as file:
            content = hashlib.blake2b()
            while stored := file.read(_READ_BYTES):
                content.update(stored)
            digest.update(content.digest())
    return digest.hexdigest()
