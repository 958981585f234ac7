//! The rules of the tree that the compiler does not know.

use std::path::{Path, PathBuf};

/// The layers from the inside out: who stands further down may import who stands further up, never the reverse.
const LAYERS: [&[&str]; 6] = [
    &["domain"],
    &[
        "credential",
        "vault",
        "dedup",
        "folder",
        "sqlite_file",
        "journal",
        "limiter",
        "store",
        "snapshot",
        "notifier",
        "telemetry",
    ],
    &["runtime"],
    &["api"],
    &["config"],
    &["cli"],
];
/// Adapters never see each other.
const ADAPTERS: [&str; 5] = ["dedup", "journal", "store", "snapshot", "notifier"];
const LINES_MAX: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let short = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().to_owned();
                found.push((short, text));
            }
        }
    }
    assert!(found.len() > 50);
    found
}

fn module_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Every `crate::<module>` that a file names, outside of its comments.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|module| !module.is_empty())
        .collect()
}

#[test]
fn imports_point_inward() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module_of(&path);
        if matches!(own.as_str(), "lib" | "main") {
            continue;
        }
        let layer = layer_of(&own).unwrap_or_else(|| panic!("{own} has no layer; give it one here"));
        for imported in imports(&text) {
            // `crate::check!` is the macro of `domain::invariant`.
            let Some(other) = layer_of(&imported) else {
                assert_eq!(imported, "check", "{}: {imported} has no layer", path.display());
                continue;
            };
            let sees_adapter =
                own != imported && ADAPTERS.contains(&own.as_str()) && ADAPTERS.contains(&imported.as_str());
            if other > layer || sees_adapter {
                wrong.push(format!("{} imports {imported}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_is_pure() {
    let banned = ["std::time", "SystemTime", "Instant::now", "tokio", "std::env", "std::fs", "std::net", "tracing::"];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("domain")) {
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        wrong.extend(
            banned.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_holds_and_is_not_too_long() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not begin with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines, at most {LINES_MAX}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_drawer_is_called_utils() {
    for (path, _) in sources() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            !["utils", "util", "common", "helpers", "helper", "misc", "manager"].contains(&name.as_str()),
            "{name}"
        );
    }
}
