"""Computes scores: text to tokens, tokens to batches of one length, batches to a backend on threads of its own."""

import os

# What the libraries below have to be told before they are first imported.
# ONNX Runtime's published builds report to their makers over the network from 1.29 on, unless they are told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The tokenizers would start a thread for every CPU of the machine, whatever part of it this process may use.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
