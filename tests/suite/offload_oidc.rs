//! A real OAuth 2.0 server (oidc-provider): a station with a secret, and a person at a browser. Runs
//! where `NEGATOSCOPE_SERVERS` names the folder that `tests/servers/install.sh` has filled.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use negatoscope::offload::{Authorization, Client, Error, Profile, SecretPlace, Secrets};
use negatoscope::task::Task;

use crate::cli::Place;
use crate::key_file::in_session;
use crate::offload_started::{Started, get, installed, script};

const SECRET: &str = "s3cr3t:with&and%";

struct Tokens(Started);

impl Tokens {
    fn start() -> Option<Self> {
        let place = installed("oidc")?;
        let mut server = Started::new(|_, port| {
            let mut command = Command::new("node");
            let place = std::path::absolute(&place).unwrap();
            command.arg(script("oidc/server.mjs")).arg(place);
            command.arg(port.to_string());
            command
        });
        // It asks for a token, and so it is there.
        let profile = server.profile("tokens");
        server.wait_until(|| {
            let client = Client::new(&profile, Secrets::of_environment()).unwrap();
            matches!(
                client.metadata(&Task::new()),
                Err(Error::Status { status: 401, .. })
            )
        });
        Some(Self(server))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.0.port)
    }

    /// What the client believes in is worth nothing any more.
    fn withdraw_all(&self) {
        assert!(get(self.0.port, "/withdraw").starts_with("HTTP/1.1 200"));
    }

    fn station(&self, scope: &str) -> Profile {
        Profile {
            authorization: Authorization::ClientCredentials {
                token_url: self.url("token"),
                client_id: "station 7".to_owned(),
                secret: SecretPlace::environment("CLIENT_SECRET"),
                scope: scope.to_owned(),
            },
            ..self.0.profile("station")
        }
    }

    fn person(&self) -> Profile {
        Profile {
            authorization: Authorization::Device {
                device_url: self.url("device/auth"),
                token_url: self.url("token"),
                client_id: "viewer".to_owned(),
                scope: "infer".to_owned(),
            },
            ..self.0.profile("person")
        }
    }
}

/// A person who opens the page and types the code; what the last page says.
fn at_a_browser(url: &str, code: &str, answer: &str) -> String {
    let person = Command::new("node")
        .arg(script("oidc/person.mjs"))
        .args([url, code, answer])
        .output()
        .unwrap();
    assert!(person.status.success(), "{person:?}");
    String::from_utf8(person.stdout).unwrap()
}

fn client(profile: &Profile) -> Client {
    Client::new(profile, Secrets::given([("CLIENT_SECRET", SECRET)])).unwrap()
}

#[test]
fn a_station_has_tokens_from_a_real_server() {
    let Some(tokens) = Tokens::start() else {
        return;
    };
    let task = Task::new();
    let station = client(&tokens.station("infer"));
    assert_eq!(station.metadata(&task).unwrap().name, "station 7");
    // Withdrawn before its time: the next request has a new one.
    tokens.withdraw_all();
    assert_eq!(station.metadata(&task).unwrap().name, "station 7");

    // A token for something else opens nothing, and the client does not ask for ever.
    for scope in ["openid", "no-such-scope"] {
        let error = client(&tokens.station(scope)).metadata(&task).unwrap_err();
        assert!(
            matches!(error, Error::Status { status: 401, .. }),
            "{error}"
        );
    }
    // The server's code is told, and no secret.
    let wrong = Secrets::given([("CLIENT_SECRET", "an0ther-s3cr3t")]);
    let wrong = Client::new(&tokens.station("infer"), wrong).unwrap();
    let error = wrong.metadata(&task).unwrap_err().to_string();
    assert!(error.contains("invalid_client"), "{error}");
    assert!(!error.contains("s3cr3t"), "{error}");
}

