//! What attacks did to each image, for others to check: a CSV of verdicts, and the images as safetensors.

use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::robustness::Assessment;

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

/// `images` `[n, c, h, w]` in f32: adversarial where there is one, else the last attempt in the ball; `labels` `[n]` in
/// i64; `broken` `[n]` in u8, 1 where the image is adversarial.
///
/// # Errors
/// [`Error::Failed`] if the file cannot be encoded: not in practice.
pub fn safetensors(assessment: &Assessment, [c, h, w]: [usize; 3]) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| Error::Failed(format!("cannot encode the images: {e}"));
    let n = assessment.verdicts.len();
    let images: Vec<u8> = assessment.attempts.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let labels: Vec<u8> = assessment.verdicts.iter().flat_map(|v| i64::from(v.label).to_le_bytes()).collect();
    let broken: Vec<u8> = assessment.verdicts.iter().map(|v| u8::from(v.broken.is_some())).collect();
    let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).map_err(failed);
    let views = [
        ("images", view(Dtype::F32, vec![n, c, h, w], &images)?),
        ("labels", view(Dtype::I64, vec![n], &labels)?),
        ("broken", view(Dtype::U8, vec![n], &broken)?),
    ];
    safetensors::serialize(views, None).map_err(failed)
}
