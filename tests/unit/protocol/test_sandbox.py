"""A statement about a jail is one that can be meant."""

import pytest

from haif.base import limits
from haif.base.errors import Malformed
from haif.protocol.sandbox import Sandbox, check_sandbox


@pytest.mark.parametrize("said", [Sandbox("full", []), Sandbox("reduced", ["cgroups"]), Sandbox("none", ["seccomp"])])
def test_what_can_be_meant_is_taken(said: Sandbox) -> None:
    check_sandbox(said, None)


@pytest.mark.parametrize(
    "said",
    [
        Sandbox("padded", ["cgroups"]),
        Sandbox("", []),
        Sandbox("full", ["cgroups"]),
        Sandbox("reduced", []),
        Sandbox("none", []),
        Sandbox("reduced", ["cgroups", "cgroups"]),
        Sandbox("reduced", [""]),
        Sandbox("reduced", ["a\nb"]),
        Sandbox("reduced", ["x" * (limits.SANDBOX_LAYER_CHARS_MAX + 1)]),
        Sandbox("reduced", [str(number) for number in range(limits.SANDBOX_LAYERS_MAX + 1)]),
    ],
)
def test_what_cannot_be_meant_is_malformed(said: Sandbox) -> None:
    with pytest.raises(Malformed):
        check_sandbox(said, None)
