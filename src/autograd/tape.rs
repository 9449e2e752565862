//! Reverse-mode differentiation.
//!
//! A forward pass pushes one node per op: its inputs and a closure that turns the output's gradient into the inputs'
//! gradients. [`Tape::backward`] walks the nodes from the last to the first, but only those on a path from one of the
//! requested variables, and tells each closure which of its inputs are. So a step of an attack, which asks for the
//! gradient of the image alone, computes no weight gradient.

use std::cell::RefCell;
use std::sync::Arc;

use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::{Backend, Gathered, Memory, sum_gathered};
use crate::base::error::{Error, Result};
use crate::base::nvtx;

/// Gradients of an op's inputs: `None` where `needs` was false.
pub type Grads<B> = Vec<Option<<B as Memory>::Buf>>;

/// `(dy, needs, gathered) -> gradients of the inputs`.
type Backward<'a, B> = Box<dyn FnOnce(&<B as Memory>::Buf, &[bool], Gathered<<B as Memory>::Buf>) -> Grads<B> + 'a>;

/// Where a value is from.
enum Origin<'a, B: Backend> {
    Leaf,
    Op(Backward<'a, B>),
    /// A scalar of one input, with its gradient.
    Scalar(B::Buf),
}

struct Node<'a, B: Backend> {
    inputs: Vec<usize>,
    origin: Origin<'a, B>,
    /// The profiler's range it was recorded in.
    range: Option<Arc<str>>,
}

/// A value on a tape.
pub struct Var<B: Backend> {
    tensor: Tensor<B>,
    id: usize,
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
    pub fn buf(&self) -> &B::Buf {
        self.tensor.buf()
    }

    /// The value's shape.
    pub fn shape(&self) -> &Shape {
        self.tensor.shape()
    }

