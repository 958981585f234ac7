//! What is shipped to run the product with: the compose file, the image, the dashboards and the alerts. There may be no
//! container engine where this runs, so what can be known without one is proved here.

use crate::server::Server;
use promql_parser::parser::{self, Expr};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = root().join("deploy/grafana/dashboards");
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    let read = |path: PathBuf| {
        let dashboard = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path, dashboard)
    };
    found.into_iter().map(read).collect()
}

/// Names an image by a version that does not move: not `latest`, and more than a major number.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let version = tag.split(['-']).any(|part| {
        let digits = part.trim_start_matches('v');
        let numbers: Vec<&str> = digits.split('.').collect();
        let exact = numbers.len() >= 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok());
        // Debian's tags are dates.
        exact || (digits.len() == 8 && digits.parse::<u32>().is_ok())
    });
    version && !tag.contains("latest")
}

#[test]
fn the_compose_file_is_one_by_the_specification() {
    let schema = serde_json::from_str(&text("tests/support/compose/compose-spec.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let compose = yaml("docker-compose.yml");
    let wrong: Vec<String> =
        validator.iter_errors(&compose).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The schema is one that refuses.
    let mut broken = compose.clone();
    broken["services"]["kafka"]["imagee"] = "x".into();
    assert!(!validator.is_valid(&broken));
    let mut broken = compose.clone();
    broken["services"]["kafka"]["healthcheck"]["interval"] = 10.into();
    assert!(!validator.is_valid(&broken));
}

#[test]
fn every_service_is_pinned_bounded_watched_and_keeps_its_data() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names.iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from(["alertmanager", "clickhouse", "grafana", "highwater", "kafka", "prometheus"])
    );
    let mut mounted = BTreeSet::new();
    for (name, service) in services {
        assert!(is_pinned(service["image"].as_str().unwrap()), "{name}: {}", service["image"]);
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["memory"].is_string() && limits["cpus"].is_string(), "{name} has no limits");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        for port in service["ports"].as_array().unwrap() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} listens to everybody: {port}");
        }
        for volume in service["volumes"].as_array().unwrap() {
            let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
            if from.starts_with('.') {
                assert!(root().join(from).exists(), "{name} mounts {from}, which is not there");
            } else {
                mounted.insert(from.to_owned());
            }
        }
    }
    let declared: BTreeSet<String> = compose["volumes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(mounted, declared);
    for (image, pinned) in [
        ("a/b:1.2.3", true),
        ("rust:1.95.0-slim-bookworm", true),
        ("debian:bookworm-20251229-slim", true),
        ("a/b:v3.5.0", true),
        ("a/b", false),
        ("a/b:latest", false),
        ("a/b:1", false),
        ("a/b:1.2", false),
        ("debian:bookworm-slim", false),
    ] {
        assert_eq!(is_pinned(image), pinned, "{image}");
    }
}

