from __future__ import annotations

import random
from itertools import pairwise

import pytest

from moments_core.content import VideoContent
from moments_core.finder.find import LocalFinder
from moments_core.finder.vocabulary import noise
from moments_core.moment import Found, overlapping_pairs
from moments_core.options import Options
from moments_core.time import Span
from moments_core.transcript import Sentence

GARDEN = ["soil", "compost", "seeds", "tomato", "watering", "roots", "mulch", "pruning", "greenhouse", "slugs"]
ROCKET = ["orbit", "thruster", "payload", "launch", "booster", "telemetry", "nozzle", "staging", "capsule", "reentry"]
BREAD = ["sourdough", "flour", "oven", "crust", "yeast", "kneading", "proofing", "starter", "hydration", "crumb"]
TOPICS = (GARDEN, ROCKET, BREAD)


def talk(
    topics: tuple[list[str], ...] = TOPICS, *, sentences: int = 25, seconds: int = 5, seed: int = 3
) -> VideoContent:
    """A talk on one topic after the other, each opened by a cue, in made-up sentences."""
    dice = random.Random(seed)
    said: list[Sentence] = []
    for topic in topics:
        for number in range(sentences):
            start = len(said) * seconds * 1000
            cue = f"So next let's talk about the {topic[0]}." if not number else ""
            text = cue or f"You see the {' and the '.join(dice.sample(topic, 3))} in our {dice.choice(topic)}."
            said.append(Sentence(start_ms=start, end_ms=start + seconds * 1000, text=text))
    return VideoContent(len(said) * seconds * 1000, said)


def found_in(content: VideoContent, **options: object) -> Found:
    return LocalFinder().find(content, Options.model_validate(options))


def assert_lawful(found: Found, content: VideoContent) -> None:
    """What every caller relies on, whatever went in."""
    moments = found.moments
    assert found.note
    assert list(moments) == sorted(moments, key=lambda moment: moment.span)
    assert all(content.span.contains(moment.span) for moment in moments)
    assert not overlapping_pairs(moments)
    assert len({moment.title for moment in moments}) == len(moments)
    assert all(0 < len(moment.title) <= 80 for moment in moments)
    assert all(0.0 <= moment.score <= 1.0 for moment in moments)


def test_three_topics_are_cut_where_they_change() -> None:
    found = found_in(talk())
    starts = [moment.span.start_ms for moment in found.moments]
    assert {0, 125_000, 250_000} <= set(starts)
    assert found.note == f"{len(starts)} moments from 75 sentences"


def test_moments_tile_the_speech() -> None:
    content = talk()
    moments = found_in(content).moments
    assert moments[0].span.start_ms == 0
    assert moments[-1].span.end_ms == content.duration_ms
    assert all(one.span.end_ms == other.span.start_ms for one, other in pairwise(moments))


def test_the_same_video_gives_the_same_moments() -> None:
    assert found_in(talk()) == found_in(talk())


def test_scores_differ_between_moments() -> None:
    assert len({moment.score for moment in found_in(talk()).moments}) > 1


def test_the_recipe_names_the_data_that_decides() -> None:
    assert LocalFinder().recipe.startswith("local-2-")
    assert len(LocalFinder().recipe) == len("local-2-") + 8


@pytest.mark.parametrize("seconds", [11, 42])
def test_a_short_talk_is_one_moment(seconds: int) -> None:
    said = [
        Sentence(start_ms=at * 1000, end_ms=at * 1000 + 3000, text=f"We look at the {GARDEN[at % 10]} today.")
        for at in range(0, seconds - 2, 3)
    ]
    content = VideoContent(seconds * 1000, said)
    found = found_in(content)
    assert len(found.moments) == 1
    assert_lawful(found, content)


def test_a_video_without_length_has_no_moments_and_says_why() -> None:
    assert found_in(VideoContent(0)) == Found((), "The video has no length: there is nothing to find.")


def test_max_moments_keeps_the_best_in_time_order() -> None:
    every = found_in(talk()).moments
    best = sorted(every, key=lambda moment: moment.score)[-2:]
    kept = found_in(talk(), max_moments=2).moments
    assert kept == tuple(sorted(best, key=lambda moment: moment.span))


