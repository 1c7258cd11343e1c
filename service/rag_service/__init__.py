"""The service: answers `/rerank` from a cache of pair scores and a ladder of models."""

__version__ = "0.1.0"
