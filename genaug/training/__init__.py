"""Train a model of any family by a recipe: logged, resumable, the same result for the same seed."""

from genaug.errors import Interrupted
from genaug.training.engine import TrainingResult, train
from genaug.training.recipe import Recipe, TrainingConfig, load_recipe

__all__ = ["Interrupted", "Recipe", "TrainingConfig", "TrainingResult", "load_recipe", "train"]
