//! What the description says of values exactly, by their names: patterns, bounds, enumerations. The names stand in
//! `shapes.json`, since the same one means the same everywhere: a member by its name, or by its schema's and its own where it
//! differs. It must never say less than the server refuses, nor more.

use serde_json::{Map, Value};

/// Forms that take what else is sent, beside the bodies that are closed.
const OPEN_REQUESTS: [&str; 3] = ["CloudEvent", "RevocationForm", "TokenForm"];

/// What is said of values.
struct Shapes {
    shapes: Value,
    schemas: Value,
    answers: Value,
    requests: Value,
    parameters: Value,
}

impl Shapes {
    fn read() -> Self {
        let mut table: Value = serde_json::from_str(include_str!("shapes.json")).unwrap_or_default();
        let mut take = |name: &str| table.get_mut(name).map(Value::take).unwrap_or_default();
        Self {
            shapes: take("shapes"),
            schemas: take("schemas"),
            answers: take("answers"),
            requests: take("requests"),
            parameters: take("parameters"),
        }
    }

    /// Puts a shape on a schema: a name of one, or its words, where `items` and the like are shapes themselves.
    fn put(&self, schema: &mut Value, shape: &Value) {
        let words = shape.as_str().map_or(Some(shape), |name| self.shapes.get(name));
        for (word, value) in words.and_then(Value::as_object).into_iter().flatten() {
            match word.as_str() {
                "of" => self.put(schema, value),
                "nullable" => required(schema),
                "oneOf" => {
                    let alternatives = schema["oneOf"].as_array_mut().into_iter().flatten();
                    alternatives
                        .zip(value.as_array().into_iter().flatten())
                        .for_each(|(one, shape)| self.put(one, shape));
                }
                "items" | "propertyNames" | "additionalProperties" => self.put(&mut schema[word], value),
                "enum" => {
                    let mut values = value.as_array().cloned().unwrap_or_default();
                    if is_nullable(schema) {
                        values.push(Value::Null);
                    }
                    schema["enum"] = values.into();
                    remove(schema, "pattern");
                }
                _ => schema[word] = value.clone(),
            }
        }
    }

    fn schema(&self, name: &str, schema: &mut Value) {
        if let Some(shape) = self.schemas.get(name) {
            self.put(schema, shape);
        }
        let is_request = schema["additionalProperties"] == false || OPEN_REQUESTS.contains(&name);
        let table = if is_request { &self.requests } else { &self.answers };
        for (member, value) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
            if value.get("default").is_some_and(Value::is_null) {
                remove(value, "default");
            }
            if let Some(shape) = table.get(format!("{name}.{member}")).or_else(|| table.get(member)) {
                self.put(value, shape);
            }
        }
    }

    fn parameter(&self, path: &str, parameter: &mut Value) {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let shape =
            self.parameters.get(format!("{} {name}", reach(path, &name))).or_else(|| self.parameters.get(&name));
        let Some(shape) = shape else { return };
        let schema = &mut parameter["schema"];
        required(schema);
        let schema = if schema["type"] == "array" { &mut schema["items"] } else { schema };
        self.put(schema, shape);
    }
}

/// Says of every value what it is exactly.
pub(super) fn exact(document: &mut Value) {
    let shapes = Shapes::read();
    let empty = Map::new();
    let known: Vec<String> = document["components"]["schemas"].as_object().unwrap_or(&empty).keys().cloned().collect();
    for (name, schema) in object(&mut document["components"]["schemas"]) {
        if let Some(item) = name.strip_prefix("Page_").filter(|item| known.iter().any(|known| known == item)) {
            // The same everywhere is said once.
            schema["properties"]["items"]["items"] =
                serde_json::json!({"$ref": format!("#/components/schemas/{item}")});
            shapes.schema(name, schema);
            continue;
        }
        shapes.schema(name, schema);
        for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
            shapes.schema(name, part);
        }
    }
    for (path, item) in object(&mut document["paths"]) {
        for (_, operation) in object(item) {
            for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
                shapes.parameter(path, parameter);
            }
            // A body that may be left out is not `null`.
            if let Some(content) = operation.get_mut("requestBody").and_then(|body| body.get_mut("content")) {
                object(content).for_each(|(_, content)| required(&mut content["schema"]));
            }
        }
    }
}

