//! Reverse-mode differentiation.
//!
//! A forward pass pushes one node per op: its inputs and a closure that turns the output's gradient into the inputs'
//! gradients. [`Tape::backward`] walks the nodes from the last to the first, but only those on a path from one of the
//! requested variables, and tells each closure which of its inputs are. So a step of an attack, which asks for the
//! gradient of the image alone, computes no weight gradient.

use std::cell::RefCell;
use std::sync::Arc;

use crate::autograd::tensor::{Param, Tensor};
use crate::backend::{Accumulation, Backend, Memory, accumulate};
use crate::base::error::{Error, Result};
use crate::base::nvtx;

/// A value's place on its tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(usize);

/// The gradient of an op's input.
pub enum Gradient<B: Memory> {
    /// Of a batch.
    Batch(B::Batch),
    /// Of a parameter.
    Param(B::Buf),
}

/// Gradients of an op's inputs: `None` where `needs` was false.
pub type InputGradients<B> = Vec<Option<Gradient<B>>>;

/// `(dy, needs, accumulation) -> gradients of the inputs`.
type Backward<'a, B> =
    Box<dyn FnOnce(<B as Memory>::Batch, &[bool], Accumulation<<B as Memory>::Batch>) -> InputGradients<B> + 'a>;

/// Where a value is from.
enum Origin<'a, B: Backend> {
    Leaf,
    Op(Backward<'a, B>),
    /// A scalar of one input, with its gradient.
    Scalar(B::Batch),
}

struct Node<'a, B: Backend> {
    inputs: Vec<NodeId>,
    origin: Origin<'a, B>,
    /// The profiler's range it was recorded in.
    range: Option<Arc<str>>,
}

/// A batch on a tape.
pub struct Var<B: Backend> {
    tensor: Tensor<B>,
    id: NodeId,
}

impl<B: Backend> Clone for Var<B> {
    fn clone(&self) -> Self {
        Var { tensor: self.tensor.clone(), id: self.id }
    }
}

impl<B: Backend> Var<B> {
    /// The value.
    pub fn tensor(&self) -> &Tensor<B> {
        &self.tensor
    }

    /// The value's buffer.
    pub fn buf(&self) -> &B::Batch {
        self.tensor.buf()
    }

    /// The value's sizes, `[n, c, h, w]`.
    pub fn dims(&self) -> [usize; 4] {
        self.tensor.shape().dims()
    }

    /// Its place on the tape.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

/// A parameter or a loss on a tape.
pub struct ParamVar<B: Backend> {
    param: Param<B>,
    id: NodeId,
}

impl<B: Backend> ParamVar<B> {
    /// The value.
    pub fn param(&self) -> &Param<B> {
        &self.param
    }

    /// The value's buffer.
    pub fn buf(&self) -> &B::Buf {
        self.param.buf()
    }

    /// The value's sizes.
    pub fn dims(&self) -> &[usize] {
        self.param.dims()
    }

    /// Its place on the tape.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

/// The record of one forward pass.
pub struct Tape<'a, B: Backend> {
    backend: &'a B,
    nodes: RefCell<Vec<Node<'a, B>>>,
}

impl<'a, B: Backend> Tape<'a, B> {
    /// An empty tape.
    pub fn new(backend: &'a B) -> Self {
        Tape { backend, nodes: RefCell::default() }
    }

    /// The backend that computes.
    pub fn backend(&self) -> &'a B {
        self.backend
    }

    /// Puts a batch on the tape.
    pub fn leaf(&self, tensor: Tensor<B>) -> Var<B> {
        Var { tensor, id: self.push(Vec::new(), Origin::Leaf) }
    }

    /// Puts a parameter on the tape.
    pub fn param(&self, param: Param<B>) -> ParamVar<B> {
        ParamVar { param, id: self.push(Vec::new(), Origin::Leaf) }
    }