#[test]
fn a_person_signs_in_at_a_real_server() {
    let Some(tokens) = Tokens::start() else {
        return;
    };
    let task = Task::new();
    let person = client(&tokens.person());
    let mut page = String::new();
    person
        .sign_in(
            |offered| {
                page = at_a_browser(&offered.verification_uri, &offered.user_code, "agrees");
            },
            &task,
        )
        .unwrap();
    assert!(page.contains("Success"), "{page}");
    let about = person.metadata(&task).unwrap();
    assert_eq!(
        (about.name.as_str(), about.version.as_str()),
        ("viewer", "doctor")
    );
    // This server gives a new refresh token with each access token, and takes each once.
    for _ in 0..2 {
        tokens.withdraw_all();
        assert_eq!(person.metadata(&task).unwrap().version, "doctor");
    }

    let other = client(&tokens.person());
    let error = other
        .sign_in(
            |offered| {
                at_a_browser(&offered.verification_uri, &offered.user_code, "refuses");
            },
            &task,
        )
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn the_program_signs_in_at_a_real_server() {
    let Some(tokens) = Tokens::start() else {
        return;
    };
    let place = Place::new().with_study();
    let model_url = tokens.url("");
    let (token_url, device_url) = (tokens.url("token"), tokens.url("device/auth"));
    let add = |name: &str, more: &[&str]| {
        let all = [
            "endpoints",
            "add",
            name,
            "--url",
            &model_url,
            "--allow-insecure-loopback",
            "--oauth-token-url",
            &token_url,
            "--scope",
            "infer",
        ];
        place.run(&[&all[..], more].concat()).ends_with(0);
    };
    add(
        "ward",
        &["--client-id", "station 7", "--client-secret-env", "SECRET"],
    );
    let ran = place
        .command(&["endpoints", "test", "ward"])
        .env("SECRET", SECRET)
        .output()
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && told.contains("station 7"), "{told}");

    add(
        "desk",
        &["--client-id", "viewer", "--oauth-device-url", &device_url],
    );
    let mut child = place
        .command(&["endpoints", "test", "desk"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let offer = lines.find(|line| line.starts_with("Open ")).unwrap();
    let (url, code) = offer["Open ".len()..].split_once(" and type ").unwrap();
    at_a_browser(url, code, "agrees");
    let ran = child.wait_with_output().unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success() && told.contains("viewer doctor"),
        "{told}"
    );
    // Nobody keeps the sign-in here: this program knows nobody, and says what to do.
    let asked = "analyze study --model hippocampus-mini --out o --remote desk --yes";
    let ran = place.run(&asked.split(' ').collect::<Vec<_>>());
    let words = ran.ends_with(1).err;
    assert!(words.contains("has to sign in first"), "{words}");
    // Neither a secret nor a token lies anywhere.
    for file in walkdir::WalkDir::new(place.path("home")) {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(6).any(|w| w == b"s3cr3t"));
    }
}

/// Through the system's keyring, which a session of its own has.
#[test]
fn a_sign_in_is_kept_in_the_keyring_and_goes_with_the_endpoint() {
    let Some(tokens) = Tokens::start() else {
        return;
    };
    let place = Place::new().with_study();
    let url = tokens.url("");
    let url = url.trim_end_matches('/');
    let ask =
        "$N analyze study --model hippocampus-mini --out o --remote desk --yes 2>&1 | tail -n 4";
    let person = script("oidc/person.mjs").display().to_string();
    let told = in_session(
        &place,
        &format!(
            "add() {{ $N endpoints add desk --url {url} --allow-insecure-loopback \
                 --oauth-token-url {url}/token --oauth-device-url {url}/device/auth \
                 --client-id viewer --scope infer; }}
             add; $N endpoints test desk >tested 2>offered & tested=$!
             for n in $(seq 600); do grep -q '^Open ' offered && break; sleep 0.1; done
             node {person} $(sed -n 's/^Open \\(.*\\) and type \\(.*\\)$/\\1 \\2/p' offered) agrees
             wait $tested; cat tested; echo '== first'; {ask}; echo '== second'; {ask}
             $N endpoints remove desk; add; echo '== anew'; {ask}"
        ),
    );
    let Some(told) = told else {
        return;
    };
    let after = |word: &str| told.split(word).nth(1).unwrap_or_default().to_owned();
    assert!(told.contains("viewer doctor"), "{told}");
    // Two programs later the server still knows who asks; each time the token is a newer one.
    let two = after("== first");
    assert_eq!(two.matches("no model for doctor").count(), 2, "{told}");
    assert!(after("== anew").contains("has to sign in first"), "{told}");
}
