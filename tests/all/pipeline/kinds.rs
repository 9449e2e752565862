//! Every kind of stage: what its key is made of, how many passes it takes, what a table reads from it.

use engine::experiments::pipeline::{Scores, Stage, StageConfig, StageResult};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DATA: &str = r#""data":{"name":"mnist","subset":"full","fingerprint":"0123456789abcdef"}"#;
const NETWORK: &str = r#""network":"lenet","width":16"#;
const TARGET: &str = r#""scheme":"column","ratio":0.75,"linear":true"#;
const ATTACK: &str =
    r#"{"eps":0.3,"step_size":0.01,"steps":40,"random_start":true,"restarts":2,"loss":"margin","bn":"train-moving"}"#;
const SUITE: &str = concat!(
    r#"[{"attack":"apgd","eps":0.3,"steps":100,"restarts":1,"loss":"cross-entropy","rho":0.75},"#,
    r#"{"attack":"apgd","eps":0.3,"steps":100,"restarts":1,"loss":"targeted-dlr","rho":0.75},"#,
    r#"{"attack":"fab","eps":0.3,"steps":100,"alpha_max":0.1,"eta":1.05,"beta":0.9},"#,
    r#"{"attack":"square","eps":0.3,"queries":5000,"p_init":0.8}]"#
);

