"""Reading and writing images and sounds. Knows no data set, no network and no loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
