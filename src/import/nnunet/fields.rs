//! Fields of a JSON object, where every refusal carries the field's full name.

use serde_json::{Map, Value};

/// Why a field is refused.
pub(super) type Read<T> = Result<T, String>;

/// An object and its name.
pub(super) struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            object: value.as_object(),
            path: String::new(),
        }
    }

    /// `configurations.2d.spacing`.
    pub(super) fn name(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    /// The field; `None` where it is missing or `null`.
    pub(super) fn optional(&self, field: &str) -> Option<&'a Value> {
        self.object?.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, field: &str) -> Read<&'a Value> {
        self.optional(field)
            .ok_or_else(|| format!("{} is missing", self.name(field)))
    }

    /// Refuses with what the field holds.
    pub(super) fn refuse<T>(&self, field: &str) -> Read<T> {
        let value = self.optional(field).unwrap_or(&Value::Null).to_string();
        let value: String = value.chars().take(80).collect();
        Err(format!(
            "{} is {value}, which is not understood",
            self.name(field)
        ))
    }

    pub(super) fn object(&self, field: &str) -> Read<Fields<'a>> {
        match self.required(field)? {
            Value::Object(object) => Ok(Fields {
                object: Some(object),
                path: self.name(field),
            }),
            _ => self.refuse(field),
        }
    }

    /// The object, or one without fields.
    pub(super) fn object_or_empty(&self, field: &str) -> Read<Fields<'a>> {
        if self.optional(field).is_some() {
            return self.object(field);
        }
        Ok(Fields {
            object: None,
            path: self.name(field),
        })
    }

    pub(super) fn text(&self, field: &str) -> Read<&'a str> {
        match self.required(field)?.as_str() {
            Some(text) => Ok(text),
            None => self.refuse(field),
        }
    }

    pub(super) fn flag(&self, field: &str, otherwise: bool) -> Read<bool> {
        match self.optional(field) {
            None => Ok(otherwise),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => self.refuse(field),
        }
    }

    pub(super) fn number(&self, field: &str) -> Read<f64> {
        match self.required(field)?.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            _ => self.refuse(field),
        }
    }

    pub(super) fn number_or(&self, field: &str, otherwise: f64) -> Read<f64> {
        match self.optional(field) {
            None => Ok(otherwise),
            Some(_) => self.number(field),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(&self, field: &str, least: usize, most: usize) -> Read<usize> {
        match whole_of(self.required(field)?) {
            Some(value) if (least..=most).contains(&value) => Ok(value),
            _ => self.refuse(field),
        }
    }

    pub(super) fn list(&self, field: &str) -> Read<&'a [Value]> {
        match self.required(field)?.as_array() {
            Some(list) => Ok(list),
            None => self.refuse(field),
        }
    }

    /// `count` whole numbers; a single number stands for all.
    pub(super) fn wholes(
        &self,
        field: &str,
        count: usize,
        least: usize,
        most: usize,
    ) -> Read<Vec<usize>> {
        let found = repeated(self.required(field)?, count, |v| {
            whole_of(v).filter(|v| (least..=most).contains(v))
        });
        match found {
            Some(values) => Ok(values),
            None => self.refuse(field),
        }
    }

    /// `count` lists of one whole number per axis; single numbers stand for all.
    pub(super) fn per_axis(
        &self,
        field: &str,
        count: usize,
        axes: usize,
        most: usize,
    ) -> Read<Vec<Vec<usize>>> {
        let found = repeated(self.required(field)?, count, |stage| {
            repeated(stage, axes, |v| {
                whole_of(v).filter(|v| (1..=most).contains(v))
            })
        });
        match found {
            Some(values) => Ok(values),
            None => self.refuse(field),
        }
    }

    /// Positive numbers, one per axis.
    pub(super) fn positives(&self, field: &str) -> Read<Vec<f64>> {
        let list = self.list(field)?;
        let numbers: Option<Vec<f64>> = list
            .iter()
            .map(|v| v.as_f64().filter(|v| v.is_finite() && *v > 0.0))
            .collect();
        match numbers {
            Some(numbers) if (1..=3).contains(&numbers.len()) => Ok(numbers),
            _ => self.refuse(field),
        }
    }

    /// Refuses fields that nobody looked at.
    pub(super) fn only(&self, known: &[&str]) -> Read<()> {
        let unknown = self
            .object
            .into_iter()
            .flat_map(Map::keys)
            .find(|key| !known.contains(&key.as_str()));
        match unknown {
            None => Ok(()),
            Some(key) => {
                let key: String = key.chars().take(80).collect();
                Err(format!("{} is not understood", self.name(&key)))
            }
        }
    }

    /// All fields, in the order of the file.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.object.into_iter().flatten()
    }
}

/// A number without a fraction; Python writes `3.0` where it computed one.
pub(super) fn whole_of(value: &Value) -> Option<usize> {
    if let Some(whole) = value.as_u64() {
        return usize::try_from(whole).ok();
    }
    let number = value.as_f64()?;
    ((0.0..=1e9).contains(&number) && number.fract() == 0.0).then_some(number as usize)
}

fn repeated<T: Clone>(
    value: &Value,
    count: usize,
    one: impl Fn(&Value) -> Option<T>,
) -> Option<Vec<T>> {
    match value.as_array() {
        Some(list) if list.len() == count => list.iter().map(one).collect(),
        Some(_) => None,
        None => Some(vec![one(value)?; count]),
    }
}
