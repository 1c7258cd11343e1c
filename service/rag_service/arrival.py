"""When a request arrived, and how long it may take. Pure.

It arrived at the gateway, where that stamped the time, else at this process.
"""

import re

from rag_service.contract import duration

# nginx writes `t=1700000000.123`, others milli-, micro- or nanoseconds: in this century, the number of digits before
# the point tells which.
_STAMP = re.compile(r"(?:t=)?([0-9]{10}(?:[0-9]{3}){0,3})(\.[0-9]{1,9})?")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_AHEAD = 1.0  # seconds by which the gateway's clock may be ahead of ours


def waited(stamp: str | None, now: float, longest: float) -> float:
    """Seconds since the time in an `X-Request-Start` header; 0 without one, or with one that cannot be true.

    `now`: seconds since 1970. A request that waited longer than `longest` seconds would not have been kept: such a
    time, and one in the future, comes from a wrong clock or from a client that makes it up.
    """
    match = _STAMP.fullmatch(stamp.strip()) if stamp else None
    if not match:
        return 0.0
    whole, fraction = match[1], match[2] or ""
    seconds = float(whole + fraction) / 10.0 ** (len(whole) - 10)
    since = now - seconds
    return max(0.0, since) if -_AHEAD <= since <= longest else 0.0


def patience(timeout: str | None, longest: float) -> float:
    """Seconds that a request may take, given its `X-Request-Timeout` header: `2`, `0.5`, `1500ms`, `1m30s`.

    It can only shorten the `longest` seconds. Raises ValueError when it is something else.
    """
    if timeout is None:
        return longest
    text = timeout.strip()
    seconds = float(text) if _SECONDS.fullmatch(text) else duration.parse(text).total_seconds()
    return min(seconds, longest)
