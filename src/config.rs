//! What a node is told from outside, read once: flags over environment over file over defaults.

mod front;
mod places;

pub use places::{PlacesGiven, places};

use crate::api::{Front, TlsFiles};
use crate::domain::control::command::Settings;
use crate::domain::limits::{AHEAD_MAX, GRACE_MAX};
use crate::domain::partition::fact::ENGINE_VERSION;
use crate::domain::time::Millis;
use crate::notifier::Guard;
use crate::runtime::data::Places;
#[cfg(feature = "clickhouse")]
use crate::runtime::data::StorePlace;
use crate::telemetry::LogFormat;
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// What is logged where nobody says.
pub const LOG_DEFAULT: &str = "info";
/// Where data is kept where nobody says.
pub const DATA_DEFAULT: &str = "./highwater-data";
const ENV_PREFIX: &str = "HIGHWATER_";
/// What tells tests where services are is no configuration.
const TEST_PREFIX: &str = "HIGHWATER_TEST_";

/// What `serve` may be told. Every field is optional here; [`resolve`] fills in the rest.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Given {
    /// What is logged, as the file says it; the flag `--log` is one of every command.
    #[arg(skip)]
    pub log: Option<String>,
    /// How lines of the log look, as the file says it.
    #[arg(skip)]
    pub log_format: Option<LogFormat>,
    /// The data folder; made where there is none
    #[arg(long, env = "HIGHWATER_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the logs are: sqlite:FILE, or kafka://HOST:PORT,…?partitions=32&replication=3 [default: in the data folder]
    #[arg(long, env = "HIGHWATER_JOURNAL", value_name = "URL", hide_env_values = true)]
    pub journal: Option<String>,
    /// Where windows and history are: sqlite:FILE, or clickhouse+http://HOST:8123/DATABASE [default: in the data folder]
    #[arg(long, env = "HIGHWATER_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<String>,
    /// How long ClickHouse keeps rows, such as windows=400d,deliveries=30d; also events, transitions, notifications,
    /// quarantine; `forever` [default: as before, at first for ever]
    #[arg(long, env = "HIGHWATER_RETENTION", value_name = "KIND=SPAN,…")]
    pub retention: Option<String>,
    /// Keep every event that is counted in ClickHouse's usage_events, for people and for `verify --deep`
    #[arg(long, env = "HIGHWATER_ARCHIVE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub archive: Option<bool>,
    /// Where snapshots are: a folder or s3://BUCKET/PREFIX; the nodes of a cluster share them [default: in the data folder]
    #[arg(long, env = "HIGHWATER_SNAPSHOTS", value_name = "PLACE")]
    pub snapshots: Option<String>,
    /// The master key, 64 hexadecimal digits in a file; a cluster must be given one [default: made in the data folder]
    #[arg(long, env = "HIGHWATER_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// Where the API listens [default: 127.0.0.1:8080]
    #[arg(long, env = "HIGHWATER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where /metrics listens, apart from the API [default: 127.0.0.1:8081]
    #[arg(long, env = "HIGHWATER_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Networks (CIDR), addresses or host names that webhooks may reach though they are not public
    #[arg(long, env = "HIGHWATER_ALLOW_TARGET", value_name = "TARGET", value_delimiter = ',', num_args = 1..)]
    pub allow_target: Option<Vec<String>>,
    /// Networks (CIDR) or addresses of proxies whose X-Forwarded-For is believed
    #[arg(long, env = "HIGHWATER_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',', num_args = 1..)]
    pub trusted_proxies: Option<Vec<String>>,
    /// Requests of one live key in any minute; 0 is no limit [default: 120]
    #[arg(long, env = "HIGHWATER_RATE_LIMIT", value_name = "REQUESTS")]
    pub rate_limit: Option<u32>,
    /// Requests of one sandbox key in any minute; 0 is no limit [default: 30]
    #[arg(long, env = "HIGHWATER_SANDBOX_RATE_LIMIT", value_name = "REQUESTS")]
    pub sandbox_rate_limit: Option<u32>,
    /// Requests to /v1/events of one live key in any minute; 0 is no limit [default: 6000]
    #[arg(long, env = "HIGHWATER_INGEST_RATE_LIMIT", value_name = "REQUESTS")]
    pub ingest_rate_limit: Option<u32>,
    /// Requests to /v1/events of one sandbox key in any minute; 0 is no limit [default: 600]
    #[arg(long, env = "HIGHWATER_SANDBOX_INGEST_RATE_LIMIT", value_name = "REQUESTS")]
    pub sandbox_ingest_rate_limit: Option<u32>,
    /// Wrong credentials of one address (IPv6: /64) in any minute; 0 is no limit [default: 60]
    #[arg(long, env = "HIGHWATER_AUTH_FAILURE_LIMIT", value_name = "REQUESTS")]
    pub auth_failure_limit: Option<u32>,
    /// Connections that are open at once; as many as the limit of open files leaves room for [default: up to 4096]
    #[arg(long, env = "HIGHWATER_CONNECTIONS", value_name = "CONNECTIONS")]
    pub connections: Option<usize>,
    /// Connections of one address (IPv6: /64) that are open at once, trusted proxies apart [default: a quarter, up to 1024]
    #[arg(long, env = "HIGHWATER_CONNECTIONS_PER_ADDRESS", value_name = "CONNECTIONS")]
    pub connections_per_address: Option<usize>,
    /// The window of these limits [default: 1m]
    #[arg(long, env = "HIGHWATER_RATE_LIMIT_WINDOW", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub rate_limit_window: Option<Millis>,
    /// Bytes that all request bodies under way may hold, unpacked, such as 256MiB; a workspace gets half of it
    /// [default: 128MiB]
    #[arg(long, env = "HIGHWATER_BODY_MEMORY", value_name = "BYTES", value_parser = byte_count)]
    #[serde(deserialize_with = "read_byte_count")]
    pub body_memory: Option<usize>,
    /// Origins whose pages may call the API from a browser, such as `https://console.example.com`, or * [default: none]
    #[arg(long, env = "HIGHWATER_CORS_ORIGINS", value_name = "ORIGIN", value_delimiter = ',', num_args = 1..)]
    pub cors_origins: Option<Vec<String>>,
    /// The certificate's chain (PEM) for HTTPS; read again on SIGHUP [default: plain HTTP]
    #[arg(long, env = "HIGHWATER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "HIGHWATER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Tells browsers for how long to come back by HTTPS only (Strict-Transport-Security) [default: not said]
    #[arg(long, env = "HIGHWATER_HSTS", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub hsts: Option<Millis>,
    /// Where links in messages lead [default: http://LISTEN]
    #[arg(long, env = "HIGHWATER_BASE_URL", value_name = "URL")]
    pub base_url: Option<String>,
    /// Refuse events of accounts that nobody created
    #[arg(long, env = "HIGHWATER_STRICT_ACCOUNTS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub strict_accounts: Option<bool>,
    /// How long after its end a window stays open [default: 30s]
    #[arg(long, env = "HIGHWATER_GRACE", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub grace: Option<Millis>,
    /// How old an event may be [default: 48h]
    #[arg(long, env = "HIGHWATER_LATENESS_HORIZON", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub lateness_horizon: Option<Millis>,
    /// How long event ids are remembered, at least the lateness horizon + 5m [default: 49h]
    #[arg(long, env = "HIGHWATER_DEDUP_HORIZON", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub dedup_horizon: Option<Millis>,
    /// Ask the logs for this engine version at most, so that nodes are upgraded one by one and the release before can be
    /// taken up again [default: the newest that every node folds]
    #[arg(long, env = "HIGHWATER_ENGINE_VERSION", value_name = "VERSION")]
    pub engine_version: Option<u32>,
    /// How long a late event can correct what a closed window decided [default: 1h]
    #[arg(long, env = "HIGHWATER_CORRECTION_HORIZON", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub correction_horizon: Option<Millis>,
}

