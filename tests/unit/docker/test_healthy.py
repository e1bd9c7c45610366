"""What a container is asked to tell whether it is well."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from commands import ROOT


def asked(*addresses):
    program = [sys.executable, "-S", ROOT / "docker" / "healthy.py", *addresses]
    done = subprocess.run(program, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def test_a_port_that_listens_is_well_and_one_that_does_not_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert asked(place) == (0, "")
    code, said = asked(place)
    assert code == 1
    assert said.startswith(place)


def test_a_file_is_well_as_long_as_it_is_written(tmp_path):
    beat = tmp_path / "beat"
    assert asked(f"fresh://{beat}")[0] == 1
    beat.touch()
    assert asked(f"fresh://{beat}") == (0, "")
    os.utime(beat, (time.time() - 600,) * 2)
    assert "last written 600 s ago" in asked(f"fresh://{beat}")[1]


def test_an_address_of_no_kind_is_not_well():
    assert asked("ftp://x")[0] == 1
    assert asked()[0] == 1