/// The path as far as it says what a parameter is of: what is behind an id does not change what it is an id of.
fn reach<'a>(path: &'a str, name: &str) -> &'a str {
    let end = path.find("{id}").filter(|_| name == "id").map_or(path.len(), |at| at + "{id}".len());
    path.get(..end).unwrap_or(path)
}

/// The members of an object; none of anything else.
pub(super) fn object(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flat_map(Map::iter_mut)
}

fn remove(schema: &mut Value, word: &str) {
    if let Some(words) = schema.as_object_mut() {
        words.remove(word);
    }
}

fn is_nullable(schema: &Value) -> bool {
    schema["type"].as_array().is_some_and(|kinds| kinds.contains(&"null".into()))
}

/// Takes `null` out of what a schema allows.
fn required(schema: &mut Value) {
    let kept = |key: &str, schema: &Value| {
        let is_null = |one: &Value| *one == "null" || one["type"] == "null";
        let all = schema.get(key)?.as_array()?;
        Some(all.iter().filter(|one| !is_null(one)).cloned().collect::<Vec<_>>())
    };
    if let Some(kinds) = kept("type", schema) {
        schema["type"] = match <[Value; 1]>::try_from(kinds) {
            Ok([only]) => only,
            Err(several) => several.into(),
        };
    }
    if let Some(alternatives) = kept("oneOf", schema)
        && let Ok([only]) = <[Value; 1]>::try_from(alternatives)
    {
        remove(schema, "oneOf");
        for (word, value) in only.as_object().cloned().unwrap_or_default() {
            schema[word] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that nothing has any more would be taken for said.
    #[test]
    fn every_shape_is_of_something() {
        let document = serde_json::to_value(crate::api::openapi()).unwrap();
        let (mut members, mut parameters) = (Vec::new(), Vec::new());
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let parts = schema["allOf"].as_array().cloned().unwrap_or_default();
            for part in parts.iter().chain([schema]) {
                for member in part["properties"].as_object().into_iter().flatten().map(|(member, _)| member) {
                    members.extend([format!("{name}.{member}"), member.clone()]);
                }
            }
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let name = parameter["name"].as_str().unwrap();
                    parameters.extend([format!("{} {name}", reach(path, name)), name.to_owned()]);
                }
            }
        }
        let shapes = Shapes::read();
        let names = |table: &Value| table.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for name in names(&shapes.answers).iter().chain(&names(&shapes.requests)) {
            assert!(members.contains(name), "nothing is named {name}");
        }
        for name in names(&shapes.parameters) {
            assert!(parameters.contains(&name), "no parameter is {name}");
        }
        for name in names(&shapes.schemas) {
            assert!(document["components"]["schemas"].get(&name).is_some(), "no schema is {name}");
        }
        let used =
            [&shapes.schemas, &shapes.answers, &shapes.requests, &shapes.parameters].map(Value::to_string).concat();
        for name in names(&shapes.shapes) {
            assert!(used.contains(&format!("\"{name}\"")), "the shape {name} is of nothing");
        }
    }

    #[test]
    fn shapes_are_put_on_what_is_there() {
        let shapes = Shapes { shapes: serde_json::json!({"env": {"enum": ["a"]}}), ..Shapes::read() };
        let check = |schema: Value, shape: Value, expected: Value| {
            let mut shaped = schema;
            shapes.put(&mut shaped, &shape);
            assert_eq!(shaped, expected);
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        check(
            json(r#"{"type":["string","null"],"pattern":"x"}"#),
            "env".into(),
            json(r#"{"type":["string","null"],"enum":["a",null]}"#),
        );
        check(
            json(r#"{"type":["string","null"]}"#),
            json(r#"{"nullable":false,"of":"env"}"#),
            json(r#"{"type":"string","enum":["a"]}"#),
        );
        check(
            json(r##"{"oneOf":[{"type":"null"},{"$ref":"#/x"}]}"##),
            json(r#"{"nullable":false}"#),
            json(r##"{"$ref":"#/x"}"##),
        );
    }
}
