"""Relevance by operator interception."""
