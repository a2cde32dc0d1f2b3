"""Tokens in lanes: sampling, constraints, beams, speculation; for every family that uses tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
