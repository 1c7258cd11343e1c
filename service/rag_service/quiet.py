"""What libraries are told before they are imported: to report to nobody, and to start no threads by themselves."""

import os
import sys
from typing import Any, cast


def libraries() -> None:
    """Tell them. Call it before anything imports onnxruntime, openvino, nncf, huggingface_hub or tokenizers."""
    # ONNX Runtime's published builds report to their makers over the network from 1.29 on, the hub's client always.
    os.environ["ORT_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # OpenVINO does at its import, NNCF at every use, both through this package, and both do without it. `None` stands
    # for a module that cannot be found.
    cast(dict[str, Any], sys.modules)["openvino_telemetry"] = None
    # The tokenizers would start a thread for every CPU of the machine, whatever part of it this process may use.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
