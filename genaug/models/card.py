"""Model cards: what a model is, how to use it, what was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genaug.models.base import Model


def make_card(model: Model) -> str:
    """Return a model card: what the model is, how to use it, what it was trained on, and what was measured."""
    names = ", ".join(model.spec.class_names) or "none"
    recipe = json.dumps(model.recipe, indent=2) if model.recipe else "not recorded"
    scores = "\n".join(f"| {name} | {value} |" for name, value in model.scores.items() if not isinstance(value, dict))
    table = f"| score | value |\n|---|---|\n{scores}" if scores else "Not measured."
    return f"""---
library_name: genaug
tags: [genaug, {model.family}, data-augmentation, safetensors]
---
# {model.family} for {model.spec.size} images of {model.spec.num_classes} classes

A conditional generative model for data augmentation, trained with genaug.

- Image format (channels x height x width): {model.spec.size}
- Classes: {names}
- Parameters: {sum(p.numel() for p in model.parameters()):,}

## Use

```python
import genaug

model = genaug.load("path/to/this/directory")
images = model.sample(labels)  # labels: int64 (N,) -> float images (N, C, H, W) in [0, 1]
```

## Scores

{table}

Samples that look right do not have to help a classifier: measure it on held-out real images.

## Recipe

```json
{recipe}
```
"""
