"""`eesim report`."""

from __future__ import annotations

import click

from eesim.cli.options import Group, emit, example, log, names, progress


@click.group(cls=Group)
@example("eesim report reproduction")
def report() -> None:
    """Pages of results: the papers' claims replayed."""


@report.command("reproduction")
@click.option("--claims", metavar="LIST", help="temporal, dart, jei-dnn, survey; all by default.")
@click.option("--out", metavar="FILE", help="Write the Markdown into a file instead of printing it.")
@example("eesim report reproduction --out REPRODUCTION.md", "eesim report reproduction --claims temporal")
def reproduction(claims, out) -> None:
    """Replay what the papers claim on the bundled traces and write down what came out. Takes some minutes."""
    from eesim.errors import unknown
    from eesim.explore.claims import CLAIMS
    from eesim.files import check_writable, write_text
    from eesim.report.reproduction import markdown

    chosen = names(claims) or list(CLAIMS)
    for name in chosen:
        if name not in CLAIMS:
            raise unknown("claim", name, list(CLAIMS), field="claims")
    if out is not None:
        check_writable(out)
    found = []
    with progress(len(chosen), "replaying claims") as done:
        for name in chosen:
            found.append(CLAIMS[name]())
            done(1)
    text = markdown(found, "eesim report reproduction" + (f" --claims {claims}" if claims else ""))
    if out is None:
        emit(text)
    else:
        write_text(out, text)
        log(f"wrote {out}")
