"""docker-compose.yml and compose.production.yml without an engine: what they say of each service is done by processes, each with a network of its own.

Our services run the binary under test, those of Redis and haproxy Debian's, those of Kafka Apache Kafka; names, addresses, ports, commands,
environment and health checks are those of the file. `.env` is .env.example, as the file's first lines tell the user.
"""
import ipaddress
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
from websockets.sync.client import connect

from needs import need
from networks import Network
from process import Process, wait_for
from server import REPO, binary, environment

PREFIX = "10.214.0"
KAFKA = REPO / "scripts" / "kafka.sh"
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")


class File:
    """A compose file: its services, and the containers that it makes of them."""

    def __str__(self) -> str:
        return self.name

    def __init__(self, name: str):
        self.name, self.text = name, (REPO / name).read_text()
        found = yaml.safe_load(self.text)
        self.services, self.networks = found["services"], found.get("networks", {})
        self.ours = [name for name, service in self.services.items() if "build" in service]
        self.containers = {}
        for name, service in self.services.items():
            copies = service.get("deploy", {}).get("replicas", 1)
            self.containers |= {name: name} if copies == 1 else {f"{name}-{i}": name for i in range(1, copies + 1)}

    def addresses(self) -> dict[str, str]:
        """Of the containers that the file gives one."""
        return {name: service["networks"]["default"]["ipv4_address"] for name, service in self.services.items() if "networks" in service}

    def settings(self, name: str) -> dict[str, str]:
        """The environment of one of our services: the image's, .env, and what stands under `environment:`. Of others, the last."""
        service = self.services[name]
        given = {k: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(v)) for k, v in service.get("environment", {}).items()}
        if name not in self.ours:
            return given
        assert service["env_file"] == [".env"]
        return image() | dotenv((REPO / ".env.example").read_text()) | given


STACK, PRODUCTION = File("docker-compose.yml"), File("compose.production.yml")
FILES = pytest.mark.parametrize("file", [STACK, PRODUCTION], ids=lambda file: file.name)
SERVICES, OURS = STACK.services, STACK.ours
RUN = ("redis", "api", "processor")


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


# --- the files -----------------------------------------------------------------------------------------------------

def test_its_services_are_the_familiar_ones():
    assert set(SERVICES) == {"kafka", "redis", *OURS}
    assert [SERVICES[name]["command"] for name in OURS] == [[name] for name in OURS]
    assert SERVICES["kafka"]["image"].startswith("confluentinc/cp-kafka:") and "zookeeper" not in STACK.text.lower()


@FILES
def test_images_are_pinned(file):
    for name in file.services.keys() - file.ours:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-\w+)?", file.services[name]["image"]), f"{name} is not pinned: {file.services[name]['image']}"


def test_it_publishes_to_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"kafka": ["127.0.0.1:9092:9092"], "redis": ["127.0.0.1:6379:6379"], "api": ["127.0.0.1:8000:8000"]}
    published = {name: service["ports"] for name, service in PRODUCTION.services.items() if "ports" in service}
    assert published == {"lb": ["127.0.0.1:8000:8000"]} | {f"kafka-{i}": [f"127.0.0.1:{9091 + i}:9092"] for i in (1, 2, 3)}


