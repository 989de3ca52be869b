"""The errors of the plugins' own wiring; what is in a call's argument is never an error."""


class PluginError(Exception):
    """Root of this package's errors; its message is meant for a person."""


class UnknownPluginError(PluginError):
    """No plugin has this name, or it has no back end in this configuration."""
