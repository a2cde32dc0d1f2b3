from __future__ import annotations

import pytest

from benchmarks.collapse import Course, Figures, Judge, Trial, summary
from ostinato.image import hold_out, read_images

ALIKE, APART = Figures(0.9, 2, 0.0), Figures(0.0, 10, 0.3)
EMPTY = Figures(0.0, 10, 0.0)


def course(*collapsed: int, last: int = 300, fired: int | None = None) -> Course:
    """Return a course that is collapsed at these steps."""
    looks = {step: ALIKE if step in collapsed else APART for step in range(10, last + 1, 10)}
    return Course(looks, fired)


def test_a_collapse_begins_where_all_looks_of_a_hundred_steps_agree() -> None:
    assert course(*range(50, 140, 10)).begins is None
    assert course(20, *range(50, 150, 10)).begins == 50
    assert course(*range(250, 310, 10)).begins is None  # it is not known whether it lasts


def test_variety_that_was_there_and_is_lost_is_a_collapse_and_none_yet_is_not() -> None:
    start = dict.fromkeys(range(10, 110, 10), EMPTY)
    healthy = dict.fromkeys(range(110, 210, 10), APART)
    lost = dict.fromkeys(range(210, 310, 10), EMPTY)
    assert Course(start | healthy, None).begins is None
    assert Course(start | healthy | lost, None).begins == 210


def test_a_detection_counts_from_the_beginning_up_to_two_hundred_steps_later() -> None:
    late = range(100, 310, 10)
    trials = [Trial(course(*late, fired=at), APART) for at in (90, 160, 300, 301, None)]
    assert [trial.course.delay for trial in trials] == [-10, 60, 200, 201, None]
    assert [trial.detected for trial in trials] == [True, True, True, False, False]
    assert not Trial(course(fired=160), APART).detected  # there was no collapse


def test_the_worst_kind_counts_and_each_is_shown() -> None:
    seen = Trial(course(*range(100, 310, 10), fired=160), APART)
    missed = Trial(course(*range(100, 310, 10)), ALIKE)
    found = summary({"a": [seen, seen], "b": [seen, missed]}, [course(), course(fired=50)])
    assert found["detected_of_10"] == 1 and found["recovered_of_10"] == 1
    assert found["false_alarms_of_10"] == 1 and found["steps_median"] == 60
    assert (found["a.detected_of_10"], found["b.detected_of_10"]) == (2, 1)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(*hold_out(read_images(["digits-8x8"]), 0.25), steps=150)


def test_the_judge_tells_data_from_one_image_and_from_few_classes(judge: Judge) -> None:
    seen, held = hold_out(read_images(["digits-8x8"]), 0.25)
    images, labels = held.clean(), held.labels
    assert labels is not None
    assert judge.look(images[:200]).healthy
    assert judge.look(images[:1].expand(200, -1, -1, -1)).alike
    assert judge.look(images[:3].repeat(60, 1, 1, 1)).duplicates == 1.0
    two = seen.clean()[(seen.labels == 0) | (seen.labels == 6)][:200]
    assert judge.look(two).alike
