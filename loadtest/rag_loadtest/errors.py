"""What can keep a load check from a verdict, apart from the load itself. Messages are for the person who runs it."""


class ConfigurationError(Exception):
    """Something that was asked for is wrong: what, where, and what to do."""


class UnreachableError(Exception):
    """The target gives no answer, or none of a RAGService."""
