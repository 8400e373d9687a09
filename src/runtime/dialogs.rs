//! File dialogs of the desktop, on a thread of their own.

use std::path::PathBuf;

use crate::app::{AskFor, TrainingChoice};

/// Shows a dialog and waits; an empty list when it was closed or could not be shown.
pub fn ask(what: AskFor) -> Vec<PathBuf> {
    let dialog = rfd::AsyncFileDialog::new();
    let chosen = match what {
        AskFor::OpenFiles => {
            let files = dialog.set_title("Open DICOM, ZIP or NIfTI").pick_files();
            pollster::block_on(files).unwrap_or_default()
        }
        AskFor::OpenFolder => one(dialog.set_title("Open folder of studies").pick_folder()),
        AskFor::ExportFolder => one(dialog.set_title("Save results in folder").pick_folder()),
        AskFor::AuditExport => one(dialog
            .set_title("Save the audit log")
            .add_filter("Table, FHIR, DICOM messages", &["csv", "ndjson", "xml"])
            .set_file_name("audit.csv")
            .save_file()),
        AskFor::BatchInput => one(dialog.set_title("Folder of studies").pick_folder()),
        AskFor::BatchOutput => one(dialog.set_title("Folder for results").pick_folder()),
        AskFor::Comparison => one(dialog.set_title("Folder of a comparison").pick_folder()),
        AskFor::Training(TrainingChoice::Recipe) => one(dialog
            .set_title("Recipe of the training")
            .add_filter("Recipe", &["toml"])
            .pick_file()),
        AskFor::Training(TrainingChoice::Data) => {
            one(dialog.set_title("Folder of training data").pick_folder())
        }
        AskFor::Training(TrainingChoice::DataFile) => {
            one(dialog.set_title("File of training data").pick_file())
        }
        AskFor::Training(TrainingChoice::Folder) => one(dialog
            .set_title("Folder for the checkpoint and the package")
            .pick_folder()),
        AskFor::CopyFolder => one(dialog
            .set_title("Folder for the copy without identity")
            .pick_folder()),
        AskFor::ServerAuthority => one(dialog
            .set_title("Certificates of the server's authority")
            .add_filter("PEM", &["pem", "crt", "cer"])
            .pick_file()),
        AskFor::ModelImport => one(dialog.set_title("Model folder to import").pick_folder()),
    };
    chosen.iter().map(|file| file.path().to_owned()).collect()
}

fn one(answer: impl Future<Output = Option<rfd::FileHandle>>) -> Vec<rfd::FileHandle> {
    pollster::block_on(answer).into_iter().collect()
}