/// What `serve` goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub places: Places,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where the metrics listen.
    pub admin: SocketAddr,
    /// What webhooks may reach.
    pub guard: Guard,
    /// Whom to believe, and what to allow.
    pub front: Front,
    /// What encrypts the API; plain HTTP where absent.
    pub tls: Option<TlsFiles>,
    /// Where links in messages lead; absent: where the API listens.
    pub base_url: Option<String>,
    /// The engine version that the logs are asked for at most; absent: what every node folds.
    pub engine_version: Option<u32>,
    /// What the folds go by from here on; what is absent stays as it is.
    pub settings: SettingsGiven,
}

/// Settings of the folds, as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsGiven {
    strict_accounts: Option<bool>,
    grace: Option<Millis>,
    lateness_horizon: Option<Millis>,
    dedup_horizon: Option<Millis>,
    correction_horizon: Option<Millis>,
}

/// What is wrong with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration file {}: {detail}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        detail: String,
    },
    /// The file does not say anything that is known.
    #[error("in {}: {detail}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// A variable is set that nothing reads.
    #[error("the environment variable {name} is not known{}", suggestion(nearest))]
    UnknownVariable {
        /// Which one.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A value is wrong.
    #[error("{name}: {detail}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// What is wrong and what would be right.
        detail: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Makes sure that every variable with our prefix is one that is read.
///
/// # Errors
/// Where one is not, with the nearest that is.
pub fn check_environment(set: &BTreeMap<String, String>, known: &[&str]) -> Result<(), ConfigError> {
    let own = |name: &&String| name.starts_with(ENV_PREFIX) && !name.starts_with(TEST_PREFIX);
    for name in set.keys().filter(own) {
        if !known.contains(&name.as_str()) {
            let nearest = known
                .iter()
                .map(|candidate| (strsim::levenshtein(candidate, name), *candidate))
                .min()
                .filter(|(distance, _)| *distance <= 3)
                .map(|(_, candidate)| candidate.to_owned());
            return Err(ConfigError::UnknownVariable { name: name.clone(), nearest });
        }
    }
    Ok(())
}

/// The environment, read in this one place.
pub fn environment() -> BTreeMap<String, String> {
    let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(readable).collect()
}

/// Reads a configuration file (TOML); its names are those of the flags with `_` for `-`.
///
/// # Errors
/// Where it cannot be read, or names something that is not known.
pub fn read_file(path: &Path) -> Result<Given, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), detail: error.to_string() })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::File { path: path.to_owned(), detail: error.to_string().trim().to_owned() })
}

