"""What both ways of deciding all codes at once share: lanes, words, edits, guidance, one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image import BLOCK, fixed_batches, is_whole, repeats
from ostinato.image.tokens.attributes import ANY, Attributes
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.prompt import UNKNOWN, ImagePrompt, as_text
from ostinato.loop import Lane, Report, Text, fold_in


@dataclass(frozen=True, kw_only=True)
class CodeSettings:
    """How codes are drawn: `temperature` above 0; `guidance` g: none + g (words - none), 1: none.

    Guidance is that of Ho and Salimans (2022), on logits. `noise` is the Gumbel noise on the
    confidence of `Unmask`.
    """

    temperature: float = 1.0
    guidance: float = 1.0
    noise: float = 4.0

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance", "noise"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise InputError(f"{name} must be a number of 0 or more, got {value!r}.")
        if self.temperature == 0:
            raise InputError("temperature must be above 0, got 0. Take 0.01 for the likeliest.")


@dataclass(slots=True)
class CodeSlot:
    """A lane in its slot; `states[p]` are its codes at position p, -1 where not decided."""

    lane: Lane
    known: tuple[int, ...]
    words: tuple[int, ...]
    states: list[list[int]] = field(default_factory=list)

    @property
    def position(self) -> int:
        """The steps taken."""
        return len(self.states) - 1


class MaskedCodeSampler(ABC):
    """Decide the codes of images, many side by side; every lane one pass of the network a step.

    Reports: `step` (from 1), `positions` whose codes changed and their `codes` (-1: not decided),
    what the method adds, and `ended` after the last step. The output is the row of codes, as text
    with its `tokens`.
    """

    name: str
    edits: frozenset[str]
    deterministic: bool

    def __init__(
        self,
        network: CodeNetwork,
        words: Attributes,
        *,
        steps: int,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        if steps < 1 or slots < 1:
            raise InputError(f"steps and slots must be at least 1, got {steps} and {slots}.")
        self.network, self.steps, self.slots = network.eval(), steps, slots
        self.words, self.settings = words, settings or CodeSettings()
        self.deterministic = self._self_test()
        self._slots: dict[str, CodeSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot, where its past ended."""
        wish = ImagePrompt.of(item)
        try:
            words = self.words.encode(wish.words)
        except InputError as error:
            raise ItemError(str(error)) from None
        slot = CodeSlot(lane, self._known(wish), words)
        self._check_edits(lane)
        slot.states.append(self._begin(slot))
        for report in lane.past:
            state = list(slot.states[-1])
            changed = cast(Sequence[int], report["positions"]), cast(Sequence[int], report["codes"])
            for position, code in zip(*changed, strict=True):
                state[position] = code
            slot.states.append(state)
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its codes there are kept."""
        self._check_edits(lane)
        slot = self._slots[lane.key]
        slot.lane = lane
        del slot.states[to + 1 :]

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    def output(self, key: str) -> Text:
        """Return the codes as they stand, as a row of tokens."""
        return as_text(self._slots[key].states[-1])

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Advance every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if slot.position < self.steps]
        if not slots:
            return {}
        now = [self._edited(slot) for slot in slots]
        settings = [self._in_force(slot) for slot in slots]
        logits = self._logits(slots, now, settings)
        return {
            slot.lane.key: self._moved(slot, *self._move(slot, codes, logits[n], settings[n]))
            for n, (slot, codes) in enumerate(zip(slots, now, strict=True))
        }

    @abstractmethod
    def _begin(self, slot: CodeSlot) -> list[int]:
        """Return the codes at position 0."""

    @abstractmethod
    def _level(self, slot: CodeSlot) -> int:
        """Return the noise level that the network is told."""

    @abstractmethod
    def _move(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        """Return the codes after the step, given logits (T, V), and what else is told."""

    def _moved(self, slot: CodeSlot, codes: list[int], told: dict[str, object]) -> Report:
        before = slot.states[-1]
        positions = [p for p, code in enumerate(codes) if code != before[p]]
        slot.states.append(codes)
        report: dict[str, object] = {"step": slot.position, "positions": positions}
        report["codes"] = [codes[p] for p in positions]
        report |= told
        if slot.position == self.steps:
            report["ended"] = f"All {self.steps} steps are taken."
        elif told.get("masked") == 0:
            report["ended"] = f"Nothing is hidden after {slot.position} of {self.steps} steps."
        return report

    def _logits(
        self, slots: Sequence[CodeSlot], now: Sequence[list[int]], settings: Sequence[CodeSettings]
    ) -> list[Tensor]:
        """Return the logits (T, V) of each slot, guided away from those without words."""
        rows: list[tuple[list[int], tuple[int, ...], int]] = []
        unsaid = (ANY,) * self.network.config.prompt_tokens
        for slot, codes, one in zip(slots, now, settings, strict=True):
            rows.append((codes, self._words(slot), self._level(slot)))
            if one.guidance != 1:
                rows.append((codes, unsaid, self._level(slot)))
        stack = torch.tensor([row[0] for row in rows])
        stack = stack.masked_fill(stack == UNKNOWN, self.network.config.codes)
        words, level = torch.tensor([row[1] for row in rows]), torch.tensor([r[2] for r in rows])
        made = iter(fixed_batches(self.network, stack, words, level))
        guided = []
        for one in settings:
            logits = next(made)
            if one.guidance != 1:
                plain = next(made)
                logits = plain + one.guidance * (logits - plain)
            guided.append(logits)
        return guided

    def uniforms(self, lane: Lane, position: int, *shape: int) -> Tensor:
        """Return the uniform numbers in [0, 1), float64, that belong to a position."""
        seed = fold_in(lane.seed, lane.key, lane.round, lane.backtracks, position)
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    # Edits ------------------------------------------------------------------------------------

    def _check_edits(self, lane: Lane) -> None:
        known = self.edits | {"temperature", "guidance", "words", "put"}
        for _, edits in lane.edits:
            for name, value in edits.items():
                if name not in known:
                    raise EditError(
                        f"Unknown edit {name!r} of a lane of {self.name}. "
                        f"Known: {', '.join(sorted(known))}."
                    )
                self._check_value(name, value)

    def _check_value(self, name: str, value: Any) -> None:
        try:
            if name == "words":
                self.words.encode(str(value))
            elif name in ("put", "mask"):
                self._check_positions(name, value)
            else:
                CodeSettings(**{name: value})
        except InputError as error:
            raise EditError(f"The edit cannot be applied: {error}") from None

    def _check_positions(self, name: str, value: Any) -> None:
        c = self.network.config
        try:
            right = all(0 <= int(position) < c.positions for position in value)
            if name == "put":
                right = right and all(
                    is_whole(code) and 0 <= code < c.codes for code in value.values()
                )
        except (TypeError, ValueError, AttributeError):
            right = False
        if not right:
            what = f"positions from 0 to {c.positions - 1}"
            what += f" with codes from 0 to {c.codes - 1}" if name == "put" else ""
            raise InputError(f"{name} must hold {what}, got {value!r}.")

    def _in_force(self, slot: CodeSlot) -> CodeSettings:
        values = {name: getattr(self.settings, name) for name in ("temperature", "guidance")}
        values["noise"] = self.settings.noise
        for at, edits in slot.lane.edits:
            if at <= slot.position:
                values |= {name: cast(float, edits[name]) for name in values if name in edits}
        return CodeSettings(**values)

    def _words(self, slot: CodeSlot) -> tuple[int, ...]:
        said = [
            edits["words"]
            for at, edits in slot.lane.edits
            if at <= slot.position and "words" in edits
        ]
        return self.words.encode(str(said[-1])) if said else slot.words

    def _edited(self, slot: CodeSlot) -> list[int]:
        """Return the codes where the lane stands, with the edits of that position."""
        codes = list(slot.states[-1])
        for at, edits in slot.lane.edits:
            if at == slot.position:
                for position in cast(Sequence[object], edits.get("mask", ())):
                    codes[int(cast(int, position))] = UNKNOWN
                for key, code in cast(Mapping[object, int], edits.get("put", {})).items():
                    codes[int(cast(int, key))] = code
        return codes

    # Checks -----------------------------------------------------------------------------------

    def _known(self, wish: ImagePrompt) -> tuple[int, ...]:
        c = self.network.config
        known = wish.codes or (UNKNOWN,) * c.positions
        if len(known) != c.positions or not all(UNKNOWN <= code < c.codes for code in known):
            raise ItemError(
                f"The codes of a wish must be {c.positions} from 0 to {c.codes - 1}, -1 where "
                f"unknown, got {len(known)} from {min(known)} to {max(known)}."
            )
        return known

    def _self_test(self) -> bool:
        c = self.network.config
        dice = torch.Generator().manual_seed(0)
        codes = torch.randint(0, c.codes, (BLOCK, c.positions), generator=dice)
        words = torch.randint(0, c.words, (BLOCK, c.prompt_tokens), generator=dice)
        level = torch.randint(0, c.steps + 1, (BLOCK,), generator=dice)
        return repeats(self.network, codes, words, level)
