"""`ostinato train text` end to end on a small text: trains, resumes, adapts, refuses bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from tiny import CORPUS, save_tiny

from ostinato.cli.main import cli
from ostinato.cli.train.options import TrainingOptions
from ostinato.cli.train.progress import TrainingView
from ostinato.cli.train.settings import settings_of
from ostinato.errors import OstinatoError
from ostinato.journal import Journal, safe_name
from ostinato.journal.creation import SAFE_NAME
from ostinato.models import hash_parts, load_adapter, load_model
from ostinato.text import TextTrainingConfig, TextTrainingRun, prepare_text_training
from ostinato.train import TrainingConfig

SMALL = (
    "--layers 1 --width 16 --heads 2 --context 16 --vocab-size 270 --batch-tokens 128 "
    "--warmup-steps 2"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(" ".join(CORPUS) * 12)
    return tmp_path


def train(*words: str) -> Result:
    arguments = [part for word in words for part in word.split()]
    return CliRunner().invoke(cli, ["train", "text", *arguments])


def test_a_small_model_is_trained_saved_and_loaded(folder: Path) -> None:
    result = train("a.txt --out small --steps 12 --valid-every 4 --sample-every 12", SMALL)
    assert result.exit_code == 0, result.output
    assert "valid" in result.output and "It has taken 12 steps, the limit." in result.output
    model = load_model("small")
    assert model.llama().config.num_hidden_layers == 1
    assert model.tokenizer.decode(model.tokenizer.encode("We can")) == "We can"
    again = train("a.txt --out small --steps 12 --valid-every 4 --sample-every 12", SMALL)
    assert "The run is finished" in again.output


def test_a_training_is_not_recorded_where_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *mode: path != folder and access(path, *mode))
    result = train("a.txt --out small --steps 2 --valid-every 2", SMALL)
    assert result.exit_code == 0, result.output
    assert "Warning: Nothing is recorded" in result.stderr and "Saved in small." in result.output
    assert not (folder / ".ostinato").exists()


def test_a_training_that_diverged_fails_and_saves_no_broken_weights(folder: Path) -> None:
    wild = "a.txt --lr 1e30 --warmup-steps 0 --max-grad-norm 0 --steps 12"
    result = train(wild + " --out wild", SMALL)
    assert result.exit_code == 1 and "diverged again" in result.output
    assert "Went back to step 0, with lr_scale 0.25." in result.output
    assert "Nothing is saved" in result.output
    assert not (folder / "wild" / "model.safetensors").exists()


def test_samples_come_with_the_validations_by_default(folder: Path) -> None:
    result = train("a.txt --out small --steps 8 --valid-every 4", SMALL)
    assert result.output.count("\n  | ") >= 2
    none = train("a.txt --out small --steps 8 --valid-every 4 --sample-every 0 --fresh", SMALL)
    assert "\n  | " not in none.output


def test_a_fresh_run_is_planned_as_a_new_one(folder: Path) -> None:
    small = SMALL.replace("--warmup-steps 2", "")
    first, again = (
        train(f"a.txt --out small --epochs 1 {more}", small) for more in ("", "--fresh")
    )
    assert "Planned for this training: --steps" in first.output
    speed = re.compile(r"  \(.*tokens/s.*\)")
    assert speed.sub("", again.output) == speed.sub("", first.output)


@pytest.mark.parametrize("layout", ["llama", "qwen3"])
def test_transformers_loads_what_was_trained(folder: Path, layout: str) -> None:
    transformers = pytest.importorskip("transformers")
    train(f"a.txt --out small --steps 3 --tokenizer char --layout {layout}", SMALL)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder / "small"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / "small"))
    text = "We can help"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert model.config.hidden_size == 16 and model.config.model_type == layout
    tokens = torch.tensor([tokenizer(text)["input_ids"]])
    network = load_model(str(folder / "small"), dtype=torch.float32).llama()
    with torch.no_grad():
        torch.testing.assert_close(network.logits(network(tokens)), model(tokens).logits)


def test_a_network_may_have_its_own_head_and_start_at_zero(folder: Path) -> None:
    result = train("a.txt --out small --steps 1 --tokenizer char --untied --zero-init", SMALL)
    assert result.exit_code == 0, result.output
    network = load_model(str(folder / "small"), dtype=torch.float32).llama()
    assert not torch.equal(network.lm_head.weight, network.model.embed_tokens.weight)
    grown = [block.mlp.down_proj.weight.detach().abs().max() for block in network.blocks()]
    assert max(map(float, grown)) <= 0.01  # of one step, in which its rate is low
    for option in ("--untied", "--zero-init"):
        refused = train(f"a.txt --out other --from smollm2 {option}")
        assert f"{option} makes a transformer from scratch" in str(refused.exception)


def test_a_layout_is_of_a_network_from_scratch(folder: Path) -> None:
    for words in ("--from smollm2", "--kind gru"):
        result = train(f"a.txt --out small --layout qwen3 {words}")
        assert "--layout qwen3 makes a transformer from scratch" in str(result.exception)


def test_a_run_in_two_parts_equals_one_in_one(folder: Path) -> None:
    whole = train("a.txt --out whole --until Steps(14) --ema-decay 0.9", SMALL)
    assert whole.exit_code == 0, whole.output
    for limit in (5, 14):
        part = train(f"a.txt --out parts --until Steps({limit}) --ema-decay 0.9", SMALL)
        assert part.exit_code == 0, part.output
    assert "Resuming from step 5" in part.output
    a, b = load_file("whole/model.safetensors"), load_file("parts/model.safetensors")
    assert all(a[name].equal(b[name]) for name in a)


def test_an_adapter_is_tuned_on_dialogues(folder: Path) -> None:
    save_tiny(folder / "base")
    line = (
        '{"messages": [{"role": "user", "content": "Where?"},'
        ' {"role": "assistant", "content": "Here."}]}\n'
    )
    (folder / "d.jsonl").write_text(line * 12)
    result = train(
        "d.jsonl --from base --lora-rank 2 --out tuned --steps 8 --valid-every 4 --lr 0.01"
    )
    assert result.exit_code == 0, result.output
    model = load_model("base")
    load_adapter(model.llama(), "tuned")
    merged = train(
        "d.jsonl --from base --lora-rank 2 --merge --out merged --steps 2 --warmup-steps 1"
    )
    assert merged.exit_code == 0, merged.output
    assert load_model("merged").config == model.config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("missing.txt --out x", "missing.txt must exist"),
        ("a.txt --out x --lora-rank 4", "--lora-rank needs a model to adapt"),
        ("a.txt --out x --context 99999 --layers 1", "context must be shorter than the text"),
        ("a.txt --out x --vocab-size 9", "vocab_size must be at least 257"),
        ("a.txt --out x --until Stepz(3)", "Did you mean 'Steps'"),
        ("a.txt --out x --lr 0", "lr must be above 0"),
        ("a.txt --out x --from nowhere", "got 'nowhere'"),
        ("a.txt --out x --heads 3", "width must be heads times an even number"),
        ("a.txt --out x --heads 0", "heads must be at least 1, got 0"),
        ("a.txt --out x --merge", "Give its rank with --lora-rank"),
        ("a.txt --out empty.txt", "--out must be a folder, got the file"),
        ("empty.txt --out x", "must hold text, got an empty file"),
    ],
)
def test_bad_input_is_refused_before_any_work(folder: Path, words: str, message: str) -> None:
    (folder / "empty.txt").write_text(" ")
    result = train(words)
    assert isinstance(result.exception, OstinatoError)
    assert message in str(result.exception)
    assert not (folder / "x").exists()


def test_a_run_with_other_settings_is_refused_unless_fresh(folder: Path) -> None:
    assert train("a.txt --out small --steps 2", SMALL).exit_code == 0
    changed = train("a.txt --out small --steps 2 --lr 0.5", SMALL)
    assert "but --lr was 0.001, is 0.5. " in str(changed.exception)
    assert train("a.txt --out small --steps 2 --lr 0.5 --fresh", SMALL).exit_code == 0


def rates(name: str) -> list[Any]:
    with Journal() as journal:
        return [step.report["lr"] for step in journal.get(name).steps()]


def test_a_higher_limit_keeps_the_planned_rate(folder: Path) -> None:
    first = train("a.txt --out small --epochs 1", SMALL)
    assert first.exit_code == 0, first.output
    planned = rates("train-small")
    more = train("a.txt --out small --epochs 2", SMALL)
    assert more.exit_code == 0 and f"Resuming from step {len(planned)}." in more.output
    again = rates("train-small")
    assert again[: len(planned)] == planned and len(again) == 2 * len(planned)
    config = TrainingConfig(steps=len(planned), warmup_steps=2)
    assert again == [config.lr_schedule().at(step) for step in range(len(again))]
    assert "The run is finished" in train("a.txt --out small --epochs 2", SMALL).output


def test_seconds_end_any_training_and_plan_its_rate_by_the_measured_speed(folder: Path) -> None:
    first = train("a.txt --out small --seconds 0.3", SMALL)
    assert first.exit_code == 0 and "Saved in small" in first.output, first.output
    with Journal() as journal:
        spec: Any = journal.get("train-small").spec
    recorded = spec["config"]["training"]
    config = TrainingConfig(steps=recorded["steps"], warmup_steps=2)
    taken = rates("train-small")
    assert taken == [config.lr_schedule().at(step) for step in range(len(taken))]
    assert train("a.txt --out small --seconds 0.6", SMALL).exit_code == 0
    again = rates("train-small")
    assert again == [config.lr_schedule().at(step) for step in range(len(again))]


def test_more_steps_resume_and_plan_another_rate(folder: Path) -> None:
    assert train("a.txt --out small --steps 4", SMALL).exit_code == 0
    more = train("a.txt --out small --steps 8", SMALL)
    assert more.exit_code == 0 and "Resuming from step 4." in more.output
    config = TrainingConfig(steps=8, warmup_steps=2)
    assert rates("train-small")[4:] == [config.lr_schedule().at(step) for step in range(4, 8)]


def test_a_training_that_was_stopped_from_outside_says_that_it_stays_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(view: object, position: int, report: object, note: str = "") -> None:
        with Journal() as journal:
            journal.request(journal.get("train-small"), "stop")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingView, "_say_step", stop)
        patch.setattr(TrainingView, "_say_last", print)
        stopped = train("a.txt --out small --until Steps(5000) --valid-every 5000", SMALL)
    assert stopped.exit_code == 0, stopped.output
    assert "It was asked to stop from outside." in stopped.output
    assert "It stays stopped." in stopped.output and "the same command" not in stopped.output
    again = train("a.txt --out small --until Steps(5000) --valid-every 5000", SMALL)
    assert "The run is finished: It was asked to stop from outside." in again.output


def test_rows_whose_completion_is_cut_off_are_left_out_and_reported(folder: Path) -> None:
    long, short = "The reply to your message is here. " * 9, "Yes?"
    rows = [{"prompt": p, "completion": " No."} for p in [short, long, short, long] + [short] * 9]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = train("rows.jsonl --out small --steps 2", SMALL)
    assert result.exit_code == 0, result.output
    assert "2 rows are left out: within 16 tokens no token counts" in result.output
    assert "(first: rows.jsonl, row 2)" in result.output
    assert "10 examples to train on, 1 to validate with" in result.output
    Path("rows.jsonl").write_text(json.dumps(rows[1]) + "\n")
    nothing = train("rows.jsonl --out other --steps 2", SMALL)
    assert "rows.jsonl must hold something that counts within 16 tokens" in str(nothing.exception)


def test_the_output_must_not_be_the_model_that_it_starts_from(folder: Path) -> None:
    save_tiny(folder / "base")
    before = (folder / "base" / "model.safetensors").read_bytes()
    result = train("a.txt --from base --out ./base --steps 1")
    assert "--out must be another folder than --from" in str(result.exception)
    assert (folder / "base" / "model.safetensors").read_bytes() == before


def test_the_options_are_made_of_the_settings() -> None:
    assert list(settings_of(TrainingConfig, {})) == [
        spec.name for spec in dataclasses.fields(TrainingConfig)
    ]
    output = CliRunner().invoke(cli, ["train", "text", "--help"]).output
    assert "--optimizer [adamw|muon]" in output and "[default: 4096]" in output


def test_moving_the_border_between_two_files_is_another_training(folder: Path) -> None:
    text = (folder / "a.txt").read_text()
    split = len(text) * 2 // 3

    def run(border: int) -> Result:
        (folder / "t.txt").write_text(text[:border])
        (folder / "v.txt").write_text(text[border:])
        return train("t.txt --valid v.txt --out small --steps 2", SMALL)

    assert run(split).exit_code == 0
    assert "but the hash of the data was" in str(run(split + 40).exception)
    assert "The run is finished" in run(split).output


@pytest.mark.parametrize("names", [("ab", "c"), ("a", "bc"), ("abc",), ("abc", "")])
def test_parts_have_another_hash_where_a_border_moves(names: tuple[str, ...]) -> None:
    others = {("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc")} - {names}
    assert hash_parts(names) not in {hash_parts(other) for other in others}
    assert hash_parts(names) == hash_parts([name.encode() for name in names])


def test_the_ending_of_a_file_and_the_weights_to_start_from_belong_to_a_training(
    folder: Path,
) -> None:
    save_tiny(folder / "tiny")
    text = "".join(json.dumps({"text": f"{line} {n}"}) + "\n" for n, line in enumerate(CORPUS))
    (folder / "a.jsonl").write_text(text)
    (folder / "b.txt").write_text(text)

    def hashes(name: str, start: str | None = None) -> Any:
        settings = TextTrainingConfig(files=(folder / name,), start=start, context=16)
        return prepare_text_training(TextTrainingRun(out=folder / "out", text=settings)).hashes

    rows = hashes("a.jsonl")
    assert rows["data"] != hashes("b.txt")["data"] and not rows["weights"]
    before = hashes("a.jsonl", str(folder / "tiny"))
    assert before["data"] == rows["data"] and before["weights"]
    config = folder / "tiny" / "config.json"
    config.write_text(config.read_text() + " ")
    assert hashes("a.jsonl", str(folder / "tiny"))["weights"] != before["weights"]


@pytest.mark.parametrize(
    ("where", "text", "message"),
    [
        ("t.txt", "", "t.txt must hold text, got an empty file"),
        ("t.txt", "short", "got 16 for t.txt, which has 5 tokens"),
        ("v.txt", "a", "v.txt must have at least 2 tokens, got 1"),
        ("v.txt", "short", "got 16 for v.txt, which has 5 tokens"),
        ("v.txt", "éé the ü", r"v.txt: The text must have .* got 2 others: 'é' \(2 times\), 'ü'"),
    ],
)
def test_files_that_cannot_be_learned_from_are_refused_by_name(
    folder: Path, where: str, text: str, message: str
) -> None:
    for name in ("t.txt", "v.txt"):
        (folder / name).write_text(" ".join(CORPUS))
    (folder / where).write_text(text)
    result = train("t.txt --valid v.txt --tokenizer char --out small --steps 2", SMALL)
    assert re.search(message, str(result.exception)), result.exception
    assert not (folder / "small").exists()


def test_prompts_with_characters_that_a_model_does_not_know_are_refused(folder: Path) -> None:
    (folder / "t.txt").write_text("abcd " * 60)
    assert train("t.txt --tokenizer char --out small --steps 2", SMALL).exit_code == 0
    result = CliRunner().invoke(cli, ["generate", "ab xyz", "--model", "small", "--plain"])
    assert result.exit_code == 1
    assert "got 3 others: 'x' (1 time), 'y' (1 time), 'z' (1 time)" in result.output


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏" * 12, "天地玄黄宇宙洪荒"),
        ("onewordwithoutspaces" * 20, "onewrdithutspac"),
        ("a line\n" * 40, "a line"),
    ],
)
def test_samples_begin_with_something_of_the_corpus(folder: Path, text: str, known: str) -> None:
    (folder / "t.txt").write_text(text)
    result = train("t.txt --tokenizer char --out small --steps 4 --sample-every 4", SMALL)
    assert result.exit_code == 0, result.output
    sample = next(line for line in result.output.splitlines() if line.startswith("  | "))
    assert set(sample.removeprefix("  | ")) & set(known), sample


def test_a_sample_of_dialogues_answers_a_held_out_one(folder: Path) -> None:
    save_tiny(folder / "tiny")
    (folder / "d.jsonl").write_text(
        "".join(dialogue(f"Question {i}?", "We can.") for i in range(9))
    )
    result = train("d.jsonl --from tiny --lora-rank 2 --out mine --steps 2 --sample-every 2")
    assert result.exit_code == 0, result.output
    assert "  | user\n  | Question 8?" in result.output and "assistant => " in result.output


def dialogue(question: str, answer: str) -> str:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return json.dumps({"messages": messages}) + "\n"


@pytest.mark.parametrize(
    "out", ["my model", "modèle", ".", "..", "x" * 100, "deep/er/", "-x", ".x", "模型", "a\nb"]
)
def test_any_output_folder_gives_a_run_a_name_that_resumes(folder: Path, out: str) -> None:
    (folder / "in" / "inner").mkdir(parents=True)
    names = set()
    with chdir(folder / "in" / "inner"):
        for _ in range(2):
            names.add(TrainingOptions(out=Path(out)).name)
    (name,) = names
    assert SAFE_NAME.fullmatch(name), name


def test_two_folders_never_share_a_derived_name() -> None:
    texts = [
        "my model",
        "my_model",
        "my-model",
        "my  model",
        "mÿ model",
        "",
        "/",
        "é",
        "e",
        "x" * 101,
    ]
    texts += ["x" * 102, "x" * 100 + "y"]
    assert len({safe_name(text) for text in texts}) == len(texts)
    assert safe_name("train-small") == "train-small"


def test_a_training_that_ends_between_validations_is_validated_and_says_what_it_saves(
    folder: Path,
) -> None:
    ended = train("a.txt --out small --steps 100 --until Steps(7) --valid-every 5", SMALL)
    assert ended.exit_code == 0, ended.output
    (last,) = re.findall(r"step +7  valid (\d+\.\d+)  \(the last step\)", ended.output)
    saved = f"These are the weights of step 7, the last, with the best validation, {last}."
    assert saved in ended.output
    assert saved in train("a.txt --out small --steps 100 --until Steps(7)", SMALL).output
    # What was validated at the end is no part of the run: more steps are those of one longer run.
    train("a.txt --out small --steps 100 --until Steps(9) --valid-every 5", SMALL)
    train("a.txt --out whole --steps 100 --until Steps(9) --valid-every 5", SMALL)
    one, two = (load_file(folder / name / "model.safetensors") for name in ("small", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_the_best_weights_are_named_where_the_last_are_worse(folder: Path) -> None:
    wild = "a.txt --lr 0.5 --warmup-steps 0 --schedule constant --valid-every 1"
    result = train(f"{wild} --out small --steps 12", SMALL)
    losses = {int(s): v for s, v in re.findall(r"step +(\d+) .* valid (\d+\.\d+)", result.output)}
    best = min(losses, key=lambda step: float(losses[step]))
    assert best < 12 and f"the weights of step {best} with the best" in result.output


def test_few_data_have_more_batches_a_shorter_warm_up_and_validations(folder: Path) -> None:
    save_tiny(folder / "tiny")
    rows = (dialogue(f"Number {i}?", f"It is {i}.") for i in range(50))
    (folder / "d.jsonl").write_text("".join(rows))
    result = train("d.jsonl --from tiny --lora-rank 2 --epochs 3 --out mine")
    assert result.exit_code == 0, result.output
    with Journal() as journal:
        spec: Any = journal.get("train-mine").spec
        config = spec["config"]["training"]
        steps = list(journal.get("train-mine").steps())
    assert 30 <= config["steps"] <= 48
    assert config["warmup_steps"] == config["steps"] // 10
    assert sum("loss/valid" in step.report for step in steps) >= 4
    assert max(step.report["lr"] for step in steps) == pytest.approx(1e-3)
    assert "Planned for this training: --steps" in result.output
    # The plan is recorded: more epochs resume it, and nothing has to be typed.
    assert (
        "Resuming from step"
        in train("d.jsonl --from tiny --lora-rank 2 --epochs 4 --out mine").output
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 4 --warmup-steps 9", "warmup_steps must be at most the 4 steps of the plan"),
        ("--steps 99 --until Steps(3)", "All 3 steps were in the warm-up of 9"),
    ],
)
def test_a_plan_that_never_gets_to_the_peak_is_told(folder: Path, words: str, message: str) -> None:
    result = train(f"a.txt --out small {SMALL}".replace("--warmup-steps 2", ""), words)
    assert result.exit_code == 0 and message in result.output


@pytest.mark.parametrize("tokens", [1, 16])
def test_a_batch_without_room_for_an_example_is_refused(folder: Path, tokens: int) -> None:
    small = SMALL.replace("--batch-tokens 128", f"--batch-tokens {tokens}")
    result = train("a.txt --out small --steps 2", small)
    assert "--batch-tokens must be at least 17, the length of the shortest" in str(result.exception)