/// Puts flags and environment (which `given` holds already) over the file over the defaults.
///
/// # Errors
/// Where a value is wrong.
pub fn resolve(given: Given, file: Given) -> Result<Config, ConfigError> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let front = front::resolve(&given, &file)?;
    let tls = front::tls(&given, &file)?;
    let targets = given.allow_target.or(file.allow_target).unwrap_or_default();
    let base_url = given.base_url.or(file.base_url);
    if let Some(url) = &base_url {
        check_base_url(url)?;
    }
    let config = Config {
        places: places(&PlacesGiven {
            data: given.data.or(file.data).unwrap_or_else(|| DATA_DEFAULT.into()),
            journal: given.journal.or(file.journal),
            store: given.store.or(file.store),
            retention: given.retention.or(file.retention),
            archive: given.archive.or(file.archive).unwrap_or(false),
            snapshots: given.snapshots.or(file.snapshots),
            master_key_file: given.master_key_file.or(file.master_key_file),
        })?,
        listen: given.listen.or(file.listen).unwrap_or_else(|| local(8080)),
        admin: given.admin.or(file.admin).unwrap_or_else(|| local(8081)),
        guard: guard(&targets)?,
        front,
        tls,
        base_url,
        engine_version: engine_version(given.engine_version.or(file.engine_version))?,
        settings: SettingsGiven {
            strict_accounts: given.strict_accounts.or(file.strict_accounts),
            grace: given.grace.or(file.grace),
            lateness_horizon: given.lateness_horizon.or(file.lateness_horizon),
            dedup_horizon: given.dedup_horizon.or(file.dedup_horizon),
            correction_horizon: given.correction_horizon.or(file.correction_horizon),
        },
    };
    check_retention(&config)?;
    if config.listen == config.admin && config.listen.port() != 0 {
        let detail = format!("{} is where the API listens; give another address", config.admin);
        return Err(ConfigError::Value { name: "admin", detail });
    }
    Ok(config)
}

