"""From words to sentences, and the rules that a transcript keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from moments_core.transcript import Sentence, TimedText, Transcript, Word

SHORTEST_PAUSE_MS = 600  # between two sentences speakers rest 0.5 s and more; inside one, seldom over 0.4 s
PUNCTUATED_PAUSE_MS = 2_000  # where full stops tell the sentences, only a break this long overrules them
MOST_PROBLEMS = 10  # enough to see what is wrong; a broken recogniser breaks every word

_ENDS = frozenset(".!?…。！？؟।")
_CLOSERS = "\"'”’»)]」』"
_CLAUSE_ENDS = (",", ";", ":", "、", "，")
_ABBREVIATIONS = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "approx", "fig", "gen", "col", "lt", "sgt", "rev", "cf")
)


@dataclass(frozen=True, slots=True)
class Pacing:
    """Where sentences end when nothing is written: at pauses of `pause_ms`, and before a limit is passed."""

    pause_ms: int
    max_words: int
    max_ms: int


def ends_sentence(text: str, following: str | None = None) -> bool:
    """Whether a word closes its sentence; `following` is the word after it.

    "Mr.", "U.S." and "J." close none, and an ellipsis before a small letter goes on.
    """
    bare = text.rstrip(_CLOSERS)
    if not bare or bare[-1] not in _ENDS:
        return False
    if following is None or bare[-1] != ".":
        return True
    if bare.endswith("..."):
        return not following[:1].islower()
    return not _is_abbreviation(bare[:-1].lstrip("\"'“‘«(["))


def _is_abbreviation(stem: str) -> bool:
    letters = stem.split(".")
    lettered = all(len(letter) == 1 and letter.isalpha() for letter in letters)
    initial = lettered and (len(letters) > 1 or (stem.isupper() and stem != "I"))
    return initial or stem.lower() in _ABBREVIATIONS


def pacing_of(words: Sequence[Word]) -> Pacing:
    """How to cut these words: by their punctuation where they have any, else by the speaker's own pauses.

    A text counts as punctuated from one full stop in 40 words on. Without, only pauses over the nine-tenths
    quantile count: a slow speaker's sentences have ten words then, where 600 ms would cut after every phrase.
    """
    stops = sum(ends_sentence(word.text) for word in words)
    if stops and stops * 40 >= len(words):
        return Pacing(PUNCTUATED_PAUSE_MS, max_words=60, max_ms=30_000)
    gaps = sorted(after.start_ms - before.end_ms for before, after in pairwise(words))
    usual = gaps[len(gaps) * 9 // 10] if len(gaps) >= 20 else 0
    return Pacing(min(max(SHORTEST_PAUSE_MS, usual + 1), PUNCTUATED_PAUSE_MS), max_words=25, max_ms=20_000)


def sentences_from_words(
    words: Sequence[Word], *, pacing: Pacing | None = None, speaker: str | None = None, turn_start: bool = False
) -> tuple[Sentence, ...]:
    """Sentences of words in time order; every word is in exactly one.

    `pacing` defaults to `pacing_of(words)`. All are said by `speaker`; `turn_start` is of the first one.
    """
    pacing = pacing or pacing_of(words)
    runs = (piece for run in _runs(words, pacing) for piece in _fitting(run, pacing))
    return tuple(
        Sentence(
            start_ms=run[0].start_ms,
            end_ms=run[-1].end_ms,
            text=" ".join(word.text for word in run),
            speaker=speaker,
            turn_start=turn_start and index == 0,
        )
        for index, run in enumerate(runs)
    )


def _runs(words: Sequence[Word], pacing: Pacing) -> Iterator[Sequence[Word]]:
    start = 0
    for index, (word, after) in enumerate(pairwise(words), start=1):
        if after.start_ms - word.end_ms >= pacing.pause_ms or ends_sentence(word.text, after.text):
            yield words[start:index]
            start = index
    if words:
        yield words[start:]


def _fitting(run: Sequence[Word], pacing: Pacing) -> Iterator[Sequence[Word]]:
    start = 0
    while (room := _room(run, start, pacing)) < len(run) - start:
        cut = _best_cut(run, start, room)
        yield run[start:cut]
        start = cut
    yield run[start:]


def _room(run: Sequence[Word], start: int, pacing: Pacing) -> int:
    """How many words from `start` on stay inside both limits; at least one."""
    latest = run[start].start_ms + pacing.max_ms
    window = run[start : start + pacing.max_words]
    return max(1, next((index for index, word in enumerate(window) if word.end_ms > latest), len(window)))


def _best_cut(run: Sequence[Word], start: int, room: int) -> int:
    """The longest pause in the second half of the room; among equals after a comma, then near the middle."""
    middle = start + min(room, (len(run) - start) // 2)

    def merit(cut: int) -> tuple[int, bool, int]:
        before = run[cut - 1]
        return run[cut].start_ms - before.end_ms, before.text.endswith(_CLAUSE_ENDS), -abs(cut - middle)

    return max(range(start + max(1, room // 2), start + room + 1), key=merit)


def ordered_words(words: Iterable[Word], *, duration_ms: int) -> tuple[Word, ...]:
    """The words by start, none over another, all inside [0, duration_ms).

    Where two overlap, the former ends early; a word past the video's end is left out, for nothing shows it.
    """
    by_start = sorted(words, key=lambda word: word.start_ms)
    kept: list[Word] = []
    free_from = 0
    for index, word in enumerate(by_start):
        start = max(word.start_ms, free_from)
        if start >= duration_ms:
            break
        limit = by_start[index + 1].start_ms if index + 1 < len(by_start) else duration_ms
        free_from = min(max(min(word.end_ms, limit), start + 1), duration_ms)
        same = (start, free_from) == (word.start_ms, word.end_ms)
        kept.append(word if same else word.model_copy(update={"start_ms": start, "end_ms": free_from}))
    return tuple(kept)


def transcript_problems(transcript: Transcript, duration_ms: int) -> list[str]:
    """What breaks "words and sentences are in time order and inside the video"; empty where nothing does.

    Names the first 10 and counts the rest. Words may touch but not overlap; sentences may overlap.
    """
    words, sentences = transcript.words, transcript.sentences
    problems = (
        *_outside("word", words, duration_ms),
        *_outside("sentence", sentences, duration_ms),
        *(
            f"{_named('word', at, after)} begins before the one ahead of it ends, at {before.end_ms / 1000:.3f} s"
            for at, (before, after) in enumerate(pairwise(words), start=1)
            if after.start_ms < before.end_ms
        ),
        *(
            f"{_named('sentence', at, after)} stands after one that begins at {before.start_ms / 1000:.3f} s"
            for at, (before, after) in enumerate(pairwise(sentences), start=1)
            if after.start_ms < before.start_ms
        ),
    )
    rest = len(problems) - MOST_PROBLEMS
    return [*islice(problems, MOST_PROBLEMS), *([f"and {rest} more"] if rest > 0 else [])]


def _outside(kind: str, texts: Sequence[TimedText], duration_ms: int) -> Iterator[str]:
    for index, text in enumerate(texts):
        if text.start_ms < 0 or text.end_ms > duration_ms:
            yield f"{_named(kind, index, text)} lies outside the video, which ends at {duration_ms / 1000:.3f} s"


def _named(kind: str, index: int, text: TimedText) -> str:
    shown = text.text if len(text.text) <= 40 else f"{text.text[:39]}…"
    return f'{kind} {index} "{shown}" ({text.start_ms / 1000:.3f}–{text.end_ms / 1000:.3f} s)'