    /// Records an op that computed `tensor` from `inputs`. `backward` is given the gradient of `tensor` to keep and, per input,
    /// whether its gradient is needed.
    pub fn record(
        &self,
        tensor: Tensor<B>,
        inputs: &[NodeId],
        backward: impl FnOnce(B::Batch, &[bool]) -> InputGradients<B> + 'a,
    ) -> Var<B> {
        let backend = self.backend;
        self.record_accumulating(tensor, inputs, move |dy, needs, accumulation| {
            let mut gradients = backward(dy, needs);
            if let Some(first) = gradients.first_mut() {
                *first = match first.take() {
                    Some(Gradient::Batch(own)) => Some(Gradient::Batch(accumulate(backend, own, accumulation))),
                    other => other,
                };
            }
            gradients
        })
    }

    /// The same for an op that, if it is the last to contribute to the gradient of its first input, returns the whole of it.
    pub fn record_accumulating(
        &self,
        tensor: Tensor<B>,
        inputs: &[NodeId],
        backward: impl FnOnce(B::Batch, &[bool], Accumulation<B::Batch>) -> InputGradients<B> + 'a,
    ) -> Var<B> {
        Var { tensor, id: self.push(inputs.to_vec(), Origin::Op(Box::new(backward))) }
    }

    /// Records a scalar that was computed from `input` together with its gradient.
    pub fn record_scalar(&self, scalar: Param<B>, input: &Var<B>, gradient: B::Batch) -> ParamVar<B> {
        ParamVar { param: scalar, id: self.push(vec![input.id], Origin::Scalar(gradient)) }
    }

    fn push(&self, inputs: Vec<NodeId>, origin: Origin<'a, B>) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { inputs, origin, range: nvtx::current() });
        NodeId(nodes.len() - 1)
    }

    /// Gradients of the scalar `loss` with respect to each of `tensors` and `params`, in that order. The tape is used up, and
    /// what it saved is freed as the walk passes.
    ///
    /// # Errors
    /// [`Error::Shape`] if `loss` is not a scalar, or does not depend on one of them.
    pub fn backward(self, loss: &ParamVar<B>, tensors: &[&Var<B>], params: &[&ParamVar<B>]) -> Result<Gradients<B>> {
        if loss.param.len() != 1 {
            return Err(Error::Shape {
                op: "backward",
                expected: "a scalar loss".into(),
                got: format!("{:?}", loss.dims()),
            });
        }
        self.walk(loss.id, None, tensors, params)
    }

    /// The vector-Jacobian product: what [`Tape::backward`] computes, from the gradient `dy` of any `output`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `output` does not depend on one of `tensors` and `params`.
    pub fn vjp(
        self,
        output: &Var<B>,
        dy: B::Batch,
        tensors: &[&Var<B>],
        params: &[&ParamVar<B>],
    ) -> Result<Gradients<B>> {
        self.walk(output.id, Some(dy), tensors, params)
    }

