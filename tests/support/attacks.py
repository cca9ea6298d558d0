"""A program that seals itself with the product's own code and then does what hijacked native code would do.

Run as `python -m tests.support.attacks WORLD JSON`. WORLD is a comma-separated list of what the machine is like:
`user` (not root), `docker` (an outer filter refuses namespaces and mounts), `nolandlock`, `nolistener`, or `open` (no
seal: the control). JSON has the victims' addresses and the attacks to run. Each attack runs in a sealed process of its
own; a line of JSON per attack says how it ended: what the attack itself reported, or the signal that ended it, and the
last words of the monitor.
"""

import ctypes
import errno
import json
import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable

from haif.engine.sandbox import calls, policy, privileges, seccomp
from haif.engine.sandbox.jail import seal

AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
VICTIMS: dict[str, object] = {}
WORLD: set[str] = set()


def address(kind: str) -> bytes:
    """A struct sockaddr of a victim."""
    if kind == "unix":
        return struct.pack("=H", 1) + str(VICTIMS["unix"]).encode() + b"\0"
    if kind == "abstract":
        return struct.pack("=H", 1) + b"\0" + str(VICTIMS["abstract"]).encode()
    return struct.pack("=H", 2) + struct.pack("!H", int(str(VICTIMS.get(kind, 0)))) + bytes([127, 0, 0, 1]) + bytes(8)


def connect(family: int, kind: int, to: str) -> None:
    sock = calls.call("socket", family, kind, 0)
    where = address(to)
    calls.call("connect", sock, where, len(where))


def read_file(path: str) -> None:
    descriptor = calls.call("openat", AT_FDCWD, path.encode(), os.O_RDONLY, 0)
    buffer = ctypes.create_string_buffer(4096)
    calls.call("read", descriptor, buffer, 4096)


def write_file(path: str, size: int) -> None:
    descriptor = calls.call("openat", AT_FDCWD, path.encode(), os.O_WRONLY | os.O_CREAT, 0o600)
    calls.call("write", descriptor, bytes(size), size)


def execve(path: bytes) -> None:
    argv = (ctypes.c_char_p * 2)(path, None)
    calls.call("execve", path, argv, (ctypes.c_char_p * 1)(None))


def memfd_exec() -> None:
    descriptor = calls.call("memfd_create", b"x", 0)
    calls.call("execveat", descriptor, b"", 0, 0, 0x1000)


def fork_bomb() -> str:
    for count in range(48):
        try:
            child = calls.call("clone", 17, 0, 0, 0, 0)
        except OSError as error:
            raise OSError(error.errno, f"after {count} forks") from None
        if child == 0:
            os._exit(0)
    return "48 forks"


def thread_bomb() -> str:
    wait = threading.Event()
    for count in range(3000):
        try:
            threading.Thread(target=wait.wait, daemon=True).start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, f"after {count} threads") from None
    return "3000 threads"


def memory_bomb(flags: int) -> str:
    step = 64 << 20
    for count in range(400):  # 25 GiB
        place = LIBC.mmap(None, step, 3, flags, -1, 0)
        if place == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"after {count * 64} MiB")
    return "25 GiB"


def file_descriptors() -> str:
    for count in range(5000):
        try:
            calls.call("dup", 2)
        except OSError as error:
            raise OSError(error.errno, f"after {count}") from None
    return "5000 descriptors"


