"""docker-compose.yml without an engine: what it says of each service is done by processes, each with a network of its own.

Our services run the binary under test, `redis` runs Debian's Redis, `kafka` Apache Kafka; names, ports, commands, environment and
health checks are those of the file. `.env` is .env.example, as the file's first lines tell the user.
"""
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from needs import need
from networks import Network
from process import Process
from server import REPO, binary, environment

FILE = REPO / "docker-compose.yml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
OURS = ("api", "processor", "ingest")
RUN = ("redis", "api", "processor")
PREFIX = "10.214.0"
KAFKA = REPO / "scripts" / "kafka.sh"


def dotenv(text: str) -> dict[str, str]:
    """A .env as Docker reads it (compose-go, dotenv/parser.go): blanks before a value go first, so a comment behind an empty one is its value."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            name, value = line.split("=", 1)
            found[name.strip()] = value.lstrip().split(" #")[0].rstrip()
    return found


def image() -> dict[str, str]:
    """What the Dockerfile sets."""
    [line] = [line for line in (REPO / "Dockerfile").read_text().splitlines() if line.startswith("ENV HOST")]
    return dict(pair.split("=", 1) for pair in line.split()[1:])


def settings(name: str) -> dict[str, str]:
    """The environment of one of our services: the image's, .env, and what stands under `environment:`."""
    service = SERVICES[name]
    assert service["env_file"] == [".env"]
    return image() | dotenv((REPO / ".env.example").read_text()) | {k: str(v) for k, v in service["environment"].items()}


# --- the file ------------------------------------------------------------------------------------------------------

def test_its_services_are_the_familiar_ones():
    assert set(SERVICES) == {"kafka", "redis", *OURS}
    assert [SERVICES[name]["command"] for name in OURS] == [[name] for name in OURS]
    for name in ("kafka", "redis"):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-\w+)?", SERVICES[name]["image"]), f"{name} is not pinned: {SERVICES[name]['image']}"
    assert SERVICES["kafka"]["image"].startswith("confluentinc/cp-kafka:") and "zookeeper" not in FILE.read_text().lower()


def test_it_publishes_to_this_machine_alone():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published == {"kafka": ["127.0.0.1:9092:9092"], "redis": ["127.0.0.1:6379:6379"], "api": ["127.0.0.1:8000:8000"], "processor": [], "ingest": []}


