"""A pipeline that is stepped by lanes gives what its own call gives, step for step."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from pipeline_calls import NAMES, SEED, SIZE, WORDED, check_equal, item, stepped
from tiny_pipelines import MAKERS, stable_diffusion, stable_diffusion_3, unconditional

from ostinato.errors import EditError, InputError, ItemError, MissingExtra, ModelError
from ostinato.image import ClassifiedAs, Renoise
from ostinato.image.pipelines import (
    DenoisePipeline,
    PipelineFamily,
    PipelineInputs,
    load_pipeline,
    pipeline_loop,
)
from ostinato.journal import Journal
from ostinato.loop import Converges, Lane, Timeline, fold_in
from ostinato.media import to_bytes
from ostinato.testing import check_lane_process

# diffusers meets numpy 2.4 through an `__array__` of torch that it warns about
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SOLVERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def families(folders: dict[str, Path]) -> dict[str, PipelineFamily]:
    return {name: load_pipeline(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", NAMES)
def test_it_equals_the_pipeline_s_own_call(families: dict[str, PipelineFamily], name: str) -> None:
    reports = check_equal(families[name], item(name))
    sigmas = [report["sigma"] for report in reports]
    assert sigmas == sorted(sigmas, reverse=True)  # type: ignore[type-var]
    assert len(reports) == reports[0]["steps"] and "ended" in reports[-1]


def test_guidance_and_negative_prompt_are_those_of_the_call(
    families: dict[str, PipelineFamily],
) -> None:
    for name in ("stable_diffusion", "stable_diffusion_3"):
        wanted = item(name, negative_prompt="a dog", guidance=3.0)
        check_equal(families[name], wanted, guidance_scale=3.0)
        check_equal(families[name], item(name, guidance=1.0), guidance_scale=1.0)
    check_equal(families["flux"], item("flux", guidance=2.0), guidance_scale=2.0)


def test_the_third_text_encoder_may_be_missing(tmp_path: Path) -> None:
    family = load_pipeline(stable_diffusion_3(tmp_path, t5=False))
    check_equal(family, item("stable_diffusion_3"))


@pytest.fixture
def scheduled(families: dict[str, PipelineFamily]) -> Iterator[PipelineFamily]:
    family = families["stable_diffusion"]
    kept = family.pipeline.scheduler
    yield family
    family.pipeline.scheduler = kept


@pytest.mark.parametrize("kind", SOLVERS)
def test_each_scheduler_steps_as_in_the_call(scheduled: PipelineFamily, kind: str) -> None:
    scheduled.pipeline.scheduler = getattr(diffusers, kind)()
    check_equal(scheduled, item("stable_diffusion"))


@pytest.mark.parametrize("kind", [*SOLVERS, "PNDMScheduler"])
def test_each_scheduler_s_clean_prediction_is_what_a_true_prediction_leads_to(
    scheduled: PipelineFamily, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that predicts the true noise, every clean prediction is the image."""
    scheduler = getattr(diffusers, kind)()
    scheduled.pipeline.scheduler = scheduler
    clean = torch.linspace(-0.5, 0.5, 256).view(1, 4, 8, 8)
    process = DenoisePipeline(scheduled, slots=1, guidance=1.0)
    process.start(Lane("x"), item("stable_diffusion"))
    state, _ = process._slots["x"].states[0].scaled()
    alpha = 1.0 if hasattr(scheduler, "init_noise_sigma") and scheduler.init_noise_sigma != 1 else 0
    sigma = state.sigma()
    alpha = alpha or (1 + sigma**2) ** -0.5
    true = (state.noisy / alpha - clean) / sigma
    monkeypatch.setattr(process, "_predict", lambda *given: true)
    report = process.step()["x"]
    torch.testing.assert_close(report["clean"], clean[0].clamp(-1, 1), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_lanes_conform(families: dict[str, PipelineFamily], name: str) -> None:
    items: dict[str, object] = {
        str(n): {**item(name, steps=4), "seed": None if n else 3} for n in range(3)
    }
    edits = {"guidance": 2.0, "prompt": "a dog"} if name in WORDED else None
    check_lane_process(
        lambda slots: DenoisePipeline(families[name], slots=slots), items, steps=4, edits=edits
    )


@pytest.mark.parametrize("kind", ["EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"])
def test_lanes_conform_with_noise_and_with_a_history(scheduled: PipelineFamily, kind: str) -> None:
    scheduled.pipeline.scheduler = getattr(diffusers, kind)()
    items: dict[str, object] = {name: {"prompt": name, "steps": 5, **SIZE} for name in "abc"}
    edits = {"guidance": 2.0}
    check_lane_process(
        lambda slots: DenoisePipeline(scheduled, slots=slots), items, steps=5, edits=edits
    )


RENOISED = [
    ("DDIMScheduler", 4),
    ("PNDMScheduler", 4),
    ("UniPCMultistepScheduler", 4),
    ("HeunDiscreteScheduler", 4),
    ("HeunDiscreteScheduler", 6),  # back to its middle, 3: between the halves of a step
    ("KDPM2DiscreteScheduler", 6),
]


@pytest.mark.parametrize(("kind", "steps"), RENOISED)
def test_lanes_that_are_noised_again_conform(
    scheduled: PipelineFamily, kind: str, steps: int
) -> None:
    scheduled.pipeline.scheduler = getattr(diffusers, kind)()
    items: dict[str, object] = {name: {"prompt": name, "steps": 5, **SIZE} for name in "abc"}
    image = torch.linspace(-1, 1, 3 * 256).view(3, 16, 16)
    check_lane_process(
        lambda slots: DenoisePipeline(scheduled, slots=slots),
        items,
        steps=steps,
        edits={"renoise": image},
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_between_two_halves_an_image_is_noised_as_if_the_first_had_predicted_it(
    scheduled: PipelineFamily, kind: str
) -> None:
    scheduled.pipeline.scheduler = diffusers.HeunDiscreteScheduler(prediction_type=kind)
    process = DenoisePipeline(scheduled, slots=1)
    process.start(Lane("x"), item("stable_diffusion"))
    for _ in range(5):
        process.step()
    image = torch.linspace(-1, 1, 3 * 256).view(3, 16, 16)
    process.rewind(Lane("x", backtracks=1, edits=Timeline().added(3, {"renoise": image})), 3)
    state = process._slots["x"].states[3]
    with torch.no_grad():
        latent = scheduled.encode_image(image)
    generator = torch.Generator().manual_seed(fold_in(SEED, "", "renoise", 0, 1, 3))
    noise = torch.randn((1, *latent.shape), generator=generator)[0]
    sigma = float(state.scheduler.sigmas[3])
    torch.testing.assert_close(state.noisy[0], latent + sigma * noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.scheduler.prev_derivative[0], noise, rtol=1e-3, atol=1e-3)
    assert process.step()["x"]["step"] == 4


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_heun_s_images_are_noised_again_wherever_that_is(
    scheduled: PipelineFamily, share: float
) -> None:
    scheduled.pipeline.scheduler = diffusers.HeunDiscreteScheduler()
    loop = pipeline_loop(
        [item("stable_diffusion", steps=4)],
        pipeline=scheduled,
        checks=[ClassifiedAs(classifier=lambda images: torch.zeros(len(images), 2), least=0.9)],
        on_stop=Renoise(share=share, rounds=1),
    )
    (row,) = [one.to_json() for step in loop for one in step.results]
    assert row["stopped"]["kind"] == "failed" and row["backtracks"]  # type: ignore[index]


def test_an_edit_that_was_left_for_a_later_position_waits_for_it(
    families: dict[str, PipelineFamily],
) -> None:
    family = families["ddim"]
    image = torch.full(family.image_shape(family.latent_shape(PipelineInputs())), 0.25)
    left = Timeline().added(3, {"renoise": image})
    noisy = []
    for to in (1, 3):
        process = DenoisePipeline(family, slots=1)
        process.start(Lane("x"), item("ddim"))
        for _ in range(4):
            process.step()
        process.rewind(Lane("x", backtracks=1, edits=left), to)
        while not process._slots["x"].states[-1].finished:
            last = process.step()["x"]["noisy"]
        noisy.append(last)
    assert torch.equal(noisy[0], noisy[1])  # type: ignore[arg-type]


def test_an_image_is_noised_to_the_level_of_its_position(
    families: dict[str, PipelineFamily],
) -> None:
    for name in ("ddim", "flux"):
        family = families[name]
        process = DenoisePipeline(family, slots=1)
        process.start(Lane("x"), item(name))
        for _ in range(3):
            process.step()
        image = torch.full(family.image_shape(process._slots["x"].shape), 0.25)
        process.rewind(Lane("x", backtracks=1, edits=Timeline().added(2, {"renoise": image})), 2)
        state = process._slots["x"].states[2]
        with torch.no_grad():
            latent = family.encode_image(image)
        generator = torch.Generator().manual_seed(fold_in(SEED, "", "renoise", 0, 1, 2))
        noise = torch.randn((1, *latent.shape), generator=generator)[0]
        sigma = state.sigma()
        alpha = 1 - sigma if name == "flux" else (1 + sigma**2) ** -0.5
        share = sigma if name == "flux" else sigma * alpha
        torch.testing.assert_close(state.noisy[0], alpha * latent + share * noise)
        assert process.step()["x"]["step"] == 3


def test_images_that_fail_are_noised_again(families: dict[str, PipelineFamily]) -> None:
    loop = pipeline_loop(
        [None],
        pipeline=families["ddim"],
        steps=5,
        checks=[ClassifiedAs(classifier=lambda images: torch.zeros(len(images), 2), least=0.9)],
        on_stop=Renoise(rounds=2),
    )
    rows = [one.to_json() for step in loop for one in step.results]
    assert len(rows) == 1 and not rows[0]["accepted"]
    assert rows[0]["spent"]["calls"] > 10  # type: ignore[index]


def test_renoise_is_refused_where_it_cannot_be(scheduled: PipelineFamily) -> None:
    scheduled.pipeline.scheduler = diffusers.HeunDiscreteScheduler()
    process = DenoisePipeline(scheduled, slots=1)
    for image in (torch.zeros(3, 8, 8), "an image"):
        with pytest.raises(EditError, match="renoise must"):
            process.start(
                Lane("x", edits=Timeline().added(2, {"renoise": image})), item("stable_diffusion")
            )


def test_a_missing_extra_is_named(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"ostinato\[diffusers\]"):
        load_pipeline(folders["ddpm"])


def test_an_edit_holds_from_its_position_on(families: dict[str, PipelineFamily]) -> None:
    family = families["stable_diffusion"]
    plain, _ = stepped(family, item("stable_diffusion"))
    process = DenoisePipeline(family, slots=1)
    process.start(
        Lane("x", edits=Timeline().added(2, {"prompt": "a dog"})), item("stable_diffusion")
    )
    edited = [process.step()["x"] for _ in range(3)]
    same = [torch.equal(a["noisy"], b["noisy"]) for a, b in zip(plain, edited, strict=False)]  # type: ignore[arg-type]
    assert same == [True, True, False]


def test_a_loop_ends_images_early_with_reasons(families: dict[str, PipelineFamily]) -> None:
    loop = pipeline_loop([None, None], pipeline=families["ddim"], steps=4)
    rows = [one.to_json() for step in loop for one in step.results]
    assert [row["stopped"]["kind"] for row in rows] == ["ended"] * 2  # type: ignore[index]
    assert not torch.equal(rows[0]["output"], rows[1]["output"])  # type: ignore[arg-type]
    early = pipeline_loop([None], pipeline=families["ddim"], steps=9, each=Converges("change", 1e9))
    lengths = [one.length for step in early for one in step.results]
    assert lengths[0] < 9


def test_an_interrupted_run_resumes_bit_for_bit(
    families: dict[str, PipelineFamily], tmp_path: Path
) -> None:
    def drawn(stop_at: int | None, **more: Any) -> list[Tensor]:
        items = [item("stable_diffusion", seed=seed) for seed in (1, 2)]
        loop = pipeline_loop(items, pipeline=families["stable_diffusion"], **more)
        rows: dict[str, Any] = {}
        with loop:
            for step in loop:
                rows |= {one.key: one.output for one in step.results}
                if step.tick == stop_at:
                    break
        return [torch.as_tensor(output) for output in rows.values()]

    with Journal(tmp_path / "journal.sqlite") as journal:
        assert drawn(3, run="a", journal=journal) == []
        for resumed, whole in zip(drawn(None, run="a", journal=journal), drawn(None), strict=True):
            assert torch.equal(resumed, whole)


def test_reports_carry_the_decoded_image_on_request(families: dict[str, PipelineFamily]) -> None:
    process = DenoisePipeline(families["flux"], slots=1, decode=True)
    process.start(Lane("x"), item("flux"))
    image = process.step()["x"]["image"]
    assert isinstance(image, Tensor) and image.shape == (3, 16, 16)
    assert torch.equal(image, to_bytes(process.output("x")))


def test_what_a_safety_checker_blackens_stays_black(
    families: dict[str, PipelineFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families["stable_diffusion"]
    monkeypatch.setattr(family.pipeline, "safety_checker", object(), raising=False)
    monkeypatch.setattr(
        family.pipeline, "run_safety_checker", lambda image, *_: (torch.zeros_like(image), [True])
    )
    assert family.decode(torch.randn(4, 8, 8)).abs().max() == 0


# What is refused ------------------------------------------------------------------------------


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index\.json"):
        load_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="must be JSON"):
        load_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioPipeline"}')
    with pytest.raises(ModelError, match="no components"):
        load_pipeline(tmp_path)


def test_a_missing_component_is_named(tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path)
    (folder / "vae").rename(folder / "gone")
    with pytest.raises(ModelError, match="component 'vae'"):
        load_pipeline(folder)


WEIGHTS = "diffusion_pytorch_model"
PARTS = {"unet": WEIGHTS, "vae": WEIGHTS, "text_encoder": "model"}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pipeline in whole files and in shards, saved as a variant."""
    whole = tmp_path_factory.mktemp("whole")
    pipeline: Any = load_pipeline(stable_diffusion(whole)).pipeline
    folders = {}
    for variant in ("fp16", "bf16"):
        for size, name in ((None, variant), ("30KB", f"{variant} shards")):
            folder = tmp_path_factory.mktemp("half")
            sharded = {} if size is None else {"max_shard_size": size}
            pipeline.save_pretrained(folder, variant=variant, **sharded)
            folders[name] = folder
    return {"": whole, **folders}


@pytest.mark.parametrize("parts", [("unet",), tuple(PARTS)])
@pytest.mark.parametrize("name", ["fp16", "bf16", "fp16 shards", "bf16 shards"])
def test_weights_that_are_there_as_a_variant_only_are_read_and_told(
    halves: dict[str, Path], name: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(halves[""], folder)
    for part in parts:
        shutil.rmtree(folder / part)
        shutil.copytree(halves[name] / part, folder / part)
    family = load_pipeline(folder)
    assert family.variants == dict.fromkeys(parts, name.split()[0])
    whole = load_pipeline(halves[""])
    for part in PARTS:
        pairs = zip(
            getattr(family.pipeline, part).state_dict().items(),
            getattr(whole.pipeline, part).state_dict().items(),
            strict=True,
        )
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_parts_may_have_different_variants_and_whole_weights_go_first(
    halves: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(halves[""], folder)
    for part, variant in (("unet", "fp16"), ("vae", "bf16")):
        shutil.rmtree(folder / part)
        shutil.copytree(halves[variant] / part, folder / part)
    # Another file beside the whole one is not read, as `from_pretrained` does not read it.
    (folder / "text_encoder" / "model.fp16.safetensors").write_bytes(b"")
    assert load_pipeline(folder).variants == {"unet": "fp16", "vae": "bf16"}


def damaged(folder: Path, how: str) -> None:
    unet = folder / "unet"
    index = unet / f"{WEIGHTS}.safetensors.index.fp16.json"
    match how:
        case "pickled":
            (whole,) = unet.glob("*.safetensors")
            whole.rename(whole.with_suffix(".bin"))
        case "none":
            (whole,) = unet.glob("*.safetensors")
            whole.unlink()
        case "a shard less":
            next(unet.glob("*-00001-of-*.safetensors")).unlink()
        case "no index":
            index.unlink()
        case "damaged index":
            index.write_text("{")
        case "empty index":
            index.write_text("{}")
        case _:
            entries = json.loads((folder / "model_index.json").read_text())
            entries["scheduler"] = json.loads(how)
            (folder / "model_index.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("", "pickled", r"got diffusion_pytorch_model\.bin\. A pickle can run code"),
        ("", "none", "must hold what StableDiffusionPipeline loads, in safetensors"),
        ("fp16 shards", "a shard less", "none of the name .*-00001-of-"),
        ("fp16 shards", "no index", "must hold an index of its .+ shards"),
        ("fp16 shards", "damaged index", r"index\.fp16\.json must be JSON"),
        ("fp16 shards", "empty index", "must have a `weight_map` of shards"),
        ("", '["diffusers", "FooScheduler"]', "a class that diffusers has, got 'FooScheduler'"),
        ("", '["diffusers"]', "must give a library and a class for 'scheduler'"),
        ("", "[null, null]", "must have a supported layout"),
        ("", "null", "must have a supported layout"),
    ],
)
def test_a_folder_that_is_damaged_is_refused_with_the_reason(
    halves: dict[str, Path], kind: str, how: str, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(halves[kind], folder)
    damaged(folder, how)
    with pytest.raises(ModelError, match=message):
        load_pipeline(folder)


def test_code_out_of_a_folder_is_not_run(tmp_path: Path) -> None:
    folder = unconditional(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["mine", "UNet2DModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="not run"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("stable_diffusion", {"prompt": None}, "needs a prompt"),
        ("stable_diffusion", {"height": 13}, "multiples of 8"),
        ("stable_diffusion", {"style": "oil"}, "An item must be"),
        ("stable_diffusion", {"steps": 0}, "at least 1"),
        ("stable_diffusion", {"guidance": -1}, "from 0 to 1000"),
        ("ddpm", {"prompt": "a cat"}, "takes no prompt"),
        ("ddpm", {"height": 16}, "8 x 8"),
        ("ddpm", {"steps": 2000}, "scheduler cannot take these steps"),
        ("flux", {"negative_prompt": "a dog"}, "takes no negative_prompt"),
    ],
)
def test_items_that_cannot_be_sampled_are_refused(
    families: dict[str, PipelineFamily], name: str, fields: dict[str, object], message: str
) -> None:
    process = DenoisePipeline(families[name], slots=1)
    with pytest.raises(ItemError, match=message):
        process.start(Lane("x"), item(name, **fields))


def test_wrong_edits_and_settings_are_refused(families: dict[str, PipelineFamily]) -> None:
    process = DenoisePipeline(families["stable_diffusion"], slots=1)
    for edits in ({"guidance": "much"}, {"prompt": 3}, {"prompt": None}):
        with pytest.raises(EditError):
            process.start(Lane("x", edits=Timeline().added(0, edits)), item("stable_diffusion"))
    with pytest.raises(InputError, match="guidance must be left out"):
        DenoisePipeline(families["ddpm"], guidance=3.0)
    with pytest.raises(InputError, match="steps must be at least 1, got 0"):
        DenoisePipeline(families["ddpm"], steps=0)
    with pytest.raises(InputError):
        PipelineInputs(seed=-1)
