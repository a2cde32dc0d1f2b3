"""The duel of a generator and a discriminator: k updates of the one and one of the other a step.

Goodfellow et al., "Generative Adversarial Nets" (2014), Algorithm 1, with any of `losses`. A
process made of the parts of `ostinato.train`. It does not know when to stop: `ModeCollapse`,
`Overpowered`, `Plateau("fd")` and other conditions do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ostinato.adversarial.augment import AdaptiveProbability, augmented
from ostinato.adversarial.config import DuelConfig
from ostinato.adversarial.loss_choice import LossChoice, penalty_interval
from ostinato.adversarial.losses import AdversarialLoss, Score
from ostinato.adversarial.networks import Discriminator, Generator, latents
from ostinato.adversarial.quality import (
    Classify,
    Embed,
    SampleQuality,
    overfitting,
    untrained_features,
)
from ostinato.arguments import require
from ostinato.errors import InputError
from ostinato.image import Images
from ostinato.loop import Report, fold_in
from ostinato.media import gutter_of, in_grid, tiled, to_bytes
from ostinato.train import (
    AdamW,
    Averages,
    Batch,
    BatchCursor,
    BatchSampler,
    BestWeights,
    CurrentWeights,
    Parts,
    PartsProcess,
    Precision,
    Updater,
    Validation,
    Weights,
    trainable,
    using,
)

COLUMNS, ROWS = 10, 4  # of the grid of samples
FEWEST = 4  # held-out images: recall compares with the third neighbor


class Duel(PartsProcess):
    """Train a generator and a discriminator of images in turns.

    Reports:

    - `discriminator/…` and `generator/…`: `loss`, `lr`, `grad/norm`;
    - `score/real`, `score/generated`, `accuracy` (the share of pairs whose real image has the
      higher score), and in some steps the loss's penalties (`r1`, `r2`, `gradient`);
    - `epoch` (passes over the images, after the step), `batch` (the index of the next one);
    - every `watch_every` steps `score/held_out`, `overfitting`, `diversity` and `duplicates`, of
      fixed sets;
    - with `augment_target` also `augment/p`, the probability of the augmentations;
    - every `valid_every` steps `fd`, `precision` and `recall` of samples of the averaged weights,
      with `classify` also `classes` or `class_accuracy`;
    - every `sample_every` steps `sample`, a grid of the same noise.

    Edits: `lr` sets the peak, `lr_scale` multiplies the rate, of both sides; `generator/lr` and so
    on of one. `skip` and `skip_steps` leave batches out. `loss` and `penalty` are those of
    `LossChoice`. `best` has the generator's weights of the
    lowest `fd`. `embed` makes the features that samples are measured in, such as a classifier's;
    by default those of an untrained network. `classify` makes logits of their classes.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        images: Images,
        held_out: Images,
        config: DuelConfig | None = None,
        *,
        embed: Embed | None = None,
        classify: Classify | None = None,
    ) -> None:
        self.config = config = config or DuelConfig()
        self.generator, self.discriminator = generator, discriminator
        self._images, self._held_out = (
            _fitting(name, each, generator)
            for name, each in (("images", images), ("held_out", held_out))
        )
        shape = generator.config
        self._quality = SampleQuality(
            embed or untrained_features(shape), self._held_out, classify=classify
        )
        self._classes = shape.classes
        self._build(config)

    def _build(self, config: DuelConfig) -> None:
        made, judged = trainable(self.generator), trainable(self.discriminator)
        self.precision = Precision(
            self.generator, self.discriminator, name=config.precision, seed=config.seed
        )
        self.updaters = {
            "discriminator": _updater(judged, config, config.rate_of_discriminator),
            "generator": _updater(made, config, config.lr),
        }
        self.cursor = BatchCursor(
            BatchSampler([1] * len(self._images), config.batch_images, config.seed),
            config.discriminator_updates,
        )
        self._averages = Averages(made, config.ema_decay)
        self.best = BestWeights(made)
        self._validation = Validation(
            self.best, self.validate, every=config.valid_every, measure="fd"
        )
        target = config.augment_target
        self._adaptive = None if target is None else AdaptiveProbability(target)
        adaptive = {} if self._adaptive is None else {"augment": self._adaptive}
        self._loss = LossChoice(config)
        self._parts = Parts(
            "Duel",
            loss=self._loss,
            generator_weights=CurrentWeights(made),
            discriminator_weights=CurrentWeights(judged),
            averages=self._averages,
            best=self.best,
            validation=self._validation,
            cursor=self.cursor,
            **self.updaters,
            **adaptive,
        )

    @property
    def parameters(self) -> Weights:
        """The weights of both sides, by `generator.` or `discriminator.` and their names."""
        return {
            f"{side}.{name}": p
            for side, updater in self.updaters.items()
            for name, p in updater.parameters.items()
        }

    @property
    def network(self) -> Generator:
        """The generator, which is what a duel is for."""
        return self.generator

    @property
    def report_interval(self) -> int:
        """Steps within which all must have been reported, going back once included."""
        c = self.config
        return 2 * max(c.watch_every, c.valid_every, c.sample_every, penalty_interval(c))

    @property
    def averages(self) -> bool:
        """Whether samples are made with averaged weights (`ema_decay`)."""
        return bool(self._averages.weights)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Update the discriminator `discriminator_updates` times, then the generator once."""
        number = self.updaters["generator"].steps
        with self.precision.step_of(number):
            batches = self.cursor.take()
            loss = self._loss.at(number)
            report = _means([self._discriminate(batch, loss) for batch in batches])
            report |= self._generate(batches[-1], loss, number)
            self._averages.update()
            report |= {"epoch": self.cursor.epoch, "batch": self.cursor.index}
            return report | self._scheduled(number + 1)

    # Turns ------------------------------------------------------------------------------------

    def _discriminate(self, batch: Batch, loss: AdversarialLoss) -> dict[str, float]:
        """Update the discriminator with a batch, beside as many generated images."""
        seed = fold_in(self.config.seed, "discriminator", batch.index)
        real, label = self._real(batch.examples)
        with torch.no_grad():
            generated = self._generated(len(real), label, seed)
        term = loss.discriminator(self._score(label, seed), real, generated, seed)
        term.loss.backward()  # type: ignore[no-untyped-call]
        updated = self.updaters["discriminator"].step()
        return dict(term.parts) | _of("discriminator", loss=float(term.loss.detach()), **updated)

    def _generate(self, batch: Batch, loss: AdversarialLoss, number: int) -> dict[str, float]:
        """Update the generator, with new noise beside a batch's images."""
        seed = fold_in(self.config.seed, "generator", number)
        real, label = self._real(batch.examples)
        with _frozen(self.updaters["discriminator"].parameters):
            generated = self._generated(len(real), label, seed)
            term = loss.generator(self._score(label, seed), real, generated)
            term.loss.backward()  # type: ignore[no-untyped-call]
        updated = self.updaters["generator"].step()
        return _of("generator", loss=float(term.loss.detach()), **updated)

    def _real(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        images, device = self._images.at(chosen), self.precision.device
        label = None if images.labels is None else images.labels.to(device)
        return images.clean().to(device), label

    def _generated(self, count: int, label: Tensor | None, seed: int) -> Tensor:
        draws = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.generator.config.latent, generator=draws)
        with self.precision.autocast():
            images: Tensor = self.generator(z.to(self.precision.device), label)
        return images.float()

    def _score(self, label: Tensor | None, seed: int) -> Score:
        """Return the discriminator's scores of images that are augmented first.

        The two images of a pair are augmented alike, by its place in the batch.
        """
        seed, names = fold_in(seed, "augment"), self.config.augment
        p = 1.0 if self._adaptive is None else self._adaptive.p

        def score(images: Tensor) -> Tensor:
            with self.precision.autocast():
                scores: Tensor = self.discriminator(augmented(images, names, seed, p), label)
            return scores.float()

        return score

    # Looks ------------------------------------------------------------------------------------

    def _scheduled(self, step: int) -> dict[str, object]:
        """Return what is due after this step: a look, the samples' quality, a grid of samples."""
        every = self.config.sample_every
        report: dict[str, object] = {}
        if step % self.config.watch_every == 0:
            report |= self.watch()
            report |= self._adapt(report.get("overfitting"))
        with using(self.updaters["generator"].parameters, self._averages.weights):
            if self._validation.is_due(step):
                report |= self._validation.run(step)
            if every and step % every == 0:
                report["sample"] = self.grid()
        return report

    @torch.no_grad()
    def watch(self) -> dict[str, object]:
        """Return how the duel stands on fixed sets, with the weights of now.

        `diversity` is the generated images' as a share of the data's, `duplicates` the share of
        them that have a near duplicate (`SampleQuality`). `overfitting` is left out where the
        scores are not clearly apart.
        """
        count = self.config.watched
        made, label = self.samples(count, "watched")
        train, held_out = (
            self.discriminator(*self._first(images, count))
            for images in (self._images, self._held_out)
        )
        generated = self.discriminator(made, label)
        report: dict[str, object] = {
            "score/held_out": float(held_out.mean()),
            "diversity": self._quality.diversity(made, label),
            "duplicates": self._quality.duplicates(made, label),
        }
        known = overfitting(train, held_out, generated)
        return report if known is None else report | {"overfitting": known}

    def _adapt(self, known: object) -> dict[str, object]:
        """Adapt how many images are augmented to what was looked at; return what to report."""
        if self._adaptive is None:
            return {}
        c = self.config
        if isinstance(known, float):
            images = c.watch_every * c.discriminator_updates * c.batch_images
            self._adaptive.adapt(known, images)
        return {"augment/p": self._adaptive.p}

    def _first(self, images: Images, count: int) -> tuple[Tensor, Tensor | None]:
        """Return the first images of a set, always the same, and their classes."""
        some, device = images.at(range(min(count, len(images)))), self.precision.device
        return some.clean().to(device), None if some.labels is None else some.labels.to(device)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Return the quality of samples (`SampleQuality.measure`) of the weights of now.

        Their classes are those of the held-out images.
        """
        labels, count = self._held_out.labels, self.config.samples
        chosen = None if labels is None else labels[torch.arange(count) % len(labels)]
        return self._quality.measure(*self.samples(count, "quality", chosen))

    @torch.no_grad()
    def samples(
        self, count: int, use: str, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return images (count, C, S, S) and their classes, the same for the same weights.

        `use` decides the noise. The classes are `label`, by default all in turns.
        """
        self.generator.eval()
        device = self.precision.device
        if label is None and self._classes:
            label = torch.arange(count) % self._classes
        label = None if label is None else label.to(device)
        seeds = [fold_in(self.config.seed, use, index) for index in range(count)]
        z = latents(seeds, self.generator.config.latent).to(device)
        images: Tensor = self.generator(z, label)
        return images, label

    def grid(self) -> Tensor:
        """Return a grid of samples as uint8 (C, H, W), a class in each column."""
        columns = min(COLUMNS, self._classes) if self._classes else COLUMNS
        label = torch.arange(columns).repeat(ROWS) if self._classes else None
        images, _ = self.samples(columns * ROWS, "grid", label)
        cells = list(images.cpu())
        return to_bytes(tiled(in_grid(cells, columns), gutter=gutter_of(images.size(-1))))

    # Weights ----------------------------------------------------------------------------------

    def validate_last(self) -> Mapping[str, float]:
        """Measure the samples of the last step's weights, unless that is done.

        For the end of a duel: what a resumed run computes does not depend on it.
        """
        step = self.updaters["generator"].steps
        if self._validation.last == step:
            return {}
        averaged = using(self.updaters["generator"].parameters, self._averages.weights)
        with self.precision.deterministic(), averaged:
            return self._validation.run(step)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Use the generator's best weights in the block, else averaged ones, else the last."""
        chosen = self.best.weights or self._averages.weights
        with using(self.updaters["generator"].parameters, chosen):
            yield


