"""A language model as a judge: how likely it answers yes to a question about the text.

Knows how to ask a model in this process; `judge.server` knows how to ask one on a server.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from ostinato.arguments import counted
from ostinato.checks.base import BaseCheck
from ostinato.checks.judge.server import Opinion, ask_server
from ostinato.checks.templates import Template
from ostinato.errors import InputError
from ostinato.loop import Item, Verdict
from ostinato.remote import Server, is_server

if TYPE_CHECKING:
    from ostinato.inference import Backend
    from ostinato.models import LanguageModel

OUTPUT = "output"
"""The name of the judged text in a question, as `{output}`."""


@dataclass(frozen=True, kw_only=True)
class Judge(BaseCheck):
    """A model answers yes to `question`: P(yes) / (P(yes) + P(no)) >= `min`.

    The probabilities are those of the answer's first token. Where a server sends none, the answer's
    first word counts as certain.

    question: Template with the item's columns and `{output}`, the judged text.
    model: Name or folder of a language model, or `http://HOST:PORT/v1#MODEL` on a server.
    fix: Message for a text that does not pass: what to change.
    key_env: Environment variable with the server's key.
    price_in, price_out: The server's prices per million tokens, read and written.
    """

    kind: ClassVar[str] = "judge"

    question: str
    model: str = "smollm2"
    min: float = 0.5
    fix: str = ""
    key_env: str = ""
    price_in: float = 0.0
    price_out: float = 0.0
    _template: Template = field(init=False, repr=False, compare=False)
    _server: Server | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min <= 1:
            raise self.refuse("min", "in (0, 1]", self.min, "0.5 is as likely yes as no.")
        with self.about("question"):
            template = Template(self.question)
        if OUTPUT not in template.columns:
            raise self.refuse(
                "question", "a text with {output} in it", self.question, "It stands for the reply."
            )
        if is_server(self.model) and not self.model.partition("#")[2]:
            raise self.refuse(
                "model", "URL#MODEL for a server", self.model, "Name one of its models."
            )
        settings = {name: getattr(self, name) for name in ("key_env", "price_in", "price_out")}
        for name, value in settings.items():
            if value and not is_server(self.model):
                raise self.refuse(name, "left out without a server", value, "Remove it.")
        server = self._server_of(settings) if is_server(self.model) else None
        object.__setattr__(self, "_template", template)
        object.__setattr__(self, "_server", server)
        # A server may hang, so its judge runs under the runner's clock, in another thread.
        object.__setattr__(self, "trusted", server is None)

    @property
    def priced(self) -> bool:
        """Whether a question costs money."""
        return self._server is not None and self._server.priced

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the question names."""
        return tuple(name for name in self._template.columns if name != OUTPUT)

    def _server_of(self, settings: dict[str, Any]) -> Server:
        try:
            return Server.of(self.model, **settings)
        except InputError as error:
            with self.about(error.key if error.key in settings else "model"):
                raise

    def require_available(self) -> None:
        """Raise `OstinatoError` where the model, or the server's library or key, is missing."""
        from ostinato.models import require_model

        if self._server is None:
            require_model(self.model)
        else:
            self._server.require_available()

    def prepare(self) -> None:
        """Load the model, or check that the server's key is set. Raises `OstinatoError`."""
        self.require_available()
        if self._server is None:
            _ = _local(self.model).answers

    @property
    def compute_mode(self) -> str:
        """How the model of this process computes; "" for a server's. Loads the model."""
        return "" if self._server is not None else _local(self.model).compute_mode

    def use_compute_mode(self, mode: str) -> None:
        """Compute in a run's recorded mode, where the model may choose."""
        _local(self.model).use_compute_mode(mode)

    def judge(self, output: object, item: Item) -> Verdict:
        """Ask the model; the score is P(yes). The verdict holds the tokens and the cost."""
        question = self._template.fill({**item, OUTPUT: self.text(output)})
        if self._server is None:
            opinion = _local(self.model).ask(question)
        else:
            opinion = ask_server(self._server, question)
        return replace(self._verdict(opinion), spent=_spent(opinion))

    def _verdict(self, opinion: Opinion) -> Verdict:
        if opinion.error:
            return self.error(opinion.error)
        fix = self.fix or f"Change it so that the answer is yes: {self.question}"
        message = f"{fix} (The judge's yes is {opinion.yes:.2f}, at least {self.min:g} is wanted.)"
        return self.verdict(opinion.yes >= self.min, message, opinion.yes)


