"""N-1, H-E1, H-E2: native code of a stranger runs in the engine, and gets nowhere.

The attacks of tests/support/attacks.py run inside processes that sealed themselves with the product's own code, by raw
system calls: as root and as another user, where namespaces are refused as in a container, and there without Landlock.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from haif.base.confinement import suffices
from haif.base.errors import EngineDied, InvalidRequest, Unsupported
from haif.engine.sandbox import ENVIRONMENT, calls, policy
from haif.engine.sandbox.layers import LAYERS, REQUIRED
from haif.protocol.sandbox import check_sandbox
from haif.worker.offer import sandbox_of
from tests.support import attacks
from tests.support.engines import LIAR, engine, read, request
from tests.support.tiny_model import TEMPLATE, build_tiny_model

THE_48 = [
    "socket_inet", "socket_unix", "tcp_connect", "tcp_bind", "udp_send", "unix_path_connect", "unix_abstract_connect",
    "read_shadow", "read_secret", "stat_secret", "list_home", "write_outside", "write_bigfile", "execve_sh",
    "memfd_exec", "fork_bomb", "thread_bomb", "memory_bomb", "shm_bomb", "fd_exhaust", "cpu_spin", "ptrace_victim",
    "vm_readv_victim", "pidfd_getfd_victim", "kill_victim", "kill_parent", "kill_all", "environ_victim",
    "environ_pid1", "mem_self_write", "io_uring", "userfaultfd", "bpf", "perf_event", "keyctl", "new_userns", "mount",
    "setuid0", "shmget", "mmap_exec", "mprotect_exec", "int80_getpid", "x32_getpid", "ioctl_tiocsti", "personality",
    "prctl_undump", "raise_rlimit", "modify_ldt",
]  # fmt: skip
"""The attacks of the specification. Ours are these and as many more; `cpu_spin` is stopped from outside."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail is for Linux")

WORLDS = ["root", "user", "docker", "user,docker", "docker,nolandlock"]
"""What the machine is like. Without root, "root" is the user that runs the tests, and there is no other."""

KILLED = -signal.SIGSYS
NAMED = {  # the system call that the monitor names
    "socket_inet": "socket", "socket_unix": "socket", "socket_netlink": "socket", "socketpair": "socketpair",
    "tcp_connect": "socket", "tcp_bind": "socket", "udp_send": "socket", "unix_path_connect": "socket",
    "unix_abstract_connect": "socket", "chmod_model": "fchmod", "execve_sh": "execve", "memfd_exec": "memfd_create",
    "fork_bomb": "clone", "ptrace_victim": "ptrace", "vm_readv_victim": "process_vm_readv",
    "pidfd_getfd_victim": "pidfd_open", "kill_victim": "kill", "tgkill_victim": "tgkill", "kill_all": "kill",
    "io_uring": "io_uring_setup", "userfaultfd": "userfaultfd", "bpf": "bpf", "perf_event": "perf_event_open",
    "keyctl": "keyctl", "new_userns": "unshare", "clone_userns": "clone", "mount": "mount", "setuid0": "setresuid",
    "shmget": "shmget", "personality": "personality", "raise_rlimit": "prlimit64", "limit_victim": "prlimit64",
    "modify_ldt": "modify_ldt", "handle_sigsys": "rt_sigaction", "dup_model": "fcntl", "fd_exhaust": "dup",
    "kill_parent": "getppid",
}  # fmt: skip
UNNAMED = {"send_a_message", "add_a_filter", "x32_getpid", "int80_getpid"}  # the kernel kills at once
REFUSED = {  # an error is the answer, and the process goes on
    "read_shadow": "EACCES", "read_secret": "EACCES", "open_secret_the_old_way": "EACCES", "stat_secret": "EACCES",
    "stat_secret_as_if_open": "EACCES", "list_home": "EACCES", "write_outside": "EACCES", "write_bigfile": "EACCES",
    "thread_bomb": "EAGAIN", "memory_bomb": "ENOMEM", "shm_bomb": "ENOMEM",
    "environ_victim": "EACCES", "environ_pid1": "EACCES", "mem_self_write": "EACCES",
    "clone3": "ENOSYS", "mmap_exec": "EPERM", "mprotect_exec": "EPERM", "ioctl_tiocsti": "ENOTTY",
    "prctl_undump": "EPERM", "raise_memory": "EPERM",
}  # fmt: skip
OF_ITSELF = {"nothing": 0, "abort": -signal.SIGABRT, "memory_fault": -signal.SIGSEGV}
BY_THE_CONTAINER = {"new_userns", "clone_userns", "mount"}  # its own filter answers first, with EPERM
OPEN_WITHOUT = [  # what these attacks do without a jail: they are real
    "socket_inet", "socket_unix", "tcp_connect", "tcp_bind", "udp_send", "unix_path_connect", "unix_abstract_connect",
    "read_secret", "stat_secret", "stat_secret_as_if_open", "kill_victim", "environ_victim",
    "mmap_exec", "mprotect_exec", "personality", "dup_model", "handle_sigsys", "fd_exhaust", "thread_bomb",
]  # fmt: skip


