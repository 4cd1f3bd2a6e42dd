"""Chunks that were heard one by one come back as one stream: nothing lost, nothing doubled, nothing out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from moments_core.heard import HeardWord, forward, transcript_from_heard
from moments_core.seams import HeardChunk, joined
from moments_core.sentences import transcript_problems
from moments_core.time import Span

OVERLAP_MS = 2_000
LONGEST_WORD_MS = 1_500
VOCABULARY = ["the", "a", "no", "very", "it,", "and", "Then", "so", "so.", "worms", "deep-rooted", "garden", "I"]


def word(text: str, start_ms: int, end_ms: int) -> HeardWord:
    return HeardWord(start_ms, end_ms, text)


def texts(words: Sequence[HeardWord]) -> list[str]:
    return [each.text for each in words]


# --- a stand-in for a recogniser, and for whoever cuts the sound


def said(chance: random.Random, duration_ms: int) -> list[HeardWord]:
    """Words of a small vocabulary, so that many are repeated at once, with pauses of any length between them."""
    words: list[HeardWord] = []
    at_ms = chance.randint(0, 500)
    while True:
        length_ms = chance.choice([120, 200, 300, 450, LONGEST_WORD_MS])
        if at_ms + length_ms > duration_ms:
            return words
        words.append(word(chance.choice(VOCABULARY), at_ms, at_ms + length_ms))
        at_ms += length_ms + chance.choice([60, 60, 60, 90, 200, 400, 3_000])


def heard(
    words: Sequence[HeardWord], span: Span, chance: random.Random, jitter_ms: int, misspelt: float = 0.0
) -> HeardChunk:
    """What is heard in a part of the sound: a word at its edge is cut short or not heard at all, each time is off by
    a little, and a share of the words is misspelt, with an "x" at their end."""
    found: list[HeardWord] = []
    for each in words:
        share = span.overlap_ms(Span(each.start_ms, each.end_ms)) / (each.end_ms - each.start_ms)
        if share == 0 or (share < 1 and chance.random() < 0.5):
            continue
        text = each.text if share == 1 else each.text[: max(1, int(len(each.text) * share))]
        text += "x" if chance.random() < misspelt else ""
        shift = chance.randint(-jitter_ms, jitter_ms) - span.start_ms
        start = min(max(each.start_ms + shift, 0), span.length_ms - 1)
        end = min(max(each.end_ms + shift, start + 1), span.length_ms)
        found.append(HeardWord(start, end, text))
    return HeardChunk(span, tuple(forward(found)))


def cut(words: Sequence[HeardWord], chance: random.Random, duration_ms: int) -> Iterator[Span]:
    """Anywhere with an overlap, or without one in the middle of a pause."""
    pauses = [
        (before.end_ms + after.start_ms) // 2
        for before, after in pairwise(words)
        if after.start_ms - before.end_ms > 350
    ]
    start_ms = 0
    while duration_ms - start_ms > 30_000:
        at_ms, overlap_ms = start_ms + chance.randint(12_000, 28_000), OVERLAP_MS
        near = [pause for pause in pauses if abs(pause - at_ms) < 2_000]
        if near and chance.random() < 0.3:
            at_ms, overlap_ms = near[0], 0
        yield Span(start_ms, at_ms + overlap_ms)
        start_ms = at_ms - overlap_ms
    yield Span(start_ms, duration_ms)


@pytest.mark.parametrize("misspelt", [0.0, 0.1])
@pytest.mark.parametrize("jitter_ms", [0, 25, 80, 160])
def test_any_words_cut_anywhere_come_back_once_each_and_in_order(jitter_ms: int, misspelt: float) -> None:
    duration_ms = 120_000
    for seed in range(60):
        chance = random.Random(seed)
        words = said(chance, duration_ms)
        chunks = [heard(words, span, chance, jitter_ms, misspelt) for span in cut(words, chance, duration_ms)]
        assert len(chunks) > 3
        found = joined(chunks)
        assert [each.removesuffix("x") for each in texts(found)] == texts(words), f"seed {seed}"
        assert all(abs(one.start_ms - other.start_ms) <= jitter_ms for one, other in zip(found, words, strict=True))
        result = transcript_from_heard(found, duration_ms=duration_ms, model="test")
        assert [each.text for each in result.words] == texts(found)
        assert transcript_problems(result, duration_ms) == []
        assert result.full_text.split() == texts(found)


# --- what happens at a seam


FIRST, SECOND = Span(0, 12_000), Span(8_000, 20_000)  # the seam lies at 10 s


def sewn(first: Sequence[HeardWord], second: Sequence[HeardWord]) -> list[str]:
    """The texts of two chunks' words, all times in the video's."""
    later = tuple(each.later(-SECOND.start_ms) for each in second)
    return texts(joined([HeardChunk(FIRST, tuple(first)), HeardChunk(SECOND, later)]))


def test_a_word_that_moves_over_the_seam_is_neither_doubled_nor_lost() -> None:
    before, after = word("garden", 9_800, 10_180), word("garden", 9_840, 10_220)
    assert before.middle_ms < 10_000 < after.middle_ms
    assert sewn([before], [after]) == ["garden"]
    assert sewn([after], [before]) == ["garden"]


def test_a_word_that_was_said_twice_stays_said_twice() -> None:
    twice = [word("no", 9_700, 9_900), word("no", 10_100, 10_300)]
    late = [each.later(70) for each in twice]
    assert sewn(twice, late) == ["no", "no"]
    assert sewn(late, twice) == ["no", "no"]
    assert sewn(twice, late[1:]) == ["no", "no"]  # the second chunk began inside of the first one


def test_a_word_is_known_again_whatever_its_case_and_punctuation() -> None:
    first, second = word("then.", 9_850, 9_960), word("Then", 10_010, 10_120)  # on both sides of the seam, and apart
    assert sewn([first], [second]) in (["then."], ["Then"])


def test_a_word_that_both_heard_is_taken_from_where_it_is_farther_from_the_edge() -> None:
    first, second = word("it", 11_000, 12_000), word("it,", 11_000, 12_500)
    assert sewn([first], [second]) == ["it,"]
    assert sewn([word("is.", 7_500, 9_000)], [word("is", 8_000, 9_000)]) == ["is."]


def test_dashes_and_notes_are_compared_as_they_are() -> None:
    assert sewn([word("—", 9_800, 10_000)], [word("♪", 10_200, 10_400)]) == ["—", "♪"]
    assert sewn([word("—", 9_800, 9_900)], [word("—", 10_000, 10_100)]) == ["—"]


def test_words_at_a_chunks_damaged_edge_are_taken_from_the_other_one() -> None:
    first = [word("we", 8_200, 8_400), word("dig", 9_900, 10_100), word("gar", 11_700, 12_000)]
    second = [word("e", 8_300, 8_400), word("dig", 9_900, 10_100), word("garden", 11_700, 12_300)]
    assert sewn(first, second) == ["we", "dig", "garden"]


def test_where_both_heard_something_else_each_word_is_decided_by_its_middle() -> None:
    first = [word("bees", 9_000, 9_500), word("humming", 10_400, 10_900)]
    second = [word("please", 9_000, 9_500), word("coming", 10_400, 10_900)]
    assert sewn(first, second) == ["bees", "coming"]


@pytest.mark.parametrize("shift_ms", [-160, -80, 0, 80, 160])
def test_a_word_that_the_two_spell_differently_stands_once_wherever_the_seam_lies(shift_ms: int) -> None:
    first = [word("saw", 9_500, 9_700), word("two", 9_880, 10_080), word("of", 10_200, 10_300)]
    second = [each.later(shift_ms) for each in (first[0], replace(first[1], text="2"), first[2])]
    for seam_moves_ms in range(-400, 401, 40):
        found = sewn(*([each.later(seam_moves_ms) for each in side] for side in (first, second)))
        assert [each.replace("2", "two") for each in found] == ["saw", "two", "of"]


@pytest.mark.parametrize(
    ("around", "pause_ms"),
    [pytest.param(("we", "it"), 20, id="between words alike"), pytest.param(("wex", "itx"), 600, id="between pauses")],
)
def test_a_phrase_that_the_two_divide_differently_is_taken_from_one_of_them(
    around: tuple[str, str], pause_ms: int
) -> None:
    for at_ms in range(9_400, 10_200, 20):
        we, it = (
            ("we", at_ms - pause_ms - 200, at_ms - pause_ms),
            ("it", at_ms + 500 + pause_ms, at_ms + 800 + pause_ms),
        )
        first = [word(*we), word("two", at_ms, at_ms + 240), word("fold", at_ms + 260, at_ms + 500), word(*it)]
        second = [word(around[0], *we[1:]), word("twofold", at_ms, at_ms + 500), word(around[1], *it[1:])]
        for sides in ((first, second), (second, first)):
            found = [each.removesuffix("x") for each in sewn(*sides)]
            assert found in (["we", "two", "fold", "it"], ["we", "twofold", "it"])


def test_two_that_each_misspell_another_of_two_equal_words_keep_both() -> None:
    first, second = ["no", "nah"], ["nah", "no"]
    for at_ms in range(9_500, 10_500, 20):
        times = [(at_ms, at_ms + 120), (at_ms + 180, at_ms + 300)]
        sides = [[word(text, *time) for text, time in zip(side, times, strict=True)] for side in (first, second)]
        assert len(sewn(*sides)) == 2


def test_an_equal_word_of_another_length_is_another_word() -> None:
    # The first chunk's edge took its second "a" away; what is left of the two hearings is paired by more than text.
    first = [word("a", 10_180, 10_380)]
    second = [word("a", 9_980, 10_180), word("a", 10_290, 11_790)]
    assert sewn(first, second) == ["a", "a"]


def test_the_stream_does_not_change_where_a_word_would_be_left_out() -> None:
    # The first chunk's edge took its second "garden" away, and its first one lies nearer to the second of the other.
    first = [word("garden", 10_250, 10_450)]
    second = [word("guard", 10_000, 10_200), word("garden", 10_350, 12_100)]
    assert sewn(first, second) == ["guard", "garden"]


def test_what_one_side_alone_heard_keeps_its_order_though_its_times_cross() -> None:
    second = [word("very", 10_100, 12_000), word("garden", 10_150, 10_300)]
    assert sewn([], second) == ["very", "garden"]


def test_a_word_that_both_cut_and_heard_differently_stands_once() -> None:
    assert sewn([word("unbeliev", 9_300, 10_600)], [word("lievable", 9_500, 10_700)]) == ["unbeliev"]
    assert sewn([word("unbe", 9_300, 9_900)], [word("believable", 9_400, 10_800)]) == ["believable"]
    assert sewn([word("unbeliev", 9_200, 10_600)], [word("liev", 9_700, 10_700)]) == ["unbeliev"]


def test_only_one_chunk_may_have_heard_anything() -> None:
    words = [word("we", 9_000, 9_200), word("dig", 10_500, 10_900)]
    assert sewn(words, []) == ["we"]  # what lies behind the seam is the second chunk's to say
    assert sewn([], words) == ["dig"]
    assert sewn([], []) == []


def test_words_that_touch_a_cut_in_silence_are_all_kept() -> None:
    chunks = [
        HeardChunk(Span(0, 5_000), (word("the", 4_700, 5_000),)),
        HeardChunk(Span(5_000, 9_000), (word("the", 0, 200),)),
        HeardChunk(Span(30_000, 40_000), (word("end", 0, 200),)),
    ]
    found = joined(chunks)
    assert [(each.text, each.start_ms) for each in found] == [("the", 4_700), ("the", 5_000), ("end", 30_000)]


@pytest.mark.timeout(60)  # compared in full it would take minutes and gigabytes
def test_a_flood_of_words_at_a_seam_is_not_compared_in_full() -> None:
    flood = [word("the", 9_900, 10_000)] * 7_500  # as many as a reply of five minutes may hold
    assert len(sewn(flood, flood)) == 7_500


def test_no_chunks_have_no_words() -> None:
    assert joined([]) == []
