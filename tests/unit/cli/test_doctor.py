"""`haif doctor` looks at what a gateway on this machine would show its tenants."""

from pathlib import Path
from typing import Any

import pytest

from haif import config
from haif.cli.doctor import _edge
from tests.support.certificates import Authority


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is found with these settings in `haif.toml`."""
    monkeypatch.chdir(tmp_path)

    def found(**settings: Any) -> list[tuple[str, str, str]]:
        lines = [f"{name} = {str(value).lower() if isinstance(value, bool) else repr(str(value))}"
                 for name, value in settings.items()]  # fmt: skip
        (tmp_path / "haif.toml").write_text("\n".join(["[gateway]", *lines]))
        return [(each.what, each.state, each.detail) for each in _edge(config.WorkerSettings(state=tmp_path))]

    return found


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (3, "note"), (-1, "wrong")])
def test_a_certificate_is_looked_at_before_it_expires(tmp_path: Path, findings: Any, days: int, state: str) -> None:
    files = Authority(tmp_path, "authority").issue("gateway", days=days)
    ((what, found, detail),) = findings(tls_cert=files.certificate, tls_key=files.key)
    assert (what, found) == ("certificate", state)
    assert ("has expired" if days < 0 else f"{days - 1} more days") in detail


def test_authorities_of_clients_expire_too(tmp_path: Path, findings: Any) -> None:
    authority = Authority(tmp_path, "authority")
    files = authority.issue("gateway")
    found = findings(tls_cert=files.certificate, tls_key=files.key, client_ca=authority.file)
    assert [each[:2] for each in found] == [("certificate", "ok"), ("certificate", "ok")]


def test_what_would_not_start_or_would_be_read_on_the_way_is_named(tmp_path: Path, findings: Any) -> None:
    files = Authority(tmp_path, "authority").issue("gateway")
    assert findings() == []
    assert findings(http_host="0.0.0.0")[0][:2] == ("gateway TLS", "wrong")
    assert findings(http_host="0.0.0.0", insecure_plain_http=True)[0][:2] == ("gateway TLS", "note")
    files.key.unlink()
    assert "cannot be read" in findings(tls_cert=files.certificate, tls_key=files.key)[0][2]
