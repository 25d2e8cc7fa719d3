"""From a section of the configuration to a loss term, checked against the models it is for."""

from distill.terms.build import make
from distill.terms.needs import check_offers, say
from distill.terms.sides import Sides

__all__ = ["Sides", "check_offers", "make", "say"]
