"""The application that a replica belongs to, as others on the same store know it."""

import ray
from ray import serve

from serve_app.settings import ServeSettings
from serve_app.store.claim import Application


def own_application(settings: ServeSettings) -> Application:
    """Of the replica in this process. Outside of a cluster there is one without a name."""
    model = settings.model_names[0]
    if not ray.is_initialized():
        return Application("", "", model)
    session: str = ray.get_runtime_context().get_session_name()
    return Application(serve.get_replica_context().app_name, session, model)
