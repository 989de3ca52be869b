"""The key that the environment sets."""

import pytest

from moss_tp.errors import ConfigError
from serve_app.api_secret import ENVIRONMENT, digest_of, take_environment_key


def test_the_key_is_taken_out_of_the_environment() -> None:
    environment = {ENVIRONMENT: "correct-horse", "HOME": "/root"}
    assert take_environment_key(environment) == digest_of("correct-horse")
    assert environment == {"HOME": "/root"}
    assert take_environment_key(environment) is None


@pytest.mark.parametrize("secret", ["", "short", "has a space in it", "ключ-ключ-ключ", "x" * 300])
def test_a_weak_key_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="MOSS_API_KEY must be 8 to 255") as refused:
        take_environment_key({ENVIRONMENT: secret})
    assert not secret or secret not in str(refused.value)
