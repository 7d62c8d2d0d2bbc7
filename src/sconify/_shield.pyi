"""The protected-file format, implemented in Rust (crates/shield, crates/bindings) as docs/format.md specifies it.

Paths are bytes: absolute and normal. Files of this machine are named by str. The interpreter lock is released during
work on files. Errors: ``ShieldError`` for what the format refuses, ``OSError`` for what the operating system refuses,
``ValueError`` for arguments that are not well formed.
"""

from collections.abc import Callable
from typing import final

class ShieldError(Exception):
    """The format refuses what it was given: data that fails a check, or input that it can't express."""

@final
class Builder:
    """Collects what a protected file system shall hold, then writes it; for one use.

    The result depends on the key and on what was added alone: neither on the order of the calls nor on threads.

    Args:
        key: The file system key, 32 bytes.
    """

    def __init__(self, key: bytes) -> None: ...
    def add_region(self, prefix: bytes, kind: str, reason: str) -> None:
        """Declare a region.

        Args:
            prefix: The path at which it begins.
            kind: ``encrypted``, ``authenticated``, ``ephemeral``, ``volume`` or ``host``.
            reason: Why, for people.
        """

    def key_is_fresh(self) -> None:
        """Say that the key was made at random for this file system and encrypts nothing else, ever; that saves time."""

    def digest_chunks(self) -> None:
        """Let ``finish`` compute ``Built.digests``."""

    def use_cache(self, directory: str, key: bytes) -> None:
        """Let a directory remember how contents compress; the result is the same with and without.

        Args:
            directory: An existing directory, for files of the cache alone. What can't be read or written there is
                passed over.
            key: What the entries are encrypted under, 32 bytes.
        """

    def add_pack(self, name: bytes, image_path: bytes, output: str) -> int:
        """Declare a pack and return its number.

        Args:
            name: The pack's name, unique: the prefix of its region.
            image_path: Where it will stand in the image.
            output: The file that ``finish`` creates. Packs one after the other may name the same one: then it
                has all of them, in order and without gaps.
        """

    def add_entry(
        self,
        path: bytes,
        *,
        type: str,  # noqa: A002 - the format's own word
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        mtime_nsec: int,
        inode: int,
        source: str | None = None,
        offset: int = 0,
        size: int = 0,
        pack: int | None = None,
        target: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        """Add an entry.

        Args:
            path: The path.
            type: ``-`` ``d`` ``l`` ``c`` ``b`` or ``p``, as in ``ls -l``.
            mode: Permission bits with set-id and sticky, at most 0o7777.
            uid: The owner.
            gid: The group.
            mtime: Time of the last change in seconds since 1970.
            mtime_nsec: Nanoseconds within that second.
            inode: Not 0. Entries that share it are hard links and must agree in all but their path, the pack included.
            source: Of a file: the file of this machine that holds the content; None for an empty file.
            offset: Where in ``source`` the content begins, in bytes.
            size: Bytes of content.
            pack: Of a file: the pack's number, or None for an authenticated plain file, which is only hashed.
            target: Of a symlink.
            device: Major and minor number of a device.
            xattrs: Extended attributes.
        """

    def add_omitted(self, path: bytes) -> None:
        """Note a path of the native image that was left out, with all beneath it; for messages only."""

    def bounds(self) -> tuple[int, int]:
        """Return the most bytes that the index can have, and the bytes that ``Built.digests`` will have.

        Raises:
            ShieldError: If the format can't express what was added.
        """

    def finish(
        self,
        index_output: str,
        *,
        gap: int = 0,
        progress: Callable[[int], object] | None = None,
        threads: int = 0,
    ) -> Built:
        """Write the packs and the index. On any failure the outputs are removed.

        Packs are written one after the other: once one's file has something in it, the one before is complete.

        Args:
            index_output: The file of the index.
            gap: Bytes at the start of each file with packs that are left to the caller.
            progress: Gets the number of content bytes done so far, at most 20 times a second. What it raises (and
                any pending signal) ends the work and is raised from here.
            threads: Threads that compress and encrypt; 0 means one for each processor.

        Raises:
            ShieldError: If the format can't express what was added (before anything is read), or a source was
                changed or is too short.
            OSError: If a file can't be read or written.
        """

@final
class Built:
    """What ``Builder.finish`` made."""

    @property
    def tag(self) -> bytes:
        """The root tag, 16 bytes."""

    @property
    def packs(self) -> list[tuple[bytes, int, int, int, int]]:
        """By number: name, bytes stored, bytes of content, files (hard links once), chunks."""

    @property
    def digests(self) -> bytes:
        """SHA-256 of each chunk as it is stored, pack after pack; empty unless ``digest_chunks`` asked for it."""

    @property
    def entries(self) -> int:
        """How many entries the index has."""

def key_commitment(key: bytes) -> bytes:
    """Return 32 bytes that only this file system key has, and that tell nothing about it."""

@final
class Index:
    """A verified index."""

    @staticmethod
    def open(path: str, key: bytes, tag: bytes) -> Index:
        """Verify and read an index.

        Args:
            path: The file of the index.
            key: The file system key, 32 bytes.
            tag: The root tag, 16 bytes.

        Raises:
            ShieldError: If the index has another tag, does not authenticate, or is malformed.
            OSError: If the file can't be read.
        """

    @staticmethod
    def embedded(index: bytes, key: bytes, *, file: str, offset: int, digests: bytes) -> Index:
        """Verify and read an index that is embedded in a binary, whose root tag is that of the index itself.

        Args:
            index: The index.
            key: The file system key, 32 bytes.
            file: The binary.
            offset: Where its packs begin.
            digests: SHA-256 of each chunk, pack after pack.

        Raises:
            ShieldError: If the index does not authenticate or is malformed, or there is not one digest for each chunk.
        """

    def paths(self) -> list[bytes]:
        """Return all paths, sorted."""

    def entry(self, path: bytes) -> dict[str, object]:
        """Return one entry.

        Always has ``type``, ``mode``, ``uid``, ``gid``, ``mtime``, ``mtime_nsec``, ``inode``, ``nlink``, ``size``,
        ``xattrs`` and ``region`` (a kind, or None if undeclared); by type ``pack`` (number) or ``sha256`` (32 bytes),
        ``target``, ``device``.

        Raises:
            KeyError: If the index does not list the path.
        """

    def regions(self) -> list[tuple[bytes, str, str]]:
        """Return prefix, kind and reason of each region, sorted by prefix."""

    def omitted(self) -> list[bytes]:
        """Return the paths that were left out, sorted."""

    def read(self, path: bytes, root: str) -> bytes:
        """Return the verified content of a file, read beneath the directory ``root`` that stands for the image's root.

        Of an embedded index, contents are in the binary, and ``root`` has no meaning.

        Raises:
            KeyError: If the index does not list the path.
            ShieldError: If the path is no file, or the pack or plain file is not what the index describes.
            OSError: If a file can't be read.
        """

    def extract(self, path: bytes, root: str, output: str) -> None:
        """Copy the verified content of a file into a new one, ``output``, of mode 0600; what is in a pack, by pieces.

        On any failure ``output`` is removed. Otherwise as ``read``.
        """

class VolumeError(Exception):
    """A volume is not what its owner knows: changed, older, forked or foreign."""

@final
class Volume:
    """An encrypted volume (crates/volume, docs/volume-format.md). Inodes are numbers; names are bytes.

    All methods raise ``VolumeError`` for what the host may have changed, and ``OSError`` with the error number of a
    file system for the rest: EBUSY if another process uses the volume, ENOENT if there is none, EEXIST if there is one
    already, EROFS for changes of one that is open for reading.
    """

    ROOT: int
    """The inode of the top directory."""

    @staticmethod
    def create(directory: str, key: bytes) -> Volume:
        """Make an empty volume in an existing directory, and open it for writing."""

    @staticmethod
    def open(
        directory: str, key: bytes, *, expected: tuple[int, bytes] | None = None, writable: bool = False
    ) -> Volume:
        """Open a volume.

        Args:
            directory: Where it stands.
            key: The volume key, 32 bytes.
            expected: Counter and root (32 bytes) of the state in which it must be, or of an earlier one of its history;
                None takes every state.
            writable: Whether it may be changed; nobody else may use it then.
        """

    def facts(self) -> dict[str, object]:
        """Return what is known without reading files.

        Returns:
            ``volume`` (its name in hex), ``counter``, ``root`` (32 bytes), ``key_generation``, and the sizes
            ``chunk_bytes``, ``database_bytes``, ``contents_bytes`` and ``free_bytes``.
        """

    def check(self) -> dict[str, object]:
        """Read and authenticate all that is stored.

        Returns:
            How many ``inodes``, ``directories``, ``chunks`` and ``bytes`` there are, and ``problems``: a text for each.
        """

    def attributes(self, inode: int) -> dict[str, object]:
        """Return the attributes of an inode.

        Returns:
            ``type`` (``-`` ``d`` ``l`` ``p`` ``s`` ``c`` ``b``), ``mode``, ``uid``, ``gid``, ``nlink``, ``size``,
            ``device``, ``mtime`` and ``mtime_nsec``.
        """

    def entries(self, directory: int) -> list[tuple[bytes, int, str]]:
        """Return name, inode and type of each entry but ``.`` and ``..``."""

    def lookup(self, directory: int, name: bytes) -> int:
        """Return the inode of a name."""

    def read(self, inode: int, offset: int, length: int) -> bytes:
        """Return content; less than asked for at the end of the file only."""

    def extent(self, inode: int, offset: int) -> tuple[int, int] | None:
        """Return begin and end of the next data at or after an offset, or None if only a hole is left."""

    def target(self, inode: int) -> bytes:
        """Return the target of a symbolic link."""

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """Return the extended attributes."""

    def add(
        self,
        directory: int,
        name: bytes,
        *,
        kind: str,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        target: bytes | None = None,
        device: tuple[int, int] = (0, 0),
    ) -> int:
        """Create an inode of a kind, a letter as in ``attributes``, and return its number."""

    def link(self, inode: int, directory: int, name: bytes) -> None:
        """Give an inode another name."""

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Write content."""

    def truncate(self, inode: int, size: int) -> None:
        """Set the size of a file."""

    def set_attributes(self, inode: int, *, mode: int, uid: int, gid: int, mtime: int, mtime_nsec: int) -> None:
        """Set the attributes of an inode; the time of access becomes that of the change of content."""

    def set_xattr(self, inode: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""

    def commit(self) -> tuple[int, bytes]:
        """Make all changes durable; return counter and root of the new state."""

    def rotate(self, old_key: bytes, new_key: bytes) -> tuple[int, bytes]:
        """Change the volume key; return counter and root of the new state."""

    def backup(self, directory: str) -> tuple[int, bytes]:
        """Copy the volume, encrypted as it is, to a directory without one; return counter and root of the copy."""

    def close(self) -> None:
        """Commit and close."""
