"""Scores, their tokens, MIDI files and sound."""

from __future__ import annotations

import json
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ostinato.errors import InputError, ModelError
from ostinato.loop import uniform
from ostinato.music import (
    Key,
    Score,
    encode,
    examples,
    in_range,
    load_music,
    make_tokenizer,
    piano_roll,
    read_chorales,
    read_midi,
    read_pieces,
    render,
    score_of,
    score_text,
    write_midi,
    write_wav,
)
from ostinato.music.midi import Note, _grid, _variable, load_midi
from ostinato.music.score import HIGHEST, LOWEST, REST, voiced

CADENCE = Score(((71, 67, 62, 43), (69, 66, 62, 50), (67, 62, 59, 43), (67, 62, 59, 43)))

notes = [
    st.sampled_from([REST, *range(low, high + 1)])
    for low, high in zip(LOWEST, HIGHEST, strict=True)
]
scores = st.lists(st.tuples(*notes), min_size=1, max_size=12).map(lambda c: Score(tuple(c)))


# On a busy machine, the first score can take seconds.
calm = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@calm
@given(scores)
def test_what_is_written_is_read_again(score: Score) -> None:
    assert score_of(score_text(score)) == score
    tokenizer = make_tokenizer()
    assert tokenizer.decode(encode(score)).strip() == score_text(score)
    assert tokenizer.encode("\n" + score_text(score)) == encode(score)


def test_a_midi_file_holds_the_chords(tmp_path: Path) -> None:
    path = write_midi(CADENCE, tmp_path / "one.mid", tempo=90)
    assert read_midi(path) == CADENCE
    assert path.read_bytes().startswith(b"MThd")


