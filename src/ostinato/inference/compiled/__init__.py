"""A pass of our network as one compiled function; needs a C++ compiler on the machine."""

from ostinato.inference.compiled.backend import CompiledBackend, check_compiled
from ostinato.inference.compiled.build import has_compiler

__all__ = ["CompiledBackend", "check_compiled", "has_compiler"]
