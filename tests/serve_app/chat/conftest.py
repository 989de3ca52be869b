"""Fakes of the collaborators of a reply."""

import pytest

from tests.support.chat_fakes import FakeModel, FakePlugins


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def plugins() -> FakePlugins:
    return FakePlugins(patience_s=0.3)
