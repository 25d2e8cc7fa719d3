"""Rows, tokens, windows, batches."""
