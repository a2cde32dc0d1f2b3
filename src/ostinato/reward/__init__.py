"""Learning from reward: a language model tuned by checks, and by preferences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
