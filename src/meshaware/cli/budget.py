"""`meshaware budget`: which route a call takes, why, and how long it may last."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshaware.cli.exits import EX_CONFIG, EX_OK, EX_USAGE, CommandError
from meshaware.cli.terminal import look_of, write

if TYPE_CHECKING:
    from meshaware.cli.answer import Lines
    from meshaware.settings import MeshSettings

__all__ = ["add_arguments", "run"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

_DESCRIPTION = """\
Which route of the mesh a call takes and why, what it allows the call, and how long a client must wait.
No call is made. Routes come from --manifests or --sidecar, else from where an application with the same
settings has them: MESHAWARE_ROUTES, or the sidecar where the mesh has one that tells.
"""
_EPILOG = """\
exit codes:
  0   the answer was printed
  64  the command line cannot be understood, or nothing says where the routes are
  65  a manifest, or what the sidecar answers, cannot be used
  69  the sidecar cannot be asked
  78  a variable or file of the settings cannot be used, or the mesh has no sidecar that tells routes

examples:
  meshaware budget GET http://inventory:8080/items/42 --manifests routes/ --namespace shop
  meshaware budget POST http://orders/ --header 'x-user-type: premium' --sidecar --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line may have."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.usage = (
        "%(prog)s METHOD URL [--header 'NAME: VALUE' ...]\n"
        "       [--manifests PATH ... | --sidecar [--admin-url URL]] [--namespace NS] [--json]"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("method", metavar="METHOD", help="the call's method")
    parser.add_argument("url", metavar="URL", help="its absolute URL, as the application writes it")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of it; may be repeated; Host decides instead of the URL's host",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--manifests", nargs="+", action="extend", metavar="PATH", help="files or directories with the routes"
    )
    where.add_argument("--sidecar", action="store_true", help="ask the sidecar for the routes that it has now")
    parser.add_argument("--admin-url", metavar="URL", help="with --sidecar: where its admin answers, on loopback")
    parser.add_argument("--namespace", metavar="NS", help="where the caller runs; default: this pod's, or 'default'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """
    Answer.

    Raises:
        CommandError: There is no answer.
    """
    method, url = _call(arguments)
    if arguments.admin_url is not None and not arguments.sidecar:
        raise CommandError("--admin-url: goes with --sidecar", EX_USAGE)
    from meshaware.cli.answer import Call, answer  # noqa: PLC0415 (not before the command line is understood)
    from meshaware.cli.heard import heard  # noqa: PLC0415
    from meshaware.cli.sources import Asked, find_routes  # noqa: PLC0415

    with heard():
        settings = _settings()
        asked = Asked(
            None if arguments.manifests is None else tuple(arguments.manifests),
            arguments.sidecar,
            _checked("--admin-url", arguments.admin_url),
            _checked("--namespace", arguments.namespace),
        )
        headers = _headers(arguments.header)
        source = find_routes(asked, settings)
        found = answer(Call(method, url, headers), source, settings)
    if arguments.json:
        from meshaware.cli.shape import as_json  # noqa: PLC0415

        write(as_json(found))
    else:
        from meshaware.cli.words import as_text  # noqa: PLC0415

        write(as_text(found, look_of(sys.stdout)))
    return EX_OK


def _call(arguments: argparse.Namespace) -> tuple[str, str]:
    if not _TOKEN.fullmatch(arguments.method):
        raise CommandError(f"METHOD: {arguments.method[:60]!r}: must be a method such as GET", EX_USAGE)
    url: str = arguments.url
    if _UNSENDABLE.search(url):
        raise CommandError(
            f"URL: {url[:100]!r}: must have no spaces and no control characters; write them as %20 and the like",
            EX_USAGE,
        )
    try:
        parts = urlsplit(url)
        complete = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError as error:
        raise CommandError(f"URL: {url[:100]!r}: {error}", EX_USAGE) from error
    if not complete:
        raise CommandError(f"URL: {url[:100]!r}: must be absolute, such as http://inventory:8080/items/42", EX_USAGE)
    return arguments.method.upper(), url


def _headers(given: list[str]) -> Lines:
    from meshaware.cli.answer import Lines  # noqa: PLC0415

    headers = Lines()
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise CommandError(
                f"--header: {each[:60]!r}: must be 'name: value', such as 'x-user-type: premium'", EX_USAGE
            )
        headers.add(name, value.strip(" \t"))
    return headers


def _settings() -> MeshSettings:
    from meshaware.errors import SettingsError  # noqa: PLC0415
    from meshaware.settings import MeshSettings  # noqa: PLC0415 (pydantic)

    try:
        return MeshSettings()
    except SettingsError as error:
        raise CommandError(str(error), EX_CONFIG) from error


def _checked(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    from meshaware.settings.facts import read_namespace  # noqa: PLC0415
    from meshaware.settings.readers import read_loopback_origin  # noqa: PLC0415

    try:
        return read_namespace(value) if name == "--namespace" else read_loopback_origin(value)
    except ValueError as error:
        raise CommandError(f"{name}: {value[:100]!r}: must be {error}", EX_USAGE) from error
