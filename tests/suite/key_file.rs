//! Keys under the system's keyring: a real secret service in a session of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

use crate::cli::Place;

/// Runs lines of a shell in a session with an unlocked keyring of its own; `N` is the program. `None`,
/// by name, where the session's parts are not installed.
pub fn in_session(place: &Place, script: &str) -> Option<String> {
    for part in ["dbus-run-session", "gnome-keyring-daemon", "secret-tool"] {
        if Command::new(part).arg("--version").output().is_err() {
            println!("skipped: {part} is not installed");
            return None;
        }
    }
    let session = place.path("session");
    if !session.exists() {
        fs::DirBuilder::new().mode(0o700).create(&session).unwrap();
    }
    let unlock =
        "printf 'pw\\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1";
    let mut command = Command::new("dbus-run-session");
    command
        .args(["--", "sh", "-c", &format!("{unlock}\n{script}")])
        .current_dir(place.path(""))
        .env("NEGATOSCOPE_HOME", place.path("home"))
        .env("N", env!("CARGO_BIN_EXE_negatoscope"))
        .env("HOME", &session)
        .env("XDG_DATA_HOME", session.join("share"))
        .env("XDG_RUNTIME_DIR", &session)
        .env_remove("NEGATOSCOPE_KEYRING")
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn keys_move_into_the_keyring_and_back_and_what_they_sealed_stays_open() {
    let place = Place::new().with_study();
    place.run(&["info", "study"]).ends_with(0);
    let data = place.path("home/audit-keys/data");
    let plain = fs::read(&data).unwrap();
    let show = "$N audit show | wc -l; $N keys show; $N audit verify | grep keys";
    let Some(said) = in_session(&place, &format!("$N keys keep --in keyring; {show}")) else {
        return;
    };
    assert!(said.contains("keys: in the system's keyring"), "{said}");
    let wrapped = fs::read(&data).unwrap();
    assert!(
        wrapped.starts_with(b"NWRAP1\n") && wrapped != plain,
        "{said}"
    );
    // Without the keyring the log is whole and stays closed, and says what is missing.
    let closed = place
        .command(&["info", "study"])
        .env("NEGATOSCOPE_KEYRING", "off")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&closed.stderr);
    assert!(
        !closed.status.success() && words.contains("NEGATOSCOPE_KEYRING=off"),
        "{words}"
    );
    place.run(&["audit", "verify"]).ends_with(0);
    // And back: the very same key.
    let said = in_session(&place, "$N keys keep --in files; $N keys show").unwrap();
    assert!(said.contains("keys: in private files"), "{said}");
    assert_eq!(fs::read(&data).unwrap(), plain);
    place.run(&["info", "study"]).ends_with(0);
}

#[test]
fn a_master_key_that_vanished_is_named_with_the_way_out() {
    let place = Place::new().with_study();
    let Some(said) = in_session(
        &place,
        "$N keys keep --in keyring; $N info study >/dev/null; \
         secret-tool clear service negatoscope username master-key; \
         $N info study; echo ended $?; $N keys give-up; $N info study >/dev/null; echo ended $?",
    ) else {
        return;
    };
    assert!(said.contains("negatoscope keys give-up"), "{said}");
    assert!(
        said.contains("ended 1") && said.contains("ended 0"),
        "{said}"
    );
    place.run(&["audit", "verify"]).ends_with(0);
    let aside = fs::read_dir(place.path("home/audit-keys")).unwrap();
    let names: Vec<String> = aside
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("data.lost-")),
        "{names:?}"
    );
}

#[test]
fn an_endpoints_secret_is_kept_by_name_and_in_no_file() {
    let place = Place::new();
    let Some(said) = in_session(
        &place,
        "echo t0ken-t0ken | $N keys store clinic; secret-tool lookup service negatoscope username 'endpoint clinic'; \
         $N endpoints add far --url https://127.0.0.1:9 --token-keyring clinic; $N keys forget clinic; \
         $N keys forget clinic",
    ) else {
        return;
    };
    assert!(said.contains("t0ken-t0ken"), "{said}");
    assert!(said.contains("has no entry \"clinic\""), "{said}");
    let profiles = fs::read_to_string(place.path("home/endpoints.toml")).unwrap();
    assert!(
        profiles.contains("clinic") && !profiles.contains("t0ken"),
        "{profiles}"
    );
}
