//! What users may rely on when they configure.

use std::io;
use std::path::Path;

use anomaly_detect::{DetectorKind, Direction};

use super::*;
use crate::notify::channel::Channel;

/// Sources as a test wants them.
#[derive(Default)]
struct Given {
    environment: &'static [(&'static str, &'static str)],
    dotenv: &'static str,
    toml: &'static str,
    flags: &'static [(&'static str, &'static str, &'static str)],
    serving: bool,
}

impl Given {
    fn load(self) -> Result<Loaded, Faults> {
        let environment = self.environment;
        let flag = |&(flag, name, text): &(&'static str, &'static str, &str)| Flag { flag, name, text: text.into() };
        let sources = Sources {
            flags: self.flags.iter().map(flag).collect(),
            environment: Box::new(|name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())),
            dotenv: Some(self.dotenv.into()),
            file: (!self.toml.is_empty()).then(|| ("anomaly.toml".into(), self.toml.into())),
            read_file: |path| match path {
                path if path == Path::new("/run/secrets/port") => Ok("9001\n".into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
            serving: self.serving,
        };
        sources.load()
    }

    fn config(self) -> Config {
        self.load().unwrap().config
    }

    fn faults(self) -> Vec<String> {
        self.load().map(|loaded| loaded.set).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    fn warnings(self) -> Vec<String> {
        Self { serving: true, ..self }.load().unwrap().warnings
    }
}

fn environment(environment: &'static [(&'static str, &'static str)]) -> Given {
    Given { environment, ..Given::default() }
}

fn toml(toml: &'static str) -> Given {
    Given { toml, ..Given::default() }
}

fn serving(environment: &'static [(&'static str, &'static str)]) -> Given {
    Given { environment, serving: true, ..Given::default() }
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(Given { serving: true, ..Given::default() }.config(), Config::default());
}

#[test]
fn flags_win_over_environment_over_dotenv_over_file_over_defaults() {
    let given = || Given {
        flags: &[("--port", "PORT", "1")],
        environment: &[("PORT", "2"), ("MAX_SERIES", "2")],
        dotenv: "PORT=3\nMAX_SERIES=3\nQUEUE_CAPACITY=3",
        toml: "port = 4\nmax_series = 4\nqueue_capacity = 4\nanomaly_min_count = 4",
        serving: false,
    };
    let config = given().config();
    assert_eq!((config.port, config.max_series, config.queue_capacity, config.engine.min_count), (1, 2, 3, 4));
    assert_eq!(config.engine.threshold, 3.0);
    let loaded = given().load().unwrap();
    let origins: Vec<_> = loaded.set.iter().map(|(name, _, origin)| format!("{name} {origin}")).collect();
    assert_eq!(origins, ["ANOMALY_MIN_COUNT anomaly.toml", "PORT --port", "QUEUE_CAPACITY .env", "MAX_SERIES environment"]);
    assert!(loaded.is_set("PORT") && !loaded.is_set("HOST"));
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let given = Given {
        flags: &[("--port", "PORT", "http")],
        environment: &[("WINDOW_SECONDS", "x"), ("ANOMALY_THRESHOLD", "-1")],
        dotenv: "what\nDURABILITY=maybe # ?",
        toml: "max_series = 1.5\nwindow_second = 3\n[[rules]]\nthreshold = 4\n[[rules]]\nthreshold = \"high\"\nmetrics = \"a\"",
        serving: true,
    };
    let mut faults = given.faults();
    faults.sort();
    let expected = [
        "--port: must be a port from 0 to 65535 (0: a free one), got \"http\"",
        ".env: DURABILITY: must be fsync, os or memory, got \"maybe\"",
        ".env: line 1: must be NAME=value, got \"what\"",
        "ANOMALY_THRESHOLD: must be a positive number, got \"-1\"",
        "WINDOW_SECONDS: must be a positive number of seconds, got \"x\"",
        "anomaly.toml: max_series: must be a positive whole number, got \"1.5\"",
        "anomaly.toml: rules[1].metrics: unknown key, did you mean metric?",
        "anomaly.toml: rules[1].threshold: must be a number, got \"high\"",
        "anomaly.toml: window_second: unknown key, did you mean window_seconds?",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn an_empty_value_is_not_set() {
    let given = Given {
        environment: &[("PORT", ""), ("HOST", " ")],
        dotenv: "PORT=\nMAX_SERIES=",
        toml: "port = 9000\nbase_path = \"\"",
        ..Given::default()
    };
    let config = given.config();
    assert_eq!((config.port, config.max_series, config.base_path.as_str()), (9000, 1_000_000, ""));
}

#[test]
fn a_value_may_stand_in_a_file_of_its_own() {
    assert_eq!(environment(&[("PORT_FILE", "/run/secrets/port")]).config().port, 9001);
    assert_eq!(Given { dotenv: "PORT_FILE=/run/secrets/port", ..Given::default() }.config().port, 9001);
    assert_eq!(toml("port_file = \"/run/secrets/port\"").config().port, 9001);
}

#[test]
fn a_file_that_is_missing_or_a_value_given_twice_is_told() {
    let faults = serving(&[("PORT_FILE", "/nowhere")]).faults();
    assert!(faults[0].starts_with("PORT_FILE: cannot read /nowhere: "), "{faults:?}");
    let faults = serving(&[("PORT_FILE", "/run/secrets/port"), ("PORT", "1")]).faults();
    assert_eq!(faults, ["PORT_FILE: PORT is set as well: keep one of them"]);
}

#[test]
fn a_comment_may_follow_a_value_in_dotenv() {
    let config = Given { dotenv: "WINDOW_SECONDS=600.0   # ten minutes\nDATA_DIR=\"/var/lib/a b\" # here", ..Given::default() }.config();
    assert_eq!((config.engine.window_seconds, config.data_dir), (600.0, "/var/lib/a b".into()));
}

#[test]
fn seconds_are_decimal_and_may_carry_a_unit() {
    for (text, expected) in [
        ("300", 300.0),
        ("300.0", 300.0),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("7d", 604_800.0),
        ("1e3", 1000.0),
    ] {
        assert_eq!(value::positive_seconds(text), Ok(expected), "{text}");
    }
    for text in ["x", "", "0", "-1", "inf", "NaN", "5 minutes", "1e30", "s", "5M"] {
        let message = value::positive_seconds(text).unwrap_err();
        assert_eq!(message, format!("must be a positive number of seconds, got {text:?}"));
    }
    assert_eq!(value::seconds_from_zero("0"), Ok(0.0));
    assert!(value::seconds_from_zero("-0.1").is_err());
}

#[test]
fn sizes_carry_a_unit_or_are_bytes() {
    for (text, expected) in [
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("500MB", 500_000_000),
        ("64 KiB", 65_536),
        ("1.5KiB", 1536),
        ("1_000", 1000),
        ("7", 7),
        ("7B", 7),
    ] {
        assert_eq!(value::bytes(text), Ok(expected), "{text}");
    }
    for text in ["0", "-1", "lots", "2 XB", "1e30", "", "99999999TiB"] {
        assert!(value::bytes(text).unwrap_err().ends_with(&format!("got {text:?}")), "{text}");
    }
    for (bytes, text) in [(2 << 30, "2GiB"), (65_536, "64KiB"), (1000, "1000"), (3 << 20, "3MiB"), (0, "0")] {
        assert_eq!(value::show_bytes(bytes), text);
    }
}

#[test]
fn numbers_in_the_file_are_read_as_in_the_environment() {
    let config =
        toml("window_seconds = 600\nanomaly_threshold = 4\npoints_max_bytes = \"1GiB\"\nallow_unauthenticated = true\nport = \"9000\"")
            .config();
    assert_eq!((config.engine.window_seconds, config.engine.threshold, config.points_max_bytes), (600.0, 4.0, 1 << 30));
    assert!(config.allow_unauthenticated && config.port == 9000);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    let faults = toml("port = 1\nhost = what").faults();
    assert!(faults[0].starts_with("anomaly.toml: line 2: "), "{faults:?}");
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_name() {
    for (text, message) in [
        ("prot = 1", "anomaly.toml: prot: unknown key, did you mean port?"),
        ("PORT = 1", "anomaly.toml: PORT: unknown key, did you mean port?"),
        ("threshold = 1", "anomaly.toml: threshold: unknown key, did you mean anomaly_threshold?"),
        ("rule = 1", "anomaly.toml: rule: unknown key, did you mean rules?"),
        ("kafka_brokers = 'a'", "anomaly.toml: kafka_brokers: unknown key, did you mean kafka_broker?"),
        ("colour = 1", "anomaly.toml: colour: unknown key: `anomaly config print` lists those that are known"),
        ("[[rules]]\nanomaly_threshold = 1", "anomaly.toml: rules[0].anomaly_threshold: unknown key, did you mean threshold?"),
        ("[[rules]]\ntreshold = 1", "anomaly.toml: rules[0].treshold: unknown key, did you mean threshold?"),
    ] {
        assert_eq!(toml(text).faults(), [message]);
    }
}

#[test]
fn a_value_of_the_wrong_shape_is_told() {
    for (text, start) in [
        ("[port]\na = 1", "anomaly.toml: port: must be one value, got "),
        ("rules = 1", "anomaly.toml: rules: must be tables, each under [[rules]], got 1"),
        ("rules = [1]", "anomaly.toml: rules[0]: must be a table under [[rules]], got 1"),
        ("[[rules]]\nlabels = 1", "anomaly.toml: rules[0].labels: must be a table of texts, got 1"),
        ("[[rules]]\ndetector = \"magic\"", "anomaly.toml: rules[0].detector: must be \"zscore\" or \"percentile\", got \"magic\""),
    ] {
        let faults = toml(text).faults();
        assert!(faults.len() == 1 && faults[0].starts_with(start), "{faults:?}");
    }
}

#[test]
fn rules_come_from_the_file_in_order() {
    let config = toml(
        "[[rules]]\nmetric = \"cpu*\"\nthreshold = 4\ndirection = \"high\"\n[[rules]]\nlabels = { dc = \"eu\" }\ndetector = \"percentile\"",
    )
    .config();
    let rules = &config.engine.rules;
    assert_eq!((rules[0].metric.as_deref(), rules[0].threshold, rules[0].direction), (Some("cpu*"), Some(4.0), Some(Direction::High)));
    assert_eq!((rules[1].labels["dc"].as_str(), rules[1].detector), ("eu", Some(DetectorKind::Percentile)));
}

#[test]
fn what_the_engine_refuses_is_told_with_the_place_where_it_was_set() {
    let faults = toml("[[rules]]\n[[rules]]\nthreshold = -1").faults();
    assert!(faults.len() == 1 && faults[0].starts_with("anomaly.toml: rules[1].threshold: "), "{faults:?}");
    let faults = environment(&[("WINDOW_MAX_SAMPLES", "1")]).faults();
    assert_eq!(faults, ["WINDOW_MAX_SAMPLES: must be at least 2, got 1"]);
    let faults = toml("window_max_samples = 1").faults();
    assert_eq!(faults, ["anomaly.toml: window_max_samples: must be at least 2, got 1"]);
}

#[test]
fn a_future_beyond_the_allowed_lateness_is_an_error() {
    let faults = environment(&[("MAX_FUTURE_SECONDS", "90")]).faults();
    assert!(
        faults.len() == 1 && faults[0].starts_with("MAX_FUTURE_SECONDS: 90 s is more than ALLOWED_LATENESS_SECONDS (60 s)"),
        "{faults:?}"
    );
    assert!(faults[0].ends_with("set it to 60 s or less"));
    assert_eq!(environment(&[("MAX_FUTURE_SECONDS", "90"), ("ALLOWED_LATENESS_SECONDS", "90")]).config().max_future, 90_000_000_000);
}

#[test]
fn limits_that_exclude_each_other_are_an_error() {
    let faults = toml("max_batch_bytes = \"1GiB\"").faults();
    assert_eq!(faults, ["MAX_BATCH_UNPACKED_BYTES: 64MiB is less than MAX_BATCH_BYTES (1GiB): set it to 1GiB or more"]);
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_consent() {
    for host in [&[("HOST", "0.0.0.0")], &[("HOST", "192.168.1.5")], &[("HOST", "::")]] {
        let faults = serving(host).faults();
        assert!(faults.len() == 1 && faults[0].starts_with("HOST: "), "{faults:?}");
        assert!(faults[0].contains("no authentication") && faults[0].contains("ALLOW_UNAUTHENTICATED=true"), "{faults:?}");
        assert!(environment(host).load().is_ok(), "offline nothing listens");
    }
    assert!(serving(&[("HOST", "0.0.0.0"), ("ALLOW_UNAUTHENTICATED", "true")]).load().is_ok());
    for host in [&[("HOST", "127.0.0.2")], &[("HOST", "::1")], &[("HOST", "localhost")], &[("HOST", "[::1]")]] {
        assert!(serving(host).load().is_ok(), "{host:?}");
    }
}

#[test]
fn what_asks_for_nothing_is_not_told() {
    let none: [&str; 0] = [];
    assert_eq!(environment(&[("REDIS_URL", "redis://localhost")]).warnings(), none);
    assert_eq!(environment(&[("EMAIL_ENABLED", "false"), ("KAFKA_BROKER", "")]).warnings(), none);
}

#[test]
fn a_backend_that_there_is_not_is_an_error() {
    let faults = Given { dotenv: "BACKEND=mysql", serving: true, ..Given::default() }.faults();
    assert_eq!(faults, [".env: BACKEND: must be embedded, redis or kafka, got \"mysql\""]);
    assert!(Given { dotenv: "BACKEND=mysql", ..Given::default() }.load().is_ok(), "offline nothing is stored");
    let config = environment(&[("BACKEND", "redis"), ("REDIS_URL", "redis://:hunter2@localhost:7000/1")]).config();
    assert_eq!(config.backend, Backend::Redis);
    assert!(config.redis.target.is_some() && !format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_bad_redis_url_is_told_without_its_password() {
    let faults = Given { dotenv: "REDIS_URL=http://:hunter2@localhost:7000", serving: true, ..Given::default() }.faults();
    assert!(faults.len() == 1 && faults[0].starts_with(".env: REDIS_URL: ") && !faults[0].contains("hunter2"), "{faults:?}");
}

#[test]
fn logs_are_json_in_production_unless_told_otherwise() {
    assert_eq!(environment(&[]).config().log_format(), LogFormat::Text);
    assert_eq!(environment(&[("ENVIRONMENT", "production")]).config().log_format(), LogFormat::Json);
    assert_eq!(environment(&[("ENVIRONMENT", "production"), ("LOG_FORMAT", "text")]).config().log_format(), LogFormat::Text);
}

#[test]
fn paths_and_origins_are_made_uniform() {
    let config = toml("base_path = \"/anomaly/\"\ncors_allowed_origins = [\"https://A.example/\", \"http://b:3000\"]").config();
    assert_eq!(
        (config.base_path.as_str(), &config.cors_allowed_origins[..]),
        ("/anomaly", &["https://a.example".into(), "http://b:3000".into()][..])
    );
    assert!(value::base_path("anomaly").is_err() && value::base_path("/a b").is_err() && value::base_path("//").is_ok());
    assert!(value::origins("https://a/x").is_err() && value::origins("a.example").is_err());
}

#[test]
fn a_time_zone_is_named_and_an_unknown_one_told() {
    assert_eq!(environment(&[("TIMEZONE", "Europe/Berlin")]).config().timezone.iana_name(), Some("Europe/Berlin"));
    let faults = environment(&[("TIMEZONE", "Europe/Atlantis")]).faults();
    assert_eq!(faults, ["TIMEZONE: must be a time zone such as Europe/Berlin or UTC, got \"Europe/Atlantis\""]);
}

#[test]
fn what_config_print_prints_reads_back_as_the_defaults() {
    let text = docs::as_toml();
    let sources = Sources { file: Some(("printed".into(), text.clone())), ..sources_of_nothing() };
    assert_eq!(sources.load().unwrap().config, Config::default());
    for setting in settings::SETTINGS {
        assert!(text.contains(&format!("{} = ", setting.key())), "{}", setting.name);
    }
    // With every comment that holds an assignment taken in, each key is still a known one.
    let all =
        text.lines().map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ") || line.starts_with("[[r")).unwrap_or(line));
    let sources = Sources { file: Some(("printed".into(), all.collect::<Vec<_>>().join("\n"))), ..sources_of_nothing() };
    let config = sources.load().unwrap().config;
    assert_eq!((config.engine.rules.len(), config.notify.routes.len()), (1, 1));
}

#[test]
fn the_example_of_a_dotenv_reads_back_as_the_defaults_and_warns_of_nothing() {
    let loaded = Sources { dotenv: Some(docs::as_dotenv()), serving: true, ..sources_of_nothing() }.load().unwrap();
    assert_eq!((loaded.config, loaded.warnings), (Config::default(), vec![]));
    // Whoever uncomments each line that holds a name sets every name once.
    let text = docs::as_dotenv();
    let names: Vec<_> = text.lines().filter_map(|line| line.trim_start_matches("# ").split_once('=')).map(|(name, _)| name).collect();
    let names: Vec<_> = names.into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')).collect();
    let known = settings::SETTINGS.iter().map(|setting| setting.name);
    assert_eq!(names, known.collect::<Vec<_>>());
}

fn sources_of_nothing() -> Sources {
    Sources {
        flags: Vec::new(),
        environment: Box::new(|_| None),
        dotenv: None,
        file: None,
        read_file: |_| Err(io::ErrorKind::NotFound.into()),
        serving: false,
    }
}

/// `UPDATE=1 cargo test` writes both files anew.
#[test]
fn the_pages_are_what_the_list_of_settings_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, text) in [(".env.example", docs::as_dotenv()), ("docs/configuration.md", docs::as_markdown())] {
        let path = root.join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{name} is not what the list of settings prints: run UPDATE=1 cargo test the_pages_are");
    }
}

#[test]
fn email_that_lacks_something_is_told_with_what_it_lacks_where_alerts_are_sent() {
    let given = [("EMAIL_ENABLED", "true"), ("EMAIL_FROM", "a@example.org")];
    let given: &'static [_] = Box::leak(Box::new(given));
    let faults = serving(given).faults();
    assert_eq!(faults, ["EMAIL_ENABLED: email needs SMTP_HOST, EMAIL_TO as well: set what is missing, or EMAIL_ENABLED=false"]);
    assert!(environment(given).load().is_ok(), "offline nothing is sent");
    let faults = serving(&[("SMTP_USER", "me")]).faults();
    assert_eq!(faults, ["SMTP_USER: SMTP_PASSWORD is not set: a server that wants one of them wants both"]);
}

#[test]
fn faults_of_alerting_are_told_together_and_without_secrets() {
    let given = Given {
        environment: &[
            ("EMAIL_TO", "ops@example.org, nobody"),
            ("SMTP_TLS", "ssl"),
            ("WEBHOOK_URL", "hooks.example.org/hunter2"),
            ("SLACK_WEBHOOK_URL", "http://169.254.169.254/hunter2"),
            ("WEBHOOK_SECRET", "whsec_hunter2!"),
            ("NOTIFY_BUDGET", "2/month"),
            ("PUBLIC_URL", "anomaly.example.org"),
            ("SMTP_CA", "hunter2"),
        ],
        serving: true,
        ..Given::default()
    };
    let mut faults = given.faults();
    faults.sort();
    let starts = [
        "EMAIL_TO: ",
        "NOTIFY_BUDGET: ",
        "PUBLIC_URL: ",
        "SLACK_WEBHOOK_URL: ",
        "SMTP_CA: ",
        "SMTP_TLS: ",
        "WEBHOOK_SECRET: ",
        "WEBHOOK_URL: ",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start) && !fault.contains("hunter2"), "{fault}");
    }
}

#[test]
fn routes_and_labels_to_group_by_come_from_the_file() {
    let config = toml(
        "notify_group_by = [\"host\", \"dc\"]\n[[routes]]\nmetric = \"cpu*\"\nseverity = \"critical\"\nchannels = [\"email\", \"slack\"]\n\
         [[routes]]\nlabels = { env = \"test\" }\nchannels = []",
    )
    .config();
    assert_eq!(config.notify.group_by, ["host", "dc"]);
    let [first, second] = &config.notify.routes[..] else { panic!("two routes") };
    assert_eq!((first.metric.as_deref(), first.severity), (Some("cpu*"), Some(anomaly_engine::Severity::Critical)));
    assert_eq!(first.channels, [Channel::Email, Channel::Slack]);
    assert_eq!((second.labels["env"].as_str(), second.channels.len()), ("test", 0));
}

#[test]
fn what_is_wrong_in_a_route_is_told_with_its_path() {
    for (text, message) in [
        (
            "[[routes]]\nchannels = [\"mail\"]",
            "routes[0].channels: must be a list of email, webhook, slack, pagerduty, alertmanager or redis, got \"mail\"",
        ),
        ("[[routes]]\nmetric = \"a\"", "routes[0].channels: a route needs channels: channels = [\"email\"], or [] if nobody is to be told"),
        ("[[routes]]\nchannels = []\nmetrics = \"a\"", "routes[0].metrics: unknown key, did you mean metric?"),
        ("[[routes]]\nchannels = []\nseverity = \"high\"", "routes[0].severity: must be \"warning\" or \"critical\", got \"high\""),
        ("[[routes]]\nchannels = []\nlabels = { a = 1 }", "routes[0].labels: must be a table of texts, got 1"),
        ("routes = 1", "routes: must be tables, each under [[routes]], got 1"),
        ("routes = [1]", "routes[0]: must be a table under [[routes]], got 1"),
        ("route = 1", "route: unknown key, did you mean routes?"),
    ] {
        assert_eq!(toml(text).faults(), [format!("anomaly.toml: {message}")]);
    }
}

#[test]
fn links_lead_to_where_people_reach_the_dashboard() {
    assert_eq!(Config::default().public_url(), "http://127.0.0.1:8000");
    let url = |environment| serving(environment).config().public_url();
    assert_eq!(url(&[("PUBLIC_URL", "https://example.org/anomaly/")]), "https://example.org/anomaly");
    assert_eq!(url(&[("HOST", "::1"), ("PORT", "9"), ("BASE_PATH", "/a/")]), "http://[::1]:9/a");
    assert_eq!(url(&[("HOST", "0.0.0.0"), ("ALLOW_UNAUTHENTICATED", "true")]), "http://localhost:8000");
}

#[test]
fn what_is_set_is_kept_as_it_may_be_shown() {
    let loaded =
        serving(&[("WEBHOOK_SECRET", "hunter2"), ("WEBHOOK_URL", "https://example.org/hunter2"), ("SMTP_PORT", "25")]).load().unwrap();
    let shown: Vec<_> = loaded.set.iter().map(|(name, text, _)| format!("{name}={text}")).collect();
    assert_eq!(shown, ["SMTP_PORT=25", "WEBHOOK_URL=https://example.org/…", "WEBHOOK_SECRET=(hidden)"]);
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn kafka_is_read_where_a_broker_is_named() {
    let given = serving(&[("KAFKA_BROKER", "a:9092, b:9092"), ("KAFKA_TOPIC", "metrics"), ("KAFKA_SASL_PASSWORD", "hunter2")]);
    let faults = given.faults();
    assert_eq!(faults, ["KAFKA_SASL_PASSWORD: would not be used: set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT or SASL_SSL as well"]);
    let kafka = serving(&[("KAFKA_BROKER", "a:9092, b:9092"), ("KAFKA_TOPIC", "metrics")]).config().kafka;
    assert_eq!((kafka.broker.as_deref(), kafka.dead_letter_topic().as_str()), (Some("a:9092,b:9092"), "metrics.dead"));
    assert!(environment(&[("KAFKA_BROKER", "kafka://a")]).load().is_ok(), "offline nothing is read");
    assert!(serving(&[("KAFKA_BROKER", "kafka://a")]).load().is_err());
}
