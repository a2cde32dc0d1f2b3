"""Every scheduler of diffusers is stepped as in the pipeline's own call, or refused by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from diffusers import schedulers
from pipeline_calls import SEED, SIZE, STEPS, check_equal, item, noise, unpacked
from tiny_pipelines import MAKERS

from ostinato.errors import ModelError
from ostinato.image.pipelines import DenoisePipeline, PipelineFamily, load_pipeline
from ostinato.loop import Lane, Timeline, fold_in
from ostinato.testing import check_lane_process

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde's, about rounding
]

GUIDED = ("stable_diffusion", "stable_diffusion_3")
ALL = sorted(name for name in dir(schedulers) if name.endswith("Scheduler"))
REQUIRED: dict[str, dict[str, Any]] = {
    "AmusedScheduler": {"mask_token_id": 0},
    "VQDiffusionScheduler": {"num_vec_classes": 4},
    "RFD4ProteinaScheduler": {
        "schedule_mode": "power",
        "noise_mode": "tan",
        "tsr_k": 1.0,
        "tsr_sigma": 1.0,
    },
}
VARIANCE_PRESERVING = (
    "CogVideoXDDIM DDIM DDIMParallel DDPM DDPMParallel DEISMultistep DPMSolverMultistep "
    "DPMSolverSinglestep LCM PNDM SASolver TCD UniPCMultistep"
)
SCALING = (
    "DPMSolverSDE EulerAncestralDiscrete EulerDiscrete HeunDiscrete KDPM2AncestralDiscrete "
    "KDPM2Discrete LMSDiscrete"
)
FLOW = "FlowMatchEulerDiscrete FlowMatchHeunDiscrete FlowMatchLCM"
STEPPED = {
    "ddpm": f"{VARIANCE_PRESERVING} {FLOW} UnCLIP",
    "stable_diffusion": f"{VARIANCE_PRESERVING} {SCALING}",
    "stable_diffusion_3": f"{VARIANCE_PRESERVING} {FLOW}",
    "flux": "FlowMatchEulerDiscrete FlowMatchLCM",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PipelineFamily]:
    return {kind: load_pipeline(MAKERS[kind](tmp_path_factory.mktemp(kind))) for kind in STEPPED}


@pytest.fixture
def families(loaded: dict[str, PipelineFamily]) -> Iterator[dict[str, PipelineFamily]]:
    kept = {kind: family.pipeline.scheduler for kind, family in loaded.items()}
    yield loaded
    for kind, scheduler in kept.items():
        loaded[kind].pipeline.scheduler = scheduler


def scheduler_of(name: str, **config: Any) -> Any:
    try:
        return getattr(diffusers, name, getattr(schedulers, name))(**config)
    except ImportError as error:  # torchsde, which few schedulers need
        pytest.skip(str(error).strip())


def opened(family: PipelineFamily, scheduler: Any) -> PipelineFamily:
    """Return the family with another scheduler, checked as when it is loaded."""
    family.pipeline.scheduler = scheduler
    return type(family)(family.pipeline)


def unguided(kind: str) -> tuple[dict[str, object], dict[str, Any]]:
    """Return an item without guidance, and the argument of the call that says so."""
    if kind not in GUIDED:
        return item(kind), {}
    return item(kind, guidance=1.0), {"guidance_scale": 1.0}


@pytest.mark.parametrize("kind", STEPPED)
@pytest.mark.parametrize("name", ALL)
def test_every_scheduler_steps_bit_for_bit_as_in_the_call_or_is_refused(
    families: dict[str, PipelineFamily], kind: str, name: str
) -> None:
    scheduler = scheduler_of(name, **REQUIRED.get(name, {}))
    if name.removesuffix("Scheduler") not in STEPPED[kind].split():
        with pytest.raises(ModelError, match=f"can use, got {name}: .*Give the pipeline another"):
            opened(families[kind], scheduler)
        return
    wanted, more = unguided(kind)
    check_equal(opened(families[kind], scheduler), wanted, exactly=True, **more)


@pytest.mark.parametrize("kind", GUIDED)
@pytest.mark.parametrize("name", ["TCD", "DPMSolverMultistep", "SASolver", "LCM"])
def test_with_guidance_they_step_as_in_the_call(
    families: dict[str, PipelineFamily], kind: str, name: str
) -> None:
    family = opened(families[kind], scheduler_of(f"{name}Scheduler"))
    wanted = item(kind, guidance=3.0, negative_prompt="a dog")
    check_equal(family, wanted, guidance_scale=3.0)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("stable_diffusion", "RePaintScheduler", "needs mask and original_image, which"),
        ("stable_diffusion", "CogVideoXDPMScheduler", "needs sample and timestep_back"),
        ("stable_diffusion", "UnCLIPScheduler", "has no `order`"),
        ("stable_diffusion", "FlowMatchEulerDiscreteScheduler", "has no `init_noise_sigma`"),
        ("stable_diffusion", "ScoreSdeVeScheduler", "has no `step`"),
        ("stable_diffusion", "EDMEulerScheduler", "does not tell its noise levels"),
        ("stable_diffusion", "DPMSolverMultistepInverseScheduler", "from an image to noise"),
        ("stable_diffusion_3", "DDIMInverseScheduler", "cannot add noise"),
        ("stable_diffusion_3", "EulerDiscreteScheduler", "scales noise and input"),
        ("ddpm", "HeunDiscreteScheduler", "scales noise and input"),
        ("flux", "DDIMScheduler", "unexpected keyword argument"),
        ("flux", "UniPCMultistepScheduler", "use_flow_sigmas=True"),
    ],
)
def test_a_scheduler_is_refused_with_the_reason(
    families: dict[str, PipelineFamily], kind: str, name: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        opened(families[kind], scheduler_of(name))


# Settings of a scheduler's config, where they are not the defaults ------------------------------

DPM, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
EULER, UNIPC, DDIM = "EulerDiscreteScheduler", "UniPCMultistepScheduler", "DDIMScheduler"
FLOWS = "FlowMatchEulerDiscreteScheduler"
SPACINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("stable_diffusion", name, {"timestep_spacing": spacing, "steps_offset": 1})
    for name in (DDIM, EULER, DPM, UNIPC, "LMSDiscreteScheduler", "HeunDiscreteScheduler")
    for spacing in ("leading", "linspace", "trailing")
]
SIGMAS: list[tuple[str, str, dict[str, Any]]] = [
    ("stable_diffusion", name, {spelling: True})
    for name in (EULER, DPM, SINGLE, UNIPC, "HeunDiscreteScheduler", "SASolverScheduler")
    for spelling in ("use_karras_sigmas", "use_exponential_sigmas")
]
PREDICTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("stable_diffusion", name, {"prediction_type": prediction})
    for name in (DDIM, "DDPMScheduler", EULER, DPM, UNIPC, "TCDScheduler", "LCMScheduler")
    for prediction in ("v_prediction", "sample")
    if (name, prediction) != (EULER, "sample")
]
ALGORITHMS: list[tuple[str, str, tuple[int, ...], dict[str, Any]]] = [
    (DPM, "dpmsolver++", (1, 2, 3), {}),
    (DPM, "sde-dpmsolver++", (1, 2, 3), {}),
    (DPM, "sde-dpmsolver++", (2,), {"use_karras_sigmas": True}),
    (DPM, "dpmsolver++", (2,), {"use_lu_lambdas": True, "solver_type": "heun"}),
    (SINGLE, "dpmsolver++", (1, 2, 3), {}),
    (SINGLE, "sde-dpmsolver++", (2,), {}),
]
SOLVERS: list[tuple[str, str, dict[str, Any]]] = [
    ("stable_diffusion", name, {"algorithm_type": algorithm, "solver_order": order, **more})
    for name, algorithm, orders, more in ALGORITHMS
    for order in orders
]
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    # Without a last level above 0, both give NaN in their last step.
    ("stable_diffusion", UNIPC, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("stable_diffusion", UNIPC, {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    ("stable_diffusion", UNIPC, {"solver_order": 3, "disable_corrector": [0, 2]}),
    ("stable_diffusion", DDIM, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("stable_diffusion", DDIM, {"set_alpha_to_one": False, "thresholding": True}),
    ("stable_diffusion", "DDPMScheduler", {"variance_type": "fixed_large"}),
    ("stable_diffusion", "PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    ("stable_diffusion", EULER, {"interpolation_type": "log_linear", "final_sigmas_type": "zero"}),
    ("stable_diffusion", EULER, {"timestep_type": "continuous", "use_karras_sigmas": True}),
    ("stable_diffusion", "SASolverScheduler", {"predictor_order": 3, "corrector_order": 1}),
    ("stable_diffusion", "DEISMultistepScheduler", {"solver_order": 3}),
    ("stable_diffusion", "TCDScheduler", {"original_inference_steps": 20}),
    ("ddpm", "DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}),
    ("ddpm", "TCDScheduler", {"steps_offset": 1}),  # its own eta: DDPMPipeline gives none
    ("stable_diffusion_3", FLOWS, {"shift": 3.0, "use_dynamic_shifting": False}),
    ("stable_diffusion_3", FLOWS, {"use_dynamic_shifting": True}),
    ("stable_diffusion_3", FLOWS, {"stochastic_sampling": True, "shift": 2.0}),
    ("stable_diffusion_3", FLOWS, {"use_karras_sigmas": True}),
    ("stable_diffusion_3", FLOWS, {"invert_sigmas": False, "shift_terminal": 0.1}),
    ("stable_diffusion_3", UNIPC, {"use_flow_sigmas": True, "flow_shift": 3.0}),
    ("stable_diffusion_3", DPM, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    ("flux", FLOWS, {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 2.0}),
    ("flux", FLOWS, {"use_dynamic_shifting": True, "time_shift_type": "linear"}),
    ("flux", FLOWS, {"stochastic_sampling": True, "use_dynamic_shifting": True}),
    ("flux", FLOWS, {"shift": 3.0}),
    ("flux", UNIPC, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
]
CONFIGURED = SPACINGS + SIGMAS + PREDICTIONS + SOLVERS + OTHERS


@pytest.mark.parametrize(("kind", "name", "config"), CONFIGURED)
def test_schedulers_with_other_settings_step_bit_for_bit_as_in_the_call(
    families: dict[str, PipelineFamily], kind: str, name: str, config: dict[str, Any]
) -> None:
    wanted, more = unguided(kind)
    check_equal(opened(families[kind], scheduler_of(name, **config)), wanted, exactly=True, **more)


def test_the_noise_of_an_sde_is_there_again_after_a_resume(
    families: dict[str, PipelineFamily],
) -> None:
    pytest.importorskip("torchsde")
    family = opened(families["stable_diffusion"], diffusers.DPMSolverSDEScheduler())
    items: dict[str, object] = {
        name: item("stable_diffusion", prompt=name, guidance=1.0) for name in "abc"
    }
    check_lane_process(
        lambda slots: DenoisePipeline(family, slots=slots), items, steps=STEPS, edits=None
    )


# Image to image ---------------------------------------------------------------------------------

VARIED: list[tuple[str, str, dict[str, Any]]] = [
    ("stable_diffusion", name, {"steps_offset": 1, **config})
    for name, config in [
        (DDIM, {"clip_sample": False}),
        *((name, {}) for name in (EULER, DPM, UNIPC, "HeunDiscreteScheduler", "LCMScheduler")),
    ]
] + [
    ("stable_diffusion_3", FLOWS, {"shift": 3.0}),
    ("flux", FLOWS, {"use_dynamic_shifting": True}),
]


@pytest.mark.parametrize("strength", [0.4, 0.8])
@pytest.mark.parametrize(("kind", "name", "config"), VARIED)
def test_an_image_noised_again_steps_as_in_the_image_to_image_call(
    families: dict[str, PipelineFamily],
    kind: str,
    name: str,
    config: dict[str, Any],
    strength: float,
) -> None:
    family = opened(families[kind], scheduler_of(name, **config))
    image = torch.linspace(-1, 1, 3 * 256).view(3, 16, 16)
    wanted, more = unguided(kind)
    if kind == "flux":  # the defaults of the two calls differ
        wanted, more = item(kind, guidance=2.0), {"guidance_scale": 2.0}
    process = DenoisePipeline(family, slots=1)
    process.start(Lane("x"), wanted)
    steps = len(process._slots["x"].base.timesteps)
    order = family.pipeline.scheduler.order
    first = int(STEPS - STEPS * strength) * order
    for _ in range(first):
        process.step()
    process.rewind(Lane("x", edits=Timeline().added(first, {"renoise": image})), first)
    reports = [process.step()["x"] for _ in range(steps - first)]
    for latent, report in zip(
        varied(family, image, strength, wanted, more, first), reports, strict=True
    ):
        noisy = report["noisy"]
        assert isinstance(noisy, Tensor)
        torch.testing.assert_close(noisy, unpacked(latent[0], noisy), rtol=1e-4, atol=1e-4)


def varied(
    family: PipelineFamily,
    image: Tensor,
    strength: float,
    wanted: dict[str, object],
    more: dict[str, Any],
    first: int,
) -> list[Tensor]:
    """Call the pipeline's image-to-image class; return its latents after each step."""
    kinds: dict[str, Any] = {
        "StableDiffusionPipeline": diffusers.StableDiffusionImg2ImgPipeline,
        "StableDiffusion3Pipeline": diffusers.StableDiffusion3Img2ImgPipeline,
        "FluxPipeline": diffusers.FluxImg2ImgPipeline,
    }
    pipeline = kinds[type(family.pipeline).__name__](**family.pipeline.components)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[Tensor] = []
    inner = pipeline.scheduler.step
    with torch.no_grad():
        latent = family.encode_image(image)[None]
    generator = torch.Generator().manual_seed(fold_in(SEED, "", "renoise", 0, 0, first))

    @functools.wraps(inner)  # the pipeline looks at its arguments
    def step(*args: Any, **named: Any) -> Any:
        if "generator" in named:
            generator.set_state(noise("step", first + len(seen)).get_state())
        out = inner(*args, **named)
        seen.append(out[0])
        return out

    pipeline.scheduler.step = step
    size = SIZE if "height" in inspect.signature(pipeline.__call__).parameters else {}
    try:
        pipeline(
            **size,
            prompt=wanted["prompt"],
            image=latent,
            strength=strength,
            num_inference_steps=STEPS,
            generator=generator,
            output_type="latent",
            **more,
        )
    finally:
        del pipeline.scheduler.step
    return seen