def _spent(opinion: Opinion) -> dict[str, float]:
    """Return what a question took; its tokens are also counted apart, as those of judging."""
    spent = {"tokens": opinion.tokens, "cost": opinion.cost, "judged": opinion.tokens}
    return {name: amount for name, amount in spent.items() if amount}


@lru_cache(maxsize=2)  # a model each: two judges may share a job, more would fill the memory
def _local(name: str) -> LocalJudge:
    from ostinato.models import shared_model  # brings torch

    return LocalJudge(shared_model(name))


class LocalJudge:
    """Asks a model in this process; the same question has the same bits at any time."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._backend: Backend | None = None
        self._lock = threading.Lock()  # one cache slot, for all threads that judge

    def ask(self, question: str) -> Opinion:
        """Ask a question. Raises `InputError` for too long a one, or no chance of yes and no."""
        import torch

        tokens = self._tokens(question)
        with self._lock:
            backend = self._open()
            if len(tokens) > backend.limit:
                raise InputError(
                    f"A question to {self._model.name} must have at most "
                    f"{counted(backend.limit, 'tokens')}, "
                    f"got {len(tokens)}. Shorten it."
                )
            backend.prefill(0, tokens[:-1])
            hidden = backend.feed([(0, tokens[-1], len(tokens) - 1)])
            probs = torch.softmax(backend.logits(hidden)[0].float(), -1)
        yes, no = (float(probs[tokens].sum()) for tokens in self.answers)
        if yes + no == 0.0:
            raise InputError(
                f"{self._model.name} must find yes or no likely, got neither. Put the question in "
                "other words, or use another model."
            )
        return Opinion(yes / (yes + no), len(tokens))

    @property
    def compute_mode(self) -> str:
        """How the model computes: other modes give other bits."""
        with self._lock:
            return self._open().compute_mode

    def use_compute_mode(self, mode: str) -> None:
        """Compute in a run's recorded mode, where the model may choose."""
        from ostinato.inference import in_compute_mode

        with self._lock:
            if self._open().compute_mode != mode:
                self._model, self._backend = in_compute_mode(self._model, mode), None

    def _open(self) -> Backend:
        from ostinato.inference import open_backend

        if self._backend is None:
            self._backend = open_backend(self._model, 1)
        return self._backend

    def _tokens(self, question: str) -> list[int]:
        tokenizer = self._model.tokenizer
        if tokenizer.chat_template is not None:
            return list(tokenizer.chat([{"role": "user", "content": question}]))
        return tokenizer.prompt(question)

    @cached_property
    def answers(self) -> tuple[list[int], list[int]]:
        """The first tokens of yes and of no. Raises `InputError` where they are the same."""
        yes, no = self._first_tokens("yes"), self._first_tokens("no")
        if not (yes - no and no - yes):
            raise InputError(
                f"A judge must start yes and no with different tokens, and {self._model.name} "
                "does not. Use another model."
            )
        return sorted(yes - no), sorted(no - yes)

    def _first_tokens(self, word: str) -> set[int]:
        """Return the tokens that are the word in any spelling, else those that start it."""
        spellings = [f"{lead}{w}" for w in (word, word.title(), word.upper()) for lead in ("", " ")]
        encoded = [self._model.tokenizer.continuation(one) for one in spellings]
        whole = {tokens[0] for tokens in encoded if len(tokens) == 1}
        return whole or {tokens[0] for tokens in encoded}