@pytest.mark.parametrize("limit", [4, 12, 40, 90])
def test_no_moment_is_longer_than_max_seconds(limit: int) -> None:
    found = found_in(talk(), max_seconds=limit)
    assert max(moment.span.length_ms for moment in found.moments) <= limit * 1000
    assert_lawful(found, talk())


@pytest.mark.parametrize("limit", [10, 25, 60, 100])
def test_no_moment_is_shorter_than_min_seconds(limit: int) -> None:
    found = found_in(talk(), min_seconds=limit)
    assert min(moment.span.length_ms for moment in found.moments) >= limit * 1000


def test_a_minimum_over_the_video_length_gives_the_whole_talk() -> None:
    assert [moment.span for moment in found_in(talk(), min_seconds=5_000).moments] == [talk().span]


def test_one_long_sentence_is_one_moment_and_obeys_max_seconds() -> None:
    content = VideoContent(600_000, [Sentence(start_ms=0, end_ms=600_000, text="Everything about the greenhouse.")])
    assert [moment.span for moment in found_in(content).moments] == [content.span]
    assert [moment.span for moment in found_in(content, max_seconds=30).moments] == [Span(0, 30_000)]


def test_a_long_silence_at_the_end_of_a_moment_is_cut_off() -> None:
    whole = talk()
    silence = Span(250_000, 270_000)
    later = [
        sentence.model_copy(update={"start_ms": sentence.start_ms + 20_000, "end_ms": sentence.end_ms + 20_000})
        for sentence in whole.sentences[50:]
    ]
    content = VideoContent(
        whole.duration_ms + 20_000, [*whole.sentences[:50], *later], silences=[silence, Span(100_000, 100_500)]
    )
    ends = [moment.span.end_ms for moment in found_in(content).moments]
    assert silence.start_ms + 300 in ends
    assert silence.end_ms not in ends


def test_a_query_keeps_what_speaks_of_it() -> None:
    found = found_in(talk(), query="thrusters in orbit")
    assert found.moments
    assert all(125_000 <= moment.span.start_ms < 250_000 for moment in found.moments)
    assert found.note.endswith('kept what relates to "thrusters in orbit"')
    assert_lawful(found, talk())


def test_a_query_raises_the_score_of_what_it_keeps() -> None:
    plain = {moment.span: moment.score for moment in found_in(talk()).moments}
    steered = found_in(talk(), query="orbit thruster payload launch").moments
    assert max(moment.score for moment in steered) > max(plain.values()) * 0.9


def test_a_query_tightens_a_long_moment() -> None:
    said = list(talk((GARDEN, GARDEN), sentences=40).sentences)
    for index in (50, 51, 52):
        said[index] = said[index].model_copy(update={"text": "The volcano threw lava over the village."})
    found = found_in(VideoContent(400_000, said), query="volcano")
    assert len(found.moments) == 1
    assert found.moments[0].span.start_ms <= 250_000
    assert found.moments[0].span.length_ms <= 60_000


def test_a_query_that_nothing_relates_to_returns_all_and_says_so() -> None:
    found = found_in(talk(), query="cryptocurrency")
    assert found.moments == found_in(talk()).moments
    assert found.note.endswith('nothing relates to "cryptocurrency", so all are shown')


@pytest.mark.parametrize("query", ["the", "?!", "thruster's", "ORBITS", "orbital", "日本"])
def test_any_query_is_answered(query: str) -> None:
    assert_lawful(found_in(talk(), query=query), talk())


def test_other_endings_of_a_word_are_found() -> None:
    assert "kept" in found_in(talk(), query="orbits").note
    assert "kept" in found_in(talk(), query="orbital").note


def test_sentences_out_of_order_and_beyond_the_end_are_taken_in_order() -> None:
    whole = talk()
    beyond = Sentence(start_ms=whole.duration_ms + 1, end_ms=whole.duration_ms + 9, text="Never heard.")
    late_end = whole.sentences[-1].model_copy(update={"end_ms": whole.duration_ms + 60_000})
    shuffled = [beyond, late_end, *reversed(whole.sentences[:-1])]
    assert found_in(VideoContent(whole.duration_ms, shuffled)) == found_in(whole)


