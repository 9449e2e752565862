//! What attacks did to each image, for others to check: a CSV of verdicts, and the images as safetensors.

use crate::attack::suite::{Assessment, Verdict};
use crate::base::error::{Error, Result};
use crate::checkpoint::encode_with_integers;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::suite::Broken;
    use safetensors::SafeTensors;

    /// An image that stands, one that was wrong from the start, two that were broken.
    fn assessment() -> Assessment {
        let verdict = |label, natural, broken| Verdict { label, natural, broken, tried: Some((1, 0)) };
        let broken = |attack, class, distance| Some(Broken { attack, round: 0, class, distance });
        let verdicts = vec![
            verdict(3, 3, None),
            verdict(4, 9, None),
            verdict(5, 5, broken(1, 6, 0.29999998)),
            verdict(7, 7, broken(0, 2, 0.125)),
        ];
        let attempts = (0..4).map(|i| vec![i as f32, 0.5]).collect();
        Assessment { verdicts, costs: vec![], attempts }
    }

    #[test]
    fn rows_say_what_broke_each_image() {
        let text = String::from_utf8(csv(&assessment(), &["pgd", "square, twice"]).unwrap()).unwrap();
        assert_eq!(
            text,
            "image,label,natural,stands,broken_by,adversarial,distance\n\
             0,3,3,true,,,\n\
             1,4,9,false,,,\n\
             2,5,5,false,\"square, twice\",6,0.300000\n\
             3,7,7,false,pgd,2,0.125000\n"
        );
    }

    #[test]
    fn images_come_with_their_labels_and_marks() {
        let bytes = safetensors(&assessment(), [1, 1, 2], &["pgd", "square"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let integers = |name: &str| -> Vec<i64> {
            file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()
        };
        assert_eq!((integers("labels"), integers("broken")), (vec![3, 4, 5, 7], vec![0, 0, 1, 1]));
        let images = file.tensor("images").unwrap();
        assert_eq!(images.shape(), [4, 1, 1, 2]);
        let pixels: Vec<f32> = images.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(pixels, [0.0, 0.5, 1.0, 0.5, 2.0, 0.5, 3.0, 0.5]);
    }
}
