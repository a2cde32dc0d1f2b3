"""Our network's pass as one compiled function: needs a C++ compiler on the machine."""

from ostinato.models.native.inference import NativeInference

__all__ = ["NativeInference"]