def test_every_score_comes_back_from_its_midi_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With voices that cross or are silent, rests at both ends, and any tempo."""
    path = tmp_path_factory.mktemp("scores") / "a.mid"

    @calm
    @given(scores, st.floats(10, 400))
    def check(score: Score, tempo: float) -> None:
        assume(any(map(any, score.chords)))
        assert read_midi(write_midi(score, path, tempo=tempo)) == score

    check()


def midi(*tracks: list[tuple[float, tuple[int, ...]]], form: int = 1, division: int = 480) -> bytes:
    """Return a file of messages at times in quarters, in the order given."""
    chunks = b""
    for track in tracks:
        body, now = b"", 0
        for quarters, message in [*track, (track[-1][0], (0xFF, 0x2F, 0))]:
            tick = round(quarters * division)
            body += _variable(tick - now) + bytes(message)
            now = tick
        chunks += b"MTrk" + struct.pack(">I", len(body)) + body
    return b"MThd" + struct.pack(">IHHH", 6, form, len(tracks), division) + chunks


def on(pitch: int, channel: int = 0) -> tuple[int, ...]:
    return (0x90 | channel, pitch, 80)


def off(pitch: int, channel: int = 0) -> tuple[int, ...]:
    return (0x80 | channel, pitch, 0)


def line(*notes: tuple[float, float, int], channel: int = 0) -> list[tuple[float, tuple[int, ...]]]:
    """Return a track of notes (start, end, pitch); what ends at a tick comes before what begins."""
    events = [(start, 1, on(pitch, channel)) for start, _, pitch in notes]
    events += [(end, 0, off(pitch, channel)) for _, end, pitch in notes]
    return [(at, message) for at, _, message in sorted(events)]


@pytest.mark.parametrize("division", [24, 96, 480, 960, 7])
@pytest.mark.parametrize(
    ("track", "sopranos"),
    [
        (line((0, 0.45, 60), (1, 1.45, 62), (2, 2.45, 64), (3, 3.45, 65)), [60, 62, 64, 65]),
        (line((0, 0.5, 60), (1, 1.5, 62), (2, 2.5, 64)), [60, 62, 64]),
        (line((0, 0.2, 60), (1, 1.2, 62)), [60, 62]),
        (line((0, 2.5, 60)), [60, 60, 60]),
        (line((0, 1.5, 60), (1.5, 3, 62)), [60, 60, 62]),
        (line((0, 1, 60), (2.5, 3.5, 62)), [60, REST, REST, 62]),
        # Repeated: the note-off late, or at the tick of the next note-on and behind it.
        ([(0, on(60)), (1, on(60)), (1.1, off(60)), (2.1, off(60))], [60, 60]),
        ([(0, on(60)), (1, on(60)), (1, off(60)), (2, off(60))], [60, 60]),
        ([(0, on(60)), (1, off(60)), (1, on(60)), (2, off(60))], [60, 60]),
        # A unison of a quarter and a half; the second has its own off, or none.
        ([(0, on(60)), (0, on(60)), (1, off(60)), (2, off(60))], [60, 60]),
        ([(0, on(60)), (1, on(60)), (2, off(60)), (4, on(62)), (5, off(62))],
         [60, 60, REST, REST, 62]),
        # A note-on of velocity 0 ends a note; one that never ends does with its track.
        ([(0, on(60)), (1, (0x90, 60, 0)), (1, on(62)), (2, (0x90, 62, 0))], [60, 62]),
        ([(0, on(60)), (2, (0xB0, 7, 100))], [60, 60]),
        # The tempo, running status, and an end where nothing sounds change nothing.
        ([(0, on(60)), (0.5, (0xFF, 0x51, 3, 1, 2, 3)), (1, off(60)), (1, off(60))], [60]),
        ([(0, on(60)), (1, (60, 0)), (1, (62, 80)), (2, (62, 0))], [60, 62]),
    ],
)  # fmt: skip
def test_no_note_of_a_melody_is_lost(
    track: list[tuple[float, tuple[int, ...]]], sopranos: list[int], division: int, tmp_path: Path
) -> None:
    if division == 7 and any(at * 7 % 1 > 1e-9 for at, _ in track):
        pytest.skip("times between its ticks")
    for form in (0, 1):
        path = tmp_path / f"{form}.mid"
        path.write_bytes(midi(track, form=form, division=division))
        assert [chord[0] for chord in read_midi(path).chords] == sopranos


def test_what_no_quarter_meets_is_counted(tmp_path: Path) -> None:
    track = [*line((0, 1, 60), (1.3, 1.8, 62), (2, 3, 64)), (3.0, on(65)), (3.0, off(65))]
    path = tmp_path / "a.mid"
    path.write_bytes(midi(track))
    loaded = load_midi(path)
    assert (loaded.notes, loaded.missed) == (4, 2)  # between two quarters; and of no length
    assert [chord[0] for chord in loaded.score.chords] == [60, REST, 64]


SATB = ((72, 76), (65, 67), (60, 59), (48, 50))


@pytest.mark.parametrize("form", [0, 1])
def test_four_channels_are_four_voices_also_where_they_are_played_legato(
    form: int, tmp_path: Path
) -> None:
    tracks = [
        line((0, 1.3, first), (1, 2, second), channel=n) for n, (first, second) in enumerate(SATB)
    ]
    if form == 0:  # all in one track
        tracks = [sorted((event for track in tracks for event in track), key=lambda e: e[0])]
    path = tmp_path / "a.mid"
    path.write_bytes(midi(*tracks, form=form))
    assert read_midi(path).chords == ((72, 65, 60, 48), (76, 67, 59, 50))


def test_tracks_with_the_names_of_voices_are_these_voices(tmp_path: Path) -> None:
    tracks = []
    for name, pitch in (("Alto ", 70), ("bass", 45), ("SOPRANO", 60), ("tenor", 50)):
        meta = (0xFF, 0x03, len(name), *name.encode())
        tracks.append([(0.0, meta), *line((0, 1, pitch))])
    path = tmp_path / "a.mid"
    path.write_bytes(midi(*tracks))
    assert read_midi(path).chords == ((60, 70, 50, 45),)  # the alto above the soprano


@pytest.mark.parametrize(
    ("form", "division", "message"),
    [(2, 480, "format 2, which holds several pieces"), (1, 0xE728, "a grid of seconds")],
)
def test_a_file_of_another_kind_of_time_is_refused(
    form: int, division: int, message: str, tmp_path: Path
) -> None:
    content = bytearray(midi(line((0, 1, 60)), form=form))
    content[12:14] = division.to_bytes(2, "big")
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_midi(tmp_path / "a.mid")


def test_voices_of_one_track_are_told_apart(tmp_path: Path) -> None:
    """Running status, a note that ends by velocity 0, and a text before the notes."""
    body = b"\x00\xff\x01\x02hi\x00\x90\x48\x40\x00\x43\x40\x00\x40\x40\x00\x30\x40"
    body += b"\x60\x48\x00\x00\x43\x00\x00\x40\x00\x00\x30\x00\x00\xff\x2f\x00"
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"
    (tmp_path / "a.mid").write_bytes(header + b"MTrk" + len(body).to_bytes(4, "big") + body)
    assert read_midi(tmp_path / "a.mid").chords == ((72, 67, 64, 48),)


def between_the_quarters(path: Path) -> None:
    """Write three notes, of which no quarter note meets the second."""
    body = b"\x00\x90\x48\x40\x20\x48\x00\x00\x49\x40\x20\x49\x00\x20\x48\x40\x60\x48\x00"
    body += b"\x00\xff\x2f\x00"
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"
    path.write_bytes(header + b"MTrk" + len(body).to_bytes(4, "big") + body)


def test_notes_between_the_quarters_are_warned_of(tmp_path: Path) -> None:
    between_the_quarters(tmp_path / "a.mid")
    with pytest.warns(UserWarning, match="1 of 3 notes sound between two quarter notes"):
        score = read_midi(tmp_path / "a.mid")
    assert [chord[0] for chord in score.chords] == [72, 72]


def test_a_step_holds_what_sounds_at_it_or_up_to_an_eighth_of_it_late() -> None:
    division, steps = 24, 12
    ends = [uniform(1, "grid", 0, 0, n) * steps * division for n in range(600)]
    pairs = [sorted(map(int, pair)) for pair in zip(ends[::2], ends[1::2], strict=True)]
    notes = [Note(start, end, 40 + n) for n, (start, end) in enumerate(pairs)]
    for step, pitches in enumerate(_grid(notes, steps, division)):
        at = step * division + 3
        assert pitches == [note.pitch for note in notes if note.start <= at < note.end]


def test_of_more_than_four_notes_at_a_time_the_highest_are_the_melody(tmp_path: Path) -> None:
    events = [(p, on) for on in (64, 0) for p in (36, 40, 43, 48, 72, 76)]
    body = b"".join(bytes([96 * (on == 0 and p == 36), 0x90, p, on]) for p, on in events)
    body += b"\x00\xff\x2f\x00"
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"
    (tmp_path / "a.mid").write_bytes(header + b"MTrk" + len(body).to_bytes(4, "big") + body)
    assert read_midi(tmp_path / "a.mid", melody=True).chords == ((76, REST, REST, REST),)
    with pytest.raises(InputError, match="cannot be read as four voices"):
        read_midi(tmp_path / "a.mid")
    write_midi(CADENCE, tmp_path / "b.mid")
    assert read_midi(tmp_path / "b.mid", melody=True) == CADENCE


@pytest.mark.parametrize("content", [b"", b"RIFF", b"MThd\x00\x00\x00\x06\x00\x00"])
def test_what_is_no_midi_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(InputError, match="must be a MIDI file"):
        read_midi(tmp_path / "a.mid")


def test_voices_that_share_a_pitch_are_those_that_come_from_near() -> None:
    chords = voiced([[48, 60, 64, 67], [50, 65, 67], [], [48, 64, 67, 72]]).chords
    assert chords[1] == (67, 65, 65, 50) or chords[1] == (67, 67, 65, 50)
    assert chords[2] == (REST,) * 4
    assert chords[3] == (72, 67, 64, 48)
    with pytest.raises(InputError, match="up to four"):
        voiced([[48, 50, 52, 53, 55]])


def test_a_key_is_that_of_the_last_bass_and_the_thirds() -> None:
    assert str(CADENCE.key()) == "G major"
    assert str(CADENCE.moved(-2).key()) == "F major"
    minor = Score(
        tuple((s - (s % 12 == 11), a, t - (t % 12 == 11), b) for s, a, t, b in CADENCE.chords)
    )
    assert str(minor.key()) == "G minor"
    assert Key.of("bb-MINOR") == Key(10, True)
    assert Key.of("Db major") == Key.of("C# major")
    with pytest.raises(InputError, match="A key must be one of"):
        Key.of("H major")


def test_each_piece_is_learned_in_every_key_in_which_it_can_be_sung() -> None:
    some = examples([CADENCE.moved(12)])
    assert len(some) > 5
    assert len({one.tokens[0] for one in some}) == min(12, len(some))  # keys
    assert not some[0].loss_mask[0] and all(some[0].loss_mask[1:])
    assert len(examples([CADENCE], every_key=False)) == 1
    no_bass = Score(((67, 64, 60, REST),))
    with pytest.warns(UserWarning, match="2 of 3 pieces are left out: they have no bass, or four"):
        assert examples([no_bass, CADENCE.moved(12), Score(((100, 60, 40, 20),))]) == some
    middle = in_range(CADENCE.moved(20))
    assert middle is not None and middle.fits
    assert in_range(Score(((100, 60, 40, 20),))) is None


def test_pieces_are_read_from_json_and_from_a_folder(tmp_path: Path) -> None:
    steps = [sorted(set(chord)) for chord in CADENCE.chords]
    (tmp_path / "a.json").write_text(json.dumps({"train": [steps], "valid": [steps], "test": []}))
    pieces = read_pieces(tmp_path / "a.json")
    assert pieces.train == (CADENCE,) and pieces.valid == (CADENCE,) and not pieces.test
    for n in range(4):
        write_midi(CADENCE.moved(n), tmp_path / "folder" / f"{n}.mid")
    held = read_pieces(tmp_path / "folder", hold_out=0.25)
    assert (len(held.train), len(held.valid)) == (3, 1)
    assert held.fingerprint() != pieces.fingerprint()
    (tmp_path / "b.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        read_chorales(tmp_path / "b.json")
    with pytest.raises(InputError, match="pieces to train on"):
        read_pieces(tmp_path / "folder", hold_out=1.0)
    (tmp_path / "folder" / "none.mid").write_bytes(b"no music")
    with pytest.warns(UserWarning, match=r"1 of 5 files are left out.*none\.mid"):
        again = read_pieces(tmp_path / "folder", hold_out=0.25)
    assert again.fingerprint() == held.fingerprint()
    (tmp_path / "folder" / "none.mid").unlink()
    (tmp_path / "folder" / "none.mid").mkdir()
    assert read_pieces(tmp_path / "folder", hold_out=0.25).fingerprint() == held.fingerprint()
    for n in range(5):
        between_the_quarters(tmp_path / "folder" / f"thin{n}.mid")
    with pytest.warns(UserWarning, match=r"5 of 9 files have .*thin2.mid: 1 of 3 notes\. And"):
        read_pieces(tmp_path / "folder")


def test_the_sound_has_the_pitches_that_are_written() -> None:
    """The strongest parts of the spectrum are at the overtones of the notes, and nowhere else."""
    sound = render(Score(((69, 69, 69, 57),) * 2), tempo=60)
    assert sound.shape[1] == 2 and 0.8 < np.abs(sound).max() <= 1
    power = np.abs(np.fft.rfft(sound[8000:72000, 0])) ** 2
    at = np.arange(len(power)) * 32000 / 64000
    near = np.abs(at / 220 - np.round(at / 220)) < 0.06
    assert power[near & (at > 100)].sum() > 0.9 * power.sum()


def test_a_repeated_chord_is_held_and_others_are_struck(tmp_path: Path) -> None:
    path = write_wav(CADENCE, tmp_path / "a.wav", tempo=120)
    with wave.open(str(path)) as file:
        seconds = file.getnframes() / file.getframerate()
        assert file.getnchannels() == 2
    assert 3.5 < seconds < 6
    with pytest.raises(InputError, match="tempo"):
        write_midi(CADENCE, tmp_path / "b.mid", tempo=1)
    on = sum(byte == 0x90 for byte in write_midi(CADENCE, tmp_path / "c.mid").read_bytes())
    assert on == 3  # the soprano: the last chord stands for two quarters


def test_a_piano_roll_has_a_column_for_each_quarter(tmp_path: Path) -> None:
    with Image.open(piano_roll(CADENCE, tmp_path / "a.png")) as image:
        assert image.width == 4 * 14 + 1


def test_the_shipped_model_is_small_and_knows_the_tokens() -> None:
    model = load_music()
    folder = model.folder
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    assert "B:C3" in model.tokenizer.decode(encode(CADENCE.moved(5)))


def test_another_model_is_refused(tmp_path: Path) -> None:
    from tiny import save_tiny

    with pytest.raises(ModelError, match="music model must be a folder"):
        load_music(tmp_path)
    save_tiny(tmp_path / "tiny")
    with pytest.raises(ModelError, match="other tokens"):
        load_music(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (b"\x00\x90\x43\x50\xff\xff\xff\xff\x7f\x80\x43\x00", "more than four bytes"),
        (b"\x00\x90\x43\x50\xff\xff\xff\x7f\x80\x43\x00", "at most 20000 quarter notes"),
        (b"\x00\xff\x01\x01\x61\x01\x45\x50", "a message without its kind"),
        (b"\x00\x90\x43\x50\x02\x80\x43", "a file that is cut off"),
        (b"\x00\x99\x2a\x50\x7f\x89\x2a\x00", "must hold notes, got none"),
    ],
)
def test_a_midi_file_that_cannot_be_read_is_refused(
    tmp_path: Path, track: bytes, message: str
) -> None:
    path = tmp_path / "odd.mid"
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1)
    path.write_bytes(head + b"MTrk" + struct.pack(">I", len(track)) + track)
    with pytest.raises(InputError, match=message):
        read_midi(path)
    path.write_bytes(head + b"MTrk" + struct.pack(">I", len(track) + 1) + track)
    with pytest.raises(InputError, match="a track that is cut off"):
        read_midi(path)


@pytest.mark.parametrize(
    "between", [b"\xff\x01\x01\x61", b"\xf0\x02\x01\xf7", b"\xf8", b"\xf2\x01\x02"]
)
def test_a_message_goes_on_after_those_of_the_system(tmp_path: Path, between: bytes) -> None:
    track = b"\x00\x90\x43\x50\x01" + between + b"\x01\x43\x00"
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1)
    (tmp_path / "a.mid").write_bytes(head + b"MTrk" + struct.pack(">I", len(track)) + track)
    assert [chord[0] for chord in read_midi(tmp_path / "a.mid").chords] == [0x43, 0x43]


def test_chunks_of_other_kinds_are_not_counted_as_tracks(tmp_path: Path) -> None:
    path = write_midi(CADENCE, tmp_path / "a.mid")
    content = path.read_bytes()
    path.write_bytes(content[:14] + b"XFIH" + struct.pack(">I", 3) + b"abc" + content[14:])
    assert read_midi(path) == CADENCE
    path.write_bytes(content[: content.rindex(b"MTrk")])
    with pytest.raises(InputError, match="a file that is cut off"):
        read_midi(path)


def test_a_note_without_an_end_sounds_to_the_end_of_its_track(tmp_path: Path) -> None:
    track = b"\x00\x90\x43\x50\x02\xff\x2f\x00"
    path = tmp_path / "held.mid"
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1)
    path.write_bytes(head + b"MTrk" + struct.pack(">I", len(track)) + track)
    assert [chord[0] for chord in read_midi(path).chords] == [0x43, 0x43]
