//! The lab: a laptop, an attacker and an Internet made of namespaces on this machine, in which real
//! programs act out the theft that Keytrail is there to confirm.
//!
//! Nothing in here pretends to be a part of the product. The MCP host, the MCP server, the `aws`
//! command and the AWS services are real programs in real network namespaces; what stands in for
//! the outside world (the model behind the agent, the edge of AWS that terminates TLS, the thief's
//! collector, the package registry) is a small server of this crate, run as a process of its own.
//! The CloudTrail records are derived from the requests that the edge really received.
//!
//! * [`lab`] builds and tears down the stage; [`lab::install`] fetches the real programs.
//! * [`product`] starts the correlator and the sensor as a user would and reads their API.
//! * [`scenario`] plays the theft and the benign session; the `demo` program and the end-to-end
//!   tests are thin callers of it.
//! * [`probe`] says what a test needs and why it is skipped; [`traces`] what a run left behind.
//! * [`canary`] proves that no secret reached a file that the system wrote.

pub mod canary;
pub mod lab;
pub mod probe;
pub mod product;
pub mod scenario;
pub mod story;
pub mod traces;
