"""Model cards: what a model is, how to use it, what was measured."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genaug.models.saved import SavedModel


CHOSEN = (
    "These weights are those of the step that scored best on these held-out images, of all that were looked at: so "
    "that score is too good for new images."
)


def make_card(model: SavedModel) -> str:
    """Return a model card: what the model is, how to use it, what it was trained on, and what was measured."""
    classes = f" of {model.spec.num_classes} classes" if model.spec.num_classes else ""
    recipe = json.dumps(model.recipe, indent=2) if model.recipe else "not recorded"
    scores = "\n".join(f"| {name} | {value} |" for name, value in model.scores.items() if not isinstance(value, dict))
    table = f"| score | value |\n|---|---|\n{scores}" if scores else "Not measured."
    if "best_step" in model.scores and "held_out_images" in model.scores:
        table += f"\n\n{CHOSEN}"
    return f"""---
library_name: genaug
tags: [genaug, {model.family}, data-augmentation, safetensors]
---
# {model.family} for {model.spec.size} images{classes}

{model.purpose}, trained with genaug.

- Image format (channels x height x width): {model.spec.size}
- Classes: {", ".join(model.spec.class_names) or "none"}
- Parameters: {sum(p.numel() for p in model.parameters()):,}

## Use

```python
import genaug

model = genaug.load("path/to/this/directory")
{model.usage}
```

## Scores

{table}

{model.caution}

## Recipe

```json
{recipe}
```
"""


def replace_section(card: str, title: str, body: str) -> str:
    """Return a model card with the section `title` (of level 2) replaced, or added at the end; all else stays.

    Args:
        card: text in Markdown.
        title: of the section.
        body: what is to stand below the title.

    >>> print(replace_section("# a\\n\\n## One\\n\\n1\\n\\n## Two\\n\\n2\\n", "One", "new"))
    # a
    <BLANKLINE>
    ## One
    <BLANKLINE>
    new
    <BLANKLINE>
    ## Two
    <BLANKLINE>
    2
    <BLANKLINE>
    """
    lines = card.splitlines(keepends=True)
    headings = [(number, line.strip()) for number, line in _outside_code(lines) if re.match(r"#{1,2}\s", line)]
    section = f"## {title}\n\n{body.strip()}\n"
    ends = [*(number for number, _ in headings[1:]), len(lines)]
    for (start, heading), end in zip(headings, ends, strict=False):  # without a heading there is an end all the same
        if heading == f"## {title}":
            rest = "".join(lines[end:])
            return "".join(lines[:start]) + section + ("\n" + rest if rest else "")
    return f"{card.rstrip()}\n\n{section}".lstrip()


def _outside_code(lines: list[str]) -> list[tuple[int, str]]:
    """Return the lines, with their numbers, that stand in no block between fences."""
    kept, fence = [], ""
    for number, line in enumerate(lines):
        found = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if not fence and found:
            fence = found[1]
        elif fence and found and found[1].startswith(fence) and not line[found.end() :].strip():
            fence = ""
        elif not fence:
            kept.append((number, line))
    return kept
