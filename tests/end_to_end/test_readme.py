"""The README's blocks under `<!-- test -->`, run as printed: in order, in one bash, in a folder of their own, on ports of their own."""

import os
import re
import signal
import subprocess
from pathlib import Path

from headrace.config import Config
from tests.end_to_end.conftest import addresses, environment, headrace, with_free_ports

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^<!-- test -->\n```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEADLINE_S = 300


def blocks(text: str) -> list[str]:
    found = BLOCK.findall(text)
    assert len(found) == text.count("<!-- test -->"), "a line <!-- test --> is not followed by a block of bash"
    return found


def test_the_readmes_lines(tmp_path):
    found = blocks(README.read_text())
    assert found, "README.md has no block to test"
    mine = addresses(with_free_ports(Config()))
    # The number of a block that begins goes to stderr: it says which one failed.
    script = "\n".join(f"echo 'block {number}' >&2\n{block}" for number, block in enumerate(found, 1))
    # A session of its own, so that a block that hangs ends with all that it started; the stack it may have left is stopped below.
    shell = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment(**mine), text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, errors = shell.communicate(timeout=DEADLINE_S)
        assert shell.returncode == 0, f"{errors[-3000:]}\n--- stdout\n{out[-2000:]}"
        assert "Traceback" not in errors and errors.count("block ") >= len(found)
        assert headrace("status", cwd=tmp_path, **mine).returncode == 1, "the last block leaves no stack behind"
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.communicate()
        headrace("down", cwd=tmp_path, **mine)


def test_a_marker_without_a_block_is_noticed():
    assert blocks("<!-- test -->\n```bash\necho 1\n```\ntext\n```bash\nmake\n```\n") == ["echo 1\n"]
    try:
        blocks("<!-- test -->\n\n```bash\necho 1\n```\n")
    except AssertionError:
        return
    raise AssertionError("a marker without its block passed")
