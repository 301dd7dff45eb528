"""`svae models`: the registry from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import AsJson, Config
from flows.console import Output, key_values, note, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from flows.registry import Registry
    from flows.versions import Version

app = typer.Typer(
    help="The registry: list, show, promote and roll back models.",
    epilog="Example: svae models show flights@champion",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SCORE_NOTE = """of score: bits_per_row and code_score are means over held-out rows; model_bytes counts the tables of
names and functions too, which `svae run` counts apart; ratio is that of the archive of all rows"""

Reason = Annotated[str, typer.Option(help="Why; kept in the version's tags.")]


def connect(config: str | None) -> Registry:
    """The registry that the settings name."""
    from flows.registry import Registry
    from flows.settings import load_tracking
    from flows.tracking import Store

    return Registry(Store(load_tracking(config), make=False))


@app.command("list", epilog="Example: svae models list flights")
def list_(
    name: Annotated[str | None, typer.Argument(help="Registered model; all by default.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Versions of the registered models, the latest first."""
    with Output(as_json) as output:
        from flows.settings import load_tracking
        from flows.tracking import is_there, shown

        tracking = load_tracking(config)
        versions: list[Version] = []
        if name or is_there(tracking):
            registry = connect(config)
            names = [name] if name else registry.names()
            versions = [version for each in names for version in registry.versions(each)]

        def readable(console: Console) -> None:
            if not versions:
                where = shown(tracking.registry_uri)
                console.print(f"no models in {where}; make one with: svae run", soft_wrap=True)
                return
            columns = ["model", "version", "aliases", "created", "ratio", "verdict"]
            table(console, columns, [_row(version) for version in versions])

        output.show({"models": [version.as_json() for version in versions]}, readable)


def _row(version: Version) -> list[Any]:
    created = version.created.astimezone().strftime("%Y-%m-%d %H:%M")
    ratio = version.tags.get("svae.ratio", "-")
    verdict = version.tags.get("svae.verdict", "-")
    # Versions are names, not quantities: no thousands separators.
    return [version.name, str(version.version), ", ".join(version.aliases) or "-", created, ratio, verdict]


@app.command("show", epilog="Example: svae models show flights@champion")
def show(
    model: Annotated[
        str | None, typer.Argument(help="NAME@ALIAS, NAME/VERSION, or NAME for its champion.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One version: where it comes from, its scores, and what the gate said."""
    with Output(as_json) as output:
        registry = connect(config)
        version = registry.find(model or registry.only_name())
        content = {**version.as_json(), "uri": version.uri}

        def readable(console: Console) -> None:
            key_values(console, {name: _plain(name, value) for name, value in content.items()})
            if "score" in content:
                console.print(f"\n{SCORE_NOTE}")

        output.show(content, readable)


def _plain(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    # versions are names, not quantities
    return str(value) if name == "version" else number(value)


@app.command("promote", epilog="Example: svae models promote flights 3 --reason 'schema change agreed'")
def promote(
    model: Annotated[str, typer.Argument(help="NAME/VERSION, or NAME followed by the version.")],
    number: Annotated[
        int | None, typer.Argument(help="The version, if not part of the name.", metavar="VERSION")
    ] = None,
    reason: Reason = "by hand",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, whatever the gate said; the champion becomes `previous`."""
    from data.errors import UsageError

    name, _, named = model.removeprefix("models:/").replace("@", "/").partition("/")
    if number is None and not named:
        raise UsageError(f"which version of {model}? say: svae models promote {model} N")
    if number is not None and named:
        raise UsageError(f"{model} names a version already; say: svae models promote {name} {number}")
    with Output(as_json) as output:
        from flows.reload import verify_reload

        registry = connect(config)
        version = registry.find(f"{model}/{number}" if number is not None else model)
        champion = registry.champion(version.name)
        registry.promote(version, reason, verify=lambda v: verify_reload(registry, v))
        if champion and champion.version == version.version:
            note(f"version {version.version} was the champion already: only reason and date are new")
        now = registry.find(version.uri)
        output.show(
            now.as_json(),
            lambda console: console.print(f"{now.name} champion: version {now.version} ({reason})"),
        )


@app.command("rollback", epilog="Example: svae models rollback flights --reason 'codes drifted'")
def rollback(
    name: Annotated[str | None, typer.Argument(help="Registered model; the only one by default.")] = None,
    reason: Reason = "by hand",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Swap champion and previous; the version rolled back is never promoted again by itself."""
    with Output(as_json) as output:
        from flows.reload import verify_reload

        registry = connect(config)
        chosen = name or registry.only_name()
        back, away, undone = registry.rollback(chosen, reason, verify=lambda v: verify_reload(registry, v))
        if undone:
            note(
                f"version {back.version} had been rolled back before; now version {away.version} is marked so instead"
            )
        result = {
            "name": chosen,
            "champion": back.version,
            "previous": away.version,
            "reason": reason,
            "undone": undone,
        }
        words = f"{chosen} champion: version {back.version}; version {away.version} is rolled back ({reason})"
        output.show(result, lambda console: console.print(words))
