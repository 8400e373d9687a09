//! MONAI's norms and activations, as their factories take them: a name, or a name with arguments.

use super::super::config::{Component, Node, shown};

/// `get_norm_layer`.
#[derive(Clone, Debug, PartialEq)]
pub enum Norm {
    /// None.
    None,
    /// Of each channel.
    Instance {
        /// Added to the variance.
        epsilon: f32,
        /// Whether scale and shift were learned.
        affine: bool,
    },
    /// By stored statistics.
    Batch {
        /// Added to the variance.
        epsilon: f32,
        /// Whether scale and shift were learned.
        affine: bool,
    },
    /// Of groups of channels.
    Group {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
        /// Whether scale and shift were learned.
        affine: bool,
    },
}

/// `get_act_layer`.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// None.
    None,
    /// max(x, 0).
    Relu,
    /// With a fixed slope below zero.
    LeakyRelu {
        /// E.g. 0.01.
        slope: f32,
    },
    /// With learned slopes below zero.
    PRelu {
        /// One, or one for each channel.
        parameters: usize,
    },
    /// Exponential below zero.
    Elu {
        /// Usually 1.
        alpha: f32,
    },
    /// x · Φ(x).
    Gelu,
    /// Its approximation.
    GeluTanh,
    /// x · sigmoid(x).
    Silu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

impl Act {
    /// DynUNet's default.
    pub const LEAKY: Self = Self::LeakyRelu { slope: 0.01 };
}

/// A name and its arguments.
struct Named<'a> {
    name: String,
    arguments: Option<Node<'a>>,
    key: String,
}

fn named<'a>(node: &Node<'a>) -> Result<Named<'a>, String> {
    let key = node.key().to_owned();
    if !node.is_list() {
        return Ok(Named {
            name: node.text()?.to_lowercase(),
            arguments: None,
            key,
        });
    }
    let items = node.items()?;
    match items.as_slice() {
        [name] => Ok(Named {
            name: name.text()?.to_lowercase(),
            arguments: None,
            key,
        }),
        [name, arguments] if arguments.is_map() => Ok(Named {
            name: name.text()?.to_lowercase(),
            arguments: Some(arguments.clone()),
            key,
        }),
        _ => Err(format!("{key} is no name with arguments")),
    }
}

impl Named<'_> {
    /// Refuses arguments that are not on the list.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let names = self.arguments.as_ref().map(Node::names).unwrap_or_default();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(format!(
                "{} has the argument {}, which is not known",
                self.key,
                shown(name)
            )),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Node<'_>>, String> {
        match &self.arguments {
            Some(arguments) => arguments.get(name),
            None => Ok(None),
        }
    }

    fn number(&self, name: &str, default: f32) -> Result<f32, String> {
        self.get(name)?
            .map_or(Ok(default), |node| Ok(node.number()? as f32))
    }

    fn truth(&self, name: &str, default: bool) -> Result<bool, String> {
        self.get(name)?.map_or(Ok(default), |node| node.truth())
    }
}

/// A component's argument that says a norm.
///
/// # Errors
/// Norms and arguments that are not known, by name.
pub fn norm(component: &Component<'_>, name: &str, default: Norm) -> Result<Norm, String> {
    component.refuse_null(name)?;
    let Some(node) = component.get(name)? else {
        return Ok(default);
    };
    let named = named(&node)?;
    let epsilon = || {
        let value = named.number("eps", 1e-5)?;
        if value > 0.0 {
            Ok(value)
        } else {
            Err(format!("{}::eps is {value}", named.key))
        }
    };
    match named.name.as_str() {
        "" => Ok(Norm::None),
        "instance" | "instance_nvfuser" => {
            named.only(&["affine", "eps", "momentum", "track_running_stats"])?;
            if named.truth("track_running_stats", false)? {
                return Err(format!(
                    "{} tracks running statistics, which is not supported",
                    named.key
                ));
            }
            Ok(Norm::Instance {
                epsilon: epsilon()?,
                affine: named.truth("affine", false)?,
            })
        }
        "batch" | "syncbatch" => {
            named.only(&["affine", "eps", "momentum"])?;
            Ok(Norm::Batch {
                epsilon: epsilon()?,
                affine: named.truth("affine", true)?,
            })
        }
        "group" => {
            named.only(&["num_groups", "affine", "eps"])?;
            let groups = match named.get("num_groups")? {
                Some(node) => node.count()?,
                None => return Err(format!("{}::num_groups is missing", named.key)),
            };
            Ok(Norm::Group {
                groups,
                epsilon: epsilon()?,
                affine: named.truth("affine", true)?,
            })
        }
        other => Err(format!(
            "{} is the norm {}, which is not known",
            named.key,
            shown(other)
        )),
    }
}

/// A component's argument that says an activation.
///
/// # Errors
/// Activations and arguments that are not known, by name.
pub fn act(component: &Component<'_>, name: &str, default: Act) -> Result<Act, String> {
    component.refuse_null(name)?;
    let Some(node) = component.get(name)? else {
        return Ok(default);
    };
    let named = named(&node)?;
    match named.name.as_str() {
        "" => Ok(Act::None),
        "relu" => {
            named.only(&["inplace"])?;
            Ok(Act::Relu)
        }
        "leakyrelu" => {
            named.only(&["inplace", "negative_slope"])?;
            Ok(Act::LeakyRelu {
                slope: named.number("negative_slope", 0.01)?,
            })
        }
        "prelu" => {
            named.only(&["num_parameters", "init"])?;
            let parameters = named
                .get("num_parameters")?
                .map_or(Ok(1), |node| node.count())?;
            Ok(Act::PRelu { parameters })
        }
        "elu" => {
            named.only(&["inplace", "alpha"])?;
            Ok(Act::Elu {
                alpha: named.number("alpha", 1.0)?,
            })
        }
        "gelu" => {
            named.only(&["approximate"])?;
            let how = named.get("approximate")?;
            match how.map(|node| node.text()).transpose()?.as_deref() {
                None | Some("none") => Ok(Act::Gelu),
                Some("tanh") => Ok(Act::GeluTanh),
                Some(other) => Err(format!("{}::approximate is {}", named.key, shown(other))),
            }
        }
        "swish" | "memswish" => {
            named.only(&["inplace", "alpha"])?;
            if named.number("alpha", 1.0)? != 1.0 {
                return Err(format!("{}::alpha is not 1", named.key));
            }
            Ok(Act::Silu)
        }
        "sigmoid" => {
            named.only(&[])?;
            Ok(Act::Sigmoid)
        }
        "tanh" => {
            named.only(&[])?;
            Ok(Act::Tanh)
        }
        other => Err(format!(
            "{} is the activation {}, which is not known",
            named.key,
            shown(other)
        )),
    }
}
