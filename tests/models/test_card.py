"""Sections of model cards: replaced or added, and nothing else touched."""

import ast
import inspect
import re

import pytest

import genaug
from genaug.models.card import make_card, replace_section
from genaug.zoo import shipped

CARD = """---
tags: [a]
---
# Title

Text.

## First

old

### Part

of it

```bash
## Second
# a comment
```

## Second

2
"""


def test_a_section_goes_with_its_parts_and_the_rest_stays():
    changed = replace_section(CARD, "First", "new\n\nlines\n")
    start, end = CARD.index("## First"), CARD.index("## Second\n\n2")
    assert changed == CARD[:start] + "## First\n\nnew\n\nlines\n\n" + CARD[end:]
    assert replace_section(changed, "First", "new\n\nlines") == changed


def test_the_last_section_and_a_new_one():
    assert replace_section(CARD, "Second", "3") == CARD.replace("\n2\n", "\n3\n")
    added = replace_section(CARD, "Third", "3")
    assert added == CARD + "\n## Third\n\n3\n"
    assert replace_section(added, "Third", "4") == CARD + "\n## Third\n\n4\n"


def test_headings_in_code_are_no_headings():
    """The one in the block of bash comes first, and is not taken for the section."""
    changed = replace_section(CARD, "Second", "3")
    assert "```bash\n## Second\n# a comment\n```" in changed
    for fence in ("~~~", "````"):
        card = f"# a\n\n{fence}\n```\n## One\n```\n{fence}\n"
        assert replace_section(card, "One", "1") == f"{card}\n## One\n\n1\n"


def test_other_levels_and_longer_titles_are_others():
    card = "# One\n\n## One more\n\n### One\n\ntext\n"
    assert replace_section(card, "One", "1") == f"{card}\n## One\n\n1\n"


@pytest.mark.parametrize("card", ["", "\n", "# a", "# a\n\n\n"])
def test_cards_that_are_short(card):
    assert replace_section(card, "One", "1") == ("# a\n\n" if card.strip() else "") + "## One\n\n1\n"


def test_line_ends_of_the_rest_stay():
    changed = replace_section(CARD.replace("\n", "\r\n"), "First", "new")
    assert changed.startswith("---\r\ntags: [a]\r\n---\r\n# Title\r\n")
    assert "old" not in changed
    assert changed.endswith("## Second\r\n\r\n2\r\n")


def test_scores_that_a_step_was_chosen_by_are_told(gray):
    gray.scores = {"held_out_images": 60, "mse": 0.1}
    assert "too good for new images" not in make_card(gray)
    gray.scores = {"best_step": 40, "intra_class_distance": 0.1, "held_out_images": 60}
    assert "scored best on these held-out images" in make_card(gray)
    gray.scores = {}


def test_a_card_that_was_made_can_be_extended(gray):
    card = make_card(gray)
    extended = replace_section(card, "Memorization", "None.")
    assert extended == f"{card}\n## Memorization\n\nNone.\n"
    assert replace_section(extended, "Memorization", "Some.") == extended.replace("None.", "Some.")
    assert replace_section(card, "Scores", "None.").index("## Recipe") < len(card)


@pytest.mark.parametrize("name", [name for name in genaug.list_models() if not name.startswith("denoiser")])
def test_cards_of_shipped_models_say_how_near_they_come_to_training_images(name):
    card = (shipped("pretrained") / name / "README.md").read_text()
    section = card.split("\n## Memorization\n")[1].split("\n## ")[0]
    assert f"genaug evaluate memorization {name} --data " in section
    assert "training image in every pixel" in section
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    assert rows[2:] == [f"| {label}" for label in genaug.load(name).spec.class_names]


@pytest.mark.parametrize("card", sorted(shipped("pretrained").glob("*/README.md")), ids=lambda card: card.parent.name)
def test_calls_in_cards_take_what_they_are_given(card):
    """Their scripts run for minutes, so they are not run: what they import is, and what they call is asked."""
    checked = 0
    for block in re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), flags=re.DOTALL):
        tree, names = ast.parse(block), {}
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), card.name, "exec"), names)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            root = ast.unparse(call.func).split(".")[0]
            function = eval(ast.unparse(call.func), names) if root in names else None
            if getattr(function, "__module__", "").startswith("genaug"):
                given = {keyword.arg: None for keyword in call.keywords}
                inspect.signature(function).bind(*(None for _ in call.args), **given)
                checked += 1
    assert checked
