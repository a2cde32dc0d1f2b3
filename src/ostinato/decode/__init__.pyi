from .beam import Beam
from .constrained_state import ConstrainedState
from .constraint import Constraint, matcher, reader, term
from .decode import Decode, Prompter, TokenPrompt, plain_prompt
from .maskgit import draw_each, pick_each, surest, to_keep
from .sampling import SamplingParams
from .speculative import DraftModel, DraftProposer, PromptLookup

__all__ = [
    "Beam",
    "ConstrainedState",
    "Constraint",
    "Decode",
    "DraftModel",
    "DraftProposer",
    "PromptLookup",
    "Prompter",
    "SamplingParams",
    "TokenPrompt",
    "draw_each",
    "matcher",
    "pick_each",
    "plain_prompt",
    "reader",
    "surest",
    "term",
    "to_keep",
]
