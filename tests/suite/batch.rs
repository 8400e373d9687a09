//! Batches on an engine without a real model: what is run, kept, listed, stopped and resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use negatoscope::audit::{self, EventId, Log, Outcome};
use negatoscope::batch::{
    Engine, Failure, ItemSource, ModelIdentity, Plan, Row, Status, Summary, run, run_spread,
};
use negatoscope::export::{Format, MapPicture};
use negatoscope::findings::{Assessment, Segmentation};
use negatoscope::study::{
    FileSource, Instance, Patient, Series, Skipped, Stack, Study, Uid, Worklist,
};
use negatoscope::task::{Cancelled, Task};
use negatoscope::volume::{SourceSeries, Volume};

use crate::seg_export::{now, segmentation, stacks, volume};

/// How a series of the test behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    /// Its files cannot be read.
    Unreadable,
    /// The model refuses it.
    Refused,
    /// The model panics.
    Panics,
    /// The person stops the batch while it runs.
    StopsHere,
    /// The engine cannot go on.
    GivesBack,
    /// Three slices.
    Short,
    /// CR, while the model is for CT.
    OtherModality,
    /// No images at all.
    Report,
}

struct Fake {
    series: Vec<Kind>,
    files: Vec<PathBuf>,
    model_sha256: String,
    channels: Vec<String>,
    mirroring: bool,
    available: u64,
    /// `read 2`, `run 2`, `end 2`, in order.
    events: Mutex<Vec<String>>,
    uids: AtomicU64,
}

impl Fake {
    fn new(series: &[Kind]) -> Self {
        Self {
            series: series.to_vec(),
            files: Vec::new(),
            model_sha256: "ab".repeat(32),
            channels: Vec::new(),
            mirroring: true,
            available: u64::MAX,
            events: Mutex::default(),
            uids: AtomicU64::new(5000),
        }
    }

    fn say(&self, what: &str, n: usize) {
        self.events.lock().unwrap().push(format!("{what} {n}"));
    }

    fn runs(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| e.strip_prefix("run ").map(str::to_owned))
            .collect()
    }
}

fn series_uid(n: usize) -> Uid {
    Uid::parse(&format!("1.2.826.{n}")).unwrap()
}

fn headers(n: usize, kind: Kind) -> Series {
    let slices = match kind {
        Kind::Short => 3,
        _ => 5,
    };
    let images = (0..slices)
        .map(|k| Instance {
            source: FileSource::Path(format!("/in/{n}/{k}.dcm").into()),
            sop_class_uid: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance_uid: Uid::parse(&format!("1.2.826.{n}.{k}")).unwrap(),
            frame: 0,
            frame_count: 1,
            number: Some(k),
            position_lps: None,
            view: String::new(),
        })
        .collect();
    let stack = Stack {
        label: String::new(),
        columns: 13,
        rows: 7,
        is_volume: true,
        images,
        issues: Vec::new(),
    };
    Series {
        series_instance_uid: series_uid(n),
        modality: if kind == Kind::OtherModality {
            "CR"
        } else {
            "CT"
        }
        .into(),
        number: Some(n as i32),
        description: format!("series {n}"),
        body_part: String::new(),
        protocol: String::new(),
        contrast: false,
        frame_of_reference_uid: None,
        instances: slices as usize,
        transfer_syntaxes: Vec::new(),
        stacks: if kind == Kind::Report {
            vec![]
        } else {
            vec![stack]
        },
        objects: Vec::new(),
        issues: Vec::new(),
    }
}

impl Engine for Fake {
    fn model(&self) -> ModelIdentity {
        ModelIdentity {
            key: "organs@1.2.0".into(),
            sha256: self.model_sha256.clone(),
            modality: "CT".into(),
            channels: self.channels.clone(),
            classifies: false,
            plain_images: false,
            unmirrored: !self.mirroring,
        }
    }

