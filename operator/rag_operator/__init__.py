"""The operator: turns each RAGService into running pods, and keeps as many of them as its SLO needs."""
