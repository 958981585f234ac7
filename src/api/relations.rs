//! What the description says of answers beyond their bodies: the headers that they carry, and where what was made is found
//! again (links).

use super::shapes::object;
use serde_json::{Map, Value, json};

/// The headers, with what a value of each looks like.
fn headers() -> Value {
    let text = |description: &str, pattern: &str| json!({"description": description, "schema": {"type": "string", "pattern": pattern}});
    let count = |description: &str| json!({"description": description, "schema": {"type": "integer", "minimum": 0}});
    json!({
        "X-Request-Id": text("The request, for the logs", "^[A-Za-z0-9._-]{8,128}$"),
        "Cache-Control": text("Nothing is kept", "^no-store$"),
        "X-Mode": text("The world of the credential", "^(live|sandbox)$"),
        "RateLimit-Policy": text("The limit: its name, requests and seconds", "^\"[a-z]+\";q=[0-9]+;w=[0-9]+(;hw-scope=\"node\")?$"),
        "RateLimit": text("What is left, and in how many seconds there is more", "^\"[a-z]+\";r=[0-9]+;t=[0-9]+$"),
        "X-RateLimit-Limit": count("Requests in any window"),
        "X-RateLimit-Remaining": count("Requests that are left"),
        "X-RateLimit-Reset": count("When there are more, in seconds since 1970"),
        "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}},
        "Allow": text("The methods that the path has", "^[A-Z]+( *, *[A-Z]+)*$"),
        "WWW-Authenticate": text("How to authenticate", "^(Bearer|Basic) "),
        "Accept-Post": text("The content types that are read", "^[a-z]"),
        "ETag": text("The version", "^\"[0-9a-f]+(-[0-9a-z]+)?\"$"),
        "Location": text("Where it is found", "^/v1/"),
        "Link": text("Pages: first, prev and next (RFC 8288)", "^</v1/"),
        "Idempotent-Replayed": text("An earlier answer is repeated", "^true$"),
    })
}

/// Completes a document.
pub(super) fn complete(document: &mut Value) {
    let mut shared = Map::new();
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    for (path, item) in object(&mut document["paths"]) {
        for (method, operation) in object(item) {
            let shape = Shape::of(path, method, operation);
            let links = shape.made.as_ref().map(|(id, place)| links(&paths, place, id));
            for (status, response) in object(&mut operation["responses"]) {
                let mut carried = Map::new();
                for (name, is_certain) in shape.headers(status) {
                    let named = if is_certain { name.to_owned() } else { format!("{name}-at-times") };
                    carried.insert(name.to_owned(), reference("headers", &named));
                }
                response["headers"] = carried.into();
                if response["content"].get("application/problem+json").is_some() {
                    share(&mut shared, response, &format!("{status}{}", shape.suffix()));
                }
                if status.starts_with('2')
                    && let Some(links) = links.as_ref().filter(|links| !links.is_empty())
                {
                    response["links"] = links.clone().into();
                }
            }
        }
    }
    let mut described = Map::new();
    for (name, header) in object(&mut headers()) {
        header["required"] = true.into();
        described.insert(name.clone(), header.clone());
        header["required"] = false.into();
        described.insert(format!("{name}-at-times"), header.clone());
    }
    let used = [Value::from(shared.clone()), document["paths"].clone()].map(|part| part.to_string()).concat();
    described.retain(|name, _| used.contains(&format!("#/components/headers/{name}\"")));
    document["components"]["headers"] = described.into();
    document["components"]["responses"] = shared.into();
}

