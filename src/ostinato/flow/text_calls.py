"""Calls that write a text, judge one, or choose: what they return is recorded with what it cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ostinato.arguments import require
from ostinato.errors import ItemError, OstinatoError
from ostinato.flow.frames import Frame, frame_of
from ostinato.flow.record import Made
from ostinato.flow.values import plain
from ostinato.flow.writers import computes
from ostinato.loop import LaneResult, Verdict

if TYPE_CHECKING:
    from ostinato.decode import SamplingParams
    from ostinato.flow.texts import Watch
    from ostinato.loop import Check
    from ostinato.models import LanguageModel
    from ostinato.refine import AnyCheck, Strategy
    from ostinato.remote import Server

GIVEN = "given"
"""The column that holds what a call is `given`, where that is no mapping."""


class TakenBack(NamedTuple):
    """What a draft lost: a text, why it was taken back, and the checks that it failed."""

    text: str
    why: str
    checks: tuple[str, ...]


class Reply(str):
    """A text that `generate` wrote: a `str` that knows whether it passed, and what it cost.

    `taken_back` has what was written and did not stay, in that order.
    """

    accepted: bool
    why: str
    rounds: int
    backtracks: int
    tokens: int
    computed: int
    verdicts: tuple[Verdict, ...]
    taken_back: tuple[TakenBack, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the reply of a recorded answer."""
        reply = cls(row["text"])
        reply.accepted, reply.why = row["accepted"], row["why"]
        reply.rounds, reply.backtracks = row["rounds"], row["backtracks"]
        reply.tokens, reply.computed = row["tokens"], row["computed"]
        reply.verdicts = tuple(Verdict.from_json(each) for each in row["verdicts"])
        reply.taken_back = tuple(
            TakenBack(text, why, tuple(checks)) for text, why, checks in row.get("taken_back", ())
        )
        return reply