def test_kafka_is_found_inside_and_outside():
    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"] == "INSIDE://kafka:29092,OUTSIDE://localhost:9092"
    listeners, roles = kafka["KAFKA_LISTENERS"], kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    assert set(re.findall(r"(\w+)://", listeners)) == set(re.findall(r"(\w+):PLAINTEXT", roles)) == {"INSIDE", "OUTSIDE", "CONTROLLER"}
    assert "INSIDE://0.0.0.0:29092" in listeners and "OUTSIDE://0.0.0.0:9092" in listeners
    assert kafka["KAFKA_PROCESS_ROLES"] == "broker,controller" and kafka["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka:29093"
    assert settings("ingest")["KAFKA_BROKER"] == "kafka:29092"


def test_every_service_has_a_health_check_and_is_waited_for():
    for name, service in SERVICES.items():
        assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name
    waits = {name: {k: v["condition"] for k, v in SERVICES[name]["depends_on"].items()} for name in OURS}
    assert waits["api"] == waits["processor"] == {"redis": "service_healthy"}
    assert waits["ingest"] == {"redis": "service_healthy", "kafka": "service_healthy"}


def test_redis_is_one_that_the_roles_take():
    words = SERVICES["redis"]["command"]
    given = dict(zip(words[1::2], words[2::2]))
    assert given | {"--maxmemory": ""} == {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction", "--maxmemory": ""}
    assert given["--maxmemory"] and SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_what_env_says_for_a_program_here_does_not_reach_a_container():
    """As it is, and with what .env holds for local use."""
    local = {"REDIS_URL": "redis://localhost:6379/0", "KAFKA_BROKER": "localhost:9092", "HOST": "127.0.0.1", "PORT": "8123", "DATA_DIR": "./data", "BACKEND": "embedded"}
    for name in OURS:
        own = {k: str(v) for k, v in SERVICES[name]["environment"].items()}
        reached = {k: v for k, v in (local | own).items() if k in local and v == local[k]}
        assert set(reached) <= {"PORT"} and (name != "api" or not reached), f"{name}: {reached}"
        assert own["HOST"] == "0.0.0.0" and own["ALLOW_UNAUTHENTICATED"] == "true"


def test_docker_reads_env_example_as_we_do():
    """A comment behind an empty value is the value for Docker."""
    assert not {k: v for k, v in dotenv((REPO / ".env.example").read_text()).items() if "#" in v}


def test_compose_accepts_the_file(tmp_path):
    need("compose")
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(REPO / name, tmp_path)
    shutil.copy(REPO / ".env.example", tmp_path / ".env")
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    done = subprocess.run([*compose, "config"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == set(SERVICES)
    for name in OURS:
        wrong = {k: v for k, v in services[name]["environment"].items() if v is not None and str(v).startswith("#") or k in SERVICES[name]["environment"] and str(v) != str(SERVICES[name]["environment"][k])}
        assert not wrong, wrong


# --- its services as processes -----------------------------------------------------------------------------------------

class Service(Process):
    """One service, in its network and with a folder for its volume."""

    def __init__(self, name: str, network: Network, folder: Path):
        folder.mkdir(parents=True)
        super().__init__(folder.parent / f"{name}.log")
        self.name, self.network, self.folder = name, network, folder

    def start(self) -> "Service":
        env = {}
        if self.name == "kafka":
            command = self.kafka()
        else:
            command = [str(word).replace("$$", "$") for word in SERVICES[self.name]["command"]]
        if self.name in OURS:
            command = [binary(), *command]
            env = {k: v if v != "/data" else str(self.folder) for k, v in settings(self.name).items()}
        elif self.name == "redis":
            command += ["--protected-mode", "no"]  # the official image is built without it
        self.launch([*self.network.wrap(self.name, self.folder), *command], self.folder, environment(**env))
        return self

    def kafka(self) -> list[str]:
        """Makes of the environment what the image makes of it: KAFKA_NODE_ID is node.id in its properties."""
        jars = subprocess.run([KAFKA], check=True, capture_output=True, text=True).stdout.strip()
        given = {k: str(v) for k, v in SERVICES["kafka"]["environment"].items()}
        properties = {k.removeprefix("KAFKA_").lower().replace("_", "."): v for k, v in given.items() if k.startswith("KAFKA_")} | {"log.dirs": str(self.folder / "data")}
        file = self.folder / "kafka.properties"
        file.write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        java = [shutil.which("java"), "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        if not (self.folder / "data").exists():
            subprocess.run([*self.network.wrap("kafka", self.folder), *java, "kafka.tools.StorageTool", "format", "-t", given["CLUSTER_ID"], "-c", file], check=True, capture_output=True, timeout=60)
        return [*java, "kafka.Kafka", file]

    def health(self) -> int:
        """The exit code of its health check."""
        kind, *command = [word.replace("$$", "$") for word in SERVICES[self.name]["healthcheck"]["test"]]
        if self.name == "kafka":  # what asks for the same as the program of the image
            assert command[:2] == ["kafka-broker-api-versions", "--bootstrap-server"]
            command = [sys.executable, "-c", "import sys; from confluent_kafka.admin import AdminClient; AdminClient({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=5)", command[2]]
        command = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
        env = environment(**settings(self.name)) if self.name in OURS else environment()
        return subprocess.run([*self.network.wrap(self.name, self.folder), *command], env=env, capture_output=True, timeout=20).returncode

    def wait_healthy(self, timeout: float = 30) -> "Service":
        deadline = time.monotonic() + timeout
        while self.health() != 0:
            assert self.alive and time.monotonic() < deadline, f"{self.name} is not healthy:\n{self.log()[-3000:]}"
            time.sleep(0.1)
        return self


@contextmanager
def running(folder: Path, names=RUN):
    """The services, each begun when those are healthy that it depends on."""
    need("netns", "redis")
    if "kafka" in names:
        need("kafka")
    with Network(PREFIX, list(SERVICES)) as network, ExitStack() as stack:
        services = {}

        def start(name: str) -> None:
            for other in SERVICES[name].get("depends_on", {}):
                if other not in services and other in names:
                    start(other)
            if name not in services:
                services[name] = Service(name, network, folder / name)
                stack.callback(services[name].kill)
                services[name].start().wait_healthy()
        for name in names:
            start(name)
        yield network, services


def test_what_is_posted_to_the_published_port_is_judged(tmp_path):
    with running(tmp_path) as (network, services):
        def use():
            with httpx.Client(base_url=f"http://{network.address['api']}:8000", timeout=20) as http:
                now = time.time()
                for i, value in enumerate([50.0] * 10 + [200.0]):
                    assert http.post("/events/raw", json={"metric": "cpu", "timestamp": now - 20 + i, "value": value}).status_code == 202
                deadline = time.monotonic() + 20
                while not (found := http.get("/anomalies").json()["anomalies"]):
                    assert time.monotonic() < deadline, "no anomaly"
                    time.sleep(0.05)
                return found, http.get("/health").json()
        found, health = network.call(use)
        assert [a["value"] for a in found] == [200.0]
        assert health["status"] == "ok", health
        # redis-cli as `docker compose exec redis redis-cli …` runs it
        said = subprocess.run([*network.wrap("redis"), "redis-cli", "LLEN", "raw_events"], capture_output=True, text=True, timeout=20)
        assert said.stdout.strip() == "0"
        said = subprocess.run([*network.wrap("redis"), "redis-cli", "--json", "HGETALL", f"event:{found[0]['event_id']}"], capture_output=True, text=True, timeout=20)
        assert json.loads(said.stdout), said


def test_the_health_check_of_each_tells_one_that_works_from_one_that_does_not(tmp_path):
    with running(tmp_path) as (_, services):
        assert {name: service.health() for name, service in services.items()} == {name: 0 for name in RUN}
        with services["redis"].paused():
            deadline = time.monotonic() + 20
            while any(services[name].health() == 0 for name in ("api", "processor")):
                assert time.monotonic() < deadline, "healthy without Redis"
                time.sleep(0.2)
        for name in ("api", "processor"):
            services[name].wait_healthy()
        for name in RUN[::-1]:
            services[name].kill()
            assert services[name].health() != 0, name


def test_a_service_that_is_started_again_goes_on(tmp_path):
    """docker compose restart: SIGTERM, at most 15 s, and again."""
    with running(tmp_path) as (network, services):
        for name in RUN:
            code, seconds = services[name].terminate(15)
            assert code == 0 and seconds < 15, (name, code, seconds)
            services[name].start().wait_healthy()
        for name in RUN:
            services[name].wait_healthy()


@pytest.mark.skipif(not KAFKA.exists(), reason="no scripts/kafka.sh, which brings Apache Kafka")
def test_what_is_produced_inside_and_outside_is_judged(tmp_path):
    """All services. The published port leads to kafka's own network here; who comes by it is sent on to localhost:9092."""
    with running(tmp_path, tuple(SERVICES)) as (network, services):
        start = time.time() - 20
        rows = [json.dumps({"metric": "produced", "timestamp": start + i, "value": 50 + i % 5}) for i in range(12)] + [json.dumps({"metric": "produced", "timestamp": start + 12, "value": 95})]
        # Each in turn from a container, and from the machine: there localhost:9092 is what the port leads to.
        produce = "import sys; from confluent_kafka import Producer; p = Producer({'bootstrap.servers': sys.argv[1]}); [p.produce('events', r) for r in sys.argv[2:]]; sys.exit(p.flush(20))"
        for where, broker, some in (("ingest", "kafka:29092", rows[:6]), ("kafka", "localhost:9092", rows[6:])):
            done = subprocess.run([*network.wrap(where), sys.executable, "-c", produce, broker, *some], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr

        def found():
            with httpx.Client(base_url=f"http://{network.address['api']}:8000", timeout=20) as http:
                deadline = time.monotonic() + 60
                while not (anomalies := http.get("/anomalies").json()["anomalies"]):
                    assert time.monotonic() < deadline, services["ingest"].log()[-2000:]
                    time.sleep(0.1)
                return anomalies
        [anomaly] = network.call(found)
        assert anomaly["value"] == 95 and anomaly["source"].startswith("kafka"), anomaly


@pytest.mark.parametrize("name", OURS)
def test_a_container_writes_only_where_it_may(name):
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"] and (service.get("volumes") == ["api:/data"]) == (name == "api")
