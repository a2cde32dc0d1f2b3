"""Networks, tokenizers and adapters, and where weights come from. Knows no loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
