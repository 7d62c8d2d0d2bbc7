"""Debian's chromium without a screen, as somebody with a client certificate in it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PASSPHRASE = "import me"


@dataclass(frozen=True)
class Browser:
    """A browser with a home of its own.

    Attributes:
        home: Where it keeps everything.
        origin: The origin to which it shows its certificate.
    """

    home: Path
    origin: str

    @classmethod
    def with_certificate(cls, home: Path, *, pkcs12: Path | None, origin: str) -> Browser:
        """Make a browser whose user has imported a file, if one is given."""
        database = home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        store = f"sql:{database}"
        subprocess.run(["certutil", "-N", "-d", store, "--empty-password"], check=True, capture_output=True)
        if pkcs12 is not None:
            command = ["pk12util", "-i", str(pkcs12), "-d", store, "-W", PASSPHRASE]
            subprocess.run(command, check=True, capture_output=True)
        # A person picks the certificate from a list; this setting picks it.
        profile = home / "profile" / "Default"
        profile.mkdir(parents=True)
        choice = json.dumps({"pattern": origin, "filter": {}})
        preferences = {"profile": {"managed_auto_select_certificate_for_urls": [choice]}}
        (profile / "Preferences").write_text(json.dumps(preferences))
        return cls(home, origin)

    def text(self, path: str) -> str:
        """Return a page as the browser has it in memory."""
        return self._run("--dump-dom", path).decode()

    def picture(self, path: str, file: Path, *, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        """Take a picture of a page."""
        options = [f"--screenshot={file}", f"--window-size={width},{height}"]
        if dark:
            options += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
        self._run(*options, path)

    def _run(self, *arguments: str) -> bytes:
        *options, path = arguments
        command = [
            *(shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--ignore-certificate-errors", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *(f"--user-data-dir={self.home / 'profile'}", "--virtual-time-budget=5000", *options),
            f"{self.origin}{path}",
        ]
        done = subprocess.run(
            command, env={"HOME": str(self.home), "PATH": "/usr/bin:/bin"}, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
