//! An output file as rows, and when two rows are equal.
//!
//! Equal means equal as the contract says: the order of an object's members does not matter, a null member is
//! as good as absent (`key` and `value` of the line itself must be there), and the `error` of a dead letter
//! is any string. A file with a torn last line, another member beside `key` and `value`, or a member given
//! twice is refused whatever it holds.

use super::json;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The rows of an output file, refused where a line is not exactly a `key` and a `value`.
pub fn read_rows(actual_file: &str) -> Result<Vec<Value>, String> {
    if !actual_file.is_empty() && !actual_file.ends_with('\n') {
        return Err("the last line is torn".into());
    }
    let read = |line: &str| -> Result<Value, String> {
        let row = value(json::whole(line).ok_or("does not parse")?)?;
        let names: Vec<&str> = row
            .as_object()
            .ok_or("not an object")?
            .keys()
            .map(String::as_str)
            .collect();
        let is_message = names.len() == 2 && names.contains(&"key") && names.contains(&"value");
        let is_dead_letter = row["value"].get("reason").is_some();
        match (is_message, is_dead_letter, &row["value"]["error"]) {
            (false, ..) => Err(format!("holds {names:?}, not key and value")),
            (true, true, error) if !error.is_string() => Err("a dead letter without its error".into()),
            _ => Ok(row),
        }
    };
    let lines = actual_file.lines().enumerate();
    lines
        .map(|(index, line)| read(line).map_err(|error| format!("line {}: {error}: {line:.400}", index + 1)))
        .collect()
}

/// A row as text that is the same for rows that are equal.
pub fn canonical(row: &Value) -> String {
    let mut value = row["value"].clone();
    if value.get("reason").is_some()
        && let Some(letter) = value.as_object_mut()
    {
        letter.remove("error");
    }
    format!("{} {}", row["key"], sorted(&value))
}

/// A well-formed value as a tree, refused where a member is given twice.
fn value(span: &str) -> Result<Value, String> {
    if let Some(members) = json::members(span) {
        let mut object = Map::new();
        for (name, span) in members {
            if object.insert(name.clone(), value(span)?).is_some() {
                return Err(format!("{name:?} is given twice"));
            }
        }
        Ok(Value::Object(object))
    } else if let Some(elements) = json::elements(span) {
        elements.into_iter().map(value).collect()
    } else {
        serde_json::from_str(span).map_err(|error| error.to_string())
    }
}

/// Members in order of name, null ones left out.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<&String, &Value> =
                members.iter().filter(|(_, value)| !value.is_null()).collect();
            members
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
