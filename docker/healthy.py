#!/usr/bin/python3
"""``healthy ADDRESS …``: ends with 0 if all of them are well, and else says which is not.

``http://host:port/path`` answers 2xx; ``tcp://host:port`` takes a connection; ``fresh:///path`` was
written within the last three minutes. Standard library only: every image has it.
"""

import socket
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

SECONDS, FRESH_SECONDS = 3.0, 180.0


def check(address: str) -> None:
    """Raise an OSError if it is not well, a ValueError if it is no address."""
    parts = urlsplit(address)
    if parts.scheme == "http":
        urllib.request.urlopen(address, timeout=SECONDS).close()  # noqa: S310
    elif parts.scheme == "tcp":
        socket.create_connection((parts.hostname, parts.port), timeout=SECONDS).close()
    elif parts.scheme == "fresh":
        age = time.time() - Path(parts.path).stat().st_mtime
        if age > FRESH_SECONDS:
            raise OSError(f"last written {age:.0f} s ago")
    else:
        raise ValueError("begins with none of http:, tcp:, fresh:")


def main() -> None:
    if not sys.argv[1:]:
        raise SystemExit("usage: healthy http://host:port/path | tcp://host:port | fresh:///path …")
    for address in sys.argv[1:]:
        try:
            check(address)
        except (OSError, ValueError) as error:
            raise SystemExit(f"{address}: {error}") from None


if __name__ == "__main__":
    main()
