"""A pipeline's own call beside its lanes, from the same noise: for tests that compare them."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from tiny_pipelines import MAKERS
from torch import Tensor

from ostinato.image.pipelines import DenoisePipeline, PipelineFamily
from ostinato.loop import Lane, Report, fold_in

SEED, STEPS = 7, 5
SIZE = {"height": 16, "width": 16}
NAMES = list(MAKERS)
WORDED = NAMES[2:]


def item(name: str, **more: object) -> dict[str, object]:
    inputs: dict[str, object] = {"prompt": "a cat, sleeping", **SIZE} if name in WORDED else {}
    return {**inputs, "seed": SEED, "steps": STEPS, **more}


def stepped(family: PipelineFamily, wanted: dict[str, object]) -> tuple[list[Report], Tensor]:
    process = DenoisePipeline(family, slots=1)
    process.start(Lane("x"), wanted)
    reports: list[Report] = []
    while not reports or "ended" not in reports[-1]:
        reports.append(process.step()["x"])
    return reports, process.output("x")


def noise(use: str, position: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold_in(SEED, "", use, 0, 0, position))


def own_call(pipeline: Any, wanted: dict[str, object], **more: Any) -> tuple[list[Tensor], Tensor]:
    """Call the pipeline itself, from the same noise; return its latents after each step."""
    pipeline.set_progress_bar_config(disable=True)
    seen: list[Tensor] = []
    inner = pipeline.scheduler.step
    generator = noise("begin", 0)

    @functools.wraps(inner)
    def step(*args: Any, **named: Any) -> Any:
        # Each step draws from its own place, be it the generator or, without one, torch's own.
        own = noise("step", len(seen))
        torch.random.set_rng_state(own.get_state())
        if named.get("generator") is not None:
            generator.set_state(own.get_state())
        if not takes_generator:  # DDPMPipeline gives it to every scheduler
            named.pop("generator", None)
        out = inner(*args, **named)
        seen.append(out[0] if isinstance(out, tuple) else out.prev_sample)
        return out

    takes_generator = "generator" in inspect.signature(inner).parameters
    pipeline.scheduler.step = step
    names = ("prompt", "negative_prompt", "height", "width")
    given = {name: wanted[name] for name in names if name in wanted} | more
    try:
        image = pipeline(
            num_inference_steps=STEPS, generator=generator, output_type="pt", **given
        ).images[0]
    finally:
        del pipeline.scheduler.step
    return seen, image


def unpacked(latent: Tensor, like: Tensor) -> Tensor:
    """Return a latent of Flux as (C, H, W)."""
    if latent.shape == like.shape:
        return latent
    C, H, W = like.shape
    return latent.view(H // 2, W // 2, C, 2, 2).permute(2, 0, 3, 1, 4).reshape(C, H, W)


def check_equal(
    family: PipelineFamily, wanted: dict[str, object], *, exactly: bool = False, **more: Any
) -> list[Report]:
    """Hold a lane to the pipeline's own call, after every step; return the lane's reports.

    `exactly`: bit for bit. Where guidance is on, the call computes two predictions as one batch and
    a lane one after the other, so that they differ by rounding.
    """
    reports, image = stepped(family, wanted)
    seen, own = own_call(family.pipeline, wanted, **more)
    assert len(seen) == len(reports)
    for latent, report in zip(seen, reports, strict=True):
        noisy = report["noisy"]
        assert isinstance(noisy, Tensor)
        latent = unpacked(latent[0], noisy)
        if exactly:
            assert torch.equal(noisy, latent)
            continue
        scale = float(noisy.abs().max())  # rounding grows with the noise and with the guidance
        torch.testing.assert_close(noisy, latent, rtol=0.0, atol=2e-4 * max(1.0, scale))
    limit = 0.0 if exactly else 1e-4
    torch.testing.assert_close((image / 2 + 0.5), own, rtol=limit, atol=limit)
    return reports