def map_code() -> None:
    place = LIBC.mmap(None, 4096, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if place == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def protect_code() -> None:
    place = LIBC.mmap(None, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    calls.call("mprotect", ctypes.c_void_p(place), 4096, 5)


def number(value: int, *arguments: int) -> None:
    if LIBC.syscall(ctypes.c_long(value), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def victim() -> int:
    return int(str(VICTIMS["pid"]))


def vm_read() -> None:
    place = ctypes.create_string_buffer(16)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(place), 16)
    calls.call("process_vm_readv", victim(), vector, 1, vector, 1, 0)


def steal_descriptor() -> None:
    calls.call("pidfd_getfd", calls.call("pidfd_open", victim(), 0), 0, 0)


def machine_code(code: bytes) -> Callable[[], None]:
    """A function of raw bytes, mapped before the seal, as code already in the process could be."""
    pages = mmap.mmap(-1, 4096, prot=7)
    pages.write(code + b"\xc3")
    place = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(place)

    def run(keep: object = pages) -> None:
        del keep
        result = function()
        if result < 0:
            raise OSError(-result, "int 0x80")

    return run


INT80 = machine_code(b"\xb8\x14\0\0\0\xcd\x80") if os.uname().machine == "x86_64" else None

ATTACKS: dict[str, Callable[[], object]] = {
    "nothing": lambda: "done",
    "socket_inet": lambda: calls.call("socket", 2, 1, 0),
    "socket_unix": lambda: calls.call("socket", 1, 1, 0),
    "socket_netlink": lambda: calls.call("socket", 16, 3, 0),
    "socketpair": seccomp.handover_pair,
    "tcp_connect": lambda: connect(2, 1, "tcp"),
    "tcp_bind": lambda: calls.call("bind", calls.call("socket", 2, 1, 0), address("any"), 16),
    "udp_send": lambda: connect(2, 2, "udp"),
    "unix_path_connect": lambda: connect(1, 1, "unix"),
    "unix_abstract_connect": lambda: connect(1, 1, "abstract"),
    "send_a_message": lambda: calls.call("sendmsg", 2, 0, 0),
    "add_a_filter": lambda: calls.call("seccomp", 1, 0, 0),
    "read_shadow": lambda: read_file("/etc/shadow"),
    "read_secret": lambda: read_file(str(VICTIMS["secret"])),
    "open_secret_the_old_way": lambda: calls.call("open", str(VICTIMS["secret"]).encode(), 0),
    "stat_secret": lambda: calls.call(
        "newfstatat", AT_FDCWD, str(VICTIMS["secret"]).encode(), ctypes.create_string_buffer(256), 0
    ),
    "stat_secret_as_if_open": lambda: calls.call(
        "newfstatat", AT_FDCWD, str(VICTIMS["secret"]).encode(), ctypes.create_string_buffer(256), 0x1000
    ),
    "chmod_model": lambda: calls.call("fchmod", int(str(VICTIMS["model"])), 0o777),
    "list_home": lambda: calls.call("openat", AT_FDCWD, b"/root", os.O_DIRECTORY, 0),
    "write_outside": lambda: write_file("/tmp/haif-attack", 1),
    "write_bigfile": lambda: write_file("/tmp/haif-attack", 64 << 20),
    "execve_sh": lambda: execve(b"/bin/sh"),
    "memfd_exec": memfd_exec,
    "fork_bomb": fork_bomb,
    "thread_bomb": thread_bomb,
    "memory_bomb": lambda: memory_bomb(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "shm_bomb": lambda: memory_bomb(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    "fd_exhaust": file_descriptors,
    "ptrace_victim": lambda: calls.call("ptrace", 16, victim(), 0, 0),
    "vm_readv_victim": vm_read,
    "pidfd_getfd_victim": steal_descriptor,
    "kill_victim": lambda: calls.call("kill", victim(), 0),
    "tgkill_victim": lambda: calls.call("tgkill", victim(), victim(), 0),
    "kill_parent": lambda: calls.call("kill", calls.call("getppid"), 0),
    "kill_all": lambda: calls.call("kill", -1, 0),
    "environ_victim": lambda: read_file(f"/proc/{victim()}/environ"),
    "environ_pid1": lambda: read_file("/proc/1/environ"),
    "mem_self_write": lambda: write_file("/proc/self/mem", 0),
    "io_uring": lambda: calls.call("io_uring_setup", 4, ctypes.create_string_buffer(120)),
    "userfaultfd": lambda: calls.call("userfaultfd", 1),
    "bpf": lambda: calls.call("bpf", 0, ctypes.create_string_buffer(120), 120),
    "perf_event": lambda: calls.call("perf_event_open", ctypes.create_string_buffer(120), 0, -1, -1, 0),
    "keyctl": lambda: calls.call("keyctl", 0, -2, 0, 0, 0),
    "new_userns": lambda: calls.call("unshare", 0x10000000),
    "clone_userns": lambda: calls.call("clone", 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": lambda: calls.call("clone3", ctypes.create_string_buffer(88), 88),
    "mount": lambda: calls.call("mount", b"x", b"/", b"tmpfs", 0, 0),
    "setuid0": lambda: calls.call("setresuid", 0, 0, 0),
    "shmget": lambda: calls.call("shmget", 0, 4096, 0o1600),
    "mmap_exec": map_code,
    "mprotect_exec": protect_code,
    "ioctl_tiocsti": lambda: calls.call("ioctl", 0, 0x5412, b"x"),
    "personality": lambda: calls.call("personality", 0x0400000),
    "prctl_undump": lambda: calls.prctl(4, 1),
    "raise_rlimit": lambda: calls.call("prlimit64", 0, 7, (ctypes.c_uint64 * 2)(9999, 9999), 0),
    "raise_memory": lambda: calls.call("prlimit64", 0, 9, (ctypes.c_uint64 * 2)(1 << 50, 1 << 50), 0),
    "limit_victim": lambda: calls.call("prlimit64", victim(), 9, (ctypes.c_uint64 * 2)(0, 0), 0),
    "modify_ldt": lambda: calls.call("modify_ldt", 0, 0, 0),
    "x32_getpid": lambda: number(0x40000000 + 39),
    "handle_sigsys": lambda: calls.call("rt_sigaction", 31, ctypes.create_string_buffer(32), 0, 8),
    "dup_model": lambda: calls.call("fcntl", int(str(VICTIMS["model"])), 0, 0),
    "abort": os.abort,
    "memory_fault": lambda: ctypes.string_at(0),
}
if INT80 is not None:
    ATTACKS["int80_getpid"] = INT80


def outer_filter(names: list[tuple[str, int]], *, no_namespace_clone: bool) -> bytes:
    """What a container runtime puts around: some calls fail, new namespaces by clone too."""
    numbers = calls.TABLES[calls.machine()]
    code = list(policy._prologue(calls.machine()))
    for name, failure in names:
        code += policy._when(numbers[name], [policy._do(policy._RETURN, policy._ERRNO | failure)])
    if no_namespace_clone:
        refuse = policy._do(policy._RETURN, policy._ERRNO | errno.EPERM)
        look = [policy._do(policy._LOAD, 16), policy._do(policy._HAS_BITS, 0x7E020000, no=1), refuse]
        code += policy._when(numbers["clone"], [*look, policy._do(policy._RETURN, policy.ALLOW)])
    return b"".join([*code, policy._do(policy._RETURN, policy.ALLOW)])


def no_listener() -> bytes:
    """What a sandbox around looks like that listens to violations itself: there can be only one listener."""
    refuse = policy._do(policy._RETURN, policy._ERRNO | errno.EBUSY)
    look = [policy._do(policy._LOAD, 24), policy._do(policy._EQUAL, 8, no=1), refuse]
    number = calls.TABLES[calls.machine()]["seccomp"]
    code = [
        *policy._prologue(calls.machine()),
        *policy._when(number, [*look, policy._do(policy._RETURN, policy.ALLOW)]),
    ]
    return b"".join([*code, policy._do(policy._RETURN, policy.ALLOW)])


def enter_world(words: set[str]) -> None:
    """Make this process's surroundings less friendly than they are."""
    if "user" in words and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)
        privileges.traceable(True)
    if "nolistener" in words:
        privileges.gain_nothing()
        seccomp.install(no_listener())
    refused: list[tuple[str, int]] = []
    if "docker" in words:
        refused += [(name, errno.EPERM) for name in ("unshare", "setns", "mount", "umount2", "pivot_root")]
    if "nolandlock" in words:
        refused += [("landlock_create_ruleset", errno.ENOSYS)]
    if refused:
        privileges.gain_nothing()
        seccomp.install(outer_filter(refused, no_namespace_clone="docker" in words))


def sealed(name: str, files: frozenset[int], report: int) -> None:
    """The process of one attack."""
    words = ""
    try:
        if "open" not in WORLD:
            told = seal(os.getppid(), files | {report}, 1000)
            os.write(report, (json.dumps({"enforced": told.enforced}) + "\n").encode())
        attack = ATTACKS.get(name) or (lambda: number(int(name), *[-1] * 6))
        words = f"OPEN {attack()}"
    except OSError as error:
        words = f"{errno.errorcode.get(error.errno or 0, 'OSError')} {error.strerror or error}"
    os.write(report, json.dumps({"result": words}).encode())
    os._exit(0)


def run(name: str, files: frozenset[int]) -> dict[str, object]:
    """Seal a process, let it attack, and say how it ended."""
    report_in, report_out = os.pipe()
    words_in, words_out = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(words_out, 2)
        sealed(name, files, report_out)
    os.close(report_out)
    os.close(words_out)
    with os.fdopen(report_in, "rb") as report, os.fdopen(words_in, "rb") as last:
        lines = report.read().decode().splitlines()
        words = last.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    found: dict[str, object] = {"name": name, "status": os.waitstatus_to_exitcode(status), "words": words.strip()}
    for line in lines:
        found |= json.loads(line)
    return found


def main() -> None:
    WORLD.update(sys.argv[1].split(","))
    enter_world(WORLD)
    asked = json.loads(sys.argv[2])
    VICTIMS.update(asked["victims"])
    for name in asked["attacks"]:
        print(json.dumps(run(name, frozenset({int(str(VICTIMS["model"]))}))), flush=True)


if __name__ == "__main__":
    main()
