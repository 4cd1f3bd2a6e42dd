from __future__ import annotations

from itertools import pairwise

import pytest

from moments_core.finder.passages import Passage
from moments_core.finder.roles import Roles
from moments_core.finder.salience import Part
from moments_core.finder.text import is_content, stem, terms, words
from moments_core.finder.titles import titles
from moments_core.finder.vocabulary import noise, word_list


def said(*texts: str) -> list[Passage]:
    return [Passage(at * 5000, at * 5000 + 5000, text, tuple(terms(text))) for at, text in enumerate(texts)]


def titles_of(*parts: list[str]) -> list[str]:
    texts = [text for part in parts for text in part]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part))
    return titles([Part(first, last) for first, last in pairwise(bounds)], said(*texts))


GARDEN = [
    "So let's talk about the compost heap.",
    "You know, the compost heap is warm because of the worms.",
    "Yeah, I put the kitchen scraps on the compost heap.",
]
NETWORK = [
    "Now what is the Lightning Network?",
    "People use the Lightning Network for small payments.",
    "The UTXO set is not touched by the Lightning Network.",
]


def test_a_title_is_what_its_part_says_and_the_others_do_not() -> None:
    first, second = titles_of(GARDEN, NETWORK)
    assert first.startswith("Compost heap")
    assert second.startswith("Lightning Network")


def test_acronyms_and_names_keep_their_capitals() -> None:
    texts = ["The UTXO set grows.", "We prune the UTXO set.", "Every UTXO set needs an iPhone."]
    assert titles_of(texts, GARDEN)[0].startswith("UTXO set")


def test_titles_are_told_apart_in_one_video() -> None:
    named = titles_of(GARDEN, GARDEN, GARDEN)
    assert len({title.lower() for title in named}) == 3


@pytest.mark.parametrize(
    "texts", [["Yeah, um, you know, I mean."], ["42 7 1999"], ["Going to, going to."], ["the of and"]]
)
def test_a_part_that_says_nothing_is_named_by_its_place(texts: list[str]) -> None:
    assert titles_of(GARDEN, texts)[1] == "Part 2, 0:15"


def test_no_title_begins_or_ends_with_a_filler_or_stop_word() -> None:
    for title in titles_of(GARDEN, NETWORK):
        for phrase in title.lower().split(" and "):
            assert not {phrase.split()[0], phrase.split()[-1]} & noise()


def test_other_languages_get_titles_of_their_long_words() -> None:
    texts = ["Der Garten und der Kompost sind gut.", "Der Kompost ist in der Erde.", "Und der Kompost ist der Dünger."]
    assert "Kompost" in titles_of(texts * 3, GARDEN)[0]


def test_a_title_has_at_most_80_characters() -> None:
    long = [f"The {'x' * 29} {'y' * 29} {'z' * 29}."] * 4
    assert all(len(title) <= 80 for title in titles_of(long, GARDEN))


def test_a_verb_is_told_from_a_noun_by_its_neighbours() -> None:
    roles = Roles([["we", "accept", "the", "offer"], ["i", "accept", "it"], ["the", "offer", "of", "the", "day"]])
    assert roles.nounness("accept") < 0.5 < roles.nounness("offer")


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [
        ("channels", "channel"),
        ("channel's", "channel"),
        ("policies", "policy"),
        ("boxes", "box"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("stopping", "stop"),
        ("computed", "comput"),
        ("string", "string"),
        ("gas", "gas"),
    ],
)
def test_endings_are_folded(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_words_of_any_script_are_found() -> None:
    assert words("Don’t stop—peer-to-peer, v3.1!") == ["don't", "stop", "peer-to-peer", "v3.1"]
    assert words("日本語") == ["日本", "本語"]
    assert words("♪♪ ...") == []


def test_fillers_numbers_and_hashes_are_no_content() -> None:
    assert not any(is_content(word) for word in ("yeah", "the", "x", "1999", "f" * 64))
    assert is_content("compost")


def test_word_lists_are_in_lower_case_and_read_once() -> None:
    assert all(word == word.lower() for word in word_list("stop_words", "fillers", "never_in_title"))
    assert word_list("generic") is word_list("generic")


def test_two_nouns_joined_by_of_stay_together() -> None:
    texts = ["Look at the center of mass.", "The center of mass moves.", "Its center of mass is a red dot."]
    assert titles_of(texts, GARDEN)[0] == "Center of mass"


def test_what_a_cue_announces_is_preferred() -> None:
    texts = ["The dusty crates are there.", "The second question is about the copper tape.", "It rains."]
    assert titles_of(texts, NETWORK)[0].startswith("Copper tape")


def test_a_verb_of_the_third_person_ends_a_heading() -> None:
    texts = ["The garden gate stays shut.", "A garden gate needs oil.", "The garden gate stays there."]
    assert titles_of(texts, NETWORK)[0] == "Garden gate"


def test_a_strong_phrase_stands_alone() -> None:
    texts = ["The compost heap is warm.", "Every compost heap steams.", "A compost heap in the rain.", "It has a lid."]
    assert titles_of(texts, NETWORK)[0] == "Compost heap"


def test_one_word_gives_way_to_a_phrase_that_holds_it() -> None:
    texts = ["The rocket equation is short.", "The rocket equation has a logarithm.", "A rocket is mostly fuel."]
    assert titles_of(texts, GARDEN)[0].startswith("Rocket equation")


def test_a_word_written_apart_is_not_joined_to_itself() -> None:
    texts = ["The stablecoins grow.", "People like stable coins.", "The stablecoins and the stable coins are new."]
    assert titles_of(texts, GARDEN)[0].lower() not in {"stablecoins and stable coins", "stable coins and stablecoins"}


def test_words_said_far_apart_are_not_joined() -> None:
    apart = ["The lantern is.", *["It is so."] * 8, "The anchor is."]
    near = ["The lantern is.", "The anchor is.", *["It is so."] * 8]
    assert " and " not in titles_of(apart, GARDEN)[0]
    assert " and " in titles_of(near, GARDEN)[0]


def test_the_subject_of_the_whole_video_names_none_of_its_parts() -> None:
    garden = ["The garden is there."]
    ladder = [*garden * 2, "The ladder is here.", "A ladder is there."]
    lantern = [*garden, "The lantern is here.", "A lantern is there."]
    others = [["The anchor is here."] * 4, ["The bucket is there."] * 4]
    assert [title.split()[-1].lower() for title in titles_of(ladder, lantern, *others)[:2]] == ["ladder", "lantern"]


def test_of_joins_nouns_only_and_per_stands_inside() -> None:
    vague = ["A deadline of existing users.", "The deadline of existing plans.", "One deadline of existing rules."]
    assert "existing" not in titles_of(vague, GARDEN)[0].lower().split(" and ")[0].split()[-1]
    rate = ["It is paid per payment.", "That is so per payment.", "They are per payment."]
    assert titles_of(rate, GARDEN)[0].split()[0].lower() != "per"
