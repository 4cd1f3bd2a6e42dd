"""The deterministic refiner: where boundaries go, and what holds whatever the content is."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from itertools import accumulate, pairwise
from types import FrameType

import pytest

from moments_core.content import VideoContent
from moments_core.errors import CheckError
from moments_core.moment import Moment
from moments_core.sentences import sentences_from_words
from moments_core.snapping import LEAD_MS, MIN_LENGTH_MS, TAIL_MS, LocalRefiner
from moments_core.time import Span
from moments_core.transcript import Sentence, Word

HOUR = Span(0, 3_600_000)


def moment(start_ms: int, end_ms: int) -> Moment:
    return Moment(Span(start_ms, end_ms), "A moment", 0.5)


def words(*spans: tuple[int, int], text: str = "word") -> tuple[Word, ...]:
    return tuple(Word(start_ms=start, end_ms=end, text=text) for start, end in spans)


def sentence(start_ms: int, end_ms: int) -> Sentence:
    return Sentence(start_ms=start_ms, end_ms=end_ms, text="Some sentence.")


def refined(start_ms: int, end_ms: int, within: Span = HOUR, **content: object) -> Span:
    video = VideoContent(duration_ms=HOUR.end_ms, **content)  # type: ignore[arg-type]
    return LocalRefiner().refine(moment(start_ms, end_ms), video, within=within).span


def talk(seed: int, duration_ms: int = 120_000) -> VideoContent:
    """A random talk: words, sentences of them, pauses that may lie anywhere, scene cuts; each part may be absent."""
    rng = random.Random(seed)
    steps = [rng.choice((0, 1, 40, 300, 900, 4_000)) for _ in range(200)]
    ends = list(accumulate(steps))
    spoken = [
        Word(start_ms=start, end_ms=end, text=rng.choice(("yes", "no.", "perhaps")))
        for start, end in pairwise(ends)
        if start < end <= duration_ms and rng.random() < 0.7
    ]
    times = sorted(rng.sample(range(duration_ms), 40))
    return VideoContent(
        duration_ms=duration_ms,
        words=tuple(spoken) if rng.random() < 0.8 else (),
        sentences=sentences_from_words(spoken) if rng.random() < 0.8 else (),
        silences=[Span(start, end) for start, end in zip(times[::2], times[1::2], strict=True)][: rng.choice((0, 20))],
        scene_cuts_ms=sorted(rng.sample(range(duration_ms), rng.choice((0, 5, 60)))),
    )


def some_moment(rng: random.Random, video: VideoContent) -> tuple[Moment, Span]:
    start, end = sorted(rng.sample(range(video.duration_ms), 2))
    asked = moment(start, end)
    return asked, asked.span.padded(rng.choice((0, 500, 2_000, 60_000)), within=video.span)


def every_case() -> list[tuple[VideoContent, Moment, Span]]:
    rng = random.Random(7)
    videos = [talk(seed) for seed in range(60)]
    return [(video, *some_moment(rng, video)) for video in videos for _ in range(12)]


def test_refining_twice_changes_nothing() -> None:
    for video, asked, within in every_case():
        once = LocalRefiner().refine(asked, video, within=within)
        twice = LocalRefiner().refine(Moment(once.span, "A moment", 0.5), video, within=within)
        assert twice.span == once.span, (video, asked, within)
        assert twice.note.startswith("unchanged")


def test_boundaries_never_leave_the_clip_and_leave_something_to_watch() -> None:
    for video, asked, within in every_case():
        span = LocalRefiner().refine(asked, video, within=within).span
        assert within.contains(span)
        assert span.length_ms >= min(MIN_LENGTH_MS, asked.span.length_ms)


def test_no_word_is_cut_where_the_clip_leaves_room() -> None:
    for video, asked, _ in every_case():
        within = video.span
        span = LocalRefiner().refine(asked, video, within=within).span
        if span.length_ms < 2 * MIN_LENGTH_MS:
            continue  # here a boundary may have stayed, for want of room
        cut = [w for w in video.words for edge in (span.start_ms, span.end_ms) if w.start_ms < edge < w.end_ms]
        assert not cut, (asked, span)


def test_a_later_boundary_is_never_refined_to_an_earlier_place() -> None:
    for seed in range(30):
        video = talk(seed)
        refiner = LocalRefiner()
        spans = [refiner.refine(moment(at, 115_000), video, within=video.span).span for at in range(0, 60_000, 701)]
        starts = [span.start_ms for span in spans]
        assert starts == sorted(starts)


def test_a_word_is_never_cut() -> None:
    spoken = words((10_000, 10_400), (10_400, 10_900), (20_000, 20_500))
    assert refined(10_500, 20_300, words=spoken) == Span(10_400, 20_500 + TAIL_MS)


def test_the_nearer_edge_of_a_long_word_is_taken() -> None:
    spoken = words((10_000, 14_000), (20_000, 20_500))
    assert refined(13_800, 20_500, words=spoken).start_ms == 14_000


def test_a_start_goes_back_to_its_sentence_and_into_the_pause_before() -> None:
    spoken = words((5_000, 6_000), (8_000, 9_000), (9_000, 10_000), (30_000, 31_000))
    span = refined(9_200, 31_000, words=spoken, sentences=[sentence(5_000, 6_000), sentence(8_000, 10_000)])
    assert span.start_ms == 8_000 - LEAD_MS


def test_an_end_goes_on_to_the_end_of_its_sentence_and_a_little_of_the_pause_after() -> None:
    spoken = words((5_000, 6_000), (8_000, 9_000), (9_000, 10_000), (30_000, 31_000))
    span = refined(5_000, 8_600, words=spoken, sentences=[sentence(8_000, 10_000), sentence(30_000, 31_000)])
    assert span.end_ms == 10_000 + TAIL_MS


def test_a_start_gives_up_less_than_it_may_add() -> None:
    spoken = words(*((at, at + 1_000) for at in range(0, 60_000, 1_000)))
    sentences = [sentence(6_000, 13_000), sentence(13_000, 60_000)]
    assert refined(10_000, 59_000, words=spoken, sentences=sentences).start_ms == 6_000  # 4 s back, not 3 s on
    assert refined(11_500, 59_000, words=spoken, sentences=sentences).start_ms == 13_000


def test_a_sentence_too_far_away_does_not_move_a_start() -> None:
    spoken = words(*((at, at + 1_000) for at in range(0, 60_000, 1_000)))
    sentences = [sentence(0, 50_000), sentence(50_000, 60_000)]
    assert refined(10_000, 59_999, words=spoken, sentences=sentences).start_ms == 10_000


def test_a_short_pause_is_shared_with_the_words_on_its_other_side() -> None:
    spoken = words((0, 5_000), (5_100, 9_000))
    sentences = [sentence(0, 5_000), sentence(5_100, 9_000)]
    before = refined(0, 5_000, words=spoken, sentences=sentences)
    after = refined(5_100, 9_000, words=spoken, sentences=sentences)
    assert before.end_ms == after.start_ms == 5_050


@pytest.mark.parametrize("cut_ms", [7_200, 7_900, 8_000])
def test_a_scene_cut_in_the_pause_before_is_where_a_start_goes(cut_ms: int) -> None:
    spoken = words((5_000, 6_000), (8_000, 9_000), (30_000, 31_000))
    sentences = [sentence(5_000, 6_000), sentence(8_000, 9_000)]
    assert refined(8_100, 31_000, words=spoken, sentences=sentences, scene_cuts_ms=[cut_ms]).start_ms == cut_ms


def test_an_end_shows_no_frame_of_the_next_scene() -> None:
    spoken = words((5_000, 6_000), (8_000, 9_000))
    assert (
        refined(5_000, 5_990, words=spoken, sentences=[sentence(5_000, 6_000)], scene_cuts_ms=[6_200]).end_ms == 6_200
    )


def test_a_scene_cut_inside_a_word_is_no_place_to_cut() -> None:
    spoken = words((5_000, 6_000), (6_000, 7_000), (30_000, 31_000))
    assert refined(5_400, 31_000, words=spoken, scene_cuts_ms=[5_500]).start_ms == 5_000 - LEAD_MS


def test_a_start_goes_into_the_measured_silence_where_a_word_is_timed_too_late() -> None:
    spoken = words((5_000, 6_000), (8_000, 9_000), (30_000, 31_000))
    span = refined(8_000, 31_000, words=spoken, silences=[Span(6_000, 7_600)])
    assert span.start_ms == 7_600 - LEAD_MS


def test_without_words_pauses_are_snapped_to() -> None:
    silences = [Span(9_000, 10_000), Span(40_000, 42_000)]
    assert refined(10_900, 39_500, silences=silences) == Span(10_000 - LEAD_MS, 40_000 + TAIL_MS)


def test_without_words_and_pauses_scene_cuts_are_snapped_to() -> None:
    assert refined(10_500, 39_500, scene_cuts_ms=[10_000, 40_100]) == Span(10_000, 40_100)


def test_with_nothing_to_go_by_a_moment_stays_and_says_so() -> None:
    result = LocalRefiner().refine(moment(10_000, 20_000), VideoContent(HOUR.end_ms), within=HOUR)
    assert result.span == Span(10_000, 20_000)
    assert result.note.startswith("unchanged: start at no word, pause or scene cut nearby")


def test_the_note_says_what_moved_and_how_far() -> None:
    video = VideoContent(HOUR.end_ms, sentences=[sentence(8_000, 10_000)], silences=[Span(40_000, 41_000)])
    note = LocalRefiner().refine(moment(9_000, 39_600), video, within=HOUR).note
    assert note == "start to the start of a sentence (−1.25 s); end to a pause (+0.75 s)"


def test_a_clip_that_lies_inside_one_word_leaves_the_moment_alone() -> None:
    assert refined(10_500, 12_000, within=Span(10_200, 13_000), words=words((5_000, 20_000))) == Span(10_500, 12_000)


def test_a_moment_that_would_vanish_keeps_a_boundary() -> None:
    spoken = words((10_000, 14_000), (20_000, 21_000))
    span = refined(12_500, 13_900, within=Span(12_000, 21_000), words=spoken)
    assert span.length_ms >= MIN_LENGTH_MS


def test_a_moment_of_which_nothing_would_be_left_stays() -> None:
    spoken = words((5_000, 13_900), (15_000, 40_000))
    video = VideoContent(HOUR.end_ms, words=spoken)
    result = LocalRefiner().refine(moment(13_000, 14_200), video, within=HOUR)
    assert result.span == Span(13_000, 14_200)
    assert result.note == "unchanged: nothing would be left of it"


def test_a_place_is_only_taken_where_all_cheaper_ones_were_looked_at() -> None:
    """The end can't stay; a word costs 6.35 s, a sentence just out of reach 6.001: refined again it would win."""
    spoken = words((19_500, 19_900), (20_200, 21_000), (21_700, 26_001), (26_001, 27_000))
    sentences = [sentence(19_500, 19_900), sentence(20_200, 26_001), sentence(26_001, 27_000)]
    once = refined(18_500, 20_000, words=spoken, sentences=sentences)
    assert refined(once.start_ms, once.end_ms, words=spoken, sentences=sentences) == once


def test_a_start_leaves_room_for_the_moment_before_the_clip_ends() -> None:
    sentences = [sentence(17_000, 19_400), sentence(19_400, 20_000)]
    assert refined(19_300, 20_000, within=Span(0, 20_000), sentences=sentences) == Span(16_750, 20_000)


def test_a_moment_outside_of_its_clip_is_refused() -> None:
    with pytest.raises(CheckError, match="outside of its clip"):
        refined(10_000, 20_000, within=Span(30_000, 40_000))


def test_a_moment_over_the_edge_of_its_clip_comes_inside() -> None:
    assert refined(10_000, 20_000, within=Span(12_000, 19_000)) == Span(12_000, 19_000)


def calls_during(work: Callable[[], object]) -> int:
    count = 0

    def on_event(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_ten_times_the_words_cost_hardly_more() -> None:
    def work(count: int) -> int:
        spoken = words(*((at * 300, at * 300 + 250) for at in range(count)))
        video = VideoContent(count * 300, words=spoken, sentences=sentences_from_words(spoken))
        asked = moment(count * 100, count * 200)
        return calls_during(lambda: LocalRefiner().refine(asked, video, within=video.span))

    assert work(10_000) < 1.5 * work(1_000)
