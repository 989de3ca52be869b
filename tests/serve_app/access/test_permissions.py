"""A key's scopes: what is named and not allowed is refused, what is not named is left out."""

import pytest

from serve_app.access.permissions import allowed_models, choose_model, enabled_plugins
from serve_app.access.principal import ANONYMOUS, Principal
from serve_app.errors import InvalidFieldError, ModelNotFoundError, PermissionDeniedError

SERVED = ("moss", "gpt-4o")
DEPLOYED = ("calculator", "web_search")
LIMITED = Principal("ann", models=frozenset({"gpt-4o"}), plugins=frozenset({"calculator"}))
NOTHING = Principal("bob", models=frozenset(), plugins=frozenset())


def test_a_caller_without_scopes_may_use_everything() -> None:
    assert choose_model(ANONYMOUS, SERVED, None) == "moss"
    assert choose_model(ANONYMOUS, SERVED, "gpt-4o") == "gpt-4o"
    assert allowed_models(ANONYMOUS, SERVED) == SERVED
    assert enabled_plugins(ANONYMOUS, DEPLOYED, None) == set(DEPLOYED)
    assert enabled_plugins(ANONYMOUS, DEPLOYED, []) == frozenset()


def test_a_key_is_limited_to_its_models() -> None:
    assert choose_model(LIMITED, SERVED, None) == "gpt-4o"
    assert allowed_models(LIMITED, SERVED) == ("gpt-4o",)
    assert allowed_models(NOTHING, SERVED) == ()
    for principal, asked in ((LIMITED, "moss"), (NOTHING, None), (NOTHING, "moss")):
        with pytest.raises(PermissionDeniedError, match="does not include the model 'moss'"):
            choose_model(principal, SERVED, asked)


def test_a_model_that_is_not_served_is_unknown_to_every_key() -> None:
    for principal in (ANONYMOUS, LIMITED, NOTHING):
        with pytest.raises(ModelNotFoundError, match="serves 'moss'"):
            choose_model(principal, SERVED, "llama")


def test_a_key_is_limited_to_its_plugins() -> None:
    assert enabled_plugins(LIMITED, DEPLOYED, None) == {"calculator"}
    assert enabled_plugins(LIMITED, DEPLOYED, ["calculator"]) == {"calculator"}
    assert enabled_plugins(NOTHING, DEPLOYED, None) == frozenset()
    with pytest.raises(PermissionDeniedError, match="does not include: web_search"):
        enabled_plugins(LIMITED, DEPLOYED, ["web_search", "calculator"])


def test_a_plugin_that_is_not_deployed_is_unknown_to_every_key() -> None:
    for principal in (ANONYMOUS, LIMITED, NOTHING):
        with pytest.raises(InvalidFieldError, match="not available here: text_to_image"):
            enabled_plugins(principal, DEPLOYED, ["text_to_image"])
