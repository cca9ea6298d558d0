"""The real engine child in its real jail, whose monitor writes down each system call and answers as the filter would.

The filter sends every call to the monitor (SECCOMP_RET_USER_NOTIF), which asks the product's own program what it says
to this call with these arguments, in the simulator of `tests.support.bpf`, and has the kernel go on, fail or kill. No
tracer is needed, so it runs wherever the jail does. The calls are the last words of the child.
"""

import ctypes
import os
import select
import struct
from functools import cache

from haif.engine.sandbox import calls, monitor, policy, seccomp
from tests.support.bpf import decide

PROGRAM = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
from tests.support import traced
traced.trace()
child.main()
"""
_NOTIF_SEND = 0xC0182101
_CONTINUE = 1
_PRODUCT = policy.program
_seen: set[str] = set()


def trace() -> None:
    """From here on this process traces the engine that it becomes the monitor of."""
    policy.program = _everything_to_the_monitor
    monitor._listen = _listen


def names(words: bytes) -> set[str]:
    """The calls in a child's last words: by name, with the answer where that is an error."""
    lines = [line for line in words.decode().splitlines() if line.startswith("traced: ")]
    return set(lines[-1].split()[1:])


def _everything_to_the_monitor(machine: str, pid: int, default: int) -> bytes:
    del pid
    assert default == policy.USER_NOTIF, "this kernel has no listener"
    code = list(policy._prologue(machine))
    for name in policy._HANDOVER:
        code += policy._when(calls.TABLES[machine][name], [policy._do(policy._RETURN, policy.ALLOW)])
    return b"".join([*code, policy._do(policy._RETURN, policy.USER_NOTIF)])


@cache
def _answer(number: int, arguments: tuple[int, ...]) -> int:
    machine = calls.machine()
    return decide(_PRODUCT(machine, 2, policy.KILL_PROCESS), number, calls.AUDIT_ARCH[machine], list(arguments))


_CHECKED = {calls.TABLES[calls.machine()][name] for name in policy._checked(0)}


def _listen(engine: int, listener: int) -> int | None:
    end = os.pidfd_open(engine)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(end, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll())
            if ready.get(listener, 0) & select.POLLIN:
                tried = _one(listener)
                if tried is not None:
                    return tried
            elif end in ready:
                return None
            elif listener in ready:
                poll.unregister(listener)
    finally:
        os.write(2, f"\ntraced: {' '.join(sorted(_seen))}\n".encode())


def _one(listener: int) -> int | None:
    """Answer one call; its number if it is to be the last."""
    notice = ctypes.create_string_buffer(80)
    try:
        calls.call("ioctl", listener, seccomp._NOTIF_RECV, notice)
    except OSError:
        return None
    identity, _, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", notice)
    answer = _answer(number, tuple(arguments) if number in _CHECKED else (0,) * 6)
    name = calls.name_of(number)
    error = 0
    if answer & 0xFFFF0000 == policy._ERRNO:
        error = answer & 0xFFFF
        name += f"={error}"
    elif answer != policy.ALLOW:
        return int(number)
    _seen.add(name)
    reply = ctypes.create_string_buffer(struct.pack("=QqiI", identity, 0, -error, 0 if error else _CONTINUE))
    try:
        calls.call("ioctl", listener, _NOTIF_SEND, reply)
    except OSError:
        return None  # it ended meanwhile
    return None
