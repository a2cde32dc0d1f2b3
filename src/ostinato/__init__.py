"""Ostinato: every generative process as one kind of loop, until it is good enough.

The engine's names are here; the families are `ostinato.text`, `ostinato.refine`,
`ostinato.train`, `ostinato.models` and `ostinato.checks`, imported where they are needed.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
