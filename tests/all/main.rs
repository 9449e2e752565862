//! All integration tests, one binary. What the modules hold:
//!
//! | module | what it is |
//! |---|---|
//! | [`compare`] | `assert_close`, the comparator of floating-point arrays |
//! | [`numdiff`] | `check_gradient`, central differences |
//! | [`oracle`] | values computed by PyTorch, read from `tests/oracle/*.safetensors` |

mod compare;
mod numdiff;
mod oracle;