def _fitting(name: str, images: Images, generator: Generator) -> Images:
    """Return images, without classes where the generator has none. Raises `InputError`."""
    c = generator.config
    require(len(images) >= FEWEST, name, f"at least {FEWEST} images", len(images))
    if (images.channels, images.size) != (c.channels, c.size):
        raise InputError(
            f"{name} must be of the networks' size, {c.channels} x {c.size} x {c.size}, got "
            f"{images.channels} x {images.size} x {images.size}. Make networks with "
            "gan_for(images)."
        )
    if not c.classes:
        return images.without_classes()
    if images.labels is None or int(images.labels.max()) >= c.classes:
        found = "none" if images.labels is None else f"the label {int(images.labels.max())}"
        raise InputError(
            f"{name} must have labels of the networks' {c.classes} classes, got {found}. Make "
            "networks with gan_for(images)."
        )
    return images


def _updater(parameters: Weights, config: DuelConfig, lr: float) -> Updater:
    return Updater(
        parameters,
        AdamW(betas=(config.beta1, config.beta2)),
        config.lr_schedule(lr),
        max_grad_norm=config.max_grad_norm,
    )


@contextmanager
def _frozen(parameters: Weights) -> Iterator[None]:
    """Let no gradient reach parameters in the block, which saves computing theirs."""
    for p in parameters.values():
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters.values():
            p.requires_grad_()


def _of(side: str, **values: float) -> dict[str, float]:
    return {f"{side}/{name}": value for name, value in values.items()}


def _means(reports: Sequence[Mapping[str, float]]) -> dict[str, object]:
    return {name: sum(each[name] for each in reports) / len(reports) for name in reports[0]}
