"""The parts of the jail that can be looked at without building one: the filter, the levels, the parent's check."""

import errno

import pytest

from haif.base import limits
from haif.base.errors import EngineDied
from haif.engine.frames import Sealed
from haif.engine.sandbox import calls, landlock, policy
from haif.engine.sandbox.layers import LAYERS, OPTIONAL, REQUIRED, RESIDUAL, level, residual
from haif.engine.service import jail
from tests.support.bpf import decide

PID = 2
ERRNO = 0x50000
MACHINES = sorted(calls.TABLES)


def answer(machine, name, *arguments, default=policy.KILL_PROCESS):
    program = policy.program(machine, PID, default)
    padded = [*arguments, *[0] * (6 - len(arguments))]
    return decide(program, calls.TABLES[machine][name], calls.AUDIT_ARCH[machine], padded)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("default", [policy.KILL_PROCESS, policy.USER_NOTIF])
def test_every_call_that_is_not_listed_gets_the_default(machine, default):
    listed = policy.listed() | ({"sendmsg", "seccomp"} if default == policy.USER_NOTIF else set())
    for name in calls.TABLES[machine]:
        if name not in listed:
            assert default == answer(machine, name, default=default), name
    beyond = max(calls.TABLES[machine].values()) + 1
    program = policy.program(machine, PID, default)
    assert default == decide(program, beyond, calls.AUDIT_ARCH[machine], [0] * 6)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_and_x32_are_killed_by_the_kernel(machine):
    for program in (policy.program(machine, PID, policy.USER_NOTIF), policy.handed_over(machine)):
        for number in range(500):
            assert policy.KILL_PROCESS == decide(program, number, 0x40000003, [0] * 6)
            assert policy.KILL_PROCESS == decide(program, number + 0x40000000, calls.AUDIT_ARCH[machine], [0] * 6)


@pytest.mark.parametrize("machine", MACHINES)
def test_after_the_handover_its_calls_are_gone_and_the_second_filter_forbids_nothing_else(machine):
    for name, number in calls.TABLES[machine].items():
        expected = policy.KILL_PROCESS if name in ("sendmsg", "seccomp") else policy.ALLOW
        assert expected == decide(policy.handed_over(machine), number, calls.AUDIT_ARCH[machine], [0] * 6)


PTHREAD = 0x3D0F00
HIGH = 1 << 32


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mmap", [0, 4096, 3], policy.ALLOW),
        ("mmap", [0, 4096, 7], ERRNO | errno.EPERM),
        ("mprotect", [0, 4096, 1], policy.ALLOW),
        ("mprotect", [0, 4096, 4], ERRNO | errno.EPERM),
        ("clone", [PTHREAD], policy.ALLOW),
        ("clone", [PTHREAD | HIGH], policy.KILL_PROCESS),
        ("clone", [PTHREAD | 0x10000000], policy.KILL_PROCESS),
        ("clone", [17], policy.KILL_PROCESS),
        ("clone3", [], ERRNO | errno.ENOSYS),
        ("fcntl", [0, 1], policy.KILL_PROCESS),
        ("fcntl", [0, 3], policy.ALLOW),
        ("fcntl", [0, 0], policy.KILL_PROCESS),
        ("fcntl", [0, 4], policy.KILL_PROCESS),
        ("fcntl", [0, 1030], policy.KILL_PROCESS),
        ("rt_sigaction", [14], policy.ALLOW),
        ("rt_sigaction", [33], policy.ALLOW),
        ("rt_sigaction", [31], policy.KILL_PROCESS),
        ("rt_sigaction", [31 | HIGH], policy.KILL_PROCESS),
        ("tgkill", [PID], policy.ALLOW),
        ("tgkill", [1], policy.KILL_PROCESS),
        ("tgkill", [PID | HIGH], policy.KILL_PROCESS),
        ("prctl", [15], ERRNO | errno.EPERM),
        ("prctl", [4, 1], ERRNO | errno.EPERM),
        ("setitimer", [0], policy.ALLOW),
        ("setitimer", [1], policy.KILL_PROCESS),
        ("prlimit64", [0, 9], policy.ALLOW),
        ("prlimit64", [0, 7], policy.KILL_PROCESS),
        ("prlimit64", [1, 9], policy.KILL_PROCESS),
        ("newfstatat", [3, 0, 0, 0x1000], ERRNO | errno.EACCES),
        ("openat", [], ERRNO | errno.EACCES),
        ("ioctl", [0, 0x5412], ERRNO | errno.ENOTTY),
        ("read", [0], policy.ALLOW),
    ],
)
def test_arguments_are_checked_whole(machine, name, arguments, expected):
    assert expected == answer(machine, name, *arguments)


def test_the_filters_are_as_short_as_the_kernel_wants_them():
    for machine in MACHINES:
        assert len(policy.program(machine, PID, policy.USER_NOTIF)) // 8 < 256


def test_known_numbers_have_their_names():
    assert (0, 59, 231, 302, 435) == tuple(
        calls.TABLES["x86_64"][name] for name in ("read", "execve", "exit_group", "prlimit64", "clone3")
    )
    assert (63, 221, 94, 261, 435) == tuple(
        calls.TABLES["aarch64"][name] for name in ("read", "execve", "exit_group", "prlimit64", "clone3")
    )
    assert "unknown" == calls.name_of(9999)


