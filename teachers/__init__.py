"""Teachers: a live model, or none."""
