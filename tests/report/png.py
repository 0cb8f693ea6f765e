"""Makes a screenshot small enough for a repository: its 256 most common colours stand for all that are like them."""

import struct
import zlib
from collections import Counter

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = 256
RGB = 3


def with_fewer_colours(image: bytes) -> bytes:
    """A PNG with a palette, of one with 8 bits for each of red, green and blue."""
    width, rows = _decoded(image)
    pixels = [[row[at : at + RGB] for at in range(0, len(row), RGB)] for row in rows]
    counted = Counter(pixel for row in pixels for pixel in row)
    palette = [colour for colour, _ in counted.most_common(COLOURS)]
    index = {colour: _nearest(colour, palette) for colour in counted}
    lines = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in pixels)
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    parts = {b"IHDR": header, b"PLTE": b"".join(palette), b"IDAT": zlib.compress(lines, 9), b"IEND": b""}
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in parts.items())


def _nearest(colour: bytes, palette: list[bytes]) -> int:
    distances = (sum((one - other) ** 2 for one, other in zip(colour, known, strict=True)) for known in palette)
    return min(enumerate(distances), key=lambda found: found[1])[0]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _decoded(image: bytes) -> tuple[int, list[bytes]]:
    """The width in pixels, and the rows."""
    at, compressed, width = len(SIGNATURE), b"", 0
    while at < len(image):
        [length], name = struct.unpack(">I", image[at : at + 4]), image[at + 4 : at + 8]
        data = image[at + 8 : at + 8 + length]
        if name == b"IHDR":
            width, _, bits, kind = struct.unpack(">IIBB", data[:10])
            assert (bits, kind) == (8, 2)
        compressed += data if name == b"IDAT" else b""
        at += length + 12
    raw, stride, rows = zlib.decompress(compressed), width * RGB, list[bytes]()
    before = bytes(stride)
    for start in range(0, len(raw), stride + 1):
        before = _unfiltered(raw[start], raw[start + 1 : start + 1 + stride], before)
        rows.append(before)
    return width, rows


def _unfiltered(kind: int, line: bytes, above: bytes) -> bytes:
    """By the filters of PNG: none, left, above, the mean of both, Paeth's."""
    if kind == 0:
        return line
    row = bytearray(line)
    for at, value in enumerate(line):
        left, corner = (row[at - RGB], above[at - RGB]) if at >= RGB else (0, 0)
        guess = (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner) if kind == 4 else 0)
        row[at] = (value + guess[kind]) & 0xFF
    return bytes(row)


def _paeth(left: int, above: int, corner: int) -> int:
    return min((left, above, corner), key=lambda one: abs(left + above - corner - one))