    /// From the gradient `dy` of `start`; without, `start` is a scalar, whose gradient is 1.
    fn walk(
        self,
        start: NodeId,
        dy: Option<B::Batch>,
        tensors: &[&Var<B>],
        params: &[&ParamVar<B>],
    ) -> Result<Gradients<B>> {
        let wrt: Vec<NodeId> = tensors.iter().map(|v| v.id).chain(params.iter().map(|p| p.id)).collect();
        let mut nodes = self.nodes.into_inner();
        let wanted = reaching(&nodes, &wrt);
        let first_use = first_uses(&nodes);
        let mut sums = Sums { backend: self.backend, of: nodes.iter().map(|_| None).collect() };
        sums.of[start.0] = dy.map(Gradient::Batch);
        let mut kept: Vec<Option<Gradient<B>>> = wrt.iter().map(|_| None).collect();
        while let Some(node) = nodes.pop() {
            let id = NodeId(nodes.len());
            let dy = sums.of[id.0].take();
            if dy.is_none() && id != start {
                continue;
            }
            let needs: Vec<bool> = node.inputs.iter().map(|input| wanted[input.0]).collect();
            let _range = nvtx::again(node.range.as_ref());
            let slot = wrt.iter().position(|wanted| *wanted == id).map(|slot| &mut kept[slot]);
            let gradients = match (node.origin, dy) {
                (Origin::Op(backward), Some(Gradient::Batch(dy))) if needs.contains(&true) => {
                    if let Some(slot) = slot {
                        *slot = Some(Gradient::Batch(self.backend.copy_batch(&dy)));
                    }
                    let first = node.inputs[0];
                    // The caller asked for the gradient of `first`: the op must not go on past it.
                    let asked = wrt.contains(&first);
                    let once = node.inputs.iter().filter(|&&input| input == first).count() == 1;
                    let accumulation = match needs[0] && once && !asked && first_use[first.0] == id {
                        true => Accumulation::Last(sums.take_batch(first)),
                        false => Accumulation::Partial,
                    };
                    backward(dy, &needs, accumulation)
                }
                (origin, dy) => {
                    if let Some(slot) = slot {
                        *slot = dy.or_else(|| Some(Gradient::Param(self.backend.full(1, 1.0))));
                    }
                    match origin {
                        Origin::Scalar(gradient) if id == start && needs[0] => vec![Some(Gradient::Batch(gradient))],
                        _ => Vec::new(),
                    }
                }
            };
            for (&input, gradient) in node.inputs.iter().zip(gradients) {
                if let Some(gradient) = gradient {
                    sums.add(input, gradient);
                }
            }
        }
        let mut found = Gradients { tensors: Vec::new(), params: Vec::new() };
        let mut kept = kept.into_iter();
        for (v, gradient) in tensors.iter().zip(&mut kept) {
            let Some(Gradient::Batch(buf)) = gradient else { return Err(no_path(format!("{:?}", v.tensor.shape()))) };
            found.tensors.push(Tensor::new(buf, v.tensor.shape().clone()));
        }
        for (p, gradient) in params.iter().zip(kept) {
            let Some(Gradient::Param(buf)) = gradient else { return Err(no_path(format!("{:?}", p.dims()))) };
            found.params.push(Param::new(buf, p.dims().to_vec()));
        }
        Ok(found)
    }
}

/// Gradients with respect to what was asked for, in the order in which it was.
pub struct Gradients<B: Memory> {
    /// Of the batches.
    pub tensors: Vec<Tensor<B>>,
    /// Of the parameters.
    pub params: Vec<Param<B>>,
}

/// Per node the sum of the gradients that its users have contributed so far.
struct Sums<'a, B: Backend> {
    backend: &'a B,
    of: Vec<Option<Gradient<B>>>,
}

impl<B: Backend> Sums<'_, B> {
    fn add(&mut self, node: NodeId, gradient: Gradient<B>) {
        let sum = &mut self.of[node.0];
        match (sum, gradient) {
            (Some(Gradient::Batch(sum)), Gradient::Batch(gradient)) => self.backend.add_assign(&gradient, sum),
            (Some(Gradient::Param(sum)), Gradient::Param(gradient)) => self.backend.add_assign_param(&gradient, sum),
            (empty, gradient) => *empty = Some(gradient),
        }
    }

    fn take_batch(&mut self, node: NodeId) -> Option<B::Batch> {
        match self.of[node.0].take() {
            Some(Gradient::Batch(sum)) => Some(sum),
            other => {
                self.of[node.0] = other;
                None
            }
        }
    }
}

fn no_path(shape: String) -> Error {
    Error::Shape {
        op: "backward",
        expected: "an output that depends on every requested variable".into(),
        got: format!("no path to a variable of shape {shape}"),
    }
}

/// Per node, which one uses it first, and so is the last to contribute to its gradient; itself, if none does.
fn first_uses<B: Backend>(nodes: &[Node<'_, B>]) -> Vec<NodeId> {
    let mut first: Vec<NodeId> = (0..nodes.len()).map(NodeId).collect();
    for (id, node) in nodes.iter().enumerate().rev() {
        node.inputs.iter().for_each(|input| first[input.0] = NodeId(id));
    }
    first
}

/// Per node, whether one of `wrt` is the node or reaches it. Inputs come before the nodes that use them.
fn reaching<B: Backend>(nodes: &[Node<'_, B>], wrt: &[NodeId]) -> Vec<bool> {
    let mut reaching = vec![false; nodes.len()];
    for v in wrt {
        reaching[v.0] = true;
    }
    for (id, node) in nodes.iter().enumerate() {
        reaching[id] |= node.inputs.iter().any(|input| reaching[input.0]);
    }
    reaching
}
