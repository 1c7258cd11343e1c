"""The load check: drives a RAGService as its users would and says whether its SLO held."""
