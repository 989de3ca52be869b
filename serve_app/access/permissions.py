"""What a caller's key lets it use: models by their names, plugins by theirs.

Asking for more is an error; what a request does not name is limited silently.
"""

from collections.abc import Collection, Sequence

from serve_app.access.principal import Principal
from serve_app.errors import InvalidFieldError, ModelNotFoundError, PermissionDeniedError


def allowed_models(principal: Principal, served: Sequence[str]) -> tuple[str, ...]:
    """Those of the `served` names by which the caller may call the model."""
    return tuple(name for name in served if _may(principal.models, name))


def choose_model(principal: Principal, served: Sequence[str], asked: str | None) -> str:
    """The name that answers use: `asked`, or the first that the caller may use.

    Raises ModelNotFoundError for a name that is not served, PermissionDeniedError for one that is
    not the caller's, or if it has none.
    """
    if asked not in (None, *served):
        raise ModelNotFoundError(f"this server serves {served[0]!r}")
    allowed = allowed_models(principal, served)
    if not allowed or asked not in (None, *allowed):
        raise PermissionDeniedError(f"your key does not include the model {asked or served[0]!r}")
    return asked or allowed[0]


def enabled_plugins(
    principal: Principal, deployed: Collection[str], asked: Collection[str] | None
) -> frozenset[str]:
    """The plugins of a request: those that are `asked` for, or all that the caller may use.

    Raises InvalidFieldError for one that is not deployed, PermissionDeniedError for one that is
    not the caller's.
    """
    if asked is None:
        return frozenset(name for name in deployed if _may(principal.plugins, name))
    if unknown := sorted(set(asked) - set(deployed)):
        raise InvalidFieldError(f"plugins: not available here: {', '.join(unknown)}", "plugins")
    if denied := sorted(name for name in set(asked) if not _may(principal.plugins, name)):
        raise PermissionDeniedError(f"your key does not include: {', '.join(denied)}")
    return frozenset(asked)


def _may(names: frozenset[str] | None, name: str) -> bool:
    return names is None or name in names
