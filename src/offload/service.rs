//! What stands around the protocol where a cloud runs the server: paths, headers, limits. The body
//! within is the protocol's own.
//!
//! # Source
//! AWS SageMaker Runtime API 2017-05-13 (`InvokeEndpoint`); Vertex AI REST reference
//! (`projects.locations.endpoints.rawPredict`); Azure Machine Learning online endpoints (routing
//! header, quotas); Triton's `sagemaker_server.cc` and `vertex_ai_server.cc` (content types, redirect).

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use super::Error;
use super::protocol::TensorMetadata;

/// Which service runs the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Service {
    /// The protocol itself.
    #[default]
    OpenInference,
    /// AWS SageMaker, a real-time endpoint: one address to which everything is posted. It tells
    /// nothing of itself.
    Sagemaker {
        /// `small.tar.gz` of a multi-model endpoint; empty: the endpoint has one model.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        target_model: String,
    },
    /// Google Vertex AI: one address too; a header leads to Triton's other paths.
    VertexAi,
    /// Azure Machine Learning, a managed online endpoint: the protocol's paths below the scoring
    /// address.
    AzureMl {
        /// The deployment that is to answer; empty: as the endpoint divides its traffic.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        deployment: String,
    },
}

/// What a model takes and gives, where the service cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensors {
    /// The one that it takes.
    pub input: TensorMetadata,
    /// The one that it gives.
    pub output: TensorMetadata,
}

/// A question on its way: the protocol's path in the words of a service.
pub(super) struct Addressed {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) header: Option<(&'static str, String)>,
}

/// Beginning of a content type that says how much of a body is JSON.
const SAGEMAKER_BINARY: &str = "application/vnd.sagemaker-triton.binary+json;json-header-size=";
const VERTEX_BINARY: &str = "application/vnd.vertex-ai-triton.binary+json;json-header-size=";

impl Service {
    /// The name in profiles and on the command line.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::OpenInference => "open-inference",
            Self::Sagemaker { .. } => "sagemaker",
            Self::VertexAi => "vertex-ai",
            Self::AzureMl { .. } => "azure-ml",
        }
    }

    /// Largest body that the service's documents promise; `None` where they say nothing.
    ///
    /// SageMaker: 6 MiB in the API's own description, 25 MB in newer documents: what is set wins.
    /// Vertex AI: 1.5 MB on public endpoints.
    pub const fn usual_request_bytes(&self) -> Option<u64> {
        match self {
            Self::Sagemaker { .. } => Some(6 << 20),
            Self::VertexAi => Some(1_500_000),
            Self::OpenInference | Self::AzureMl { .. } => None,
        }
    }

    /// Seconds after which the service gives up on a model. SageMaker: 60 for the model, 70 for who
    /// asks; Vertex AI: 60; Azure: 180 at most.
    pub const fn usual_deadline_secs(&self) -> Option<u64> {
        match self {
            Self::OpenInference => None,
            Self::Sagemaker { .. } => Some(70),
            Self::VertexAi => Some(60),
            Self::AzureMl { .. } => Some(180),
        }
    }

    /// Whether it can be asked for anything but a model's answer.
    pub(super) const fn tells(&self) -> bool {
        !matches!(self, Self::Sagemaker { .. })
    }

    /// Whether it hands a compressed body on as it is.
    pub(super) const fn may_compress(&self) -> bool {
        matches!(self, Self::OpenInference | Self::AzureMl { .. })
    }

    /// Where a question of the protocol goes. `base`: the profile's URL.
    pub(super) fn addressed(
        &self,
        base: &Url,
        method: Method,
        path: &[&str],
    ) -> Result<Addressed, Error> {
        let below = || -> Result<Url, Error> {
            let mut url = base.clone();
            url.path_segments_mut()
                .map_err(|()| Error::Setup("the URL has no path".to_owned()))?
                .pop_if_empty()
                .extend(path);
            Ok(url)
        };
        let header = |name, value: &str| (!value.is_empty()).then(|| (name, value.to_owned()));
        Ok(match self {
            Self::OpenInference => Addressed {
                method,
                url: below()?,
                header: None,
            },
            Self::AzureMl { deployment } => Addressed {
                method,
                url: below()?,
                header: header("azureml-model-deployment", deployment),
            },
            Self::VertexAi => Addressed {
                method: Method::POST,
                url: base.clone(),
                header: header("x-vertex-ai-triton-redirect", &path.join("/")),
            },
            Self::Sagemaker { target_model } if path.last() == Some(&"infer") => Addressed {
                method: Method::POST,
                url: base.clone(),
                header: header("x-amzn-sagemaker-target-model", target_model),
            },
            Self::Sagemaker { .. } => return Err(Error::NotOffered(self.word())),
        })
    }

    /// The content type of a binary body, where that says how much of it is JSON.
    pub(super) fn binary_type(&self, json_length: usize) -> Option<String> {
        match self {
            Self::Sagemaker { .. } => Some(format!("{SAGEMAKER_BINARY}{json_length}")),
            Self::VertexAi => Some(format!("{VERTEX_BINARY}{json_length}")),
            Self::OpenInference | Self::AzureMl { .. } => None,
        }
    }
}

