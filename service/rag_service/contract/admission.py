"""Who is let in. Pure policies: measured state in, decision out."""

import math
from datetime import timedelta


def retry_after(queued: int, offered: int, speed: float | None, patience: timedelta) -> timedelta | None:
    """None to let a request in; otherwise after how long it is worth another try, in whole seconds.

    `queued` tokens wait already, the request brings `offered` more, the engine reads `speed` tokens a second
    (None: not measured yet). Refused is what could not be answered within `patience` anyway; an idle engine
    refuses nothing.
    """
    if not queued or not speed:
        return None
    late = (queued + offered) / speed - patience.total_seconds()
    return timedelta(seconds=math.ceil(late)) if late > 0 else None
