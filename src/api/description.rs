//! What the description of the API says of every operation alike: credentials, and the headers of each method.

use crate::domain::limits::PAGE_SIZE_MAX;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ObjectBuilder, OpenApi, Required, ResponseBuilder, Type};

/// Completes a document.
pub(super) fn complete(document: &mut OpenApi) {
    let bearer =
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("pk_live_…").build());
    if let Some(components) = &mut document.components {
        components.add_security_scheme("key", bearer);
        let basic = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build());
        components.add_security_scheme("client", basic);
    }
    for (path, item) in &mut document.paths.paths {
        // Events are told apart one by one, what is set aside has no versions, and tokens are no resources.
        let apart = ["/v1/events", "/v1/quarantine", "/v1/oauth/token", "/v1/oauth/revoke", "/v1/whoami"];
        // What only asks is sent with POST for the size of its question.
        let only_asks = path.ends_with("/usage/query") || path.ends_with("/alerts/preview");
        let changes_resources =
            path.starts_with("/v1/") && !only_asks && !apart.iter().any(|apart| path.starts_with(apart));
        let methods = [
            (HttpMethod::Get, "get", &mut item.get),
            (HttpMethod::Post, "post", &mut item.post),
            (HttpMethod::Put, "put", &mut item.put),
            (HttpMethod::Patch, "patch", &mut item.patch),
            (HttpMethod::Delete, "delete", &mut item.delete),
        ];
        for (method, name, operation) in methods {
            let Some(operation) = operation else { continue };
            if changes_resources {
                headers(&method, operation);
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                let most = match parameter.name.as_str() {
                    "page" => None,
                    "page_size" => Some(PAGE_SIZE_MAX),
                    _ => continue,
                };
                let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(most);
                parameter.schema = Some(number.build().into());
            }
            operation.operation_id = Some(id(name, path));
        }
    }
}

/// An id of its own for each operation, for generated clients: `patch_alerts_by_id`.
fn id(method: &str, path: &str) -> String {
    if path == "/metrics" {
        // What it would be called is taken by the metrics that people define.
        return "scrape".to_owned();
    }
    let mut id = method.to_owned();
    for segment in path.trim_start_matches("/v1").split('/').filter(|segment| !segment.is_empty()) {
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(parameter) => id.push_str(&format!("_by_{parameter}")),
            None => id.push_str(&format!("_{}", segment.replace(['-', '.'], "_").trim_matches('_'))),
        }
    }
    id
}

fn headers(method: &HttpMethod, operation: &mut Operation) {
    let mut named = Vec::new();
    match method {
        HttpMethod::Get if has_etag(operation) => {
            named.push(header("If-None-Match", "An ETag; 304 where the resource is still the same", None));
            let unchanged = ResponseBuilder::new().description("The resource is what If-None-Match names");
            operation.responses.responses.insert("304".to_owned(), unchanged.build().into());
        }
        HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch => {
            let text = "The same request with the same key is answered as the first time, for 24 hours";
            named.push(header("Idempotency-Key", text, Some(255)));
        }
        HttpMethod::Get | HttpMethod::Delete | HttpMethod::Options | HttpMethod::Head | HttpMethod::Trace => {}
    }
    if matches!(method, HttpMethod::Put | HttpMethod::Patch | HttpMethod::Delete) {
        named.push(header("If-Match", "An ETag; 412 where the resource has another version", None));
    }
    operation.parameters.get_or_insert_default().extend(named);
}

/// Single resources have a version; lists and what is computed have none, and neither has what a clock is part of.
fn has_etag(operation: &Operation) -> bool {
    let has_none = |tags: &Vec<String>| tags == &["usage"] || tags == &["sandbox"];
    operation.operation_id.as_deref() == Some("get") && !operation.tags.as_ref().is_some_and(has_none)
}

fn header(name: &str, description: &str, chars_max: Option<usize>) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(chars_max);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text))
        .build()
}
