"""Tokens in lanes: decoding, sampling and the cache; used by every family that makes tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
