//! Reverse-mode differentiation.
//!
//! A forward pass pushes one node per op: its inputs and a closure that turns the output's gradient into the inputs'
//! gradients. [`Tape::backward`] walks the nodes from the last to the first, but only those on a path from one of the
//! requested variables, and tells each closure which of its inputs are. So a step of an attack, which asks for the
//! gradient of the image alone, computes no weight gradient.

use std::cell::RefCell;
use std::sync::Arc;

use crate::backend::{Backend, Gathered, Memory, sum_gathered};
use crate::error::{Error, Result};
use crate::profile;
use crate::tensor::{Shape, Tensor};

/// Gradients of an op's inputs: `None` where `needs` was false.
pub type Grads<B> = Vec<Option<<B as Memory>::Buf>>;

/// `(dy, needs, gathered) -> gradients of the inputs`.
type Backward<'a, B> = Box<dyn FnOnce(&<B as Memory>::Buf, &[bool], Gathered<<B as Memory>::Buf>) -> Grads<B> + 'a>;

struct Node<'a, B: Backend> {
    inputs: Vec<usize>,
    /// `None` for a leaf.
    backward: Option<Backward<'a, B>>,
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
        self.push(tensor, Vec::new(), None)
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
        self.push(tensor, inputs.iter().map(|v| v.id).collect(), Some(Box::new(backward)))
    }

    fn push(&self, tensor: Tensor<B>, inputs: Vec<usize>, backward: Option<Backward<'a, B>>) -> Var<B> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { inputs, backward, range: profile::current() });
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
        let one = self.backend.full(1, 1.0);
        self.pull_back(loss, one, wrt)
    }

    /// The vector-Jacobian product: what [`Tape::backward`] does, from the gradient `dy` of any `output`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `output` does not depend on one of `wrt`.
    pub fn pull_back(self, output: &Var<B>, dy: B::Buf, wrt: &[&Var<B>]) -> Result<Vec<Tensor<B>>> {
        let mut nodes = self.nodes.into_inner();
        let wanted = reaching(&nodes, wrt);
        let first_use = first_uses(&nodes);
        let mut grads: Vec<Option<B::Buf>> = nodes.iter().map(|_| None).collect();
        let mut kept: Vec<Option<B::Buf>> = wrt.iter().map(|_| None).collect();
        grads[output.id] = Some(dy);
        while let Some(node) = nodes.pop() {
            let id = nodes.len();
            let Some(dy) = grads[id].take() else { continue };
            if let Some(backward) = node.backward.filter(|_| node.inputs.iter().any(|&i| wanted[i])) {
                let _range = profile::again(node.range.as_ref());
                let needs: Vec<bool> = node.inputs.iter().map(|&i| wanted[i]).collect();
                let first = node.inputs[0];
                let once = node.inputs.iter().filter(|&&input| input == first).count() == 1;
                let gathered = match needs[0] && once && first_use[first] == id {
                    true => Gathered::Rest(grads[first].take()),
                    false => Gathered::Part,
                };
                for (&input, gradient) in node.inputs.iter().zip(backward(&dy, &needs, gathered)) {
                    let Some(gradient) = gradient else { continue };
                    match &mut grads[input] {
                        Some(sum) => self.backend.axpy(1.0, &gradient, sum),
                        empty => *empty = Some(gradient),
                    }
                }
            }
            if let Some(slot) = wrt.iter().position(|v| v.id == id) {
                kept[slot] = Some(dy);
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