/// A late event must not come back to a window that the store has forgotten.
fn check_retention(config: &Config) -> Result<(), ConfigError> {
    #[cfg(feature = "clickhouse")]
    if let StorePlace::ClickHouse(place) = &config.places.store
        && let crate::store::Keep::Days(days) = place.settings.retention.windows
        && let lateness = config.settings.lateness_horizon.unwrap_or(crate::domain::limits::LATENESS_HORIZON)
        && Millis::hours(24).0.saturating_mul(i64::from(days)) <= lateness.0
    {
        let detail =
            format!("windows={days}d is not longer than lateness_horizon ({lateness}): late events would be lost");
        return Err(ConfigError::Value { name: "retention", detail });
    }
    Ok(())
}

/// Holds an engine version that the logs are asked for at most to those that there are.
///
/// # Errors
/// Where this release does not fold it.
pub fn engine_version(given: Option<u32>) -> Result<Option<u32>, ConfigError> {
    match given {
        Some(version) if !(1..=ENGINE_VERSION).contains(&version) => {
            let detail = format!("{version} is no engine version of this release; expected 1 to {ENGINE_VERSION}");
            Err(ConfigError::Value { name: "engine_version", detail })
        }
        Some(_) | None => Ok(given),
    }
}

fn check_base_url(text: &str) -> Result<(), ConfigError> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(()),
        Ok(_) | Err(_) => {
            let detail = format!("{text:?} is no URL such as https://highwater.example.com");
            Err(ConfigError::Value { name: "base_url", detail })
        }
    }
}

/// Makes a guard of networks, addresses and host names.
///
/// # Errors
/// Where one is none of these.
pub fn guard(targets: &[String]) -> Result<Guard, ConfigError> {
    let mut guard = Guard::default();
    for target in targets.iter().map(|target| target.trim()) {
        let is_host = !target.is_empty()
            && target.contains(|c: char| c.is_ascii_alphabetic())
            && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        if let Ok(net) = target.parse::<IpNet>() {
            guard.allow_cidrs.push(net.trunc());
        } else if let Ok(address) = target.parse::<IpAddr>() {
            guard.allow_cidrs.push(address.into());
        } else if is_host {
            guard.allow_hosts.push(target.to_owned());
        } else {
            let detail = format!("{target:?} is no network such as 10.0.0.0/8, no address and no host name");
            return Err(ConfigError::Value { name: "allow_target", detail });
        }
    }
    Ok(guard)
}

impl SettingsGiven {
    /// Returns the settings that follow from those in force.
    ///
    /// # Errors
    /// Where ids would be forgotten while their events are still accepted, so that one could count twice.
    pub fn over(self, present: Settings) -> Result<Settings, ConfigError> {
        let settings = Settings {
            grace: self.grace.unwrap_or(present.grace),
            lateness_horizon: self.lateness_horizon.unwrap_or(present.lateness_horizon),
            dedup_horizon: self.dedup_horizon.unwrap_or(present.dedup_horizon),
            correction_horizon: self.correction_horizon.unwrap_or(present.correction_horizon),
            strict_accounts: self.strict_accounts.unwrap_or(present.strict_accounts),
        };
        if settings.grace > GRACE_MAX {
            let detail =
                format!("{} is more than {GRACE_MAX}: an hour must close before the next one ends", settings.grace);
            return Err(ConfigError::Value { name: "grace", detail });
        }
        let least = settings.lateness_horizon.plus(AHEAD_MAX);
        if settings.dedup_horizon < least {
            let detail = format!(
                "{} is less than lateness_horizon + {AHEAD_MAX} ({least}): an accepted event could count twice",
                settings.dedup_horizon
            );
            return Err(ConfigError::Value { name: "dedup_horizon", detail });
        }
        Ok(settings)
    }
}

