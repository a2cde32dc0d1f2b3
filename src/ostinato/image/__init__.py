"""Diffusion models of images: denoisers, solvers, sampling and training, step by step."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
