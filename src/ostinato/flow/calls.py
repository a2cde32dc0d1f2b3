"""The calls of flows: each is made once, and its answer is recorded under its place."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import asdict, fields, is_dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from ostinato.arguments import require, require_at_least
from ostinato.errors import InputError, ItemError, OstinatoError
from ostinato.flow.frames import Frame, current, enter, frame_of
from ostinato.flow.hub import Suspended
from ostinato.flow.record import Made, handled_later
from ostinato.flow.values import plain, recordable, return_hint, typed
from ostinato.loop import LaneResult, Verdict
from ostinato.loop import uniform as uniform_number

if TYPE_CHECKING:
    from datetime import datetime

    from ostinato.decode import SamplingParams
    from ostinato.flow.texts import Watch
    from ostinato.journal import RunConfig
    from ostinato.loop import Check
    from ostinato.models import LanguageModel
    from ostinato.refine import Strategy, TextWriter
    from ostinato.remote import Server

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

GIVEN = "given"
"""The column that holds what a call is `given`, where that is no mapping."""


class Reply(str):
    """A text that `generate` wrote: a `str` that knows whether it passed, and what it cost."""

    accepted: bool
    why: str
    rounds: int
    backtracks: int
    tokens: int
    computed: int
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Reply:
        """Return the reply of a recorded answer."""
        reply = cls(row["text"])
        reply.accepted, reply.why = row["accepted"], row["why"]
        reply.rounds, reply.backtracks = row["rounds"], row["backtracks"]
        reply.tokens, reply.computed = row["tokens"], row["computed"]
        reply.verdicts = tuple(Verdict.from_json(each) for each in row["verdicts"])
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


# Texts ------------------------------------------------------------------------------------------


def generate(
    prompt: str | Sequence[Mapping[str, str]],
    checks: Check | Callable[..., object] | Iterable[Check | Callable[..., object]] = (),
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
    `seconds` over all drafts are those of `Refine`. `watch` gets the text as it grows; not where it
    is recorded already.

    A text that did not pass within the strategy's rounds has `accepted` False: it is the best one.
    Raises `ItemError` where nothing can be written, such as a prompt that is too long.
    """
    frame = frame_of("generate")
    return _write(
        frame,
        "generate",
        prompt,
        _as_checks(checks),
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
    from ostinato.checks import Choice
    from ostinato.remote import Server

    about = "" if given is None else f"\n\n{given if isinstance(given, str) else plain(given, '')}"
    prompt = f"{question}{about}\n\nAnswer with one of: {', '.join(options)}."
    used = frame.task.settings.opened(model, frame.task.hub)
    strategy = "resample" if isinstance(used, Server) else "constrain"
    row = _written(
        frame,
        path,
        prompt,
        (Choice(texts=tuple(options), case=True),),
        {},
        model=used,
        strategy=strategy,
        sampling=None if isinstance(used, Server) else _greedy(),
        max_new_tokens=64,
    )
    if not row.value["accepted"]:  # type: ignore[index]
        raise NoChoice(
            f"The model must choose one of {', '.join(options)}, and wrote "
            f"{row.value['text']!r:.80}."  # type: ignore[index]
        )
    return Made(str(row.value["text"]).strip(), row.spent, row.synced)  # type: ignore[index]


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
        lambda path: _written(frame, path, prompt, checks, columns, watch=watch, **settings),
    )
    return Reply.of(row)


def _written(
    frame: Frame,
    path: str,
    prompt: Any,
    checks: tuple[Check, ...],
    columns: Mapping[str, object],
    *,
    watch: Watch | None = None,
    **settings: Any,
) -> Made:
    """Let the computing thread write a text, and return its row."""
    from ostinato.flow.texts import TextRequest
    from ostinato.refine import from_lane, usable_prompt

    hub = frame.task.hub
    writer = _writer(frame, checks, **settings)
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
        "accepted": row.accepted,
        "why": row.stopped.sentence,
        "rounds": row.rounds,
        "backtracks": row.backtracks,
        "tokens": row.tokens.reply,
        "computed": row.tokens.computed,
        "verdicts": [verdict.to_json() for verdict in row.verdicts],
    }
    return Made(answer, spent, synced=True)


def _writer(frame: Frame, checks: tuple[Check, ...], *, model: Any, **settings: Any) -> TextWriter:
    """Return the writer of some settings: the same one for the same, as its lanes share a batch."""
    shared, hub = frame.task.settings, frame.task.hub
    used = {name: value for name, value in settings.items() if value is not None}
    opened = shared.opened(model, hub)
    key = (id(opened), tuple(map(id, checks)), repr(sorted(used.items())))
    writer: TextWriter | None = shared.writers.get(key)
    if writer is None:
        writer = _new_writer(opened, checks, used)
        if any(hasattr(each, "compute_mode") for each in checks):
            hub.submit(lambda: _prepared(checks))
        else:
            _prepared(checks)
        shared.writers[key] = writer
    return writer