fn duration(text: &str) -> Result<Millis, String> {
    Millis::parse(text).ok_or_else(|| format!("{text:?} is no duration such as 30s, 5m, 48h or 7d"))
}

/// Reads a number of bytes: plain, or with a binary unit.
fn byte_count(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: usize = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.parse::<usize>().ok().filter(|_| unit > 0).and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("{text:?} is no number of bytes such as 134217728, 512KiB, 128MiB or 1GiB"))
}

fn read_byte_count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| byte_count(&text).map_err(serde::de::Error::custom)).transpose()
}

fn read_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| duration(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_over_the_file_and_the_file_over_defaults() {
        let file: Given = toml::from_str("listen = \"127.0.0.1:9000\"\ndata = \"/srv/hw\"\ngrace = \"10s\"").unwrap();
        let given = Given { listen: Some("127.0.0.1:9001".parse().unwrap()), ..Given::default() };
        let config = resolve(given, file).unwrap();
        assert_eq!((config.listen.port(), config.admin.port()), (9001, 8081));
        assert_eq!(config.places.folder, Path::new("/srv/hw"));
        let settings = config.settings.over(Settings::default()).unwrap();
        assert_eq!(settings, Settings { grace: Millis::seconds(10), ..Settings::default() });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let typo = toml::from_str::<Given>("listten = \"127.0.0.1:9000\"").unwrap_err().to_string();
        assert!(typo.contains("listten") && typo.contains("listen"), "{typo}");
        let unit = toml::from_str::<Given>("grace = \"10 seconds\"").unwrap_err().to_string();
        assert!(unit.contains("10 seconds") && unit.contains("30s"), "{unit}");
        let variables = BTreeMap::from([("HIGHWATER_LISTN".to_owned(), String::new())]);
        let error = check_environment(&variables, &["HIGHWATER_DATA", "HIGHWATER_LISTEN"]).unwrap_err().to_string();
        assert!(error.contains("HIGHWATER_LISTN") && error.contains("did you mean HIGHWATER_LISTEN"), "{error}");
        let short = SettingsGiven { dedup_horizon: Some(Millis::hours(48)), ..SettingsGiven::default() };
        assert!(short.over(Settings::default()).is_err());
        assert!(guard(&["10.0.0.0/33".to_owned()]).is_err());

        assert!(resolve(Given { base_url: Some("ftp://x".to_owned()), ..Given::default() }, Given::default()).is_err());
        for (version, is_known) in [(0, false), (1, true), (ENGINE_VERSION, true), (ENGINE_VERSION + 1, false)] {
            let resolved = resolve(Given { engine_version: Some(version), ..Given::default() }, Given::default());
            match resolved {
                Ok(config) => assert!(is_known && config.engine_version == Some(version), "{version}"),
                Err(error) => {
                    let wanted =
                        format!("engine_version: {version} is no engine version of this release; expected 1 to");
                    assert!(!is_known && error.to_string().starts_with(&wanted), "{error}");
                }
            }
        }
        let same = Some("127.0.0.1:1".parse().unwrap());
        assert!(resolve(Given { listen: same, admin: same, ..Given::default() }, Given::default()).is_err());
    }

    #[test]
    fn targets_are_networks_addresses_or_hosts() {
        let guard = guard(&["10.1.2.3/8".to_owned(), "::1".to_owned(), "hooks.corp.example".to_owned()]).unwrap();
        assert_eq!(guard.allow_cidrs, ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert_eq!(guard.allow_hosts, ["hooks.corp.example"]);
    }
}
