"""A model as a judge: its score is P(yes) of yes and no, in this process and on a server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_server import Faults, serving
from lane_rows import lane_rows
from tiny import save_tiny, tiny_model

from ostinato.checks import Judge, Length, check_prefix_all, from_spec, judge_all, to_spec
from ostinato.checks.judge.check import LocalJudge
from ostinato.checks.judge.server import ask_server, share_of_yes
from ostinato.errors import InputError, ModelError
from ostinato.journal import StopKind
from ostinato.loop import Budget, LaneResult, Verdict
from ostinato.refine.refine import Refine
from ostinato.refine.report.summary import summarize
from ostinato.refine.results import from_lane
from ostinato.refine.strategies.base import Abort, Resample, Strategy
from ostinato.refine.strategies.steering import BestOf
from ostinato.remote import Server

QUESTION = "Is {output} an answer to {message}? Answer with yes or no."
ITEM = {"message": "Where?"}


def test_the_score_is_the_share_of_yes_of_the_first_token() -> None:
    model = tiny_model()
    judge = LocalJudge(model)
    tokens = model.tokenizer.chat([{"role": "user", "content": "Is it so?"}])
    with torch.no_grad():
        hidden = model.llama()(torch.tensor([tokens]))[0, -1]
        probs = model.llama().lm_head(hidden).float().softmax(-1)
    yes, no = judge.answers
    wanted = float(probs[yes].sum() / (probs[yes].sum() + probs[no].sum()))
    assert judge.ask("Is it so?").yes == pytest.approx(wanted, rel=1e-3)
    assert 0 < wanted < 1
    assert judge.ask("Is it so?").tokens == len(tokens)


def test_the_same_question_has_the_same_bits_whatever_was_asked_before() -> None:
    judge = LocalJudge(tiny_model())
    first = judge.ask("Is the table booked?")
    judge.ask("The reply to your message is here. " * 4)
    assert judge.ask("Is the table booked?") == first
    assert LocalJudge(tiny_model()).ask("Is the table booked?") == first


def test_a_folders_model_judges_whole_texts_and_says_what_to_fix(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path / "tiny"))
    check = Judge(question=QUESTION, model=folder, min=1e-6)
    (verdict,) = judge_all([check], "Here.", ITEM)
    assert verdict.passed and 0 < verdict.score < 1 and not verdict.message
    strict = Judge(question=QUESTION, model=folder, min=1.0, fix="Say where.")
    (again,) = judge_all([strict], "Here.", ITEM)
    assert not again.passed and again.score == verdict.score
    assert again.message.startswith("Say where. (The judge's yes is 0.")
    assert check_prefix_all([strict], "He", ITEM) is None
    (other,) = judge_all([check], "There.", ITEM)
    assert other.score != verdict.score
    (long,) = judge_all([check], "word " * 400, ITEM)
    assert "must have at most 256 tokens" in long.error


def judged_refine(folder: Path, strategy: Strategy, **settings: Any) -> tuple[Refine, Judge]:
    check = Judge(question=QUESTION, model=str(save_tiny(folder / "tiny")), min=1.0)
    items = [{"message": "Where?"}, {"message": "When?"}]
    words: dict[str, Any] = {"prompt": "{message}", "max_new_tokens": 6, **settings}
    return Refine(tiny_model(), items, checks=[check], strategy=strategy, **words), check


def test_what_a_judge_reads_is_spent_by_the_item_and_by_the_job(tmp_path: Path) -> None:
    refine, check = judged_refine(tmp_path, Resample(rounds=2))
    rows: list[Any] = lane_rows(refine)
    for row in rows:
        verdicts = [
            check.judge(attempt["text"], {"message": "Where?" if row["index"] == 0 else "When?"})
            for attempt in row["attempts"]
        ]
        assert row["spent"]["judged"] == sum(verdict.spent["judged"] for verdict in verdicts) > 40
        drawn = sum(attempt["position"] for attempt in row["attempts"])
        assert row["spent"]["tokens"] == drawn + row["spent"]["judged"]
        assert from_lane(LaneResult.from_json(row)).tokens.judged == row["spent"]["judged"]
    total = sum(row["spent"]["judged"] for row in rows)
    assert refine.lanes.spent["judged"] == total
    assert summarize([from_lane(LaneResult.from_json(row)) for row in rows]).tokens_judged == total


def test_what_a_judge_reads_counts_in_the_budgets(tmp_path: Path) -> None:
    whole, _ = judged_refine(tmp_path / "1", Resample(rounds=4))
    loop = whole.loop(until=Budget("tokens", 40))  # 6 for each draft, and the question
    loop.run()
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert whole.lanes.spent["tokens"] < 200
    each, _ = judged_refine(tmp_path / "2", Resample(rounds=4), tokens=30)
    for row in lane_rows(each):
        stopped: Any = row["stopped"]
        assert (
            row["rounds"] == 1 and "tokens have been spent; the limit is 30" in stopped["sentence"]
        )


def test_what_a_judge_reads_within_a_group_is_spent_too(tmp_path: Path) -> None:
    refine, _ = judged_refine(tmp_path, BestOf(n=2, parallel=2, rounds=1), slots=2)
    rows: list[Any] = lane_rows(refine)
    for row in rows:
        in_vain = sum(verdict["tokens"] for verdict in row["verdicts"])
        assert row["spent"]["judged"] > 2 * in_vain  # each draft, and the chosen one once more


def test_a_judge_goes_through_a_jobs_table_and_names_its_columns() -> None:
    check = from_spec("judge", {"question": QUESTION, "min": 0.7, "fix": "Say where."})
    assert check == Judge(question=QUESTION, min=0.7, fix="Say where.")
    assert check.columns == ("message",)
    assert from_spec("", to_spec(check)) == check


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "The check 'judge' must have 'question'"),
        ({"question": "Is it good?"}, r"'question' .* must be a text with \{output\} in it"),
        ({"question": "{output}{"}, "'question' of the check 'judge': A brace in a template"),
        (
            {"question": QUESTION, "model": "http://#m"},
            "'model' of the check 'judge': url must be",
        ),
        ({"question": QUESTION, "min": 0.0}, r"'min' .* must be in \(0, 1\], got 0"),
        ({"question": QUESTION, "model": "http://127.0.0.1:1/v1"}, "must be URL#MODEL for a"),
        ({"question": QUESTION, "key_env": "KEY"}, "'key_env' .* must be left out without a serv"),
    ],
)
def test_a_wrong_judge_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_spec("judge", table)


def test_a_missing_model_or_key_is_reported_before_the_judge_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"config\.json must exist"):
        Judge(question=QUESTION, model=str(tmp_path)).prepare()
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(InputError, match="NO_KEY must hold the key"):
        Judge(question=QUESTION, model="http://127.0.0.1:9/v1#m", key_env="NO_KEY").prepare()
    Judge(question=QUESTION, model=str(save_tiny(tmp_path / "tiny"))).prepare()


def test_spellings_of_yes_and_no_add_up() -> None:
    assert share_of_yes({"Yes": -1.0, " yes": -1.0, "NO": -1.0, "Maybe": 0.0}) == pytest.approx(
        2 / 3
    )
    with pytest.raises(InputError, match="must answer with yes or no, got neither"):
        share_of_yes({"Perhaps": -0.1})


# Servers ----------------------------------------------------------------------------------------


@contextmanager
def answering(content: Mapping[str, Any], bodies: list[Any]) -> Iterator[str]:
    """Serve one choice to every request."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            sent = json.dumps({"choices": [content]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1#some"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_servers_most_likely_tokens_are_weighed() -> None:
    likely = [{"token": "No", "logprob": -1.2}, {"token": "Yes", "logprob": -0.2}]
    choice = {
        "message": {"content": "No."},
        "logprobs": {"content": [{"token": "No", "logprob": -1.2, "top_logprobs": likely}]},
    }
    bodies: list[Any] = []
    with answering(choice, bodies) as url:
        (verdict,) = judge_all([Judge(question=QUESTION, model=url)], "Here.", ITEM)
    assert verdict.score == pytest.approx(1 / (1 + 2.718281828**-1))
    (body,) = bodies
    assert (
        verdict.spent["judged"] == 1 + len(body["messages"][0]["content"]) // 4
    )  # it sent no usage
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert body["model"] == "some" and body["top_logprobs"] == 10
    assert body["messages"][0]["content"].startswith("Is Here. an answer to Where?")


