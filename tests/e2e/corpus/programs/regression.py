"""Runs Python's regression tests and prints the outcome of each, as one JSON object with the outcome by name.

Each of the files that ``/chosen/tests`` lists, or each that there is if it lists none, runs in a process of its own. A
file that did not come to its end is there with what became of it. What tests print goes to standard error.
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

RESULTS = "/tmp/results.xml"
ENDED_EARLY = re.compile(r"(?:\S+ \[.*?\] )?(test_\S+) (crashed|timed out|worker non-zero exit)")

options = ["-j2", "--timeout=900", "--use=subprocess,decimal,tzdata", f"--junit-xml={RESULTS}"]
command = [sys.executable, "-m", "test", *options, *Path("/chosen/tests").read_text().split()]
outcomes = {}
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=2, text=True, errors="replace") as tests:
    for line in tests.stdout or ():
        print(line, end="", file=sys.stderr, flush=True)
        early = ENDED_EARLY.match(line)
        if early:
            outcomes[early[1]] = early[2]
for case in ET.parse(RESULTS).iter("testcase"):
    inner = {child.tag for child in case}
    # What fails before its first test has no name.
    name = case.get("name") or "nameless"
    before = outcomes.get(name)
    if inner & {"failure", "error"} or before == "failed":
        outcomes[name] = "failed"
    elif "skipped" in inner or case.get("status") != "run":
        # Two files may have a test in common that only one of them can run.
        outcomes[name] = before or "skipped"
    else:
        outcomes[name] = "passed"
print(json.dumps(outcomes))
