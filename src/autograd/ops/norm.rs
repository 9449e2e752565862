//! Batch normalisation with what usually follows it.

use std::sync::Arc;

use super::{expect_dims, saved_output};
use crate::autograd::tape::{Gradient, NodeId, ParamVar, Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::{Activated, Activation, Backend, ChannelStats, NormBwd, NormFwd, NormGrads};
use crate::base::dims::ChannelDims;
use crate::base::error::{Error, Result};

/// Parameters of a batch normalisation, and the ops fused with it.
pub struct BatchNorm<'v, B: Backend> {
    /// Added to the variance.
    pub eps: f32,
    /// Scale and shift, `[c]` each.
    pub gamma: &'v ParamVar<B>,
    pub beta: &'v ParamVar<B>,
    /// Added to the normalised value: the other branch of a residual block.
    pub residual: Option<&'v Var<B>>,
    /// The activation that comes last.
    pub activation: Activation,
}

/// Normalises each channel of `[n, c, h, w]`. With `running` statistics (evaluation) they are used as they are;
/// without, the batch's own are computed, differentiated through, and returned so that the caller may move the
/// running ones.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
#[allow(clippy::type_complexity)]
pub fn batch_norm<'a, B: Backend>(
    tape: &Tape<'a, B>,
    x: &Var<B>,
    bn: BatchNorm<'_, B>,
    running: Option<Arc<ChannelStats<B::Buf>>>,
) -> Result<(Var<B>, Arc<ChannelStats<B::Buf>>)>
where
    B::Buf: 'a,
    B::Batch: 'a,
{
    let dims = x.dims();
    let (d, eps, activation) = (ChannelDims::new(dims), bn.eps, bn.activation);
    expect_dims("batch_norm", "gamma", bn.gamma, &[dims[1]])?;
    expect_dims("batch_norm", "beta", bn.beta, &[dims[1]])?;
    if let Some(residual) = bn.residual.filter(|r| r.dims() != x.dims()) {
        return Err(Error::Shape {
            op: "batch_norm",
            expected: format!("a residual of {:?}", x.tensor().shape()),
            got: format!("{:?}", residual.tensor().shape()),
        });
    }
    let backend = tape.backend();
    let batch_stats = running.is_none();
    let fwd = NormFwd {
        eps,
        x: x.buf(),
        gamma: bn.gamma.buf(),
        beta: bn.beta.buf(),
        residual: bn.residual.map(Var::buf),
        activation,
    };
    let (y, stats) = match running {
        Some(stats) => (backend.batch_norm_fwd(&d, &fwd, &stats), stats),
        None => {
            let (y, stats) = backend.batch_norm_train_fwd(&d, &fwd);
            (y, Arc::new(stats))
        }
    };
    let y = Tensor::new(y, x.tensor().shape().clone());
    let (saved_x, saved_y) = (x.tensor().clone(), saved_output(activation, &y));
    let (saved_gamma, saved_beta) = (bn.gamma.param().clone(), bn.beta.param().clone());
    let inputs: Vec<NodeId> = [Some(x.id()), Some(bn.gamma.id()), Some(bn.beta.id()), bn.residual.map(Var::id)]
        .into_iter()
        .flatten()
        .collect();
    let saved_stats = stats.clone();
    let residual = bn.residual.is_some();
    let y = tape.record(y, &inputs, move |dy, needs| {
        let bwd = NormBwd {
            eps,
            x: saved_x.buf(),
            stats: &saved_stats,
            batch_stats,
            gamma: saved_gamma.buf(),
            beta: saved_beta.buf(),
            activated: saved_y.as_ref().map(|y| Activated { activation, y: y.buf() }),
            residual,
        };
        let NormGrads { dx, dgamma, dbeta, dresidual } = backend.batch_norm_bwd(&d, &bwd, dy);
        let mut all = vec![
            needs[0].then_some(Gradient::Batch(dx)),
            needs[1].then_some(Gradient::Param(dgamma)),
            needs[2].then_some(Gradient::Param(dbeta)),
        ];
        all.extend(dresidual.map(|dresidual| needs[3].then_some(Gradient::Batch(dresidual))));
        all
    });
    Ok((y, stats))
}
