"""Settings come from flags, environment, file and defaults, in that order; what is unknown is refused."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from haif import config
from haif.base.errors import Misuse
from haif.node.settings import looks_nearby


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "haif.toml"
    path.write_text('network = "office"\n[worker]\nslots = 3\nthreads = 2\n[gateway]\nhttp_port = 9\n')
    return path


def environment(file: Path, **more: str) -> dict[str, str]:
    return {"HAIF_CONFIG": str(file), **more}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://db/haif", "wanted postgresql://HOST/DATABASE, got mysql"),
        ("haif.sqlite", "got no scheme"),
        ("postgresql://db.example/haif", "db.example is another machine: add"),
        ("postgresql:///haif?host=db.example&sslmode=require", "db.example is another machine: add"),
    ],
)
def test_a_store_that_is_none_or_that_others_could_pose_as_is_refused(url: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        config.OrchestratorSettings(store=url)


@pytest.mark.parametrize(
    "url",
    ["postgresql://haif@127.0.0.1/haif", "postgres:///haif?host=/run/postgresql", "postgresql://localhost/haif",
     "postgresql://db.example/haif?sslmode=verify-full", ""],
)  # fmt: skip
def test_a_store_on_this_machine_or_whose_server_is_verified_is_taken(url: str) -> None:
    assert url == config.OrchestratorSettings(store=url).store


def test_flags_beat_environment_beats_file_beats_default(file: Path) -> None:
    def slots(flags: dict[str, str], **more: str) -> config.WorkerSettings:
        return config.load(config.WorkerSettings, flags, environment(file, **more))

    assert slots({}, HAIF_WORKER_SLOTS="5").slots == 5
    assert slots({"slots": "7"}, HAIF_WORKER_SLOTS="5").slots == 7
    assert slots({}).slots == 3
    assert slots({}).threads == 2
    assert slots({}).network == "office"
    assert slots({}, HAIF_NETWORK="home").network == "home"
    assert slots({}).context_tokens == 0


def test_a_table_is_for_its_role_alone(file: Path) -> None:
    assert config.load(config.GatewaySettings, {}, environment(file)).http_port == 9


@pytest.mark.parametrize(
    "text",
    [
        "[worker]\nslotz = 3\n",
        "colour = 1\n",
        "[worker]\nslots = true\n",
        "[worker]\nslots = -1\n",
        "=",
        "network = 5\n",
        "worker = 3\n",
        'worker = "x"\n',
        "wire_port = 65536\n",
    ],
)
def test_unknown_and_wrong_settings_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "haif.toml"
    path.write_text(text)
    with pytest.raises(Misuse, match=r"haif\.toml"):
        config.load(config.WorkerSettings, {}, environment(path))


def test_only_true_and_false_decide_whether_the_jail_may_be_missing(file: Path) -> None:
    def allowed(word: str) -> bool:
        found = environment(file, HAIF_WORKER_INSECURE_NO_SANDBOX=word)
        return config.load(config.WorkerSettings, {}, found).insecure_no_sandbox

    assert not config.load(config.WorkerSettings, {}, environment(file)).insecure_no_sandbox
    assert allowed("true")
    assert not allowed("false")
    with pytest.raises(Misuse, match="true or false"):
        allowed("1")
    parser = argparse.ArgumentParser()
    config.add_flags(parser, config.WorkerSettings)
    flags = vars(parser.parse_args(["--insecure-no-sandbox"]))
    assert config.load(config.WorkerSettings, flags, environment(file)).insecure_no_sandbox


def test_the_level_of_a_jail_is_one_there_is_and_nobody_contradicts_himself(file: Path) -> None:
    def demanded(kind: type[config.Common], **flags: object) -> str:
        return config.load(kind, flags, environment(file)).sandbox_min

    assert demanded(config.WorkerSettings) == "reduced"
    assert demanded(config.WorkerSettings, sandbox_min="full") == "full"
    assert demanded(config.OrchestratorSettings) == "none"
    for kind, flags in (
        (config.WorkerSettings, {"sandbox_min": "none"}),
        (config.OrchestratorSettings, {"sandbox_min": "padded"}),
        (config.WorkerSettings, {"sandbox_min": "full", "insecure_no_sandbox": True}),
    ):
        with pytest.raises(Misuse, match="sandbox-min"):
            demanded(kind, **flags)


def test_who_convicts_is_a_panel_or_one_and_nothing_else(file: Path) -> None:
    assert "panel" == config.load(config.OrchestratorSettings, {}, environment(file)).convict
    assert "one" == config.load(config.OrchestratorSettings, {"convict": "one"}, environment(file)).convict
    with pytest.raises(Misuse, match="--convict: wanted one of panel, one"):
        config.load(config.OrchestratorSettings, {"convict": "any"}, environment(file))


def test_a_wrong_value_says_where_it_came_from(file: Path) -> None:
    with pytest.raises(Misuse, match="HAIF_WORKER_SLOTS"):
        config.load(config.WorkerSettings, {}, environment(file, HAIF_WORKER_SLOTS="many"))
    with pytest.raises(Misuse, match="--slots"):
        config.load(config.WorkerSettings, {"slots": "many"}, environment(file))
    with pytest.raises(Misuse, match="does not exist"):
        config.load(config.WorkerSettings, {}, {"HAIF_CONFIG": "/nowhere.toml"})


@pytest.mark.parametrize("name", ["../other", "a/b", ".hidden", "x" * 65, "a b"])
def test_a_name_stays_inside_the_state_folder(file: Path, name: str) -> None:
    with pytest.raises(Misuse, match="cannot name an instance"):
        config.load(config.NodeSettings, {"name": name}, environment(file))


def test_lists_come_from_repeated_flags_or_commas(file: Path) -> None:
    given = config.load(config.NodeSettings, {"bootstrap": ["h:1", "h:2"]}, environment(file))
    assert given.bootstrap_addresses == (("h", 1), ("h", 2))
    split = config.load(config.NodeSettings, {}, environment(file, HAIF_BOOTSTRAP="h:1, [::1]:2"))
    assert split.bootstrap_addresses == (("h", 1), ("::1", 2))


@pytest.mark.parametrize("text", ["", "host", "host:", ":5", "host:0", "host:65536", "host:x"])
def test_an_address_is_host_and_port(text: str) -> None:
    with pytest.raises(Misuse, match="HOST:PORT"):
        config.parse_address(text)


@pytest.mark.parametrize("kind", list(config.SECTIONS))
def test_every_setting_has_a_flag_and_a_sentence(kind: type[config.Common]) -> None:
    parser = argparse.ArgumentParser()
    config.add_flags(parser, kind)
    text = parser.format_help()
    for each, _ in config._fields(kind):
        assert "--" + each.name.replace("_", "-").removesuffix("s") in text
        assert each.metadata["help"]


def test_a_truth_value_is_true_or_false_and_nothing_else(file: Path) -> None:
    def allowed(**more: str) -> bool:
        return config.load(config.NodeSettings, {}, environment(file, **more)).allow_private

    assert allowed(HAIF_ALLOW_PRIVATE="true")
    assert not allowed(HAIF_ALLOW_PRIVATE="false")
    assert not allowed()
    with pytest.raises(Misuse, match="HAIF_ALLOW_PRIVATE"):
        allowed(HAIF_ALLOW_PRIVATE="yes")


def test_a_setting_that_is_on_can_be_put_off_by_a_flag() -> None:
    parser = argparse.ArgumentParser()
    config.add_flags(parser, config.NodeSettings)
    for words, lan in (([], True), (["--no-lan"], False), (["--lan"], True)):
        assert config.load(config.NodeSettings, vars(parser.parse_args(words)), {"HAIF_CONFIG": ""}).lan is lan
    flags = vars(parser.parse_args(["--lan"]))
    assert config.load(config.NodeSettings, flags, {"HAIF_LAN": "false"}).lan


@pytest.mark.parametrize(
    ("host", "lan", "looks"),
    [
        ("127.0.0.1", True, False), ("192.168.1.7", True, True), ("192.168.1.7", False, False), ("0.0.0.0", True, True),
        ("::1", True, False), ("fd00::1", True, True), ("somewhere.example", True, False),
    ],
)  # fmt: skip
def test_nobody_looks_for_neighbours_from_where_there_are_none(host: str, lan: bool, looks: bool) -> None:
    assert looks_nearby(config.NodeSettings(host=host, lan=lan)) is looks


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_cert": Path("c")}, "belong together"),
        ({"tls_key": Path("k")}, "belong together"),
        ({"client_ca": Path("a")}, "takes TLS"),
        ({"tls_cert": Path("c"), "tls_key": Path("k"), "insecure_plain_http": True}, "contradict"),
        ({"cors_origins": ("*",)}, "wanted SCHEME://HOST"),
        ({"cors_origins": ("https://app.example/",)}, "wanted SCHEME://HOST"),
    ],
)
def test_an_edge_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        config.GatewaySettings(**settings)


def test_a_second_address_is_of_the_other_family() -> None:
    assert "::" == config.NodeSettings(host="0.0.0.0", host6="::").host6
    for host, beside in (("::1", "::1"), ("127.0.0.1", "127.0.0.2"), ("somewhere.example", "::1")):
        with pytest.raises(Misuse, match="--host6"):
            config.NodeSettings(host=host, host6=beside)
