"""Text generation: writing token by token, filling gaps, and the parts of a text training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
