"""Builds runs of music from their configurations, and writes their pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostinato.errors import RunError
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import ItemsWork
from ostinato.models import folder_digest
from ostinato.music.checks import all_checks
from ostinato.music.config import SampleMusicRun
from ostinato.music.midi import write_midi
from ostinato.music.rendering import piano_roll, write_wav
from ostinato.music.score import Score
from ostinato.music.tokens import score_of
from ostinato.music.writing import SAMPLING, TOKENS, folder_of, load_music, prompt
from ostinato.refine import Backtrack, Refine, Resample, Smc, Strategy


@dataclass(kw_only=True)
class MusicWork(ItemsWork):
    """The loop over `count` pieces, each of which `finish` writes into every file of `outs`."""

    outs: Sequence[Path]
    tempo: float
    count: int

    @property
    def scores(self) -> list[Score]:
        """The pieces that are done, in order; one may have no chords."""
        return [score_of(str(result.output)) for result in self.results]

    def files_of(self, number: int) -> list[Path]:
        """Return the files of a piece, from 1; several pieces are numbered."""
        if self.count == 1:
            return list(self.outs)
        return [out.with_stem(f"{out.stem}-{number}") for out in self.outs]

    def write(self) -> None:
        """Write each piece that has chords. Raises `RunError` where some are not done."""
        scores = self.scores
        if len(scores) < self.count:
            raise RunError(
                f"All {self.count} pieces must be finished to be written, got {len(scores)}. "
                "Run the loop to its end: work.loop.run(work.watch)."
            )
        for number, score in enumerate(scores, 1):
            for path in self.files_of(number) if score.chords else ():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write(score, path)

    def _write(self, score: Score, path: Path) -> None:
        if path.suffix.lower() == ".png":
            piano_roll(score, path)
        elif path.suffix.lower() == ".wav":
            write_wav(score, path, tempo=self.tempo)
        else:
            write_midi(score, path, tempo=self.tempo)


def build_sample_music(config: SampleMusicRun, *, run: RunSource | None = None) -> MusicWork:
    """Build the run that writes pieces of music."""
    require_unchanged("The model's files", config.weights, music_digest(config.model))
    columns = {"key": config.key, "start": config.start, "melody": config.melody}
    given = {name: value for name, value in columns.items() if value}
    refine = Refine(
        load_music(config.model),
        [(f"{number:04}", given) for number in range(1, config.count + 1)],
        prompt=prompt,
        checks=all_checks() if config.until_passes else [_anything],
        strategy=_strategy(config),
        sampling=dataclasses.replace(SAMPLING, temperature=config.temperature, min_p=config.min_p),
        max_new_tokens=TOKENS,
        seed=config.seed,
        slots=min(config.count, 16),  # more pieces wait, as each slot holds a cache
    )
    loop = refine.loop(run=run)
    return MusicWork(loop=loop, outs=config.outs, tempo=config.tempo, count=config.count)


def _anything(text: str) -> bool:
    return True


def _strategy(config: SampleMusicRun) -> Strategy:
    """Return the strategy for drafts that fail; without checks, one that accepts every draft."""
    if not config.until_passes:
        return Resample(rounds=1)
    match config.strategy:
        case "resample":
            return Resample(rounds=config.rounds)
        case "smc":
            return Smc(rounds=config.rounds)
        case _:
            return Backtrack(rounds=config.rounds, patience=4)  # it passed all of 32 pieces


def music_digest(model: str | Path) -> str:
    """Return a hash of a music model's files; empty where there are none."""
    return folder_digest(folder_of(model))
