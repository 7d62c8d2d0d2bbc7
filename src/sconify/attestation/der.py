"""DER (ITU-T X.690), as strictly as evidence needs it: definite lengths in their shortest form, one-byte tags."""

from __future__ import annotations

from dataclasses import dataclass

from sconify.errors import UntrustedDataError

INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER = 0x02, 0x03, 0x04, 0x06
UTF8_STRING, IA5_STRING, ENUMERATED, BOOLEAN = 0x0C, 0x16, 0x0A, 0x01
SEQUENCE = 0x30


@dataclass(frozen=True)
class Element:
    """One element: its tag, its content, and its whole encoding."""

    tag: int
    content: bytes
    encoding: bytes

    def children(self) -> tuple[Element, ...]:
        """Return the elements that the content consists of.

        Raises:
            UntrustedDataError: The content is no sequence of elements.
        """
        found, rest = [], self.content
        while rest:
            element, rest = _split(rest)
            found.append(element)
        return tuple(found)

    def expect(self, tag: int) -> Element:
        """Return this element if it has a tag.

        Raises:
            UntrustedDataError: It has another one.
        """
        if self.tag != tag:
            raise UntrustedDataError(f"DER: got tag 0x{self.tag:02x}, expected 0x{tag:02x}")
        return self

    def unsigned(self) -> int:
        """Return the value of an INTEGER or ENUMERATED that is not negative.

        Raises:
            UntrustedDataError: It is none, or it is not in its shortest form.
        """
        content = self.content
        if (
            self.tag not in (INTEGER, ENUMERATED)
            or not content
            or content[0] & 0x80
            or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80)
        ):
            raise UntrustedDataError("DER: expected an unsigned integer")
        return int.from_bytes(content)


def parse(data: bytes) -> Element:
    """Return the one element that the data is.

    Raises:
        UntrustedDataError: It is none, or something stands behind it.
    """
    element, rest = _split(data)
    if rest:
        raise UntrustedDataError(f"DER: {len(rest)} bytes stand behind the value")
    return element


def oid(dotted: str) -> bytes:
    """Return the content of an OBJECT IDENTIFIER: ``1.2.840`` as bytes."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    encoded = bytearray()
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        encoded += bytes(reversed(groups))
    return bytes(encoded)


def _split(data: bytes) -> tuple[Element, bytes]:
    if len(data) < 2:
        raise UntrustedDataError("DER: the data ends within an element")
    tag, length, start = data[0], data[1], 2
    if tag & 0x1F == 0x1F:
        raise UntrustedDataError("DER: a tag has more than one byte")
    if length & 0x80:
        size = length & 0x7F
        start += size
        length = int.from_bytes(data[2:start])
        # 0x80 is the indefinite form; a leading zero or a value below 128 has a shorter form.
        if not 1 <= size <= 4 or len(data) < start or data[2] == 0 or length < 0x80:
            raise UntrustedDataError("DER: a length is not in its shortest form")
    end = start + length
    if len(data) < end:
        raise UntrustedDataError("DER: the data ends within an element")
    return Element(tag, data[start:end], data[:end]), data[end:]
