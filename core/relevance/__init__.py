"""Layer-wise relevance: the rules."""
