"""Texts from a language model; the loop, its lanes and its stops come from below."""

from ostinato.text.filling import GAP, fill_gaps
from ostinato.text.unmask import Fill, Gaps, Unmask
from ostinato.text.writing import LENGTH, write

__all__ = ["GAP", "LENGTH", "Fill", "Gaps", "Unmask", "fill_gaps", "write"]
