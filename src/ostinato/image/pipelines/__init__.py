"""Pipelines of `diffusers` from a local folder, denoised step by step (extra `diffusers`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
