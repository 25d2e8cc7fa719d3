"""Composes the parts: command line, stages, runner, report."""
