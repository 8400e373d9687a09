//! AWS Signature Version 4: what says at a SageMaker endpoint who asks.
//!
//! # Source
//! AWS General Reference, "Signature Version 4 signing process": canonical request, string to sign,
//! derived key.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

use crate::redact::Sensitive;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs.
pub(super) struct Credentials {
    pub(super) access_key: Sensitive<String>,
    pub(super) secret_key: Sensitive<String>,
}

/// For which service a signature holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// As it goes over the line, encoded once.
    pub(super) path: &'a str,
    /// Sorted and encoded.
    pub(super) query: &'a str,
    /// Small names in order, `host` and `x-amz-date` among them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body in hex.
    pub(super) body: &'a str,
}

/// The header `Authorization`. `time`: as in `x-amz-date`, `20150830T123600Z`.
pub(super) fn authorization(
    who: &Credentials,
    scope: Scope<'_>,
    request: Signed<'_>,
    time: &str,
) -> String {
    let day = time.split('T').next().unwrap_or_default();
    let place = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let canonical = canonical(request, &names);
    let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{time}\n{place}\n{hash}");
    let key = format!("AWS4{}", who.secret_key.expose());
    let steps = [day, scope.region, scope.service, "aws4_request", &text];
    let signature = steps.iter().fold(key.into_bytes(), |key, step| {
        let key = Key::new(HMAC_SHA256, &key);
        sign(&key, step.as_bytes()).as_ref().to_vec()
    });
    format!(
        "{ALGORITHM} Credential={}/{place}, SignedHeaders={names}, Signature={}",
        who.access_key.expose(),
        hex(&signature)
    )
}

fn canonical(request: Signed<'_>, names: &str) -> String {
    let mut headers = String::new();
    for (name, value) in request.headers {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let _ = writeln!(headers, "{name}:{}", words.join(" "));
    }
    let Signed {
        method,
        query,
        body,
        ..
    } = request;
    let path = encoded(request.path);
    format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{body}")
}

/// A path encoded again: all services but S3 sign it so.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// SHA-256 of all that a reader gives, in hex.
pub(super) fn hash_of(mut from: impl std::io::Read) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; 1 << 16];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&piece[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "20150830T123600Z";

    fn signature(scope: Scope<'_>, request: Signed<'_>) -> String {
        // The key of AWS's published examples.
        let who = Credentials {
            access_key: "AKIDEXAMPLE".to_owned().into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned().into(),
        };
        let header = authorization(&who, scope, request, TIME);
        let (before, signature) = header.split_once("Signature=").unwrap();
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            before,
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/{}/{}/aws4_request, SignedHeaders={}, ",
                scope.region,
                scope.service,
                names.join(";")
            )
        );
        signature.to_owned()
    }

    /// AWS's Signature Version 4 test suite, and the example of its documentation.
    #[test]
    fn signatures_are_those_that_aws_has_published() {
        let suite = Scope {
            region: "us-east-1",
            service: "service",
        };
        let host = ("host", "example.amazonaws.com");
        let date = ("x-amz-date", TIME);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let check = |method, headers: &[(&str, &str)], body: &[u8], expected: &str| {
            let body = hash_of(body).unwrap();
            let request = Signed {
                method,
                path: "/",
                query: "",
                headers,
                body: &body,
            };
            assert_eq!(signature(suite, request), expected);
        };
        // get-vanilla, post-vanilla, post-header-value-case, post-x-www-form-urlencoded
        check(
            "GET",
            &[host, date],
            b"",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        );
        check(
            "POST",
            &[host, date],
            b"",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        );
        check(
            "POST",
            &[host, ("my-header1", "VALUE1"), date],
            b"",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        );
        check(
            "POST",
            &[form, host, date],
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        );
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let body = hash_of(&b""[..]).unwrap();
        let documented = Signed {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", kind),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", TIME),
            ],
            body: &body,
        };
        let scope = Scope {
            region: "us-east-1",
            service: "iam",
        };
        assert_eq!(
            signature(scope, documented),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// Requests of the form that the client sends, signed by botocore 1.44.5 (`SigV4Auth`, its clock
    /// set to `TIME`).
    #[test]
    fn signatures_are_those_of_another_implementation() {
        let scope = Scope {
            region: "eu-central-1",
            service: "sagemaker",
        };
        let host = ("host", "runtime.sagemaker.eu-central-1.amazonaws.com");
        let date = ("x-amz-date", TIME);
        let triton = "application/vnd.sagemaker-triton.binary+json;json-header-size=10";
        let check = |path, headers: &[(&str, &str)], body: &[u8], expected: &str| {
            let body = hash_of(body).unwrap();
            let request = Signed {
                method: "POST",
                path,
                query: "",
                headers,
                body: &body,
            };
            assert_eq!(signature(scope, request), expected);
        };
        check(
            "/endpoints/liver-ct/invocations",
            &[("content-type", "application/json"), host, date],
            b"{\"id\":\"1\"}",
            "84d2bd2d2f6a851cfcb574b56799e3f9d4786d1ea0836307d6c364e4ba6b800a",
        );
        check(
            "/endpoints/liver-ct/invocations",
            &[
                ("content-type", triton),
                host,
                date,
                ("x-amz-security-token", "TOKEN/with+signs=="),
            ],
            b"{\"id\":\"1\"}\x00\x01\xff",
            "72c27dcdac1ec2fe1bb222b059b37c018091bf28863a36dd1a20a18deba4bdf7",
        );
        // A path that is encoded, a port, blanks in a value.
        check(
            "/a%20b/c",
            &[
                ("content-type", "a   b  c"),
                ("host", "localhost:8443"),
                date,
            ],
            b"",
            "0569250554eb95688f0a4d9c271dff235106e52b122f699b8458033d85a207d1",
        );
    }
}
