"""OpenAI-compatible servers: their answers as a lane process, or one answer in a blocking call.

Requests are retried, limited and budgeted; reports make a resume without new requests possible.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
