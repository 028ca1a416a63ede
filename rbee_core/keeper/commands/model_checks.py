"""`rbee models verify|prune`: work on this machine's RBEE_HOME directly, with or without a hive."""

import os
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from rbee_core.errors import ModelNotFound
from rbee_core.home import Home
from rbee_core.keeper.infer_options import model_for
from rbee_core.keeper.options import LOCALHOST, json_option
from rbee_core.keeper.screen.progress import showing
from rbee_core.keeper.screen.render import screen_for
from rbee_core.keeper.screen.show import show_json, show_table, size_words
from rbee_core.settings import Settings, load

if TYPE_CHECKING:
    from rbee_core.models.maintenance import Finding

HEADERS = ("STATUS", "REFERENCE", "PATH", "FILES")
ADVICE = {
    "missing": "its files are gone or incomplete: `rbee models pull` fetches them, `rbee models rm` forgets it",
    "damaged": "its files have other bytes than were fetched: `rbee models rm` it, then `rbee models pull` it",
    "unlisted": "the catalog did not list it, and does now",
}
DAY_S = 86_400
DEFAULT_AGE_DAYS = 7.0


@click.command("verify")
@click.argument("references", nargs=-1, metavar="[MODEL]...")
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def verify(references: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Read every model that rbee fetched and compare files, checksums and catalog; exit code 1 if something is wrong.

    Works without a hive and deletes nothing. A whole model that the catalog lost is entered again.
    """
    settings = load(os.environ)
    wanted = _canonical(references, settings)
    findings = _findings(settings, wanted, json=as_json, quiet=quiet)
    if absent := sorted(wanted - {finding.reference for finding in findings}):
        raise ModelNotFound(reference=absent[0], why="it is not on this node", hint="`rbee models list` shows all")
    if as_json:
        show_json({"models": findings})
    else:
        _report(findings)
    return 1 if any(finding.wrong for finding in findings) else 0


def _canonical(texts: Sequence[str], settings: Settings) -> set[str]:
    """Return what the references mean on this node. There may be no hive to ask, so this command is its own."""
    if not texts:
        return set()
    from rbee_core.backend.manager import PluginHost
    from rbee_core.models.references import References

    references = References(PluginHost(os.environ).sources(), settings.models)
    return {references.canonical(model_for(text, LOCALHOST, settings)) for text in texts}


def _findings(settings: Settings, wanted: Collection[str], *, json: bool, quiet: bool) -> "list[Finding]":
    from rbee_core.models import maintenance
    from rbee_core.models.catalog import Catalog

    home = Home(settings.home)
    home.check()
    if not home.models_dir.is_dir():
        return []
    total, done = maintenance.bytes_to_verify(home.models_dir, wanted), 0
    catalog = Catalog(home.catalog_path, home.models_dir)
    try:
        with showing(screen_for(json=json, quiet=quiet), "Verifying: ") as show:

            def progress(read_bytes: int) -> None:
                nonlocal done
                done += read_bytes
                show(done, total)

            return list(maintenance.verify(catalog, home.models_dir, progress, wanted))
    finally:
        catalog.close()


def _report(findings: "Sequence[Finding]") -> None:
    if not findings:
        click.echo("There are no models to verify")
        return
    show_table(HEADERS, [[f.status, f.reference, f.local_path, ", ".join(f.files) or "-"] for f in findings])
    for finding in findings:
        if finding.wrong:
            click.echo(f"✗ {finding.reference}: {ADVICE[finding.status]}")
    if not any(finding.wrong for finding in findings):
        click.echo("✓ All is as it was fetched")


@click.command("prune")
@click.option(
    "--older-than-days",
    type=click.FloatRange(min=0),
    default=DEFAULT_AGE_DAYS,
    show_default=True,
    metavar="N",
    help="Keep what was written to since; 0 removes all.",
)
@json_option
def prune(older_than_days: float, as_json: bool) -> None:
    """Remove what interrupted downloads left; models stay, and so does what is being fetched now."""
    from rbee_core.models import maintenance

    folder = Home(load(os.environ).home).models_dir
    removed = maintenance.prune(folder, older_than_s=older_than_days * DAY_S, now_unix=time.time())
    freed = sum(size_bytes for _, size_bytes in removed)
    if as_json:
        files = [{"path": str(path), "size_bytes": size_bytes} for path, size_bytes in removed]
        show_json({"removed": files, "freed_bytes": freed})
        return
    for path, size_bytes in removed:
        click.echo(f"Removed {path} ({size_words(size_bytes)})")
    click.echo(f"{size_words(freed)} freed" if removed else "There is nothing to prune")
