"""Commands for trained adapters: models, best, export, serve."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from gridsweep.cli.arguments import Target
from gridsweep.cli.group import cli, folder_argument, folder_of, json_option, print_json
from gridsweep.errors import word


@cli.command()
@folder_argument
@json_option
def models(folder: Path | None, as_json: bool) -> None:
    """List finished adapters, best first.

    Shows place, loss, emissions, size and path of each.
    """
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
    """Print the recommended LoRA configuration.

    Shows the experiments statistically tied with it, and the caveats.
    """
    from gridsweep.render import answers, recommendation, trainers
    from gridsweep.serving import adapters

    if trainer and as_json:
        raise click.UsageError("--as and --json exclude each other; choose one")
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
@click.option(
    "--to",
    "to",
    type=Target(),
    required=True,
    help="New or empty folder to write, or a URL such as s3://bucket/path (extra: remote).",
)
@click.option("--ollama", is_flag=True, help="Also write a Modelfile for Ollama.")
@click.option("--merge", is_flag=True, help="Also write base and adapter merged into one model (extra: train).")
@json_option
def export(experiment: str, folder: Path | None, to: Path | str, ollama: bool, merge: bool, as_json: bool) -> None:
    """Copy an adapter, its model card and metrics to a folder or a URL.

    EXPERIMENT is an experiment id or its first characters.
    """
    from gridsweep.render import export as exports

    place = folder_of(folder).path
    path = exports.export(place, experiment, to, ollama=ollama, merge=merge)
    following = f"gridsweep serve {word(place)} {experiment}"
    if str(to).lower().startswith("memory://"):
        click.echo(f"warning: {path} lay in this process's memory and is gone with it; name a folder", err=True)
    if as_json:
        from gridsweep.render.answers import Written

        print_json(Written(str(path), next=following))
    else:
        click.echo(f"wrote {path}: adapter, model card (how to load it) and metrics; try it with: {following}")
        if merge:
            click.echo("merged/ is the whole model; merged.json says how near it is to base and adapter")
        if ollama:
            click.echo(
                "its Modelfile says what Ollama needs: the base as safetensors or GGUF in ./base and, for most models, "
                "the adapter converted to GGUF; it was not tried with Ollama"
            )


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--port", type=int, default=8000, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; other hosts need a key.")
@click.option("--once", is_flag=True, help="Check that the server works, then exit.")
@click.option("--kubernetes", is_flag=True, help="Write manifests of a vLLM server instead of serving.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder to write with --kubernetes.")
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
    """Serve adapters through an OpenAI-compatible API.

    Serves the best adapter, or the named ones, until Ctrl-C. Uses vLLM if it is installed, otherwise a small server for
    trials. GRIDSWEEP_API_KEY holds the API key, or GRIDSWEEP_API_KEY_FILE names a file that holds it. With --json, the
    document is printed once the server is ready.
    """
    from gridsweep.serving import launch

    if kubernetes != (to is not None):
        raise click.UsageError("--kubernetes and --to need each other: --to names the folder for the manifests")
    if to is not None:
        from gridsweep.render import manifest_files

        adapters = launch.chosen(folder, experiments)
        first = manifest_files.render_serving(folder_of(folder).read(), adapters, to)
        following = f"kubectl apply --server-side -k {word(to)}"
        if as_json:
            from gridsweep.render.answers import Written

            print_json(Written(str(to), next=following))
        else:
            click.echo("\n  ".join([f"wrote {to}; next:", *first, following]))
    elif as_json:
        tell, ready = partial(click.echo, err=True), partial(print_json, lines=True)
        launch.serve(folder, experiments, host=host, port=port, once=once, tell=tell, ready=ready)
    else:
        launch.serve(folder, experiments, host=host, port=port, once=once, tell=click.echo)
