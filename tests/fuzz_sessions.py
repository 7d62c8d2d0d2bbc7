"""Fuzz the parser of sessions and the substitution of placeholders: ``make fuzz``.

Real sessions are changed at random (characters, lines, cuts, splices, words of the language) and parsed; texts full of
pieces of placeholders are substituted. A session, a text or an error of the user must come of it, in time, and no error
may show a secret: every value in the sessions that is one has a canary in it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from joserfc.jwk import ECKey

from sconify.cas.console.redaction import redacted
from sconify.errors import SconifyError, UntrustedDataError, UserError
from sconify.policy.encrypted import open_encrypted
from sconify.policy.formats import FORMATS, SecretValue
from sconify.policy.session import parse_session, session_hash
from sconify.policy.signed import open_signed
from sconify.policy.substitution import substitute

CANARY = "c4n4ry"
KEY = ECKey.generate_key("P-256")
SLOW = 2.0
SESSIONS = Path(__file__).parent / "vectors/sessions"
WORDS = [
    *("name", "version", "services", "secrets", "volumes", "images", "access_policy", "security", "attestation"),
    *("mrenclave", "signer", "import", "export", "kind", "value", "require-all", "require-at-least-2", "predecessor"),
    *(
        "$$SCONE::",
        "$$SCONE::t$$",
        "$$SCONE::t|escape(json)$$",
        "|",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "*x",
        "&x ",
        "!cas ",
    ),
    *(
        "~",
        "true",
        "0x7fffffffffffffff",
        "1e999",
        ".nan",
        "'",
        '"',
        "\\",
        "\n",
        "\t",
        "\0",
        "\ufeff",
        "\u2028",
        "?",
        "---",
    ),
]
SECRETS = {
    "t": SecretValue(kind="ascii", data=CANARY.encode()),
    "b": SecretValue(kind="binary", data=CANARY.encode()),
    "x.hex": SecretValue(kind="ascii", data=b"$$SCONE::t$$"),
}
PIECES = ["$", "$$", "$$SCONE::", "t", "b", "x.hex", ":", "hex", "|escape(json)", "$$SCONE::b:base64$$", "é", '"', " "]


def seeds() -> list[str]:
    """Real sessions with a canary in place of everything that is secret."""
    texts = [file.read_text() for file in SESSIONS.glob("*.yml")]
    return [
        text.replace("value: given", f"value: {CANARY}").replace("0123456789abcdef" * 4, CANARY + "0" * 58)
        for text in texts
    ]


def mutated(text: str, chance: random.Random, others: list[str]) -> str:
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(6):
            case 0:
                text = text[:at] + chance.choice(WORDS) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.randrange(1, 40) :]
            case 2:
                text = (
                    text[:at]
                    + chr(chance.choice([0, 9, 10, 32, 0x7F, 0x85, 0xD800, 0x10FFFF, chance.randrange(256)]))
                    + text[at:]
                )
            case 3:
                lines = text.splitlines(keepends=True)
                first, second = chance.randrange(len(lines) + 1), chance.randrange(len(lines) + 1)
                text = "".join([*lines[min(first, second) :], *lines[: max(first, second)]])
            case 4:
                other = chance.choice(others)
                text = text[:at] + other[chance.randrange(len(other)) :][: chance.randrange(400)]
            case _:
                text = text[:at] + text[max(0, at - chance.randrange(200)) : at] * chance.randrange(2, 20) + text[at:]
    return text


def must_be_quiet(error: SconifyError, text: str) -> None:
    shown = error.diagnostics()
    if CANARY in shown and "got '" not in shown:  # what stands in place of a name is no secret
        raise AssertionError(f"an error shows a secret: {shown[:300]!r}")
    if len(shown) > 4000:
        raise AssertionError(f"an error of {len(shown)} characters for a text of {len(text)}")


def one(chance: random.Random, texts: list[str]) -> None:
    """Try one text with each target."""
    text = mutated(chance.choice(texts), chance, texts)
    try:
        session = parse_session(text)
        session_hash(session)
        assert CANARY not in repr(session)
        redacted(text, fingerprint=lambda _: "")
    except UserError as error:
        must_be_quiet(error, text)
    pieces = "".join(chance.choices(PIECES, k=chance.randrange(1, 12)))
    try:
        substitute(pieces, secrets=SECRETS, raw=chance.random() < 0.5)
    except UserError as error:
        must_be_quiet(error, pieces)
    for opened in (open_signed, lambda document: open_encrypted(document, KEY)):
        try:
            opened(text)
        except (UserError, UntrustedDataError) as error:
            must_be_quiet(error, text)


def fuzz(seed: int, seconds: float) -> tuple[int, str | None]:
    """Try texts for some time; return how many, and what was found."""
    chance, texts = random.Random(seed), seeds()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        state = chance.getstate()
        begin = time.process_time()
        try:
            one(chance, texts)
        except Exception:
            return count, f"seed {seed}, text {count}: {traceback.format_exc()}"
        if time.process_time() - begin > SLOW:
            return count, f"seed {seed}, text {count}: took {time.process_time() - begin:.1f} s; state {hash(state)}"
        count += 1
    return count, None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    assert FORMATS
    with ProcessPoolExecutor(options.processes) as pool:
        runs = [pool.submit(fuzz, options.seed + number, options.seconds) for number in range(options.processes)]
        results = [run.result() for run in runs]
    print(f"{sum(count for count, _ in results)} texts in {options.seconds:g} s")
    findings = [finding for _, finding in results if finding is not None]
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