def test_doubled_braces_are_plain_ones() -> None:
    bodies: list[Any] = []
    with answering({"message": {"content": "Yes."}}, bodies) as url:
        check = Judge(question='Is "{output}" like {{"a": {n}}}?', model=url)
        (verdict,) = judge_all([check], "{n}", {"n": 3})
    assert verdict.passed
    assert bodies[0]["messages"][0]["content"] == 'Is "{n}" like {"a": 3}?'


@pytest.mark.parametrize(("said", "score"), [("Yes, it is.", 1.0), ("no", 0.0)])
def test_the_first_word_counts_without_log_probabilities(said: str, score: float) -> None:
    with serving(Faults(writes=lambda body: said, logprobs=False)) as url:
        (verdict,) = judge_all([Judge(question=QUESTION, model=f"{url}#m")], "Here.", ITEM)
    assert (verdict.score, verdict.error) == (score, "")


def test_transient_failures_are_retried_and_others_reported() -> None:
    check = "Answer with yes or no: {output}"
    faults = Faults(writes=lambda body: "Yes")
    faults.script.extend([(503, {}), None])
    with serving(faults) as url:
        (verdict,) = judge_all([Judge(question=check, model=f"{url}#m")], "Here.", {})
        assert verdict.passed and len(faults.bodies) == 2
        faults.script.append((401, {}))
        (refused,) = judge_all([Judge(question=check, model=f"{url}#m")], "Here.", {})
        assert "It answered 401: As told." in refused.error
        faults.script.append((400, {}))  # it knows no log-probabilities
        (plain,) = judge_all([Judge(question=check, model=f"{url}#m")], "Here.", {})
        assert plain.passed and "logprobs" not in faults.bodies[-1]
        faults.writes = lambda body: "Perhaps"
        (neither,) = judge_all([Judge(question=check, model=f"{url}#m")], "Here.", {})
        assert "must answer with yes or no" in neither.error
        assert neither.spent["tokens"] > 1 and not neither.passed  # it was paid for


