//! Training and evaluation: from recipes and folders to packages with figures, kills on the way,
//! and data that cannot be used.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use negatoscope::model::{PackageFiles, VerifiedPackage};
use negatoscope::task::Task;
use negatoscope::training::data::Split;
use negatoscope::training::{
    CHECKPOINT, Error, Picture, Recipe, State, Told, Trained, data, leaks, train,
};
use serde_json::Value;

pub const WORDS: &str = r#"
[model]
id = "shapes"
name = "Shapes"
license = "MIT"
intended_use = "Tests"
training_data = "Made in code"
modality = "OT"
"#;

pub fn classes_recipe(more: &str) -> String {
    format!(
        r#"seed = 3
{WORDS}
[data]
layout = "labels"
classes = ["disk", "ring"]
size = [16, 16]
validation = 0.25
[network]
kind = "residual-cnn"
widths = [8, 16]
dropout = 0.1
[augmentation]
flip = [2]
rotate_degrees = 10.0
noise = 0.1
[training]
epochs = 6
batch = 8
learning_rate = 1e-2
average = 0.9
weight_decay = 0.01
warm_up = 0.5
{more}
"#
    )
}

fn masks_recipe(axes: usize) -> String {
    let size = vec![16; axes];
    format!(
        r#"seed = 5
{WORDS}
[data]
layout = "masks"
classes = ["ball"]
size = {size:?}
validation = 0.25
[network]
kind = "unet"
widths = [8, 16]
[loss]
kind = "dice-cross-entropy"
[training]
epochs = 5
steps = 8
batch = 4
learning_rate = 1e-2
clip = 5.0
"#
    )
}

pub fn png(path: &Path, [ny, nx]: [usize; 2], bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, nx as u32, ny as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(bytes).unwrap();
}

/// Something round at a place of its own, and where it is.
pub fn shape(n: usize, edge: usize, ring: bool) -> (Vec<u8>, Vec<u8>) {
    let at = |seed: usize| 0.4 + 0.2 * ((n * seed) % 11) as f64 / 10.0;
    let (cy, cx) = (at(3) * edge as f64, at(7) * edge as f64);
    let (mut image, mut mask) = (Vec::new(), Vec::new());
    for p in 0..edge * edge {
        let (y, x) = ((p / edge) as f64, (p % edge) as f64);
        let r = ((y - cy).powi(2) + (x - cx).powi(2)).sqrt() / edge as f64;
        let inside = r < 0.3 && !(ring && r < 0.15);
        let noise = (p * 7919 + n * 104_729) % 41;
        image.push((60 + 100 * usize::from(inside) + noise) as u8);
        mask.push(u8::from(inside));
    }
    (image, mask)
}

/// 48 images of 24 × 24 of 24 patients, and their labels.
pub fn class_folder(folder: &Path) {
    let mut csv = "file,label,patient\n".to_owned();
    for n in 0..48 {
        let (image, _) = shape(n, 24, n % 2 == 1);
        png(&folder.join(format!("images/{n}.png")), [24, 24], &image);
        writeln!(csv, "images/{n}.png,{},p{}", n % 2, n / 2).unwrap();
    }
    fs::write(folder.join("labels.csv"), csv).unwrap();
}

fn mask_folder(folder: &Path) {
    for n in 0..24 {
        let (image, mask) = shape(n, 24, false);
        png(&folder.join(format!("images/{n}.png")), [24, 24], &image);
        let mask: Vec<u8> = mask.iter().map(|m| m * 255).collect();
        png(&folder.join(format!("masks/{n}.png")), [24, 24], &mask);
    }
}

pub fn split_of(recipe: &Recipe, folder: &Path) -> Result<Split, Error> {
    let samples = data::load(&recipe.data, folder, &["train", "val"], &Picture::read)?;
    data::split(&recipe.data, folder, samples, recipe.seed)
}

