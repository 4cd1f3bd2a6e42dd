from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from moments_core.content import VideoContent
from moments_core.finder.breaks import break_evidence
from moments_core.finder.find import LocalFinder
from moments_core.finder.passages import Passage, passages
from moments_core.options import Options
from moments_core.time import Span, to_ms
from moments_core.transcript import Sentence

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "sample.truth.json"


def starts_in(content: VideoContent) -> list[int]:
    return [moment.span.start_ms for moment in LocalFinder().find(content, Options()).moments]


def talk(topics: int, *, sentences: int, seed: int = 4) -> VideoContent:
    """A talk of made-up words, 5 s a sentence, in which nobody says that the topic changes."""
    dice = random.Random(seed)
    names = [[f"{''.join(dice.choices('bdklmnrstaeiou', k=6))}" for _ in range(14)] for _ in range(topics)]
    said = [
        Sentence(
            start_ms=at * 5000,
            end_ms=at * 5000 + 4700,
            text=f"You see the {' and the '.join(dice.sample(names[at // sentences], 3))} here.",
        )
        for at in range(topics * sentences)
    ]
    return VideoContent(len(said) * 5000, said)


def sample(*, cuts: bool, pauses: bool) -> tuple[VideoContent, list[int]]:
    """The sample talk as its truth file tells it, and where its topics begin."""
    truth = json.loads(SAMPLE.read_text(encoding="utf-8"))
    said = [
        Sentence(start_ms=to_ms(one["start_time"]), end_ms=to_ms(one["end_time"]), text=one["text"])
        for one in truth["captions"]
    ]
    gaps = [(one.end_ms, other.start_ms) for one, other in pairwise(said)]
    content = VideoContent(
        to_ms(truth["duration"]),
        said,
        silences=[Span(start, end) for start, end in gaps if end - start >= 350] if pauses else [],
        scene_cuts_ms=[to_ms(time) for time in truth["slides"] if time > 0] if cuts else [],
    )
    return content, [to_ms(topic["start_time"]) for topic in truth["topics"]]


def evidence_of(said: Sequence[Passage], content: VideoContent) -> np.ndarray:
    found = break_evidence(said, content, np.zeros(len(said)))
    assert found is not None
    return found


def test_slides_and_pauses_show_a_change_that_the_words_of_a_short_video_hide() -> None:
    content, topics = sample(cuts=True, pauses=True)
    found = starts_in(content)
    assert len(found) == len(topics) == len([at for at in topics if min(abs(at - one) for one in found) <= 3000])


def test_a_slide_within_a_topic_opens_no_moment() -> None:
    content, _ = sample(cuts=True, pauses=True)
    assert min(abs(start - 22_880) for start in starts_in(content)) > 10_000


def test_neither_cuts_nor_pauses_alone_add_a_moment_to_the_sample() -> None:
    plain = starts_in(sample(cuts=False, pauses=False)[0])
    assert starts_in(sample(cuts=True, pauses=False)[0]) == plain
    assert starts_in(sample(cuts=False, pauses=True)[0]) == plain


def test_where_nothing_is_seen_or_heard_there_is_no_evidence_of_it() -> None:
    content = talk(2, sentences=10)
    assert break_evidence(passages(content), content, np.zeros(20)) is None
    outside = replace(content, scene_cuts_ms=[-5, 0, content.duration_ms, 10**9])
    assert break_evidence(passages(outside), outside, np.zeros(20)) is None


@pytest.mark.parametrize("every_s", [1, 2, 3])
def test_footage_edited_fast_tells_nothing(every_s: int) -> None:
    content = talk(3, sentences=25)
    edited = replace(content, scene_cuts_ms=range(every_s * 1000, content.duration_ms, every_s * 1000))
    assert not evidence_of(passages(edited), edited).any()
    assert starts_in(edited) == starts_in(content)


def test_a_rare_cut_counts_more_than_one_of_many() -> None:
    content = talk(2, sentences=60)
    many = [*range(10_000, 200_000, 10_000), 400_000]
    edited = replace(content, scene_cuts_ms=many)
    evidence = evidence_of(passages(edited), edited)
    assert evidence[80] > evidence[20] + 1


def test_the_nearer_a_cut_to_what_is_said_the_more_it_counts() -> None:
    content = talk(2, sentences=30)
    evidence = [
        evidence_of(passages(content), replace(content, scene_cuts_ms=[150_000 + off]))[30]
        for off in (0, 1000, 2400, 60_000)
    ]
    assert evidence == sorted(evidence, reverse=True)
    assert evidence[-1] < 0.3


def test_slides_without_a_change_of_topic_add_no_more_than_a_quarter() -> None:
    content = talk(1, sentences=240)
    slides = replace(content, scene_cuts_ms=range(40_000, content.duration_ms, 40_000))
    assert len(starts_in(slides)) <= 1.25 * len(starts_in(content)) + 1


def test_cuts_at_which_nothing_new_is_said_lose_trust() -> None:
    content = replace(talk(1, sentences=240), scene_cuts_ms=range(40_000, 1_200_000, 40_000))
    said = passages(content)
    at_cuts = np.zeros(240)
    at_cuts[8::8] = 0.8
    trusted, mistrusted = break_evidence(said, content, at_cuts), break_evidence(said, content, -at_cuts)
    assert trusted is not None
    assert mistrusted is not None
    assert trusted[8] > 1.5
    assert mistrusted[8] < 0.1


def test_in_a_long_talk_with_slides_moments_open_at_the_slides_that_open_topics() -> None:
    content = talk(12, sentences=60)
    changes = range(300_000, content.duration_ms, 300_000)
    slides = sorted({*(at + 1200 for at in changes), *range(100_000, content.duration_ms, 100_000)} - {*changes})
    found = starts_in(replace(content, scene_cuts_ms=slides))
    hit = [at for at in changes if min(abs(at - one) for one in found) <= 3000]
    assert len(hit) >= 10
    assert len(found) <= 17


def test_a_pause_counts_against_the_pauses_of_its_own_video() -> None:
    content = talk(2, sentences=30)
    edges = [sentence.start_ms for sentence in content.sentences[1:]]
    brisk = [Span(at - 400, at) for at in edges]
    brisk[29] = Span(edges[29] - 1600, edges[29])
    slow = [Span(at - 1600, at) for at in edges]
    said = passages(content)
    among_short = evidence_of(said, replace(content, silences=brisk))
    assert int(among_short.argmax()) == 30
    assert among_short[30] > 1.5
    assert evidence_of(said, replace(content, silences=slow))[30] < 0.1


def test_silences_far_from_any_sentence_are_survived() -> None:
    content = VideoContent(90_000, [Sentence(start_ms=80_000, end_ms=85_000, text="The compost heap is warm.")])
    quiet = replace(content, silences=[Span(0, 60_000), Span(86_000, 90_000)], scene_cuts_ms=[1, 89_999])
    assert starts_in(quiet) == [80_000]
