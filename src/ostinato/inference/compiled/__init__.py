"""A pass of our network as one compiled function: carried by the wheel, or compiled here."""

from ostinato.inference.compiled.backend import CompiledBackend, check_compiled
from ostinato.inference.compiled.build import (
    Kernel,
    find_kernel,
    has_compiler,
    has_kernel,
    is_private,
)

__all__ = [
    "CompiledBackend",
    "Kernel",
    "check_compiled",
    "find_kernel",
    "has_compiler",
    "has_kernel",
    "is_private",
]