pub fn run(
    recipe: &Recipe,
    split: &Split,
    out: &Path,
    resume: bool,
    stop_after: Option<u64>,
) -> Result<Trained, Error> {
    let task = Task::new();
    let mut done = 0;
    let mut tell = |told: Told| {
        if let Told::Step { .. } = told {
            done += 1;
            if Some(done) == stop_after {
                task.cancel();
            }
        }
    };
    train(recipe, split, out, resume, &mut tell, &task)
}

pub fn bits(trained: &Trained) -> Vec<u32> {
    trained
        .parameters
        .values
        .iter()
        .map(|v| v.to_bits())
        .collect()
}

#[test]
fn shapes_are_learned_and_a_stopped_run_ends_as_if_it_had_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    class_folder(folder.path());
    let text = classes_recipe("checkpoint_steps = 3");
    let recipe = Recipe::parse(&text).unwrap();
    let split = split_of(&recipe, folder.path()).unwrap();
    assert_eq!((split.training.len(), split.validation.len()), (36, 12));
    let whole = tempfile::tempdir().unwrap();
    let want = run(&recipe, &split, whole.path(), false, None).unwrap();
    assert!(want.best.1 > 0.95, "AUC {}", want.best.1);
    // The same again gives the same, bit by bit.
    let again = tempfile::tempdir().unwrap();
    let other = run(&recipe, &split, again.path(), false, None).unwrap();
    assert_eq!(bits(&want), bits(&other));
    // Stopped between checkpoints, in the first epoch and later, then once more.
    let stopped = tempfile::tempdir().unwrap();
    for (resume, after) in [(false, 5), (true, 7), (true, 1)] {
        let ended = run(&recipe, &split, stopped.path(), resume, Some(after));
        assert!(matches!(ended, Err(Error::Cancelled(_))));
    }
    let got = run(&recipe, &split, stopped.path(), true, None).unwrap();
    assert_eq!(bits(&want), bits(&got));
    assert_eq!(want.history, got.history);
    // Another recipe does not go on from it.
    let mut other = recipe.clone();
    other.training.learning_rate *= 2.0;
    let refused = run(&other, &split, stopped.path(), true, None).unwrap_err();
    assert!(refused.to_string().contains("another run"), "{refused}");
    // Nor does a damaged file.
    let path = stopped.path().join(CHECKPOINT);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = run(&recipe, &split, stopped.path(), true, None).unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
}

#[test]
fn a_loss_that_is_no_number_stops_and_keeps_the_last_state() {
    let folder = tempfile::tempdir().unwrap();
    class_folder(folder.path());
    let recipe = Recipe::parse(&classes_recipe("checkpoint_steps = 1")).unwrap();
    let split = split_of(&recipe, folder.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut wild = recipe.clone();
    wild.training.learning_rate = 1e30;
    let error = run(&wild, &split, out.path(), false, None).unwrap_err();
    let Error::Diverged { step, .. } = &error else {
        panic!("{error}");
    };
    assert!(*step > 0 && error.to_string().contains("learning rate"));
    assert!(out.path().join(CHECKPOINT).is_file());
    // A checkpoint that cannot be written is told, with the file.
    let file = out.path().join("no folder");
    fs::write(&file, "x").unwrap();
    let error = run(&recipe, &split, &file, false, None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                action: "written",
                ..
            }
        ),
        "{error}"
    );
    assert!(State::read(&out.path().join(CHECKPOINT), "x").is_err());
}

