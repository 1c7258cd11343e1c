"""How scores lie in Redis. Pure.

One hash for each (service, model, query); in it one field for each document. No text is stored, only digests.
A value is the score, whether the model read all of the document, and when it was computed: a score is too old some
fixed time after that, however often it was read, and whatever else was written to its hash since.
"""

import hashlib
import struct
from datetime import timedelta

from rag_service.cache import Score

VERSION = 2  # part of every key: raise it when anything here changes, and old entries are never read again

# The score; seconds since `_EPOCH` (enough until 2088), and in the lowest bit whether something was cut.
_VALUE = struct.Struct("<fI")
_EPOCH = 1_577_836_800  # 2020-01-01
# Clocks of two machines differ. A score from further in the future than this was written by a clock gone wrong.
_SKEW = 60


def digest(text: str) -> bytes:
    """Names a text, in 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def key(service: str, fingerprint: str, query: str) -> str:
    """The hash of a query's scores by one model of one service."""
    return f"ragservice:{VERSION}:{service}:{fingerprint}:{digest(query).hex()}"


def pack(score: Score, now: float) -> bytes:
    """A field's value. `score.value` must be a number that float32 holds; `now`: seconds since 1970."""
    return _VALUE.pack(score.value, max(0, int(now) - _EPOCH) << 1 | score.cut)


def unpack(value: bytes | None, now: float, ttl: timedelta) -> Score | None:
    """The score in a field, to the bit as it was packed; None when there is none, or none that is still valid."""
    if value is None or len(value) != _VALUE.size:
        return None
    score, created = _VALUE.unpack(value)
    valid = -_SKEW <= now - _EPOCH - (created >> 1) < ttl.total_seconds()
    return Score(score, bool(created & 1)) if valid else None


def expiry(ttl: timedelta) -> int:
    """Milliseconds after which Redis may forget a hash: not before its newest field is too old."""
    return int(ttl.total_seconds() * 1000) + 1000
