"""Durable flows: plain Python around generative calls, each of which is made once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
