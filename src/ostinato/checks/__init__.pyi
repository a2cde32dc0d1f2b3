from .affixes import EndsWith, StartsWith
from .base import POSSIBLE, BaseCheck, impossible
from .blocked import Blocked
from .choice import Choice
from .constraint_spec import ANY, ConstraintSpec
from .deadline import Deadline
from .function import Function, Retry, check
from .grounding.check import SOURCES, Grounded
from .json_schema.check import JsonSchema
from .judge.check import Judge
from .length import Length
from .metrics import Confidence, Repetition, Sentiment
from .normal_form import normal_form
from .on_topic import OnTopic
from .patterns import Finder, finder
from .regex_check import Regex
from .runner import TIME_LIMIT, check_prefix_all, judge_all, limited, required_by
from .segments import ends_with_sentence, is_unspaced, sentence_ends, split_words
from .specs import KINDS, from_spec, imported, parameters, to_spec
from .templates import Template, shown
from .words import Contains, Excludes

__all__ = [
    "ANY",
    "KINDS",
    "POSSIBLE",
    "SOURCES",
    "TIME_LIMIT",
    "BaseCheck",
    "Blocked",
    "Choice",
    "Confidence",
    "ConstraintSpec",
    "Contains",
    "Deadline",
    "EndsWith",
    "Excludes",
    "Finder",
    "Function",
    "Grounded",
    "JsonSchema",
    "Judge",
    "Length",
    "OnTopic",
    "Regex",
    "Repetition",
    "Retry",
    "Sentiment",
    "StartsWith",
    "Template",
    "check",
    "check_prefix_all",
    "ends_with_sentence",
    "finder",
    "from_spec",
    "imported",
    "impossible",
    "is_unspaced",
    "judge_all",
    "limited",
    "normal_form",
    "parameters",
    "required_by",
    "sentence_ends",
    "shown",
    "split_words",
    "to_spec",
]
