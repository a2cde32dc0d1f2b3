"""The C structures and constants of the compiled kernel. Knows no network."""

from __future__ import annotations

import ctypes

import torch

LANES = 16  # outputs that the kernel computes side by side, one in each lane of a vector
DEPTH = 32  # inputs of a matrix tile, and of a group
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # `Kind` of products.h
TILED = 3
GROUPED = {(8, 32): 4, (8, 16): 5, (4, 32): 6, (4, 16): 7}  # by bits and inputs of a group
PACKED = 8  # of embeddings: as the product that they point to
FLOAT_INPUTS, TILED_INPUTS, GROUPED_INPUTS = 0, 1, 2  # `input_kind` of attention.h


class ProductC(ctypes.Structure):
    """`struct Product` of kernel.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("minimum", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("own", ctypes.c_int64),
        ("next", ctypes.c_void_p),
    )


class MatrixC(ctypes.Structure):
    """`struct Matrix` of pack.h."""

    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("minimum", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("step", ctypes.c_int64),
        ("update", ctypes.c_void_p),
        ("factor", ctypes.c_float),
    )


class LayerC(ctypes.Structure):
    """`struct Layer` of kernel.cpp."""

    _fields_ = (
        ("norm1", ctypes.c_void_p),
        ("qkv", ProductC),
        ("q_norm", ctypes.c_void_p),
        ("k_norm", ctypes.c_void_p),
        ("out", ProductC),
        ("norm2", ctypes.c_void_p),
        ("up", ProductC),
        ("down", ProductC),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("window", ctypes.c_int64),
    )


_SIZES = ("layers", "width", "padded_width", "heads", "kv_heads", "head_dim", "padded_head")
_MORE = ("inner", "length", "input_kind", "cache_kind", "embedding_kind")


class NetworkC(ctypes.Structure):
    """`struct Network` of kernel.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*_SIZES, *_MORE)),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("layer", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
    )
