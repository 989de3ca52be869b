"""Errors of the plugins' configuration. A bad argument of a call is never an error."""


class PluginError(Exception):
    """Root of this package's errors. Its message is written for a person."""


class UnknownPluginError(PluginError):
    """No plugin has this name, or it cannot run with these settings."""