def _prepared(checks: tuple[Check, ...]) -> None:
    from ostinato.checks import BaseCheck
    from ostinato.refine import prepare

    prepare([each for each in checks if isinstance(each, BaseCheck)])


def _new_writer(model: Any, checks: tuple[Check, ...], settings: dict[str, Any]) -> TextWriter:
    from ostinato.refine import TextWriter, strategy_of

    strategy = strategy_of(settings.pop("strategy", None))
    return TextWriter(model=model, checks=checks, strategy=strategy, **settings)


def _prompt_of(prompt: str | Sequence[Mapping[str, str]]) -> Any:
    from ostinato.refine import with_feedback

    def made(row: Mapping[str, object], edits: Mapping[str, object]) -> Any:
        feedback = edits.get("feedback")
        if not isinstance(feedback, Mapping):
            return prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return with_feedback([dict(each) for each in messages], feedback)

    return made


def _as_checks(checks: Any) -> tuple[Check, ...]:
    from ostinato.refine import checks_of

    alone = callable(checks) or callable(getattr(checks, "judge", None))
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
    checks: Check | Callable[..., object] | Iterable[Check | Callable[..., object]],
    *,
    given: object = None,
) -> Judged:
    """Judge a text; `given` has the columns that checks read. True where all checks pass."""
    frame = frame_of("check")
    each, columns = _as_checks(checks), _columns(given)
    require(bool(each), "checks", "at least one check or function", checks)
    names = [one.name for one in each]
    arguments = {"output": str.__str__(output), "checks": names, "given": plain(columns, "given")}

    def judged() -> list[Any]:
        from ostinato.checks import TIME_LIMIT, judge_all

        _prepared(each)
        return [verdict.to_json() for verdict in judge_all(each, output, columns, TIME_LIMIT)]

    def make(path: str) -> Made:
        # A model computes in the thread of all models.
        computes = any(hasattr(one, "compute_mode") for one in each)
        return Made(frame.task.hub.submit(judged) if computes else judged())

    rows = frame.task.record.call(frame, "check", arguments, make)
    return Judged(tuple(Verdict.from_json(row) for row in rows))


# Functions --------------------------------------------------------------------------------------


class Step(Generic[P, R]):
    """A function marked with `@step`: in a flow it is called once, and its answer recorded."""

    def __init__(
        self, function: Callable[P, R], attempts: int, backoff: float, *, synced: bool
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.returns = return_hint(function)
        self._attempts, self._backoff, self._synced = attempts, backoff, synced
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # of a builtin
            self._signature = None

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame = current.get()
        if frame is None:
            return self.function(*args, **kwargs)
        value = frame.task.record.call(
            frame,
            self.name,
            self._arguments(args, kwargs),
            lambda path: Made(self._called(frame, args, kwargs), synced=self._synced),
        )
        if self.returns is Any:
            return value  # type: ignore[no-any-return]
        found: R = typed(value, self.returns, f"What the step {self.name} returned")
        return found

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, object]:
        if self._signature is None:
            return {"args": list(args), **kwargs}
        return dict(self._signature.bind(*args, **kwargs).arguments)

    def _called(self, frame: Frame, args: Any, kwargs: Any) -> object:
        for attempt in range(1, self._attempts + 1):
            try:
                value = self.function(*args, **kwargs)
                if inspect.isawaitable(value):
                    import asyncio

                    value = asyncio.run(_awaited(value))
                return recordable(value, self.returns, f"What the step {self.name} returned")
            except InputError:
                raise
            except Exception:
                if attempt == self._attempts:
                    raise
            if self._backoff:
                frame.task.hub.sleep(self._backoff * 2 ** (attempt - 1))
        raise AssertionError


