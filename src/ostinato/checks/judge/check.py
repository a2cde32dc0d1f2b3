"""A language model as a judge: how likely it says yes to a question about the text."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

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
"""What stands for the text in a question."""


@dataclass(frozen=True, kw_only=True)
class Judge(BaseCheck):
    """A model's answer to `question` is rather yes than no: P(yes) / (P(yes) + P(no)) >= `min`.

    `question` is a template with the item's columns and `{output}`, the text that is judged.
    `model` is a language model by its name or folder, or a server's, `http://HOST:PORT/v1#MODEL`,
    whose key the environment variable `key_env` holds; `price_in` and `price_out` are what a
    million tokens cost there, read and written. The probabilities are those of the first token of
    the answer; of a server that tells none, its first word counts. `mend` is what a text is told
    that does not pass.
    """

    kind: ClassVar[str] = "judge"

    question: str
    model: str = "smollm2"
    min: float = 0.5
    mend: str = ""
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
                raise self.refuse(name, "left out without a server", value, "Take it out.")
        server = self._server_of(settings) if is_server(self.model) else None
        object.__setattr__(self, "_template", template)
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "trusted", server is None)  # a server may hang

    @property
    def priced(self) -> bool:
        """Whether a question has a price."""
        return self._server is not None and self._server.priced

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the question names."""
        return tuple(name for name in self._template.columns if name != OUTPUT)

    def _server_of(self, settings: dict[str, Any]) -> Server:
        try:
            return Server.of(self.model, **settings)
        except InputError as error:
            what = next((name for name in settings if f"server's {name} " in str(error)), "model")
            with self.about(what):
                raise

    def prepare(self) -> None:
        """Load the model, or look for the server's key."""
        if self._server is None:
            _ = _local(self.model).answers
        else:
            self._server.key()

    def judge(self, output: object, item: Item) -> Verdict:
        """Ask the model; the score is its probability of yes."""
        asked = self._template.fill({**item, OUTPUT: self.text(output)})
        server = self._server
        told = _local(self.model).ask(asked) if server is None else ask_server(server, asked)
        yes = told.yes
        wanted = self.mend or f"Mend it so that the answer is yes: {self.question}"
        message = f"{wanted} (The judge's yes is {yes:.2f}, at least {self.min:g} is wanted.)"
        verdict = self.verdict(yes >= self.min, message, yes)
        return replace(verdict, tokens=told.tokens, cost=told.cost)


@lru_cache(maxsize=2)
def _local(name: str) -> LocalJudge:
    from ostinato.models import load_model  # brings torch

    return LocalJudge(load_model(name))


class LocalJudge:
    """Asks a model in this process, one question at a time; the same question, the same bits."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._backend: Backend | None = None
        self._lock = threading.Lock()  # one place, for all threads that judge

    def ask(self, question: str) -> Opinion:
        """Return what the model says. Raises `InputError` for too long a text."""
        import torch

        tokens = self._tokens(question)
        with self._lock:
            backend = self._opened()
            if len(tokens) > backend.limit:
                raise InputError(
                    f"A question to {self._model.name} must have at most {backend.limit} tokens, "
                    f"got {len(tokens)}. Leave something out of it."
                )
            backend.prefill(0, tokens[:-1])
            hidden = backend.feed([(0, tokens[-1], len(tokens) - 1)])
            probs = torch.softmax(backend.logits(hidden)[0].float(), -1)
        yes, no = (float(probs[tokens].sum()) for tokens in self.answers)
        if yes + no == 0.0:
            raise InputError(
                f"{self._model.name} must find yes or no likely, got neither. Ask it otherwise, or "
                "take another model."
            )
        return Opinion(yes / (yes + no), len(tokens))

    def _opened(self) -> Backend:
        from ostinato.inference import open_backend

        if self._backend is None:
            self._backend = open_backend(self._model, 1)
        return self._backend

    def _tokens(self, question: str) -> list[int]:
        tokenizer = self._model.tokenizer
        if tokenizer.chat_template is not None:
            return list(tokenizer.chat([{"role": "user", "content": question}]))
        return [*tokenizer.bos_ids, *tokenizer.encode(question)]

    @cached_property
    def answers(self) -> tuple[list[int], list[int]]:
        """The tokens with which a yes and a no begin; `InputError` where they are the same."""
        yes, no = self._beginnings("yes"), self._beginnings("no")
        if not (yes - no and no - yes):
            raise InputError(
                f"A judge must begin yes and no with different tokens, which {self._model.name} "
                "does not. Name another model."
            )
        return sorted(yes - no), sorted(no - yes)

    def _beginnings(self, word: str) -> set[int]:
        """Return the tokens that are the word, in any spelling; else those that begin it."""
        spelled = [f"{lead}{w}" for w in (word, word.title(), word.upper()) for lead in ("", " ")]
        coded = [self._model.tokenizer.encode(one) for one in spelled]
        whole = {tokens[0] for tokens in coded if len(tokens) == 1}
        return whole or {tokens[0] for tokens in coded}
