"""The mini-game keeps the laws of an environment: determinism, exact copies, two views of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ostinato.errors import InputError
from ostinato.loop import uniform

gymnasium = pytest.importorskip("gymnasium")

from ostinato.reward.minigame import (  # noqa: E402
    AHEAD,
    BANK,
    COLUMNS,
    LENGTH,
    LILY,
    LINES,
    PEARL,
    RIVER,
    RIVER_PIXELS,
    ROCK,
    WATER,
    WIDTH,
    River,
    TextStyle,
    greedy,
    lines_of,
    planner,
    random_player,
    river_of,
    score_of,
)


def actions(count: int, seed: int = 0) -> list[int]:
    return [int(3 * uniform(seed, "action", 0, 0, n)) for n in range(count)]


def played(game: River, moves: Sequence[int]) -> Iterator[tuple[list[float], float, bool]]:
    """Play moves, over the ends of games; yield what each showed."""
    for move in moves:
        view, reward, lost, over, _ = game.step(move)
        yield view.ravel().tolist(), float(reward), lost
        if lost or over:
            game.reset()


@pytest.mark.parametrize("name", [RIVER, RIVER_PIXELS])
def test_gymnasium_s_checker_finds_nothing(name: str) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(gymnasium.make(name, render_mode="rgb_array").unwrapped)


def test_the_seed_and_the_actions_decide_everything() -> None:
    first, second = River(), River()
    for game in (first, second):
        game.reset(seed=3)
    moves = actions(150)
    assert list(played(first, moves)) == list(played(second, moves))
    assert (river_of(1) != river_of(2)).any()


def test_a_copied_game_goes_on_exactly_and_so_do_the_games_after_it() -> None:
    game, copy = River(), River()
    game.reset(seed=5)
    list(played(game, actions(40)))
    copy.load_state_dict(json.loads(json.dumps(game.state_dict())))
    later = actions(150, seed=1)
    assert list(played(game, later)) == list(played(copy, later))
    assert game.state_dict() == copy.state_dict()


def test_every_river_can_be_passed() -> None:
    for seed in range(60):
        free = river_of(seed)[: LENGTH + 1] < ROCK
        here = np.zeros(WIDTH + 2, bool)
        here[1 + WIDTH // 2] = True
        for row in free[1:]:
            here[1:-1] = (here[:-2] | here[1:-1] | here[2:]) & row
        assert here.any(), seed


def test_rules_in_numbers() -> None:
    game = River()
    game.reset(seed=0)
    for cell, reward in ((PEARL, 1.0), (LILY, 1.0), (WATER, 0.0), (ROCK, -5.0), (BANK, -5.0)):
        game._cells[game.row + 1, game.column - 1] = cell
        _, got, lost, _, info = game.step(0)
        assert (got, lost) == (reward, False)
    assert info == {"pearls": 1, "lilies": 1, "hits": 2}
    assert game._cells[game.row, game.column] != BANK  # the water pushed it back
    game._cells[game.row + 1, game.column] = ROCK
    assert game.step(1)[2]


def test_a_game_is_over_after_its_rows_but_not_lost() -> None:
    game = River()
    game.reset(seed=0)
    ends: list[bool] = []
    while not any(ends):
        ends = list(game.step(planner(game))[2:4])
    assert (ends, game.row) == ([False, True], LENGTH)


# The views ----------------------------------------------------------------------------------------


def seen_in(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read the cells from the pixel view, as a person would: by the color in their middle."""
    side = pixels.shape[0] // (AHEAD + 2)
    middle = side // 2
    cells = np.empty((AHEAD + 2, WIDTH), np.int64)
    for row, column in np.ndindex(*cells.shape):
        r, g, b = (int(x) for x in pixels[row * side + middle, column * side + middle])
        if b > g > r:
            cells[row, column] = WATER
        elif g > r and g > b:
            cells[row, column] = BANK
        elif max(r, g, b) - min(r, g, b) < 25:
            cells[row, column] = ROCK
        else:
            cells[row, column] = LILY if b > 120 and g < 215 else PEARL
    return cells


def test_both_views_show_the_same_river() -> None:
    symbols, pixels = River("symbols"), River("pixels")
    view, _ = symbols.reset(seed=11)
    picture, _ = pixels.reset(seed=11)
    for move in [1, *actions(25)]:
        read = seen_in(picture)
        boat = AHEAD, symbols.column
        expected = symbols.seen().astype(int)
        read[boat] = expected[boat]  # the boat hides its cell
        assert (read == expected).all()
        for row, codes in enumerate(view[:-3].reshape(AHEAD, 9, 3)):
            for aside, code in zip(range(-4, 5), codes, strict=True):
                column = symbols.column + aside
                cell = BANK if not 0 <= column < WIDTH else read[AHEAD - 1 - row, column]
                assert code.tolist() == [cell >= ROCK, cell == PEARL, cell == LILY]
        view, _, lost, over, _ = symbols.step(move)
        picture = pixels.step(move)[0]
        if lost or over:
            break


def test_the_picture_is_rendered_with_the_score_only_where_asked() -> None:
    game = River(render_mode="rgb_array")
    game.reset(seed=0)
    picture = game.render()
    assert picture is not None and picture.shape == (264, 264, 3)
    game.pearls = 7
    other = game.render()
    assert other is not None
    assert (other[:24] != picture[:24]).any() and (other[24:] == picture[24:]).all()
    assert River().render() is None


@pytest.mark.parametrize("unicode", [False, True])
def test_the_text_has_two_characters_a_cell(unicode: bool) -> None:
    game = River()
    game.reset(seed=0)
    for move in actions(30):
        lines = lines_of(game, TextStyle(unicode=unicode))
        assert [len(line) for line in lines[1:]] == [COLUMNS] * (LINES - 1)
        assert unicode or "".join(lines).isascii()
        if game.step(move)[2]:
            game.reset()


# Players ------------------------------------------------------------------------------------------


def test_players_are_as_strong_as_they_are_said_to_be() -> None:
    means = [
        np.mean([score_of(player, seed)["return"] for seed in range(4)])
        for player in (random_player(), greedy, planner)
    ]
    assert means[0] < 0 < means[1] < means[2]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="view must be symbols or pixels, got 'words'"):
        River("words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="render_mode must be rgb_array or None, got 'human'"):
        River(render_mode="human")
