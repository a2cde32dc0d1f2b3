"""Tokens in lanes: decoding, sampling and the cache; used by every family that makes tokens."""

from ostinato.decode.beam import Beam
from ostinato.decode.constraint import Constraint
from ostinato.decode.decode import Decode
from ostinato.decode.prompt import Prompt, Prompter, plain_prompt
from ostinato.decode.sampling import Sampling
from ostinato.decode.speculative import Draft, Guesser, Lookup

__all__ = [
    "Beam",
    "Constraint",
    "Decode",
    "Draft",
    "Guesser",
    "Lookup",
    "Prompt",
    "Prompter",
    "Sampling",
    "plain_prompt",
]
