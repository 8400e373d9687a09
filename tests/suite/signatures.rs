//! Who vouches for a model: signatures, publishers, versions that go back only when asked.

use std::path::{Path, PathBuf};

use negatoscope::model::{
    Error, Origin, PackageFiles, Registry, SIGNATURE_FILE, VerifiedPackage, new_key, sign,
};

/// The bundled model under another id and version, not signed.
fn files(version: &str) -> PackageFiles {
    let registry = Registry::new("no models".into());
    let original = registry.load("hippocampus-mini").unwrap();
    let mut manifest = original.manifest().clone();
    "copy".clone_into(&mut manifest.id);
    version.clone_into(&mut manifest.version);
    PackageFiles {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        weights: original.files().weights.clone(),
        card: original.files().card.clone(),
        signature: None,
        path: PathBuf::from(format!("copy {version}")),
    }
}

fn signed(version: &str, key: &Path) -> PackageFiles {
    let mut files = files(version);
    let signature = sign(&files, "The makers", key).unwrap();
    files.signature = Some(serde_json::to_vec(&signature).unwrap());
    files
}

fn verified(files: PackageFiles) -> VerifiedPackage {
    VerifiedPackage::verify(files).unwrap()
}

fn origin(registry: &Registry) -> Origin {
    registry.find("copy").unwrap().origin
}

/// The first test vector of RFC 8032, section 7.1: other implementations agree with ours.
#[test]
fn ed25519_is_that_of_the_rfc() {
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let proof = bytes(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    );
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    assert_eq!(pair.public_key().as_ref(), public);
    assert_eq!(pair.sign(b"").as_ref(), proof);
    UnparsedPublicKey::new(&ED25519, public)
        .verify(b"", &proof)
        .unwrap();
}

#[test]
fn a_signed_model_is_known_once_its_publisher_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let public = new_key(&key).unwrap();
    assert!(new_key(&key).is_err(), "a key is never replaced");
    let registry = Registry::new(folder.path().join("models"));

    registry.install(&verified(files("1.0.0")), false).unwrap();
    assert_eq!(origin(&registry).words(), "unsigned");
    registry
        .install(&verified(signed("1.0.0", &key)), false)
        .unwrap();
    assert_eq!(
        origin(&registry).words(),
        "signed by an unknown publisher that calls itself \"The makers\""
    );
    registry
        .publishers()
        .trust("Makers", &public.to_uppercase())
        .unwrap();
    assert_eq!(origin(&registry).words(), "signed by Makers");
    assert_eq!(origin(&registry).public_key(), Some(public.as_str()));
    assert!(registry.publishers().forget("Makers").unwrap());
    assert!(!registry.publishers().forget("Makers").unwrap());
    assert!(matches!(origin(&registry), Origin::UnknownPublisher(_)));
    assert!(registry.publishers().trust("Nobody", "12").is_err());
}

#[test]
fn any_change_after_signing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    new_key(&key).unwrap();
    let good = signed("1.0.0", &key);
    verified(good.clone());

    let refused = |files: PackageFiles| match VerifiedPackage::verify(files) {
        Err(Error::Signature { .. }) => {}
        other => panic!("{other:?}"),
    };
    let mut changed = good.clone();
    // A byte that leaves the manifest readable.
    changed.manifest.push(b' ');
    refused(changed);
    let mut changed = good.clone();
    changed.card.as_mut().unwrap().push(b'!');
    refused(changed);
    let mut changed = good.clone();
    changed.card = None;
    refused(changed);
    // A signature of another version, another name, no signature at all.
    let mut changed = files("2.0.0");
    changed.signature.clone_from(&good.signature);
    refused(changed);
    let text = String::from_utf8(good.signature.clone().unwrap()).unwrap();
    for other in [
        text.replace("The makers", "The others"),
        text.replacen('a', "b", 1),
        text.replace("public_key", "key"),
        "{}".to_owned(),
        String::new(),
    ] {
        let mut changed = good.clone();
        changed.signature = Some(other.into_bytes());
        refused(changed);
    }
}

#[test]
fn an_installed_signature_is_checked_at_every_load() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    new_key(&key).unwrap();
    let registry = Registry::new(folder.path().join("models"));
    let place = registry
        .install(&verified(signed("1.0.0", &key)), false)
        .unwrap();
    registry.load("copy").unwrap();
    let manifest = place.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(
        &manifest,
        text.replace("Not for diagnosis", "For diagnosis"),
    )
    .unwrap();
    assert!(registry.load("copy@1.0.0").is_err());
    assert!(
        registry
            .verify_all()
            .iter()
            .any(|(_, check)| check.is_err())
    );
    // Taking the signature away does not help: the model was a signed one.
    std::fs::remove_file(place.join(SIGNATURE_FILE)).unwrap();
    match registry.load("copy") {
        Err(Error::OtherPublisher { now, .. }) => assert_eq!(now, "unsigned"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signed_model_stays_with_its_publisher_and_goes_back_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    new_key(&ours).unwrap();
    new_key(&theirs).unwrap();
    let registry = Registry::new(folder.path().join("models"));
    let install = |files: PackageFiles, older| registry.install(&verified(files), older);
    install(signed("1.2.0", &ours), false).unwrap();
    for other in [files("1.3.0"), signed("1.3.0", &theirs)] {
        match install(other, true) {
            Err(Error::OtherPublisher { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    install(signed("1.10.0", &ours), false).unwrap();
    registry.remove("copy@1.10.0").unwrap();
    // The machine has seen 1.10.0: an attacker cannot bring an older one back as new.
    match install(signed("1.9.0", &ours), false) {
        Err(Error::Older { highest, .. }) => assert_eq!(highest, "1.10.0"),
        other => panic!("{other:?}"),
    }
    install(signed("1.9.0", &ours), true).unwrap();
    // Whoever removes all of a model may install it anew from anywhere.
    registry.remove("copy@1.9.0").unwrap();
    registry.remove("copy").unwrap();
    install(files("1.0.0"), false).unwrap();
}

#[test]
fn a_pinned_version_is_used_until_it_is_unpinned() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path().to_owned());
    for version in ["1.0.0", "1.2.0", "1.10.0"] {
        registry.install(&verified(files(version)), false).unwrap();
    }
    let used = || registry.find("copy").unwrap().manifest.version;
    assert_eq!(used(), "1.10.0");
    assert_eq!(registry.roll_back("copy").unwrap(), "copy@1.2.0");
    assert_eq!(registry.roll_back("copy").unwrap(), "copy@1.0.0");
    assert!(matches!(
        registry.roll_back("copy"),
        Err(Error::NothingBefore(_))
    ));
    assert_eq!(used(), "1.0.0");
    assert_eq!(
        registry.find("copy@1.10.0").unwrap().manifest.version,
        "1.10.0"
    );
    assert_eq!(registry.unpin("copy").unwrap(), "copy@1.10.0");
    registry.pin("copy@1.2.0").unwrap();
    assert_eq!(used(), "1.2.0");
    registry.remove("copy@1.2.0").unwrap();
    assert_eq!(used(), "1.10.0");
}
