"""The talk of the sample: what is said and what stands on the slides. Text only."""

from __future__ import annotations

from dataclasses import dataclass

TALK_TITLE = "A year in a community garden"


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide, and the sentences that are said while it is shown. `look` names an entry of `slides.LOOKS`."""

    title: str
    points: tuple[str, str, str]
    look: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """One stretch of the talk with a subject of its own; each of its slides follows the one before."""

    title: str
    slides: tuple[Slide, ...]


# Some topics open with a cue phrase ("Next", "Let us turn to") and some without any: real talks do both, and a
# finder that only listens for cues must not pass on this sample.
TOPICS: tuple[Topic, ...] = (
    Topic(
        "Soil and compost",
        (
            Slide(
                "Know your soil",
                ("Dig a hole, look at the layers", "Dark and crumbly: start now", "Pale and sticky: feed it first"),
                "soil",
                (
                    "Everything in a community garden begins with the soil under our boots.",
                    "When we took over this plot, it was heavy clay, full of broken brick and old roots.",
                    "We dug a small hole in every bed and looked at the layers before planting anything.",
                    "Dark, crumbly earth with plenty of worms means that you can start right away.",
                    "Ours was pale and sticky, so we decided to make compost.",
                ),
            ),
            Slide(
                "Building a compost heap",
                ("Two parts leaves, one part peelings", "Turn it every second week", "Sour smell? Add cardboard"),
                "compost",
                (
                    "A good heap needs two parts dry leaves to one part kitchen peelings.",
                    "Turn it with a fork every second week, so that air gets into the middle.",
                    "If it smells sour, it is too wet, and a layer of torn cardboard will cure it.",
                    "After six months we spread the finished compost two fingers deep, and the clay loosened up.",
                ),
            ),
        ),
    ),
    Topic(
        "Watering and rain barrels",
        (
            Slide(
                "Watering and rain barrels",
                ("Early, slowly, at the roots", "Four barrels under the shed roof", "One storm: 800 litres for free"),
                "water",
                (
                    "Next, the question that every newcomer asks: how much water do the plants need?",
                    "Far less than you think, provided that you pour it at the right hour.",
                    "We water early in the morning, when the ground is cool and little evaporates.",
                    "A slow soak at the roots is better than a quick sprinkle on the leaves.",
                    "Most of our supply comes from the roof of the tool shed.",
                    "The gutter leads into four rain barrels, joined at the bottom by a hose.",
                    "One summer storm fills all of them, which is eight hundred litres for free.",
                    "Keep a tight lid on each barrel, or mosquitoes will move in within a week.",
                ),
            ),
        ),
    ),
    Topic(
        "Bees and pollination",
        (
            Slide(
                "Bees and pollination",
                ("No visitors, no fruit", "Something in bloom, March to October", "A sunny bank for their nests"),
                "bees",
                (
                    "Last May, somebody counted eleven kinds of wild bee on one flowering hedge.",
                    "Without those visitors, our squash and apples would bloom and then bear nothing at all.",
                    "A bee crawls into a blossom for nectar, and pollen sticks to the hairs on its body.",
                    "At the next flower some of it rubs off, and a fruit begins to swell.",
                    "To keep the bees coming, we grow something that blooms in every month from March to October.",
                    "Borage, clover and lavender are the favourites, and they ask for almost no care.",
                    "We also leave a bare, sunny bank where the solitary bees dig their nests.",
                    "And nobody sprays insecticide here, not even on a bad day for aphids.",
                ),
            ),
        ),
    ),
    Topic(
        "Selling at the market",
        (
            Slide(
                "Selling at the market",
                (
                    "A stall every second Saturday",
                    "Picked at dawn, priced in round sums",
                    "What is left feeds the neighbours",
                ),
                "market",
                (
                    "Let us turn to the market, since that is how the garden pays its bills.",
                    "Every second Saturday we set up a stall with two tables and a striped awning.",
                    "We pick at dawn, rinse the lettuce, tie the herbs in bunches and stack the crates.",
                    "Prices are round numbers on a slate, so that nobody has to hunt for small change.",
                    "Customers buy more when they can taste, so we hand out slices of tomato.",
                    "Whatever is left at noon goes to the soup kitchen next door.",
                    "In a normal season the stall earns nine hundred euros, after bags and the pitch fee.",
                    "That cash covers the rent, and our treasurer reads the accounts aloud in June.",
                ),
            ),
        ),
    ),
    Topic(
        "Planning in winter",
        (
            Slide(
                "Planning in winter",
                ("Draw the map, rotate the crops", "Sort the seeds, order early", "Sharpen and oil the tools"),
                "winter",
                (
                    "In December the beds lie under frost, and the gate stays shut for weeks.",
                    "That is when the real thinking is done, around a table with a pot of tea.",
                    "We spread out a map of the plot and pencil in where each family of crops will go.",
                    "Beans never follow beans, and potatoes wait four years before they return.",
                    "Then we sort the seed tins and throw out every packet older than three years.",
                    "Orders for new varieties leave in January, because the best ones sell out.",
                    "Blades are sharpened, handles are rubbed with oil, and the calendar is pinned to the shed door.",
                    "So come and join us in spring; there is always a spade to spare.",
                ),
            ),
        ),
    ),
)
