#!/usr/bin/env bash
# Brings Apache Kafka for the tests (tests/kafka/pom.xml, 45 files, 43 MB) from Maven Central, once, and prints the folder
# that holds it: java -cp "$(scripts/kafka.sh)/*" kafka.Kafka server.properties
set -euo pipefail
cd "$(dirname "$0")/.."

pom=$PWD/tests/kafka/pom.xml
folder=${ANOMALY_KAFKA:-${XDG_CACHE_HOME:-$HOME/.cache}/anomaly/kafka-$(sha256sum "$pom" | cut -c 1-12)}
if [ ! -e "$folder/complete" ]; then
  mkdir -p "$folder"
  mvn --quiet --batch-mode --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder" >&2
  touch "$folder/complete"
fi
echo "$folder"
