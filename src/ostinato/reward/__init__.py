"""Learning from reward: the mini-game, and teaching by thumbs up and down."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
