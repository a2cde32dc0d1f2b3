from .backend import (
    Backend,
    backend_for,
    check_before_loading,
    in_compute_mode,
    open_backend,
)
from .compiled.backend import CompiledBackend, check_compiled
from .compiled.build import Kernel, find_kernel, has_compiler, has_kernel, is_private
from .cuda_graphs import CudaGraphBackend
from .fixed_shape import FixedShapeBackend
from .gru_backend import GRUBackend
from .llama_cpp_backend import LlamaCppBackend
from .row_blocks import Counts, TokenRow
from .self_test import SelfTest
from .transformers_backend import TransformersBackend

__all__ = [
    "Backend",
    "CompiledBackend",
    "Counts",
    "CudaGraphBackend",
    "FixedShapeBackend",
    "GRUBackend",
    "Kernel",
    "LlamaCppBackend",
    "SelfTest",
    "TokenRow",
    "TransformersBackend",
    "backend_for",
    "check_before_loading",
    "check_compiled",
    "find_kernel",
    "has_compiler",
    "has_kernel",
    "in_compute_mode",
    "is_private",
    "open_backend",
]
