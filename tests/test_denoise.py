"""Denoising in lanes: the same bits in any company, going back, edits, variations and stops."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny_denoiser import TinyDenoiser
from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image.denoise import Denoise, slerp
from ostinato.image.solvers import SOLVERS, karras_sigmas
from ostinato.loop import Converges, Lane, Lanes, Loop, Policy, Steps, Timeline
from ostinato.testing import check_lane_process

ITEMS: dict[str, object] = {"a": 0, "b": 1, "c": {"label": 2, "seed": 5}, "d": None}


def draw(items: Mapping[str, object], slots: int = 16, each: Any = None, **named: Any) -> Any:
    """Return the result rows of some items, by key."""
    each = each or Steps(100)
    loop = Loop(
        Lanes(
            Denoise(TinyDenoiser(), slots=slots, **named), list(items.items()), Policy(each=each)
        ),
        until=Steps(1000),
    )
    return {one.key: one.to_json() for step in loop for one in step.results}


def images(items: Mapping[str, object], slots: int = 16, **named: Any) -> dict[str, Tensor]:
    return {key: row["output"] for key, row in draw(items, slots, **named).items()}


@pytest.mark.parametrize("solver", SOLVERS)
def test_denoise_conforms(solver: str) -> None:
    edits = {"guidance": 3.0, "label": 1, "solver": "heun", "renoise": torch.zeros(1, 8, 8)}
    check_lane_process(
        lambda slots: Denoise(TinyDenoiser(), slots=slots, steps=7, solver=solver, guidance=2.0),
        ITEMS,
        steps=7,
        edits=edits,
    )


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m"])
def test_an_image_is_the_same_in_every_batch_and_order(solver: str) -> None:
    items = {f"item {n}": n % 3 for n in range(17)}
    expected = images(items, 1, solver=solver, guidance=1.5)
    keys = random.Random(0).sample(list(items), len(items))
    for slots in (4, 16):
        for order in (list(items), keys):
            found = images({k: items[k] for k in order}, slots, solver=solver, guidance=1.5)
            assert all(torch.equal(found[key], expected[key]) for key in items)


@pytest.mark.parametrize("solver", ["ddpm", "heun", "dpmpp_2m"])
def test_lanes_of_every_kind_change_no_bit_of_each_other(solver: str) -> None:
    image = torch.linspace(-1, 1, 64).view(1, 8, 8)
    mask = (torch.arange(64) % 3 == 0).view(8, 8)
    items: dict[str, object] = {
        **ITEMS,
        "between": {"label": 1, "seed": 3, "interpolate_to": 9, "share": 0.4},
        "varied": {"label": 1, "image": image, "strength": 0.5},
        "painted": {"image": image, "mask": mask},
        "part": {"label": 2, "image": image, "mask": mask, "strength": 0.7},
    }
    settings: dict[str, Any] = {
        "steps": 8,
        "solver": solver,
        "guidance": 2.0,
        "guidance_interval": (0.2, 3.0),
    }
    alone = images(items, 1, **settings)
    for slots in (3, 16):
        together = images(items, slots, **settings)
        assert all(torch.equal(together[key], alone[key]) for key in items)


def test_edits_of_later_positions_apply_beside_other_lanes() -> None:
    image = torch.linspace(-1, 1, 64).view(1, 8, 8)
    waiting = Timeline(((2, {"guidance": 3.0}), (4, {"solver": "heun"}), (5, {"renoise": image})))

    def seen(*others: str) -> list[Tensor]:
        process = Denoise(TinyDenoiser(), steps=7, solver="ddpm")
        process.start(Lane("x", edits=waiting), 1)
        for key in others:
            process.start(Lane(key), 2)
        reports: list[Any] = [process.step()["x"] for _ in range(7)]
        assert [report["calls"] for report in reports] == [1, 1, 2, 2, 4, 4, 2]
        return [report[name] for report in reports for name in ("noisy", "clean")]

    pairs = zip(seen(), seen("y", "z"), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_seed_decides_an_image_whatever_its_key() -> None:
    found = images({"a": {"seed": 3, "label": 1}, "b": {"seed": 3, "label": 1}, "c": {"seed": 4}})
    assert torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], found["c"])


def test_a_lane_that_converges_leaves_with_its_clean_prediction() -> None:
    rows = draw({"a": 0, "b": 1}, each=Converges("change", 0.05, over=2), steps=60, solver="euler")
    for row in rows.values():
        assert row["stopped"]["kind"] == "converged"
        assert row["length"] < 60
        assert row["spent"]["calls"] == row["length"]


def test_guidance_costs_a_second_call_and_moves_the_image() -> None:
    plain, guided = draw({"a": 0}, steps=5), draw({"a": 0}, steps=5, guidance=2.0)
    assert plain["a"]["spent"]["calls"] == 5
    assert guided["a"]["spent"]["calls"] == 10
    assert not torch.equal(plain["a"]["output"], guided["a"]["output"])
    assert draw({"a": None}, steps=5, guidance=2.0)["a"]["spent"]["calls"] == 5


def test_guidance_acts_within_its_interval_of_noise_levels() -> None:
    sigmas, guided = (9.0, 3.0, 1.0, 0.0), (0.5, 4.0)
    everywhere = draw({"a": 1}, sigmas=sigmas, guidance=3.0)["a"]
    within = draw({"a": 1}, sigmas=sigmas, guidance=3.0, guidance_interval=guided)["a"]
    plain = draw({"a": 1}, sigmas=sigmas)["a"]
    assert [row["spent"]["calls"] for row in (plain, within, everywhere)] == [3, 5, 6]
    heun = draw({"a": 1}, sigmas=sigmas, guidance=3.0, guidance_interval=guided, solver="heun")["a"]
    assert heun["spent"]["calls"] == 1 + 2 + 2 + 2 + 2
    nowhere = draw({"a": 1}, sigmas=sigmas, guidance=3.0, guidance_interval=(4.0, 5.0))["a"]
    assert torch.equal(nowhere["output"], plain["output"])
    assert not torch.equal(within["output"], plain["output"])
    with pytest.raises(InputError, match="guidance_interval must be two noise levels"):
        Denoise(TinyDenoiser(), guidance_interval=(2.0, 1.0))


def test_heun_calls_twice_but_for_its_last_step() -> None:
    assert draw({"a": 0}, steps=5, solver="heun")["a"]["spent"]["calls"] == 9


def test_inpainting_keeps_what_is_not_masked() -> None:
    image = torch.full((1, 8, 8), 0.25)
    mask = torch.zeros(8, 8)
    mask[2:5, 2:5] = 1
    found = images({"a": {"image": image, "mask": mask, "label": 0}}, steps=6)["a"]
    assert torch.equal(found[:, mask == 0], image[:, mask == 0])
    assert not torch.equal(found[:, mask == 1], image[:, mask == 1])


def test_a_weaker_variation_takes_fewer_steps_and_stays_nearer() -> None:
    image = torch.linspace(-1, 1, 64).view(1, 8, 8)
    weak, strong = (
        draw({"a": {"image": image.tolist(), "strength": strength, "seed": 1}}, steps=10)["a"]
        for strength in (0.2, 1.0)
    )
    assert (weak["length"], strong["length"]) == (2, 10)
    assert (weak["output"] - image).norm() < (strong["output"] - image).norm()


def test_interpolation_goes_from_one_seed_to_the_other() -> None:
    found = images(
        {str(share): {"seed": 1, "interpolate_to": 2, "share": share} for share in (0.0, 0.5, 1.0)}
        | {"one": {"seed": 1}, "two": {"seed": 2}}
    )
    torch.testing.assert_close(found["0.0"], found["one"])
    torch.testing.assert_close(found["1.0"], found["two"])
    assert not torch.allclose(found["0.5"], found["one"], atol=1e-3)
    a, b = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    assert float(slerp(a, b, 0.5).std()) == pytest.approx(1.0, abs=0.1)


def test_renoising_continues_from_the_image_with_new_noise() -> None:
    process = Denoise(TinyDenoiser(), steps=8, solver="euler")
    process.start(Lane("a"), 0)
    for _ in range(8):
        process.step()
    first = process.output("a")
    process.rewind(Lane("a", backtracks=1, edits=Timeline().added(6, {"renoise": first})), 6)
    report = process.step()["a"]
    assert report["step"] == 7
    process.step()
    again = process.output("a")
    assert not torch.equal(first, again)
    assert (first - again).norm() < first.norm()


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_an_edit_that_was_left_for_a_later_position_waits_for_it(solver: str) -> None:
    """Driven directly, a lane may go back with edits of positions after that: nothing is lost."""
    image = torch.full((1, 8, 8), 0.5)
    left = Timeline().added(4, {"renoise": image})

    def on(process: Denoise, count: int) -> list[Any]:
        return [process.step()["a"]["noisy"] for _ in range(count)]

    back = Denoise(TinyDenoiser(), steps=8, solver=solver)
    back.start(Lane("a"), 0)
    on(back, 6)
    back.rewind(Lane("a", backtracks=1, edits=left), 2)
    there = Denoise(TinyDenoiser(), steps=8, solver=solver)
    there.start(Lane("a"), 0)
    before = on(there, 2)
    fresh = Denoise(TinyDenoiser(), steps=8, solver=solver)
    past = tuple({"noisy": x, "clean": c} for x, c in zip(before, denoised(there), strict=True))
    fresh.start(Lane("a", backtracks=1, edits=left, past=past), 0)
    went, started = on(back, 6), on(fresh, 6)
    assert all(torch.equal(a, b) for a, b in zip(went, started, strict=True))
    plain = on(there, 6)
    assert torch.equal(went[1], plain[1]) and not torch.equal(went[2], plain[2])
    at = Denoise(TinyDenoiser(), steps=8, solver=solver)
    at.start(Lane("a"), 0)
    on(at, 4)
    at.rewind(Lane("a", backtracks=1, edits=left), 4)
    assert torch.equal(on(at, 4)[-1], went[-1])


def denoised(process: Denoise) -> list[Tensor]:
    return list(process._slots["a"].denoised)


def test_a_report_holds_noise_levels_and_both_images() -> None:
    process = Denoise(TinyDenoiser(), steps=4, solver="euler")
    process.start(Lane("a"), 0)
    levels = karras_sigmas(4, 0.05, 10.0)
    for step in range(4):
        report = process.step()["a"]
        assert (report["step"], report["sigma"], report["sigma_next"]) == (
            step + 1,
            levels[step],
            levels[step + 1],
        )
    noisy: Any = report["noisy"]
    clean: Any = report["clean"]
    assert torch.equal(noisy, clean)
    assert report["ended"] == "All 4 noise levels are done."
    assert process.step() == {}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("seven", "must be a class or a mapping of label, seed"),
        ({"lable": 7}, "must be label, seed.*got 'lable'.*mean 'label'"),
        ({"label": 3}, "label must be from 0 to 2, got 3"),
        ({"label": "1"}, "label must be from 0 to 2, got '1'"),
        ({"label": 1.5}, "label must be from 0 to 2, got 1.5"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"share": "x"}, "share must be a number, got 'x'"),
        ({"image": [[1.0]]}, r"image must have the shape \(1, 8, 8\), got \(1, 1\)"),
        ({"image": [["x"]]}, "image must be numbers of shape"),
        ({"mask": torch.ones(8, 8)}, "mask must come with image"),
        ({"strength": 0.5}, "strength must come with image"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"interpolate_to": 1}, "interpolate_to must come with seed"),
        ({"seed": 1, "interpolate_to": 2, "share": 2.0}, r"share must be in \[0, 1\], got 2"),
    ],
)
def test_a_request_that_cannot_be_sampled_is_set_aside(item: object, message: str) -> None:
    rows = draw({"good": 0, "bad": item}, steps=3)
    assert rows["good"]["stopped"]["kind"] == "ended"
    assert rows["bad"]["stopped"]["kind"] == "error"
    with pytest.raises(ItemError, match=message):
        Denoise(TinyDenoiser()).start(Lane("x"), item)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"label": 7}, "label must be from 0 to 2, got 7"),
        ({"guidance": "much"}, "guidance must be a finite number"),
        ({"solver": "fast"}, "A solver must be one of"),
        ({"renoise": [0.0]}, "renoise must have the shape"),
    ],
)
def test_a_wrong_edit_is_refused_and_changes_nothing(edit: Any, message: str) -> None:
    process = Denoise(TinyDenoiser(), steps=4)
    process.start(Lane("a"), 0)
    process.step()
    with pytest.raises(EditError, match=message):
        process.rewind(Lane("a", edits=Timeline().added(0, edit)), 0)
    assert process.step()["a"]["step"] == 2


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="must fall to a last 0"):
        Denoise(TinyDenoiser(), sigmas=(1.0, 2.0, 0.0))
    with pytest.raises(InputError, match="slots must be at least 1"):
        Denoise(TinyDenoiser(), slots=0)
    with pytest.raises(InputError, match="guidance must be a finite number"):
        Denoise(TinyDenoiser(), guidance=float("nan"))
