"""What judges an output, whole or while it is being written."""

from ostinato.checks.base import BaseCheck
from ostinato.checks.blocked import Blocked
from ostinato.checks.choice import Choice
from ostinato.checks.edges import EndsWith, StartsWith
from ostinato.checks.function import Function, Retry, check
from ostinato.checks.grounded import Grounded
from ostinato.checks.judge import Judge
from ostinato.checks.language import Language
from ostinato.checks.length import Length
from ostinato.checks.measured import Confidence, Repetition, Sentiment
from ostinato.checks.on_topic import OnTopic
from ostinato.checks.running import foresee_all, judge_all, wanted_by
from ostinato.checks.specs import KINDS, from_spec, parameters, to_spec
from ostinato.checks.structure import JsonSchema
from ostinato.checks.whole import Regex
from ostinato.checks.words import Contains, Excludes

__all__ = [
    "KINDS",
    "BaseCheck",
    "Blocked",
    "Choice",
    "Confidence",
    "Contains",
    "EndsWith",
    "Excludes",
    "Function",
    "Grounded",
    "JsonSchema",
    "Judge",
    "Language",
    "Length",
    "OnTopic",
    "Regex",
    "Repetition",
    "Retry",
    "Sentiment",
    "StartsWith",
    "check",
    "foresee_all",
    "from_spec",
    "judge_all",
    "parameters",
    "to_spec",
    "wanted_by",
]