async def _awaited(value: Any) -> Any:
    return await value


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *, attempts: int = 1, backoff: float = 1.0, synced: bool = False
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    attempts: int = 1,
    backoff: float = 1.0,
    synced: bool = False,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Mark a function whose answer is recorded: it looks something up, writes, sends.

    `step(lookup)(ticket)` does the same for a function of somebody else. One that raises is called
    again, up to `attempts` times in all, after `backoff` seconds, twice as many each time. Then its
    exception is raised, and is raised again when the flow is replayed.

    The answer survives the death of the process as soon as it is there. It survives a loss of power
    with the next text that the flow writes, at its end, or at once with `synced`.
    """
    require_at_least(1, attempts=attempts)
    require_at_least(0, backoff=backoff)
    if function is not None:
        require(callable(function), "A step", "a function", function)
        return Step(function, attempts, backoff, synced=synced)
    return lambda function: Step(function, attempts, backoff, synced=synced)


# Other calls ------------------------------------------------------------------------------------


def ask(question: str, draft: str = "", options: Sequence[str] = ()) -> Any:
    """Ask a person, and return the answer, which is JSON or text.

    The run waits without a process until `ostinato runs answer` or `Journal.answer` gives it; then
    it goes on where it is resumed. `draft` is shown with the question. Raises `InputError` where
    nothing records the flow.
    """
    from ostinato.errors import Unanswered

    frame = frame_of("ask")
    record, session = frame.task.record, frame.task.session

    def make(path: str) -> Made:
        if session is None:
            raise InputError(
                "A flow that asks a person must be recorded, so that it can wait, got one without "
                "a run. Start it with .run(…, run='NAME') or ostinato flow run. It asks: "
                f"{question}"
            )
        text = f"{question}\n\n{draft}" if draft else question
        try:
            return Made(session.ask(path, text, options=options, seconds=0))
        except Unanswered as error:
            raise frame.task.suspend(error) from None

    return record.answered(frame, "ask", make)


def gather(*branches: Callable[[], T]) -> list[T]:
    """Run functions side by side, and return what each returns, in their order.

    Their calls share the batch of all models. Where some raise, the others end first; then the
    first of these is raised. `partial(f, x)` of functools makes a function of a call.
    """
    frame = frame_of("gather")
    path = f"{frame.next_place()}:gather"
    inner = [frame.branch(f"{path}[{number}]/") for number, _ in enumerate(branches)]
    futures = [_branch(one, each) for one, each in zip(inner, branches, strict=True)]
    errors: list[BaseException] = []
    values: list[T] = []
    for future, each in zip(futures, inner, strict=True):
        try:
            values.append(frame.task.hub.wait(future))
        except BaseException as error:
            errors.append(error)
        handled_later(frame, each)
    if errors:
        # A branch that must wait makes the whole flow wait, once the others are done.
        raise next((one for one in errors if isinstance(one, Suspended)), errors[0])
    return values


def _branch(frame: Frame, function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    hub, context = frame.task.hub, copy_context()

    def run() -> None:
        try:
            enter(frame)
            value = function()
            frame.task.record.require_all(frame)
        except BaseException as error:
            hub.ended()
            future.set_exception(error)
        else:
            hub.ended()
            future.set_result(value)

    hub.began()
    threading.Thread(target=context.run, args=(run,), name="flow branch", daemon=True).start()
    return future


def sleep(seconds: float) -> None:
    """Wait; the time is counted from the first try, also while no process runs."""
    require_at_least(0, seconds=seconds)
    frame = frame_of("sleep")
    record = frame.task.record
    until = record.call(
        frame, "sleep", {"seconds": seconds}, lambda path: Made(time.time() + seconds)
    )
    left = until - time.time()
    if left > 0:
        frame.task.hub.sleep(left)


def now() -> datetime:
    """Return the time (UTC) at which the flow first came here."""
    from datetime import UTC, datetime

    frame = frame_of("now")
    text = frame.task.record.call(
        frame, "now", {}, lambda path: Made(datetime.now(UTC).isoformat())
    )
    return datetime.fromisoformat(text)


def uniform() -> float:
    """Return a random number in [0, 1) that depends on the run's seed and this place alone."""
    frame = frame_of("uniform")
    place = frame.task.record.prefix + frame.next_place()
    return uniform_number(frame.task.settings.seed, f"{place}:uniform", 0, 0, 0)


def version(name: str) -> bool:
    """Return whether the flow came here with this version of the code: False in runs that are
    older, and have calls after this place.

    So changed code goes under `if version("polite"):`, and the old code, if it is still needed,
    under `else:`. The answer of a run stays the same.
    """
    frame = frame_of("version")
    record, path = frame.task.record, f"{frame.path}version:{name}"
    known = record.named(path)
    if known is not None:
        return bool(known.answer)
    is_new = not record.leads_on(frame)
    record.write(path, is_new)
    return is_new


def sample(config: RunConfig) -> list[Any]:
    """Run another process, such as the sampling of images or music, as a run that this one calls.

    `config` is that of any kind of run, such as `SampleImageRun` of `ostinato.image`. Returns what
    its items are, in their order (tensors, texts); files are written as its configuration says.
    The run is shown below this one, and resumed with it.
    """
    from ostinato.journal import config_to_json, with_tensors
    from ostinato.runs import CONFIG, folder_of

    frame = frame_of("sample")
    session = frame.task.session
    if session is None:
        outputs = frame.task.record.call(
            frame, "sample", {"kind": config.kind}, lambda path: Made(_sampled(config, None))
        )
        return list(outputs)
    written = config_to_json(config, folder_of(session.run.database.path))

    def make(path: str) -> Made:
        value = session.call_run(
            f"{path}/run",
            lambda child: _sampled(config, child),
            kind=config.kind,
            spec={CONFIG: written},
        )
        return Made(value, synced=True)

    outputs = frame.task.record.call(frame, "sample", {"kind": config.kind, **written}, make)
    return [with_tensors(each) for each in outputs]


def _sampled(config: RunConfig, run: Any) -> list[Any]:
    from ostinato.loop import ItemsWork
    from ostinato.runs import kind_of

    work = kind_of(config.kind).builder()(config, run=run)
    with work.loop:
        for each in work.loop:
            work.watch(each)
    work.finish()
    return [each.output for each in work.results] if isinstance(work, ItemsWork) else []