#[test]
fn data_that_cannot_be_used_are_named() {
    let check = |spoil: &dyn Fn(&Path), words: &str| {
        let folder = tempfile::tempdir().unwrap();
        class_folder(folder.path());
        spoil(folder.path());
        let mut recipe = Recipe::parse(&classes_recipe("")).unwrap();
        recipe.data.patient_column = Some("patient".to_owned());
        recipe.data.split_column = fs::read_to_string(folder.path().join("labels.csv"))
            .unwrap_or_default()
            .contains("split")
            .then(|| "split".to_owned());
        let error = split_of(&recipe, folder.path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let edit = |folder: &Path, change: &dyn Fn(&str) -> String| {
        let path = folder.join("labels.csv");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&text)).unwrap();
    };
    check(
        &|f| fs::remove_file(f.join("images/7.png")).unwrap(),
        "1 of 48 files that the labels name are missing",
    );
    check(&|f| edit(f, &|t| t.replace(",1,", ",0,")), "only one class");
    check(&|f| edit(f, &|t| t.replace("label", "truth")), "no column");
    check(
        &|f| edit(f, &|t| t.replace("9.png,1", "9.png,cat")),
        "the label \"cat\"",
    );
    check(
        &|f| edit(f, &|t| t.replace("images/3", "../3")),
        "outside of the folder",
    );
    check(
        &|f| fs::write(f.join("images/5.png"), "no image").unwrap(),
        "neither PNG, JPEG nor NIfTI",
    );
    check(
        &|f| {
            let whole = fs::read(f.join("images/5.png")).unwrap();
            fs::write(f.join("images/5.png"), &whole[..whole.len() / 2]).unwrap();
        },
        "cannot be read",
    );
    check(
        &|f| {
            edit(f, &|t| {
                let rows = t.lines().enumerate().map(|(n, row)| match n {
                    0 => format!("{row},split\n"),
                    n if n % 2 == 0 => format!("{row},train\n"),
                    _ => format!("{row},val\n"),
                });
                rows.collect()
            });
        },
        "patients are in training and validation",
    );
    check(
        &|f| fs::remove_file(f.join("labels.csv")).unwrap(),
        "cannot be read",
    );
}