@contextlib.contextmanager
def victims(folder):
    """A process with a secret, three listeners, a secret file and a model, all of which we could harm."""
    secret = folder / "secret"
    secret.write_text("SECRET")
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(secret.open("rb"))
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "unix"))
        unix.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0haif-{os.getpid()}")
        abstract.listen()
        process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env={"SECRET": "SECRET"})
        stack.enter_context(process)
        yield {
            "secret": str(secret), "model": model.fileno(), "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1],
            "unix": str(folder / "unix"), "abstract": f"haif-{os.getpid()}", "any": 0, "pid": process.pid,
        }  # fmt: skip
        assert process.poll() is None, "the victim was killed"


def attack(world, these, folder):
    """What became of each attack."""
    with victims(folder) as targets:
        told = subprocess.run(
            [sys.executable, "-B", "-m", "tests.support.attacks", world,
             json.dumps({"victims": targets, "attacks": these})],
            env=ENVIRONMENT, pass_fds=(targets["model"],), capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
    return {found["name"]: found for found in map(json.loads, told.stdout.splitlines())}


@pytest.fixture(scope="module", params=WORLDS)
def outcome(request, tmp_path_factory):
    if "user" in request.param and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return request.param, attack(request.param, list(attacks.ATTACKS), tmp_path_factory.mktemp("victims"))


@pytest.mark.xdist_group("jail attacks")
def test_every_attack_is_stopped_by_what_should_stop_it(outcome):
    world, found = outcome
    assert set(found) == set(attacks.ATTACKS) == {*NAMED, *UNNAMED, *REFUSED, *OF_ITSELF}
    for name, what in found.items():
        if "docker" in world and name in BY_THE_CONTAINER:
            assert what["result"].startswith("EPERM"), what
        elif name in NAMED:
            assert (KILLED, None) == (what["status"], what.get("result")), what
            assert what["words"].endswith(f"({NAMED[name]})"), what
        elif name in UNNAMED:
            assert (KILLED, None) == (what["status"], what.get("result")), what
        elif name in REFUSED:
            assert what["result"].startswith(REFUSED[name]), what
        else:
            assert OF_ITSELF[name] == what["status"], what


@pytest.mark.xdist_group("jail attacks")
def test_the_statement_has_exactly_the_layers_that_hold(outcome):
    world, found = outcome
    lacking = {"cgroups"}
    if "docker" in world:
        lacking |= {"namespaces", "empty root"}
    if "nolandlock" in world:
        lacking |= {"landlock"}
    assert [layer for layer in LAYERS if layer not in lacking] == found["nothing"]["enforced"]


def test_where_nobody_may_listen_the_kernel_kills_and_the_call_has_no_name(tmp_path):
    found = attack("nolistener", ["nothing", "socket_inet", "add_a_filter", "send_a_message", "abort"], tmp_path)
    assert "seccomp" in found["nothing"]["enforced"]
    for name in ("socket_inet", "add_a_filter", "send_a_message"):
        assert (KILLED, None, "") == (found[name]["status"], found[name].get("result"), found[name]["words"])
    assert -signal.SIGABRT == found["abort"]["status"]


def test_without_a_jail_the_attacks_succeed(tmp_path):
    found = attack("open", OPEN_WITHOUT, tmp_path)
    assert dict.fromkeys(OPEN_WITHOUT, "OPEN") == {name: what["result"][:4] for name, what in found.items()}


def test_every_system_call_that_is_not_listed_ends_the_process(tmp_path):
    numbers = calls.TABLES[calls.machine()]
    listed = {numbers[name] for name in policy.listed() if name in numbers}
    beyond_seccomp = {335, 336}  # uretprobe and uprobe, which the kernel answers before any filter: they do nothing
    everything = range(max(numbers.values()) + 5)
    found = attack("root", [str(number) for number in everything], tmp_path)
    survived = {int(name) for name, what in found.items() if what["status"] != KILLED}
    assert set() == survived - listed - beyond_seccomp
    assert survived & listed, "the listed ones were killed too: nothing was shown"


WORLD = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
from tests.support.attacks import enter_world
child.rehearse()
enter_world({words})
child.main()
"""


@pytest.mark.parametrize("world", WORLDS)
async def test_a_whole_generation_is_the_same_in_every_jail(tiny, world):
    if "user" in world and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    asked = [
        request(tokens_max=60),
        request("he is", temperature=1.3, top_p=0.9, seed=5, tokens_max=60),
        request(chat=[("user", "é ☃ \U0001f600?")], temperature=1.0, seed=2, tokens_max=40),
        request(temperature=2.0, seed=1, stop=["a"], tokens_max=60),
    ]
    async with engine(tiny) as plain, engine(tiny, program=WORLD.format(words=set(world.split(",")))) as other:
        assert [await read(plain, what) == await read(plain, what) for what in asked]
        for what in asked:
            assert (await read(plain, what))[:2] == (await read(other, what))[:2]
        assert ("docker" in world) == ("namespaces" in other.model.missing)
        assert "reduced" == other.model.sandbox
        assert set(other.model.enforced) >= REQUIRED
        async with other.generate(request(tokens_max=400)) as pieces:
            await anext(pieces)  # leaving cancels
        assert 0 == other.statistics().deaths


async def test_a_violation_ends_that_child_only_is_named_and_the_engine_comes_back(tiny):
    causes = []
    violating = LIAR.replace("LIE", "os.kill(1, 9)")
    async with engine(tiny) as bystander, engine(tiny, program=violating, died=causes.append) as running:
        with pytest.raises(EngineDied, match=r"SIGSYS .*tried system call 62 \(kill\)"):
            await read(running, request())
        await running.wait_alive()
        with pytest.raises(EngineDied, match=r"\(kill\)"):
            await read(running, request())
        assert 24 == (await read(bystander, request()))[2].completion_tokens
        assert 0 == bystander.statistics().deaths
    assert all("(kill)" in cause for cause in causes)
    assert causes


NO_SECCOMP = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
from haif.engine.sandbox import privileges, seccomp
from tests.support.attacks import outer_filter
privileges.gain_nothing()
seccomp.install(outer_filter([("seccomp", 38)], no_namespace_clone=False))
child.main()
"""


async def test_without_seccomp_nothing_is_served_unless_the_operator_says_so(tiny):
    with pytest.raises(EngineDied, match="seccomp"):
        await engine(tiny, program=NO_SECCOMP).__aenter__()
    async with engine(tiny, program=NO_SECCOMP, insecure_no_sandbox=True) as running:
        assert "none" == running.model.sandbox
        assert "seccomp" in running.model.missing
        assert any("code as the worker's user" in risk for risk in running.model.residual)
        assert 24 == (await read(running, request()))[2].completion_tokens


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "one thread"),
        ("os.environ['HAIF_KEY'] = 'x'", "environment"),
    ],
)
async def test_a_child_that_was_touched_before_the_seal_does_not_start(tiny, before, cause):
    with pytest.raises(EngineDied, match=cause):
        await engine(tiny, program=LIAR.replace("told =", f"{before}\ntold =")).__aenter__()


