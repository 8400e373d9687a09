//! The log under several processes, killed ones among them, and on a full disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use negatoscope::audit::{Finding, Limits, Log, records, verify};

use super::audit::event;

/// Not a test by itself: the process that the tests below start, and kill.
#[test]
fn a_writer_until_it_is_killed() {
    let Some(home) = std::env::var_os("NEGATOSCOPE_AUDIT_WRITER") else {
        return;
    };
    let limits = Limits {
        segment_bytes: 20_000,
        checkpoint_every: 5,
    };
    let log = Log::open_with(Path::new(&home), limits).unwrap();
    let count: u64 = std::env::var("NEGATOSCOPE_AUDIT_COUNT")
        .unwrap()
        .parse()
        .unwrap();
    for n in 0..count {
        log.append(&event(n % 2)).unwrap();
    }
}

fn writer(home: &Path, count: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit_processes::a_writer_until_it_is_killed"])
        .env("NEGATOSCOPE_AUDIT_WRITER", home)
        .env("NEGATOSCOPE_AUDIT_COUNT", count.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_that_write_at_once_make_one_chain() {
    let home = tempfile::tempdir().unwrap();
    let mut both = [writer(home.path(), 40), writer(home.path(), 40)];
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!((verdict.records, verdict.last), (80, 80));
}

#[test]
fn a_process_killed_while_it_writes_leaves_a_log_that_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..6_u64 {
        let mut child = writer(home.path(), u64::MAX);
        // Killed somewhere after it has begun to write.
        let start = Instant::now();
        while verify(home.path()).map_or(0, |v| v.last) <= before {
            assert!(
                start.elapsed() < Duration::from_mins(2),
                "nothing is written"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_micros(3700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let killed = verify(home.path()).unwrap();
        assert!(killed.ok, "{killed:?}");
        Log::open(home.path()).unwrap().append(&event(1)).unwrap();
        let after = verify(home.path()).unwrap();
        assert!(after.ok, "{after:?}");
        assert!(!after.findings().contains(&Finding::TornTail), "{after:?}");
        assert!(after.last > killed.last, "{after:?}");
        before = after.last;
    }
    let mut last = 0;
    records(home.path(), |_, record| {
        let seq = record.unwrap().seq;
        assert_eq!(seq, last + 1);
        last = seq;
    })
    .unwrap();
}

/// A file system of 3 MiB that only a namespace of its own sees; `None` where the system does not allow that.
fn on_a_small_disk(place: &Path, script: &str) -> Option<String> {
    let allowed = Command::new("unshare")
        .args(["-r", "-m", "mount", "-t", "tmpfs", "-o", "size=3m", "none"])
        .arg(place)
        .output()
        .is_ok_and(|ran| ran.status.success());
    if !allowed {
        println!("skipped: no file system of one's own can be mounted here");
        return None;
    }
    let ran = Command::new("unshare")
        .args(["-r", "-m", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size=3m none '{}' && {script}",
            place.display()
        ))
        .env("PROGRAM", env!("CARGO_BIN_EXE_negatoscope"))
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Some(text)
}

#[test]
fn on_a_full_disk_the_act_is_refused_and_that_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let image: PathBuf = folder.path().join("image.nii");
    let out = folder.path().join("out.nii");
    {
        use negatoscope::geometry::{DVec3, VolumeGeometry};
        use negatoscope::volume::phantom::head_mr;
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        let grid = VolumeGeometry::from_axes([8, 8, 8], DVec3::ZERO, axes, [20.0; 3]).unwrap();
        negatoscope::nifti::write_volume(&image, &head_mr(1, grid).volume).unwrap();
    }
    let (image, out, d) = (image.display(), out.display(), disk.display());
    let script = format!(
        "export NEGATOSCOPE_HOME='{d}/home'; \
         \"$PROGRAM\" info '{image}' >/dev/null || exit 9; \
         dd if=/dev/zero of='{d}/filler' bs=4096 2>/dev/null; \
         for n in 1 2 3 4 5 6 7 8; do \"$PROGRAM\" info '{image}' >/dev/null 2>&1 || break; done; \
         \"$PROGRAM\" convert '{image}' --out '{out}' 2>/dev/null; echo refused $?; \
         test -e '{out}' && echo written; \
         rm '{d}/filler'; \
         \"$PROGRAM\" convert '{image}' --out '{out}' 2>/dev/null; echo then $?; \
         test -e '{out}' && echo written; \
         \"$PROGRAM\" audit verify; echo verdict $?; \
         \"$PROGRAM\" audit show --json; exit 0"
    );
    let Some(said) = on_a_small_disk(&disk, &script) else {
        return;
    };
    let at = |word: &str| {
        said.find(word)
            .unwrap_or_else(|| panic!("{word} in {said}"))
    };
    assert!(
        at("refused 1") < at("then 0") && at("then 0") < at("written"),
        "{said}"
    );
    assert_eq!(said.matches("written\n").count(), 1, "{said}");
    assert!(said.contains("verdict 0"), "{said}");
    assert!(said.contains("the disk was full at record"), "{said}");
    assert!(said.contains("alert:disk-full"), "{said}");
}