fn training(sparsity: &str) -> String {
    format!(
        r#"{{"kind":"train",{DATA},"augment":true,{NETWORK},"origin":"inherited","init":"orthogonal","epochs":300,"#
    ) + r#""batch":64,"held_out":5000,"select":"held-out","seed":7,"#
        + r#""optimizer":{"kind":"sgd","lr":0.1,"momentum":0.9,"weight_decay":0.0001},"#
        + r#""schedule":{"shape":"periodic","milestones":[80,150],"gamma":0.1,"period":4,"warmup_epochs":1.5},"#
        + &format!(r#""attack":null,"eps_schedule":{{"ramp":"linear","epochs":2.5}},"eval_attack":{ATTACK},"#)
        + &format!(r#""eval_every":3,"sparsity":{sparsity}}}"#)
}

/// The `config` of a stage of every kind, as `config.toml` and the key have it.
fn configs() -> Vec<String> {
    let pruned = format!(r#""seed":7,"sparsity":{{{TARGET}}}"#);
    vec![
        format!(r#"{{"kind":"import","sha256":"00ff",{NETWORK}}}"#),
        format!(r#"{{"kind":"prune",{DATA},{NETWORK},{pruned},"eval_attack":{ATTACK}}}"#),
        format!(r#"{{"kind":"eval",{DATA},{NETWORK},{pruned},"eval_attack":{ATTACK}}}"#),
        format!(r#"{{"kind":"eval",{DATA},{NETWORK},"seed":7,"sparsity":null,"eval_attack":{ATTACK}}}"#),
        format!(r#"{{"kind":"suite",{DATA},{NETWORK},{pruned},"images":1000,"attacks":{SUITE}}}"#),
        training(&format!(r#"{{"kind":"masked",{TARGET},"compact":true}}"#)),
        training(&format!(r#"{{"kind":"admm",{TARGET},"rho":0.001,"growth":1.3,"update_every":4}}"#)),
        training(&format!(r#"{{"kind":"proximal",{TARGET},"every":"step"}}"#)),
    ]
}

fn config(text: &str) -> StageConfig {
    serde_json::from_str(text).unwrap()
}

/// A setting that is left out of the text is left out of the key; and results of earlier versions are found by these.
#[test]
fn a_key_is_the_hash_of_every_setting_of_its_kind() {
    for text in configs() {
        let json =
            format!(r#"{{"format":2,"backend":"cuda","precision":"bf16","parents":["00","ff"],"config":{text}}}"#);
        let stage: Stage = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&stage).unwrap(), json);
        let hash: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(stage.key().unwrap(), hash[..16], "{json}");
    }
}

#[test]
fn a_stage_knows_its_kind_network_attack_and_target() {
    let shown: Vec<String> = configs()
        .iter()
        .map(|text| {
            let config = config(text);
            let (network, width) = config.network();
            let restarts = config.eval_attack().map(|attack| attack.restarts);
            let target = config.target().map(|target| (target.scheme.name(), target.ratio));
            format!("{} {network} {width} {} {restarts:?} {target:?}", config.kind(), config.epochs())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "import lenet 16 0 None None",
            r#"prune lenet 16 0 Some(2) Some(("column", 0.75))"#,
            r#"eval lenet 16 0 Some(2) Some(("column", 0.75))"#,
            "eval lenet 16 0 Some(2) None",
            r#"suite lenet 16 0 None Some(("column", 0.75))"#,
            r#"train lenet 16 300 Some(2) Some(("column", 0.75))"#,
            r#"train lenet 16 300 Some(2) Some(("column", 0.75))"#,
            r#"train lenet 16 300 Some(2) Some(("column", 0.75))"#,
        ]
    );
}

/// Of 60,000 training and 9,000 test images.
#[test]
fn passes_of_every_kind() {
    // One clean; for each of two starts 40 steps and one of what comes of them.
    let measured = 9_000 * (1 + 2 * 41);
    // 101 for APGD, towards each of nine classes one more that ranks them; 201 for FAB towards each; 5,001 for Square.
    let suite = 1_000 * (101 + 9 * 102 + 9 * 201 + 5_001);
    // 300 epochs of natural training, measured a hundred times, the images put aside too.
    let training = 300 * 55_000 + 100 * (9_000 + 5_000) * (1 + 2 * 41);
    let passes: Vec<u64> = configs().iter().map(|text| config(text).image_passes(60_000, 9_000)).collect();
    assert_eq!(passes, [0, measured, measured, measured, suite, training, training, training]);
}

/// A report with numbers of its own in every place.
fn report(natural: f64, adversarial: f64) -> Value {
    json!({
        "images": 1000, "natural": natural, "adversarial": adversarial, "natural_loss": 0.1,
        "adversarial_loss": 0.2, "zero_gradient": 0.0, "constant_prediction": null,
    })
}

#[test]
fn a_table_reads_the_model_that_a_stage_leaves() {
    let candidate = |select: &str, natural: f64| {
        let held_out = report(natural + 0.5, natural - 0.5);
        json!({ "select": select, "epoch": 3, "test": report(natural, natural - 10.0), "held_out": held_out })
    };
    let sparsity = json!({
        "layers": [], "parameters": 2, "parameters_kept": 1, "conv_compression": 2.0, "compression": 2.0,
        "multiply_adds": 2, "multiply_adds_kept": 1,
    });
    let results = [
        (
            "train",
            json!({
                "selected": candidate("held-out", 80.0), "candidates": [candidate("test-best", 81.0), candidate("last", 70.0)],
                "collapsed": true, "parameters": 1, "epochs": 12, "seconds": 3.5,
            }),
        ),
        (
            "prune",
            json!({
                "before": report(90.0, 50.0), "after": report(60.0, 40.0), "sparsity": sparsity, "collapsed": true,
                "seconds": 4.5,
            }),
        ),
        ("eval", json!({ "test": report(85.0, 45.0), "collapsed": true, "seconds": 5.5 })),
        ("suite", json!({ "images": 9, "natural": 88.0, "after": [66.0, 55.0], "spent": [], "seconds": 6.5 })),
    ];
    let expected = [
        ("train", (80.0, 70.0, true, 3.5)),
        ("prune", (60.0, 40.0, true, 4.5)),
        ("eval", (85.0, 45.0, true, 5.5)),
        ("suite", (88.0, 55.0, false, 6.5)),
    ];
    let configs: Vec<StageConfig> = configs().iter().map(|text| config(text)).collect();
    let of_kind = |kind: &str| configs.iter().find(|config| config.kind() == kind).unwrap();
    let read = |kind: &str, result: &Value| StageResult::from_json(of_kind(kind), result.clone());
    for ((kind, result), (_, expected)) in results.iter().zip(expected) {
        assert_eq!(serde_json::to_value(read(kind, result).unwrap()).unwrap(), *result, "{kind}");
        let scores = read(kind, result).unwrap().scores().unwrap();
        let Scores { natural, adversarial, collapsed, seconds } = scores;
        assert_eq!((natural, adversarial, collapsed, seconds), expected, "{kind}");
        for (other, _) in results.iter().filter(|(other, _)| other != kind) {
            assert!(read(other, result).is_err(), "a result of {kind} is none of {other}");
        }
    }
    let unattacked = json!({ "images": 9, "natural": 88.0, "after": [], "spent": [], "seconds": 6.5 });
    assert_eq!(read("suite", &unattacked).unwrap().scores().unwrap().adversarial, 88.0);
    assert_eq!(read("import", &json!({})).unwrap().scores(), None, "a model that was not measured has no scores");
}