/// The variables that the compose file gives the product are ones that it reads.
#[test]
fn the_compose_file_speaks_the_products_language() {
    let compose = yaml("docker-compose.yml");
    let given = compose["services"]["highwater"]["environment"].as_object().unwrap();
    let help = crate::process::highwater(&["serve", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for name in given.keys() {
        let read = [']', '='].iter().any(|end| help.contains(&format!("[env: {name}{end}")));
        assert!(read, "{name} is read by nothing");
    }
    let feature = |name: &str| text("Cargo.toml").contains(&format!("\n{name} = ["));
    let image = text("Dockerfile");
    let features = image.split("--features ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(features.split(',').all(feature), "{features}");
}

#[test]
fn the_image_is_pinned_small_and_without_root() {
    let image = text("Dockerfile");
    let bases: Vec<&str> = image.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases.len(), 2);
    for base in &bases {
        assert!(is_pinned(base.split_whitespace().next().unwrap()), "{base}");
    }
    let toolchain = text("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        bases[0].starts_with(&format!("rust:{version}-")),
        "{} builds with another compiler than {version}",
        bases[0]
    );
    let last = image.rsplit_once("FROM ").unwrap().1;
    assert!(last.contains("\nUSER 10001:10001\n") && !last.contains("\nRUN "), "{last}");
    // What is copied is there, and is let through.
    let ignored = text(".dockerignore");
    let copies = image.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
    for source in
        copies.flat_map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().split_last().unwrap().1.to_vec())
    {
        assert!(root().join(source).exists(), "{source} is not there");
        assert!(ignored.lines().any(|line| line == format!("!{source}")), "{source} is ignored");
    }
}

/// The names of the metrics that an expression reads.
fn names(expr: &Expr, found: &mut BTreeSet<String>) {
    match expr {
        Expr::Aggregate(it) => {
            names(&it.expr, found);
            it.param.iter().for_each(|param| names(param, found));
        }
        Expr::Unary(it) => names(&it.expr, found),
        Expr::Binary(it) => {
            names(&it.lhs, found);
            names(&it.rhs, found);
        }
        Expr::Paren(it) => names(&it.expr, found),
        Expr::Subquery(it) => names(&it.expr, found),
        Expr::VectorSelector(it) => found.extend(it.name.clone()),
        Expr::MatrixSelector(it) => found.extend(it.vs.name.clone()),
        Expr::Call(it) => it.args.args.iter().for_each(|argument| names(argument, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::Extension(_) => panic!("an expression that no Prometheus knows"),
    }
}

fn names_in(expression: &str) -> BTreeSet<String> {
    let plain = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&plain).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut found = BTreeSet::new();
    names(&parsed, &mut found);
    found
}

/// Every expression that is shipped, with where it stands; and what rules record under names of their own.
fn expressions() -> (Vec<(String, String)>, BTreeSet<String>) {
    let mut all = Vec::new();
    let mut recorded = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                all.push((format!("{file}: {}", panel["title"]), target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    for group in yaml("deploy/prometheus/rules.yml")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            recorded.extend(rule["record"].as_str().map(str::to_owned));
            let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
            all.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(all.len() > 30);
    (all, recorded)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_and_alerts_read_what_is_exported() {
    let server = Server::start().await;
    server.get("/v1/alerts").await.ok(200);
    server.count("acme", "m", 1).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let scraped = http.get(format!("http://{}/metrics", server.admin())).send().await.unwrap().text().await.unwrap();
    let mut exported: BTreeSet<String> = scraped
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    // Prometheus' own word on a scrape, and what only a node with an intake has.
    exported.insert("up".to_owned());
    let intake = ["head_offset", "committed_offset", "lag_messages", "through_seconds"];
    exported.extend(intake.map(|name| format!("highwater_intake_{name}")));
    let (expressions, recorded) = expressions();
    exported.extend(recorded);
    let mut read = BTreeSet::new();
    for (place, expression) in &expressions {
        let names = names_in(expression);
        let missing: Vec<&String> = names.difference(&exported).collect();
        assert!(missing.is_empty(), "{place} reads {missing:?}, which nothing exports");
        read.extend(names);
    }
    // And nothing is exported for nobody.
    let own = |name: &&String| !name.ends_with("_sum") && !name.ends_with("_bucket") && !name.contains(':');
    let unread: Vec<&String> = exported.iter().filter(own).filter(|name| !read.contains(*name)).collect();
    assert!(unread.is_empty(), "no dashboard and no alert reads {unread:?}");
    assert_eq!(server.ask(Method::GET, "/healthz").send().await.status, 200);
}

/// Compose copies a secret of the environment into the container, which a service that is read-only does not take.
#[test]
fn secrets_are_files_that_the_manual_makes() {
    let (compose, manual) = (yaml("docker-compose.yml"), text("deploy/README.md"));
    let secrets = compose["secrets"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let secret = secret.as_str().unwrap();
            let file = secrets[secret]["file"].as_str();
            let file = file.unwrap_or_else(|| panic!("{name}: {secret} is {}, and no file", secrets[secret]));
            let path = file.strip_prefix("./").unwrap();
            assert!(manual.contains(&format!("> {path}")), "deploy/README.md does not make {path}");
            assert!(text(".gitignore").lines().any(|line| path.starts_with(line.trim_start_matches('/'))), "{path}");
            used.insert(secret.to_owned());
        }
    }
    assert_eq!(used, secrets.keys().cloned().collect());
    // Whatever names a file of a secret is given it.
    for (path, service) in
        [("docker-compose.yml", "highwater"), ("deploy/alertmanager/alertmanager.yml", "alertmanager")]
    {
        for named in text(path).split("/run/secrets/").skip(1) {
            let named: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let given = compose["services"][service]["secrets"].as_array().unwrap();
            assert!(given.iter().any(|secret| *secret == *named), "{service} reads {named}, and is given {given:?}");
        }
    }
}

#[test]
fn alerts_reach_an_alertmanager_that_sends_each_of_them_somewhere() {
    let compose = yaml("docker-compose.yml");
    let managers = &yaml("deploy/prometheus/prometheus.yml")["alerting"]["alertmanagers"];
    let target = managers[0]["static_configs"][0]["targets"][0].as_str().unwrap().to_owned();
    let (service, port) = target.split_once(':').unwrap();
    let manager = &compose["services"][service];
    assert!(manager["image"].as_str().unwrap().starts_with("prom/alertmanager:"));
    assert_eq!(manager["ports"][0], format!("127.0.0.1:{port}:{port}"));
    let mounted = manager["volumes"].as_array().unwrap();
    assert!(mounted.iter().any(|volume| volume == "./deploy/alertmanager:/etc/alertmanager:ro"), "{mounted:?}");
    assert_eq!(manager["command"][0], "--config.file=/etc/alertmanager/alertmanager.yml");
    let config = yaml("deploy/alertmanager/alertmanager.yml");
    let receivers = config["receivers"].as_array().unwrap();
    let sends = |name: &Value| {
        receivers.iter().any(|receiver| receiver["name"] == *name && receiver.as_object().unwrap().len() > 1)
    };
    assert!(sends(&config["route"]["receiver"]));
    for route in config["route"]["routes"].as_array().unwrap() {
        assert!(sends(&route["receiver"]), "{route}");
    }
}

#[expect(clippy::disallowed_methods, reason = "where the tools of a test are is no configuration of the product")]
fn promtool() -> Option<std::ffi::OsString> {
    let judge = std::env::var_os("HIGHWATER_TEST_PROMTOOL");
    let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
    assert!(judge.is_some() || !required, "HIGHWATER_TEST_PROMTOOL is not set; scripts/services up promtool gets it");
    judge
}

/// What the alerts say over four hours, by Prometheus' own judge of rules. Where it is not there, the scenarios are held to the
/// rules that there are and every expression is parsed, so that a slip is found all the same.
#[test]
fn the_rules_say_what_their_scenarios_expect() {
    let scenarios = yaml("deploy/prometheus/rules.test.yml");
    let rules = yaml("deploy/prometheus/rules.yml");
    let rules: Vec<&Value> =
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let mut hours = 0;
    for scenario in scenarios["tests"].as_array().unwrap() {
        for tested in scenario["alert_rule_test"].as_array().into_iter().flatten() {
            assert!(rules.iter().any(|rule| rule["alert"] == tested["alertname"]), "{tested}");
            hours = hours
                .max(tested["eval_time"].as_str().unwrap().strip_suffix('h').map_or(0, |h| h.parse().unwrap_or(0)));
        }
        let series = scenario["input_series"].as_array().unwrap().iter().map(|input| &input["series"]);
        let asked = scenario["promql_expr_test"].as_array().into_iter().flatten().map(|tested| &tested["expr"]);
        for expression in series.chain(asked) {
            names_in(expression.as_str().unwrap());
        }
    }
    assert_eq!(hours, 4);
    let Some(judge) = promtool() else {
        eprintln!("promtool is not there (scripts/services up promtool): the scenarios were parsed, and not played");
        return;
    };
    let file = root().join("deploy/prometheus/rules.test.yml");
    let judged = std::process::Command::new(judge).args(["test", "rules"]).arg(file).output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn dashboards_keep_their_names_and_take_any_data_source() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().unwrap().to_owned();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(uid, format!("highwater-{stem}"));
        assert!(uids.insert(uid));
        assert_eq!(dashboard["templating"]["list"][0]["name"], "datasource");
        for panel in dashboard["panels"].as_array().unwrap() {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        }
    }
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["type"], "prometheus");
    let provider = yaml("deploy/grafana/provisioning/dashboards/highwater.yml");
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    let compose = text("docker-compose.yml");
    assert!(compose.contains(&format!("./deploy/grafana/dashboards:{path}:ro")));
    assert_eq!(yaml("deploy/prometheus/prometheus.yml")["rule_files"][0], "rules.yml");
}

#[test]
fn every_alert_has_its_paragraph() {
    let manual = text("deploy/README.md");
    for group in yaml("deploy/prometheus/rules.yml")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap().iter().filter(|rule| rule["alert"].is_string()) {
            let name = rule["alert"].as_str().unwrap();
            let link = format!("deploy/README.md#{}", name.to_lowercase());
            assert_eq!(rule["annotations"]["runbook_url"], link.as_str());
            assert!(manual.contains(&format!("\n### {name}\n")), "deploy/README.md says nothing of {name}");
            assert!(rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
        }
    }
}
