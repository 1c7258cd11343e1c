"""The one exception of this package."""


class DevclusterError(Exception):
    """A failure told to its reader in one line: what is wrong, where, and what to do next."""
