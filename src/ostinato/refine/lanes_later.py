"""A lane process that is made when its first lane starts: never, where rules answer every item."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ostinato.loop import Lane, LaneProcess, Report, compute_mode


class LanesLater:
    """Stands for the lane process that `make` returns, until a lane starts.

    `compute_mode` is empty until then, unless a resumed run has set the one it was started in.
    """

    def __init__(self, make: Callable[[], LaneProcess]) -> None:
        self.slots = 1  # the lane that takes it makes the process
        self.deterministic = True
        self.compute_mode = ""
        self._make = make
        self._made: LaneProcess | None = None

    @property
    def known_edits(self) -> Mapping[str, str] | None:
        """The edits of a lane, None until the process is made."""
        return None if self._made is None else getattr(self._made, "known_edits", None)

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs in its reports; none until the process is made."""
        return () if self._made is None else tuple(getattr(self._made, "costs", ()))

    @property
    def unit(self) -> str:
        """What adds up to the length of a draft."""
        return "" if self._made is None else str(getattr(self._made, "unit", ""))

    def use_compute_mode(self, mode: str) -> None:
        """Compute in this mode, if the model leaves it open. Call it before any lane starts."""
        self.compute_mode = mode

    def start(self, lane: Lane, item: object) -> None:
        """Start a lane."""
        self._process.start(lane, item)

    def step(self) -> Mapping[str, Report]:
        """Advance every lane."""
        return self._process.step()

    def rewind(self, lane: Lane, to: int) -> None:
        """Return a lane to a position."""
        self._process.rewind(lane, to)

    def output(self, key: str) -> object:
        """Return a lane's output so far."""
        return self._process.output(key)

    def drop(self, key: str) -> None:
        """Free a lane's slot."""
        self._process.drop(key)

    @property
    def _process(self) -> LaneProcess:
        if self._made is None:
            made = self._make()
            use = getattr(made, "use_compute_mode", None)
            if self.compute_mode and use is not None:
                use(self.compute_mode)
            self.slots, self.deterministic = made.slots, made.deterministic
            self.compute_mode = compute_mode(made)
            self._made = made
        return self._made
