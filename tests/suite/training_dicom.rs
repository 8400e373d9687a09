//! Training sets of DICOM series with SEG objects as their masks.

use std::fs;
use std::path::Path;

use negatoscope::dicom::{write_image_series, write_segmentation};
use negatoscope::findings::Segment;
use negatoscope::runtime::{AnyImages, pick_volume};
use negatoscope::task::Task;
use negatoscope::training::data::{self, Target};
use negatoscope::training::{DataRules, Recipe};
use negatoscope::volume::Volume;

use super::app::{cube_in, ramp};
use super::seg_export::{now, options, uids};
use super::training::WORDS;

fn rules(class: &str) -> DataRules {
    let text = format!(
        r#"seed = 1
{WORDS}
[data]
layout = "masks"
classes = ["{class}"]
size = [8, 8, 8]
[network]
kind = "unet"
widths = [8, 16]
[training]
epochs = 1
batch = 1
learning_rate = 1e-2
"#
    );
    Recipe::parse(&text).unwrap().data
}

/// A series and its SEG, which has a second segment that no class is called like.
fn case(folder: &Path, name: &str, first_uid: u128) -> Volume {
    let images = folder.join("images").join(name);
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(folder.join("masks")).unwrap();
    let mut options = options();
    options.study_instance_uid = negatoscope::study::Uid::from_u128(first_uid);
    options.series_instance_uid = negatoscope::study::Uid::from_u128(first_uid + 1);
    options.frame_of_reference_uid = negatoscope::study::Uid::from_u128(first_uid + 2);
    let mut new = uids(first_uid + 100);
    write_image_series(&ramp(), &images, &options, &mut new, now()).unwrap();
    let volume = pick_volume(&images, None, &Task::new()).unwrap().volume;
    let mut segmentation = cube_in(&volume);
    let other = Segment {
        label: 2,
        name: "Something else".to_owned(),
        ..segmentation.segments[0].clone()
    };
    segmentation.segments.push(other);
    let corner = volume.geometry.index(1, 1, 1);
    segmentation.map.labels[corner] = 2;
    let seg = folder.join("masks").join(format!("{name}.dcm"));
    write_segmentation(&seg, &segmentation, &mut new, now()).unwrap();
    volume
}

#[test]
fn a_series_and_its_seg_are_a_sample() {
    let folder = tempfile::tempdir().unwrap();
    let volume = case(folder.path(), "1.2.3", 1000);
    case(folder.path(), "1.2.4", 5000);
    let samples = data::load(&rules("cube"), folder.path(), &[], &AnyImages).unwrap();
    assert_eq!(samples.len(), 2);
    let sample = &samples[0];
    assert_eq!(sample.name, "1.2.3");
    assert_eq!(sample.image.spacing_mm, Some([2.0, 1.0, 1.0]));
    // Cut to what is not zero, as the package's procedure does: k, j, i with i fastest.
    let [nk, nj, ni] = sample.image.dims;
    assert_eq!((nk, nj), (40, 30));
    let Target::Mask(mask) = &sample.target else {
        panic!("a mask");
    };
    let truth = cube_in(&volume).map.labels;
    let gone = 20 - ni;
    let first = (0..20).find(|i| volume.value(*i) != 0.0).unwrap();
    assert!(gone <= 1 && first <= 1, "{gone} {first}");
    for k in 0..nk {
        for j in 0..nj {
            for i in 0..ni {
                let here = mask[(k * nj + j) * ni + i];
                assert_eq!(
                    here,
                    truth[volume.geometry.index(i + first, j, k)],
                    "{i} {j} {k}"
                );
            }
        }
    }
}

#[test]
fn a_seg_of_other_things_is_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    case(folder.path(), "a", 1000);
    let error = data::load(&rules("Liver"), folder.path(), &[], &AnyImages).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("\"Cube\", \"Something else\"") && words.contains("Liver"),
        "{words}"
    );
    // The SEG of another series does not fit.
    case(folder.path(), "b", 5000);
    fs::copy(
        folder.path().join("masks/b.dcm"),
        folder.path().join("masks/a.dcm"),
    )
    .unwrap();
    let error = data::load(&rules("Cube"), folder.path(), &[], &AnyImages).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}
