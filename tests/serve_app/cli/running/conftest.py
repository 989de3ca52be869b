"""The real application for chats in a terminal."""

from tests.serve_app.client.conftest import app, line, running

__all__ = ["app", "line", "running"]
