"""The system calls that an engine may make once it is sealed, as a BPF program.

Found by tracing the engine after the seal, and traced again by the tests; everything that is not here ends the engine.
A check of an argument is a check of all of its 64 bits. Paths cannot be seen from here, so every call that takes one
fails.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from haif.engine.sandbox.calls import AUDIT_ARCH, TABLES

KILL_PROCESS: Final = 0x80000000
USER_NOTIF: Final = 0x7FC00000
ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000

_LOAD, _EQUAL, _HAS_BITS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32: Final = 0x40000000

_PROT_EXEC: Final = 4
_PTHREAD_FLAGS: Final = 0x3D0F00  # what glibc gives clone for a thread: everything shared, and nothing new
_SIGSYS: Final = 31
_RLIMIT_AS: Final = 9

_TRACED: Final = (
    "futex", "read", "write", "munmap", "madvise", "brk", "close", "lseek", "rt_sigreturn", "rt_sigprocmask", "gettid",
    "getpid", "poll", "pread64", "exit_group", "set_robust_list", "rseq", "getrandom", "fadvise64", "sysinfo",
)  # fmt: skip
RARE: Final = {
    "clock_gettime": "a clock that the vDSO cannot read",
    "exit": "a thread that ends",
    "fstat": "how C libraries after 2.36 look at an open file",
    "mremap": "an allocation of more than 32 MiB that grows",
    "ppoll": "poll, on aarch64",
    "restart_syscall": "a poll that goes on after SIGSTOP and SIGCONT",
    "sched_getaffinity": "malloc for one more thread, in C libraries after 2.34",
    "sched_yield": "a lock of llama.cpp that two threads want",
}
"""Calls that a trace of one machine does not show, and what makes them."""
_FAILING: Final = {
    errno.ENOSYS: "clone3",  # glibc then uses clone, whose flags can be seen
    errno.EACCES: "open openat access faccessat faccessat2 readlink readlinkat getcwd statx stat lstat newfstatat",
    errno.ENOTTY: "ioctl",
    errno.EPERM: "prctl",
}
_HANDOVER: Final = ("sendmsg", "seccomp")  # between the first and the second filter only


@dataclass(frozen=True)
class Check:
    """An argument's value, or with `without` the bits it must not have. `otherwise` is the answer if it is not so."""

    argument: int
    value: int
    otherwise: int | None = None  # None: the default
    without: bool = False
    negated: bool = False


def _checked(pid: int) -> Mapping[str, tuple[tuple[Check, ...], ...]]:
    """Per call, alternatives of which one must hold as a whole."""
    no_code = ((Check(2, _PROT_EXEC, _ERRNO | errno.EPERM, without=True),),)
    return {
        "mmap": no_code,
        "mprotect": no_code,
        "clone": ((Check(0, _PTHREAD_FLAGS),),),
        "fcntl": ((Check(1, fcntl.F_GETFL),),),
        "rt_sigaction": ((Check(0, _SIGSYS, negated=True),),),
        "tgkill": ((Check(0, pid),),),  # abort() can be told from a violation
        "setitimer": ((Check(0, 0),),),  # the time limit of a chat template
        "prlimit64": ((Check(0, 0), Check(1, _RLIMIT_AS)),),  # its own memory, which can only become less
    }


def program(machine: str, pid: int, default: int) -> bytes:
    """The filter for an engine whose process id, as it sees it, is `pid`. `default` answers what is not listed.

    With `USER_NOTIF` as default the two calls of the handover are allowed too: `handed_over` takes them away.
    """
    numbers = TABLES[machine]
    code = list(_prologue(machine))
    for name in [*_TRACED, *RARE, *(_HANDOVER if default == USER_NOTIF else ())]:
        if name in numbers:
            code += _when(numbers[name], [_do(_RETURN, ALLOW)])
    for code_of_error, names in _FAILING.items():
        for name in names.split():
            if name in numbers:
                code += _when(numbers[name], [_do(_RETURN, _ERRNO | code_of_error)])
    for name, alternatives in _checked(pid).items():
        code += _when(numbers[name], _one_of(alternatives, default))
    return b"".join([*code, _do(_RETURN, default)])


def listed() -> frozenset[str]:
    """Every call that does not always end the process."""
    failing = " ".join(_FAILING.values()).split()
    return frozenset([*allowed(), *failing])


def allowed() -> frozenset[str]:
    """Every call that reaches the kernel, some only with the right arguments."""
    return frozenset([*_TRACED, *RARE, *_checked(0)])


def handed_over(machine: str) -> bytes:
    """The second filter: the calls that handed the first one's listener over are gone."""
    code = list(_prologue(machine))
    for name in _HANDOVER:
        code += _when(TABLES[machine][name], [_do(_RETURN, KILL_PROCESS)])
    return b"".join([*code, _do(_RETURN, ALLOW)])


def _prologue(machine: str) -> Iterator[bytes]:
    """Calls of another architecture end the process: their numbers mean something else. Then, load the number."""
    yield _do(_LOAD, _ARCH)
    yield _do(_EQUAL, AUDIT_ARCH[machine], yes=1)
    yield _do(_RETURN, KILL_PROCESS)
    yield _do(_LOAD, _NUMBER)
    yield _do(_AT_LEAST, _X32, no=1)
    yield _do(_RETURN, KILL_PROCESS)


def _when(number: int, block: list[bytes]) -> list[bytes]:
    """`block`, which ends in returns, for this call."""
    return [_do(_EQUAL, number, no=len(block)), *block]


def _one_of(alternatives: tuple[tuple[Check, ...], ...], default: int) -> list[bytes]:
    code: list[bytes] = []
    for checks in alternatives:
        body: list[bytes] = [_do(_RETURN, ALLOW)]
        for check in reversed(checks):
            body = _test(check, len(body)) + body
        code += body
    last = alternatives[-1][-1].otherwise
    return [*code, _do(_RETURN, default if last is None else last)]


def _test(check: Check, skip: int) -> list[bytes]:
    """Go on with the next instruction if the check holds, else skip as many more as `skip`."""
    low, high = _ARGUMENTS + 8 * check.argument, _ARGUMENTS + 8 * check.argument + 4
    if check.without:
        return [_do(_LOAD, low), _do(_HAS_BITS, check.value, yes=skip)]
    if check.negated:  # the kernel takes 32 bits of it
        return [_do(_LOAD, low), _do(_EQUAL, check.value, yes=skip)]
    return [
        _do(_LOAD, low), _do(_EQUAL, check.value & 0xFFFFFFFF, no=skip + 2),
        _do(_LOAD, high), _do(_EQUAL, check.value >> 32, no=skip),
    ]  # fmt: skip


def _do(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction: struct sock_filter."""
    return struct.pack("=HBBI", code, yes, no, value)
