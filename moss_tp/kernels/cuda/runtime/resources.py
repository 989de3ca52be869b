"""What a compiled kernel needs of a multiprocessor, read from its cubin: no GPU, no other program.

A cubin is an ELF file. Its section `.nv.info` is a list of attributes, of which those in use here
hold a pair of 32-bit numbers: a function's symbol and a value. A value that does not fit into
registers lies in the function's stack frame, in slow memory: that is a spill.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

KIB = 1024
# Most shared memory of a program by compute capability (CUDA C++ Programming Guide, table
# "Technical Specifications per Compute Capability").
SHARED_LIMITS = {
    80: 163 * KIB,
    86: 99 * KIB,
    87: 163 * KIB,
    89: 99 * KIB,
    90: 227 * KIB,
    100: 227 * KIB,
    103: 227 * KIB,
    120: 99 * KIB,
}
_REGISTERS, _FRAME = 0x2F, 0x11  # attributes: EIATTR_REGCOUNT, EIATTR_FRAME_SIZE
_PAIR = 4  # the format of an attribute whose value follows it
_HEADER = struct.Struct("<BBH")  # format, attribute, size of a value that follows
_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Registers:
    """Of one thread: 32-bit registers, and bytes of its stack frame."""

    registers: int
    stack_bytes: int


def shared_limit(cc: int) -> int:
    """Bytes of shared memory that a program may have on compute capability `cc` (90 is 9.0): of a
    capability that is not known, those of the next lower one. ValueError for one below 80."""
    known = [capability for capability in SHARED_LIMITS if capability <= cc]
    if not known:
        raise ValueError(f"compute capability {cc} is below {min(SHARED_LIMITS)}")
    return SHARED_LIMITS[max(known)]


def read_registers(cubin: bytes) -> Registers:
    """The largest values of the cubin's functions. Raises ValueError if it is none."""
    values: dict[int, list[int]] = {_REGISTERS: [], _FRAME: []}
    for attribute, value in _attributes(_section(cubin, ".nv.info")):
        if attribute in values:
            values[attribute].append(struct.unpack("<II", value)[1])
    if not values[_REGISTERS]:
        raise ValueError("the cubin does not say how many registers it needs")
    return Registers(max(values[_REGISTERS]), max(values[_FRAME], default=0))


def _section(elf: bytes, wanted: str) -> bytes:
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("this is no cubin: not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    sections = [_SECTION.unpack_from(elf, table + size * i) for i in range(count)]
    for name, _, _, _, offset, length, *_ in sections:
        start = sections[names][4] + name
        if elf[start : elf.index(b"\0", start)] == wanted.encode():
            return elf[offset : offset + length]
    raise ValueError(f"the cubin has no section {wanted}")


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(info):
        kind, attribute, size = _HEADER.unpack_from(info, place)
        place += _HEADER.size
        if kind == _PAIR:
            yield attribute, info[place : place + size]
            place += size
