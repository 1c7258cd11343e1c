"""The int8 graph that Hugging Face's optimum makes: dynamic, as users of Infinity's optimum engine have it.

Runs in the peers' environment: `python quantise_for_peers.py MODEL OUT`.
"""

import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

model, out = sys.argv[1], Path(sys.argv[2])
exported = ORTModelForSequenceClassification.from_pretrained(model, export=True)
quantiser = ORTQuantizer.from_pretrained(exported)
quantiser.quantize(
    save_dir=out, quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
)
