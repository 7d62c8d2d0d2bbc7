"""Reads a volume by docs/volume-format.md alone: a second implementation of the format and its cryptography."""

from __future__ import annotations

import hmac
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sconify._shield import Volume

KEY = bytes(range(32))
CONTENT = bytes(range(251)) * 200
Key = tuple[int, int, int]


def derive(key: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, info).derive(key)


def open_message(kind: bytes, key: bytes, place: int, message: bytes, tag: bytes) -> bytes:
    """Section 2."""
    salt, ciphertext = message[:24], message[24:]
    message_key = hmac.digest(key, kind + salt, "sha256")
    return AESGCM(message_key).decrypt(bytes(12), ciphertext + tag, kind + struct.pack("<Q", place))


class Reader:
    """One state of a volume, in a directory."""

    def __init__(self, directory: Path, volume_key: bytes) -> None:
        self._rows = sqlite3.connect(directory / "volume.sqlite")
        self._contents = (directory / "volume.contents").read_bytes()
        header = self._row("volume", 0)
        magic, volume, generation = struct.unpack_from("<8s16sI", header)
        assert (magic, len(header)) == (b"SCNVOLM1", 100)
        wrap = derive(volume_key, b"sconify volume v1 wrap" + volume + struct.pack("<I", generation))
        self._data_key = open_message(b"sconify volume v1 data key", wrap, generation, header[28:84], header[84:])
        row = self._row("volume", 1)
        block = open_message(b"sconify volume v1 superblock", self._key("superblock"), 1, row[:-16], row[-16:])
        self.root = hmac.digest(self._key("root"), block, "sha256")
        fields = struct.unpack_from("<IQIBQ16sQQQQQQH", block)
        version, self.counter, of_header, level, top, tag, _, _, _, self.chunks, self.slots, self.used, count = fields
        assert (version, of_header) == (2, generation)
        start = struct.calcsize("<IQIBQ16sQQQQQQH")
        self.recent = [block[start + 32 * index :][:32] for index in range(count)]
        assert block[start + 32 * count :].strip(b"\0") == b""
        self.records = dict(self._node(top, tag, level))

    def content(self, inode: int) -> bytes:
        size = struct.unpack_from("<Q", self.records[inode, 1, 0], 25)[0]
        content = bytearray(size + 16_384)
        for (owner, kind, index), record in self.records.items():
            if (owner, kind) == (inode, 5):
                chunk = {1: self._chunk, 2: lambda inline: inline[1:], 3: self._slot}[record[0]](record)
                content[index * 16_384 : index * 16_384 + len(chunk)] = chunk
        return bytes(content[:size])

    def names(self, directory: int) -> dict[bytes, int]:
        """Section 5: entries, each at the place of its name."""
        found = {}
        for (owner, kind, place), record in self.records.items():
            if (owner, kind) == (directory, 2):
                name = record[9:]
                digest = hmac.digest(self._key("names"), struct.pack("<Q", directory) + name, "sha256")
                assert place // 128 == struct.unpack("<Q", digest[:8])[0] >> 9
                found[name] = struct.unpack_from("<Q", record)[0]
        return found

    def _key(self, purpose: str) -> bytes:
        return derive(self._data_key, b"sconify volume v1 " + purpose.encode())

    def _row(self, table: str, number: int) -> bytes:
        row = self._rows.execute(f"SELECT data FROM {table} WHERE id = ?", (number,)).fetchone()[0]
        assert isinstance(row, bytes)
        return row

    def _chunk(self, record: bytes) -> bytes:
        number, tag = struct.unpack_from("<Q16s", record, 1)
        return open_message(b"sconify volume v1 chunk", self._key("chunk"), number, self._row("chunk", number), tag)

    def _slot(self, record: bytes) -> bytes:
        number, tag, salt = struct.unpack_from("<Q16s24s", record, 1)
        assert number < self.slots
        sealed = self._contents[number * 16_384 :][:16_384]
        return open_message(b"sconify volume v1 slot", self._key("slot"), number, salt + sealed, tag)

    def _node(self, number: int, tag: bytes, level: int) -> Iterator[tuple[Key, bytes]]:
        text = open_message(b"sconify volume v1 node", self._key("node"), number, self._row("node", number), tag)
        found, count = struct.unpack_from("<BH", text)
        assert (found, len(text)) == (level, 8_064)
        offset = 3
        for _ in range(count):
            key = struct.unpack_from("<QBQ", text, offset)
            offset += 17
            if level == 0:
                length = struct.unpack_from("<H", text, offset)[0]
                yield key, text[offset + 2 : offset + 2 + length]
                offset += 2 + length
            else:
                child, child_tag = struct.unpack_from("<Q16s", text, offset)
                yield from self._node(child, child_tag, level - 1)
                offset += 24
        assert text[offset:].strip(b"\0") == b""


def test_a_volume_is_read_by_its_specification(tmp_path: Path) -> None:
    volume = Volume.create(str(tmp_path), KEY)
    roots = []
    for number in range(200):
        name = f"file-{number}".encode()
        inode = volume.add(Volume.ROOT, name, kind="-")
        volume.write(inode, number, CONTENT[: number * 20])
        roots.append(volume.commit())
    large = volume.add(Volume.ROOT, b"large", kind="-")
    volume.write(large, 40_000, CONTENT)
    roots.append(volume.commit())
    huge = volume.add(Volume.ROOT, b"huge", kind="-")
    volume.write(huge, 0, CONTENT * 10)
    link = volume.add(Volume.ROOT, b"link", kind="l", target=b"t" * 3_000)
    volume.set_xattr(large, b"user.name", b"value")
    counter, root = volume.commit()
    volume.close()

    read = Reader(tmp_path, KEY)
    assert (read.counter, read.root) == (counter, root)
    names = read.names(Volume.ROOT)
    assert len(names) == 203
    for number in range(200):
        expected = bytes(number) + CONTENT[: number * 20] if number else b""
        assert read.content(names[f"file-{number}".encode()]) == expected
    assert read.content(names[b"large"]) == bytes(40_000) + CONTENT
    assert read.content(names[b"huge"]) == CONTENT * 10
    assert read.records[link, 3, 0] + read.records[link, 3, 1] == b"t" * 3_000
    assert read.records[large, 4, 0] == b"\x09user.name" + struct.pack("<I", 5) + b"value"
    stored = [record[0] for (_, kind, _), record in read.records.items() if kind == 5]
    assert (read.chunks, read.used) == (stored.count(1), stored.count(3))
    assert read.slots == read.used == len(CONTENT * 10) // 16_384 + 1
    # Every earlier root is recent or in a history record.
    assert read.recent[-1] == roots[-1][1]
    history = {key[2]: record for key, record in read.records.items() if key[1] == 7}
    assert sorted(history) == [1, 65]
    for earlier, expected_root in roots:
        first = (earlier - 1) // 64 * 64 + 1
        recent = earlier - (counter - len(read.recent))
        found = read.recent[recent] if recent >= 0 else history[first][32 * (earlier - first) :][:32]
        assert found == expected_root


def test_a_rotated_key_wraps_the_same_data_key(tmp_path: Path) -> None:
    volume = Volume.create(str(tmp_path), KEY)
    inode = volume.add(Volume.ROOT, b"file", kind="-")
    volume.write(inode, 0, CONTENT)
    state = volume.rotate(KEY, bytes(32))
    volume.close()
    read = Reader(tmp_path, bytes(32))
    assert (read.counter, read.root) == state
    assert read.content(inode) == CONTENT
