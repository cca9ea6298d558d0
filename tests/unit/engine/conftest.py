import pytest

from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
