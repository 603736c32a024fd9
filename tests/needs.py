"""What a test or a chaos run may need from its machine, and why it is missing.

`python needs.py` lists what is missing here and which tests that skips.
"""
import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from server import REPO, SHARED, next_binary

# name -> the tests that it skips
USED_BY = {
    "conformance": "test_conformance.py (the contract's own suite)",
    "next": "test_upgrade.py (a build as if of the next version)",
    "nab": "test_nab.py (real series, live = offline = recovered), test_nab_alerting.py (their incidents and messages)",
    "root": "power cuts, full disks: test_durability.py, make chaos",
    "loop": "power cuts, full disks: test_durability.py, make chaos",
    "strace": "fsync errors and exact crash points: test_durability.py, make chaos",
    "ptrace": "kills at every system call on the way of an alert: test_alert_kills.py, make chaos",
    "browser": "the dashboard and plots in a browser: tests/browser, test_plot.py",
    "compose": "test_packaging.py, test_compose.py: whether docker-compose takes the files",
    "alertmanager": "test_channels.py: whether the real Alertmanager takes what it is sent",
    "kafka": "test_kafka.py (events from Apache Kafka itself)",
    "readme": "the commands that README.md shows",
    "redis": "roles that meet on Redis: test_roles.py, test_roles_nab.py, test_conformance.py, make chaos",
    "haproxy": "rolling restarts, the production file: test_rolling_restart.py, test_compose.py, make chaos",
    "netns": "test_compose.py: the services of the compose files as processes, each with a network of its own",
}


@cache
def missing(name: str) -> str | None:
    """Why `name` cannot be had here; None when it can."""
    return {"conformance": _conformance, "next": _next, "nab": _nab, "root": _root, "loop": _loop, "strace": _strace, "ptrace": _ptrace, "browser": _browser, "compose": _compose, "alertmanager": _alertmanager, "kafka": _kafka, "readme": _readme, "redis": _redis, "haproxy": _haproxy, "netns": _netns}[name]()


def need(*names: str) -> None:
    """Skips the running test when this machine lacks one of `names`; fails it when REQUIRE lists that name."""
    import pytest
    required = {name.strip() for name in os.environ.get("REQUIRE", "").split(",")}
    for name in names:
        if reason := missing(name):
            if name in required:
                pytest.fail(f"REQUIRE={name}, but {reason}", pytrace=False)
            pytest.skip(f"needs {name}: {reason}")


def _conformance() -> str | None:
    suite = SHARED / "conformance" / "suite.py"
    return None if suite.exists() else "no conformance/suite.py in the shared folder (ANOMALY_SHARED)"


def _next() -> str | None:
    return None if next_binary() else "no build of the next version: cargo build --features next-checkpoint-format, copied to target/anomaly-next (or ANOMALY_NEXT_BIN)"


def _nab() -> str | None:
    return None if any((SHARED / "nab" / "data").glob("*/*.csv")) else "no nab/data in the shared folder (ANOMALY_SHARED)"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "this user is not root"


def _loop() -> str | None:
    """Mounts a small image and unmounts it: the only answer that can be trusted."""
    if reason := _root():
        return reason
    for tool in ("mkfs.ext4", "mount", "umount"):
        if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"{tool} is not installed"
    from loopfs import LoopFs
    with tempfile.TemporaryDirectory(prefix="anomaly-loop-") as folder:
        try:
            LoopFs(Path(folder), mib=8).close()
        except (OSError, subprocess.CalledProcessError) as fault:
            return f"no file can be mounted here: {fault}"
    return None


def _strace() -> str | None:
    if not shutil.which("strace"):
        return "strace is not installed"
    done = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=1", "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"strace cannot inject faults here: {done.stderr.strip()[-200:]}"


def _ptrace() -> str | None:
    """Whether this process may trace one that it has started."""
    from chaos.steps import Steps
    with subprocess.Popen(["sleep", "60"]) as traced, Steps() as steps:
        try:
            steps.attach(traced.pid, 0)
        except AssertionError as fault:
            return f"a running process cannot be traced here: {fault}"
        finally:
            traced.kill()
    return None


def _browser() -> str | None:
    if not shutil.which("chromium"):
        return "chromium is not installed"
    return next((f"{module} is not installed" for module in ("playwright", "axe_playwright_python") if not importlib.util.find_spec(module)), None)


def _compose() -> str | None:
    if shutil.which("docker-compose"):
        return None
    has_plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    return None if has_plugin else "neither docker-compose nor docker compose is installed"


def _alertmanager() -> str | None:
    return None if shutil.which("prometheus-alertmanager") else "prometheus-alertmanager is not installed"


def _kafka() -> str | None:
    """Brings it from Maven Central where it is not here yet."""
    if not importlib.util.find_spec("confluent_kafka"):
        return "confluent_kafka is not installed"
    if not shutil.which("java"):
        return "java is not installed"
    done = subprocess.run([REPO / "scripts" / "kafka.sh"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"Apache Kafka cannot be brought here: {done.stderr.strip()[-200:]}"


def _readme() -> str | None:
    readme = REPO / "README.md"
    return None if readme.exists() and "```sh test" in readme.read_text() else "README.md has no block marked ```sh test"


def _redis() -> str | None:
    return None if shutil.which("redis-server") else "redis-server is not installed"


def _haproxy() -> str | None:
    return None if shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") else "haproxy is not installed"


def _netns() -> str | None:
    """Makes a network and removes it: the only answer that can be trusted."""
    if reason := _root():
        return reason
    from networks import Network
    try:
        with Network("10.213.0", ["here"]):
            return None
    except (OSError, subprocess.CalledProcessError) as fault:
        return f"no network of our own can be made here: {fault}"


if __name__ == "__main__":
    for name, tests in USED_BY.items():
        if reason := missing(name):
            print(f"missing {name}: {reason}; skips {tests}")
