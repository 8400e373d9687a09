//! The real program in a real window: started under Xvfb, driven by keys and mouse, looked at.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::window::study;

/// Ends the process with the test, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn has_tools() -> bool {
    let missing: Vec<&str> = ["Xvfb", "xdotool", "import"]
        .into_iter()
        .filter(|tool| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            !std::env::split_paths(&paths).any(|folder| folder.join(tool).is_file())
        })
        .collect();
    assert!(
        missing.is_empty() || std::env::var_os("REQUIRE_GPU").is_none(),
        "REQUIRE_GPU is set and {missing:?} are missing"
    );
    if !missing.is_empty() {
        println!("skipped: {missing:?} are missing");
    }
    missing.is_empty()
}

/// A display of its own; its number comes from the server.
fn display() -> (Running, String) {
    let mut server = Command::new("Xvfb")
        .args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            "1000x700x24",
            "-nolisten",
            "tcp",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = server.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    (Running(server), format!(":{}", line.trim()))
}

fn xdotool(display: &str, arguments: &[&str]) -> String {
    let done = Command::new("xdotool")
        .args(arguments)
        .env("DISPLAY", display)
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Pixels of the whole display as 8-bit gray, `[y][x]`, and its width.
fn picture(display: &str) -> (Vec<u8>, usize) {
    let done = Command::new("import")
        .args([
            "-window",
            "root",
            "-depth",
            "8",
            "-colorspace",
            "Gray",
            "pgm:-",
        ])
        .env("DISPLAY", display)
        .output()
        .unwrap();
    let bytes = done.stdout;
    // "P5 <width> <height> 255" and one white space, then the pixels.
    let mut at = 0;
    let mut words = Vec::new();
    while words.len() < 4 {
        let start = at
            + bytes[at..]
                .iter()
                .position(|b| !b.is_ascii_whitespace())
                .unwrap();
        at = start
            + bytes[start..]
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap();
        words.push(String::from_utf8_lossy(&bytes[start..at]).into_owned());
    }
    assert_eq!(words[0], "P5");
    let (width, height): (usize, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let pixels = bytes[at + 1..].to_vec();
    assert_eq!(pixels.len(), width * height);
    (pixels, width)
}

/// Looks until the display shows what is wanted; fails after a minute.
fn see(display: &str, what: &str, wanted: impl Fn(&[u8], usize) -> bool) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let (pixels, width) = picture(display);
        if wanted(&pixels, width) {
            return pixels;
        }
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "{what} was not seen"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Pixels of the large view's middle that are brighter than the window itself.
fn bright(pixels: &[u8], width: usize) -> usize {
    let rows = pixels.chunks(width).skip(250).take(200);
    rows.map(|row| row[300..500].iter().filter(|p| **p > 90).count())
        .sum()
}

fn changed(before: &[u8], after: &[u8], width: usize) -> usize {
    let part = |p: &[u8]| -> Vec<u8> {
        p.chunks(width)
            .skip(250)
            .take(200)
            .flat_map(|row| row[300..500].to_vec())
            .collect()
    };
    let (a, b) = (part(before), part(after));
    a.iter()
        .zip(&b)
        .filter(|(a, b)| a.abs_diff(**b) > 8)
        .count()
}

#[test]
fn the_program_shows_scrolls_and_windows_a_study() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let (_server, display) = display();
    let program = start(&path, folder.path(), &display);
    let pid = program.0.id().to_string();
    let first = see(&display, "the image", |p, w| bright(p, w) > 4000);
    let (_, width) = picture(&display);

    // The wheel over the large view scrolls.
    xdotool(&display, &["mousemove", "400", "350"]);
    for _ in 0..6 {
        xdotool(&display, &["click", "5"]);
    }
    let scrolled = see(&display, "another slice", |p, w| {
        changed(&first, p, w) > 400
    });

    // A drag to the right widens the window: bright pixels become darker.
    xdotool(&display, &["mousemove", "400", "350", "mousedown", "1"]);
    for x in (410..=560).step_by(10) {
        xdotool(&display, &["mousemove", &x.to_string(), "350"]);
    }
    xdotool(&display, &["mouseup", "1"]);
    see(&display, "a wider window", |p, w| {
        changed(&scrolled, p, w) > 4000
    });
    assert!(bright(&scrolled, width) > 0);

    // Ctrl+Q leaves, with a whole log behind it.
    let window = xdotool(&display, &["search", "--onlyvisible", "--pid", &pid]);
    let window = window.lines().last().unwrap_or_default().to_owned();
    xdotool(&display, &["windowfocus", &window]);
    xdotool(&display, &["key", "ctrl+q"]);
    let mut program = program;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it did not leave"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    let verdict = negatoscope::audit::verify(&folder.path().join("home")).unwrap();
    assert!(verdict.ok && verdict.records >= 1, "{verdict:?}");
}

fn start(path: &Path, home: &Path, display: &str) -> Running {
    let program = Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .arg(path)
        .env("DISPLAY", display)
        .env("NEGATOSCOPE_HOME", home.join("home"))
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(program)
}
