//! `negatoscope endpoints add`: what a person says of a server, as a profile.

use std::path::PathBuf;

use crate::offload::protocol::{Datatype, TensorMetadata};
use crate::offload::{Authorization, Binary, Pin, Price, Profile, SecretPlace, Service, Tensors};

#[derive(clap::Args, Debug)]
pub struct Add {
    /// Its name here.
    name: String,
    /// Where it is; the protocol's paths (v2/…) are appended. SageMaker's and Vertex AI's follow from
    /// region and endpoint.
    #[arg(long, required_unless_present = "endpoint_name")]
    url: Option<String>,
    /// Which service runs it.
    #[arg(long, default_value = "open-inference",
          value_parser = ["open-inference", "sagemaker", "vertex-ai", "azure-ml"])]
    kind: String,
    /// Name of a SageMaker endpoint, or number of a Vertex AI endpoint.
    #[arg(long, value_name = "NAME", requires = "region")]
    endpoint_name: Option<String>,
    /// Google Cloud project of a Vertex AI endpoint.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Azure deployment that is to answer; SageMaker: target model of a multi-model endpoint.
    #[arg(long, value_name = "NAME", default_value = "")]
    deployment: String,
    /// What its one model takes, where the service cannot be asked, e.g. image:FP32:-1,-1,-1.
    #[arg(long, value_name = "NAME:DATATYPE:SHAPE", value_parser = tensor, requires = "output")]
    input: Option<TensorMetadata>,
    /// What its one model gives.
    #[arg(long, value_name = "NAME:DATATYPE:SHAPE", value_parser = tensor, requires = "input")]
    output: Option<TensorMetadata>,
    /// Tensors as bytes, as JSON, or as the server announces.
    #[arg(long, value_parser = ["yes", "no", "probe"], default_value = "probe")]
    binary: String,
    /// Currency of the prices.
    #[arg(long, default_value = "")]
    currency: String,
    /// Price of a second of computing.
    #[arg(long, value_name = "PRICE", default_value_t = 0.0)]
    price_per_gpu_second: f64,
    /// Price of 10⁹ bytes, sent or received.
    #[arg(long, value_name = "PRICE", default_value_t = 0.0)]
    price_per_gigabyte: f64,
    /// Price of a request.
    #[arg(long, value_name = "PRICE", default_value_t = 0.0)]
    price_per_request: f64,
    /// Certificates of its authority (PEM), in place of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// SHA-256 of a public key of which one must be in the server's chain; give a second as a backup.
    #[arg(long, value_name = "SHA256")]
    pin: Vec<Pin>,
    /// Variable of the environment that holds a bearer token.
    #[arg(long, value_name = "VAR", conflicts_with = "oauth_token_url")]
    token_env: Option<String>,
    /// Entry of the system's keyring that holds a bearer token (`keys store NAME`).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["token_env", "oauth_token_url"])]
    token_keyring: Option<String>,
    /// Where OAuth 2.0 tokens come from.
    #[arg(long, value_name = "URL", requires = "client_id")]
    oauth_token_url: Option<String>,
    /// Where a person's sign-in begins (OAuth 2.0 device flow), in place of a client secret.
    #[arg(
        long,
        value_name = "URL",
        requires = "oauth_token_url",
        conflicts_with = "client_secret_env"
    )]
    oauth_device_url: Option<String>,
    /// Client id at the token server.
    #[arg(long, value_name = "ID", requires = "oauth_token_url")]
    client_id: Option<String>,
    /// Variable of the environment that holds the client secret.
    #[arg(long, value_name = "VAR", requires = "oauth_token_url")]
    client_secret_env: Option<String>,
    /// What the token is for.
    #[arg(
        long,
        value_name = "WORDS",
        requires = "oauth_token_url",
        default_value = ""
    )]
    scope: String,
    /// Largest body that the server takes.
    #[arg(long, value_name = "N")]
    max_request_bytes: Option<u64>,
    /// Longest time for one request with all its attempts.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// The server takes and gives gzip.
    #[arg(long)]
    gzip: bool,
    /// Model that may be asked there; any, where none is given.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Where it computes; for SageMaker and Vertex AI their own name of it.
    #[arg(long)]
    region: Option<String>,
    /// What its operator keeps and for how long, for people.
    #[arg(long, default_value = "")]
    retention: String,
    /// Allow plain http, to this machine alone.
    #[arg(long)]
    allow_insecure_loopback: bool,
    /// Send there without asking each time, as long as nothing about it is doubtful.
    #[arg(long)]
    without_asking: bool,
}

