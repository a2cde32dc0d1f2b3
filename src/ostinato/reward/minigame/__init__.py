"""The mini-game: a boat on a river, that people and policies steer, and that people teach."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
