"""A client of SFTP version 3 (draft-ietf-secsh-filexfer-02), as far as copying files to a host needs it.

OpenSSH's own `sftp` gives a new file the mode of the local one, and tells errors apart by their English only.
"""

import errno
import stat
from pathlib import Path
from posixpath import dirname
from struct import pack, unpack_from
from subprocess import Popen
from typing import Any, BinaryIO

CHUNK = 32768
INIT, OPEN, CLOSE, WRITE, MKDIR, STAT = 1, 3, 4, 6, 14, 17
STATUS = 101
READ_WRITE_CREATE_TRUNCATE = 0x01 | 0x02 | 0x08 | 0x10
HAS_SIZE, HAS_OWNER, HAS_MODE = 1, 2, 4
OK, NO_SUCH_FILE, PERMISSION_DENIED = 0, 2, 3
NO_ATTRIBUTES = pack(">I", 0)
"""The server decides: 0666 and 0777 less its umask."""


class Sftp:
    """Over the streams of the process that leads to the server; a refusal is an OSError whose `strerror` says why."""

    def __init__(self, process: Popen[bytes]) -> None:
        assert process.stdin  # noqa: S101 - for the type checker, as the next
        assert process.stdout  # noqa: S101
        self._to, self._back = process.stdin, process.stdout
        self._number = 0
        self._send(pack(">BI", INIT, 3))
        self._receive()

    def is_directory(self, path: str) -> bool | None:
        """None where there is nothing of that name."""
        try:
            answer = self._call(STAT, _text(path))
        except FileNotFoundError:
            return None
        flags = unpack_from(">I", answer)[0]
        place = 4 + 8 * bool(flags & HAS_SIZE) + 8 * bool(flags & HAS_OWNER)
        return bool(flags & HAS_MODE) and stat.S_ISDIR(unpack_from(">I", answer, place)[0])

    def make_directory(self, path: str) -> None:
        self._call(MKDIR, _text(path) + NO_ATTRIBUTES)

    def make_directories(self, path: str) -> None:
        found = self.is_directory(path or ".")
        if found:
            return
        if found is False:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        self.make_directories(dirname(path.rstrip("/")))
        self.make_directory(path)

    def put(self, content: BinaryIO, path: str) -> None:
        """Write a file; one that is there keeps its owner and mode."""
        handle = self._call(OPEN, _text(path) + pack(">I", READ_WRITE_CREATE_TRUNCATE) + NO_ATTRIBUTES)
        offset = 0
        while data := content.read(CHUNK):
            self._call(WRITE, handle + pack(">QI", offset, len(data)) + data)
            offset += len(data)
        self._call(CLOSE, handle)

    def _call(self, kind: int, body: bytes) -> bytes:
        self._number += 1
        self._send(pack(">BI", kind, self._number) + body)
        answer = self._receive()
        if answer[0] == STATUS and (code := unpack_from(">I", answer, 5)[0]) != OK:
            length = unpack_from(">I", answer, 9)[0]
            raise _refusal(code, answer[13 : 13 + length].decode(errors="replace"))
        return answer[5:]

    def _send(self, packet: bytes) -> None:
        self._to.write(pack(">I", len(packet)) + packet)
        self._to.flush()

    def _receive(self) -> bytes:
        return self._read(unpack_from(">I", self._read(4))[0])

    def _read(self, count: int) -> bytes:
        data = self._back.read(count)
        if len(data) < count:
            raise ConnectionError(errno.ECONNRESET, "the connection ended")
        return data


def copy(sftp: Sftp, source: str, target: str) -> None:
    """Copy a file or a directory (with "/" at its end: what is in it) as pulumi-command does, with its errors.

    Raises OSError, with what was not possible first.
    """
    path = Path(source)
    found = _find(sftp, target)
    if not path.is_dir():
        _opened(path, f"open {path}").close()  # before anything is made there
        if found:
            target = _join(target, path.name)
        elif found is None:
            _do(f"create parent directories for {target}", sftp.make_directories, dirname(target))
        _put(sftp, path, target)
        return
    if found is None:
        _do(f"create remote directory {target}", sftp.make_directories, target)
    if not source.endswith("/"):
        target = _join(target, path.name)
        _make(sftp, target)
    _copy_directory(sftp, path, target)


def _copy_directory(sftp: Sftp, path: Path, target: str) -> None:
    _make(sftp, target)
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            _copy_directory(sftp, entry, _join(target, entry.name))
        else:
            _put(sftp, entry, _join(target, entry.name))


def _put(sftp: Sftp, path: Path, target: str) -> None:
    with _opened(path, f"failed to copy file {path} to remote path {target}: read {path}") as content:
        _do(f"create remote file {target}", sftp.put, content, target)


def _opened(path: Path, doing: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise OSError(f"{doing}: {(error.strerror or str(error)).lower()}") from error


def _make(sftp: Sftp, target: str) -> None:
    found = _find(sftp, target)
    if found is False:
        raise NotADirectoryError(f"remote path {target} exists but is not a directory")
    if found is None:
        _do(f"create remote directory {target}", sftp.make_directory, target)


def _find(sftp: Sftp, target: str) -> bool | None:
    found: bool | None = _do(f"stat remote path {target}", sftp.is_directory, target)
    return found


def _do(what: str, call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        raise OSError(f"failed to {what}: {error.strerror}") from error


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _text(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return pack(">I", len(data)) + data


def _refusal(code: int, text: str) -> OSError:
    if code == NO_SUCH_FILE:
        return FileNotFoundError(errno.ENOENT, "file does not exist")
    if code == PERMISSION_DENIED:
        return PermissionError(errno.EACCES, "permission denied")
    return OSError(errno.EIO, f'sftp: "{text}"')
