//! A bundle's configuration: references, macros and components are resolved, Python never runs.
//!
//! MONAI would evaluate every text that begins with `$`. Here such a text is either a literal of
//! Python (numbers, texts, lists, `True`, `@reference`) and read as one, or it stays an expression:
//! harmless where nobody asks for it, refused with its key where a fact is needed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::literal;

/// References to references, at most.
const DEEPEST: usize = 32;

/// A configuration file's content.
#[derive(Debug)]
pub struct Config {
    root: Value,
}

/// A value of a configuration, with references followed; never a copy of large parts of it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    config: &'a Config,
    value: Cow<'a, Value>,
    key: String,
}

impl Config {
    /// From the parsed file.
    pub const fn new(root: Value) -> Self {
        Self { root }
    }

    /// A value by its id, e.g. `inferer` or `preprocessing::transforms`; `None` when it is not there.
    ///
    /// # Errors
    /// A reference that leads nowhere or in circles, by its key.
    pub fn get(&self, id: &str) -> Result<Option<Node<'_>>, String> {
        self.find(id, id, 0)
    }

    fn find(&self, id: &str, key: &str, depth: usize) -> Result<Option<Node<'_>>, String> {
        let mut value = Cow::Borrowed(&self.root);
        let id = id.replace("::", "#");
        for part in id.split('#') {
            value = self.settled(value, key, depth)?;
            let next = match &value {
                Cow::Borrowed(parent) => child(parent, part).map(Cow::Borrowed),
                Cow::Owned(parent) => child(parent, part).cloned().map(Cow::Owned),
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Node {
            config: self,
            value: self.settled(value, key, depth)?,
            key: key.to_owned(),
        }))
    }

    /// Follows references and macros and reads literals; other expressions stay as they are.
    fn settled<'a>(
        &'a self,
        value: Cow<'a, Value>,
        key: &str,
        depth: usize,
    ) -> Result<Cow<'a, Value>, String> {
        let Value::String(text) = value.as_ref() else {
            return Ok(value);
        };
        if depth > DEEPEST {
            return Err(format!("{key}: references go in circles"));
        }
        let text = text.trim();
        let reference = text.strip_prefix('@').or_else(|| text.strip_prefix('%'));
        if let Some(id) = reference.filter(|id| literal::is_id(id)) {
            let found = self.find(id, key, depth + 1)?;
            return match found {
                Some(node) => Ok(node.value),
                None => Err(format!("{key} refers to {}, which is not there", shown(id))),
            };
        }
        if text.starts_with('%') {
            return Err(format!(
                "{key} takes its value from another file ({}), which is not followed",
                shown(text)
            ));
        }
        match text.strip_prefix('$').and_then(literal::parse) {
            Some(literal) if is_reference(&literal) => {
                self.settled(Cow::Owned(literal), key, depth + 1)
            }
            Some(literal) => Ok(Cow::Owned(literal)),
            None => Ok(value),
        }
    }
}

/// An entry of a dictionary or list.
fn child<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(name),
        Value::Array(items) => name.parse().ok().and_then(|n: usize| items.get(n)),
        _ => None,
    }
}

fn is_reference(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with('@'))
}

/// Text of a foreign file in a message: short and printable.
pub fn shown(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(80)
        .collect();
    format!("`{clean}`")
}

