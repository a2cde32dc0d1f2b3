"""Our network's pass as one compiled function: needs a C++ compiler on the machine."""

from ostinato.models.native.build import has_compiler
from ostinato.models.native.inference import NativeInference, check_compiled

__all__ = ["NativeInference", "check_compiled", "has_compiler"]
