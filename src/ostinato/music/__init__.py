"""Chorales of four voices, token by token; the loop, its lanes and its stops come from below."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
