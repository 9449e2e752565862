//! The verdict on each attacked image, for others to check: as CSV, and the images as safetensors.

use serde::Serialize;

use crate::attack::suite::{Assessment, Verdict};
use crate::base::csv::to_csv;
use crate::base::error::Result;
use crate::checkpoint::encode_with_integers;

/// A row for an image. The field names are the columns.
#[derive(Serialize)]
struct Row<'a> {
    /// Its place.
    image: usize,
    label: u8,
    /// The class predicted for it.
    natural: u8,
    stands: bool,
    /// The attack that broke it, with the class predicted then and the distance.
    broken_by: Option<&'a str>,
    adversarial: Option<u8>,
    distance: Option<String>,
}

/// A row for each image, in order.
///
/// # Errors
/// [`crate::base::error::Error::Failed`] if the rows cannot be encoded: not in practice.
pub fn csv(assessment: &Assessment, attacks: &[&str]) -> Result<Vec<u8>> {
    to_csv(assessment.verdicts.iter().enumerate().map(|(image, verdict)| {
        let broken = verdict.broken.as_ref();
        Row {
            image,
            label: verdict.label,
            natural: verdict.natural,
            stands: verdict.stands(),
            broken_by: broken.map(|broken| attacks[broken.attack]),
            adversarial: broken.map(|broken| broken.class),
            distance: broken.map(|broken| format!("{:.6}", broken.distance)),
        }
    }))
}

/// `images` `[n, c, h, w]` in f32: adversarial where there is one, else the last attempt in the ball; `labels` and `broken`
/// `[n]` in i64, the second 1 where the image is adversarial. The metadata names the attacks.
///
/// # Errors
/// [`crate::base::error::Error::Failed`] if the file cannot be encoded: not in practice.
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
