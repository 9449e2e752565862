use engine::{
    attack::{self, *},
    backend::{cpu::Cpu, *},
    init,
    models::*,
    rng::*,
};
use std::sync::Arc;
fn main() {
    for threads in [1] {
        for w in [1] {
            let b = Cpu::<f32>::new(threads).unwrap();
            let arch = Arc::new(Architecture::new(Network::LeNet, w, 10).unwrap());
            println!("params {} madds {}", arch.parameters(), arch.multiply_adds);
            let m = Model::new(&b, arch.clone(), &init::initial_values(&arch, init::Init::Default, 1)).unwrap();
            let n = 64;
            let rng = Rng::new(1, Stream::TrainAttack, 0);
            let x: Vec<f32> = (0..n * 784).map(|e| rng.uniform_at(e as u64)).collect();
            let labels: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
            let clean = b.upload_batch(n, &x);
            let c = PgdConfig {
                eps: 0.3,
                step_size: 0.01,
                steps: 40,
                random_start: true,
                restarts: 1,
                loss: AttackLoss::CrossEntropy,
                bn: BnMode::Train,
            };
            b.scope(|| {
                for _ in 0..30 {
                    let t = std::time::Instant::now();
                    let mut counts = Counts::default();
                    attack::pgd::pgd_in_parts(
                        &b,
                        &m,
                        Mode::Eval,
                        &c,
                        attack::pgd::Start { rng: &rng, first: 0, strength: 1.0 },
                        &clean,
                        &labels,
                        &mut counts,
                    )
                    .unwrap();
                    let s = t.elapsed().as_secs_f64();
                    println!(
                        "w {w} threads {threads}: {:.0} images/s, {:.1} GFLOP/s {counts:?}",
                        n as f64 / s,
                        n as f64 * arch.multiply_adds as f64 * 4.0 * 40.0 / s / 1e9
                    );
                }
            });
        }
    }
}
