"""Pure: how a decision reaches the Deployment. The HorizontalPodAutoscaler alone changes a running one's replicas."""

from rag_operator.api.v1alpha1 import Scaling
from rag_operator.desired.hpa import HpaBounds


def bounds(required: int, scaling: Scaling, *, resource_metrics: bool) -> HpaBounds:
    """The `Bounds` actuator: the need as the HorizontalPodAutoscaler's minimum.

    With resource metrics its maximum is the user's, and a CPU target may add pods where the plan is wrong. Without
    them the need is the maximum too: an autoscaler whose only metric fails never shrinks, but it keeps its bounds.
    """
    if resource_metrics:
        return HpaBounds(min=required, max=max(required, scaling.max_replicas), cpu_target=True)
    return HpaBounds(min=required, max=required, cpu_target=False)
