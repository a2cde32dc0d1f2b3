"""Builds chats from their configurations: models, dialogues, the loop that drives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostinato.flow.dialogue.chat import Stage, between_models, conversation, with_person
from ostinato.flow.dialogue.chat_config import ChatRun, misplaced
from ostinato.flow.dialogue.dialogue import Dialogue
from ostinato.flow.dialogue.moves import turns_of
from ostinato.flow.dialogue.turns import Turn
from ostinato.flow.flow_function import FlowFunction
from ostinato.flow.lanes import FlowLanes
from ostinato.flow.task import FlowSettings
from ostinato.inference import check_before_loading
from ostinato.journal import Run, RunSource, require_unchanged
from ostinato.loop import CheckpointSchedule, ItemsWork, Lanes, Loop, Never, Policy
from ostinato.models import (
    LLAMA,
    LanguageModel,
    adapter_folder,
    find_model,
    load_model,
    near_place,
    split_adapter,
    weights_digest,
)
from ostinato.output_files import write_whole
from ostinato.refine import DEFAULT_SAMPLING, RuleBook, prepare, read_rule_book
from ostinato.remote import Server, is_server

MODEL, PARTNER = "model", "partner"
"""What the models are called in the flow, which are loaded when they first answer."""

CHECKPOINTS = CheckpointSchedule(steps=10_000)
"""The calls are the state of a chat: a checkpoint has little to add."""


@dataclass(kw_only=True)
class ChatWork(ItemsWork):
    """A chat that is ready to be driven. `left_out` says which rules and checks cannot be used."""

    config: ChatRun
    lanes: FlowLanes
    left_out: Sequence[str] = ()
    kept: Sequence[Turn] = ()  # of a chat that nothing records

    @property
    def turns(self) -> list[Turn]:
        """What was said and answered, without what was taken back."""
        run = self.loop.recorded_as
        return list(self.kept) if run is None else turns_of(run.calls())

    def to_json(self) -> dict[str, Any]:
        """Return the conversation, see `told_conversation`."""
        return told_conversation(self.config, self.turns, self.loop.recorded_as)

    def write(self) -> None:
        """Write the conversation as a line of JSON."""
        write_conversation(self.config.out, self.to_json())

    def close(self) -> None:
        """End what is in progress; it goes on when the run is resumed."""
        self.lanes.close()


def names_of(config: ChatRun) -> tuple[str, ...]:
    """Return what the models of a chat are called."""
    first = near_place(config.model)
    if not config.partner:
        return (first,)
    second = near_place(config.partner)
    return (first, second) if first != second else (f"{first} (1)", f"{second} (2)")


def told_conversation(config: ChatRun, turns: Sequence[Turn], run: Run | None) -> dict[str, Any]:
    """Return a conversation as JSON: its messages, what is known of the answers, its run."""
    told = conversation(turns, config.system, names_of(config))
    return {**told, **({} if run is None else {"run": run.name})}


def write_conversation(path: Path | None, told: Mapping[str, Any]) -> None:
    """Write a conversation as a line of JSON, which `ostinato train text` can read."""
    if path is not None:
        write_whole(path, [json.dumps(told, ensure_ascii=False) + "\n"])


def build_chat(
    config: ChatRun,
    *,
    run: RunSource | None = None,
    stage: Stage | None = None,
    patient: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ChatWork:
    """Build a chat. Without a `stage` that hears a person, moves are asked for as questions.

    `patient`: the loop goes on while a person is to answer. `say` gets a line about what takes
    long. Raises `InputError` for rules that cannot be read, `ModelError` for a model that is not
    there, and `RunError` where the model's files have changed since the run started.
    """
    shown = stage or Stage()
    book, left_out = _rule_book(config)
    models = _Models(config, (book and book.server) or {}, say)
    if config.max_rounds is not None and not (book and book.checks):
        raise misplaced("max_rounds", "with checks that a draft may fail, in rules")
    turns: list[Turn] = []

    def speakers() -> list[Dialogue]:
        return _dialogues(config, book, shown)

    if config.partner:
        # Those that are recorded cannot be taken away by fewer turns.
        count = max(config.turns, _recorded(run))
        talk = between_models(speakers, config.opening, count, shown, turns)
    else:
        talk = with_person(lambda: speakers()[0], shown, turns)
    lanes = FlowLanes(
        FlowFunction(talk, None),
        settings=FlowSettings(model=MODEL, seed=config.seed, load=models.load),
        text_slots=config.slots,
        in_progress=1,
        single=True,
        patient=patient,
    )
    loop = Loop(
        Lanes(lanes, [("chat", {})], Policy(each=Never()), seed=config.seed),
        run=run,
        keep="results",
        checkpoint=None if run is None else CHECKPOINTS,
    )
    lanes.session = loop.session
    return ChatWork(loop=loop, config=config, lanes=lanes, left_out=left_out, kept=turns)


def _recorded(run: RunSource | None) -> int:
    return len(turns_of(run.calls())) if isinstance(run, Run) else 0


def _rule_book(config: ChatRun) -> tuple[RuleBook | None, list[str]]:
    """Return the rules that can be used, and why others cannot."""
    if config.rules is None:
        return None, []
    book, left_out = read_rule_book(config.rules).with_columns(
        [config.column, "messages", *config.given]
    )
    prepare(book.checks)
    return book, left_out


def _dialogues(config: ChatRun, book: RuleBook | None, stage: Stage) -> list[Dialogue]:
    """Return the dialogue of each model, in which nothing has been said yet."""
    usual = (book and book.sampling) or DEFAULT_SAMPLING
    settings: dict[str, Any] = {
        "sampling": replace(usual, **config.sampling),
        "max_new_tokens": config.max_new_tokens,
        "given": config.given,
        "column": config.column,
        "memory": config.memory,
        "context": config.context,
        "tell": stage.tell,
    }
    first = Dialogue(config.system, rules=book, hand_over=config.hand_over, **settings)
    if not config.partner:
        return [first]
    # Rules and past cases answer a person; the checks hold for both.
    checked = None if book is None else replace(book, rules=(), cases=None, _routers={})
    second = Dialogue(config.partner_system, rules=checked, model=PARTNER, **settings)
    return [first, second]


class _Models:
    """Loads the models of a chat when they first answer: rules may answer without them."""

    def __init__(
        self, config: ChatRun, server: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._config, self._say = config, say
        self._servers = {
            name: self._server(place, server)
            for name, place in ((MODEL, config.model), (PARTNER, config.partner))
            if place and is_server(place)
        }
        self._loaded: dict[tuple[str, str | None], LanguageModel] = {}
        self._require_there()

    def load(self, name: str) -> LanguageModel | Server:
        """Return one of the models; the same one where both are the same."""
        if name in self._servers:
            return self._servers[name]
        config = self._config
        place, adapter = (config.model, config.adapter) if name == MODEL else (config.partner, None)
        key = (place, adapter)
        if key not in self._loaded:
            self._loaded[key] = self._load(place, adapter)
        return self._loaded[key]

    def _load(self, place: str, adapter: str | None) -> LanguageModel:
        config, name = self._config, near_place(place)
        chosen: dict[str, Any] = {
            "compile": config.compile,
            "bits": config.bits,
            "device": config.device,
            "adapter": adapter and near_place(adapter),
        }
        check_before_loading(name, slots=config.slots, say=self._say, **chosen)
        return load_model(name, **chosen)

    def _require_there(self) -> None:
        """Raise what is wrong with the models before anything is said."""
        config = self._config
        if MODEL not in self._servers:
            _find(config.model, config.adapter)
            today = weights_digest(config.model, config.adapter)
            require_unchanged(f"The files of {near_place(config.model)}", config.weights, today)
        if config.partner and PARTNER not in self._servers:
            _find(config.partner, None)
        if config.key_env and not self._servers:
            raise misplaced("key_env", "with a server, got a model in this process")
        if not self._local and (name := self._misplaced_with_servers()):
            raise misplaced(name, "with a model in this process, got a server")
        priced = any(server.priced for server in self._servers.values())
        if config.max_cost is not None and not priced:
            raise misplaced("max_cost", "with the prices of a server in [server] of --rules")

    @property
    def _local(self) -> bool:
        """Whether a model of the chat computes in this process."""
        names = {MODEL, PARTNER} if self._config.partner else {MODEL}
        return bool(names - self._servers.keys())

    def _misplaced_with_servers(self) -> str:
        """Return a setting of models in this process that is given; "" for none."""
        usual = ChatRun()
        names = ("adapter", "compile", "bits", "device")
        given = (name for name in names if getattr(self._config, name) != getattr(usual, name))
        return next(given, "")

    def _server(self, place: str, settings: Mapping[str, Any]) -> Server:
        key = {"key_env": self._config.key_env} if self._config.key_env else {}
        return Server.of(place, **{**settings, **key})


def _find(place: str, adapter: str | None) -> None:
    """Raise `ModelError` where a model or its adapter is not there."""
    base, plus = split_adapter(near_place(place))
    find_model(base.removeprefix(LLAMA))
    if plus or adapter:
        adapter_folder(near_place(plus or adapter or ""))
