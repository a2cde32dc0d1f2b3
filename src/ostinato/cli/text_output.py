"""The output of `ostinato generate`: printed token by token, or at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ostinato.arguments import counted
from ostinato.cli.run_loop import Exit

if TYPE_CHECKING:
    from ostinato.cli.following import View
    from ostinato.journal import Run, Stopped
    from ostinato.loop import LaneResult


@dataclass(kw_only=True)
class TextOutput:
    """The text so far, printed as it comes, or only at the end; a view's `show`: a line a token."""

    view: View
    beams: bool = False  # a report's text is the best text so far, not the next token
    tokens: list[dict[str, object]] = field(default_factory=list)
    result: LaneResult | None = None
    stopped: Stopped | None = None

    @property
    def exit(self) -> Exit:
        """The exit code: `NOT_ALL` where the text could not be written."""
        kind = None if self.result is None else self.result.stopped.kind
        return Exit.NOT_ALL if kind in ("error", "failed") else Exit.DONE

    def add(self, position: int, report: Mapping[str, object]) -> None:
        """Add a token, and print it."""
        self.tokens.append(dict(report))
        if self.beams and self.view.show and self.view.says:
            click.echo(f"{position:4}  {report['score']:8.3f}  {report['text']!r}")
        elif self.view.says and not (self.beams or self.view.step):
            _print(position, report, self.view.show)

    def recall(self, run: Run, tick: int | None = None) -> None:
        """Add the tokens that a run and its parents have recorded, up to a tick."""
        for step in run.history():
            # Steps behind the checkpoint are computed again, and would be printed twice.
            if tick is not None and step.tick > tick:
                break
            lanes: Any = step.report["lanes"]
            for lane in lanes.values():
                self.add(lane["position"], lane["report"])
        from ostinato.loop import LaneResult

        self.result = next((LaneResult.from_json(row) for _, row in run.results()), None)
        self.stopped = run.stopped

    def finish(self, note: str = "") -> None:
        """Print why the text ended, and a note; or everything as JSON."""
        why = self.stopped if self.result is None else self.result.stopped
        if self.view.as_json:
            text = self._text() if self.result is None else self.result.output
            stopped = None if why is None else why.to_json()
            click.echo(json.dumps({"text": text, "stopped": stopped, "tokens": self.tokens}))
            return
        sentence = why.sentence if why else ""
        if self.view.quiet:
            click.echo(self._text())
            return
        if self.view.step or (self.beams and not self.view.show):
            click.echo(self._text(), nl=False)
        end = "" if self.view.show else "\n"  # the text was printed without a line break after it
        click.echo(f"{end}[{counted(len(self.tokens), 'tokens')}. {sentence}{note}]", err=True)

    def _text(self) -> str:
        texts = [str(one["text"]) for one in self.tokens]
        return "".join(texts[-1:] if self.beams else texts)


def _print(position: int, report: Mapping[str, Any], show: bool) -> None:
    if not show:
        click.echo(report["text"], nl=False)
        return
    token = json.dumps(report["text"], ensure_ascii=False)
    token = "(end)" if "ended" in report and not report["text"] else token
    others = "  ".join(
        f"{json.dumps(text, ensure_ascii=False) if text else '(end)'} {_shares(probs)}"
        for text, *probs in report["alternatives"]
    )
    if position == 1:
        click.echo(f"step  {'token':18}  model   drawn  entropy    | likeliest: model, drawn")
    prob = math.exp(report["logprob"])
    # Runs of older versions have recorded the model's probabilities only.
    drawn = f"{report['drawn_prob']:6.1%}" if "drawn_prob" in report else f"{'-':>6}"
    click.echo(
        f"{position:4}  {token:18} {prob:6.1%}  {drawn}  {report['entropy']:4.2f} nats  | {others}"
    )


def _shares(probs: Sequence[float]) -> str:
    return ", ".join(f"{prob:.1%}" for prob in probs)
