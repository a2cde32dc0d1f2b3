"""Learning from reward: games, and language models tuned by checks and preferences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
