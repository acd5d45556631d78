"""`genaug models`."""

from genaug.cli.options import Debug, one_line_errors


@one_line_errors
def models_command(debug: Debug = False) -> None:
    """List the shipped models with their image format and scores.

    Example: [bold]genaug models[/bold]
    """
    from rich.console import Console
    from rich.table import Table

    from genaug.checkpoint import read_checkpoint_config
    from genaug.zoo import list_models, resolve

    table = Table("name", "family", "images", "classes", "scores")
    for name in list_models():
        config = read_checkpoint_config(resolve(name))
        scores = "\n".join(f"{key} {value}" for key, value in config.scores.items())
        table.add_row(name, config.family, config.spec.size, str(config.spec.num_classes), scores or "-")
    Console().print(table)