/// Puts what many operations answer alike into one place; what one answers otherwise stays where it is.
fn share(shared: &mut Map<String, Value>, response: &mut Value, name: &str) {
    let known = shared.entry(name.to_owned()).or_insert_with(|| response.clone());
    if known == response {
        *response = reference("responses", name);
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// What an operation's answers depend on.
struct Shape {
    is_versioned: bool,
    is_authenticated: bool,
    is_list: bool,
    is_single: bool,
    is_replayed: bool,
    /// What it makes or speaks of: the value that names it, and the path that takes this value.
    made: Option<(String, String)>,
}

impl Shape {
    fn of(path: &str, method: &str, operation: &Value) -> Self {
        let takes = |name: &str| {
            let parameters = operation["parameters"].as_array();
            parameters.is_some_and(|all| all.iter().any(|parameter| parameter["name"] == name))
        };
        let makes = operation["responses"].get("201").is_some();
        let made = match (method, path) {
            ("post", "/v1/events" | "/v1/events/batch") => Some(("receipt", "/v1/receipts/".to_owned())),
            // Two values name what this speaks of, and a link would give one.
            ("post", "/v1/channels/{id}/deliveries/{delivery_id}/redeliver") => None,
            ("post", path) if path.ends_with("/redeliver") || path == "/v1/webhooks/{id}/test" => {
                Some(("delivery_id", "/v1/deliveries/".to_owned()))
            }
            ("post", "/v1/api-keys/{id}/rotate") => Some(("id", "/v1/api-keys/".to_owned())),
            ("post", path) if makes && !path.contains('{') => Some(("id", format!("{path}/"))),
            _ => None,
        };
        let made = made.map(|(member, place)| (format!("$response.body#/{member}"), place));
        // What is put has the name that it was put under.
        let put = (method == "put").then(|| (String::new(), path.to_owned()));
        Self {
            is_versioned: path.starts_with("/v1/"),
            is_authenticated: operation["security"][0].get("key").is_some(),
            is_list: takes("page_size"),
            is_single: operation["responses"].get("304").is_some(),
            is_replayed: takes("Idempotency-Key") && !path.starts_with("/v1/events"),
            made: made.or(put),
        }
    }

    /// What sets the problems of some operations apart.
    const fn suffix(&self) -> &'static str {
        if self.is_authenticated { "" } else { "-open" }
    }

    /// The headers of an answer, and whether it always has them.
    fn headers(&self, status: &str) -> Vec<(&'static str, bool)> {
        let is_success = status.starts_with('2');
        let mut named = vec![("X-Request-Id", true)];
        if self.is_versioned {
            named.push(("Cache-Control", true));
        }
        if self.is_authenticated {
            if is_success {
                named.push(("X-Mode", true));
            }
            let rates =
                ["RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];
            named.extend(rates.map(|name| (name, false)));
        }
        match status {
            "200" if self.is_list => named.push(("Link", true)),
            "200" | "304" if self.is_single => named.push(("ETag", true)),
            "201" => named.extend([("ETag", true), ("Location", true)]),
            "401" => named.push(("WWW-Authenticate", true)),
            "403" => named.push(("WWW-Authenticate", false)),
            "405" => named.push(("Allow", true)),
            "415" => named.push(("Accept-Post", false)),
            "429" => named.push(("Retry-After", true)),
            "409" | "503" => named.push(("Retry-After", false)),
            _ => {}
        }
        if is_success && self.is_replayed {
            named.push(("Idempotent-Replayed", false));
        }
        named
    }
}

/// Links to every operation on what a value names. Without a value it has the names of its own path.
fn links(paths: &Map<String, Value>, place: &str, value: &str) -> Map<String, Value> {
    let mut links = Map::new();
    for (path, item) in paths {
        let Some(rest) = path.strip_prefix(place).filter(|rest| value.is_empty() == rest.is_empty()) else { continue };
        let named: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters: Map<String, Value> = match (value.is_empty(), rest.split_once('}')) {
            (true, _) => {
                named.iter().map(|name| ((*name).to_owned(), format!("$request.path.{name}").into())).collect()
            }
            (false, Some((name, _))) if rest.starts_with('{') => {
                Map::from_iter([(name.trim_start_matches('{').to_owned(), value.into())])
            }
            (false, _) => continue,
        };
        let operations = item.as_object().into_iter().flatten().filter(|(method, _)| method.as_str() != "put");
        for id in operations.filter_map(|(_, operation)| operation["operationId"].as_str()) {
            links.insert(id.to_owned(), json!({"operationId": id, "parameters": parameters}));
        }
    }
    links
}
