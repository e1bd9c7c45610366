"""The embedded server, as the processes that use it see it.

Every process here is a real one, and every server too. A *user* is a process that asked for the
server; what it does is given as code, and it speaks over its standard output.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, wait_until_stopped
from musicrec.database.keeper import read_note

pytestmark = pytest.mark.slow

CONNECT = """
import sys, time
import psycopg
from musicrec.database.embedded import running_server
from musicrec.errors import DatabaseError

def connect():
    try:
        server = running_server()
    except DatabaseError as error:
        sys.exit(str(error))
    return psycopg.connect(host=str(server), user="musicrec", dbname="postgres", autocommit=True)

def say(word):
    print(word, flush=True)

connection = connect()
"""
#: Stay until the test closes this process's standard input.
STAY = "say('here'); sys.stdin.read()"
MAKE = "connection.execute('CREATE TABLE plays (play int)');"
PLAY = "connection.execute('INSERT INTO plays VALUES (1)');"
COUNT = "say(connection.execute('SELECT count(*) FROM plays').fetchone()[0]);"

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
DAEMON = 1  #: a user with a name that is neither root nor nobody, on Linux and macOS


def command(code: str) -> list[str]:
    return [sys.executable, "-c", CONNECT + code]


def environment(home: Path, **more: str) -> dict[str, str]:
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": source, "MUSICREC_HOME": str(home), **more}


def run(
    home: Path, code: str, prefix: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """One user from its beginning to its end."""
    return subprocess.run(
        [*prefix, *command(code)], env=environment(home, **more), capture_output=True, text=True
    )


def said(home: Path, code: str, prefix: tuple[str, ...] = (), **more: str) -> str:
    ended = run(home, code, prefix, **more)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def assert_one_line(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode != 0
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


@contextlib.contextmanager
def user(home: Path, code: str = STAY) -> Iterator[subprocess.Popen[str]]:
    """A user that stays; in the block it has said its first word."""
    with subprocess.Popen(
        command(code),
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "here"
        yield process


def server_pid(home: Path) -> int | None:
    note = read_note(home / "postgres" / "data")
    return note.pid if note else None


@pytest.fixture
def new_home() -> Iterator[Callable[[str], Path]]:
    """Makes empty homes, named as asked; stops their servers and removes them afterwards."""
    homes: list[Path] = []

    def make(name: str = "home") -> Path:
        homes.append(Path(tempfile.mkdtemp(prefix="musicrec-test-"), name))
        homes[-1].mkdir()
        homes[-1].parent.chmod(0o755)
        return homes[-1]

    yield make
    for home in homes:
        wait_until_stopped(home)
        shutil.rmtree(home.parent)


@pytest.fixture(scope="module")
def set_up_once() -> Iterator[Path]:
    """A home that was used and left; setting up takes longer than all the rest of a test."""
    home = Path(tempfile.mkdtemp(prefix="musicrec-test-"))
    said(home, MAKE)
    wait_until_stopped(home)
    yield home
    shutil.rmtree(home)


@pytest.fixture
def home(set_up_once: Path, new_home: Callable[[], Path]) -> Path:
    """A home of the test's own, set up, with an empty table of plays; its server is not running."""
    return shutil.copytree(set_up_once, new_home(), symlinks=True, dirs_exist_ok=True)


def test_a_second_process_finds_it_running(home: Path) -> None:
    with user(home):
        first = server_pid(home)
        said(home, COUNT)
        assert server_pid(home) == first