    fn index(&self, _: &[PathBuf], task: &Task) -> Result<(Worklist, Vec<PathBuf>), Cancelled> {
        task.check()?;
        let series = self
            .series
            .iter()
            .enumerate()
            .map(|(n, kind)| headers(n, *kind))
            .collect();
        let study = Study {
            study_instance_uid: Uid::parse("1.2.826").unwrap(),
            date: String::new().into(),
            time: String::new().into(),
            description: String::new(),
            study_id: String::new().into(),
            accession: String::new().into(),
            institution: String::new().into(),
            series,
        };
        let patient = Patient {
            studies: vec![study],
            ..Patient::default()
        };
        let skipped = Skipped {
            source: FileSource::Path("/in/readme.txt".into()),
            reason: "not DICOM".into(),
        };
        let worklist = Worklist {
            patients: vec![patient],
            skipped: vec![skipped],
        };
        Ok((worklist, self.files.clone()))
    }

    fn load(&self, source: &ItemSource, task: &Task) -> Result<Volume, Failure> {
        task.check()?;
        let mut volume = volume(&stacks()[0]);
        let n = if let ItemSource::Stack { headers, .. } = source {
            headers.2.number.unwrap() as usize
        } else {
            volume.source = SourceSeries::default();
            99
        };
        self.say("read", n);
        if self.series.get(n) == Some(&Kind::Unreadable) {
            return Err(Failure::Reason("cut off in the middle".into()));
        }
        volume.source.number = Some(n as i32);
        Ok(volume)
    }

    fn needed_bytes(&self, _: &[Volume]) -> u64 {
        1000
    }

    fn available_bytes(&self) -> u64 {
        self.available
    }

    fn segment(&self, volumes: &[Volume], task: &Task) -> Result<Segmentation, Failure> {
        assert_eq!(volumes.len(), self.channels.len().max(1));
        let volume = &volumes[0];
        let n = volume.source.number.unwrap() as usize;
        self.say("run", n);
        match self.series.get(n) {
            Some(Kind::Refused) => return Err(Failure::Reason("too large".into())),
            Some(Kind::GivesBack) => return Err(Failure::Cancelled),
            Some(Kind::Panics) => panic!("a kernel's index is out of bounds"),
            Some(Kind::StopsHere) => {
                // Until somebody stops it.
                while task.check().is_ok() {
                    std::thread::yield_now();
                }
                return Err(Failure::Cancelled);
            }
            _ => {}
        }
        // Long enough that a reader which does not wait would be seen.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let segmentation = segmentation(volume);
        self.say("end", n);
        Ok(segmentation)
    }

    fn assess(&self, _: &Volume, _: &Task) -> Result<Vec<Assessment>, Failure> {
        unreachable!("it gives segments")
    }

    fn explain(
        &self,
        _: &mut [Assessment],
        _: &Volume,
        _: &Task,
    ) -> Result<Vec<MapPicture>, Failure> {
        unreachable!("it gives segments")
    }

    fn now(&self) -> DateTime<Utc> {
        now()
    }

    fn fresh_uid(&self) -> Uid {
        Uid::from_u128(self.uids.fetch_add(1, Ordering::Relaxed).into())
    }
}

struct Place {
    folder: tempfile::TempDir,
    log: Log,
    plan: Plan,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            log: Log::open(folder.path()).unwrap(),
            plan: Plan {
                inputs: vec!["/in".into()],
                output: folder.path().join("out"),
                formats: Format::ALL.to_vec(),
                resume: false,
                mirroring: true,
                explain: None,
                channels: Vec::new(),
            },
            folder,
        }
    }

    fn run(&self, fake: &Fake) -> (Summary, Vec<Row>) {
        let task = Task::new();
        let stop = fake.series.contains(&Kind::StopsHere);
        run(fake, &self.log, &self.plan, &task, |index, row| {
            if stop && row.status == Status::Running && fake.series[index] == Kind::StopsHere {
                task.cancel();
            }
        })
        .unwrap()
    }

    fn resumed(&self) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            log: self.log.clone(),
            plan: Plan {
                resume: true,
                ..self.plan.clone()
            },
        }
    }
}

