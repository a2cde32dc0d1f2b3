"""A generator and a discriminator of images in turns: networks, losses, measures, the duel."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
