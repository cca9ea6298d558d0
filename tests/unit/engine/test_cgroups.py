"""A cgroup bounds an engine where the kernel's files say so, in the group or in one above it."""

import os

import pytest

from haif.engine.frames import Sealed
from haif.engine.sandbox.layers import LAYERS, level
from haif.engine.service import cgroups, jail

V2_MOUNT = "41 31 0:38 {root} {top}/v2 rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "4{n} 31 0:3{n} / {top}/{name} rw,relatime - cgroup cgroup rw,{name}\n"
OTHER = "21 1 8:1 / / rw - ext4 /dev/vda1 rw\n42 31 0:39 / {top}/systemd rw - cgroup cgroup rw,name=systemd\n"
ALL_V2 = {"memory.max": "1073741824", "pids.max": "600", "cpu.max": "800000 100000"}


class Machine:
    """A folder in place of /proc, and one in place of /sys/fs/cgroup."""

    def __init__(self, top):
        self.top = top
        (top / "proc" / "self").mkdir(parents=True)
        (top / "proc" / "7").mkdir()

    def mounts(self, text, **words):
        text = (OTHER + text).format(top=self.top, **words)
        (self.top / "proc" / "self" / "mountinfo").write_text(text)

    def groups(self, text):
        (self.top / "proc" / "7" / "cgroup").write_text(text)

    def set(self, folder, **files):
        (self.top / folder).mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (self.top / folder / name).write_text(value + "\n")

    def why_not(self):
        return cgroups.why_not(7, proc=self.top / "proc")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_version_2_bounds_by_the_group_or_one_above(machine):
    machine.mounts(V2_MOUNT, root="/")
    machine.groups("0::/user.slice/haif.scope\n")
    assert machine.why_not() == "the worker's cgroup bounds no memory, pids, cpu"
    machine.set("v2/user.slice/haif.scope", **{"memory.max": "max", "pids.max": "max", "cpu.max": "max 100000"})
    assert machine.why_not() == "the worker's cgroup bounds no memory, pids, cpu"
    machine.set("v2/user.slice/haif.scope", **{"memory.max": "1073741824"})
    machine.set("v2/user.slice", **{"pids.max": "600"})
    assert machine.why_not() == "the worker's cgroup bounds no cpu"
    machine.set("v2", **{"cpu.max": "800000 100000"})
    assert machine.why_not() is None


def test_inside_a_container_only_its_own_part_of_the_tree_is_there(machine):
    machine.mounts(V2_MOUNT, root="/docker/abc")
    machine.groups("0::/docker/abc\n")
    machine.set("v2", **ALL_V2)
    assert machine.why_not() is None
    machine.groups("0::/elsewhere\n")
    assert "memory, pids, cpu" in machine.why_not()


def test_version_1_bounds_each_by_a_tree_of_its_own(machine):
    machine.mounts(
        "".join(V1_MOUNT.replace("{n}", str(n)).replace("{name}", name) for n, name in enumerate(cgroups._BOUNDS))
    )
    machine.groups("4:memory:/a/b\n3:pids:/a\n2:cpu:/\n0::/\n")
    machine.set("memory/a/b", **{"memory.limit_in_bytes": "9223372036854771712"})
    machine.set("cpu", **{"cpu.cfs_quota_us": "-1"})
    assert machine.why_not() == "the worker's cgroup bounds no memory, pids, cpu"
    machine.set("memory/a", **{"memory.limit_in_bytes": "1073741824"})
    machine.set("pids/a", **{"pids.max": "64"})
    machine.set("cpu", **{"cpu.cfs_quota_us": "50000"})
    assert machine.why_not() is None


def test_where_the_kernel_says_nothing_nothing_holds(machine):
    assert machine.why_not() == "the kernel does not say"


def test_this_machine_has_an_answer():
    found = cgroups.why_not(os.getpid())
    assert found is None or found.startswith("the worker's cgroup bounds no ")


def test_the_childs_word_about_its_cgroup_does_not_count(monkeypatch):
    missing = {"landlock": "old"}
    lie = Sealed([layer for layer in LAYERS if layer != "landlock"], missing, [], 7)
    monkeypatch.setattr(jail, "why_not", lambda _: "bounds no cpu")
    said = jail.with_cgroups(lie)
    assert "cgroups" not in said.enforced
    assert {"landlock": "old", "cgroups": "bounds no cpu"} == said.missing
    monkeypatch.setattr(jail, "why_not", lambda _: None)
    honest = Sealed([layer for layer in LAYERS if layer != "cgroups"], {"cgroups": ""}, [], 7)
    assert "full" == level(jail.with_cgroups(honest).enforced)
    assert {} == jail.with_cgroups(honest).missing
