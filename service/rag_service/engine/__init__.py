"""Computes scores: text to tokens, tokens to batches of one length, batches to a backend on threads of its own."""

from rag_service import quiet

quiet.libraries()