class Judged(NamedTuple):
    """What checks say of a text. True where all of them pass."""

    verdicts: tuple[Verdict, ...]

    def __bool__(self) -> bool:
        return self.passed

    @property
    def passed(self) -> bool:
        """Whether all checks pass."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def messages(self) -> list[str]:
        """What the checks that failed say must be mended."""
        failed = [verdict for verdict in self.verdicts if not verdict.passed]
        return [verdict.error or verdict.message or verdict.check for verdict in failed]

    @property
    def score(self) -> float:
        """The lowest score, in [0, 1]; 1 without checks."""
        return min((verdict.score for verdict in self.verdicts), default=1.0)


class NoChoice(OstinatoError):
    """Nothing chose one of the options that `choose` has."""


def generate(
    prompt: str | Sequence[Mapping[str, str]],
    checks: AnyCheck | Iterable[AnyCheck] = (),
    *,
    given: object = None,
    model: LanguageModel | Server | str | None = None,
    strategy: Strategy | str | None = None,
    sampling: SamplingParams | None = None,
    max_new_tokens: int = 128,
    tokens: int | None = None,
    seconds: float | None = None,
    watch: Watch | None = None,
) -> Reply:
    """Write a text until it passes `checks`, and return it.

    `prompt` is the user's message, or the messages of a conversation. `given` has the columns that
    checks read: a mapping, or one value as the column "given". `model` is that of the run by
    default; `strategy` (`Backtrack`), `sampling`, `max_new_tokens` of a draft, `tokens` and
    `seconds` over all drafts are those of `Refine`. `watch` gets the text as it grows, but
    not where it is recorded already; a sentence that it returns ends the text, and says why.

    A text that did not pass within the strategy's rounds has `accepted` False: it is the best one.
    Raises `ItemError` where nothing can be written, such as a prompt that is too long.
    """
    frame = frame_of("generate")
    return _write(
        frame,
        "generate",
        prompt,
        as_checks(checks),
        columns=_columns(given),
        model=frame.task.settings.model if model is None else model,
        strategy=strategy,
        sampling=sampling,
        max_new_tokens=max_new_tokens,
        tokens=tokens,
        seconds=seconds,
        watch=watch,
    )


def choose(
    question: str,
    options: Sequence[str],
    *,
    given: object = None,
    rules: Mapping[str, str] | None = None,
    by: Callable[..., str | None] | None = None,
    model: LanguageModel | Server | str | None = None,
) -> str:
    """Return one of `options`: the first that a rule names, else a classifier, else the model.

    `rules` maps options to regular expressions that are searched in what is `given`, or in the
    question without that. `by` is a function of it that returns an option, or None to leave it to
    the model. A model in this process can write nothing but the options (this needs the extra
    `constrain`); that on a server is asked again, up to eight times. Raises `NoChoice` then.
    """
    frame = frame_of("choose")
    names = list(dict.fromkeys(options))
    require(len(names) > 1, "options", "at least two different texts", options)
    for option in [*(rules or {})]:
        require(option in names, "A rule", f"for one of {', '.join(names)}", option)
    arguments = {"question": question, "options": names, "given": plain(given, "given")}
    text = question if given is None else str(given if isinstance(given, str) else plain(given, ""))

    def make(path: str) -> Made:
        chosen = _by_rule(rules or {}, text)
        if chosen is None and by is not None:
            chosen = by(question if given is None else given)
            if chosen is not None and chosen not in names:
                raise NoChoice(
                    f"The function of choose must return one of {', '.join(names)}, got {chosen!r}."
                )
        if chosen is not None:
            return Made(chosen)
        used = frame.task.settings.model if model is None else model
        return _chosen_by_model(frame, path, question, names, given, used)

    chosen = frame.task.record.call(frame, "choose", arguments, make)
    assert isinstance(chosen, str)
    return chosen


def _by_rule(rules: Mapping[str, str], text: str) -> str | None:
    import regex

    for option, pattern in rules.items():
        if regex.search(pattern, text, timeout=2):
            return option
    return None


def _chosen_by_model(
    frame: Frame, path: str, question: str, options: Sequence[str], given: object, model: Any
) -> Made:
    from ostinato.checks import Choice, Regex
    from ostinato.remote import Server

    about = "" if given is None else f"\n\n{given if isinstance(given, str) else plain(given, '')}"
    prompt = f"{question}{about}\n\nAnswer with one of: {', '.join(options)}."
    used = frame.task.settings.opened(model, frame.task.hub)
    if isinstance(used, Server):
        asked: Any = {"strategy": "resample", "sampling": None}
        only: Check = Choice(texts=tuple(options), case=True)
    else:  # a choice may have white space around it, which a model writes until it has no room
        asked = {"strategy": "constrain", "sampling": _greedy()}
        only = Regex(pattern="|".join(re.escape(option.strip()) for option in options))
    row = written_text(frame, path, prompt, (only,), {}, model=used, max_new_tokens=64, **asked)
    if not row.value["accepted"]:  # type: ignore[index]
        raise NoChoice(
            f"The model must choose one of {', '.join(options)}, and wrote "
            f"{row.value['text']!r:.80}."  # type: ignore[index]
        )
    text = str(row.value["text"]).strip()  # type: ignore[index]
    chosen = next(option for option in options if option.strip() == text)
    return Made(chosen, row.spent, row.synced)


def _greedy() -> SamplingParams:
    from ostinato.decode import SamplingParams

    return SamplingParams(temperature=0.0)


def _write(
    frame: Frame, name: str, prompt: Any, checks: tuple[Check, ...], **settings: Any
) -> Reply:
    watch, columns = settings.pop("watch"), settings.pop("columns")
    model = settings["model"]
    told = {key: value for key, value in settings.items() if value is not None and key != "model"}
    arguments = {
        "prompt": plain(prompt, "the prompt"),
        "model": model if isinstance(model, str) else model.name,
        "checks": [check.name for check in checks],
        **{key: _setting(value) for key, value in told.items()},
    }
    row = frame.task.record.call(
        frame,
        name,
        arguments,
        lambda path: written_text(frame, path, prompt, checks, columns, watch=watch, **settings),
    )
    return Reply.of(row)


def written_text(
    frame: Frame,
    path: str,
    prompt: Any,
    checks: tuple[Check, ...],
    columns: Mapping[str, object],
    *,
    watch: Watch | None = None,
    **settings: Any,
) -> Made:
    """Let the computing thread write a text, and return its row.

    Its random numbers depend on `path` and the run's seed.
    """
    from ostinato.flow.texts import TextRequest
    from ostinato.refine import from_lane, usable_prompt

    hub = frame.task.hub
    opened = frame.task.settings.opened(settings.pop("model"), hub)
    writer = frame.task.settings.writers.of(opened, checks, hub, **settings)
    request = TextRequest(
        key=path,
        writer=writer,
        prompt=usable_prompt(_prompt_of(prompt), checks),
        columns=columns,
        watch=watch,
    )
    result: LaneResult = hub.submit(request)
    if result.stopped.kind == "error":
        raise ItemError(result.stopped.sentence)
    row = from_lane(result)
    spent = {
        "tokens": float(result.spent.get("tokens", row.tokens.computed)),
        "computed": float(row.tokens.computed),
        "prompt": float(row.tokens.prompt),
        **({"cost": result.spent["cost"]} if "cost" in result.spent else {}),
    }
    answer = {
        "text": row.reply,
        "accepted": row.accepted or not checks,
        "why": row.stopped.sentence,
        "rounds": row.rounds,
        "backtracks": row.backtracks,
        "tokens": row.tokens.reply,
        "computed": row.tokens.computed,
        "verdicts": [verdict.to_json() for verdict in row.verdicts],
    }
    lost = [[each.taken_back, each.message, list(each.check)] for each in row.drafts if each.lost]
    answer |= {"taken_back": lost} if lost else {}
    answer |= {"stopped": True} if request.ended else {}
    return Made(answer, spent, synced=True)


def _prompt_of(prompt: str | Sequence[Mapping[str, str]]) -> Any:
    from ostinato.refine import with_feedback

    def made(row: Mapping[str, object], edits: Mapping[str, object]) -> Any:
        feedback = edits.get("feedback")
        if not isinstance(feedback, Mapping):
            return prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return with_feedback([dict(each) for each in messages], feedback)

    return made


def as_checks(checks: Any) -> tuple[Check, ...]:
    """Return one check or several as a tuple; functions and names of kinds become checks."""
    from ostinato.refine import checks_of

    alone = isinstance(checks, str) or callable(checks) or callable(getattr(checks, "judge", None))
    each = [checks] if alone else list(checks)
    return checks_of(each) if each else ()


def _setting(value: Any) -> object:
    """Return a setting as it is recorded among a call's arguments."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: plain(getattr(value, each.name), each.name)
            for each in fields(value)
            if each.init and getattr(value, each.name) != each.default
        }
    return value if isinstance(value, str | int | float | bool) else repr(value)


