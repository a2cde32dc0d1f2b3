"""Images as tokens: stable codes, measured words, and methods that conform to the protocol."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ostinato.errors import EditError, InputError, ItemError, ModelError
from ostinato.image import Images, ReconstructionTask, hold_out, read_images
from ostinato.image.tokens import (
    VQ,
    Attributes,
    CodeSettings,
    DiscreteDiffusion,
    ImagePrompt,
    ImageTokenModel,
    PixelQuantizer,
    UnmaskCodes,
    VQConfig,
    image_token_loop,
    load_image_token_model,
    new_image_token_model,
    task_of,
)
from ostinato.image.tokens.attributes import Thresholds, measure
from ostinato.image.tokens.config import Method
from ostinato.image.tokens.discrete_diffusion import reverse_step
from ostinato.journal import Journal
from ostinato.loop import Lane, Lanes, Loop, Never, Policy, Steps, Timeline, Verdict
from ostinato.media import scaled
from ostinato.testing import check_lane_process, check_process
from ostinato.train import Training, TrainingConfig

METHODS: tuple[Method, ...] = ("row", "pixels", "unmask", "coarse")
PROMPTS = {"a": "a slanted seven", "b": "thin", "c": "", "d": "the large nine"}


def digits() -> Images:
    return read_images(["digits-8x8"])


def token_model(method: Method, *, louder: float = 8.0) -> ImageTokenModel:
    """Return an untrained model whose network prefers some codes."""
    words = Attributes.of(digits())
    codec = (
        PixelQuantizer(size=8, levels=4)
        if method == "pixels"
        else VQ(VQConfig(size=8, halvings=1)).eval()
    )
    model = new_image_token_model(method, codec, words, layers=2, width=32, heads=2, seed=1)
    with torch.no_grad():
        for name, p in model.network.named_parameters():
            if p.dim() > 1 and "embed" in name:
                p.mul_(louder)
    return model


# Codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28), (3, 20), (1, 8), (3, 64)])
def test_the_same_image_has_the_same_codes_after_a_load_and_in_any_batch(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    channels, size = shape
    network = VQ(VQConfig.for_images(channels, size, width=16), seed=2).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (21, channels, size, size), generator=generator, dtype=torch.uint8
    )
    codes = network.encode(images)
    assert codes.shape == (21, network.positions) and network.positions <= 64
    assert len(set(codes.flatten().tolist())) > 8 and int(codes.max()) < network.vocabulary
    network.save(tmp_path)
    loaded = VQ.load(tmp_path)
    for some in (range(1), range(5, 14), [20, 3, 11]):
        assert torch.equal(loaded.encode(images[list(some)]), codes[list(some)])
        pictures = loaded.decode(codes[list(some)])
        assert torch.equal(pictures, network.decode(codes)[list(some)])


CODES_OF = """
import sys
from pathlib import Path
import sklearn, scipy.linalg, PIL.Image
import torch
torch.set_num_threads(2)
from ostinato.image import read_images
from ostinato.media import scaled
from ostinato.image.tokens import VQ
codes = VQ.load(Path(sys.argv[1])).encode(scaled(read_images(["digits-8x8"]).pixels[:200], 28))
print(codes.flatten().tolist())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_codes_are_the_same_on_other_threads_and_after_other_imports(tmp_path: Path) -> None:
    network = VQ(VQConfig(width=16), seed=2).eval()
    images = scaled(digits().pixels[:200], 28)
    before, codes = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            codes.append(network.encode(images))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*codes)
    network.save(tmp_path)
    command = [sys.executable, "-c", CODES_OF, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == codes[0].flatten().tolist()


def test_rounding_errors_of_float32_change_no_code() -> None:
    """Rounding happens in float64: weights that differ in their last bits give the same codes.

    Of an image whose value lies on the edge of two cells, within an error of float32, the code is
    that of the exact value.
    """
    network = VQ(VQConfig(size=8, halvings=1, levels=(5,), width=16), seed=0).eval()
    image = digits().pixels[:1]
    with torch.no_grad():
        exact = copy.deepcopy(network).double()
        z = exact.into(exact._encoded(image.double() / 127.5 - 1))[0, 0, 1, 1]
        edge = float(torch.atanh(torch.tensor(0.5 / (2 * (1 - 1e-3)), dtype=torch.float64)))
        network.into.get_parameter("bias").add_(
            edge - float(z)
        )  # so that this place is about on an edge
    with torch.no_grad():
        moved = copy.deepcopy(network).double()
        z = moved._bounded(moved.into(moved._encoded(image.double() / 127.5 - 1)))
    assert abs(float(z[0, 0, 1, 1]) - 0.5) < 1e-6
    assert torch.equal(network.encode(image)[0], (z.round() + 2).long().flatten())


def test_codes_are_the_cells_that_training_rounds_to() -> None:
    network = VQ(VQConfig(size=8, halvings=1, levels=(5, 4)), seed=0).eval()
    images = digits().pixels[:8]
    with torch.no_grad():
        trained = network(images.float() / 127.5 - 1)
    expected = ((trained.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(network.decode(network.encode(images)), expected)


@pytest.mark.parametrize("levels", [(), (2, 8)])
def test_levels_that_cannot_be_rounded_to_are_refused(levels: tuple[int, ...]) -> None:
    """Of two levels, each lies on an edge that no value reaches: all codes would be undefined."""
    with pytest.raises(InputError, match="levels must each be at least 3, got"):
        VQConfig(levels=levels)
    network = VQ(VQConfig(size=8, halvings=1, levels=(3, 4), width=16))
    codes = network.encode(digits().pixels[:8])
    assert 0 <= int(codes.min()) <= int(codes.max()) < 12


def test_codes_of_another_autoencoder_are_refused() -> None:
    network = VQ(VQConfig(size=8, halvings=1, levels=(5, 4)))
    with pytest.raises(InputError, match="codes must be from 0 to 19, got 20 to 20"):
        network.decode(torch.full((1, 16), 20))
    with pytest.raises(InputError, match=r"images must be \(N, 1, 8, 8\)"):
        network.encode(torch.zeros(1, 1, 9, 9, dtype=torch.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_decoded_to_the_level_they_were_encoded_to(channels: int) -> None:
    codec = PixelQuantizer(channels=channels, size=8, levels=256)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, channels, 8, 8), generator=generator, dtype=torch.uint8)
    assert torch.equal(codec.decode(codec.encode(images)), images)
    coarse = PixelQuantizer(channels=channels, size=8, levels=8)
    error = coarse.decode(coarse.encode(images)).float() - images.float()
    assert error.abs().max() <= 255 / 14 + 1


# Words ----------------------------------------------------------------------------------------


def test_words_are_measured() -> None:
    upright, slanted, thick = (torch.zeros(1, 28, 28) for _ in range(3))
    upright[0, 4:24, 13:15] = 255
    thick[0, 4:24, 9:19] = 255
    for row in range(4, 24):
        slanted[0, row, 24 - row : 26 - row] = 255
    slant, thickness, size = measure(torch.stack((upright, slanted, thick)).to(torch.uint8)).T
    assert slant[1] > 0.5 > slant[0] + 0.4
    assert thickness[2] > 2 * thickness[0]
    assert size[1] > size[0]
    inverted = 255 - torch.stack((upright, slanted))
    assert torch.allclose(measure(inverted.to(torch.uint8))[:, 0], slant[:2], atol=1e-3)


def test_a_prompt_is_read_in_any_order() -> None:
    images = digits()
    assert images.labels is not None
    words = Attributes.of(images)
    assert words.decode(words.encode("A slanted, seven")) == "slanted seven"
    assert words.encode("seven slanted") == words.encode("a slanted 7")
    assert words.encode("") == (0, 0, 0, 0)
    ids = words.describe(images)
    third = (ids[:, 0] == words.encode("slanted")[0]).float().mean()
    assert 0.3 < third < 0.37
    assert torch.equal(ids[:, -1] - ids[:, -1].min(), images.labels)
    with pytest.raises(InputError, match=r"Unknown words 'elephant' in 'a thin elephant'\. Known"):
        words.encode("a thin elephant")
    with pytest.raises(InputError, match="either thick or thin once"):
        words.encode("thick thin two")


# Lanes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_methods_conform(method: Method) -> None:
    model = token_model(method)
    settings = CodeSettings(guidance=1.5) if method in ("unmask", "coarse") else CodeSettings()
    edits: dict[str, dict[str, object]] = {
        "unmask": {"mask": [0, 3], "prompt": "one"},
        "coarse": {"put": {"2": 5}},
    }
    steps = 6 if method == "unmask" else None
    check_lane_process(
        lambda slots: model.lanes(settings=settings, steps=steps, slots=slots),
        PROMPTS,
        steps=20,
        edits=edits.get(method, {"temperature": 0.5}),
    )


def finished(loop: Loop) -> dict[str, str]:
    return {one.key: str(one.output) for step in loop for one in step.results}


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_the_same_loaded_alone_and_resumed(method: Method, tmp_path: Path) -> None:
    model = token_model(method)
    drawn = finished(image_token_loop(list(PROMPTS.values()), model=model, seed=3))
    assert len(drawn) == 4 and len(set(drawn.values())) == 4
    loaded = load_image_token_model(model.save(tmp_path / "drawing"))
    for prompt in PROMPTS.values():
        alone = finished(image_token_loop([prompt], model=loaded, seed=3))
        assert alone.items() <= drawn.items()
        (output,) = alone.values()
        assert loaded.image(output).shape == (1, 8, 8)
    journal = Journal(tmp_path / "journal.db")
    prompts = list(PROMPTS.values())
    first = image_token_loop(prompts, model=model, seed=3, run="x", journal=journal, until=Steps(3))
    first.run()
    again = image_token_loop(prompts, model=model, seed=3, run="x", journal=journal)
    assert finished(again) == drawn
    journal.close()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "unmask"])
def test_what_has_no_effect_on_a_method_is_refused(method: Method) -> None:
    with pytest.raises(InputError, match=f"steps must be left out for the method {method}, got 4"):
        image_token_loop(["one"], model=token_model(method), steps=4)
    with pytest.raises(InputError, match=f"noise must be left out for .* {method}, got 2.5"):
        image_token_loop(["one"], model=token_model(method), settings=CodeSettings(noise=2.5))


def run_alone(process: Any, prompt: object, lane: Lane | None = None) -> list[Any]:
    process.start(lane or Lane("x"), prompt)
    reports: list[Any] = []
    while not reports or "ended" not in reports[-1]:
        reports.append(process.step()["x"])
    return reports


def test_unmask_decides_as_many_as_the_cosine_says_and_keeps_what_is_known() -> None:
    model = token_model("unmask")
    process = model.lanes(steps=4)
    known = tuple([7, 8, 9, *[-1] * 13])
    reports = run_alone(process, ImagePrompt("two", known))
    assert [r["masked"] for r in reports] == [12, 9, 4, 0]
    output = process.output("x")
    assert tuple(output.tokens[:3]) == (7, 8, 9) and min(output.tokens) >= 0


@pytest.mark.parametrize("method", METHODS)
def test_an_image_with_all_its_codes_is_a_natural_end(method: Method) -> None:
    lanes = Lanes(token_model(method).lanes(slots=1), [("a", "two")], Policy(each=Steps(1000)))
    (result,) = [one for step in Loop(lanes, until=Steps(2000)) for one in step.results]
    assert result.accepted and result.stopped.kind == "ended"


def test_unmask_ends_when_no_code_is_masked() -> None:
    process = token_model("unmask").lanes(steps=8)
    known = tuple([*range(14), -1, -1])
    reports = run_alone(process, ImagePrompt("two", known))
    assert [r["masked"] for r in reports][-1] == 0 and len(reports) < 8
    assert all(r["masked"] for r in reports[:-1])
    assert reports[-1]["ended"].startswith("No code is masked after")


def test_masked_codes_are_sampled_again_and_put_codes_stay() -> None:
    process = token_model("unmask").lanes(steps=4)
    run_alone(process, "two")
    before = process.output("x").tokens
    edits = {"mask": list(range(8)), "put": {9: 1}}
    process.rewind(Lane("x", backtracks=1, edits=Timeline().added(3, edits)), 3)
    report = process.step()["x"]
    after = process.output("x").tokens
    assert report["masked"] == 0 and after[9] == 1 and -1 not in after
    assert tuple(after[:8]) != tuple(before[:8])


def test_coarse_ends_without_noise() -> None:
    model = token_model("coarse")
    process = model.lanes()
    reports = run_alone(process, "")
    assert [r["kept"] for r in reports] == sorted(r["kept"] for r in reports)
    assert reports[-1]["kept"] == 1.0 and process.deterministic


def test_a_step_out_of_noise_is_the_mean_of_its_posterior() -> None:
    """Against the sum over all clean codes, written out, and at both ends of the chain."""
    generator = torch.Generator().manual_seed(0)
    T, V, before, after = 3, 5, 0.7, 0.4
    codes = torch.randint(0, V, (T,), generator=generator)
    probs = torch.rand(T, V, generator=generator).softmax(-1)

    def kept(share: float, a: int, b: int) -> float:
        return share * (a == b) + (1 - share) / V

    expected = torch.zeros(T, V)
    for place in range(T):
        now = int(codes[place])
        for clean in range(V):
            joint = [kept(after / before, k, now) * kept(before, clean, k) for k in range(V)]
            expected[place] += probs[place, clean] * torch.tensor(joint) / sum(joint)
    model = reverse_step(codes, probs, before, after)
    assert torch.allclose(model / model.sum(1, keepdim=True), expected, atol=1e-6)
    last = reverse_step(codes, probs, 1.0, after)
    assert torch.allclose(last / last.sum(1, keepdim=True), probs, atol=1e-6)
    first = reverse_step(codes, probs, before, 0.0)
    assert torch.allclose(first / first.sum(1, keepdim=True), before * probs + (1 - before) / V)


def test_bad_prompts_edits_and_settings_are_refused() -> None:
    unmask, coarse = token_model("unmask"), token_model("coarse")
    process = unmask.lanes()
    with pytest.raises(ItemError, match="must be 16 from 0 to 239"):
        process.start(Lane("x"), ImagePrompt("two", (1, 2)))
    with pytest.raises(ItemError, match="Unknown words 'cow'"):
        process.start(Lane("x"), "a cow")
    with pytest.raises(ItemError, match="DiscreteDiffusion starts from noise"):
        coarse.lanes().start(Lane("x"), ImagePrompt("two", (1,) * 16))
    with pytest.raises(EditError, match="put must be a map of positions from 0 to 15 to tokens"):
        process.start(Lane("x", edits=Timeline().added(0, {"put": {16: 0}})), "two")
    with pytest.raises(EditError, match="temperature must be a number"):
        process.start(Lane("x", edits=Timeline().added(0, {"temperature": "hot"})), "two")
    with pytest.raises(InputError, match="temperature must be above 0"):
        CodeSettings(temperature=0)
    with pytest.raises(InputError, match="Use DiscreteDiffusion"):
        UnmaskCodes(coarse.model, coarse.attributes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Use UnmaskCodes"):
        DiscreteDiffusion(unmask.model, unmask.attributes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="guidance must be 1 for the methods row and pixels"):
        token_model("row").lanes(settings=CodeSettings(guidance=2))
    with pytest.raises(InputError, match="at least one prompt"):
        image_token_loop([], model=unmask)


def test_a_judge_sees_the_same_kind_of_output_from_every_method() -> None:
    for method in METHODS:
        seen: list[object] = []

        def judge(output: object, item: object, seen: list[object] = seen) -> list[Verdict]:
            seen.append(output)
            return []

        policy = Policy(each=Never(), judge=judge)
        lanes = Lanes(token_model(method).lanes(), [("x", "two")], policy)
        Loop(lanes).run()
        (output,) = seen
        assert list(map(int, str(output).split())) == list(output.tokens)  # type: ignore


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = token_model("unmask").save(tmp_path / "d")
    (folder / "model" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="must hold the weights"):
        load_image_token_model(folder)
    with pytest.raises(ModelError, match=r"^The file \S+config.json must exist\. Train, copy"):
        load_image_token_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the config.json of .*, got: another architecture\."):
        load_image_token_model(tmp_path)


# Training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_learning_codes_conforms_and_gets_better(method: Method) -> None:
    train, valid = hold_out(digits().at(range(200)))
    config = TrainingConfig(
        steps=30, batch_tokens=16, optimizer="muon", lr=0.02, warmup_steps=2, valid_every=10
    )

    def training() -> Training:
        model = token_model(method, louder=1.0)
        return Training(model.network, task_of(model, train, valid), config)

    check_process(training, steps=5, cuts=(0, 2))
    process = training()
    losses = [process.validate()["loss/valid"]]
    for _ in range(30):
        process.step()
    losses.append(process.validate()["loss/valid"])
    assert losses[1] < losses[0]


def test_learning_images_conforms_and_gets_better() -> None:
    train, valid = hold_out(digits().at(range(200)))
    config = TrainingConfig(steps=40, batch_tokens=16, lr=3e-3, warmup_steps=2, valid_every=10)

    def training() -> Training:
        network = VQ(VQConfig(size=8, halvings=1, width=16), seed=0)
        return Training(network, ReconstructionTask(train, valid), config)

    check_process(training, steps=5, cuts=(0, 2))
    process = training()
    before = process.validate()["loss/valid"]
    for _ in range(40):
        process.step()
    assert process.validate()["loss/valid"] < before / 2


@pytest.mark.parametrize("name", ["large", "salt and pepper", "seven", "", "one, two"])
def test_a_class_that_no_prompt_could_name_is_refused(name: str) -> None:
    cuts = (Thresholds(0.5, 0.1), Thresholds(2.0, 1.0), Thresholds(5.0, 3.0))
    with pytest.raises(InputError, match="Classes must have names that differ"):
        Attributes(("seven", name), cuts)
    assert Attributes(("seven", "hot dog"), cuts).encode("a large hot dog")[-1] == 8


@pytest.mark.parametrize("codes", [None, ["a"] * 4, [1.5] * 4, [True] * 4])
def test_codes_of_a_prompt_that_are_no_numbers_set_it_aside(codes: object) -> None:
    with pytest.raises(ItemError, match="codes of a prompt must be whole numbers"):
        ImagePrompt.of({"codes": codes})