#[test]
fn masks_that_do_not_fit_are_named() {
    let check = |axes: usize, spoil: &dyn Fn(&Path), words: &str| {
        let folder = tempfile::tempdir().unwrap();
        mask_folder(folder.path());
        spoil(folder.path());
        let recipe = Recipe::parse(&masks_recipe(axes)).unwrap();
        let error = split_of(&recipe, folder.path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(
        2,
        &|f| png(&f.join("masks/3.png"), [20, 24], &[0; 480]),
        "a mask of [1, 20, 24] for an image of [1, 24, 24]",
    );
    check(
        2,
        &|f| png(&f.join("masks/3.png"), [24, 24], &[7; 576]),
        "a mask with the value 7",
    );
    check(
        2,
        &|f| fs::remove_file(f.join("masks/3.png")).unwrap(),
        "no mask",
    );
    check(3, &|_| {}, "for a network on 3 axes");
    check(
        2,
        &|f| fs::remove_dir_all(f.join("masks")).unwrap(),
        "no folders images and masks",
    );
}

#[test]
fn recipes_with_mistakes_are_refused() {
    let check = |from: &str, to: &str, words: &str| {
        let text = classes_recipe("").replace(from, to);
        let error = Recipe::parse(&text).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    check(
        "epochs = 6",
        "epochs = 6\nepocs = 7",
        "unknown field `epocs`",
    );
    check("dropout = 0.1", "drop = 0.1", "unknown field `drop`");
    check("epochs = 6", "epochs = 0", "above zero");
    check("size = [16, 16]", "size = [16]", "2 or 3 axes");
    check(
        "\"residual-cnn\"",
        "\"unet\"",
        "masks need a network for segmentation",
    );
    check("average = 0.9", "average = 1.0", "expected 0 to below 1");
    let path = format!(
        "{}/assets/recipes/pneumonia-quick.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    Recipe::read(Path::new(&path)).unwrap();
}

fn negatoscope(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_negatoscope"));
    command.arg("--home").arg(home).args(arguments);
    command
}

fn json_of(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_killed_training_goes_on_and_its_package_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    class_folder(&place("data"));
    let recipe = classes_recipe("checkpoint_steps = 1").replace("epochs = 6", "epochs = 40");
    fs::write(place("recipe.toml"), recipe).unwrap();
    let train = |out: &str, more: &[&str]| {
        let (recipe, data, out) = (place("recipe.toml"), place("data"), place(out));
        let arguments = [
            "train",
            text_of(&recipe),
            "--data",
            text_of(&data),
            "--out",
            text_of(&out),
            "--json",
        ];
        let mut command = negatoscope(&place("home"), &arguments);
        command.args(more);
        command
    };
    // Killed as soon as there is something on disk, and once more.
    for more in [&[][..], &["--resume"]] {
        let mut child = train("killed", more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !place("killed").join(CHECKPOINT).exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(60));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let got = json_of(train("killed", &["--resume"]));
    let want = json_of(train("whole", &[]));
    assert_eq!(got["weights_sha256"], want["weights_sha256"]);
    assert_eq!(got["history"], want["history"]);
    // Not over an older run.
    let refused = train("whole", &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume"));
    // The package stands by itself, with its card.
    let package = place("whole/package");
    VerifiedPackage::verify(PackageFiles::read(&package).unwrap()).unwrap();
    let card = fs::read_to_string(package.join("MODEL_CARD.md")).unwrap();
    for words in [
        "must not be used for",
        "| AUC |",
        "Calibration",
        "```toml",
        "| training | 36 |",
    ] {
        assert!(card.contains(words), "{words} in {card}");
    }
    assert!(!card.contains(text_of(folder.path())), "no paths in {card}");
    // Measured on all images: the figures are those of its cases.
    let data = place("data");
    let arguments = [
        "evaluate",
        "--model",
        text_of(&package),
        "--data",
        text_of(&data),
        "--json",
    ];
    let found = json_of(negatoscope(&place("home"), &arguments));
    assert_eq!(found["n"], 48);
    let cases = found["cases"].as_array().unwrap();
    let threshold = found["threshold"].as_f64().unwrap();
    let right = cases
        .iter()
        .filter(|c| (c["score"].as_f64().unwrap() >= threshold) == (c["label"] == 1))
        .count();
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert!((accuracy - right as f64 / 48.0).abs() < 1e-12 && accuracy > 0.9);
    let [low, high] = [0, 1].map(|n| found["auc_ci95"][n].as_f64().unwrap());
    let auc = found["auc"].as_f64().unwrap();
    assert!(
        low <= auc && auc <= high && auc > 0.95,
        "{low} {auc} {high}"
    );
    for key in ["sensitivity", "specificity", "ece"] {
        assert!((0.0..=1.0).contains(&found[key].as_f64().unwrap()), "{key}");
    }
}

/// `train` of a folder's recipe on its data, into `out`; the report comes back.
fn train_below(folder: &Path, more: &[&str]) -> Value {
    let [recipe, data, out, home] = ["recipe.toml", "data", "out", "home"].map(|n| folder.join(n));
    let [recipe, data, out] = [&recipe, &data, &out].map(|p| text_of(p));
    let arguments = ["train", recipe, "--data", data, "--out", out, "--json"];
    json_of(negatoscope(&home, &[&arguments[..], more].concat()))
}

#[test]
fn cross_validation_measures_every_patient_once_by_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    class_folder(&place("data"));
    let text = classes_recipe("").replace("validation = 0.25", "folds = 3");
    let text = text.replace("[network]", "patient_column = \"patient\"\n[network]");
    fs::write(place("recipe.toml"), &text).unwrap();
    let recipe = Recipe::parse(&text).unwrap();
    let samples = data::load(&recipe.data, &place("data"), &["train"], &Picture::read).unwrap();
    let mut measured = Vec::new();
    for split in data::folds(&place("data"), &samples, 3, recipe.seed).unwrap() {
        let patients = |side: &[data::Sample]| -> Vec<String> {
            side.iter().map(|s| s.patient.clone()).collect()
        };
        let (learned, held) = (patients(&split.training), patients(&split.validation));
        assert!(held.iter().all(|p| !learned.contains(p)), "{held:?}");
        assert_eq!(learned.len() + held.len(), 48);
        measured.extend(split.validation.into_iter().map(|s| s.name));
    }
    measured.sort();
    measured.dedup();
    assert_eq!(measured.len(), 48);

    let trained = train_below(folder.path(), &[]);
    assert_eq!(trained["validation"]["n"], 48);
    assert_eq!(trained["training_images"], 48);
    let folds = trained["folds"].as_array().unwrap();
    assert_eq!(folds.len(), 3);
    assert!(trained["validation"]["auc"].as_f64().unwrap() > 0.9);
    let card = fs::read_to_string(place("out/package/MODEL_CARD.md")).unwrap();
    assert!(card.contains("3 folds, split by patient") && card.contains("| training | 48 | 24 |"));
    // A kill between the folds loses none: what is done is not done again.
    let stamp = |n: usize| {
        let path = place("out").join(format!("fold-{n}")).join(CHECKPOINT);
        fs::metadata(path).unwrap().modified().unwrap()
    };
    let before = stamp(1);
    fs::remove_dir_all(place("out/fold-3")).unwrap();
    let again = train_below(folder.path(), &["--resume"]);
    assert_eq!(stamp(1), before);
    assert_eq!(again["weights_sha256"], trained["weights_sha256"]);
    assert_eq!(again["validation"], trained["validation"]);
}

#[test]
fn balls_are_segmented_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    mask_folder(&place("data"));
    let plain = masks_recipe(2) + "[augmentation]\nflip = [2]\n";
    fs::write(place("recipe.toml"), &plain).unwrap();
    let trained = train_below(folder.path(), &[]);
    // What a run does beside the network changes the package alone: the checkpoint stays valid.
    let more = plain.clone() + "[inference]\nmirror = true\nlargest_component = true\n";
    fs::write(place("recipe.toml"), more).unwrap();
    let mirrored = train_below(folder.path(), &["--resume"]);
    assert_eq!(mirrored["weights_sha256"], trained["weights_sha256"]);
    let text = fs::read(place("out/package/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest["output"]["largest_component"], true);
    assert_eq!(
        manifest["procedure"]["windows"]["mirror_axes"],
        serde_json::json!([1])
    );
    fs::write(place("recipe.toml"), plain).unwrap();
    train_below(folder.path(), &["--resume"]);
    let dice = |value: &Value| value["dice"]["ball"]["mean"].as_f64().unwrap();
    assert!(
        dice(&trained["validation"]) > 0.9,
        "{}",
        trained["validation"]
    );
    // Through the whole way of a run it is as good as in training.
    let in_training = trained["best_score"].as_f64().unwrap();
    assert!((dice(&trained["validation"]) - in_training).abs() < 0.02);
    let data = place("data");
    let package = place("out/package");
    let arguments = [
        "evaluate",
        "--model",
        text_of(&package),
        "--data",
        text_of(&data),
        "--json",
    ];
    let found = json_of(negatoscope(&place("home"), &arguments));
    assert_eq!(found["n"], 24);
    assert_eq!(found["cases"].as_array().unwrap().len(), 24);
    assert!(dice(&found) > 0.9);
    let hd95 = &found["hd95"]["ball"];
    assert!(hd95["mean"].as_f64().unwrap() < 3.0 && hd95["ci95"][1].is_number());
}

/// 28 × 28 radiographs of real children; in less than a minute on two cores.
#[test]
fn the_quick_recipe_learns_pneumonia() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let file = Path::new(&data).join("pneumoniamnist/pneumoniamnist_trainval.npz");
    let path = format!(
        "{}/assets/recipes/pneumonia-quick.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let recipe = Recipe::read(Path::new(&path)).unwrap();
    let mut split = split_of(&recipe, &file).unwrap();
    leaks::take_out(&mut split);
    let out = tempfile::tempdir().unwrap();
    let trained = run(&recipe, &split, out.path(), false, None).unwrap();
    println!("AUC {}", trained.best.1);
    assert!(trained.best.1 >= 0.93, "AUC {}", trained.best.1);
}