def test_sentences_with_one_start_are_one() -> None:
    content = VideoContent(60_000, [Sentence(start_ms=5, end_ms=50, text=f"The {word} here.") for word in GARDEN * 50])
    assert found_in(content).note == "1 moment from 1 sentence"


def test_text_without_a_letter_counts_as_no_speech() -> None:
    content = VideoContent(60_000, [Sentence(start_ms=0, end_ms=9_000, text="♪♪ ... —")])
    assert found_in(content).note.startswith("No speech was found")


@pytest.mark.parametrize(
    "words",
    [
        ["blah"],
        ["42", "7", "1999"],
        ["日本語", "東京", "映画"],
        ["привет", "огород", "помидор", "и", "в", "на"],
        ["yeah", "um", "uh", "okay"],
        ["ﷺ", "İstanbul", "ß", "ΑΣ", "e\u0301te\u0301"],
        ["a" * 5_000],
    ],
)
def test_any_words_give_lawful_moments(words: list[str]) -> None:
    dice = random.Random(5)
    said = [
        Sentence(start_ms=at * 3000, end_ms=at * 3000 + 2900, text=" ".join(dice.choices(words, k=6)))
        for at in range(200)
    ]
    content = VideoContent(600_000, said)
    assert_lawful(found_in(content), content)


def test_twenty_thousand_sentences_are_found_in() -> None:
    dice = random.Random(2)
    said = [
        Sentence(start_ms=at * 1800, end_ms=at * 1800 + 1800, text=f"The {dice.choice(TOPICS[at // 500 % 3])}.")
        for at in range(20_000)
    ]
    content = VideoContent(36_000_000, said)
    found = found_in(content)
    assert 40 < len(found.moments) < 100
    assert_lawful(found, content)


def _hostile(dice: random.Random) -> VideoContent:
    """Sentences anywhere, overlapping, of any length, in words or noise."""
    duration = dice.choice([1, 900, 30_000, 400_000, 3_600_000])
    words = [*GARDEN, *ROCKET, *sorted(noise())[:20], "42", "❤", "-", "東京", "Zoë's"]
    said = []
    for _ in range(dice.choice([0, 1, 2, 30, 150])):
        start = dice.randrange(0, duration + 1000, dice.choice([1, 500]))
        text = " ".join(dice.choices(words, k=dice.randint(1, 9))) + dice.choice(["", ".", "?"])
        said.append(Sentence(start_ms=start, end_ms=start + dice.choice([1, 2_000, duration]), text=text))
    cuts = [dice.randrange(0, duration + 500) for _ in range(dice.choice([0, 1, 40]))]
    silences = sorted(
        Span(at, at + dice.randint(1, 9_000)) for at in dice.choices(range(duration), k=dice.choice([0, 5]))
    )
    levels = [dice.uniform(-120, 0) for _ in range(dice.choice([0, 3, duration // 1000 + 1]))]
    return VideoContent(duration, said, (), silences, cuts, levels)


def _any_options(dice: random.Random) -> dict[str, object]:
    least = dice.choice([None, 0.01, 5, 25, 400])
    most = dice.choice([None, 0.4, 20, 500])
    return {
        "query": dice.choice([None, None, "compost", "nowhere", "the"]),
        "max_moments": dice.choice([None, 1, 3]),
        "min_seconds": least,
        "max_seconds": most if most is None or most >= (least or 0) else None,
    }


@pytest.mark.parametrize("seed", range(120))
def test_any_content_and_options_give_lawful_moments(seed: int) -> None:
    dice = random.Random(seed)
    content, options = _hostile(dice), _any_options(dice)
    found = found_in(content, **options)
    assert_lawful(found, content)
    assert found.moments
    if options["max_seconds"] is not None:
        limit_ms = max(1, round(float(str(options["max_seconds"])) * 1000))
        assert all(moment.span.length_ms <= limit_ms for moment in found.moments)
    if options["max_moments"] is not None:
        assert len(found.moments) <= int(str(options["max_moments"]))