def test_two_processes_at_once_share_one_server(new_home: Callable[[], Path]) -> None:
    home = new_home()
    code = "say(connection.execute('SELECT pg_postmaster_start_time()').fetchone()[0]);" + STAY
    users = [
        subprocess.Popen(
            command(code),
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    started = [process.stdout.readline() for process in users if process.stdout]
    for process in users:
        process.communicate()
    assert started[0].strip()
    assert started[0] == started[1]


@pytest.mark.parametrize("ending", ["return", "exception", "kill -9"])
def test_it_stops_when_nobody_uses_it(home: Path, ending: str) -> None:
    code = {"return": "pass", "exception": "1 / 0", "kill -9": "import os; os.kill(os.getpid(), 9)"}
    run(home, "print(connection.info.host);" + code[ending])
    wait_until_stopped(home)


def test_it_runs_as_long_as_somebody_uses_it(home: Path) -> None:
    with user(home) as first:
        with user(home, PLAY + STAY):
            first.kill()
            first.wait()
            assert said(home, COUNT) == "1"
        wait_until_stopped(home)


def test_stopping_leaves_no_socket_folder_behind(home: Path) -> None:
    folder = Path(said(home, "say(connection.info.host)"))
    wait_until_stopped(home)
    assert not folder.exists()


def test_a_child_left_behind_does_not_keep_it_running(home: Path) -> None:
    pid = said(
        home,
        "import subprocess;"
        "quiet = dict.fromkeys(['stdin', 'stdout', 'stderr'], subprocess.DEVNULL);"
        "say(subprocess.Popen(['sleep', '60'], **quiet).pid)",
    )
    try:
        wait_until_stopped(home)
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_kill_9_of_its_user_keeps_what_was_committed_and_no_more(home: Path) -> None:
    half_done = "connection.autocommit = False;" + PLAY
    with user(home, PLAY + PLAY + half_done + STAY) as process:
        process.kill()
    assert said(home, COUNT) == "2"


def test_kill_9_of_the_server_keeps_what_was_committed(home: Path) -> None:
    with user(home, PLAY + STAY):
        pid = server_pid(home)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert said(home, COUNT) == "1"


def test_it_starts_though_its_old_process_id_went_to_another(home: Path) -> None:
    with user(home):
        note = (home / "postgres" / "data" / "postmaster.pid").read_text()
    wait_until_stopped(home)
    lines = note.splitlines(keepends=True)
    stale = "".join([f"{os.getpid()}\n", *lines[1:]])
    (home / "postgres" / "data" / "postmaster.pid").write_text(stale)
    assert said(home, COUNT) == "0"


def test_it_is_made_anew_where_the_folder_was_deleted_under_it(home: Path) -> None:
    renew = (
        "say(connection.info.host); sys.stdin.read(); connection = connect(); time.sleep(0.5);"
        "connection.execute('SELECT 1')"
    )
    with user(home, "say('here');" + renew) as process:
        assert process.stdout is not None
        old, old_socket = server_pid(home), process.stdout.readline().strip()
        assert old is not None
        shutil.rmtree(home / "postgres")
        process.communicate()
        assert process.returncode == 0
    # Missing its files, it ends by itself within a minute.
    with contextlib.suppress(ProcessLookupError):
        os.kill(old, signal.SIGQUIT)
    shutil.rmtree(old_socket, ignore_errors=True)


@pytest.mark.parametrize("name", ['a listener\'s "home" $HOME', "häuser/und/…", "x" * 120])
def test_the_folder_may_be_named_anything(name: str, new_home: Callable[[str], Path]) -> None:
    home = new_home("parent") / name
    assert said(home, "say(connection.execute('SELECT 1').fetchone()[0])") == "1"
    wait_until_stopped(home)


NAMELESS = 4321  #: a number that has no name in the system's list of users


def becoming(user: int) -> tuple[str, ...]:
    """What makes a command of root's run as ``user``; nothing where the test is no root's.

    Root's Python may lie in a folder closed to all others, hence the right to read it.
    """
    if not IS_ROOT:
        return ()
    rights = ("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search")
    ids = ("--reuid", str(user), "--regid", str(user), "--clear-groups")
    prefix = ("setpriv", *ids, *rights)
    if not shutil.which("setpriv"):
        pytest.skip("running as root, and no setpriv here to become an ordinary user")
    if subprocess.run([*prefix, sys.executable, "-V"], capture_output=True).returncode != 0:
        pytest.skip("running as root, and setpriv may not make an ordinary user that reads Python")
    return prefix


def home_of(user: int, home: Path) -> Path:
    if IS_ROOT:
        os.chown(home, user, user)
    return home


def test_an_ordinary_user_runs_it_as_himself(new_home: Callable[[], Path]) -> None:
    home = home_of(NOBODY, new_home())
    assert said(home, MAKE + PLAY + COUNT, becoming(NOBODY)) == "1"
    owner = (home / "postgres" / "data").stat().st_uid
    assert owner == (NOBODY if IS_ROOT else os.geteuid())


only_root = pytest.mark.skipif(not IS_ROOT, reason="is about what root does")


@only_root
def test_a_user_without_a_name_runs_it_too(new_home: Callable[[], Path]) -> None:
    home = home_of(NAMELESS, new_home())
    prefix = becoming(NAMELESS)
    namespace = ("unshare", "--user", "--map-user", str(NOBODY), "true")
    if subprocess.run([*prefix, *namespace], capture_output=True).returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    assert said(home, MAKE + PLAY + COUNT, prefix) == "1"


@only_root
def test_root_leaves_an_ordinary_users_data_his_own(new_home: Callable[[], Path]) -> None:
    home = home_of(DAEMON, new_home())
    prefix = becoming(DAEMON)
    said(home, MAKE + PLAY, prefix)
    wait_until_stopped(home)
    assert said(home, PLAY + COUNT) == "2"
    wait_until_stopped(home)
    assert said(home, PLAY + COUNT, prefix) == "3"


@only_root
def test_an_ordinary_user_is_told_that_the_data_is_roots(home: Path) -> None:
    ended = run(home, "pass", becoming(NOBODY))
    assert_one_line(ended)
    assert "belongs to the user root; set MUSICREC_HOME" in ended.stderr


@only_root
def test_root_steps_down_without_user_namespaces(home: Path, tmp_path: Path) -> None:
    for tool in ("setpriv", "sh"):
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"no {tool} here")
        (tmp_path / tool).symlink_to(found)
    assert said(home, COUNT, PATH=str(tmp_path)) == "0"
    assert (home / "postgres" / "data").stat().st_uid == NOBODY
    wait_until_stopped(home)
    assert said(home, COUNT) == "0", "and goes on when they are back"


@only_root
def test_root_without_a_way_to_step_down_is_told_the_way_out(home: Path, tmp_path: Path) -> None:
    ended = run(home, "pass", PATH=str(tmp_path))
    assert ended.stderr.startswith("PostgreSQL refuses to run as root")
    assert "set DATABASE_URL to a server" in ended.stderr


def test_data_of_another_version_is_named(home: Path) -> None:
    (home / "postgres" / "data" / "PG_VERSION").write_text("16\n")
    ended = run(home, "pass")
    assert_one_line(ended)
    assert "was made by PostgreSQL 16" in ended.stderr


def test_a_server_that_does_not_start_is_quoted(home: Path) -> None:
    with (home / "postgres" / "data" / "postgresql.conf").open("a") as conf:
        conf.write("shared_memory_type = 'telepathy'\n")
    ended = run(home, "pass")
    assert_one_line(ended)
    assert "contains errors (see " in ended.stderr


def test_a_server_that_does_not_start_leaves_no_socket_folder(home: Path, tmp_path: Path) -> None:
    (home / "postgres" / "data" / "postgresql.conf").write_text("nonsense\n")
    run(home, "pass", TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_one_line(new_home: Callable[[], Path]) -> None:
    home = new_home()
    if not IS_ROOT:
        pytest.skip("only root can mount a small disk")
    mount = f'mount -t tmpfs -o size=8m none "{home}" && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {probe.stderr.strip()}")
    ended = run(home, "pass", prefix)
    assert_one_line(ended)
    assert "No space left on device" in ended.stderr


def test_a_home_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(tmp_path / "file" / "home", "pass")
    assert_one_line(ended)
    assert "set MUSICREC_HOME to a folder you can write" in ended.stderr