impl<'a> Node<'a> {
    /// Where it stands.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// An entry of a dictionary; `None` when it is missing or null.
    ///
    /// # Errors
    /// When this is no dictionary.
    pub fn get(&self, name: &str) -> Result<Option<Node<'a>>, String> {
        if !self.is_map() {
            return Err(self.unlike("a dictionary"));
        }
        let found = self.entry(name).map(|value| self.inside(value, name));
        let node = found.transpose()?;
        Ok(node.filter(|node| !node.value.is_null()))
    }

    /// The entries of a list.
    ///
    /// # Errors
    /// When this is none.
    pub fn items(&self) -> Result<Vec<Node<'a>>, String> {
        let Value::Array(items) = self.value.as_ref() else {
            return Err(self.unlike("a list"));
        };
        (0..items.len())
            .map(|n| n.to_string())
            .filter_map(|n| Some(self.inside(self.entry(&n)?, &n)))
            .collect()
    }

    /// Names of a dictionary's entries.
    pub fn names(&self) -> Vec<String> {
        match self.value.as_ref() {
            Value::Object(map) => map.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn entry(&self, name: &str) -> Option<Cow<'a, Value>> {
        match &self.value {
            Cow::Borrowed(value) => child(value, name).map(Cow::Borrowed),
            Cow::Owned(value) => child(value, name).cloned().map(Cow::Owned),
        }
    }

    fn inside(&self, value: Cow<'a, Value>, name: &str) -> Result<Node<'a>, String> {
        let key = format!("{}::{name}", self.key);
        Ok(Node {
            config: self.config,
            value: self.config.settled(value, &key, 0)?,
            key,
        })
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Whether this is a dictionary.
    pub fn is_map(&self) -> bool {
        self.value.is_object()
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// The text of an expression that is not read.
    pub fn expression(&self) -> Option<&str> {
        self.value
            .as_str()
            .filter(|text| text.trim_start().starts_with('$'))
    }

    /// # Errors
    /// When this is no text, or an expression.
    pub fn text(&self) -> Result<String, String> {
        match self.value.as_ref() {
            Value::String(text) if self.expression().is_none() => Ok(text.clone()),
            _ => Err(self.unlike("a text")),
        }
    }

    /// # Errors
    /// When this is no truth value (0 and 1 count).
    pub fn truth(&self) -> Result<bool, String> {
        match self.value.as_ref() {
            Value::Bool(value) => Ok(*value),
            Value::Number(n) if n.as_f64() == Some(0.0) => Ok(false),
            Value::Number(n) if n.as_f64() == Some(1.0) => Ok(true),
            _ => Err(self.unlike("true or false")),
        }
    }

    /// # Errors
    /// When this is no finite number.
    pub fn number(&self) -> Result<f64, String> {
        match self.value.as_f64() {
            Some(value) if value.is_finite() => Ok(value),
            _ => Err(self.unlike("a number")),
        }
    }

    /// # Errors
    /// When this is no whole number of at most nine digits.
    pub fn integer(&self) -> Result<i64, String> {
        match self.number() {
            Ok(value) if value.fract() == 0.0 && value.abs() < 1e9 => Ok(value as i64),
            _ => Err(self.unlike("a whole number")),
        }
    }

    /// # Errors
    /// When this is no whole number from 0 on.
    pub fn count(&self) -> Result<usize, String> {
        usize::try_from(self.integer()?).map_err(|_| self.unlike("a number from 0 on"))
    }

    fn unlike(&self, expected: &str) -> String {
        let key = &self.key;
        if let Some(text) = self.expression() {
            return format!(
                "{key} is the expression {}, and expressions are not evaluated: put {expected} there",
                shown(text)
            );
        }
        let found = match self.value.as_ref() {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a dictionary".to_owned(),
            other => shown(&other.to_string()),
        };
        format!("{key} is {found}, expected {expected}")
    }
}

/// Something with a `_target_`, and which of its arguments were understood.
#[derive(Debug)]
pub struct Component<'a> {
    /// The class, without its modules.
    pub name: String,
    node: Node<'a>,
    seen: RefCell<BTreeSet<String>>,
}

impl<'a> Component<'a> {
    /// `None` for one that is disabled.
    ///
    /// # Errors
    /// When it is no component, or one of something else than MONAI.
    pub fn of(node: Node<'a>) -> Result<Option<Self>, String> {
        let key = node.key.clone();
        let target = match node.get("_target_")? {
            Some(target) => target.text()?,
            None => return Err(format!("{key} has no _target_")),
        };
        if let Some(disabled) = node.get("_disabled_")? {
            let said = disabled.value.as_str().map(str::to_lowercase);
            match said.as_deref() {
                Some("true") => return Ok(None),
                Some("false") => {}
                _ if disabled.truth()? => return Ok(None),
                _ => {}
            }
        }
        if let Some(mode) = node.get("_mode_")?
            && mode.text()? != "default"
        {
            return Err(format!("{} is not `default`", mode.key));
        }
        let name = target.rsplit('.').next().unwrap_or_default().to_owned();
        if target.contains('.') && !target.starts_with("monai.") {
            return Err(format!(
                "{key} asks for {}, which is not part of MONAI",
                shown(&target)
            ));
        }
        Ok(Some(Self {
            name,
            node,
            seen: RefCell::default(),
        }))
    }

    /// Where it stands.
    pub fn key(&self) -> &str {
        self.node.key()
    }

    /// An argument; `None` when it is missing or null.
    ///
    /// # Errors
    /// References that lead nowhere.
    pub fn get(&self, name: &str) -> Result<Option<Node<'a>>, String> {
        self.seen.borrow_mut().insert(name.to_owned());
        self.node.get(name)
    }

    /// # Errors
    /// When an argument is null, where a missing one would mean something else.
    pub fn refuse_null(&self, name: &str) -> Result<(), String> {
        match self.node.value.as_ref() {
            Value::Object(map) if map.get(name).is_some_and(Value::is_null) => {
                Err(format!("{}::{name} is null", self.key()))
            }
            _ => Ok(()),
        }
    }

    /// Arguments that change nothing here.
    pub fn ignore(&self, names: &[&str]) {
        let mut seen = self.seen.borrow_mut();
        seen.extend(names.iter().map(|&name| name.to_owned()));
    }

    /// An argument that may only have a value that changes nothing.
    ///
    /// # Errors
    /// Any other value, by its key.
    pub fn only(&self, name: &str, allowed: &[Value]) -> Result<(), String> {
        let Some(node) = self.get(name)? else {
            return Ok(());
        };
        let same = |value: &Value| match (value.as_f64(), node.value.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => value == node.value.as_ref(),
        };
        if allowed.iter().any(same) {
            return Ok(());
        }
        Err(format!(
            "{} is {}, which is not supported",
            node.key,
            shown(&node.value.to_string())
        ))
    }

    /// # Errors
    /// As [`Node::truth`].
    pub fn truth(&self, name: &str, default: bool) -> Result<bool, String> {
        self.get(name)?.map_or(Ok(default), |node| node.truth())
    }

    /// # Errors
    /// As [`Node::count`].
    pub fn count(&self, name: &str, default: usize) -> Result<usize, String> {
        self.get(name)?.map_or(Ok(default), |node| node.count())
    }

    /// # Errors
    /// As [`Node::count`], and when it is missing.
    pub fn needed_count(&self, name: &str) -> Result<usize, String> {
        self.needed(name)?.count()
    }

    /// # Errors
    /// As [`Node::number`].
    pub fn number(&self, name: &str) -> Result<Option<f64>, String> {
        self.get(name)?.map(|node| node.number()).transpose()
    }

    /// # Errors
    /// As [`Node::text`].
    pub fn text(&self, name: &str, default: &str) -> Result<String, String> {
        self.get(name)?
            .map_or_else(|| Ok(default.to_owned()), |node| node.text())
    }

    /// # Errors
    /// When it is missing.
    pub fn needed(&self, name: &str) -> Result<Node<'a>, String> {
        self.get(name)?
            .ok_or_else(|| format!("{}::{name} is missing", self.key()))
    }

    /// One number for all of `axes`, or a list of so many.
    ///
    /// # Errors
    /// Other lengths and kinds.
    pub fn per_axis(&self, name: &str, axes: usize) -> Result<Option<Vec<f64>>, String> {
        self.get(name)?
            .map(|node| per_axis(&node, axes))
            .transpose()
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// An argument that is not known, by its name.
    pub fn finish(&self) -> Result<(), String> {
        const OWN: [&str; 5] = ["_target_", "_disabled_", "_mode_", "_desc_", "_requires_"];
        let seen = self.seen.borrow();
        let names = self.node.names();
        match names
            .iter()
            .find(|name| !OWN.contains(&name.as_str()) && !seen.contains(*name))
        {
            None => Ok(()),
            Some(name) => Err(format!(
                "{} has the argument {}, which is not known",
                self.key(),
                shown(name)
            )),
        }
    }
}

/// One number for all axes, or one for each.
///
/// # Errors
/// Other lengths and kinds.
pub fn per_axis(node: &Node<'_>, axes: usize) -> Result<Vec<f64>, String> {
    if !node.is_list() {
        return Ok(vec![node.number()?; axes]);
    }
    let values = node
        .items()?
        .iter()
        .map(Node::number)
        .collect::<Result<Vec<_>, _>>()?;
    if values.len() != axes {
        return Err(format!(
            "{} has {} numbers, expected {axes}",
            node.key(),
            values.len()
        ));
    }
    Ok(values)
}

/// Whole numbers from 0 on.
///
/// # Errors
/// When one is not.
pub fn counts(node: &Node<'_>) -> Result<Vec<usize>, String> {
    node.items()?.iter().map(Node::count).collect()
}

/// One whole number for all axes, or one for each.
///
/// # Errors
/// Other lengths and kinds.
pub fn counts_per_axis(node: &Node<'_>, axes: usize) -> Result<Vec<usize>, String> {
    if !node.is_list() {
        return Ok(vec![node.count()?; axes]);
    }
    let values = counts(node)?;
    if values.len() != axes {
        return Err(format!(
            "{} has {} numbers, expected {axes}",
            node.key(),
            values.len()
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Config {
        Config::new(json!({
            "imports": ["$import os"],
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
            "roi": [96, 96, 64],
            "roi_again": "@roi",
            "wrapped": "$@roi",
            "literal": "$[96, 96, (1, -2.5), True, None, 'a']",
            "evil": "$__import__('os').system('true')",
            "loop": "@pool",
            "pool": "@loop",
            "net": { "_target_": "UNet", "channels": "@roi", "depth": "%roi::2", "off": null },
            "gone": { "_target_": "monai.networks.nets.UNet", "_disabled_": "true" },
            "alien": { "_target_": "os.system" },
        }))
    }

    #[test]
    fn references_macros_and_literals_are_read() {
        let config = config();
        let counts_of = |id: &str| counts(&config.get(id).unwrap().unwrap()).unwrap();
        assert_eq!(counts_of("roi_again"), [96, 96, 64]);
        assert_eq!(counts_of("wrapped"), [96, 96, 64]);
        assert_eq!(counts_of("net::channels"), [96, 96, 64]);
        assert_eq!(
            config.get("net#depth").unwrap().unwrap().count().unwrap(),
            64
        );
        let literal = config.get("literal").unwrap().unwrap();
        assert_eq!(*literal.value, json!([96, 96, [1, -2.5], true, null, "a"]));
        assert!(config.get("nothing").unwrap().is_none());
    }

    #[test]
    fn expressions_are_refused_where_a_fact_is_needed_and_only_there() {
        let config = config();
        let evil = config.get("evil").unwrap().unwrap();
        let error = evil.count().unwrap_err();
        assert!(
            error.contains("evil") && error.contains("not evaluated"),
            "{error}"
        );
        assert!(evil.text().is_err());
        assert!(config.get("loop").unwrap_err().contains("circles"));
    }

    #[test]
    fn components_know_their_class_and_refuse_unknown_arguments() {
        let config = config();
        let node = |id: &str| config.get(id).unwrap().unwrap();
        let net = Component::of(node("net")).unwrap().unwrap();
        assert_eq!(net.name, "UNet");
        assert!(net.get("off").unwrap().is_none());
        assert!(net.finish().unwrap_err().contains("channels"));
        net.ignore(&["channels", "depth"]);
        net.finish().unwrap();
        assert!(Component::of(node("gone")).unwrap().is_none());
        assert!(
            Component::of(node("alien"))
                .unwrap_err()
                .contains("os.system")
        );
    }
}
