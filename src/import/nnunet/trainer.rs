//! Which of nnU-Net's trainer classes leave the plans' network and procedure as they are.

/// What the names of nnU-Net's own variants are put together from (2.8; also TotalSegmentator's).
const PARTS: [&str; 36] = [
    "_NoMirroring",
    "NoMirroring",
    "_DASegOrd0",
    "DASegOrd0",
    "DAOrd0",
    "DA5Segord0",
    "DA5ord0",
    "_DA5",
    "DA5",
    "NoDA",
    "_noDummy2DDA",
    "_onlyMirror01",
    "_1500ep",
    "DiceCELoss_noSmooth",
    "DiceTopK10Loss",
    "DiceLoss",
    "CELoss",
    "Topk10LossLS01",
    "Topk10Loss",
    "VanillaAdam1en3",
    "VanillaAdam3en4",
    "VanillaAdam",
    "Adam1en3",
    "Adam3en4",
    "Adam",
    "AdanCosAnneal",
    "Adan1en1",
    "Adan1en3",
    "Adan3en4",
    "Adan",
    "CosAnneal",
    "_warmup",
    "_probabilisticOversampling",
    "_010",
    "_033",
    "NoDeepSupervision",
];

/// Whether a trainer only trains in another way: other losses, augmentation, schedules, lengths.
pub(super) fn is_known(name: &str) -> bool {
    let Some(mut rest) = name.strip_prefix("nnUNetTrainer") else {
        return false;
    };
    while !rest.is_empty() {
        let shorter = PARTS
            .iter()
            .find_map(|part| rest.strip_prefix(part))
            .or_else(|| without_epochs(rest));
        match shorter {
            Some(shorter) => rest = shorter,
            None => return false,
        }
    }
    true
}

/// `_250epochs`.
fn without_epochs(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix('_')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let rest = rest[digits..].strip_prefix("epoch")?;
    (digits > 0).then(|| rest.strip_prefix('s').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nnunets_own_variants_are_known_and_others_are_not() {
        for name in [
            "nnUNetTrainer",
            "nnUNetTrainerNoMirroring",
            "nnUNetTrainer_1epoch",
            "nnUNetTrainer_4000epochs_NoMirroring",
            "nnUNetTrainer_DASegOrd0_NoMirroring",
            "nnUNetTrainerDA5_10epochs",
            "nnUNetTrainerCELoss_5epochs",
            "nnUNetTrainer_onlyMirror01_1500ep",
            "nnUNetTrainer_probabilisticOversampling_033",
        ] {
            assert!(is_known(name), "{name}");
        }
        for name in [
            "nnUNetTrainerBN",
            "nnUNetTrainerUMambaBot",
            "nnUNetTrainer_epochs",
            "nnUNetTrainerMine",
            "Trainer",
            "",
        ] {
            assert!(!is_known(name), "{name}");
        }
    }
}