def test_the_level_follows_from_the_layers():
    assert "full" == level(LAYERS)
    for layer in LAYERS:
        expected = "none" if layer in REQUIRED else "reduced"
        assert expected == level(set(LAYERS) - {layer})
    assert set(RESIDUAL) == OPTIONAL


def test_every_missing_layer_has_its_reason_and_its_risk():
    risks = residual({"namespaces": "Operation not permitted", "seccomp": "gone"}, ["a note"])
    assert "namespaces (Operation not permitted): a kernel bug" in risks[0]
    assert "seccomp (gone): code in a model is code as the worker's user" == risks[1]
    assert "a note" == risks[2]


@pytest.mark.parametrize(
    ("abi", "gaps"),
    [(1, ["TCP", "ioctl", "abstract"]), (4, ["ioctl", "abstract"]), (5, ["abstract"]), (6, []), (9, [])],
)
def test_an_old_landlock_says_what_it_does_not_cover(abi, gaps):
    said = " ".join(landlock.uncovered(abi))
    assert gaps == [word for word in ("TCP", "ioctl", "abstract") if word in said]


NONE = "0" * 16
GOOD = {
    "NoNewPrivs": "1", "Seccomp": "2", "Threads": "1", "CapInh": NONE, "CapPrm": NONE, "CapEff": NONE, "CapAmb": NONE,
    "Uid": "65534\t65534\t65534\t65534", "NSpid": "77\t2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NoNewPrivs", "0"), ("Seccomp", "0"), ("Seccomp", "1"), ("Threads", "2"), ("CapEff", "0" * 15 + "1"),
        ("CapPrm", "f" * 16), ("CapInh", "1"), ("CapAmb", "1"), ("Uid", "65534\t0\t65534\t65534"), ("NSpid", "77"),
    ],
)  # fmt: skip
def test_the_parent_sees_each_claim_that_the_kernel_does_not_confirm(line, value):
    assert [] == jail.contradictions(set(LAYERS), GOOD)
    assert 1 == len(jail.contradictions(set(LAYERS), GOOD | {line: value}))
    assert jail.contradictions(set(LAYERS), {key: found for key, found in GOOD.items() if key != line})


def test_a_statement_has_every_layer_once_and_enough_of_them():
    every = list(LAYERS)
    for enforced, missing in ((every, {"seccomp": ""}), (every[1:], {}), ([*every, "moat"], {})):
        with pytest.raises(EngineDied, match="every layer once"):
            jail.verify(Sealed(enforced, missing, [], 1), monitor=1, demanded="none")
    with pytest.raises(EngineDied, match=r"level none, and reduced is demanded; it lacks seccomp \(no\)"):
        lacking = [layer for layer in every if layer != "seccomp"]
        jail.verify(Sealed(lacking, {"seccomp": "no"}, [], 1), monitor=1, demanded="reduced")
    with pytest.raises(EngineDied, match="level reduced, and full is demanded; it lacks cgroups"):
        lacking = [layer for layer in every if layer != "cgroups"]
        jail.verify(Sealed(lacking, {"cgroups": ""}, [], 1), monitor=1, demanded="full")


IDLE, SILENT = limits.ENGINE_IDLE_SECONDS, limits.ENGINE_SILENCE_SECONDS


def test_only_who_computes_though_all_is_answered_is_accused():
    exertion = jail.Exertion(4)

    def owing_nothing(now, used, asked, *, settled=True):
        return exertion.accuse(now, used, asked=asked, busy=False, settled=settled)

    assert owing_nothing(0.0, 0.0, 5) is None
    assert owing_nothing(IDLE - 1, IDLE, 5) is None, "not for long enough"
    assert "owed nothing and computed for 5.0" in owing_nothing(IDLE, IDLE, 5)
    assert owing_nothing(2 * IDLE, IDLE * 1.05, 5) is None, "a little housekeeping"
    assert owing_nothing(3 * IDLE, IDLE * 2, 6) is None, "it was asked something in between"
    assert exertion.accuse(4 * IDLE, IDLE * 3, asked=6, busy=True, settled=False) is None, "it works for somebody"
    assert owing_nothing(5 * IDLE, IDLE * 4, 6) is None


def test_after_a_cancellation_a_step_may_be_computed_to_its_end():
    exertion = jail.Exertion(4)
    looks = [exertion.accuse(now, now, asked=1, busy=False, settled=False) for now in (0.0, IDLE, 2 * IDLE, SILENT - 1)]
    assert [None] * 4 == looks
    assert "owed nothing" in exertion.accuse(SILENT, SILENT, asked=1, busy=False, settled=False)


@pytest.mark.parametrize(("cores", "accused"), [(1.0, False), (2.0, False), (2.4, False), (2.6, True), (8.0, True)])
def test_nobody_computes_on_more_cores_than_it_has_threads(cores, accused):
    exertion, window = jail.Exertion(2), limits.ENGINE_CORES_SECONDS
    looks = [
        exertion.accuse(now, 7.0 + cores * now, asked=1, busy=True, settled=False) for now in (0.0, window / 2, window)
    ]
    assert [None, None] == looks[:2]
    assert accused == (looks[2] is not None)


def test_a_process_that_is_gone_confirms_nothing():
    with pytest.raises(EngineDied, match="did not"):
        jail.verify(Sealed(list(LAYERS), {}, [], 2**22 + 1), monitor=1, demanded="full")