def test_none_of_the_48_attacks_is_missing():
    assert 48 == len(set(THE_48))
    assert {"cpu_spin"} == set(THE_48) - set(attacks.ATTACKS)


async def test_a_python_error_after_the_seal_is_told_with_its_words(tiny):
    lie = LIAR.replace("LIE", "{}['no such thing']")
    async with engine(tiny, program=lie) as running:
        with pytest.raises(EngineDied, match="KeyError: 'no such thing'"):
            await read(running, request())


def oom_score_of(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_when_memory_runs_out_the_engine_is_the_first_to_go(tiny):
    async with engine(tiny) as running:
        assert 1000 == oom_score_of(running._child._engine) > oom_score_of("self")


SPY = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
really = child.seal
class Spy:
    def find_spec(self, name, path=None, target=None):
        os.write(2, f"imported {name} after the seal".encode())
        os._exit(1)
def seal(*arguments, **more):
    told = really(*arguments, **more)
    sys.meta_path.insert(0, Spy)
    Spy.find_spec = classmethod(Spy.find_spec)
    return told
child.seal = seal
child.main()
"""
"""A child that ends at the first import after the seal, which would fail there."""


@pytest.mark.parametrize(
    ("source", "answered"),
    [
        (None, True),
        (TEMPLATE, True),
        (TEMPLATE + "{{ messages | tojson(indent=2) | length }}{{ '\\n\\u00e9\\x41\\N{SNOWMAN}' }}", True),
        (TEMPLATE + "{{ 'é'.encode('latin-1') }}{{ 'x é' | urlencode }}{{ [3, 1] | sort }}{{ '%s' | trim }}", True),
        (TEMPLATE + "{{ '<b>x</b>&amp;' | striptags | escape | replace('a', 'b') | capitalize | title }}", True),
        (TEMPLATE + "{{ 3.7 | round | int | string | batch(2) | list }}{{ {'b': 1} | dictsort | tojson }}", True),
        (TEMPLATE + "{{ messages | groupby('role') | list | length }}{{ 2000 | filesizeformat }}", True),
        (TEMPLATE + "{% set n = namespace(a=1) %}{% macro f(x) %}{{ x }}{% endmacro %}{{ f(n.a) }}", True),
        (TEMPLATE + "{{ messages[9].content.nothing }}", False),
        (TEMPLATE + "{{ 1 / 0 }}", False),
        (TEMPLATE + "{% if %}", False),
        (TEMPLATE + "{{ raise_exception('no') }}", False),
    ],
)
async def test_nothing_is_imported_after_the_seal(tmp_path, source, answered):
    model = build_tiny_model(tmp_path / "m.gguf", template=source)
    asked = (
        request(chat=[("user", "hi \U0001f600")], temperature=1.0) if source else request(temperature=0.5, stop=["é"])
    )
    async with engine(model, program=SPY) as running:
        if answered:
            assert (await read(running, asked))[2].completion_tokens
        else:
            with pytest.raises((Unsupported, InvalidRequest)):
                await read(running, asked)
        assert 24 == (await read(running, request()))[2].completion_tokens
        assert 0 == running.statistics().deaths


def processes_below(pid):
    """Every process of a tree."""
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat") as stat:  # noqa: PTH123
                parents[int(name)] = int(stat.read().rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.parametrize("which", ["worker", "monitor", "init", "engine"])
def test_no_process_of_the_jail_outlives_another(tiny, which):
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.support.engines import engine\n"
        "async def main():\n"
        "    async with engine(Path(sys.argv[1])) as running:\n"
        "        print(running._child.pid, flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program, tiny], stdout=subprocess.PIPE) as worker:
        monitor = int(worker.stdout.readline())
        below = sorted(processes_below(monitor) - {monitor})
        assert len(below) >= 1
        ends = {pid: os.pidfd_open(pid) for pid in [monitor, *below]}
        target = {"worker": worker.pid, "monitor": monitor, "init": below[0], "engine": below[-1]}[which]
        os.kill(target, signal.SIGKILL)
        try:
            for pid, end in ends.items():
                assert select.select([end], [], [], 10)[0], f"{pid} outlived its {which}"
                os.close(end)
        finally:
            worker.kill()


ELSEWHERE = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
sys.platform = "darwin"  # llama.cpp is loaded already
child.main()
"""


async def test_elsewhere_than_on_linux_nothing_is_served_unless_the_operator_says_so_and_the_offer_says_it(tiny):
    with pytest.raises(EngineDied, match="HAIF's jail needs Linux"):
        await engine(tiny, program=ELSEWHERE).__aenter__()
    async with engine(tiny, program=ELSEWHERE, insecure_no_sandbox=True) as running:
        said, missing = sandbox_of(running.model), running.model.missing
        assert 24 == (await read(running, request()))[2].completion_tokens
    check_sandbox(said, None)
    assert ("none", ["every layer"], set(LAYERS)) == (said.level, said.missing, set(missing))
    assert not suffices(said.level, "reduced"), "whoever demands a jail is not served there"