    /// The value's shape if it is a batch.
    ///
    /// # Errors
    /// [`Error::Shape`], in the name of `op`, if it is not.
    pub fn batch_dims(&self, op: &'static str) -> Result<[usize; 4]> {
        self.tensor.batch_dims(op)
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

    /// Puts a tensor on the tape.
    pub fn leaf(&self, tensor: Tensor<B>) -> Var<B> {
        self.push(tensor, Vec::new(), Origin::Leaf)
    }

    /// Records an op that computed `tensor` from `inputs`. `backward` gets the gradient of `tensor` and, per input,
    /// whether its gradient is needed.
    pub fn record(
        &self,
        tensor: Tensor<B>,
        inputs: &[&Var<B>],
        backward: impl FnOnce(&B::Buf, &[bool]) -> Grads<B> + 'a,
    ) -> Var<B> {
        let backend = self.backend;
        self.record_gathering(tensor, inputs, move |dy, needs, gathered| {
            let mut grads = backward(dy, needs);
            if let Some(first) = grads.first_mut() {
                *first = first.take().map(|part| sum_gathered(backend, part, gathered));
            }
            grads
        })
    }

    /// The same for an op that, if it is the last to contribute to the gradient of its first input, gives the whole of it.
    pub fn record_gathering(
        &self,
        tensor: Tensor<B>,
        inputs: &[&Var<B>],
        backward: impl FnOnce(&B::Buf, &[bool], Gathered<B::Buf>) -> Grads<B> + 'a,
    ) -> Var<B> {
        self.push(tensor, inputs.iter().map(|v| v.id).collect(), Origin::Op(Box::new(backward)))
    }

    /// Records a scalar that was computed from `input` together with its gradient.
    pub fn record_scalar(&self, scalar: Tensor<B>, input: &Var<B>, gradient: B::Buf) -> Var<B> {
        self.push(scalar, vec![input.id], Origin::Scalar(gradient))
    }

    fn push(&self, tensor: Tensor<B>, inputs: Vec<usize>, origin: Origin<'a, B>) -> Var<B> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { inputs, origin, range: nvtx::current() });
        Var { tensor, id: nodes.len() - 1 }
    }

    /// Gradients of the scalar `loss` with respect to each of `wrt`, in that order. The tape is used up, and what it
    /// saved is freed as the walk passes.
    ///
    /// # Errors
    /// [`Error::Shape`] if `loss` is not a scalar, or does not depend on one of `wrt`.
    pub fn backward(self, loss: &Var<B>, wrt: &[&Var<B>]) -> Result<Vec<Tensor<B>>> {
        if loss.shape().len() != 1 {
            return Err(Error::Shape {
                op: "backward",
                expected: "a scalar loss".into(),
                got: format!("{:?}", loss.shape()),
            });
        }
        self.walk(loss, None, wrt)
    }

    /// The vector-Jacobian product: what [`Tape::backward`] does, from the gradient `dy` of any `output`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `output` does not depend on one of `wrt`.
    pub fn pull_back(self, output: &Var<B>, dy: B::Buf, wrt: &[&Var<B>]) -> Result<Vec<Tensor<B>>> {
        self.walk(output, Some(dy), wrt)
    }

    /// From the gradient of `output`, or from that of a scalar with respect to itself, which nobody needs to write down.
    fn walk(self, output: &Var<B>, dy: Option<B::Buf>, wrt: &[&Var<B>]) -> Result<Vec<Tensor<B>>> {
        let backend = self.backend;
        let one = || backend.full(1, 1.0);
        let from_one = dy.is_none();
        let mut nodes = self.nodes.into_inner();
        let wanted = reaching(&nodes, wrt);
        let first_use = first_uses(&nodes);
        let mut grads: Vec<Option<B::Buf>> = nodes.iter().map(|_| None).collect();
        let mut kept: Vec<Option<B::Buf>> = wrt.iter().map(|_| None).collect();
        grads[output.id] = dy;
        while let Some(node) = nodes.pop() {
            let id = nodes.len();
            let mut dy = grads[id].take();
            if dy.is_none() && !(from_one && id == output.id) {
                continue;
            }
            let needs: Vec<bool> = node.inputs.iter().map(|&i| wanted[i]).collect();
            let _range = nvtx::again(node.range.as_ref());
            let gradients = match node.origin {
                _ if !needs.contains(&true) => Vec::new(),
                Origin::Leaf => Vec::new(),
                Origin::Scalar(gradient) => match &dy {
                    None => vec![Some(gradient)],
                    Some(dy) => vec![Some(backend.scale_by(dy, &gradient))],
                },
                Origin::Op(backward) => {
                    let first = node.inputs[0];
                    // Whoever wants the gradient of `first` itself wants no backend to go on with it.
                    let asked = wrt.iter().any(|v| v.id == first);
                    let once = node.inputs.iter().filter(|&&input| input == first).count() == 1;
                    let gathered = match needs[0] && once && !asked && first_use[first] == id {
                        true => Gathered::Rest(grads[first].take()),
                        false => Gathered::Part,
                    };
                    backward(dy.get_or_insert_with(one), &needs, gathered)
                }
            };
            for (&input, gradient) in node.inputs.iter().zip(gradients) {
                let Some(gradient) = gradient else { continue };
                match &mut grads[input] {
                    Some(sum) => backend.axpy(1.0, &gradient, sum),
                    empty => *empty = Some(gradient),
                }
            }
            if let Some(slot) = wrt.iter().position(|v| v.id == id) {
                kept[slot] = Some(dy.unwrap_or_else(one));
            }
        }
        wrt.iter()
            .zip(kept)
            .map(|(v, gradient)| {
                gradient.map(|buf| Tensor::new(buf, v.shape().clone())).ok_or_else(|| Error::Shape {
                    op: "backward",
                    expected: "an output that depends on every requested variable".into(),
                    got: format!("no path to variable {} of shape {:?}", v.id, v.shape()),
                })
            })
            .collect()
    }
}

/// Per node, which one uses it first, and so is the last to contribute to its gradient; itself, if none does.
fn first_uses<B: Backend>(nodes: &[Node<'_, B>]) -> Vec<usize> {
    let mut first: Vec<usize> = (0..nodes.len()).collect();
    for (id, node) in nodes.iter().enumerate().rev() {
        node.inputs.iter().for_each(|&input| first[input] = id);
    }
    first
}

/// Per node, whether one of `wrt` is the node or reaches it. Inputs come before the nodes that use them.
fn reaching<B: Backend>(nodes: &[Node<'_, B>], wrt: &[&Var<B>]) -> Vec<bool> {
    let mut reaching = vec![false; nodes.len()];
    for v in wrt {
        reaching[v.id] = true;
    }
    for (id, node) in nodes.iter().enumerate() {
        reaching[id] |= node.inputs.iter().any(|&i| reaching[i]);
    }
    reaching
}