fn statuses(rows: &[Row]) -> Vec<(Status, &str)> {
    rows.iter().map(|r| (r.status, r.reason.as_str())).collect()
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(
                    path.strip_prefix(folder)
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

const ALL_FILES: [&str; 4] = [
    "measurements.csv",
    "result.json",
    "segmentation.dcm",
    "segmentation.nii.gz",
];

#[test]
fn every_series_has_a_result_or_a_reason() {
    let place = Place::new();
    let fake = Fake::new(&[
        Kind::Good,
        Kind::Unreadable,
        Kind::OtherModality,
        Kind::Refused,
        Kind::Short,
        Kind::Panics,
        Kind::Report,
        Kind::Good,
    ]);
    let (summary, rows) = place.run(&fake);
    assert_eq!(
        statuses(&rows),
        [
            (Status::Done, ""),
            (Status::Failed, "cut off in the middle"),
            (Status::Skipped, "CR series, the model is for CT"),
            (Status::Failed, "too large"),
            (Status::Skipped, "3 slices, at least 5 are needed"),
            (
                Status::Failed,
                "an error in Negatoscope itself, please report it"
            ),
            (Status::Skipped, "CT series without images"),
            (Status::Done, ""),
        ]
    );
    assert_eq!(
        summary,
        Summary {
            done: 2,
            failed: 3,
            skipped: 3,
            cancelled: false,
            unreadable: 1
        }
    );
    assert_eq!(fake.runs(), ["0", "3", "5", "7"]);
    let mut expected: Vec<String> = ["batch-journal.jsonl", "batch.csv", "batch.json"]
        .map(str::to_owned)
        .to_vec();
    for n in [0, 7] {
        expected.extend(ALL_FILES.map(|f| format!("1.2.826/1.2.826.{n}/{f}")));
    }
    expected.sort();
    assert_eq!(files_below(&place.plan.output), expected);
    let table = std::fs::read_to_string(place.plan.output.join("batch.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!((&table["done"], &table["failed"]), (&2.into(), &3.into()));
    assert_eq!(table["rows"][1]["reason"], "cut off in the middle");
    let liver = table["rows"][0]["volumes_ml"]["Liver"].as_f64().unwrap();
    let truth = segmentation(&volume(&stacks()[0]));
    let voxels = truth.map.counts()[1];
    assert!(
        (liver - voxels as f64 * 0.7 * 0.9 * 2.5 / 1000.0).abs() < 1e-9,
        "{liver}"
    );
}

#[test]
fn each_access_run_and_export_is_on_record() {
    let place = Place::new();
    place.run(&Fake::new(&[Kind::Good, Kind::Refused]));
    assert!(audit::verify(place.folder.path()).unwrap().ok);
    let mut seen: BTreeMap<String, Vec<(EventId, Outcome)>> = BTreeMap::new();
    audit::records(place.folder.path(), |_, record| {
        let event = record.unwrap().event;
        let series = event
            .objects
            .iter()
            .find(|o| o.kind == audit::ObjectKind::Series)
            .unwrap();
        seen.entry(series.id.clone())
            .or_default()
            .push((event.id, event.outcome));
    })
    .unwrap();
    let fine = |id| (id, Outcome::Success);
    assert_eq!(
        seen["1.2.826.0"],
        [
            EventId::DicomInstancesAccessed,
            EventId::ModelRun,
            // Begun, and done.
            EventId::Export,
            EventId::Export
        ]
        .map(fine)
    );
    assert_eq!(
        seen["1.2.826.1"],
        [
            fine(EventId::DicomInstancesAccessed),
            fine(EventId::ModelRun),
            (EventId::ModelRun, Outcome::SeriousFailure)
        ]
    );
}

#[test]
fn a_stopped_batch_goes_on_where_it_was() {
    let place = Place::new();
    let mut fake = Fake::new(&[Kind::Good, Kind::StopsHere, Kind::Good, Kind::Refused]);
    let (summary, rows) = place.run(&fake);
    assert!(summary.cancelled);
    assert_eq!(
        statuses(&rows),
        [
            (Status::Done, ""),
            (Status::Waiting, ""),
            (Status::Waiting, ""),
            (Status::Waiting, "")
        ]
    );
    let half = files_below(&place.plan.output);
    assert!(half.iter().all(|f| !f.contains("1.2.826.1")), "{half:?}");

    fake.series[1] = Kind::Good;
    fake.events.lock().unwrap().clear();
    let (summary, rows) = place.resumed().run(&fake);
    assert_eq!(fake.runs(), ["1", "2", "3"]);
    assert_eq!(
        statuses(&rows),
        [
            (Status::Done, "finished earlier"),
            (Status::Done, ""),
            (Status::Done, ""),
            (Status::Failed, "too large")
        ]
    );
    assert_eq!((summary.done, summary.cancelled), (3, false));
    assert_eq!(rows[0].volumes_ml, rows[1].volumes_ml);

    fake.events.lock().unwrap().clear();
    place.resumed().run(&fake);
    assert_eq!(fake.runs(), ["3"], "only what failed is tried again");
}

#[test]
fn what_no_longer_fits_the_journal_is_run_again() {
    let place = Place::new();
    let mut fake = Fake::new(&[Kind::Good, Kind::Good, Kind::Good]);
    place.run(&fake);
    let lost = place.plan.output.join("1.2.826/1.2.826.1/result.json");
    std::fs::remove_file(lost).unwrap();
    fake.events.lock().unwrap().clear();
    place.resumed().run(&fake);
    assert_eq!(fake.runs(), ["1"]);

    fake.model_sha256 = "cd".repeat(32);
    fake.events.lock().unwrap().clear();
    place.resumed().run(&fake);
    assert_eq!(fake.runs(), ["0", "1", "2"], "the weights are other ones");

    fake.mirroring = false;
    fake.events.lock().unwrap().clear();
    place.resumed().run(&fake);
    assert_eq!(fake.runs(), ["0", "1", "2"], "without mirrored passes now");
}

#[test]
fn a_kill_leaves_a_journal_that_resumes_and_no_leftovers() {
    let place = Place::new();
    let fake = Fake::new(&[Kind::Good, Kind::Good]);
    place.run(&fake);
    // As a kill leaves it while the second series is written: no line for it, a temporary file.
    let journal = place.plan.output.join("batch-journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let first = text.find('\n').unwrap() + 1;
    std::fs::write(&journal, &text[..first + 40]).unwrap();
    let folder = place.plan.output.join("1.2.826/1.2.826.1");
    for file in ALL_FILES {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    std::fs::write(folder.join(".segmentation.dcm.4711-0.part"), "half").unwrap();
    std::fs::remove_file(place.plan.output.join("batch.json")).unwrap();
    fake.events.lock().unwrap().clear();
    let (summary, _) = place.resumed().run(&fake);
    assert_eq!((fake.runs(), summary.done), (vec!["1".to_owned()], 2));
    assert_eq!(files_below(&folder), ALL_FILES);
    assert!(place.plan.output.join("batch.json").is_file());
}

#[test]
fn one_volume_is_read_ahead_and_no_more() {
    let fake = Fake::new(&[Kind::Good; 6]);
    Place::new().run(&fake);
    let events = fake.events.lock().unwrap();
    let (mut ahead, mut most) = (0_i32, 0);
    for event in events.iter() {
        match &event[..4] {
            "read" => ahead += 1,
            "end " => ahead -= 1,
            _ => {}
        }
        most = most.max(ahead);
    }
    assert_eq!(most, 2, "{events:?}");
}

#[test]
fn without_memory_for_two_each_is_read_after_the_one_before() {
    let mut fake = Fake::new(&[Kind::Good; 3]);
    fake.available = 900;
    Place::new().run(&fake);
    let expected: Vec<String> = (0..3)
        .flat_map(|n| ["read", "run", "end"].map(|e| format!("{e} {n}")))
        .collect();
    assert_eq!(*fake.events.lock().unwrap(), expected);
}

#[test]
fn a_volume_file_has_no_dicom_segmentation_and_the_table_says_so() {
    let place = Place::new();
    let mut fake = Fake::new(&[]);
    let input = place.folder.path().join("t1 head.nii.gz");
    std::fs::write(&input, "only its name matters here").unwrap();
    fake.files = vec![input];
    let (summary, rows) = place.run(&fake);
    assert_eq!(
        statuses(&rows),
        [(
            Status::Done,
            "no DICOM SEG: the input has no position in a patient"
        )]
    );
    assert_eq!(summary.done, 1);
    assert_eq!(
        files_below(&place.plan.output.join("t1_head")),
        ["measurements.csv", "result.json", "segmentation.nii.gz"]
    );
}

#[test]
fn progress_counts_series_and_names_the_phase() {
    let place = Place::new();
    let fake = Fake::new(&[Kind::Good, Kind::Good]);
    let task = Task::new();
    let mut phases = Vec::new();
    run(&fake, &place.log, &place.plan, &task, |_, row| {
        if row.status == Status::Done {
            let progress = task.progress();
            phases.push((progress.phase, progress.total));
        }
    })
    .unwrap();
    assert_eq!(phases.len(), 2);
    assert!(phases[1].0.starts_with("2 of 2, about "), "{phases:?}");
    assert_eq!(phases[1].1, 2000);
}

#[test]
fn several_engines_do_each_series_once_and_one_that_cannot_go_on_gives_its_series_back() {
    let place = Place::new();
    let good: Vec<Kind> = (0..9)
        .map(|n| match n {
            4 => Kind::Refused,
            7 => Kind::OtherModality,
            _ => Kind::Good,
        })
        .collect();
    let engines = [
        Fake::new(&good),
        Fake::new(&[Kind::GivesBack; 9]),
        Fake::new(&good),
    ];
    let all: Vec<&dyn Engine> = engines.iter().map(|e| e as &dyn Engine).collect();
    let mut begun = [0; 9];
    let (summary, rows) = run_spread(&all, &place.log, &place.plan, &Task::new(), |n, row| {
        begun[n] += usize::from(row.status == Status::Running);
    })
    .unwrap();
    assert_eq!(
        (
            summary.done,
            summary.failed,
            summary.skipped,
            summary.cancelled
        ),
        (7, 1, 1, false)
    );
    assert_eq!(rows[4].reason, "too large");
    // One series at most was begun twice: the one that was given back.
    assert_eq!(engines[1].runs().len(), 1);
    assert_eq!(begun.iter().sum::<usize>(), 9);
    let mut runs = [engines[0].runs(), engines[2].runs()].concat();
    assert!(!engines[0].runs().is_empty() && !engines[2].runs().is_empty());
    runs.sort();
    assert_eq!(runs, ["0", "1", "2", "3", "4", "5", "6", "8"]);
    // The same table, the same files and the same journal as from one engine.
    let again = place.resumed();
    let one = Fake::new(&good);
    let (summary, _) = run(&one, &again.log, &again.plan, &Task::new(), |_, _| {}).unwrap();
    assert_eq!((summary.done, one.runs()), (7, vec!["4".to_owned()]));
}

#[test]
fn a_batch_that_no_engine_can_go_on_with_waits_and_one_that_is_stopped_stops() {
    let place = Place::new();
    let tired = [
        Fake::new(&[Kind::GivesBack; 4]),
        Fake::new(&[Kind::GivesBack; 4]),
    ];
    let all: Vec<&dyn Engine> = tired.iter().map(|e| e as &dyn Engine).collect();
    let (summary, rows) =
        run_spread(&all, &place.log, &place.plan, &Task::new(), |_, _| {}).unwrap();
    assert_eq!((summary.done, summary.cancelled), (0, true));
    assert!(rows.iter().all(|row| row.status == Status::Waiting));
    let slow = [
        Fake::new(&[Kind::StopsHere; 4]),
        Fake::new(&[Kind::StopsHere; 4]),
    ];
    let all: Vec<&dyn Engine> = slow.iter().map(|e| e as &dyn Engine).collect();
    let task = Task::new();
    let (summary, _) = run_spread(&all, &place.log, &place.plan, &task, |_, row| {
        if row.status == Status::Running {
            task.cancel();
        }
    })
    .unwrap();
    assert_eq!((summary.done, summary.cancelled), (0, true));
}
