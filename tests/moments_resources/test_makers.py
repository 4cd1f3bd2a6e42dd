"""Which maker does a job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moments_core.options import Options
from moments_resources.makers import Choice
from moments_resources.step import Step


@pytest.fixture
def step(new_step: Callable[..., Step]) -> Step:
    return new_step()


def asked(key: str, step: Step) -> str:
    return f"{key} for {step.request.asset}"


def test_a_maker_is_chosen_by_the_option_or_else_by_the_setting(step: Step) -> None:
    choice = Choice({"local": lambda: "a", "large": lambda: "b"}, asked, "local", "generation_model")
    assert choice.choose(Options(), step) == "a"
    assert choice.choose(Options(generation_model="large"), step) == "b"
    assert choice.choose(Options(refinement_model="large"), step) == "a"
    assert Choice({"local": lambda: "a"}, asked, "local").choose(Options(generation_model="large"), step) == "a"


def test_any_other_key_is_a_model_of_the_registry_and_works_for_this_step(step: Step) -> None:
    choice = Choice({"local": lambda: "a"}, asked, "minimax", "generation_model")
    assert choice.choose(Options(), step) == "minimax for scene_cuts"
    assert choice.choose(Options(generation_model="local"), step) == "a"
    assert choice.choose(Options(generation_model="qwen"), step) == "qwen for scene_cuts"
