"""Install the filter of system calls, and learn which forbidden one was tried.

The kernel's own answer to a forbidden call, killing the process, does not say which call it was. So the filter asks a
listener instead: the monitor, a process outside, which kills the engine and names the call. The call itself never
happens; without the monitor it fails with ENOSYS. Where the kernel allows no listener, the kernel kills.

1. Install the filter whose default is to ask, with a listener. 2. Send the listener to the monitor. 3. Install a second
filter that forbids the calls of steps 1 and 2. (seccomp(2), seccomp_unotify(2), unix(7))
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from typing import Final

from haif.engine.sandbox import calls, policy

_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_NOTIF_RECV: Final = 0xC0502100
_NOTIF_BYTES: Final = 80
_PACKET: Final = struct.Struct("@QII")  # struct cmsghdr: length, SOL_SOCKET, SCM_RIGHTS
_AF_UNIX, _SEQPACKET_CLOEXEC, _SOL_SOCKET, _SCM_RIGHTS = 1, 0o2000005, 1, 1


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def install(code: bytes, flags: int = 0) -> int:
    """Add a filter to this process for good; the listener if one was asked for. Raises `OSError`."""
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    return calls.call("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(program))


def restrict(handover: int | None) -> None:
    """Confine this process to the calls of `policy`; violations go through `handover` to the monitor if there is one.

    Raises `OSError` if it is not confined.
    """
    machine, pid = calls.machine(), os.getpid()
    if handover is not None:
        try:
            listener = install(policy.program(machine, pid, policy.USER_NOTIF), _NEW_LISTENER)
        except OSError:
            os.close(handover)  # an old kernel, or somebody outside listens already: there can be only one
        else:
            _transfer(handover, "sendmsg", listener)
            os.close(listener)
            os.close(handover)
            install(policy.handed_over(machine))
            return
    install(policy.program(machine, pid, policy.KILL_PROCESS))


def handover_pair() -> tuple[int, int]:
    """Two ends between which a descriptor can be sent."""
    pair = (ctypes.c_int * 2)()
    calls.call("socketpair", _AF_UNIX, _SEQPACKET_CLOEXEC, 0, pair)
    return pair[0], pair[1]


def receive(handover: int) -> int | None:
    """The listener that was sent; None when the other end was closed without one."""
    return _transfer(handover, "recvmsg", -1)


def violation(listener: int) -> int | None:
    """The number of the forbidden call that waits for an answer; None if its process is gone already."""
    buffer = ctypes.create_string_buffer(_NOTIF_BYTES)
    with suppress(OSError):
        calls.call("ioctl", listener, _NOTIF_RECV, buffer)
        return int(struct.unpack_from("=i", buffer, 16)[0])
    return None


def _transfer(handover: int, call: str, descriptor: int) -> int | None:
    """One message of one byte, with a descriptor beside it."""
    byte = ctypes.create_string_buffer(1)
    vector = _Vector(ctypes.addressof(byte), 1)
    size = _PACKET.size + 4
    packet = _PACKET.pack(size, _SOL_SOCKET, _SCM_RIGHTS) + struct.pack("@iI", descriptor, 0)
    control = ctypes.create_string_buffer(packet)
    header = _Header(None, 0, ctypes.addressof(vector), 1, ctypes.addressof(control), len(packet), 0)
    count = calls.call(call, handover, ctypes.byref(header), 0)
    if call == "sendmsg" or count == 0 or header.control_length < size:
        return None
    return int(struct.unpack_from("@i", control, _PACKET.size)[0])