def test_a_wait_that_the_server_demands_is_kept_or_ends_the_judgment() -> None:
    check = "Answer with yes or no: {output}"
    faults = Faults(writes=lambda body: "Yes")
    faults.script.extend([(429, {"Retry-After": "0.6"}), None, (429, {"Retry-After": "60"})])
    with serving(faults) as url:
        judge = Judge(question=check, model=f"{url}#m")
        (verdict,) = judge_all([judge], "Here.", {})
        assert verdict.passed and faults.times[1] - faults.times[0] >= 0.6
        (late,) = judge_all([judge], "Here.", {})
    assert "It answered 429: As told." in late.error and len(faults.bodies) == 3


def test_a_key_that_the_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with serving(Faults(key="another")) as url, pytest.raises(InputError, match="401") as refused:
        ask_server(Server.of(f"{url}#m", key_env="JUDGE_KEY"), "Is it?")
    assert "Incorrect API key" in str(refused.value) and "secret" not in str(refused.value)


def test_a_judge_on_a_server_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from ostinato.checks import Judge\n"
        "verdict = Judge(question='{output}?', model='http://127.0.0.1:9/v1#m')\n"
        "try: verdict.judge('a', {})\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "must answer, got an error from http://127.0.0.1:9/v1" in done.stdout


def test_a_servers_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    check = {"question": "Yes or no: {output}", "key_env": "JUDGE_KEY"}
    with serving(Faults(writes=lambda body: "Yes", key="secret")) as url:
        judge = from_spec("judge", {**check, "model": f"{url}#m"})
        (missing,) = judge_all([judge], "a", {})
        assert f"JUDGE_KEY must hold the key of {url}, got nothing" in missing.error
        monkeypatch.setenv("JUDGE_KEY", "secret")
        (verdict,) = judge_all([judge], "a", {})
    assert verdict.passed


def test_a_key_of_two_lines_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-first\nsk-SECRET")
    with pytest.raises(InputError, match="in one line of ASCII") as refused:
        ask_server(Server.of("http://127.0.0.1:9/v1#m", key_env="JUDGE_KEY"), "Is it?")
    assert "SECRET" not in str(refused.value)


def test_a_redirect_is_not_followed_and_a_password_is_not_shown() -> None:
    paths: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/other")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(InputError, match="answered 302: it redirects to /other"):
            ask_server(Server.of(f"http://127.0.0.1:{server.server_port}/v1#m"), "Is it?")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert paths == ["/v1/chat/completions"]
    with pytest.raises(InputError, match="must hold no user, key or query") as refused:
        Judge(question=QUESTION, model="http://me:hidden@127.0.0.1:9/v1#m")
    assert "hidden" not in str(refused.value)


def test_what_judging_a_draft_that_broke_off_takes_is_not_why_its_item_ended() -> None:
    question = "Is {output} polite and kind and to the point, all in all, and short?"
    with serving(Faults(writes=lambda body: "Yes")) as url:
        checks = [Length(max=3, unit="characters"), Judge(question=question, model=f"{url}#m")]
        job = Refine(
            tiny_model(),
            [{"q": "a"}],
            prompt="{q}",
            checks=checks,
            strategy=Abort(rounds=1),
            max_new_tokens=20,
            tokens=25,
            seed=2,
        )
        (row,) = lane_rows(job)
    result: Any = row
    stopped, spent = result["stopped"], result["spent"]
    assert "out of rounds" in stopped["sentence"]
    assert stopped["kind"] == "failed" and sum(spent.values()) > 25
