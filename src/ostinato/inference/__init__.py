"""Backends: what computes the tokens of many lanes. Knows networks, but no sampling and no loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
