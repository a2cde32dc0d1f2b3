"""What the samplers that decide all codes at once share: lanes, prompts, edits, guidance.

Each step is one pass of the network for every lane. Knows no rule by which codes are decided.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ostinato.arguments import require_at_least, require_types
from ostinato.decode import GREEDY_BELOW, MASKED, MaskedRow, check_mask, check_put
from ostinato.errors import InputError, ItemError
from ostinato.image import BLOCK, fixed_batches, is_batch_invariant, remembered_self_test
from ostinato.image.tokens.attributes import ANY, Attributes
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.prompt import ImagePrompt, as_text
from ostinato.journal import EditKind
from ostinato.loop import Lane, Report, Text

COMMON_EDITS = frozenset({"temperature", "guidance", "prompt", "put"})


@dataclass(frozen=True, kw_only=True)
class CodeSettings:
    """How codes are sampled.

    `temperature` is above 0. `guidance` g is classifier-free guidance on logits (Ho and Salimans
    2022): none + g (words - none); 1 is none. `noise` is the Gumbel noise on the confidence of
    `UnmaskCodes`; it falls to 0 with the steps.
    """

    temperature: float = 1.0
    guidance: float = 1.0
    noise: float = 4.0

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("temperature", "guidance", "noise"):
            value = getattr(self, name)
            # A comparison with NaN is false.
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number of 0 or more, got {value!r}.")
        if self.temperature < GREEDY_BELOW:
            raise InputError(
                f"temperature must be above 0, {GREEDY_BELOW:g} or more, got {self.temperature:g}. "
                "Use 0.01 for the most likely codes."
            )


@dataclass(slots=True)
class CodeSlot(MaskedRow):
    """A lane in its slot: `known` are the codes of its prompt, `words` the ids of its words."""

    known: tuple[int, ...]
    words: tuple[int, ...]


class MaskedCodeSampler(ABC):
    """Decide the codes of images, many at a time; every lane takes one pass of the network a step.

    Reports: `step` (from 1), `positions` whose codes changed and their `codes` (-1: masked),
    metrics of the method, and `ended` after the last step. The output is the row of codes, as text
    with its `tokens`.
    """

    name: ClassVar[str]
    edits: ClassVar[frozenset[str]]
    """The names of edits, beside `COMMON_EDITS`."""
    deterministic: bool

    def __init__(
        self,
        network: CodeNetwork,
        attributes: Attributes,
        *,
        steps: int,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        require_at_least(1, steps=steps, slots=slots)
        self.network, self.steps, self.slots = network.eval(), steps, slots
        self.attributes, self.settings = attributes, settings or CodeSettings()
        self.deterministic = remembered_self_test(network, self._self_test)
        self._slots: dict[str, CodeSlot] = {}

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The names of a lane's edits; their values are checked when they are applied."""
        return dict.fromkeys(self.edits | COMMON_EDITS, "any")

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot, at the end of its past."""
        prompt = ImagePrompt.of(item)
        try:
            words = self.attributes.encode(prompt.text)
        except InputError as error:
            raise ItemError(str(error)) from None
        slot = CodeSlot(lane, self._known(prompt), words)
        self._check_edits(lane)
        slot.states.append(self._initial_codes(slot))
        slot.replay(lane.past, "codes")
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position; its codes there are kept."""
        self._check_edits(lane)
        self._slots[lane.key].rewind(lane, to)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    def output(self, key: str) -> Text:
        """Return the current codes as a row of tokens."""
        return as_text(self._slots[key].states[-1])

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Advance every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if slot.position < self.steps]
        if not slots:
            return {}
        codes = [slot.edited() for slot in slots]
        settings = [slot.in_force(self.settings) for slot in slots]
        logits = self._logits(slots, codes, settings)
        return {
            slot.lane.key: self._report(slot, *self._advance(slot, row, logits[n], settings[n]))
            for n, (slot, row) in enumerate(zip(slots, codes, strict=True))
        }

    @abstractmethod
    def _initial_codes(self, slot: CodeSlot) -> list[int]:
        """Return the codes at position 0."""

    @abstractmethod
    def _noise_level(self, slot: CodeSlot) -> int:
        """Return the noise level that the network gets as an input."""

    @abstractmethod
    def _advance(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        """Return the codes after the step, given logits (T, V), and the method's metrics."""

    def _report(self, slot: CodeSlot, codes: list[int], metrics: dict[str, object]) -> Report:
        positions = slot.record(codes)
        report: dict[str, object] = {"step": slot.position, "positions": positions}
        report["codes"] = [codes[p] for p in positions]
        report |= metrics
        if slot.position == self.steps:
            report["ended"] = f"All {self.steps} steps are taken."
        elif metrics.get("masked") == 0:
            report["ended"] = f"No code is masked after {slot.position} of {self.steps} steps."
        return report

    def _logits(
        self,
        slots: Sequence[CodeSlot],
        codes: Sequence[list[int]],
        settings: Sequence[CodeSettings],
    ) -> list[Tensor]:
        """Return the guided logits (T, V) of each slot, from one run over all of them."""
        rows: list[tuple[list[int], tuple[int, ...], int]] = []
        no_words = (ANY,) * self.network.config.prompt_tokens
        for slot, row, each in zip(slots, codes, settings, strict=True):
            rows.append((row, self._words(slot), self._noise_level(slot)))
            if each.guidance != 1:
                rows.append((row, no_words, self._noise_level(slot)))
        inputs, words, level = (torch.tensor(column) for column in zip(*rows, strict=True))
        # The mask is -1 in prompts and reports; the network's embedding has it after the codes.
        inputs = inputs.masked_fill(inputs == MASKED, self.network.config.codes)
        outputs = iter(fixed_batches(self.network, inputs, words, level))
        guided = []
        for each in settings:
            logits = next(outputs)
            if each.guidance != 1:
                unconditional = next(outputs)
                logits = unconditional + each.guidance * (logits - unconditional)
            guided.append(logits)
        return guided

    # Prompts and edits ------------------------------------------------------------------------

    def _known(self, prompt: ImagePrompt) -> tuple[int, ...]:
        """Return the codes of a prompt; all are masked where it has none."""
        c = self.network.config
        known = prompt.codes or (MASKED,) * c.positions
        if len(known) != c.positions or not all(MASKED <= code < c.codes for code in known):
            raise ItemError(
                f"The codes of a prompt must be {c.positions} from 0 to {c.codes - 1}, -1 where "
                f"unknown, got {len(known)} from {min(known)} to {max(known)}."
            )
        return known

    def _words(self, slot: CodeSlot) -> tuple[int, ...]:
        """Return the ids of the words in force: those of the last edit, or of the prompt."""
        edits = slot.lane.edits.in_force(slot.position, ("prompt",))
        return self.attributes.encode(str(edits["prompt"])) if edits else slot.words

    def _check_edits(self, lane: Lane) -> None:
        lane.edits.check(f"a lane of {self.name}", self.edits | COMMON_EDITS, self._check_edit)

    def _check_edit(self, name: str, value: object) -> None:
        c = self.network.config
        if name == "prompt":
            self.attributes.encode(str(value))
        elif name == "mask":
            check_mask(value, c.positions)
        elif name == "put":
            check_put(value, c.positions, c.codes)
        else:
            CodeSettings(**{name: value})  # type: ignore[arg-type]

    def _self_test(self) -> bool:
        """Return whether the network gives the same bits in any batch."""
        c = self.network.config
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, c.codes, (BLOCK, c.positions), generator=generator)
        words = torch.randint(0, c.words, (BLOCK, c.prompt_tokens), generator=generator)
        level = torch.randint(0, c.steps + 1, (BLOCK,), generator=generator)
        return is_batch_invariant(self.network, codes, words, level)
