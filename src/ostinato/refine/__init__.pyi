from .export import Exported, require_export, write_export
from .inputs import (
    STRATEGIES,
    AnyCheck,
    PromptOf,
    Row,
    checks_of,
    keyed,
    prompt_of,
    strategy_of,
    usable_prompt,
)
from .job.checks import prepare
from .job.config import Job, option_names
from .job.file import read_job
from .job.items import Item
from .job.job_items import checked_items, read_items
from .job.job_run import JobRun
from .job.only import ONLY, Only
from .job.open_job import OpenMode, journal_of, open_job
from .job.output_claim import OutputClaim
from .job.preflight import require_ready
from .job.rule_book import RuleBook, read_rule_book
from .job.run_config import JobPlace, JobRunConfig, check_names, job_place, python_checks
from .job.standard_input import STANDARD_INPUT, keep_input
from .job.update_plan import UpdatePlan, plan_update
from .job.work import JobWork, build_job, reopen_job
from .pairs import UNFINISHED, preference_pairs, write_pairs
from .progress import display_of, in_terminal, interval, progress_of, tally_of
from .progress_tally import ProgressDisplay, ProgressTally, QuietProgress, StepTally, Tally
from .prompts import with_feedback
from .python_run import RefineConfig, build_refine
from .refine import Refine
from .report.compare import Change, CheckChange, Comparison, Piece, compare
from .report.html import Outcome, comparison_page, duration
from .report.summary import Reason, ReasonTally
from .report.why import AttemptLine, CheckRecord, CheckTally, Course, attempt_lines, costly
from .results import READY, Result, from_lane
from .routing.router import Route, Router
from .rows import Rows, rows_of, rows_of_run, to_pandas
from .settings import check_tables
from .strategies.backtrack import Backtrack
from .strategies.base import (
    Abort,
    Feedback,
    Resample,
    SteeringContext,
    StillPassable,
    Strategy,
)
from .strategies.constrain import constraint_of, fitting
from .strategies.steering import BestOf, Constrain, Smc
from .text_writer import DEFAULT_SAMPLING, PROMPT_EDITS, TextWriter, opened, prompt_tokens

__all__ = [
    "DEFAULT_SAMPLING",
    "ONLY",
    "PROMPT_EDITS",
    "READY",
    "STANDARD_INPUT",
    "STRATEGIES",
    "UNFINISHED",
    "Abort",
    "AnyCheck",
    "AttemptLine",
    "Backtrack",
    "BestOf",
    "Change",
    "CheckChange",
    "CheckRecord",
    "CheckTally",
    "Comparison",
    "Constrain",
    "Course",
    "Exported",
    "Feedback",
    "Item",
    "Job",
    "JobPlace",
    "JobRun",
    "JobRunConfig",
    "JobWork",
    "Only",
    "OpenMode",
    "Outcome",
    "OutputClaim",
    "Piece",
    "ProgressDisplay",
    "ProgressTally",
    "PromptOf",
    "QuietProgress",
    "Reason",
    "ReasonTally",
    "Refine",
    "RefineConfig",
    "Resample",
    "Result",
    "Route",
    "Router",
    "Row",
    "Rows",
    "RuleBook",
    "Smc",
    "SteeringContext",
    "StepTally",
    "StillPassable",
    "Strategy",
    "Tally",
    "TextWriter",
    "UpdatePlan",
    "attempt_lines",
    "build_job",
    "build_refine",
    "check_names",
    "check_tables",
    "checked_items",
    "checks_of",
    "compare",
    "comparison_page",
    "constraint_of",
    "costly",
    "display_of",
    "duration",
    "fitting",
    "from_lane",
    "in_terminal",
    "interval",
    "job_place",
    "journal_of",
    "keep_input",
    "keyed",
    "open_job",
    "opened",
    "option_names",
    "plan_update",
    "preference_pairs",
    "prepare",
    "progress_of",
    "prompt_of",
    "prompt_tokens",
    "python_checks",
    "read_items",
    "read_job",
    "read_rule_book",
    "reopen_job",
    "require_export",
    "require_ready",
    "rows_of",
    "rows_of_run",
    "strategy_of",
    "tally_of",
    "to_pandas",
    "usable_prompt",
    "with_feedback",
    "write_export",
    "write_pairs",
]