def _columns(given: object) -> dict[str, object]:
    if given is None:
        return {}
    if is_dataclass(given) and not isinstance(given, type):
        return asdict(given)
    return dict(given) if isinstance(given, Mapping) else {GIVEN: given}


def check(
    output: str,
    checks: AnyCheck | Iterable[AnyCheck],
    *,
    given: object = None,
) -> Judged:
    """Judge a text; `given` has the columns that checks read. True where all checks pass."""
    frame = frame_of("check")
    each, columns = as_checks(checks), _columns(given)
    require(bool(each), "checks", "at least one check or function", checks)
    names = [one.name for one in each]
    arguments = {"output": str.__str__(output), "checks": names, "given": plain(columns, "given")}

    rows = frame.task.record.call(
        frame, "check", arguments, lambda path: Made(judged_text(frame, each, output, columns))
    )
    return Judged(tuple(Verdict.from_json(row) for row in rows))


def judged_text(
    frame: Frame, checks: tuple[Check, ...], output: str, columns: Mapping[str, object]
) -> list[Any]:
    """Return the verdicts on a text as JSON; a model computes in the thread of all models."""

    def judged() -> list[Any]:
        from ostinato.checks import TIME_LIMIT, judge_all

        frame.task.settings.check_models.prepare(checks)
        return [verdict.to_json() for verdict in judge_all(checks, output, columns, TIME_LIMIT)]

    found: list[Any] = frame.task.hub.submit(judged) if computes(checks) else judged()
    return found