def test_kafka_is_found_inside_and_outside():
    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"] == "INSIDE://kafka:29092,OUTSIDE://localhost:9092"
    listeners, roles = kafka["KAFKA_LISTENERS"], kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    assert set(re.findall(r"(\w+)://", listeners)) == set(re.findall(r"(\w+):PLAINTEXT", roles)) == {"INSIDE", "OUTSIDE", "CONTROLLER"}
    assert "INSIDE://0.0.0.0:29092" in listeners and "OUTSIDE://0.0.0.0:9092" in listeners
    assert kafka["KAFKA_PROCESS_ROLES"] == "broker,controller" and kafka["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka:29093"
    assert STACK.settings("ingest")["KAFKA_BROKER"] == "kafka:29092"


def test_every_service_has_a_health_check_and_is_waited_for():
    for file in (STACK, PRODUCTION):
        for name in file.services.keys() - {"redis-cluster"}:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(file.services[name]["healthcheck"]), name
    for name in PRODUCTION.ours:
        assert PRODUCTION.services[name]["depends_on"] == {f"kafka-{i}": {"condition": "service_healthy"} for i in (1, 2, 3)} | {"redis-cluster": {"condition": "service_completed_successfully"}}
    waits = {name: {k: v["condition"] for k, v in SERVICES[name]["depends_on"].items()} for name in OURS}
    assert waits["api"] == waits["processor"] == {"redis": "service_healthy"}
    assert waits["ingest"] == {"redis": "service_healthy", "kafka": "service_healthy"}


def test_redis_is_one_that_the_roles_take():
    for name, service in [("redis", SERVICES["redis"]), *((f"redis-{i}", PRODUCTION.services[f"redis-{i}"]) for i in range(1, 7))]:
        words = service["command"]
        given = dict(zip(words[1::2], words[2::2]))
        assert given.items() >= {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}.items(), name
        assert given["--maxmemory"] and service["volumes"] == [f"{name}:/data"] and given.get("--cluster-enabled") == (None if name == "redis" else "yes")


@FILES
def test_what_env_says_for_a_program_here_does_not_reach_a_container(file):
    """As it is, and with what .env holds for local use."""
    local = {"REDIS_URL": "redis://localhost:6379/0", "KAFKA_BROKER": "localhost:9092", "HOST": "127.0.0.1", "PORT": "8123", "DATA_DIR": "./data", "BACKEND": "embedded"}
    for name in file.ours:
        own = {k: str(v) for k, v in file.services[name]["environment"].items()}
        reached = {k: v for k, v in (local | own).items() if k in local and v == local[k]}
        assert set(reached) <= {"PORT"} and (file.services[name]["command"] != ["api"] or not reached), f"{name}: {reached}"
        assert own["HOST"] == "0.0.0.0" and own["ALLOW_UNAUTHENTICATED"] == "true"


def test_production_has_each_part_more_than_once():
    services = PRODUCTION.services
    assert set(services) == {*(f"kafka-{i}" for i in (1, 2, 3)), *(f"redis-{i}" for i in range(1, 7)), *(f"api-{i}" for i in (1, 2, 3)), "redis-cluster", "lb", "processor", "ingest"}
    assert services["processor"]["deploy"] == {"replicas": 5}
    assert {name: services[name]["command"][0] for name in PRODUCTION.ours} == {name: name.partition("-")[0] for name in PRODUCTION.ours}
    assert {services[name]["image"] for name in services.keys() - PRODUCTION.ours} >= {SERVICES["kafka"]["image"], SERVICES["redis"]["image"]}
    for name in PRODUCTION.ours:
        given = PRODUCTION.settings(name)
        assert given["BACKEND"] == "kafka" and given["KAFKA_BROKER"] == ",".join(f"kafka-{i}:29092" for i in (1, 2, 3)) and given["REDIS_WAIT_REPLICAS"] == "1"
        assert given["REDIS_URL"] == "redis+cluster://" + ",".join(f"redis-{i}:6379" for i in range(1, 7))


def test_three_brokers_keep_what_one_loses():
    given = [PRODUCTION.services[f"kafka-{i}"]["environment"] for i in (1, 2, 3)]
    for i, own in enumerate(given, start=1):
        assert own["KAFKA_NODE_ID"] == i and own["KAFKA_ADVERTISED_LISTENERS"] == f"INSIDE://kafka-{i}:29092,OUTSIDE://localhost:{9091 + i}"
        assert PRODUCTION.services[f"kafka-{i}"]["volumes"] == [f"kafka-{i}:/var/lib/kafka/data"]
    [same] = {tuple((k, v) for k, v in own.items() if k not in ("KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS")) for own in given}
    same = dict(same)
    assert same["KAFKA_CONTROLLER_QUORUM_VOTERS"] == ",".join(f"{i}@kafka-{i}:29093" for i in (1, 2, 3))
    assert {same[f"KAFKA_{of}_REPLICATION_FACTOR"] for of in ("DEFAULT", "OFFSETS_TOPIC", "TRANSACTION_STATE_LOG")} == {3}
    assert same["KAFKA_MIN_INSYNC_REPLICAS"] == same["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == 2


def test_the_nodes_of_the_cluster_keep_their_addresses():
    """What they have of each other on disk is right after `down` and `up`; the network gives these addresses to nobody else."""
    [pool] = PRODUCTION.networks["default"]["ipam"]["config"]
    given, others = [*PRODUCTION.addresses().values()], ipaddress.ip_network(pool["ip_range"])
    assert len(set(given)) == 6 and all(ipaddress.ip_address(a) in ipaddress.ip_network(pool["subnet"]) and ipaddress.ip_address(a) not in others for a in given)
    assert " ".join(f"{a}:6379" for a in given) in PRODUCTION.services["redis-cluster"]["command"][-1]


def test_the_load_balancer_is_what_its_file_says():
    need("haproxy")
    [mount] = PRODUCTION.services["lb"]["volumes"]
    file = REPO / mount.split(":")[0]
    assert mount == "./deploy/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
    done = subprocess.run([HAPROXY, "-c", "-f", file], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    apis = [name for name in PRODUCTION.ours if PRODUCTION.services[name]["command"] == ["api"]]
    assert re.findall(r"(?m)^  server (\S+) (\S+)", file.read_text()) == [(name, f"{name}:8000") for name in apis]


def test_docker_reads_env_example_as_we_do():
    """A comment behind an empty value is the value for Docker."""
    assert not {k: v for k, v in dotenv((REPO / ".env.example").read_text()).items() if "#" in v}


@FILES
def test_compose_accepts_the_file(file, tmp_path):
    need("compose")
    shutil.copy(REPO / file.name, tmp_path)
    shutil.copy(REPO / ".env.example", tmp_path / ".env")
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    done = subprocess.run([*compose, "-f", file.name, "config"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == set(file.services)
    for name in file.ours:
        own = file.services[name]["environment"]
        wrong = {k: v for k, v in services[name]["environment"].items() if v is not None and str(v).startswith("#") or k in own and str(v) != str(own[k])}
        assert not wrong, wrong


# --- their services as processes ---------------------------------------------------------------------------------------

class Service(Process):
    """One container, in its network and with a folder for its volume."""

    def __init__(self, file: File, name: str, network: Network, folder: Path):
        folder.mkdir(parents=True)
        super().__init__(folder.parent / f"{name}.log")
        self.file, self.name, self.network, self.folder = file, name, network, folder
        self.service = file.containers[name]
        self.given = file.services[self.service]
        self.image = self.given["image"].split(":")[0]

    def start(self) -> "Service":
        command = [str(word).replace("$$", "$") for word in self.given.get("command", [])]
        if self.image == "anomaly":
            command = [binary(), *command]
        elif self.image == "confluentinc/cp-kafka":
            command = self.kafka()
        elif self.image == "haproxy":
            command = [HAPROXY, "-db", "-f", REPO / self.given["volumes"][0].split(":")[0]]
        elif command[0] == "redis-server":
            command += ["--protected-mode", "no"]  # the official image is built without it
        self.launch([*self.network.wrap(self.name, self.folder), *command], self.folder, self.environment())
        return self

    def environment(self) -> dict[str, str]:
        env = self.file.settings(self.service) if self.image in ("anomaly", "haproxy") else {}
        return environment(**{k: v if v != "/data" else str(self.folder) for k, v in env.items()})

    def kafka(self) -> list[str]:
        """Makes of the environment what the image makes of it: KAFKA_NODE_ID is node.id in its properties."""
        jars = subprocess.run([KAFKA], check=True, capture_output=True, text=True).stdout.strip()
        given = {k: str(v) for k, v in self.given["environment"].items()}
        properties = {k.removeprefix("KAFKA_").lower().replace("_", "."): v for k, v in given.items() if k.startswith("KAFKA_")} | {"log.dirs": str(self.folder / "data")}
        file = self.folder / "kafka.properties"
        file.write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        java = f"{shutil.which('java')} -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{jars}/*'"
        return ["sh", "-c", f"{java} kafka.tools.StorageTool format --ignore-formatted -t {given['CLUSTER_ID']} -c {file} && exec {java} kafka.Kafka {file}"]

    def health(self) -> int:
        """The exit code of its health check."""
        kind, *command = [word.replace("$$", "$") for word in self.given["healthcheck"]["test"]]
        if self.image == "confluentinc/cp-kafka":  # what asks for the same as the program of the image
            assert command[:2] == ["kafka-broker-api-versions", "--bootstrap-server"]
            command = [sys.executable, "-c", "import sys; from confluent_kafka.admin import AdminClient; AdminClient({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=5)", command[2]]
        command = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
        return subprocess.run([*self.network.wrap(self.name, self.folder), *command], env=self.environment(), capture_output=True, timeout=20).returncode

    def wait_healthy(self, timeout: float = 60) -> "Service":
        deadline = time.monotonic() + timeout
        while self.health() != 0:
            assert self.alive and time.monotonic() < deadline, f"{self.name} is not healthy:\n{self.log()[-3000:]}"
            time.sleep(0.1)
        return self

    def wait_done(self, timeout: float = 60) -> "Service":
        """Of one that runs to its end."""
        assert self.wait_exit(timeout) == 0, f"{self.name}:\n{self.log()[-3000:]}"
        return self


@contextmanager
def running(folder: Path, names=RUN, file: File = STACK):
    """The containers, each begun when what it depends on is as the file wants it; all are healthy, or done."""
    need("netns", "redis")
    if any("kafka" in name for name in names):
        need("kafka")
    if "lb" in names:
        need("haproxy")
    with Network(PREFIX, list(file.containers), file.addresses()) as network, ExitStack() as stack:
        services, ready = {}, set()

        def wait(service: Service) -> None:
            if service not in ready:
                service.wait_healthy() if "healthcheck" in service.given else service.wait_done()
                ready.add(service)

        def start(name: str) -> None:
            if name in services:
                return
            others = {other: wants["condition"] for other, wants in file.services[file.containers[name]].get("depends_on", {}).items() if other in names}
            for other in others:
                start(other)
            for other, condition in others.items():
                if condition != "service_started":
                    wait(services[other])
            services[name] = Service(file, name, network, folder / name)
            stack.callback(services[name].kill)
            services[name].start()
        for name in names:
            start(name)
        for service in services.values():
            wait(service)
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
            assert code == 0 and seconds < 15, f"{name}: {code} after {seconds:.1f} s\n{services[name].log()[-3000:]}"
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


def posted(http: httpx.Client, names: list[str], seconds: float = 60) -> None:
    """Ten calm events and a spike of each series, again while they are not accepted; each counts once."""
    now, key = time.time(), f"key-{names[0]}"
    rows = [{"metric": name, "timestamp": now - 20 + i, "value": value} for name in names for i, value in enumerate([50.0] * 10 + [200.0])]
    body = "".join(json.dumps(row) + "\n" for row in rows)

    def accepted() -> bool:
        answer = http.post("/events", content=body, headers={"content-type": "application/x-ndjson", "idempotency-key": key})
        assert answer.status_code in (200, 202, 502, 503, 504), answer.text
        return answer.status_code < 300
    wait_for(accepted, "accepted", seconds)


def found(http: httpx.Client, names: list[str], seconds: float = 60) -> None:
    """Each series has its one anomaly."""
    def of() -> list[str]:
        answer = http.get("/anomalies", params={"limit": 1000})
        return sorted(a["metric"] for a in answer.json()["anomalies"] if a["metric"] in names) if answer.status_code == 200 else []
    wait_for(lambda: len(of()) >= len(names), f"{len(names)} anomalies", seconds)
    assert of() == sorted(names)


@pytest.mark.skipif(not KAFKA.exists(), reason="no scripts/kafka.sh, which brings Apache Kafka")
def test_production_goes_on_without_one_of_each(tmp_path):
    with running(tmp_path, tuple(PRODUCTION.containers), PRODUCTION) as (network, services):
        with ExitStack() as stack:
            lb, *apis = (stack.enter_context(httpx.Client(base_url=f"http://{network.address[name]}:8000", timeout=30)) for name in ("lb", "api-1", "api-2", "api-3"))
            before, after = ([f"{when}{i}" for i in range(16)] for when in ("before", "after"))

            def use(names, apis):
                posted(lb, names)
                for api in apis:
                    found(api, names)
            with network.call(lambda: connect(f"ws://{network.address['lb']}:8000/ws/anomalies", open_timeout=20)) as listener:
                network.call(lambda: use(before, apis))
                missing = set(before)
                while missing:
                    text = listener.recv(timeout=10)
                    missing -= {name for name in missing if f'"{name}"' in text}
            for name in ("processor-1", "api-1", "kafka-1"):
                services[name].kill()
            network.call(lambda: use(after, apis[1:]))
            network.call(lambda: found(lb, before + after))
        assert services["lb"].health() == 0
        # A second `up`.
        services["redis-cluster"].start().wait_done()


@pytest.mark.parametrize(("file", "name"), [(file, name) for file in (STACK, PRODUCTION) for name in file.ours], ids=str)
def test_a_container_writes_only_where_it_may(file, name):
    service = file.services[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"] and (service.get("volumes") == [f"{name}:/data"]) == (service["command"] == ["api"])
