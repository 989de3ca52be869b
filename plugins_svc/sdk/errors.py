"""Errors of the plugins' configuration. A bad argument of a call is never an error."""


class PluginError(Exception):
    """Root of this package's errors. Its message is for the operator."""


class UnknownPluginError(PluginError):
    """No plugin has this name, or it cannot run with these settings."""
