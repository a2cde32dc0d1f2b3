"""Four-part chorales, token by token: scores, MIDI, sound, checks, and the model's vocabulary."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
