"""ClickHouse's block framing (`decompress=1`): checksum, method, sizes, LZ4. The checksum is not verified."""

import ctypes
import ctypes.util

_HEADER = 9
_CHECKSUM = 16
_METHOD_NONE, _METHOD_LZ4 = 0x02, 0x82


def _library():
    for name in [ctypes.util.find_library("lz4"), "liblz4.so.1"]:
        try:
            return ctypes.CDLL(name) if name else None
        except OSError:
            continue
    return None


_LZ4 = _library()


def decompress(data):
    """Returns the bytes of all blocks; ValueError where one is cut or damaged."""
    out, at = [], 0
    while at < len(data):
        header = data[at + _CHECKSUM : at + _CHECKSUM + _HEADER]
        if len(header) < _HEADER:
            raise ValueError("a block's header is cut")
        size = int.from_bytes(header[1:5], "little")
        whole = int.from_bytes(header[5:9], "little")
        block = data[at + _CHECKSUM + _HEADER : at + _CHECKSUM + size]
        if size < _HEADER or len(block) != size - _HEADER:
            raise ValueError("a block is cut")
        if header[0] == _METHOD_LZ4:
            block = _fast(block, whole) if _LZ4 else _slow(block)
        elif header[0] != _METHOD_NONE:
            raise ValueError(f"compression method {header[0]:#x} is not known here")
        if len(block) != whole:
            raise ValueError("a block has another size than it says")
        out.append(block)
        at += _CHECKSUM + size
    return b"".join(out)


def _fast(block, whole):
    out = ctypes.create_string_buffer(max(whole, 1))
    written = _LZ4.LZ4_decompress_safe(block, out, len(block), whole)
    if written < 0:
        raise ValueError("a block is no LZ4")
    return out.raw[:written]


def _slow(block):
    """Where the machine has no liblz4."""
    out, at = bytearray(), 0

    def length(start, at):
        if start == 15:
            while True:
                start, at = start + block[at], at + 1
                if block[at - 1] != 255:
                    break
        return start, at

    while at < len(block):
        token, at = block[at], at + 1
        literals, at = length(token >> 4, at)
        out += block[at : at + literals]
        at += literals
        if at >= len(block):
            break
        offset, at = int.from_bytes(block[at : at + 2], "little"), at + 2
        match, at = length(token & 15, at)
        match += 4
        if not 0 < offset <= len(out):
            raise ValueError("a block is no LZ4")
        for _ in range(match):
            out.append(out[-offset])
    return bytes(out)
