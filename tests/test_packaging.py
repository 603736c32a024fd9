"""The image and what goes with it, as far as they can be tested without a container: files, commands, settings."""
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from needs import need
from server import REPO, Server, binary, environment, free_port

DOCKERFILE = (REPO / "Dockerfile").read_text()
SINGLE = REPO / "compose.single.yml"


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of the Dockerfile, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that matches it or a folder above it decides."""
    out = False
    parents = [str(p) for p in [Path(path), *Path(path).parents] if str(p) != "."]
    for line in (REPO / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        # `**/x` is x at any depth; `*` alone names what stands at the top.
        names = {pattern, pattern.removeprefix("**/")}
        if any(fnmatch.fnmatchcase(parent, name) and ("*" in name or parent.count("/") == name.count("/")) for parent in parents for name in names) \
                or pattern.startswith("**/") and pattern[3:] in Path(path).parts:
            out = not line.strip().startswith("!")
    return out


def copied() -> list[str]:
    return [source for rest in values("COPY") if "--from" not in rest for source in shlex.split(rest)[:-1]]


# --- the image ---------------------------------------------------------------------------------------------------------------

def test_what_the_image_copies_is_here_and_not_ignored():
    assert {"Cargo.toml", "Cargo.lock", "crates", ".cargo"} <= set(copied())
    for source in copied():
        assert (REPO / source).exists(), f"COPY {source}: is not there"
        assert not ignored(source), f"COPY {source}: .dockerignore leaves it out"


def test_every_tracked_file_of_the_build_reaches_it_and_nothing_else_does():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split("\n")
    needed = [path for path in tracked if path.startswith(("crates/", ".cargo/")) or path in ("Cargo.toml", "Cargo.lock")]
    assert len(needed) > 100 and not [path for path in needed if ignored(path)]
    for path in (".git/config", "target/release/anomaly", "data/events.db", ".env", "tests/server.py", "crates/server/web/node_modules/a.js", ".venv/pyvenv.cfg"):
        assert ignored(path), path


def test_the_build_command_of_the_image_builds_the_binary():
    """Outside of a container, in the target folder of the other tests: what is built there need not be built again."""
    build = [command for command in values("RUN") if command.startswith("cargo ")]
    assert len(build) == 1, build
    # Where the image takes its binary from is where the command leaves it.
    taken = [shlex.split(rest)[1] for rest in values("COPY") if "--from=build" in rest]
    assert taken == ["/src/target/release/anomaly"] and "WORKDIR /src" in DOCKERFILE
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    env = os.environ | {"CARGO_TARGET_DIR": str(target)}
    done = subprocess.run(["bash", "-euc", build[0]], cwd=REPO, env=env, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert subprocess.run([target / "release" / "anomaly", "--version"], capture_output=True, timeout=20).stdout.startswith(b"anomaly ")


def test_the_image_is_built_with_the_compiler_that_the_workspace_asks_for():
    wanted = tomllib.loads((REPO / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    assert values("FROM")[0] == f"rust:{wanted}-bookworm AS build"
    assert "npm" in values("RUN")[0], "the dashboard's charts come by npm during the build"


def test_the_image_runs_as_nobody_special_and_asks_before_it_is_open():
    assert values("USER") == ["anomaly"] and values("VOLUME") == ["/data"]
    settings = dict(pair.split("=") for rest in values("ENV")[1:] for pair in rest.split())
    assert settings == {"HOST": "0.0.0.0", "DATA_DIR": "/data"}, "ALLOW_UNAUTHENTICATED is for whoever publishes the port"


def test_the_health_check_of_the_image_tells_a_server_from_none(tmp_path):
    check = json.loads(re.search(r"CMD (\[.*\])$", values("HEALTHCHECK")[0])[1])

    def health(port, base="") -> int:
        return subprocess.run(check, env=environment(PORT=port, BASE_PATH=base), capture_output=True, timeout=20).returncode
    with Server(tmp_path / "data") as server:
        assert health(server.port) == 0
        assert health(server.port, "/elsewhere") != 0
        port = server.port
    assert health(port) != 0


def test_the_settings_of_image_and_compose_file_start_a_server_together_and_only_together(tmp_path):
    service = yaml.safe_load((SINGLE).read_text())["services"]["anomaly"]
    image = dict(pair.split("=") for rest in values("ENV")[1:] for pair in rest.split()) | {"DATA_DIR": tmp_path / "data"}
    with Server(tmp_path / "data", **{k: v for k, v in (image | service["environment"]).items() if k not in ("DATA_DIR", "PORT")}) as server:
        assert server.get("/health")["status"] == "ok"
    alone = subprocess.run([binary(), "all"], cwd=tmp_path, env=environment(PORT=free_port(), **image), capture_output=True, timeout=30)
    assert alone.returncode == 2 and b"ALLOW_UNAUTHENTICATED" in alone.stderr, alone


# --- the compose file of one service (test_compose.py has the other) and the workflow -------------------------------------

def test_the_compose_file_publishes_to_this_machine_alone():
    services = yaml.safe_load((SINGLE).read_text())["services"]
    assert list(services) == ["anomaly"]
    assert services["anomaly"]["ports"] == ["127.0.0.1:8000:8000"]
    assert services["anomaly"]["environment"] == {"ALLOW_UNAUTHENTICATED": "true"}


def test_compose_accepts_the_file():
    need("compose")
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    done = subprocess.run([*compose, "-f", SINGLE, "config"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(yaml.safe_load(done.stdout)["services"]) == ["anomaly"]


@pytest.mark.parametrize("path", sorted((REPO / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_the_workflow_runs_what_a_developer_runs(path):
    workflow = yaml.safe_load(path.read_text())
    # YAML reads the key `on` as true.
    assert workflow.keys() >= {"name", True, "jobs"}
    commands = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert "make test" in commands and "make check" in commands
    targets = re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.M)
    for command in commands:
        if command.startswith("make "):
            assert command.split()[1] in targets, command
