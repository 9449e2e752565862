//! What attacks did to each image, for others to check: a CSV of verdicts, and the images as safetensors.

use crate::checkpoint::encode_with_integers;
use crate::error::{Error, Result};
use crate::robustness::{Assessment, Verdict};

/// A row per image: its place, class, the class predicted for it, the attack that broke it with the class predicted then
/// and the distance, or nothing for these.
///
/// # Errors
/// [`Error::Failed`] if the rows cannot be encoded: not in practice.
pub fn csv(assessment: &Assessment, attacks: &[&str]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot encode the verdicts: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(["image", "label", "natural", "stands", "broken_by", "adversarial", "distance"])
        .map_err(|e| failed(&e))?;
    for (i, verdict) in assessment.verdicts.iter().enumerate() {
        let [by, class, distance] = match &verdict.broken {
            None => [String::new(), String::new(), String::new()],
            Some(broken) => {
                [attacks[broken.attack].to_string(), broken.class.to_string(), format!("{:.6}", broken.distance)]
            }
        };
        let [image, label, natural] = [i.to_string(), verdict.label.to_string(), verdict.natural.to_string()];
        let stands = verdict.stands().to_string();
        writer.write_record([image, label, natural, stands, by, class, distance]).map_err(|e| failed(&e))?;
    }
    writer.into_inner().map_err(|e| failed(&e))
}

/// `images` `[n, c, h, w]` in f32: adversarial where there is one, else the last attempt in the ball; `labels` and `broken`
/// `[n]` in i64, the second 1 where the image is adversarial. The metadata names the attacks.
///
/// # Errors
/// [`Error::Failed`] if the file cannot be encoded: not in practice.
pub fn safetensors(assessment: &Assessment, [c, h, w]: [usize; 3], attacks: &[&str]) -> Result<Vec<u8>> {
    let n = assessment.verdicts.len();
    let images = ("images".to_string(), vec![n, c, h, w], assessment.attempts.concat());
    let column = |name: &str, of: fn(&Verdict) -> i64| {
        (name.to_string(), vec![n], assessment.verdicts.iter().map(of).collect::<Vec<_>>())
    };
    let columns = [column("labels", |v| v.label.into()), column("broken", |v| v.broken.is_some().into())];
    encode_with_integers(&[images], &columns, &attacks)
}
