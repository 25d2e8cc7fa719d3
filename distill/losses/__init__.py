"""Losses: pure functions on tensors, and the terms that pick, call and reduce."""
