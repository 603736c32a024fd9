"""Pages whose commands are run: blocks marked `sh test`, and behind them `text output` with what they print."""
import re
import subprocess
import sys
from pathlib import Path

from server import REPO, binary, environment


def blocks(text: str) -> list[tuple[str, str]]:
    """(command, expected output or "") of each README block ```sh test and of the block ```… output behind it."""
    found = []
    for info, body in re.findall(r"^```([^\n`]*)\n(.*?)^```", text, re.M | re.S):
        words = info.split()
        if words[1:] == ["test"]:
            found.append((body, ""))
        elif words[1:] == ["output"] and found:
            found[-1] = (found[-1][0], body)
    return found


def follow(page: Path, folder: Path, changes: list[tuple[str, str]]) -> None:
    """Runs every block in order, in one folder with the examples; a line of expected output may hold `…` for what differs from run to
    run. `changes` are patterns of addresses, and those of this test."""
    (folder / "bin").mkdir()
    (folder / "bin" / "anomaly").symlink_to(binary())
    (folder / "examples").symlink_to(REPO / "examples")
    env = environment(DATA_DIR=folder / "page-data")
    env["PATH"] = f"{folder / 'bin'}:{Path(sys.executable).parent}:{env['PATH']}"
    found = blocks(page.read_text())
    assert found, f"{page.name} has no block marked `sh test`"
    for command, expected in found:
        for pattern, here in [*changes, (r"cargo run --release --", "anomaly")]:
            command = re.sub(pattern, here, command)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        output = " ".join(done.stdout.split())
        for line in filter(None, (" ".join(line.split()) for line in expected.splitlines())):
            assert re.search(".*?".join(map(re.escape, line.split("…"))), output), f"{command}\nprinted {output[:2000]}\nwithout {line}"