/// How much of an answer's body is JSON, by its content type.
pub(super) fn json_length_of(content_type: &str) -> Option<&str> {
    [SAGEMAKER_BINARY, VERTEX_BINARY]
        .iter()
        .find_map(|prefix| content_type.trim().strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_way_to_a_models_answer() {
        let check = |service: Service, base: &str, method: Method, path: &[&str]| {
            let base = Url::parse(base).unwrap();
            let found = service.addressed(&base, method, path).ok()?;
            let header = found.header.map(|(name, value)| format!("{name}: {value}"));
            Some((
                found.method.to_string(),
                found.url.to_string(),
                header.unwrap_or_default(),
            ))
        };
        let expected = |method: &str, url: &str, header: &str| {
            Some((method.to_owned(), url.to_owned(), header.to_owned()))
        };
        let infer = ["v2", "models", "small", "infer"];
        assert_eq!(
            check(
                Service::OpenInference,
                "https://a.example/x/",
                Method::GET,
                &["v2"]
            ),
            expected("GET", "https://a.example/x/v2", "")
        );
        let azure = Service::AzureMl {
            deployment: "blue".to_owned(),
        };
        assert_eq!(
            check(
                azure,
                "https://ward.westeurope.inference.ml.azure.com",
                Method::POST,
                &infer
            ),
            expected(
                "POST",
                "https://ward.westeurope.inference.ml.azure.com/v2/models/small/infer",
                "azureml-model-deployment: blue"
            )
        );
        let vertex = "https://h.example/v1/projects/p/locations/l/endpoints/1:rawPredict";
        assert_eq!(
            check(
                Service::VertexAi,
                vertex,
                Method::GET,
                &["v2", "models", "small"]
            ),
            expected(
                "POST",
                vertex,
                "x-vertex-ai-triton-redirect: v2/models/small"
            )
        );
        let aws = "https://h.example/endpoints/small/invocations";
        let one = Service::Sagemaker {
            target_model: String::new(),
        };
        assert_eq!(
            check(one.clone(), aws, Method::POST, &infer),
            expected("POST", aws, "")
        );
        assert_eq!(check(one, aws, Method::GET, &["v2"]), None);
        let many = Service::Sagemaker {
            target_model: "small.tar.gz".to_owned(),
        };
        assert_eq!(
            check(many, aws, Method::POST, &infer),
            expected("POST", aws, "x-amzn-sagemaker-target-model: small.tar.gz")
        );
    }

    #[test]
    fn the_length_of_the_json_is_read_from_the_services_own_types_alone() {
        for service in [
            Service::VertexAi,
            Service::Sagemaker {
                target_model: String::new(),
            },
        ] {
            let kind = service.binary_type(123).unwrap();
            assert_eq!(json_length_of(&kind), Some("123"));
        }
        assert_eq!(Service::OpenInference.binary_type(1), None);
        for other in ["application/json", "application/octet-stream", ""] {
            assert_eq!(json_length_of(other), None);
        }
    }
}
