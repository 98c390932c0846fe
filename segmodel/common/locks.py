"""One writer at a time: locks on files and folders, which die with the process that holds them.

The lock of a folder is a file ``.lock`` in it, that of a file ``.NAME.lock`` beside it: locked by ``flock`` (on Windows
by ``msvcrt.locking``), and removed in the end. A process that is killed leaves the file and no lock.
"""

import atexit
import errno
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from segmodel.common.errors import Note, UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
"""Name of the file in a folder, and ending beside a file."""
FAR = 1 << 30
"""The byte that is locked: Windows would let nobody read a locked one, and the file says who holds it."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""What file systems without locks say."""


class Taken(UserError):
    """Another process writes what only one may write at a time."""


_descriptors: set[int] = set()


def _let_go() -> None:
    """In a forked process: a loader's worker that outlives its killed parent must not hold what that held."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def lock_beside(path: Path) -> Path:
    """The lock file of a file, or of a folder that is replaced as a whole."""
    return path.with_name(f".{short_name(path)}{LOCK}")


def short_name(path: Path) -> str:
    """A file's name, cut so that something may be added to it."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= 200 else f"{path.name[:40]}-{hashlib.sha256(name).hexdigest()[:16]}"


@contextmanager
def locked(file: Path, what: str) -> Iterator[bool]:
    """Holds the lock of this lock file while the block runs; whether a process that was killed had left the file.

    A folder that was made for it, and is empty in the end, goes with it.

    Raises:
        Taken: ``what`` is being written by another process. UserError: the file cannot be made.
    """
    try:
        made = not file.parent.exists()
        descriptor, left = _take(file)
    except BlockingIOError as error:
        raise Taken(f"{what}: is being written by {_holder(file)}; expected one writer at a time") from error
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror})") from error
    _descriptors.add(descriptor)
    owner = os.getpid()
    with suppress(OSError):  # it is for people
        os.write(descriptor, f"process {owner} on {socket.gethostname()}\n".encode())
    try:
        yield left
    finally:
        if owner == os.getpid() and descriptor in _descriptors:
            _descriptors.discard(descriptor)
            if os.name == "nt":  # which removes no open file
                os.close(descriptor)
            with suppress(OSError):
                file.unlink()
            if os.name != "nt":
                os.close(descriptor)
            if made:
                with suppress(OSError):
                    file.parent.rmdir()


def is_locked(file: Path) -> bool:
    """Whether some process holds the lock of this lock file."""
    if not file.exists():
        return False
    with suppress(UserError), locked(file, ""):
        return False
    return True


def _take(file: Path) -> tuple[int, bool]:
    """A descriptor that holds the lock, and whether the file was there before.

    Raises:
        BlockingIOError: another one holds it. OSError: the file cannot be made.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        left = file.exists()
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:
            continue  # who held it has removed the folder meanwhile
        try:
            _lock(descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                    os.ftruncate(descriptor, 0)
                    return descriptor, left
        except OSError as error:
            if error.errno in NO_LOCKS:
                warnings.warn(Note(f"{file.parent}: cannot be locked here ({error.strerror}): nothing but care keeps "
                                   f"a second process from writing it"), stacklevel=2)  # fmt: skip
                return descriptor, left
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has removed the file meanwhile


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: Path) -> str:
    """Who holds a lock, as far as its file says."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:200].strip() or "another process"
    except OSError:
        return "another process"


class _Claims(ExitStack):
    """The locks of a command."""

    def __init__(self) -> None:
        super().__init__()
        self.files: set[Path] = set()


_for_good = _Claims()
atexit.register(_for_good.close)
_claims: ContextVar[_Claims] = ContextVar("claims", default=_for_good)


@contextmanager
def claims() -> Iterator[None]:
    """What is claimed in the block is let go at its end; what is claimed outside of one, when the process ends."""
    with _Claims() as own:
        token = _claims.set(own)
        try:
            yield
        finally:
            _claims.reset(token)


def claim(file: Path, what: str) -> bool:
    """Holds the lock of this lock file until the command ends; see ``locked``."""
    own = _claims.get()
    if file in own.files:
        return False
    left = own.enter_context(locked(file, what))
    own.files.add(file)
    return left
