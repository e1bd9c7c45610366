# ruff: noqa: S603  every command is a program of the wheel or the system, and no shell's
"""The account the embedded server runs under: PostgreSQL refuses to be root.

An ordinary user runs it as himself, or, where his number has no name, as 2. Root runs it, in this
order of preference,

1. as whoever owns the data, if that is an ordinary user (somebody typed ``sudo`` once),
2. in a user namespace where the own id is called nobody: nothing changes hands,
3. as the account nobody, which then owns the data folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musicrec.errors import DatabaseError

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Account:
    """How to run a server command, and who owns the files it makes.

    Attributes:
        prefix: what stands before the command, empty for an ordinary user.
        owner: user id, as this process sees it, of the server's files.
    """

    prefix: tuple[str, ...]
    owner: int

    def give(self, folder: Path) -> None:
        """Make everything in ``folder`` the account's own, if it is not already."""
        if folder.stat().st_uid == self.owner:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.owner, -1, follow_symlinks=False)


def server_account(data: Path, postgres: Path) -> Account:
    """The account for the data folder ``data``, which may not exist yet.

    Args:
        data: the server's data folder.
        postgres: the server's binary; an account that cannot run it is passed over.

    Raises:
        DatabaseError: the data belongs to another user, or PostgreSQL runs under no account
            that can be had here.
    """
    me, owner = os.geteuid(), _owner(data, "set DATABASE_URL to a server")
    for account in _accounts_for_root(owner) if me == 0 else _accounts_for_user(me):
        if _can_run(account, postgres):
            return account
    raise DatabaseError(
        f"PostgreSQL refuses to run as {'root' if me == 0 else f'user {me}, who has no name'}, "
        "and neither `unshare --user` nor `setpriv` can step aside here; run as an ordinary user, "
        "or set DATABASE_URL to a server"
    )


def owner_account(data: Path, program: Path, instead: str) -> Account:
    """The account for a server that runs as root, too: that of the owner of its data.

    Args:
        data: the server's data folder, which may not exist yet.
        program: the server's binary.
        instead: what a person can do to need no such server, for the message.

    Raises:
        DatabaseError: the data belongs to another user, or root cannot become its owner.
    """
    me, owner = os.geteuid(), _owner(data, instead)
    if owner == me:
        return Account((), me)
    for account in _switched_to(owner):
        if _can_run(account, program):
            return account
    raise DatabaseError(
        f"{data} belongs to the user {_name(owner) or owner}, and `setpriv` cannot become that "
        f"user here; run as {_name(owner) or owner}, or {instead}"
    )


def _owner(data: Path, instead: str) -> int:
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else me
    if me not in (0, owner):
        raise DatabaseError(
            f"{data} belongs to the user {_name(owner) or owner}; set MUSICREC_HOME to a folder "
            f"of your own, or {instead}"
        )
    return owner


def _can_run(account: Account, program: Path) -> bool:
    command = [*account.prefix, str(program), "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _accounts_for_user(me: int) -> Iterator[Account]:
    if _name(me):
        yield Account((), me)
    else:
        # A container may run as a number without a name, which PostgreSQL insists on.
        yield from _called_nobody(me)


def _accounts_for_root(owner: int) -> Iterator[Account]:
    if owner not in (0, NOBODY):
        yield from _switched_to(owner)
        return
    yield from _called_nobody(0)
    yield from _switched_to(NOBODY)


def _called_nobody(me: int) -> Iterator[Account]:
    if unshare := shutil.which("unshare"):
        mapped = ("--user", "--map-user", str(NOBODY), "--map-group", str(NOBODY))
        yield Account((unshare, *mapped), me)


def _switched_to(user: int) -> Iterator[Account]:
    if setpriv := shutil.which("setpriv"):
        switch = ("--reuid", str(user), "--regid", str(user), "--clear-groups")
        # Passing folders that are root's alone (0700) takes this capability; where a container
        # withholds it the plain switch still serves folders that are open to all.
        capability = ("--inh-caps", "-all,+dac_override", "--ambient-caps", "-all,+dac_override")
        yield Account((setpriv, *switch, *capability), user)
        yield Account((setpriv, *switch), user)


def _name(user: int) -> str | None:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return None
