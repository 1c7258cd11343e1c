"""Pure: what a RAGService should consist of, as manifests. `manifests.manifests` is the way in."""
