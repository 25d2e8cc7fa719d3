"""Data sets that come with the package, written for it."""

from distill.data.embedded.grammar import LABELS, PARTS, Row, load, templates

__all__ = ["LABELS", "PARTS", "Row", "load", "templates"]