/// `NAME:DATATYPE:SHAPE`.
fn tensor(text: &str) -> Result<TensorMetadata, String> {
    let wrong = || "expected NAME:DATATYPE:SHAPE, e.g. image:FP32:-1,-1,-1".to_owned();
    let (name, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (datatype, shape) = rest.split_once(':').ok_or_else(wrong)?;
    let shape: Option<Vec<i64>> = shape
        .split(',')
        .map(|n| n.trim().parse().ok().filter(|n| *n == -1 || *n > 0))
        .collect();
    if name.is_empty() || Datatype::of_word(datatype).is_none() {
        return Err(wrong());
    }
    Ok(TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.ok_or_else(wrong)?,
    })
}

impl Add {
    /// As it goes into the file.
    pub fn profile(&self) -> anyhow::Result<Profile> {
        let service = match self.kind.as_str() {
            "sagemaker" => Service::Sagemaker {
                target_model: self.deployment.clone(),
            },
            "vertex-ai" => Service::VertexAi,
            "azure-ml" => Service::AzureMl {
                deployment: self.deployment.clone(),
            },
            _ => Service::OpenInference,
        };
        let usual = Profile::new(&self.name, &self.address()?);
        let request_bytes = service.usual_request_bytes();
        let deadline = service.usual_deadline_secs();
        // A relative path would mean another file from another folder.
        let whole = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let tensors = self.input.clone().zip(self.output.clone());
        Ok(Profile {
            authorization: self.authorization(&service)?,
            service,
            tensors: tensors.map(|(input, output)| Tensors { input, output }),
            ca: whole(&self.ca)?,
            client_certificate: whole(&self.cert)?,
            client_key: whole(&self.key)?,
            pins: self.pin.clone(),
            max_request_bytes: self
                .max_request_bytes
                .or(request_bytes)
                .unwrap_or(usual.max_request_bytes),
            deadline_secs: self.deadline.or(deadline).unwrap_or(usual.deadline_secs),
            binary: match self.binary.as_str() {
                "yes" => Binary::Yes,
                "no" => Binary::No,
                _ => Binary::Probe,
            },
            gzip: self.gzip,
            models: self.model.clone(),
            region: self.region.clone().unwrap_or_default(),
            retention: self.retention.clone(),
            allow_insecure_loopback: self.allow_insecure_loopback,
            without_asking: self.without_asking,
            price: Price {
                currency: self.currency.clone(),
                per_gpu_second: self.price_per_gpu_second,
                per_gigabyte: self.price_per_gigabyte,
                per_request: self.price_per_request,
            },
            ..usual
        })
    }

    /// The URL that was given, or that follows from the names.
    fn address(&self) -> anyhow::Result<String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let name = self.endpoint_name.as_deref().unwrap_or_default();
        let region = self.region.as_deref().unwrap_or_default();
        match (self.kind.as_str(), &self.project) {
            ("sagemaker", _) => Ok(format!(
                "https://runtime.sagemaker.{region}.amazonaws.com/endpoints/{name}/invocations"
            )),
            ("vertex-ai", Some(project)) => Ok(format!(
                "https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}/endpoints/{name}:rawPredict"
            )),
            ("vertex-ai", None) => anyhow::bail!("a Vertex AI endpoint needs --project, or --url"),
            _ => anyhow::bail!("this kind of endpoint needs --url"),
        }
    }

    fn authorization(&self, service: &Service) -> anyhow::Result<Authorization> {
        if let Service::Sagemaker { .. } = service {
            let Some(region) = self.region.clone() else {
                anyhow::bail!("SageMaker needs --region, which its signatures hold");
            };
            // The variables that AWS's own tools read.
            return Ok(Authorization::AwsSignature {
                region,
                access_key: SecretPlace::environment("AWS_ACCESS_KEY_ID"),
                secret_key: SecretPlace::environment("AWS_SECRET_ACCESS_KEY"),
                session_token: SecretPlace::environment("AWS_SESSION_TOKEN"),
            });
        }
        let token = self.token_keyring.as_deref().map(SecretPlace::keyring);
        let variable = self.token_env.as_deref().map(SecretPlace::environment);
        if let Some(secret) = token.or(variable) {
            return Ok(Authorization::Bearer { secret });
        }
        let Some(token_url) = self.oauth_token_url.clone() else {
            return Ok(Authorization::None);
        };
        let client_id = self.client_id.clone().unwrap_or_default();
        match (&self.oauth_device_url, &self.client_secret_env) {
            (Some(device_url), _) => Ok(Authorization::Device {
                device_url: device_url.clone(),
                token_url,
                client_id,
                scope: self.scope.clone(),
            }),
            (None, Some(variable)) => Ok(Authorization::ClientCredentials {
                token_url,
                client_id,
                secret: SecretPlace::environment(variable),
                scope: self.scope.clone(),
            }),
            (None, None) => anyhow::bail!(
                "a token server needs --client-secret-env for a station, or --oauth-device-url for a person"
            ),
        }
    }
}
