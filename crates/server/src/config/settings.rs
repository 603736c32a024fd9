//! The one list of settings.

use std::time::Duration;

use super::kafka;
use super::notify::{self, SmtpTls};
use super::redis::{self, Results};
use super::setting::{Group, Setting, Unset};
use super::value::{self, show_bytes};
use super::{Backend, Durability, LogFormat};
use crate::logging;
use crate::notify::guard::HttpUrl;

/// Reads a text with a function of [`value`] and puts it into a field.
macro_rules! read {
    ($reader:expr => $($field:ident).+) => {
        |config, text| {
            config.$($field).+ = $reader(text)?;
            Ok(())
        }
    };
}

/// A reader of what may be absent, from one of what is there.
macro_rules! some {
    ($reader:expr) => {
        |text: &str| $reader(text).map(Some)
    };
}

/// Seconds as they are read, where zero is none.
fn seconds_or_zero(duration: Option<Duration>) -> String {
    duration.unwrap_or_default().as_secs_f64().to_string()
}

/// Every setting, in the order in which it is explained.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "WINDOW_SECONDS",
        group: Group::Detection,
        doc: "Length of the window before each event, in seconds of event time (`300`, `300.0` or `5m`). The event itself is not in its \
              window. Samples every five minutes need half an hour or more: a window must hold `ANOMALY_MIN_COUNT` of them.",
        unset: Unset::Value(|c| c.engine.window_seconds.to_string()),
        read: read!(value::positive_seconds => engine.window_seconds),
    },
    Setting {
        name: "ANOMALY_THRESHOLD",
        group: Group::Detection,
        doc: "From how many standard deviations off the mean `zscore` fires. An anomaly is `critical` from twice as many.",
        unset: Unset::Value(|c| format!("{:?}", c.engine.threshold)),
        read: read!(value::positive => engine.threshold),
    },
    Setting {
        name: "ANOMALY_MIN_COUNT",
        group: Group::Detection,
        doc: "Samples that the window must hold before an event is judged; until then its verdict is `too_few`.",
        unset: Unset::Value(|c| c.engine.min_count.to_string()),
        read: read!(value::count32 => engine.min_count),
    },
    Setting {
        name: "ANOMALY_DETECTOR",
        group: Group::Detection,
        doc: "The detector of every series that no rule names: `zscore` (deviations from the mean of the window) or `percentile` (beyond \
              the 1st or 99th percentile of the window).",
        unset: Unset::Value(|c| c.engine.detector.as_str().to_owned()),
        read: read!(value::detector => engine.detector),
    },
    Setting {
        name: "WINDOW_MAX_SAMPLES",
        group: Group::Detection,
        doc: "The newest samples that a window keeps for one series. Where that was not all, the series is marked `truncated`.",
        unset: Unset::Value(|c| c.engine.window_max_samples.to_string()),
        read: read!(value::count32 => engine.window_max_samples),
    },
    Setting {
        name: "ALLOWED_LATENESS_SECONDS",
        group: Group::Events,
        doc: "How far behind the newest event of its series an event may be and still be judged. Older ones are accepted, counted as \
              `late` and not judged.",
        unset: Unset::Value(|c| c.engine.allowed_lateness_seconds.to_string()),
        read: read!(value::seconds_from_zero => engine.allowed_lateness_seconds),
    },
    Setting {
        name: "MAX_FUTURE_SECONDS",
        group: Group::Events,
        doc: "How far ahead of its arrival an event's time may be; beyond, it is rejected. At most `ALLOWED_LATENESS_SECONDS`, since one \
              clock that is fast would make the other events of its series late.",
        unset: Unset::Value(|c| (c.max_future / anomaly_engine::NANOS).to_string()),
        read: |config, text| {
            config.max_future = value::nanos(value::seconds_from_zero(text)?);
            Ok(())
        },
    },
    Setting {
        name: "DEDUP_HORIZON_SECONDS",
        group: Group::Events,
        doc: "How long the `id` of an event is remembered, in event time: the same id for the same series is counted as a duplicate and \
              not judged again.",
        unset: Unset::Value(|c| c.engine.dedup_horizon_seconds.to_string()),
        read: read!(value::seconds_from_zero => engine.dedup_horizon_seconds),
    },
    Setting {
        name: "DEDUP_MAX_IDS",
        group: Group::Events,
        doc: "How many ids are remembered for one series, the newest first.",
        unset: Unset::Value(|c| c.engine.dedup_max_ids.to_string()),
        read: read!(value::count32 => engine.dedup_max_ids),
    },
    Setting {
        name: "SERIES_IDLE_SECONDS",
        group: Group::Events,
        doc: "After how long without an arrival a series is forgotten (7 days).",
        unset: Unset::Value(|c| c.engine.series_idle_seconds.to_string()),
        read: read!(value::positive_seconds => engine.series_idle_seconds),
    },
    Setting {
        name: "TIMEZONE",
        group: Group::Events,
        doc: "Zone of the times in files that name none, such as `Europe/Berlin`.",
        unset: Unset::Value(|c| c.timezone.iana_name().unwrap_or("UTC").to_owned()),
        read: read!(value::timezone => timezone),
    },
    Setting {
        name: "DATA_DIR",
        group: Group::Storage,
        doc: "Where log, anomalies, recent points, checkpoints and arriving files are kept. One process at a time.",
        unset: Unset::Value(|c| c.data_dir.display().to_string()),
        read: |config, text| {
            config.data_dir = text.into();
            Ok(())
        },
    },
    Setting {
        name: "BACKEND",
        group: Group::Storage,
        doc: "Where log and store are: `embedded` (SQLite in `DATA_DIR`, for `anomaly all`), `redis` (at `REDIS_URL`; what the single roles \
              `api`, `processor` and `ingest` do by default), or `kafka` (the log is `KAFKA_LOG_TOPIC`, whose partitions any number of processors \
              share; the store is on Redis).",
        unset: Unset::Value(|_| "embedded".to_owned()),
        read: read!(backend => backend),
    },
    Setting {
        name: "DURABILITY",
        group: Group::Storage,
        doc: "When an event counts as durable and is acknowledged: `fsync` (survives a power cut), `os` (survives a crash of the process, \
              not of the machine), `memory` (nothing on disk, all gone at exit).",
        unset: Unset::Value(|c| c.durability.as_str().to_owned()),
        read: |config, text| {
            let words = [Durability::Fsync, Durability::Os, Durability::Memory].map(|durability| (durability.as_str(), durability));
            config.durability = value::word(text, &words)?;
            Ok(())
        },
    },
    Setting {
        name: "POINTS_MAX_BYTES",
        group: Group::Storage,
        doc: "Bytes of recent points kept for drawing; the oldest go first. Sizes are `2GiB`, `500MB` or plain bytes.",
        unset: Unset::Value(|c| show_bytes(c.points_max_bytes)),
        read: read!(value::bytes => points_max_bytes),
    },
    Setting {
        name: "DISK_MAX_BYTES",
        group: Group::Storage,
        doc: "Bytes that all of `DATA_DIR` may take. Points go first, then new events are refused with 507.",
        unset: Unset::Words("the disk"),
        read: |config, text| {
            config.disk_max_bytes = Some(value::bytes(text)?);
            Ok(())
        },
    },
    Setting {
        name: "ANOMALY_RETENTION_DAYS",
        group: Group::Storage,
        doc: "Days that an anomaly is kept, from its detection.",
        unset: Unset::Value(|c| c.anomaly_retention_days.to_string()),
        read: read!(value::positive => anomaly_retention_days),
    },
    Setting {
        name: "HOST",
        group: Group::Serving,
        doc: "Address to listen on. One that other machines can reach is refused unless `ALLOW_UNAUTHENTICATED=true`.",
        unset: Unset::Value(|c| c.host.to_string()),
        read: read!(value::address => host),
    },
    Setting {
        name: "PORT",
        group: Group::Serving,
        doc: "TCP port to listen on; `0` takes a free one.",
        unset: Unset::Value(|c| c.port.to_string()),
        read: read!(value::port => port),
    },
    Setting {
        name: "STATUS_PORT",
        group: Group::Serving,
        doc: "Port on which the roles `processor` and `ingest` serve `/livez`, `/readyz`, `/health` and `/metrics`, at `HOST`; `0` takes a \
              free one.",
        unset: Unset::Words("none"),
        read: read!(some!(value::port) => status_port),
    },
    Setting {
        name: "BASE_PATH",
        group: Group::Serving,
        doc: "Prefix of every route, such as `/anomaly`, for a proxy that shares its host.",
        unset: Unset::Words("no prefix"),
        read: read!(value::base_path => base_path),
    },
    Setting {
        name: "CORS_ALLOWED_ORIGINS",
        group: Group::Serving,
        doc: "Origins of other sites whose pages may use the API, between commas: `https://grafana.example.org`.",
        unset: Unset::Words("none"),
        read: read!(value::origins => cors_allowed_origins),
    },
    Setting {
        name: "ALLOW_UNAUTHENTICATED",
        group: Group::Serving,
        doc: "Whether a `HOST` that other machines can reach may be served without authentication: anybody there can then read, send \
              and delete.",
        unset: Unset::Value(|c| c.allow_unauthenticated.to_string()),
        read: read!(value::boolean => allow_unauthenticated),
    },
    Setting {
        name: "REDIS_URL",
        group: Group::Redis,
        doc: "Redis 7 or later: `redis://[user:password@]host:port/db`, `rediss://` with TLS, or Sentinel as \
              `redis+sentinel://host:port,host:port/service/db`; with `BACKEND=kafka` also a cluster, `redis+cluster://host:port,host:port`. Alone it changes nothing for `anomaly all`: see `BACKEND`.",
        unset: Unset::Words("none"),
        read: read!(some!(redis::target) => redis.target),
    },
    Setting {
        name: "REDIS_WAIT_REPLICAS",
        group: Group::Redis,
        doc: "Replicas that must have an event in memory before it is acknowledged. With `0` the server itself must have it on disk: it \
              needs `appendonly yes` and `appendfsync always`. For Sentinel set `1` or more, and run one replica more than that.",
        unset: Unset::Value(|c| c.redis.wait_replicas.to_string()),
        read: |config, text| {
            config.redis.wait_replicas = text.trim().parse().map_err(|_| format!("must be a whole number such as 0 or 1, got {text:?}"))?;
            Ok(())
        },
    },
    Setting {
        name: "REDIS_RESULTS",
        group: Group::Redis,
        doc: "Of which events the result is kept as a hash `event:<id>`: `anomalies`, or `all` that have an id.",
        unset: Unset::Value(|c| c.redis.results.as_str().to_owned()),
        read: |config, text| {
            config.redis.results = value::word(text, &Results::WORDS)?;
            Ok(())
        },
    },
    Setting {
        name: "REDIS_RESULT_TTL_SECONDS",
        group: Group::Redis,
        doc: "How long such a hash is kept, in seconds.",
        unset: Unset::Value(|c| c.redis.result_ttl.as_secs().to_string()),
        read: read!(redis::pause => redis.result_ttl),
    },
    Setting {
        name: "ALERTS_CHANNEL",
        group: Group::Redis,
        doc: "Pub/Sub channel on which each anomaly is published as JSON; incidents are on the same name with `:incidents` behind it.",
        unset: Unset::Value(|c| c.redis.alerts_channel.clone()),
        read: read!(redis::channel => redis.alerts_channel),
    },
    Setting {
        name: "SLEEP_ON_EMPTY",
        group: Group::Redis,
        doc: "Seconds until the list `raw_events` is looked at again when it is empty.",
        unset: Unset::Value(|c| c.redis.sleep_on_empty.as_secs_f64().to_string()),
        read: read!(redis::pause => redis.sleep_on_empty),
    },
    Setting {
        name: "KAFKA_BROKER",
        group: Group::Kafka,
        doc: "Brokers to read events from, between commas: `kafka-1:9092,kafka-2:9092`. Any of the cluster does; the others are found from it.",
        unset: Unset::Words("none: Kafka is not read"),
        read: read!(some!(kafka::brokers) => kafka.broker),
    },
    Setting {
        name: "KAFKA_TOPIC",
        group: Group::Kafka,
        doc: "Topic of the events: JSON, one event or an array of events in a message. It is read when it exists, and need not at start.",
        unset: Unset::Value(|c| c.kafka.topic.clone()),
        read: read!(kafka::topic => kafka.topic),
    },
    Setting {
        name: "KAFKA_GROUP_ID",
        group: Group::Kafka,
        doc: "Consumer group: its members share the partitions, its offsets tell how far events are in the log.",
        unset: Unset::Value(|c| c.kafka.group_id.clone()),
        read: |config, text| {
            config.kafka.group_id = text.to_owned();
            Ok(())
        },
    },
    Setting {
        name: "KAFKA_DEAD_LETTER_TOPIC",
        group: Group::Kafka,
        doc: "Topic to which messages go that are no good events, with the reason in their headers.",
        unset: Unset::Words("`KAFKA_TOPIC` with `.dead` behind it"),
        read: read!(some!(kafka::topic) => kafka.dead_letter_topic),
    },
    Setting {
        name: "KAFKA_LOG_TOPIC",
        group: Group::Kafka,
        doc: "Topic that holds the log with `BACKEND=kafka`; made with 16 partitions where it is not there. Fixed from the first start on.",
        unset: Unset::Words("`KAFKA_TOPIC` with `.log` behind it"),
        read: read!(some!(kafka::topic) => kafka.log_topic),
    },
    Setting {
        name: "KAFKA_ANOMALY_TOPIC",
        group: Group::Kafka,
        doc: "Topic that anomalies are written to by processors (`BACKEND=redis` or `kafka`): JSON as the API gives it, at least once, keyed by id.",
        unset: Unset::Words("none"),
        read: read!(some!(kafka::topic) => kafka.anomaly_topic),
    },
    Setting {
        name: "KAFKA_SECURITY_PROTOCOL",
        group: Group::Kafka,
        doc: "How the connection is secured: `PLAINTEXT`, `SASL_PLAINTEXT`, `SSL` or `SASL_SSL`; the last two need a build with \
              `--features kafka-tls`.",
        unset: Unset::Value(|c| c.kafka.security_protocol.as_str().to_owned()),
        read: read!(kafka::security_protocol => kafka.security_protocol),
    },
    Setting {
        name: "KAFKA_SASL_MECHANISM",
        group: Group::Kafka,
        doc: "With `SASL_…`: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; the last two need a build with `--features kafka-tls`.",
        unset: Unset::Words("`PLAIN`"),
        read: read!(some!(kafka::sasl_mechanism) => kafka.sasl_mechanism),
    },
    Setting {
        name: "KAFKA_SASL_USERNAME",
        group: Group::Kafka,
        doc: "Account on the brokers.",
        unset: Unset::Words("no authentication"),
        read: |config, text| {
            config.kafka.sasl_username = Some(text.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "KAFKA_SASL_PASSWORD",
        group: Group::Kafka,
        doc: "Password of that account; `KAFKA_SASL_PASSWORD_FILE` names a file that holds it.",
        unset: Unset::Words("no authentication"),
        read: |config, text| {
            config.kafka.sasl_password = Some(text.into());
            Ok(())
        },
    },
    Setting {
        name: "KAFKA_SSL_CA_LOCATION",
        group: Group::Kafka,
        doc: "File with the certificates (PEM) that are trusted, for brokers whose certificate is from an authority of your own.",
        unset: Unset::Words("those of the system"),
        read: |config, text| {
            config.kafka.ssl_ca_location = Some(text.into());
            Ok(())
        },
    },
    Setting {
        name: "EMAIL_ENABLED",
        group: Group::Alerting,
        doc: "Whether incidents are told by email. Needs `SMTP_HOST`, `EMAIL_FROM` and `EMAIL_TO`.",
        unset: Unset::Value(|c| c.notify.email.enabled.to_string()),
        read: read!(value::boolean => notify.email.enabled),
    },
    Setting {
        name: "SMTP_HOST",
        group: Group::Alerting,
        doc: "The mail server: its name or address.",
        unset: Unset::Words("none"),
        read: read!(some!(notify::host) => notify.email.host),
    },
    Setting {
        name: "SMTP_PORT",
        group: Group::Alerting,
        doc: "Its port: usually 587 with `starttls`, 465 with `tls`, 25 with `none`.",
        unset: Unset::Value(|c| c.notify.email.port.to_string()),
        read: read!(value::port => notify.email.port),
    },
    Setting {
        name: "SMTP_USER",
        group: Group::Alerting,
        doc: "Name of the account at the mail server, where it wants one.",
        unset: Unset::Words("no authentication"),
        read: |config, text| {
            config.notify.email.user = Some(text.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "SMTP_PASSWORD",
        group: Group::Alerting,
        doc: "Password of that account.",
        unset: Unset::Words("no authentication"),
        read: |config, text| {
            config.notify.email.password = Some(text.into());
            Ok(())
        },
    },
    Setting {
        name: "SMTP_TLS",
        group: Group::Alerting,
        doc: "How the connection is secured: `starttls` (begins in the clear and must become TLS before anything is said), `tls` (from the \
              first byte), `none` (in the clear, password included: for a relay on the same machine).",
        unset: Unset::Value(|c| c.notify.email.tls.as_str().to_owned()),
        read: |config, text| {
            config.notify.email.tls = value::word(text, &SmtpTls::ALL.map(|tls| (tls.as_str(), tls)))?;
            Ok(())
        },
    },
    Setting {
        name: "SMTP_CA",
        group: Group::Alerting,
        doc: "Certificates (PEM) that are trusted besides the system's, for a mail server with one of its own. `SMTP_CA_FILE` names a file \
              that holds them.",
        unset: Unset::Words("those of the system"),
        read: read!(some!(notify::certificates) => notify.email.ca),
    },
    Setting {
        name: "EMAIL_FROM",
        group: Group::Alerting,
        doc: "The sender: `alerts@example.org` or `Alerts <alerts@example.org>`.",
        unset: Unset::Words("none"),
        read: read!(some!(notify::mailbox) => notify.email.from),
    },
    Setting {
        name: "EMAIL_TO",
        group: Group::Alerting,
        doc: "The recipients, between commas.",
        unset: Unset::Words("none"),
        read: read!(notify::mailboxes => notify.email.to),
    },
    Setting {
        name: "EMAIL_RATE_LIMIT_SECONDS",
        group: Group::Alerting,
        doc: "The shortest time between two emails; what comes sooner is told in a digest. `0`: no limit.",
        unset: Unset::Value(|c| c.notify.email_rate_limit.as_secs_f64().to_string()),
        read: read!(notify::duration => notify.email_rate_limit),
    },
    Setting {
        name: "WEBHOOK_URL",
        group: Group::Alerting,
        doc: "Where each incident is sent as JSON, as Standard Webhooks say. Redirects are not followed. Certificates are checked against those of the \
              system, or of the file that `SSL_CERT_FILE` names.",
        unset: Unset::Words("none"),
        read: read!(some!(HttpUrl::parse) => notify.webhook_url),
    },
    Setting {
        name: "WEBHOOK_SECRET",
        group: Group::Alerting,
        doc: "What webhooks are signed with: `whsec_` and base64, or any text.",
        unset: Unset::Words("no signature"),
        read: read!(some!(notify::webhook_secret) => notify.webhook_secret),
    },
    Setting {
        name: "SLACK_WEBHOOK_URL",
        group: Group::Alerting,
        doc: "An incoming webhook of Slack.",
        unset: Unset::Words("none"),
        read: read!(some!(HttpUrl::parse) => notify.slack_webhook_url),
    },
    Setting {
        name: "PAGERDUTY_ROUTING_KEY",
        group: Group::Alerting,
        doc: "Integration key of a PagerDuty service (Events API v2).",
        unset: Unset::Words("none"),
        read: |config, text| {
            config.notify.pagerduty_routing_key = Some(text.into());
            Ok(())
        },
    },
    Setting {
        name: "PAGERDUTY_URL",
        group: Group::Alerting,
        doc: "Where PagerDuty takes events: `https://events.eu.pagerduty.com/v2/enqueue` for accounts in the EU, or what a test listens on.",
        unset: Unset::Value(|c| c.notify.pagerduty_url.url().to_string()),
        read: read!(HttpUrl::parse => notify.pagerduty_url),
    },
    Setting {
        name: "ALERTMANAGER_URL",
        group: Group::Alerting,
        doc: "Address of an Alertmanager, such as `http://alertmanager:9093`; `/api/v2/alerts` is put behind it.",
        unset: Unset::Words("none"),
        read: read!(some!(HttpUrl::parse) => notify.alertmanager_url),
    },
    Setting {
        name: "PUBLIC_URL",
        group: Group::Alerting,
        doc: "Where people reach the dashboard, for the links in messages: `https://anomaly.example.org`.",
        unset: Unset::Words("`http://HOST:PORT` and `BASE_PATH`"),
        read: read!(some!(notify::public_url) => notify.public_url),
    },
    Setting {
        name: "NOTIFY_GROUP_WAIT_SECONDS",
        group: Group::Alerting,
        doc: "How long incidents that begin together are gathered into one message, the first mover named.",
        unset: Unset::Value(|c| c.notify.group_wait.as_secs_f64().to_string()),
        read: read!(notify::duration => notify.group_wait),
    },
    Setting {
        name: "NOTIFY_GROUP_BY",
        group: Group::Alerting,
        doc: "Names of labels, between commas: incidents that agree in all of them are one message (`host`).",
        unset: Unset::Words("none"),
        read: |config, text| {
            config.notify.group_by = notify::names(text);
            Ok(())
        },
    },
    Setting {
        name: "NOTIFY_REPEAT_SECONDS",
        group: Group::Alerting,
        doc: "After how long an incident that is open and that nobody has acknowledged is told again. `0`: never.",
        unset: Unset::Value(|c| seconds_or_zero(c.notify.repeat)),
        read: read!(notify::duration_or_never => notify.repeat),
    },
    Setting {
        name: "NOTIFY_MAX_AGE_SECONDS",
        group: Group::Alerting,
        doc: "An incident whose last anomaly was older when it arrived (last year's file) is shown and counted in the next digest, not sent. \
              `0`: no limit.",
        unset: Unset::Value(|c| (c.notify.max_age.unwrap_or(0) / anomaly_engine::NANOS).to_string()),
        read: |config, text| {
            config.notify.max_age = Some(value::nanos(value::seconds_from_zero(text)?)).filter(|nanos| *nanos > 0);
            Ok(())
        },
    },
    Setting {
        name: "NOTIFY_BUDGET",
        group: Group::Alerting,
        doc: "The most messages that people are to get: `2/week`, `5/day`, `1/hour`. What is held back stands in the digest.",
        unset: Unset::Words("none"),
        read: read!(some!(notify::budget) => notify.budget),
    },
    Setting {
        name: "QUEUE_CAPACITY",
        group: Group::Limits,
        doc: "Events that may wait for detection; when full, new ones are refused with 503 and `Retry-After`.",
        unset: Unset::Value(|c| c.queue_capacity.to_string()),
        read: read!(value::count => queue_capacity),
    },
    Setting {
        name: "MEMORY_MAX_BYTES",
        group: Group::Limits,
        doc: "Bytes that the state of series may take. From 80 % on new series are refused, at 100 % everything is, with 503.",
        unset: Unset::Words("half of the machine's memory, or of its cgroup's limit"),
        read: read!(value::bytes => memory_max_bytes),
    },
    Setting {
        name: "MAX_SERIES",
        group: Group::Limits,
        doc: "Series that may be known at once; an event of a new one beyond them is rejected.",
        unset: Unset::Value(|c| c.max_series.to_string()),
        read: read!(value::count => max_series),
    },
    Setting {
        name: "MAX_EVENT_BYTES",
        group: Group::Limits,
        doc: "The largest event.",
        unset: Unset::Value(|c| show_bytes(c.limits.max_event_bytes as u64)),
        read: read!(value::bytes_in_memory => limits.max_event_bytes),
    },
    Setting {
        name: "MAX_BATCH_BYTES",
        group: Group::Limits,
        doc: "The largest body of `POST /events`, as it is sent.",
        unset: Unset::Value(|c| show_bytes(c.limits.max_batch_bytes as u64)),
        read: read!(value::bytes_in_memory => limits.max_batch_bytes),
    },
    Setting {
        name: "MAX_BATCH_UNPACKED_BYTES",
        group: Group::Limits,
        doc: "The same, gzip or zstd unpacked.",
        unset: Unset::Value(|c| show_bytes(c.limits.max_batch_unpacked_bytes as u64)),
        read: read!(value::bytes_in_memory => limits.max_batch_unpacked_bytes),
    },
    Setting {
        name: "MAX_FILE_BYTES",
        group: Group::Limits,
        doc: "The largest file that may be uploaded, as it is sent and unpacked.",
        unset: Unset::Value(|c| show_bytes(c.limits.max_file_bytes)),
        read: read!(value::bytes => limits.max_file_bytes),
    },
    Setting {
        name: "LOG_LEVEL",
        group: Group::Logging,
        doc: "Which lines are logged: `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`; also by module: `info,anomaly_server::log=debug`.",
        unset: Unset::Value(|c| c.log_level.to_uppercase()),
        read: read!(logging::filter => log_level),
    },
    Setting {
        name: "LOG_FORMAT",
        group: Group::Logging,
        doc: "How lines are logged: `text` or `json`.",
        unset: Unset::Words("`json` when `ENVIRONMENT=production`, else `text`"),
        read: |config, text| {
            let words = [LogFormat::Text, LogFormat::Json].map(|format| (format.as_str(), format));
            config.log_format = Some(value::word(text, &words)?);
            Ok(())
        },
    },
    Setting {
        name: "ENVIRONMENT",
        group: Group::Logging,
        doc: "What this process is for: `development`, `production`, or a name of your own.",
        unset: Unset::Value(|c| c.environment.clone()),
        read: |config, text| {
            config.environment = text.to_owned();
            Ok(())
        },
    },
];

fn backend(text: &str) -> Result<Backend, String> {
    value::word(text, &Backend::WORDS)
}
