from .beam import Beam
from .constrained_state import ConstrainedState
from .constraint import Constraint, lark_term, llguidance_tokenizer, matcher
from .decode import Decode, Prompter, TokenPrompt, plain_prompt
from .masked_row import (
    MaskedRow,
    check_mask,
    check_put,
    check_tokens,
    uniforms,
)
from .maskgit import MASKED, UnmaskStep, pick_each, unmask_step
from .sampling import GREEDY_BELOW, SamplingParams
from .speculative import DraftModel, DraftProposer, PromptLookup

__all__ = [
    "GREEDY_BELOW",
    "MASKED",
    "Beam",
    "ConstrainedState",
    "Constraint",
    "Decode",
    "DraftModel",
    "DraftProposer",
    "MaskedRow",
    "PromptLookup",
    "Prompter",
    "SamplingParams",
    "TokenPrompt",
    "UnmaskStep",
    "check_mask",
    "check_put",
    "check_tokens",
    "lark_term",
    "llguidance_tokenizer",
    "matcher",
    "pick_each",
    "plain_prompt",
    "uniforms",
    "unmask_step",
]
