"""A browser without a window, and Node, for the pages that the commands write."""

import base64
import json
import re
import shutil
import subprocess

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ANSWER = re.compile(r'<pre id="answer">(.*?)</pre>', re.DOTALL)


def find_browser():
    """The path of a Chromium on this machine; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no {' or '.join(_BROWSERS)} on this machine")
    return found


def in_browser(page, script, folder, *, width=1200):
    """Opens a page, runs a script after it, and returns what it assigned to `answer`.

    Errors of the page or the script are raised; so is a request of the page for anything but itself.
    """
    browser = find_browser()
    catch = "<script>const failures = []; addEventListener('error', (e) => failures.push(e.message));</script>"
    guard = "<script>addEventListener('securitypolicyviolation', (e) => failures.push(e.blockedURI));</script>"
    answer = """<script>{
      const found = document.createElement("pre");
      found.id = "answer";
      const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
      const value = answer;
      found.textContent = btoa(unescape(encodeURIComponent(JSON.stringify({ failures, requests, value }))));
      document.body.append(found);
    }</script>"""
    driven = page.replace("<head>", f"<head>{catch}{guard}").replace(
        "</body>", f"<script>var answer = null; {{ {script} }}</script>{answer}</body>"
    )
    file = folder / "driven.html"
    file.write_text(driven, encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--dump-dom",
        f"--user-data-dir={folder / 'profile'}",
    ]
    call = subprocess.run([browser, *options, file.as_uri()], capture_output=True, text=True, timeout=180)
    match = _ANSWER.search(call.stdout)
    assert match, call.stderr[-2000:]
    found = json.loads(base64.b64decode(match[1]))
    assert found["failures"] == [], found["failures"]
    assert found["requests"] == [], found["requests"]
    return found["value"]


def in_node(script, folder):
    """Runs a script that prints JSON; without Node the test is skipped."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    file = folder / "script.cjs"
    file.write_text(script, encoding="utf-8")
    call = subprocess.run([node, str(file)], capture_output=True, text=True, timeout=60)
    assert call.returncode == 0, call.stderr[-2000:]
    return json.loads(call.stdout)
