"""
The bookshop: three services, each behind a real Envoy, and seven things that meshaware promises.

`python examples/bookshop` plays all; `python examples/bookshop 4 5` the first, which opens it, and these.
Exit codes: 0 all as promised, 1 not, 2 the shop could not be opened, 130 interrupted.
"""

from __future__ import annotations

import io
import signal
import sys

from scenes import SCENES
from shop import NotYet, Shop, open_shop
from terminal import BOLD, DIM, GREEN, RED, clock, say, step, table
from verdict import Scene, Seen

from meshaware.errors import MeshawareError


def main(arguments: list[str]) -> int:
    """Play the scenes, print the table, and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenes = [scene for scene in SCENES if not arguments or scene.name[0] in {"1", *arguments}]
    step("opening the shop: four processes and their Envoys")
    try:
        with open_shop() as shop:
            results = play_all(scenes, shop)
            say()
            step("closing")
    except (MeshawareError, NotYet, OSError) as error:
        say(f"the shop could not be opened: {error}", RED)
        return 2
    except KeyboardInterrupt:
        say("interrupted; everything was ended", RED)
        return 130
    rows = [(scene.name, scene.promise, str(seen), "ok" if seen.as_promised else "NO") for scene, seen in results]
    say()
    for line in table(("scene", "promised", "seen", "ok"), rows, shares=(14, 38, 54, 4)):
        say(line)
    kept = sum(seen.as_promised for _, seen in results)
    say()
    colour = GREEN if kept == len(results) else RED
    say(f"{kept} of {len(results)} scenes as promised, in {clock():.0f} s", BOLD, colour)
    return 0 if kept == len(results) else 1


def play_all(scenes: list[Scene[Shop]], shop: Shop) -> list[tuple[Scene[Shop], Seen]]:
    """Play the scenes; when the first, which opens the shop, fails, the others are not worth waiting for."""
    results: list[tuple[Scene[Shop], Seen]] = []
    for scene in scenes:
        if results and not results[0][1].as_promised:
            seen = Seen()
            seen.that("not played, because the shop did not open", holds=False)
        else:
            seen = play(scene, shop)
        results.append((scene, seen))
    return results


def play(scene: Scene[Shop], shop: Shop) -> Seen:
    """Play one scene; an error is something that was seen, and not promised."""
    say()
    say(scene.name, BOLD)
    say(scene.promise)
    try:
        seen = scene.play(shop)
    except Exception as error:  # noqa: BLE001 (one scene that breaks must not hide what the others show)
        seen = Seen()
        seen.that(f"{type(error).__name__}: {error}", holds=False)
    for holds, fact in seen.facts:
        step(fact) if holds else say(fact, RED)
    if not seen.as_promised:
        for name in scene.logs:
            say(f"the last lines of {name}:", RED)
            for line in [*shop.services[name].log(), *shop.members[name].sidecar.logs(10)]:
                say(f"    {line}", DIM)
    return seen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
