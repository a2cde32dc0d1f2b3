"""A variational autoencoder of images: trained, and decoded from points of its space."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
