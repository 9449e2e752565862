//! What a stage's key is made of, and how a setting of it is changed.

use std::collections::HashSet;
use std::fs;

use engine::experiments::pipeline::{BackendName, Precision, Stage, StageConfig, paths, set};
use engine::train::TrainConfig;

use super::{config, one_line, out, stage};

#[test]
fn a_key_is_the_same_in_every_build() {
    // The key is the start of `sha256sum` of this text. If it changes, every result that users have is orphaned:
    // bump `pipeline::FORMAT` when it must.
    let json = concat!(
        r#"{"format":2,"backend":"cpu","precision":"f32","parents":[],"config":{"kind":"train","#,
        r#""data":{"name":"mnist","subset":"full","fingerprint":"0123456789abcdef"},"augment":false,"#,
        r#""network":"lenet","width":1,"origin":"initialisation","init":"uniform","epochs":300,"batch":64,"held_out":5000,"#,
        r#""select":"test-best","seed":7,"optimizer":{"kind":"adam","lr":0.0001,"beta1":0.9,"beta2":0.999,"#,
        r#""eps":1e-8,"weight_decay":0.0},"schedule":{"shape":"constant","milestones":[],"gamma":0.1,"#,
        r#""period":0,"warmup_epochs":0.0},"attack":{"eps":0.3,"step_size":0.01,"steps":40,"random_start":true,"#,
        r#""restarts":1,"loss":"cross-entropy","bn":"train"},"eps_schedule":{"ramp":"cosine","epochs":30.0},"#,
        r#""eval_attack":{"eps":0.3,"step_size":0.01,"steps":40,"random_start":true,"restarts":1,"#,
        r#""loss":"cross-entropy","bn":"eval"},"eval_every":1,"sparsity":{"kind":"dense"}}}"#,
    );
    let stage: Stage = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&stage).unwrap(), json);
    assert_eq!(stage.key().unwrap(), "869e81f49f74e8ad");
}

#[test]
fn every_setting_is_in_the_key() {
    let base = config(7);
    let mut keys = HashSet::from([stage(base.clone()).key().unwrap()]);
    let changed = |path: &str| match path {
        "data.name" | "network" => ["fashion-mnist", "resnet18"][usize::from(path == "network")],
        "select" => "last",
        "init" => "orthogonal",
        "schedule.shape" | "eps_schedule.ramp" => "cosine",
        "schedule.milestones" => "[3]",
        "augment" => "true",
        "attack.random_start" | "eval_attack.random_start" => "false",
        "attack.loss" | "eval_attack.loss" => "margin",
        "attack.bn" | "eval_attack.bn" => "eval",
        "origin" => "parent",
        "optimizer.beta1" | "optimizer.beta2" => "0.5",
        _ => "77",
    };
    let all = paths(&base).unwrap();
    assert!(all.len() > 25, "{all:?}");
    for path in all.iter().filter(|path| !["optimizer.kind", "sparsity.kind"].contains(&path.as_str())) {
        let config = set(&base, path, changed(path)).unwrap();
        assert!(keys.insert(stage(config).key().unwrap()), "{path} does not change the key");
    }
    let config = || StageConfig::Train(base.clone());
    for other in [
        Stage::new(BackendName::Cuda, Precision::F32, vec![], config()),
        Stage::new(BackendName::Cpu, Precision::Bf16, vec![], config()),
        Stage::new(BackendName::Cpu, Precision::F32, vec!["0123456789abcdef".into()], config()),
        Stage { format: 0, ..stage(base.clone()) },
    ] {
        assert!(keys.insert(other.key().unwrap()), "{other:?}");
    }
    let natural = TrainConfig { attack: None, ..base.clone() };
    assert!(keys.insert(stage(natural).key().unwrap()));
}

#[test]
fn a_stage_reads_back_from_its_config_file() {
    let (_out, store) = out();
    let stage = stage(TrainConfig { attack: None, ..config(3) });
    let dir = store.lock("k").unwrap();
    dir.write_config(&stage).unwrap();
    let text = fs::read_to_string(dir.path().join("config.toml")).unwrap();
    assert_eq!(toml::from_str::<Stage>(&text).unwrap(), stage);
}

#[test]
fn set_keeps_the_type_and_suggests_the_nearest_key() {
    let base = config(0);
    let changed = set(&base, "attack.eps", "0.2").unwrap();
    assert_eq!(changed.attack.as_ref().unwrap().eps, 0.2);
    assert_eq!(TrainConfig { attack: base.attack.clone(), ..changed }, base, "nothing else may change");
    assert_eq!(set(&base, "held_out", "0").unwrap().held_out, 0);
    assert_eq!(set(&base, "optimizer.lr", "1").unwrap(), set(&base, "optimizer.lr", "1.0").unwrap());
    assert_eq!(set(&base, "schedule.milestones", "[20, 40]").unwrap().schedule.milestones, [20, 40]);
    for (path, value, expected) in [
        ("atack.eps", "0.2", "did you mean 'attack.eps'?"),
        ("attack.epz", "0.2", "did you mean 'attack.eps'?"),
        ("attack", "none", "unknown setting"),
        ("batch.size", "3", "unknown setting"),
        ("", "3", "unknown setting"),
        ("batch", "many", "integer"),
        ("batch", "-1", "batch"),
        ("batch", "2.5", "integer"),
        ("attack.eps", "big", "float"),
        ("augment", "yes", "boolean"),
        ("network", "lenat", "did you mean 'lenet'?"),
        ("schedule.milestones", "20", "array"),
        ("optimizer.kind", "sgd", "optimizer.kind"),
    ] {
        let error = set(&base, path, value).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(one_line(&error).contains(expected), "{path}={value}: {error}");
    }
}
