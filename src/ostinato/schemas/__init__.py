"""JSON schemas as they are read: dialect, references, patterns, and what token masks can follow.

Knows no check and no tokens. What judges a value by a schema is `ostinato.checks`.
"""

from ostinato.schemas.ecma import EcmaPattern, ecma_pattern
from ostinato.schemas.mask import mask_schema
from ostinato.schemas.schema import check_schema, json_copy, offline_references, validator_class

__all__ = [
    "EcmaPattern",
    "check_schema",
    "ecma_pattern",
    "json_copy",
    "mask_schema",
    "offline_references",
    "validator_class",
]
