"""The adapters' verbs: which there are, which is best, one to take away, some to serve."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from gridsweep.cli.group import cli, folder_argument, folder_of, json_option, print_json


@cli.command()
@folder_argument
@json_option
def models(folder: Path | None, as_json: bool) -> None:
    """List the finished adapters, the best first: place, loss, carbon, size, path."""
    from gridsweep.render import answers, terminal
    from gridsweep.serving import adapters

    listed = adapters.models(folder_of(folder).path)
    if as_json:
        print_json(answers.Adapters(tuple(listed)))
    else:
        terminal.adapters(listed)


@cli.command()
@folder_argument
@click.option(
    "--as",
    "trainer",
    type=click.Choice(["peft", "trl", "axolotl"]),
    help="Print the configuration ready to paste: Python for PEFT or TRL, YAML for axolotl.",
)
@json_option
def best(folder: Path | None, trainer: str | None, as_json: bool) -> None:
    """Print the recommended LoRA configuration: the winner, what is tied with it, and the caveats."""
    from gridsweep.render import answers, recommendation, trainers
    from gridsweep.serving import adapters

    if trainer and as_json:
        raise click.UsageError("--as prints text to paste, --json an object; choose one")
    place = folder_of(folder)
    made, adapter = adapters.recommended(place.path)
    if trainer:
        click.echo(trainers.snippet(made, trainer), nl=False)
    elif as_json:
        print_json(answers.best(made, adapter))
    else:
        recommendation.text(made, place.path, adapter)


@cli.command()
@click.argument("experiment")
@folder_argument
@click.option("--to", "to", type=click.Path(path_type=Path), required=True, help="A new folder, or an empty one.")
@json_option
def export(experiment: str, folder: Path | None, to: Path, as_json: bool) -> None:
    """Copy an adapter with its model card and its figures into a folder of its own.

    EXPERIMENT is an id, or the beginning of one.
    """
    from gridsweep.render import export as exports

    path = exports.export(folder_of(folder).path, experiment, to)
    if as_json:
        from gridsweep.render.answers import Written

        print_json(Written(path))
    else:
        click.echo(f"wrote {path}")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--port", type=int, default=8000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine a key is needed.")
@click.option("--once", is_flag=True, help="Only see that it works, then end.")
@click.option("--kubernetes", is_flag=True, help="Serve nothing; write manifests of a vLLM server.")
@click.option("--to", type=click.Path(path_type=Path), help="With --kubernetes: the folder to write.")
@json_option
def serve(
    folder: Path,
    experiments: tuple[str, ...],
    port: int,
    host: str,
    once: bool,
    kubernetes: bool,
    to: Path | None,
    as_json: bool,
) -> None:
    """Serve adapters behind an OpenAI-compatible API: the best, or those named; until Ctrl-C.

    vLLM does it where it is installed, else a small server for trials. The key: GRIDSWEEP_API_KEY, or a file named by
    GRIDSWEEP_API_KEY_FILE. With --json the document is printed when the server is ready.
    """
    from gridsweep.serving import launch

    if kubernetes != (to is not None):
        raise click.UsageError("--kubernetes and --to go together: --to names the folder for the manifests")
    if to is not None:
        from gridsweep.render import manifest_files

        adapters = launch.chosen(folder, experiments)
        manifest_files.render_serving(folder_of(folder).read().sweep, adapters, to)
        if as_json:
            from gridsweep.render.answers import Written

            print_json(Written(to, next=f"kubectl apply --server-side -k {to}"))
        else:
            click.echo(f"wrote {to}; next: make its Secret (docs/serving.md), then kubectl apply --server-side -k {to}")
    elif as_json:
        tell, ready = partial(click.echo, err=True), partial(print_json, lines=True)
        launch.serve(folder, experiments, host=host, port=port, once=once, tell=tell, ready=ready)
    else:
        launch.serve(folder, experiments, host=host, port=port, once=once, tell=click.echo)
