# The image of anomaly: the binary alone, as a user of its own, its data in the volume /data.
#
#   docker build -t anomaly . && docker run --rm anomaly --help
#   docker compose -f compose.single.yml up    serves on 127.0.0.1:8000
#   docker compose up                          with Kafka and Redis, a container for each role: see docker-compose.yml
FROM rust:1.95-bookworm AS build
# npm brings the chart library of the dashboard during the build; CI=true makes the build fail when it cannot.
RUN apt-get update && apt-get install -y --no-install-recommends npm && rm -rf /var/lib/apt/lists/*
ENV CI=true
WORKDIR /src
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN cargo build --release --locked

FROM debian:bookworm-slim
# Whom to trust, for webhooks and mail servers over TLS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /data anomaly && install -d -o anomaly -g anomaly /data
COPY --from=build /src/target/release/anomaly /usr/local/bin/anomaly
USER anomaly
WORKDIR /data
VOLUME /data
# Who publishes the port decides who reaches it; without authentication that must be said: ALLOW_UNAUTHENTICATED=true.
ENV HOST=0.0.0.0 DATA_DIR=/data
EXPOSE 8000
# The image has neither curl nor wget, but bash can speak to a port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --start-interval=1s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT:-8000} && printf 'GET %s/livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' \"$BASE_PATH\" >&3 && grep -q '^HTTP/1.1 200' <&3"]
# SIGTERM finishes what was accepted; that takes at most 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["anomaly"]
CMD ["all"]
