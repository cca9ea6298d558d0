"""A classic BPF interpreter for seccomp filters: what the kernel would answer, without asking it."""

import struct


def decide(program: bytes, number: int, arch: int, arguments: list[int]) -> int:
    """The filter's answer to one call."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(each & (1 << 64) - 1 for each in arguments))
    code = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    while True:
        kind, yes, no, value = code[place]
        place += 1
        if kind == 0x06:
            return value
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif kind in (0x15, 0x35, 0x45):
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[kind]
            place += yes if holds else no
        else:
            raise ValueError(f"instruction {kind:#x} is not one that the filters use")
