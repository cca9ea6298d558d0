"""`haif dht put`: values under their own name and under ours, on real nodes; and what is refused."""

from pathlib import Path

import pytest

from haif.base import limits
from haif.cli.main import main
from haif.protocol.records import immutable_topic
from tests.unit.cli.test_dht import NET, ask, town

__all__ = ["ask", "town"]  # fixtures


def test_a_value_that_names_itself_is_kept_and_read_by_its_topic(ask) -> None:
    put = ask("dht", "put", "for ever")
    assert put["kind"] == "immutable"
    assert put["topic"] == str(immutable_topic(NET, b"for ever"))
    assert put["stored"] >= 5
    (found,) = ask("dht", "get", put["topic"])
    assert found["body"] == {"value": "for ever"}
    assert found["owner"] == put["owner"]


def test_a_value_under_a_name_is_replaced_and_withdrawn(ask) -> None:
    first = ask("dht", "put", "one", "--as", "motto of the day")
    where = f"value:{first['owner']}/motto of the day"
    (found,) = ask("dht", "get", where)
    assert found["body"] == {"salt": "motto of the day", "value": "one"}
    second = ask("dht", "put", "two", "--as", "motto of the day", "--replaces", str(first["sequence"]))
    assert second["sequence"] > first["sequence"]
    (found,) = ask("dht", "get", where)
    assert found["body"]["value"] == "two"
    text = ask("dht", "put", "--withdraw", "--as", "motto of the day", as_json=False)
    assert where in text
    assert "took it back" in text
    assert ask("dht", "get", where, code=3) == []


def test_what_would_replace_something_else_or_contradict_it_is_refused(ask, capsys: pytest.CaptureFixture[str]) -> None:
    first = ask("dht", "put", "one", "--as", "price", "--sequence", "7")
    assert first["sequence"] == 7
    for words, said in (
        (("two", "--replaces", "6"), "conflict"),
        (("two", "--replaces", "0"), "conflict"),
        (("two", "--sequence", "6"), "replayed"),
        (("two", "--sequence", "7"), "equivocated"),
    ):
        code = 4 if said == "conflict" else 6
        assert main(["dht", "put", *words, "--as", "price", *ask.flags]) == code
        assert said in capsys.readouterr().err
    assert len(ask("dht", "get", f"value:{first['owner']}/price")) == 1


def test_a_file_is_kept_byte_for_byte(ask, tmp_path: Path) -> None:
    path = tmp_path / "value.bin"
    path.write_bytes(b"\x00\xff\n")
    put = ask("dht", "put", "--file", str(path), "--ttl", "60")
    (found,) = ask("dht", "get", put["topic"])
    assert found["body"] == {"value": "00ff0a"}


@pytest.mark.parametrize(
    "words",
    [
        ("x" * (limits.VALUE_BYTES_MAX + 1),),
        ("--file", "/nowhere/at/all"),
        ("value", "--replaces", "3"),
        ("value", "--sequence", "3"),
        ("--withdraw",),
        ("value", "--ttl", "0"),
        ("value", "--ttl", str(limits.VALUE_TTL_MS_MAX // 1000 + 1)),
        ("value", "--as", "x", "--sequence", "-1"),
        ("value", "--as", "x" * (limits.VALUE_SALT_BYTES_MAX + 1)),
        ("value", "--as", ""),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dht", "put", *words, *ask.flags]) == 2
    assert "Errno" not in capsys.readouterr().err


def test_a_topic_that_is_none_is_refused(ask) -> None:
    for topic in ("value:nobody/name", f"value:{'ab' * 32}", "price:1", "value:", "nonsense"):
        assert main(["dht", "get", topic, *ask.flags]) == 2
