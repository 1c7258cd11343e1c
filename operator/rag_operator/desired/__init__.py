"""Pure: what a RAGService should consist of, as manifests."""
