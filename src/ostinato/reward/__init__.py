"""Learning from reward: games of Gymnasium, one of our own, and a person's thumbs up and down."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
