"""Checks judge an output, whole or while it is generated. They know no job and no strategy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
